"""`deepavfusion finetune`, `probe` and `evaluate` as a user calls them, on a handful of scenes and a tiny model."""

import json
import math
import os
import re
import shutil
import signal
import stat
import subprocess
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from transformers import AutoProcessor

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSourceSeparation,
)
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.tasks_deepavfusion import TASKS
from deepavfusion.training import evaluate, finetune, probe, verify
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.data.files import FileClips
from deepavfusion.training.data.scenes import CLASS_NAMES
from deepavfusion.training.runs import run
from deepavfusion.training.runs.checkpoints import complete_checkpoints
from deepavfusion.training.tasks import evaluation
from deepavfusion.training.tasks.recognition import Recognition
from deepavfusion.training.wording import metric_title
from deepavfusion_cli import preflight
from deepavfusion_cli.paths import FolderError
from tests.media_factory import write_media
from tests.tiny import WIDE
from tests.warm import warm_python

from .data.disk import make_clips, put

SIZES = {**WIDE, "spectrogram_length": 64, "audio_patch_size": 16}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pretrained")
    model = DeepAVFusionForPreTraining(DeepAVFusionConfig(**SIZES))
    model.save_pretrained(folder)
    DeepAVFusionProcessor.from_config(model.config).save_pretrained(folder)
    return folder


def arguments(pretrained, out, *extra):
    return [
        f"model.init_from={pretrained}",
        f"run.output_dir={out}",
        "data.train_size=24",
        "data.eval_size=8",
        "data.selection_size=4",
        "data.cache_dir=null",
        "data.num_workers=0",
        "optim.batch_size=8",
        "optim.epochs=2",
        "optim.warmup_epochs=0.5",
        "run.eval_epochs=1",
        "run.log_steps=1",
        "run.num_examples=2",
        "run.cpu=true",
        *extra,
    ]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without an accelerator")
def test_half_precision_without_an_accelerator(pretrained, tmp_path, capsys):
    """bfloat16 trains on CPUs without being told that there is nothing else; float16 has no loss scaling there."""
    given = arguments(pretrained, tmp_path / "out", "run.cpu=false", "optim.epochs=1")
    assert finetune.main(["scenes_separation", *given, "optim.mixed_precision=bf16"]) == 0
    assert finetune.main(["scenes_separation", *given, "run.resume=false", "optim.mixed_precision=fp16"]) == 2
    assert "optim.mixed_precision=fp16" in capsys.readouterr().err
    evaluation = ["--model", str(tmp_path / "out"), "--out", str(tmp_path / "again"), "optim.mixed_precision=fp16"]
    assert evaluate.main(["scenes_separation", *evaluation]) == 2
    assert "optim.mixed_precision=fp16" in capsys.readouterr().err


def test_scenes_have_classes_of_pixels(pretrained, tmp_path):
    """That of the background is the first."""
    out = tmp_path / "out"
    given = arguments(pretrained, out, "optim.epochs=1", "task.semantic=true")
    assert finetune.main(["scenes_segmentation", *given]) == 0
    assert DeepAVFusionConfig.from_pretrained(out).id2label == dict(enumerate(["background", *CLASS_NAMES]))
    assert math.isfinite(json.loads((out / "evaluation.json").read_text())["metrics"]["miou"])
    page = (out / "report.html").read_text()
    assert ">Classes</h2>" in page
    assert '<th scope="row">background</th>' in page


@pytest.mark.parametrize(
    ("task", "metric"),
    [("recognition", "top1"), ("separation", "si_sdri"), ("segmentation", "miou"), ("localization", "ciou_50")],
)
def test_each_task_trains_evaluates_reports_and_loads_again(task, metric, pretrained, tmp_path, capsys):
    out = tmp_path / task
    assert finetune.main([f"scenes_{task}", *arguments(pretrained, out)]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["task"] == task
    assert found["num_clips"] == 8
    assert found["skipped"] == 0
    assert math.isfinite(found["metrics"][metric])
    assert found["protocol"]
    names = pyarrow.parquet.read_table(out / "predictions" / "clips.parquet").column("clip").to_pylist()
    assert names[0].startswith("scene test/0")
    assert len(set(names)) == 8
    if task == "segmentation":
        assert 0 <= found["metrics"]["silent_coverage"] <= 1
        assert 0 <= found["metrics"]["sounding_coverage"] <= 1
    if task == "localization":
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        chosen = [line["threshold"] for line in lines if line["kind"] == "evaluation"]
        assert found["metrics"]["threshold"] in chosen
        assert DeepAVFusionConfig.from_pretrained(out).localization_threshold == found["metrics"]["threshold"]
    assert found["versions"]["torch"]
    page = (out / "report.html").read_text()
    assert "Examples" in page
    assert "data:image/png" in page
    assert page.count("<audio") == (6 if task == "separation" else 2)  # of two clips
    assert ">Training</h2>" in page
    assert (out / "training_curves.png").stat().st_size > 1000
    assert (">Classes</h2>" in page) == (">most frequent class<" in page) == (task == "recognition")
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    assert "library_name: transformers" in card
    published = (card, page, (out / "evaluation.json").read_text())
    assert not [text for text in published for path in (tmp_path, pretrained) if str(path) in text]
    assert "Selected the checkpoint of step" in card
    assert ": the metrics are uncertain." in card
    if task == "localization":  # of 8 frames, some show no source
        assert "Few frames with a visible source" in card
    assert "Cost:" not in card
    assert f"feeds models frames or audio alone: use `{TASKS[task].pipeline}`, as above." in card
    shown = re.findall(r'src="(example/[^"]*)"', card)
    assert shown
    assert all((out / path).is_file() for path in shown)
    assert any(path.endswith(".wav") for path in shown)
    assert re.search(r"^\| latency \| [\d.]+ ms for a forward pass", card, re.MULTILINE)
    printed = capsys.readouterr().out
    assert "held out: 8 clips of data.eval_split=test; the best checkpoint is selected on 4 clips of" in printed
    assert "data.selection_split=validation (data.selection_size limits their number)" in printed
    assert "Selected the checkpoint of step" in printed
    assert ": the metrics are uncertain." in printed
    assert f"{metric_title(metric)} " in printed
    assert f"{metric} " not in printed
    modes = {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    assert len(modes) == 1  # safetensors makes its files private to the user
    # The card's pipeline is found without this package: the configuration names it, and its code is there.
    named = json.loads((out / "config.json").read_text())["custom_pipelines"]
    assert TASKS[task].pipeline in named
    assert all((out / f"{entry['impl'].partition('.')[0]}.py").is_file() for entry in named.values())
    assert len(complete_checkpoints(out / "checkpoints")) >= 1
    crop_pct = 1.0 if task in ("segmentation", "localization") else 0.875
    assert AutoProcessor.from_pretrained(out).visual_processor.crop_pct == crop_pct
    again = tmp_path / "again"
    assert evaluate.main([f"scenes_{task}", "--model", str(out), "--out", str(again), *arguments("null", out)]) == 0
    metrics = json.loads((again / "evaluation.json").read_text())["metrics"]
    assert metrics == pytest.approx(found["metrics"], abs=1e-5)
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if f", model {out}; " in line)
    assert header.startswith(f"scenes_{task}: ")
    assert "; 8 clips of data.eval_split=test; cpu, " in header
    assert "sounding scenes" in header
    assert "report" in printed


@pytest.mark.parametrize("task", ["separation", "segmentation", "localization"])
def test_a_task_starts_from_a_recognition_model_and_is_no_classifier(task, tmp_path):
    names = {0: "dog", 1: "cello", 2: "rain"}
    config = DeepAVFusionConfig(
        **SIZES,
        id2label=names,
        label2id={name: index for index, name in names.items()},
        problem_type="single_label_classification",
    )
    classifier, out = tmp_path / "classifier", tmp_path / "out"
    DeepAVFusionForAudioVisualClassification(config).save_pretrained(classifier)
    assert finetune.main([f"scenes_{task}", *arguments(classifier, out, "optim.epochs=1")]) == 0
    assert DeepAVFusionConfig.from_pretrained(out).problem_type is None
    given = arguments("null", out)
    assert evaluate.main([f"scenes_{task}", "--model", str(out), "--out", str(tmp_path / "again"), *given]) == 0


def test_a_model_of_other_classes_does_not_fit(tmp_path, capsys):
    names = {0: "dog", 1: "cello", 2: "rain"}
    config = DeepAVFusionConfig(**SIZES, id2label=names, label2id={name: i for i, name in names.items()})
    model = tmp_path / "classifier"
    DeepAVFusionForAudioVisualClassification(config).save_pretrained(model)
    given = arguments("null", tmp_path / "out")
    words = ["scenes_recognition", "--model", str(model), "--out", str(tmp_path / "again"), *given]
    assert evaluate.main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert f"deepavfusion evaluate: model {model} does not fit the data: it has 3 classes (dog, cello, rain)" in error
    assert error.endswith(".")
    assert ", the data 16 (rising triangle, " in error
    assert "), none of which it knows" in error


def test_clips_without_classes_cannot_be_recognized(tmp_path, capsys):
    videos, model = tmp_path / "videos", tmp_path / "classifier"
    videos.mkdir()
    for number in range(3):
        write_media(videos / f"{number}.mp4", seconds=1.0)
    DeepAVFusionForAudioVisualClassification(DeepAVFusionConfig(**SIZES)).save_pretrained(model)
    for command, words in ((evaluate, ["--model", str(model)]), (finetune, [f"model.init_from={model}"])):
        out = ["--out", str(tmp_path / "out")] if command is evaluate else [f"run.output_dir={tmp_path / 'out'}"]
        given = [f"data.path={videos}", "run.cpu=true", "optim.mixed_precision=bf16"]
        code = command.main(["folder_recognition", *words, *out, *given])
        error = capsys.readouterr().err.splitlines()[-1]
        assert code == 2, error
        assert "recognition needs classes, but these clips have none" in error
        assert "Put them into one subfolder per class" in error
        assert not (tmp_path / "out").exists()


def test_a_folder_is_scored_whole_and_its_classes_are_matched_by_name(tmp_path, capsys):
    names = {0: "dog", 1: "cello", 2: "rain"}
    config = DeepAVFusionConfig(**SIZES, id2label=names, label2id={name: i for i, name in names.items()})
    model, videos, out = tmp_path / "classifier", tmp_path / "videos", tmp_path / "out"
    DeepAVFusionForAudioVisualClassification(config).save_pretrained(model)
    (clip,) = make_clips(tmp_path / "clips", 1, seconds=1.0)
    put(clip, *(videos / name for name in ("Cello/0.mp4", "Cello/1.mp4", "dog/0.mp4", "siren/0.mp4")))
    given = ["folder_recognition", "--model", str(model), f"run.output_dir={out}", f"data.path={videos}", "--overwrite"]
    given += ["data.num_workers=0", "optim.batch_size=4", "run.cpu=true", "task.dense_windows=0"]
    given.append("optim.mixed_precision=bf16")  # one precision a process, that of the other tests here
    assert evaluate.main(given) == 0
    printed = capsys.readouterr().out
    assert "the whole folder: 3 clips, 3 classes; 3 clips of data.eval_split=test; cpu, " in printed
    assert "\nCello of the data is cello of the model\n" in printed
    assert "Classes of the model without clips here (1 of 3): rain\n" in printed
    assert "Classes here that the model does not know (1): siren\n" in printed
    assert printed.count("Left out: clips of classes that the model does not know (1)") == 2  # on the first screen, too
    assert printed.count(f"It is not known on which clips {model} was trained: it has no training_clips.parquet") == 1
    found = json.loads((out / "evaluation.json").read_text())
    assert (found["num_clips"], len(found["notes"])) == (3, 4)
    assert found["left_out"] == {"clips of classes that the model does not know": 1}
    (model / "recipe.yaml").write_text(f"data: {{name: folder, path: {videos}}}")  # what was held out then
    assert evaluate.main(given) == 0
    printed = capsys.readouterr().out
    assert "1 of 4 clips held out by class: 1 clip" in printed
    assert "what data.validation_fraction=0.1 holds out is scored" in printed
    (model / "recipe.yaml").write_text("[")
    assert evaluate.main([*given, "data.validation_fraction=0.3"]) == 0
    assert "1 of 4 clips held out by class: 1 clip" in capsys.readouterr().out


def test_a_run_is_not_resumed_on_a_folder_that_changed(pretrained, tmp_path, capsys, monkeypatch):
    videos = tmp_path / "videos"
    for number, path in enumerate(make_clips(tmp_path / "clips", 6, seconds=1.0)):
        put(path, videos / "ab"[number % 2] / f"clip{number}.mp4")
    words = [f"model.init_from={pretrained}", f"run.output_dir={tmp_path / 'out'}", "optim.epochs=2"]
    words += [f"data.path={videos}", "data.num_workers=0", "run.cpu=true", "task.dense_windows=0", "optim.batch_size=2"]
    words.append("optim.mixed_precision=bf16")
    with monkeypatch.context() as patched:
        read = FileClips.__getitems__

        def stop(clips, items):
            os.kill(os.getpid(), signal.SIGTERM)
            return read(clips, items)

        patched.setattr(FileClips, "__getitems__", stop)
        assert finetune.main(["folder_recognition", *words]) == 143
    for finished in (False, True):
        (videos / "a").rename(videos / "c")
        assert finetune.main(["folder_recognition", *words]) == 2
        assert "other data (before -> now):\n  data: classes a, b -> b, c\n" in capsys.readouterr().err
        (videos / "c").rename(videos / "a")
        put(videos / "a" / "clip0.mp4", videos / "a" / "more.mp4")
        assert finetune.main(["folder_recognition", *words]) == 2
        assert "other data (before -> now):\n  data: 4 -> 5 training clips\n" in capsys.readouterr().err
        (videos / "a" / "more.mp4").unlink()
        assert finetune.main(["folder_recognition", *words]) == 0
        assert ("nothing to do" if finished else "resumed after step 1 from") in capsys.readouterr().out


def test_shards_of_a_folder_without_splits_are_scored_whole_and_those_with_splits_are_not(tmp_path):
    recipe, notes = load_recipe("evaluate", "folder_recognition", ["data.name=shards", "data.path=nowhere"]), []
    for splits, whole in (({"clips": 8}, True), ({"train": 6, "test": 2}, False), (None, False)):
        recipe.data.path = str(tmp_path / str(splits))
        if splits:
            write_about(tmp_path / str(splits), splits)
        scored, notes = evaluate.split_to_score(recipe, "ORG/NAME", None)
        assert (scored.data.validation_fraction == 1.0, len(notes)) == (whole, int(whole))
    recipe.data.path, recipe.data.validation_fraction = str(tmp_path / str({"clips": 8})), 0.3
    assert evaluate.split_to_score(recipe, "ORG/NAME", None)[0].data.validation_fraction == 0.3


def write_about(folder, splits):
    about = {
        "version": 2,
        "data": "folder",
        "kind": "videos",
        "audio": "flac",
        "video": "jpeg",
        "tasks": ["recognition"],
    }
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({**about, "options": {}, "splits": splits, "sampling_rate": 16000}))


def test_an_evaluation_leaves_out_what_the_model_was_trained_on(pretrained, tmp_path, capsys, monkeypatch):
    for number, path in enumerate(make_clips(tmp_path / "clips", 6, seconds=1.0)):
        put(path, tmp_path / "videos" / "ab"[number % 2] / f"clip{number}.mp4")
    monkeypatch.chdir(tmp_path)
    given = ["data.path=videos", "data.num_workers=0", "run.cpu=true", "task.dense_windows=0", "optim.batch_size=4"]
    given.append("optim.mixed_precision=bf16")
    training = [
        f"model.init_from={pretrained}",
        "run.output_dir=out",
        "optim.epochs=1",
        "data.validation_fraction=0.34",
    ]
    assert finetune.main(["folder_recognition", *given, *training]) == 0
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "videos", tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    given[0] = "data.path=moved"
    for model in ("../out", str(next((tmp_path / "out" / "checkpoints").iterdir()))):
        capsys.readouterr()
        words = ["folder_recognition", "--model", model, "--out", "results", "--overwrite", *given]
        assert evaluate.main(words) == 0
        printed = capsys.readouterr().out
        assert "the whole folder, without 4 clips of the training: 2 clips, 2 classes" in printed
        assert f"\nNot scored: 4 of 6 clips, as {model} was trained on them" in printed
        assert "not known" not in printed
        assert "not recorded" not in printed
    assert (
        "Not scored: 4 of 6 clips"
        in json.loads((tmp_path / "elsewhere/results/evaluation.json").read_text())["notes"][0]
    )
    (tmp_path / "out" / "training_clips.parquet").write_bytes(b"")
    assert evaluate.main(words) == 2
    assert "it cannot be read on which clips it was trained: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        "model.attn_implementation=flesh",
        "run.trackers=nothing",
        "optim.batch_size=0",
        "data.things=nowhere",
        "model.localization_map=nothing",
        "task.class_balanced=5",
    ],
)
def test_commands_that_fail_leave_nothing_behind(pretrained, tmp_path, wrong, capsys):
    given = arguments(pretrained, tmp_path / "runs" / "out", f"data.cache_dir={tmp_path / 'cache'}", wrong)
    assert finetune.main(["scenes_recognition", *given]) == 2
    assert capsys.readouterr().err.startswith("deepavfusion finetune: ")
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_saved_even_if_its_evaluation_fails(pretrained, tmp_path, monkeypatch, capsys):
    evaluate_task = Recognition.evaluate

    def failing(self, *arguments, full, **options):
        if full:
            raise RuntimeError("the evaluation broke")
        return evaluate_task(self, *arguments, full=full, **options)

    monkeypatch.setattr(Recognition, "evaluate", failing)
    given = arguments(pretrained, tmp_path / "out", "optim.epochs=1", "optim.warmup_epochs=0.95")
    assert finetune.main(["scenes_recognition", *given]) == 1
    assert DeepAVFusionForAudioVisualClassification.from_pretrained(tmp_path / "out").config.num_labels == 16
    out, err = capsys.readouterr()
    assert "In 3 steps, the learning rate reaches only " in out
    assert "the evaluation broke" in err


def test_classes_without_training_clips_are_named():
    labels, names = [[0], [0], [2]], [f"class {i}" for i in range(14)]

    class Clips(list):
        label_names = names

        def classes(self):
            return list(self)

    (note,) = Recognition.training_notes(Clips(labels))
    assert note.startswith("12 of 14 classes have no training clips (all are held out, or beyond data.train_size): ")
    assert note.endswith(": class 1, " + ", ".join(names[3:12]) + " and 2 more")
    Clips.label_names = names[:1]
    assert Recognition.training_notes(Clips([[0]])) == []


def test_clips_of_one_class_alone_have_no_average_precision():
    task = Recognition.__new__(Recognition)
    task.clips = SimpleNamespace(multi_label=False, label_names=["dog", "cello"])
    scores = np.array([[0.9, 0.1], [0.4, 0.6]])
    assert task._metrics(scores, np.array([0, 0])) == {"top1": 0.5}
    assert task._metrics(scores, np.array([0, 1])) == {"top1": 1.0, "map": 1.0}


def test_a_killed_run_goes_on_to_the_same_weights(pretrained, tmp_path):
    """Augmentation, mixup, withheld modalities, optimizer and schedule: all go on as if nothing had happened."""
    extra = ("task.mixup=0.5", "optim.epochs=4", "model.drop_path_rate=0.2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert finetune.main(["scenes_recognition", *arguments(pretrained, whole, *extra)]) == 0
    code = (
        "import os, sys\n"
        "from deepavfusion.training import finetune\n"
        "from deepavfusion.training.runs import trainer\n"
        "mark = trainer.mark_complete\n"
        "def dying(path):\n"
        "    if path.name == 'checkpoint-9':\n"
        "        os._exit(9)\n"  # before the mark: this checkpoint does not count
        "    mark(path)\n"
        "trainer.mark_complete = dying\n"
        "sys.exit(finetune.main(sys.argv[1:]))\n"
    )
    command = ["scenes_recognition", *arguments(pretrained, broken, *extra)]
    assert subprocess.run([warm_python(), "-c", code, *command]).returncode == 9
    assert [path.name for path in complete_checkpoints(broken / "checkpoints")][-1] == "checkpoint-6"
    assert not (broken / "evaluation.json").exists()
    assert finetune.main(command) == 0
    first = DeepAVFusionForAudioVisualClassification.from_pretrained(whole).state_dict()
    second = DeepAVFusionForAudioVisualClassification.from_pretrained(broken).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert len(steps) == len((whole / "metrics.jsonl").read_text().splitlines())


def test_a_finished_run_is_not_trained_again_and_another_recipe_is_refused(pretrained, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["scenes_recognition", *arguments(pretrained, out)]
    assert finetune.main(command) == 0
    weights = (out / "model.safetensors").read_bytes()
    assert finetune.main(command) == 0
    assert (out / "model.safetensors").read_bytes() == weights
    capsys.readouterr()
    preflight.check("finetune", command)  # without torch
    assert finetune.main([*command, "optim.base_lr=0.1"]) == 2
    error = capsys.readouterr().err
    assert "optim.base_lr" in error
    with pytest.raises(FolderError) as early:
        preflight.check("finetune", [*command, "optim.base_lr=0.1"])
    assert error == f"deepavfusion finetune: {early.value}\n"


def test_of_equally_good_checkpoints_the_last_is_kept(pretrained, tmp_path, monkeypatch, capsys):
    scores, evaluate_task = iter([0.25, 0.5, 0.5, 0.25]), Recognition.evaluate

    def scored(self, *arguments, full, **options):
        found = evaluate_task(self, *arguments, full=full, **options)
        if not full:  # on the selection split
            found.metrics["top1"] = next(scores)
        return found

    def followed(loader, title, *units, **options):
        titles.append(title)
        return with_progress(loader, title, *units, **options)

    titles, with_progress = [], evaluation.with_progress
    monkeypatch.setattr(evaluation, "with_progress", followed)
    monkeypatch.setattr(Recognition, "evaluate", scored)
    out = tmp_path / "run"
    given = arguments(pretrained, out, "optim.epochs=4", "run.keep_checkpoints=4")
    assert finetune.main(["scenes_recognition", *given]) == 0
    assert "Selected the checkpoint of step 9, the best on the validation split" in capsys.readouterr().out
    assert titles == [*["selection on the validation split"] * 4, "evaluation on the test split"]
    assert "(top-1 accuracy 0.5 on 4 clips)" in (out / "report.html").read_text()
    kept = DeepAVFusionForAudioVisualClassification.from_pretrained(out / "checkpoints" / "checkpoint-9").state_dict()
    found = DeepAVFusionForAudioVisualClassification.from_pretrained(out).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in found.items())


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_recipes_choose_the_attention(name, pretrained, tmp_path, monkeypatch):
    trained = []
    build = run.build_model
    monkeypatch.setattr(run, "build_model", lambda *given: trained.append(build(*given)) or trained[-1])
    given = arguments(pretrained, tmp_path / "out", "optim.epochs=1", f"model.attn_implementation={name}")
    assert finetune.main(["scenes_recognition", *given]) == 0
    assert trained[0].config._attn_implementation == name


def test_an_attention_that_does_not_exist_is_told(pretrained, tmp_path, capsys):
    given = arguments(pretrained, tmp_path / "out", "model.attn_implementation=flesh")
    assert finetune.main(["scenes_recognition", *given]) == 2
    assert "model.attn_implementation=flesh" in capsys.readouterr().err


def test_a_probe_leaves_the_encoder_as_it_was(pretrained, tmp_path, capsys):
    out = tmp_path / "probe"
    assert probe.main(["scenes_probe", *arguments(pretrained, out, f"data.cache_dir={tmp_path / 'cache'}")]) == 0
    before = DeepAVFusionForPreTraining.from_pretrained(pretrained).deepavfusion.state_dict()
    model = DeepAVFusionForAudioVisualClassification.from_pretrained(out)
    for name, value in model.deepavfusion.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.config.classifier_input_norm
    neighbors = json.loads((out / "nearest_neighbours.json").read_text())
    assert set(neighbors) == {"fusion", "image", "audio", "all", "chance"}
    assert verify.verify(out).differences == []
    neighbors["image"]["accuracy"] += 0.125
    (out / "nearest_neighbours.json").write_text(json.dumps(neighbors))
    (found,) = verify.verify(out).differences
    assert (found.name, found.file) == ("image.accuracy", "nearest_neighbours.json")
    (out / "predictions" / "nearest_neighbours.parquet").unlink()
    assert all("cannot be derived" in str(found) for found in verify.verify(out).differences)
    assert verify.main([str(out)]) == 1
    printed = capsys.readouterr().out
    assert "1-NN" in printed
    assert f"\nscenes are kept in {tmp_path / 'cache'} once generated, " in printed


def test_retrieval_is_evaluated_on_an_encoder(pretrained, tmp_path, capsys):
    out, cache = tmp_path / "retrieval", tmp_path / "cache"
    small = ["data.eval_size=8", f"data.cache_dir={cache}", "data.num_workers=0", "optim.batch_size=8", "run.cpu=true"]
    assert evaluate.main(["scenes_retrieval", "--model", str(pretrained), "--out", str(out), *small]) == 0
    metrics = json.loads((out / "evaluation.json").read_text())["metrics"]
    assert f"\nscenes are kept in {cache} once generated, " in capsys.readouterr().out
    assert metrics["chance_r5"] == 5 / 8
    assert 0 <= metrics["audio_to_image_r1"] <= 1


def test_random_weights_start_where_no_model_is_given(tmp_path):
    sizes = [f"model.{name}={value}" for name, value in SIZES.items()]
    out = tmp_path / "scratch"
    assert finetune.main(["scenes_separation", *arguments("null", out, *sizes)]) == 0
    assert DeepAVFusionForSourceSeparation.from_pretrained(out).config.hidden_size == 128


def test_help_lists_recipes_and_options(capsys):
    assert finetune.main(["scenes_recognition", "--help"]) == 0
    assert "task.mixup  float" in capsys.readouterr().out
    assert probe.main(["-h"]) == 0
    assert "  scenes_probe " in capsys.readouterr().out
    assert evaluate.main(["--help"]) == 0
    found = capsys.readouterr().out
    assert "--model MODEL" in found
    assert "  scenes_retrieval " in found
    assert "run.num_examples  int, default 12" in found


def test_a_model_without_the_head_is_refused(pretrained, tmp_path, capsys):
    assert evaluate.main(["scenes_recognition", "--model", str(pretrained), "--out", str(tmp_path)]) == 2
    advice = f"fine-tune it first, e.g. deepavfusion finetune scenes_recognition model.init_from={pretrained}."
    assert capsys.readouterr().err.rstrip().endswith(advice)


def test_a_wrong_origin_is_told(tmp_path, capsys):
    command = ["scenes_recognition", f"model.init_from={tmp_path / 'nothing'}", f"run.output_dir={tmp_path / 'out'}"]
    assert finetune.main(command) == 2
    assert "model.init_from" in capsys.readouterr().err


def test_a_run_that_is_interrupted_in_its_last_evaluation_says_what_is_left(pretrained, tmp_path, capsys, monkeypatch):
    words = ["scenes_recognition", *arguments(pretrained, tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "finish", lambda self, after: (_ for _ in ()).throw(KeyboardInterrupt))
        assert finetune.main(words) == 130
    assert "the training is complete; run the same command to evaluate it" in capsys.readouterr().out
    assert finetune.main(words) == 0
    assert (tmp_path / "run" / "evaluation.json").is_file()
