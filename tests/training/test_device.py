"""What only an accelerator executes, on a stand-in for one: whole runs, and everything that asks for the device."""

import json
import math
import shutil

import pytest
import torch
from torch.utils._pytree import tree_leaves

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.publishing.latency import device_name
from deepavfusion.training import evaluate, finetune, pretrain, probe
from deepavfusion.training.data.loading import evaluation_loader
from deepavfusion.training.experiments.benchmark import cases, timing
from deepavfusion.training.experiments.benchmark.__main__ import parse_arguments
from deepavfusion.training.experiments.measurement import describe_machine
from deepavfusion.training.runs import trainer
from deepavfusion.training.tasks import base, evaluation, pretraining
from deepavfusion.training.wording import count
from tests.fake_device import NAME, DeviceTensor, fake_device, host_waits

from .stand_in import TINY_RECIPE, StandInClips
from .test_finetune import arguments, pretrained  # noqa: F401

NAMES = {"cuda": NAME, "mps": "mps"}
SHORT = ["data.train_size=16", "data.eval_size=4", "optim.epochs=1", "run.log_steps=1"]
OPTIONS = {
    "recognition": ["task.mixup=0.5", "task.label_smoothing=0.1", "task.modality_dropout=0.5"],
    "localization": ["optim.batch_size=2"],  # a pair, so that the sound of another clip is in no batch
}
SMALL = ["run.cpu=false", "data.train_size=8", "data.eval_size=4", "optim.epochs=1", "run.num_examples=1"]


@pytest.fixture(autouse=True)
def gathering(monkeypatch):
    """What processes exchange as objects is on the CPU: pickled, a tensor would want its device at the other end."""

    def gather_object(values):
        assert not [value for value in tree_leaves(values) if isinstance(value, DeviceTensor)]
        return values

    for module in (evaluation, trainer):
        monkeypatch.setattr(module, "gather_object", gather_object)


@pytest.fixture
def pretrain_on(tmp_path, monkeypatch):
    """Pre-trains on the device that there is; gives the content of evaluation.json. `broken` clips are unreadable."""
    unreadable = []

    def build(source, config, split, train, seed, task):
        return StandInClips(config, source["train_size"] if train else source["eval_size"], train, unreadable * train)

    monkeypatch.setattr(base, "build_dataset", build)
    monkeypatch.setattr(pretraining, "draw_reconstructions", lambda *arguments: None)
    monkeypatch.setattr(pretraining, "training_curves", lambda *arguments: None)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY_RECIPE)

    def run(name, *extra, broken=()):
        unreadable[:] = broken
        assert pretrain.main([str(recipe), f"run.output_dir={tmp_path / name}", "run.cpu=false", *extra]) == 0
        return json.loads((tmp_path / name / "evaluation.json").read_text())

    return run


@pytest.mark.parametrize(("device_type", "count"), [("cuda", 2), pytest.param("mps", 1, marks=pytest.mark.slow)])
def test_pretraining(device_type, count, pretrain_on, tmp_path, capsys):
    """The whole run, evaluation, checkpoints and report included, ends in the numbers of a CPU; and it resumes.

    Of two GPUs, one process uses the first.
    """
    size = "data.train_size=16"
    expected = pretrain_on("cpu", "run.cpu=true", size)
    with fake_device(device_type, count):
        found = pretrain_on("device", size)
        shutil.rmtree(tmp_path / "device" / "checkpoints" / "checkpoint-4")
        (tmp_path / "device" / "evaluation.json").unlink()
        resumed = pretrain_on("device", size)
    for run in (found, resumed):
        assert run["training"]["device"] == f"1 x {NAMES[device_type]}"
        assert run["float32_matmul_precision"] == "high"
        for at in ("before", "metrics"):
            # Fractions of losses that the other modality saves are differences of nearly equal numbers.
            assert run[at] == pytest.approx(expected[at], rel=1e-4, abs=1e-6)
    assert "resumed after step 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "recipe", "device_type", "precision"),
    [
        pytest.param(finetune, "recognition", "cuda", "fp16", id="recognition-cuda-fp16"),
        pytest.param(finetune, "recognition", "mps", "no", id="recognition-mps"),
        pytest.param(finetune, "separation", "mps", "no", id="separation-mps"),
        pytest.param(finetune, "segmentation", "mps", "no", id="segmentation-mps"),
        pytest.param(finetune, "localization", "mps", "no", id="localization-mps"),
        pytest.param(probe, "probe", "mps", "no", id="probe-mps"),
    ],
)
def test_fine_tuning_and_evaluation(command, recipe, device_type, precision, pretrained, tmp_path):  # noqa: F811
    """MPS refuses all that CUDA does, and float64."""
    out, again = tmp_path / "out", tmp_path / "again"
    given = [*arguments(pretrained, out), *SMALL, *OPTIONS.get(recipe, []), f"optim.mixed_precision={precision}"]
    with fake_device(device_type):
        assert command.main([f"scenes_{recipe}", *given]) == 0
        assert evaluate.main([f"scenes_{recipe}", *given, "--model", str(out), "--out", str(again)]) == 0
    found, repeated = (json.loads((folder / "evaluation.json").read_text()) for folder in (out, again))
    assert found["metrics"] == repeated["metrics"]
    recorded = {"device": NAMES[device_type], "float32_matmul_precision": "high", "mixed_precision": precision}
    for name, value in recorded.items():
        assert found[name] == repeated[name] == value


def test_the_stand_in_knows_what_waits():
    host = torch.arange(4.0)
    with fake_device("cuda") as device, host_waits() as found:
        values = host.to(device, non_blocking=True)
        (values * 2).sum().masked_fill(values.sum() > 3, 0.0)
        torch.empty(4).copy_(values, non_blocking=True)
        assert found == []
        for wait in (
            lambda: values.sum().item(),
            lambda: bool(values.isfinite().all()),
            lambda: values.cpu(),
            lambda: host.to(device),
            lambda: values[values > 1],
            lambda: torch.empty(4).copy_(values),
            values.tolist,
        ):
            wait()
            assert len(found) == 1
            found.clear()


@pytest.fixture
def step_waits(monkeypatch):
    """The operations of each training step on the stand-in for which the host waits."""
    begin, end, steps = trainer.RunControl.on_step_begin, trainer.RunControl.on_step_end, []

    def on_step_begin(self, *arguments, **kwargs):
        begin(self, *arguments, **kwargs)
        found.clear()

    def on_step_end(self, *arguments, **kwargs):
        steps.append(list(found))
        end(self, *arguments, **kwargs)

    monkeypatch.setattr(trainer.RunControl, "on_step_begin", on_step_begin)
    monkeypatch.setattr(trainer.RunControl, "on_step_end", on_step_end)
    with host_waits() as found:
        yield steps


@pytest.mark.parametrize("clipping", [pytest.param("null", marks=pytest.mark.slow), "1.0"])
def test_no_step_waits_for_the_device(clipping, pretrain_on, step_waits, tmp_path):
    """What a step measures is read in the next one, and before anything is logged or saved."""
    options = ["data.train_size=32", *SHORT[1:3], f"optim.clip_grad_norm={clipping}", "run.log_steps=3"]
    pretrain_on("cpu", "run.cpu=true", *options)
    step_waits.clear()
    with fake_device("cuda"):
        pretrain_on("device", *options)
    assert step_waits == [[]] * 4
    logged = [
        [
            {name: value for name, value in json.loads(line).items() if name in ("step", "loss", "grad_norm", "epoch")}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("cpu", "device")
    ]
    for on_cpu, on_device in zip(*logged, strict=True):
        assert on_device == pytest.approx(on_cpu, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["recognition", "separation", "segmentation", "localization"])
def test_no_step_of_fine_tuning_waits(recipe, pretrained, step_waits, tmp_path):  # noqa: F811
    given = [*arguments(pretrained, tmp_path / "out"), *SMALL, *OPTIONS.get(recipe, []), "optim.mixed_precision=no"]
    with fake_device("cuda"):
        assert finetune.main([f"scenes_{recipe}", *given]) == 0
    assert step_waits
    assert not [names for names in step_waits if names]


def test_a_loss_that_is_not_finite_is_found_before_anything_is_saved(pretrain_on, tmp_path, capsys, monkeypatch):
    compute = trainer.AudioVisualTrainer.compute_loss

    def spoiled(self, model, inputs, **kwargs):
        loss = compute(self, model, inputs, **kwargs)
        if self.state.global_step == 1:
            self.current.sums += float("nan")
        return loss

    monkeypatch.setattr(trainer.AudioVisualTrainer, "compute_loss", spoiled)
    with fake_device("cuda"), pytest.raises(AssertionError):
        pretrain_on("device", "data.train_size=32", *SHORT[1:3], "run.save_epochs=0.5", "run.log_steps=10")
    assert "The loss of step 2 is not finite. The clips of its batch:" in capsys.readouterr().err
    assert not list((tmp_path / "device" / "checkpoints").glob("checkpoint-2"))


@pytest.mark.parametrize("device_type", ["cuda", pytest.param("mps", marks=pytest.mark.slow)])
def test_bfloat16(device_type, pretrain_on, monkeypatch):
    """Training and evaluation ask for autocast on the device."""
    asked, autocast = [], torch.autocast.__init__

    def record(self, device_type, dtype=None, **kwargs):
        asked.append((device_type, dtype))
        autocast(self, device_type, dtype=dtype, **kwargs)

    monkeypatch.setattr(torch.autocast, "__init__", record)
    with fake_device(device_type):
        found = pretrain_on("out", "optim.mixed_precision=bf16", *SHORT)
    assert asked.count((device_type, torch.bfloat16)) >= 3
    assert found["training"]["mixed_precision"] == found["mixed_precision"] == "bf16"


@pytest.mark.parametrize("device_type", ["cuda", pytest.param("mps", marks=pytest.mark.slow)])
def test_float16(device_type, pretrain_on, tmp_path):
    """The loss is scaled, the norm of the gradient is not; a resumed run takes the scale of its checkpoint."""

    def metrics(name):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [line["grad_norm"] for line in lines if line["kind"] == "train"]

    pretrain_on("cpu", "run.cpu=true", *SHORT)
    with fake_device(device_type):
        pretrain_on("fp16", "optim.mixed_precision=fp16", *SHORT)
        last = tmp_path / "fp16" / "checkpoints" / "checkpoint-2"
        kept = torch.load(last / "training_state.pt")["scaler"]
        assert (kept["scale"], kept["_growth_tracker"]) == (65536.0, 2)
        shutil.rmtree(last)
        (tmp_path / "fp16" / "evaluation.json").unlink()
        pretrain_on("fp16", "optim.mixed_precision=fp16", *SHORT)
    assert torch.load(last / "training_state.pt")["scaler"] == kept
    assert metrics("fp16") == pytest.approx(metrics("cpu"), rel=1e-4)


def test_overflow(pretrain_on, tmp_path, monkeypatch):
    """A step whose scaled gradient overflows is left out, and the scale halved; the run goes on."""
    factors, scale = iter([math.inf]), torch.amp.GradScaler.scale
    monkeypatch.setattr(torch.amp.GradScaler, "scale", lambda self, loss: scale(self, loss) * next(factors, 1.0))
    with fake_device("cuda"):
        pretrain_on("out", "optim.mixed_precision=fp16", *SHORT)
    state = torch.load(tmp_path / "out" / "checkpoints" / "checkpoint-2" / "training_state.pt")
    assert state["scaler"]["scale"] == 32768.0
    assert {int(moments["step"]) for moments in state["optimizer"]["state"].values()} == {1}


def test_batches_without_a_readable_clip(pretrain_on):
    """They become a blank clip on the device."""
    with fake_device("mps"):
        found = pretrain_on("out", "data.max_unreadable_fraction=1", *SHORT, broken=range(16))
    assert found["training"]["clips_seen"] == 0


def test_retrieval(pretrained, tmp_path):  # noqa: F811
    given = ["--model", str(pretrained), "data.eval_size=6", "data.cache_dir=null", "data.num_workers=0"]
    assert evaluate.main(["scenes_retrieval", *given, "--out", str(tmp_path / "cpu"), "run.cpu=true"]) == 0
    with fake_device("mps"):
        assert evaluate.main(["scenes_retrieval", *given, "--out", str(tmp_path / "mps")]) == 0
    expected, found = (json.loads((tmp_path / n / "evaluation.json").read_text()) for n in ("cpu", "mps"))
    assert found["metrics"] == expected["metrics"]
    assert found["device"] == "mps"


def test_names():
    with fake_device("cuda") as device:
        assert device_name(device) == NAME
    assert device_name(torch.device("mps")) == "mps"
    assert device_name(torch.device("cpu")) == f"cpu ({count(torch.get_num_threads(), 'thread')})"


def test_batches_are_pinned_for_cuda(pretrained, monkeypatch):  # noqa: F811
    """Every tensor of a batch, and nothing is lost of the rest."""
    clips = StandInClips(DeepAVFusionConfig.from_pretrained(pretrained), 4, train=False, broken=[2])
    (expected,) = evaluation_loader(clips, 4, 1, 0, 0)
    pinned = []
    with fake_device("cuda"):
        loader = evaluation_loader(clips, 4, 1, 0, 0)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, device=None: pinned.append(tensor) or tensor)
        (batch,) = loader
    assert len(pinned) == sum(torch.is_tensor(value) for value in expected.values()) == 4
    assert batch.keys() == expected.keys()
    for name in ("index", "labels", "pixel_values", "input_features"):
        torch.testing.assert_close(batch[name], expected[name])
    assert [tuple(clip) for clip in batch["broken"]] == expected["broken"]


def test_benchmark_waits_for_cuda_and_asks_it_for_memory(monkeypatch):
    calls = []
    memory = {"memory_allocated": 100, "max_memory_allocated": 250}
    for name in ("synchronize", "reset_peak_memory_stats", *memory):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: calls.append(name) or memory.get(name))
    with fake_device("cuda"):
        case = cases.Case("", "block", 1, True, cases.FACTORIZED, scale=0.1)
        given = parse_arguments(["--device", "cuda", "--size", "small"])
        assert given.compile
        assert timing.peak_memory(case, cases.FORMS["ours"], given) == 150
        workload = cases.Workload(case, "small", "cuda", torch.float32)
        assert min(timing.timed(workload, workload.module, bfloat16=False)) > 0
        assert describe_machine("cuda", 1)["device"] == NAME
    assert calls == [
        "synchronize",
        "reset_peak_memory_stats",
        "memory_allocated",
        "synchronize",
        "max_memory_allocated",
        "synchronize",
        "synchronize",
    ]


@pytest.mark.parametrize(
    "command", sorted(set(cli.COMMANDS) - {"convert", "data", "demo", "export", "push", "recipes", "verify"})
)
def test_all_commands_multiply_matrices_with_one_precision(command, tmp_path):
    """Before they load anything. On a GPU that is TF32: a command without it would report other numbers."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        clip, model, out = tmp_path / "clip.mp4", ["--model", str(tmp_path)], ["--out", str(tmp_path / "out")]
        clip.touch()
        (tmp_path / "config.json").write_text("{}")  # a model, as far as is looked before it is loaded
        recipes = {"pretrain": "scenes_tiny", "finetune": "scenes_recognition", "probe": "scenes_probe"}
        if command in recipes:
            words = [recipes[command], f"run.output_dir={tmp_path / 'out'}", f"model.init_from={tmp_path}"]
        elif command == "evaluate":
            words = ["scenes_retrieval", *model, *out]
        elif command == "export":
            words = ["vggsounder", str(tmp_path), str(clip), "--output", str(tmp_path / "out.pkl")]
        else:
            words = [str(clip), *model, *(out if command != "classify" else [])]
        assert cli.main([command, *words]) == 2
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
