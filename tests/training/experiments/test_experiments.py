"""Experiments of many runs: completed runs are skipped, others resume; tables of results and ablations."""

import json
import re
import sys
import time

import pytest
import torch

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.training.experiments import ablations, pretraining
from deepavfusion.training.experiments import scenes as scene_results
from deepavfusion.training.experiments.grid import Run, cost, median_with_std, run_all
from tests.training.test_finetune import SIZES, pretrained  # noqa: F401  (a fixture)
from tests.warm import warm  # noqa: F401  (a fixture)

SMALL = [
    "data.train_size=16",
    "data.eval_size=8",
    "data.cache_dir=null",
    "data.num_workers=0",
    "optim.batch_size=8",
    "optim.epochs=1",
    "optim.warmup_fraction=0.5",
    "run.cpu=true",
]
# Writes a line to the log and a result with the names of the completed runs beside it, or fails on request.
WORK = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
print("at work on", folder.name)
if "fail" in sys.argv:
    sys.exit("it went wrong")
folder.mkdir()
beside = sorted(path.name for path in folder.parent.iterdir() if (path / "result.json").is_file())
(folder / "result.json").write_text(json.dumps({"beside": beside, "threads": os.environ["OMP_NUM_THREADS"]}))
"""


def small_run(folder, *words, after=()):
    return Run(folder, (sys.executable, "-c", WORK, str(folder), *words), "result.json", after)


def test_runs_wait_for_their_dependencies_and_are_skipped_once_completed(tmp_path, capsys):
    last = small_run(tmp_path / "a_last", after=(tmp_path / "z_first",))
    first = small_run(tmp_path / "z_first")
    run_all([last, first], jobs=2, summary_line=lambda run: f"result of {run.folder.name}")
    assert last.read() == {"beside": ["z_first"], "threads": "1"}
    assert first.log.read_text().startswith("at work on z_first")
    assert cost(first)["seconds"] > 0
    assert cost(first)["peak_memory_mb"] > 1
    assert "result of a_last" in capsys.readouterr().out
    changed = first.folder.stat().st_mtime_ns, first.log.stat().st_mtime_ns
    run_all([last, first], jobs=2, summary_line=str)
    assert (first.folder.stat().st_mtime_ns, first.log.stat().st_mtime_ns) == changed
    assert "2 runs, 2 already completed" in capsys.readouterr().out


def test_a_failed_run_is_named_and_stops_only_its_dependents(tmp_path):
    broken = small_run(tmp_path / "broken", "fail")
    dependent = small_run(tmp_path / "dependent", after=(broken.folder,))
    other = small_run(tmp_path / "other")
    with pytest.raises(RuntimeError, match=r"broken: exit code 1 .*broken\.log") as caught:
        run_all([broken, dependent, other], jobs=1, summary_line=str)
    assert "it went wrong" in str(caught.value)
    assert other.completed
    assert not dependent.folder.exists()


def test_the_time_of_an_interrupted_run_is_added_up(tmp_path):
    run = small_run(tmp_path / "run")
    run_all([run], 1, str)
    once = cost(run)["seconds"]
    (run.folder / "result.json").unlink()
    run.folder.rmdir()
    started = time.time()
    run_all([run], 1, str)
    assert once < cost(run)["seconds"] <= once + time.time() - started


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_results_train_each_task_from_both_origins_and_rewrite_the_page(pretrained, tmp_path, capsys):  # noqa: F811
    page, results, out = tmp_path / "results.md", tmp_path / "results.json", tmp_path / "runs"
    page.write_text("# Title\n<!-- results:begin -->\nearlier text\n<!-- results:end -->\nrest\n")
    sizes = [f"model.{name}={value}" for name, value in SIZES.items() if not name.startswith("decoder")]
    arguments = [
        *("--pretrained", str(pretrained), "--out", str(out), "--tasks", "localization"),
        *("--results", str(results), "--page", str(page)),
        *SMALL,
        *("data.selection_size=4", "run.eval_epochs=1", "run.num_examples=1"),
        *sizes,
    ]
    assert scene_results.main(arguments) == 0
    found = json.loads(results.read_text())
    assert set(found["tasks"]) == {"localization"}
    assert found["core_minutes"] > 0
    entry = found["tasks"]["localization"]["scratch"]
    evaluation = json.loads((out / "localization-scratch-0" / "evaluation.json").read_text())
    assert entry["metrics"]["ciou_50"] == [evaluation["metrics"]["ciou_50"]]
    for start, origin in (("pretrained", pretrained), ("scratch", "null")):
        assert f"init_from: {origin}\n" in (out / f"localization-{start}-0" / "recipe.yaml").read_text()
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("rest\n")
    assert "earlier text" not in text
    assert "cIoU@0.5" in text
    # Again: nothing is trained, and the table is the same.
    capsys.readouterr()
    assert scene_results.main(arguments) == 0
    assert "2 runs, 2 already completed" in capsys.readouterr().out
    assert json.loads(results.read_text()) == found
    assert page.read_text() == text
    # --collect writes the results of the remaining runs.
    (out / "localization-scratch-0" / "evaluation.json").unlink()
    assert scene_results.main([*arguments, "--collect"]) == 0
    assert list(json.loads(results.read_text())["tasks"]["localization"]) == [
        *("pretrained", "protocol", "num_clips", "device"),
    ]
    assert not (out / "localization-scratch-0" / "evaluation.json").exists()


def test_every_task_starts_from_the_pretrained_weights_or_from_random_ones(tmp_path):
    given = scene_results.parser().parse_args(["--out", str(tmp_path), "--pretrained", "runs/own"])
    for task in scene_results.TASKS:
        assert "model.init_from=runs/own" in scene_results.make_run(task, "pretrained", 2, given).command
        assert "model.init_from=null" in scene_results.make_run(task, "scratch", 2, given).command


def test_each_seed_may_start_from_a_pretraining_of_its_own(tmp_path, capsys):
    template = str(tmp_path / "long-{seed}")
    given = scene_results.parser().parse_args(["--pretrained", template, "--seeds", "2"])
    for seed in range(2):
        run = scene_results.make_run("separation", "pretrained", seed, given)
        assert f"model.init_from={tmp_path}/long-{seed}" in run.command
    assert "model.init_from=null" in scene_results.make_run("separation", "scratch", 1, given).command
    (tmp_path / "long-0").mkdir()
    (tmp_path / "long-0" / "config.json").write_text("{}")
    assert scene_results.main(["--pretrained", template, "--seeds", "2"]) == 2
    assert "long-1;" in capsys.readouterr().err


@pytest.mark.usefixtures("warm")
def test_pretraining_is_repeated_with_every_seed_and_its_tables_are_rewritten(tmp_path, capsys):
    page, results, out = tmp_path / "results.md", tmp_path / "results.json", tmp_path / "runs"
    page.write_text("# Title\n<!-- pretraining:begin -->\nearlier text\n<!-- pretraining:end -->\n")
    arguments = [
        *(
            "--recipes",
            "scenes_tiny",
            "--seeds",
            "2",
            "--out",
            str(out),
            "--results",
            str(results),
            "--page",
            str(page),
        ),
        *SMALL,
        *("run.eval_epochs=1", "task.masks=[]", "task.probe_labels=[]"),
        *(f"model.{name}={value}" for name, value in SIZES.items()),
    ]
    assert pretraining.main(arguments) == 0
    entry = json.loads(results.read_text())["recipes"]["scenes_tiny"]
    evaluations = [json.loads((out / f"scenes_tiny-{seed}" / "evaluation.json").read_text()) for seed in range(2)]
    assert entry["seeds"] == [0, 1]
    assert entry["clips_seen"] == 16
    for kind in ("metrics", "before"):
        assert entry[kind]["image_loss"] == [evaluation[kind]["image_loss"] for evaluation in evaluations]
    assert len(set(entry["metrics"]["image_loss"])) == 2
    text = page.read_text()
    saved = median_with_std(entry["metrics"]["audio_saved_few"], 100)
    assert re.search(rf"\| audio \| few \| .* \| {re.escape(saved)} % \|", text)
    assert "2 seeds, median ± standard deviation of 16 clips" in text
    bounds = [entry["metrics"][f"image_{name}"] for name in ("loss_hidden_true", "bound_true", "bound_none")]
    saved = [(none - loss) / (none - true) for loss, true, none in zip(*bounds, strict=True)]
    assert f"image hidden entirely: {median_with_std(saved, 100, 0)} %" in text
    assert "earlier text" not in text


def test_designs_are_trained_equally_long_from_the_same_model(tmp_path):
    given = scene_results.parser().parse_args(["--out", str(tmp_path)])
    runs = scene_results.design_runs(given)
    assert len({run.folder for run in runs.values()}) == len(scene_results.DESIGNS)
    for run in runs.values():
        assert {f"model.init_from={given.pretrained}", *scene_results.DESIGN_LENGTH} <= {*run.command}
    assert "model.localization_map=attention" in runs["attention"].command


def test_table_of_designs():
    metrics = {name: 0.25 for name, _ in scene_results.SHOWN["localization"]}
    rows = scene_results.designs_table({"head": metrics | {"auc": 0.5}, "attention": metrics | {"auc": 0.125}})
    assert "AUC" in rows.splitlines()[0]
    assert rows.splitlines()[2].startswith("| head | 25.0 %")
    assert rows.splitlines()[3].endswith("| 12.5 % |")


def test_a_missing_pretrained_model_is_reported(tmp_path, capsys):
    assert scene_results.main(["--pretrained", str(tmp_path / "none")]) == 2
    assert "deepavfusion pretrain scenes_tiny_long" in capsys.readouterr().err


def test_median_with_std():
    assert median_with_std([0.5], 100) == "50.0"
    assert median_with_std([0.5, 0.7, 0.6], 100) == "60.0 ± 10.0"
    assert median_with_std([6.0, 8.0], digits=2) == "7.00 ± 1.41"


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_ablations_start_towers_from_those_trained_without_fusion(tmp_path):
    out, results = tmp_path / "runs", tmp_path / "results"
    sizes = {**SIZES, "num_hidden_layers": 4}
    arguments = [
        *("--variants", "early, factorized, unimodal start", "--out", str(out), "--results", str(results)),
        *SMALL,
        *("data.eval_size=12", "run.eval_epochs=1", "task.masks=[]"),
        *(f"model.{name}={value}" for name, value in sizes.items()),
    ]
    assert ablations.main(arguments) == 0
    found = json.loads((results / "ablations.json").read_text())["variants"]
    assert set(found) == {"no fusion", "early, factorized, unimodal start"}
    (run,) = found["early, factorized, unimodal start"]["runs"]
    assert len(run["over_training"]) >= 2
    assert 0 <= run["probe"]["fusion"] <= 1
    assert run["peak_memory_mb"] > 0
    text = (results / "ablations.md").read_text()
    assert "| no fusion |" in text
    assert text.count("| epoch |") == 2  # one table per variant
    shown = f"| {run['over_training'][-1]['epoch']:g} | {100 * run['over_training'][-1]['fusion']:.1f} |"
    assert shown in text.partition("## Over training")[2]
    # --collect writes the results of the remaining runs and trains nothing.
    removed = out / "early-factorized-unimodal-start-0" / "evaluation.json"
    kept = removed.read_bytes()
    removed.unlink()
    assert ablations.main([*arguments, "--collect"]) == 0
    assert list(json.loads((results / "ablations.json").read_text())["variants"]) == ["no fusion"]
    removed.write_bytes(kept)
    # The saved towers load like MAE checkpoints, and equal those of the model without fusion.
    source = out / "no-fusion-0"
    towers = {name: str(source / f"{name}_tower.pth") for name in ("image", "audio")}
    shape = DeepAVFusionConfig.from_pretrained(out / "early-factorized-unimodal-start-0")
    started = DeepAVFusionModel.from_unimodal_pretrained(**towers, config=shape)
    alone = DeepAVFusionForPreTraining.from_pretrained(source).base_model.state_dict()
    same = [
        torch.equal(value, alone[name])
        for name, value in started.state_dict().items()
        if name.startswith(("image.", "audio.")) and name in alone
    ]
    assert len(same) > 50
    assert all(same)
