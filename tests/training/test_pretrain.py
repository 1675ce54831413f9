"""The pre-training loop: what it leaves, how it stops, and what it refuses."""

import importlib.metadata
import json
import math
import os
import signal

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import Trainer, ViTMAEConfig, ViTMAEModel

from deepavfusion import DeepAVFusionForPreTraining
from deepavfusion.training.pretrain import main
from deepavfusion.training.runs import arguments as runs_arguments
from deepavfusion.training.tasks import base, pretraining

from .stand_in import TINY_RECIPE, StandInClips


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the loop on stand-in clips; gives the exit code. Clips named in `broken` and `poisoned` are bad."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY_RECIPE)

    def start(folder, *arguments, broken=(), poisoned=(), clips=StandInClips, figures=False):
        def build(source, config, split, train, seed, task):
            bad = {"broken": broken, "poisoned": poisoned} if train else {}
            return clips(config, source["train_size"] if train else source["eval_size"], train, **bad)

        monkeypatch.setattr(base, "build_dataset", build)
        if not figures:  # they take most of a short run's time
            monkeypatch.setattr(pretraining, "draw_reconstructions", lambda *arguments: None)
            monkeypatch.setattr(pretraining, "training_curves", lambda *arguments: None)
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()  # otherwise a second run in this process would inherit the first one's precision
        return main([str(recipe), f"run.output_dir={tmp_path / folder}", *arguments])

    yield start
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def metrics(folder, kind):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def weights(folder):
    return load_file(folder / "model.safetensors")


def largest_difference(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_a_run_leaves_a_hub_folder_and_says_where(run, tmp_path, capsys):
    assert run("out", "optim.epochs=8", "optim.base_lr=0.1", figures=True) == 0
    folder = tmp_path / "out"
    printed = capsys.readouterr().out
    for name in ("reconstructions.png", "training_curves.png", "README.md"):
        assert (folder / name).stat().st_size > 1000
        assert name in printed
    assert "deepavfusion embed CLIP.mp4 --model" in printed
    assert {"config.json", "model.safetensors", "processor_config.json", "recipe.yaml"} <= set(os.listdir(folder))
    assert "modeling_deepavfusion.py" in os.listdir(folder)

    found = json.loads((folder / "evaluation.json").read_text())
    assert found["metrics"]["loss"] < found["before"]["loss"] - 0.05
    assert found["metrics"]["chance_accuracy"] == pytest.approx(2 / 11)
    assert found["training"]["steps"] == 32
    assert found["training"]["clips_seen"] == 256
    for row in ("fusion", "image", "audio", "all"):
        score = f"{100 * found['metrics'][f'{row}_accuracy']:.1f} %"
        assert any(line.startswith(row) and score in line for line in printed.splitlines())

    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.license == "apache-2.0"
    listed = {evaluation.metric_name: evaluation.metric_value for evaluation in card.data.eval_results}
    assert listed["1-NN accuracy (fusion)"] == round(found["metrics"]["fusion_accuracy"], 4)
    assert "tinted noise" in card.text
    assert "training_curves.png" in card.text
    assert f"torch {importlib.metadata.version('torch')}" in card.text
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["optim"]["epochs"] == 8.0

    model = DeepAVFusionForPreTraining.from_pretrained(folder)
    assert largest_difference(model.state_dict(), weights(folder)) == 0.0
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_log_lines_and_records_hold_every_part(run, tmp_path, capsys):
    assert run("out", "run.eval_epochs=1") == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("step 3/8"))
    for part in ("epoch", "loss", "image", "audio", "lr", "grad", "samples/s"):
        assert part in line
    records = metrics(tmp_path / "out", "train")
    assert [record["step"] for record in records] == [3, 6, 8]
    for record in records:
        assert record["loss"] == pytest.approx(record["image_loss"] + record["audio_loss"], rel=1e-5)
    assert [record["step"] for record in metrics(tmp_path / "out", "evaluation")] == [0, 4, 8]


def test_learning_rate_follows_the_schedule(run, tmp_path):
    assert run("out", "run.log_steps=1", "optim.min_lr=1e-5") == 0
    lr = [record["learning_rate"] for record in metrics(tmp_path / "out", "train")]
    top = 1e-2 * 8 / 256
    assert lr[:5] == pytest.approx([top / 8, top / 4, top / 2, top * 3 / 4, top])
    assert lr[6] == pytest.approx(1e-5 + (top - 1e-5) / 2)


def test_accumulated_batches_equal_one_large_batch(run, tmp_path):
    assert run("one", "optim.batch_size=8") == 0
    assert run("four", "optim.batch_size=2", "optim.gradient_accumulation=4") == 0
    assert largest_difference(weights(tmp_path / "one"), weights(tmp_path / "four")) < 5e-5
    losses = [[r["loss"] for r in metrics(tmp_path / name, "train")] for name in ("one", "four")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_same_seed_same_run_other_seed_another(run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(name, f"run.seed={seed}") == 0
    assert largest_difference(weights(tmp_path / "a"), weights(tmp_path / "b")) == 0.0
    assert largest_difference(weights(tmp_path / "a"), weights(tmp_path / "c")) > 0.01


class Terminating(StandInClips):
    """Sends SIGTERM to this process while the sixth batch is read."""

    def __getitems__(self, indices):
        samples = super().__getitems__(indices)
        if self.train and len(self.read) == 48:
            os.kill(os.getpid(), signal.SIGTERM)
        return samples


def test_sigterm_saves_the_step_at_hand_and_the_run_goes_on(run, tmp_path, capsys):
    assert run("whole", "run.save_epochs=9") == 0
    before = signal.getsignal(signal.SIGTERM)
    assert run("stopped", "run.save_epochs=9", clips=Terminating) == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert os.listdir(tmp_path / "stopped" / "checkpoints") == ["checkpoint-6"]
    stopped = "stopped by SIGTERM after step 6; checkpoint saved; run the same command to resume"
    assert stopped in capsys.readouterr().out
    assert run("stopped", "run.save_epochs=9") == 0
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "stopped")) == 0.0
    for kind in ("train", "evaluation"):
        losses = [[r["loss"] for r in metrics(tmp_path / name, kind)] for name in ("whole", "stopped")]
        assert losses[0] == losses[1]


def test_a_changed_recipe_is_refused_unless_told(run, tmp_path, capsys):
    assert run("out") == 0
    assert run("out", "optim.weight_decay=0.1") == 2
    error = capsys.readouterr().err
    assert "optim.weight_decay: 0.05 -> 0.1" in error
    assert "run.allow_changed_recipe=true" in error
    further = ["optim.epochs=3", "run.allow_changed_recipe=true"]
    assert run("out", *further) == 2
    assert "run.overwrite=true" in capsys.readouterr().err
    assert run("out", *further, "run.overwrite=true") == 0
    assert metrics(tmp_path / "out", "train")[-1]["step"] == 12
    assert run("out", "data.max_unreadable_fraction=0.5", "optim.epochs=3") == 0  # changes no weights
    assert "nothing to do" in capsys.readouterr().out
    assert run("out", "run.resume=false", "run.overwrite=true") == 0
    assert metrics(tmp_path / "out", "train")[-1]["step"] == 8


def test_a_foreign_folder_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my notes")
    assert run("mine") == 2
    assert "it is a folder of your own" in capsys.readouterr().err
    assert (tmp_path / "mine" / "README.md").read_text() == "my notes"
    assert run("tiny.yaml") == 2
    assert "is a file" in capsys.readouterr().err


def test_broken_clips_are_skipped_named_and_counted(run, tmp_path, capsys):
    assert run("out", "data.max_unreadable_fraction=0.1", broken=[3, 17]) == 0
    printed = capsys.readouterr().out
    assert printed.count("skipped, cannot be read: clip-3.mp4: no decodable frame") == 1
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["training"]["skipped_clips"] == dict.fromkeys(("clip-3.mp4", "clip-17.mp4"), "no decodable frame")
    assert found["training"]["clips_seen"] == 2 * (32 - 2)
    assert "Clips that could not be read: 2, listed" in (tmp_path / "out" / "README.md").read_text()


def test_a_compiled_run_learns_the_same_and_is_not_compiled_anew_for_short_batches(run, tmp_path, monkeypatch):
    monkeypatch.setattr(runs_arguments, "_BACKEND", "eager")
    assert run("out", broken=[3, 17]) == 0
    counters.clear()
    assert run("compiled", "run.compile=yes", broken=[3, 17]) == 0
    assert counters["stats"]["unique_graphs"] == 1
    assert largest_difference(weights(tmp_path / "out"), weights(tmp_path / "compiled")) < 1e-6


@pytest.mark.slow
def test_inductor_learns_the_same(run, tmp_path):
    assert run("out", "optim.mixed_precision=no") == 0
    assert run("compiled", "optim.mixed_precision=no", "run.compile=yes") == 0
    losses = [[r["loss"] for r in metrics(tmp_path / name, "train")] for name in ("out", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (
        largest_difference(weights(tmp_path / "out"), weights(tmp_path / "compiled")) < 1e-4
    )  # AdamW magnifies rounding


def test_too_many_broken_clips_stop_the_run_with_a_list(run, capsys):
    assert run("out", broken=[3, 4, 5]) == 0
    assert run("strict", "data.max_unreadable_fraction=0", broken=[3]) == 1
    assert run("more", broken=[3, 4, 5, 6]) == 1
    error = capsys.readouterr().err
    assert "4 of 32 clips cannot be read, more than data.max_unreadable_fraction = 0.01" in error
    assert "clip-3.mp4: no decodable frame" in error


def test_a_batch_without_a_single_readable_clip_moves_nothing_and_breaks_nothing(run, tmp_path):
    assert run("out", "data.max_unreadable_fraction=1.0", "optim.weight_decay=0.0", broken=range(32)) == 0
    assert run("still", "optim.base_lr=1e-30", "optim.weight_decay=0.0") == 0
    assert largest_difference(weights(tmp_path / "out"), weights(tmp_path / "still")) < 1e-20


def test_nan_stops_with_the_clips_of_the_batch(run, tmp_path, capsys):
    assert run("out", "run.save_epochs=0.25", poisoned=[5]) == 1
    error = capsys.readouterr().err
    assert "The loss of step" in error
    assert "clip-5.mp4" in error
    assert error.count(".mp4") == 8
    for checkpoint in (tmp_path / "out" / "checkpoints").glob("checkpoint-*"):
        assert all(bool(tensor.isfinite().all()) for tensor in weights(checkpoint).values())


def test_gradients_are_clipped_and_a_gradient_that_is_not_finite_stops(run, tmp_path, monkeypatch, capsys):
    assert run("out", "optim.clip_grad_norm=1e-9", "optim.weight_decay=0.0") == 0
    assert run("free", "optim.weight_decay=0.0") == 0
    norms = [[r["grad_norm"] for r in metrics(tmp_path / name, "train")] for name in ("out", "free")]
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-2)  # reported as it was before clipping
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda *arguments: torch.tensor(float("inf")))
    assert run("bad") == 1
    assert "The gradient of step 1 is not finite" in capsys.readouterr().err


def test_bf16_and_checkpointing_train(run, tmp_path):
    assert run("out", "optim.mixed_precision=bf16", "model.gradient_checkpointing=true") == 0
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "out").values())
    assert run("plain") == 0
    losses = [[r["loss"] for r in metrics(tmp_path / name, "train")] for name in ("out", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_a_run_can_start_from_an_earlier_model(run, tmp_path):
    assert run("first") == 0
    assert run("second", f"model.init_from={tmp_path / 'first'}", "run.seed=9", "model.hidden_size=64") == 0
    found = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("first", "second")]
    assert found[1]["architecture"]["hidden_size"] == 32
    assert found[1]["before"]["image_accuracy"] == found[0]["metrics"]["image_accuracy"]
    assert found[1]["training"]["initial_weights"].endswith("first")
    assert "before training" in (tmp_path / "second" / "README.md").read_text()


def test_a_tower_from_a_unimodal_model_starts_slowly(run, tmp_path, capsys):
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTMAEModel(ViTMAEConfig(image_size=48, patch_size=16, **sizes)).save_pretrained(tmp_path / "mae")
    assert run("out", f"model.init_image={tmp_path / 'mae'}", "optim.weight_decay=0.0", "run.keep_checkpoints=9") == 0
    start = load_file(tmp_path / "mae" / "model.safetensors")["embeddings.patch_embeddings.projection.weight"]
    name = "deepavfusion.{}.patch_embed.projection.weight"
    moved = [(weights(tmp_path / "out")[name.format("image")] - start).abs().mean()]
    assert 0 < float(moved[0]) < 2e-3
    first = weights(tmp_path / "out" / "checkpoints" / "checkpoint-2")
    # Until step 2 of 8 the learning rate has been (1/8, 1/4) of its top, times sin^2(pi / 16, pi / 8) for the tower.
    rates = [math.sin(math.pi / 16) ** 2 / 8, math.sin(math.pi / 8) ** 2 / 4]
    moved = float((first[name.format("image")] - start).abs().max())
    assert moved == pytest.approx(1e-2 * 8 / 256 * sum(rates), rel=0.05)
    assert "mae" in json.loads((tmp_path / "out" / "evaluation.json").read_text())["training"]["initial_weights"]
    assert run("bad", f"model.init_image={tmp_path / 'tiny.yaml'}") == 2
    assert "model.init_image / model.init_audio cannot be used" in capsys.readouterr().err


def test_data_that_cannot_be_used_are_refused(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    words = ["folder", f"run.output_dir={tmp_path / 'out'}", "model.hidden_size=48", "run.cpu=true"]
    assert main(words) == 2
    assert "data.path is missing" in capsys.readouterr().err
    assert main([*words, f"data.path={tmp_path / 'clips'}"]) == 2
    assert "The recipe's data cannot be used" in capsys.readouterr().err


class UnlabeledClips(StandInClips):
    def collate(self, samples):
        return {key: value for key, value in super().collate(samples).items() if key != "labels"}


class MultiLabelClips(StandInClips):
    def collate(self, samples):
        batch = super().collate(samples)
        batch["labels"] = torch.nn.functional.one_hot(batch["labels"], 5).float()
        return batch


def test_clips_without_labels_have_losses_and_no_probe(run, tmp_path, capsys):
    assert run("out", clips=UnlabeledClips) == 0
    assert "Nearest neighbors" not in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "evaluation.json").read_text())["metrics"]
    assert {"loss", "image_loss", "audio_loss", "image_oracle_loss", "audio_saved_few"} < set(metrics)
    assert not [name for name in metrics if "accuracy" in name or "whitened" in name or "linear" in name]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.eval_results is None
    assert "No nearest-neighbor scores: the held-out clips have no labels." in card.text


def test_a_batch_larger_than_the_training_set_is_explained(run, capsys):
    assert run("out", "data.train_size=4", "optim.batch_size=16", "optim.epochs=1", "run.eval_epochs=1") == 0
    printed = capsys.readouterr().out
    assert "larger than the training set: 1 step of 16 clips from 4 make 4 epochs." in printed
    assert "Trained for 1 step from random weights." in printed
    assert run("fits", "optim.epochs=1", "run.eval_epochs=1") == 0
    assert "larger than the training set" not in capsys.readouterr().out


def test_clips_with_several_labels_are_scored_by_ranking(run, tmp_path, capsys):
    assert run("out", clips=MultiLabelClips) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {"fusion_map", "fusion_auc"} < set(found["metrics"])
    assert (found["metrics"]["chance_map"], found["metrics"]["chance_auc"]) == (pytest.approx(0.25), 0.5)
    assert "1-NN mAP" in capsys.readouterr().out


def test_swin_decoders_and_video_train(run, tmp_path):
    class VideoClips(StandInClips):
        def _clip(self, index):
            (image, sound, label), path, index = super()._clip(index)
            return (image.expand(4, -1, -1, -1), sound, label), path, index

    video = ["model.num_frames=4", "model.tubelet_size=2", "model.image_decoder_type=plain", "optim.epochs=0.5"]
    assert run("video", *video, clips=VideoClips) == 0
    assert run("swin", "model.audio_decoder_type=swin", "optim.epochs=0.5") == 0
    assert "4 x 48 x 48" in (tmp_path / "video" / "README.md").read_text()


OBJECTIVES = {
    "align": ("loss", "image_loss", "audio_loss", "alignment_loss"),
    "jepa": ("loss", "invariance_loss", "sigreg_loss"),
}
RECALLS = {f"{name}_r{k}" for name in ("audio_to_image", "image_to_audio", "chance") for k in (1, 5, 10)}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_other_objectives_train_and_report_their_losses_and_retrieval(run, tmp_path, capsys, objective):
    settings = [f"model.pretraining_objective={objective}", "optim.epochs=12", "optim.base_lr=0.1", "run.save_epochs=6"]
    assert run("out", *settings, figures=True) == 0
    folder, printed = tmp_path / "out", capsys.readouterr().out
    losses = OBJECTIVES[objective]
    records = metrics(folder, "train")
    assert all(tuple(name for name in record if name.endswith("loss")) == losses for record in records)
    # What is compared in the batch falls; every batch has other clips, so from 2 log lines to 2 log lines.
    first, last = (sum(record[losses[-1]] for record in part) for part in (records[:2], records[-2:]))
    assert last < 0.9 * first

    found = json.loads((folder / "evaluation.json").read_text())
    assert set(found["metrics"]) > RECALLS
    assert (found["metrics"]["chance_r1"], found["metrics"]["chance_r10"]) == (1 / 12, 10 / 12)
    for name in ("image_loss", "image_oracle_loss", "image_saved_few"):
        assert (name in found["metrics"]) == (objective == "align")
    assert found["architecture"]["pretraining_objective"] == objective
    assert "Retrieval: among all held-out clips" in found["protocol"]
    assert ("mean squared error of masked patches" in found["protocol"]) == (objective == "align")
    assert "audio to image, before training" in printed
    assert ("Held-out losses" in printed) == (objective == "align")
    assert (folder / "training_curves.png").stat().st_size > 1000
    card = (folder / "README.md").read_text()
    assert (folder / "reconstructions.png").exists() == ("reconstructions.png" in card) == (objective == "align")
    assert {"align": "telling matching pairs", "jepa": "joint embedding"}[objective] in card
    assert "\n\n\n" not in card
    model = DeepAVFusionForPreTraining.from_pretrained(folder)
    assert largest_difference(model.state_dict(), weights(folder)) == 0.0


def test_objectives_that_compare_clips_of_a_batch_keep_its_size(run, tmp_path, capsys):
    """Reconstruction may go on with other micro-batches; the others may not."""
    halves = ["optim.batch_size=4", "optim.gradient_accumulation=2"]
    for objective in ("align", "reconstruction"):
        settings = [f"model.pretraining_objective={objective}", "run.save_epochs=0.25"]
        assert run(objective, *settings, clips=Terminating) == 143
        capsys.readouterr()
        code = run(objective, *settings, *halves)
        assert code == (2 if objective == "align" else 0)
    assert run("align", "model.pretraining_objective=align", "run.save_epochs=0.25") == 0


def test_an_earlier_model_goes_on_with_another_objective(run, tmp_path):
    assert run("first", "optim.epochs=0.5") == 0
    start = [f"model.init_from={tmp_path / 'first'}", "optim.epochs=0.5"]
    assert run("second", *start, "model.pretraining_objective=jepa", "model.sigreg_weight=0.2") == 0
    assert run("third", f"model.init_from={tmp_path / 'second'}", "optim.epochs=0.5") == 0
    for name, objective in (("second", "jepa"), ("third", "jepa")):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert (config["pretraining_objective"], config["sigreg_weight"]) == (objective, 0.2)
        assert "sigreg_loss" in metrics(tmp_path / name, "train")[0]


def test_masks_that_hide_a_modality_train_with_every_objective(run):
    masks = "task.masks=[{audio: 1}, {image: 0}]"
    for objective in OBJECTIVES:
        assert run(objective, masks, f"model.pretraining_objective={objective}", "optim.epochs=1") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.fsdp=true"], "needs several processes"),
        (["optim.fsdp=true", "optim.mixed_precision=fp16"], "use bf16"),
        (["model.patch_size=7"], "Invalid model section"),
        (["optim.epoch=3"], "epochs"),
        (["run.trackers=wandb"], "wandb to be installed"),
        (["run.trackers=weights"], "only"),
    ],
)
def test_unusable_runs_are_refused_before_they_start(run, capsys, arguments, message):
    assert run("out", *arguments) == 2
    assert message in capsys.readouterr().err


def test_tensorboard_gets_the_records(run, tmp_path):
    pytest.importorskip("tensorboard")
    assert run("out", "run.trackers=tensorboard") == 0
    assert list((tmp_path / "out").rglob("events.out.tfevents*"))


def test_help_and_no_arguments(capsys):
    assert main(["--help"]) == 0
    found = capsys.readouterr().out
    assert "  scenes_tiny " in found
    assert "run.save_epochs  float" in found
    assert main([]) == 2
