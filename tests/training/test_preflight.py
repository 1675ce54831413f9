"""What is wrong with a command line is answered before torch is imported."""

import contextlib
import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import deepavfusion_cli as cli
from deepavfusion import modeling_deepavfusion
from deepavfusion.conversion_deepavfusion import TASK_CLASSES
from deepavfusion.formats_deepavfusion import checkpoint_fault
from deepavfusion.inference.jobs import works
from deepavfusion.inference.jobs.locks import lock_folder
from deepavfusion.processors.fit_deepavfusion import FITS
from deepavfusion.training.config.recipe import RecipeError, load_recipe
from deepavfusion.training.data.sources import DATA_SETS
from deepavfusion.unimodal_deepavfusion import read_state_dict
from deepavfusion_cli import arguments, exports, preflight
from deepavfusion_cli.early import models
from deepavfusion_cli.early.marks import evaluation_fingerprint, make_record
from deepavfusion_cli.early.models import TASKS
from deepavfusion_cli.early.recipes import settings
from deepavfusion_cli.early.runs import COMPLETE, BatchLayout, decisive
from deepavfusion_cli.options import stored, type_and_limits
from deepavfusion_cli.parser import CommandParser
from deepavfusion_cli.paths import (
    MARK_FILE,
    FolderError,
    check_output_file,
    check_writable,
    evaluation_folder,
    missing_folder,
    missing_model,
    suggestion,
)
from deepavfusion_cli.recipes import maker, recipe_names
from deepavfusion_cli.values import check_override, load_values

RECIPES = ("pretrain", "finetune", "probe", "evaluate")
OUTPUTS = {name: ["--out"] for name in ("embed", "separate", "segment", "localize")}
SLOW = ("torch", "numpy", "transformers")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a media file, a model's folder and a file of text, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(b"no video")
    Path("checkpoint.pth").write_bytes(b"\x80\2no checkpoint, but it may be one")
    for name in ("runs/my_model", "models/other_model"):
        Path(name).mkdir(parents=True)
        Path(name, "config.json").write_text("{}")
    return tmp_path


def run_all(lines, folder):
    """Exit code and error of every command line, in one process, which ends if anything slow was imported."""
    code = f"""
import contextlib, io, json, sys
import deepavfusion_cli as cli
found = []
for words in {lines}:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(words)
        except SystemExit as stop:
            code = stop.code
    slow = [name for name in {SLOW} if name in sys.modules]
    if slow:
        sys.exit(f"{{words}} imported {{slow}}: {{err.getvalue()}}")
    found.append([code, out.getvalue(), err.getvalue()])
json.dump(found, sys.stdout)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_and_mistakes_are_answered_without_torch(place):
    model = ["--model", "runs/my_model"]
    out = {name: ["--out", "out"] for name in OUTPUTS} | {"classify": []}
    right = {name: [name, "clip.mp4", *model, *out[name]] for name in out}
    cases = [([name, "--help"], 0, "") for name in cli.COMMANDS]
    cases += [
        ([name], 2, f"deepavfusion {name}: expected a recipe, got none.\n\nusage: deepavfusion {name} ")
        for name in RECIPES
    ]
    cases += [(["fine-tune"], 2, "Did you mean finetune?")]
    for name, words in right.items():
        absent = [name, "absent.mp4", *words[2:]]
        cases += [
            (absent, 2, f"deepavfusion {name}: absent.mp4: expected a media file, but there is no such file.\n"),
            ([*words[:3], "runs/my_modle", *words[4:]], 2, "there is no such folder; did you mean runs/my_model?\n"),
            ([*words, "--bath-size", "3"], 2, "did you mean --batch-size?"),
            ([*words, "--batch-size", "0"], 2, "expected a whole number from 1 to 1,000,000, got '0'"),
            ([*words, "--fit", "crops"], 2, "(did you mean crop?)"),
        ]
        if name in OUTPUTS:
            wrong = [*words[:-1], "clip.mp4/out"]
            cases += [(wrong, 2, f"deepavfusion {name}: --out=clip.mp4/out cannot be written to: ")]
        if name in OUTPUTS and name != "embed":
            same = [name, "models", *words[2:-1], "models"]
            cases += [(same, 2, f"deepavfusion {name}: --out=models is a folder of input files, among which")]
    cases += [
        (["embed", "clip.mp4", *model, "--output", "runs"], 2, "--output=runs is a folder: name a file in it"),
        (
            ["separate", "clip.mp4", *model, "--out", "x", "--frame", "no.png"],
            2,
            "--frame no.png: expected a timestamp",
        ),
        (["convert", "absent.pth", "x"], 2, "the file absent.pth does not exist"),
        (["convert", "checkpoint.pth", "clip.mp4"], 2, "output=clip.mp4 cannot be written to: it is a file"),
        (["convert", "checkpoint.pth", "x", "--task", "segmentatoin"], 2, "(did you mean segmentation?)"),
        (["export"], 2, "the following arguments are required: FORMAT"),
        (["export", "onxn", "runs/my_model", "x.onnx"], 2, "invalid choice: 'onxn'"),
        (["export", "onnx", "runs/my_modle", "x.onnx"], 2, "there is no such folder; did you mean runs/my_model?"),
        (["export", "onnx", "runs/my_model", "runs"], 2, "output=runs is a folder: name a file in it"),
        (
            ["convert", "checkpoint.pth", "x", "--config", "./y"],
            2,
            "--config ./y cannot be used: there is no such folder",
        ),
        (["data", "check", "folder", "absent"], 2, "expected the data set folder at absent"),
        (["data", "check", "folder", "run"], 2, "there is no such folder; did you mean runs?\n"),
        (["data", "check", "folders", "runs"], 2, "(did you mean folder?)"),
        (["data", "check", "folder", "runs", "data.anotations=x"], 2, "Did you mean data.annotations?"),
        (["data", "check", "folder", "runs", "anotations=x"], 2, "Did you mean data.annotations?"),
        (["data", "check", "folder", "runs", "data.validation_fraction=3"], 2, "expected a number above 0 and below 1"),
        (["data", "chekc", "folder", "runs"], 2, "(did you mean check?)"),
        (["data", "check", "folder", "runs", "--num-wokers", "3"], 2, "did you mean --num-workers?"),
        (
            ["finetune", "folder_recognition", "data.path=run"],
            2,
            "data.path=run cannot be used: there is no such folder; ",
        ),
        (["finetune", "folder_recognition", "data.path=runs"], 2, "`deepavfusion pretrain folder` creates it"),
        (["pretrain", "folder", "data.path=clip.mp4"], 2, "clip.mp4 cannot be used: that is a file, not a folder.\n"),
        (["data", "check", "folder", "clip.mp4"], 2, "folder at clip.mp4, but that is a file, not a folder.\n"),
        (["pretrain", "folder", "data.path=absent"], 2, "data.path=absent cannot be used: there is no such folder.\n"),
        (["evaluate", "scenes_retrieval", "--model", "runs/my_modle"], 2, "did you mean runs/my_model?\n"),
        (["evaluate", "scenes_retrieval", *model, "--out", "clip.mp4/x"], 2, "--out=clip.mp4/x cannot be written to"),
        (["evaluate", "scenes_retrieval", *model, "--mixed-precision", "no"], 2, "mean optim.mixed_precision="),
    ]
    cases += [
        (["demo"], 2, "the following arguments are required: DIR"),
        (["demo", "runs/my_modle"], 2, "there is no such folder; did you mean runs/my_model?\n"),
        (
            ["demo", "runs/my_model", "--clips", "run"],
            2,
            "--clips=run cannot be used: there is no such folder; did you",
        ),
        (["demo", "runs/my_model", "--clips", "clip.mp4"], 2, "that is a file, not a folder."),
        (
            ["demo", "runs/my_model", "--export-space", "runs"],
            2,
            "--export-space=runs is not empty: name a new folder.",
        ),
        (["demo", "runs/my_model", "--export-space", "x", "--clips", "runs"], 2, "expected no --clips"),
        (["demo", "runs/my_model", "--max-second", "0"], 2, "--max-seconds: expected a whole number from 1"),
    ]
    Path("own.yaml").write_text("command: pretrain\ndata: {name: folder, path: absent}")
    Path("runs/begun").mkdir()
    Path("runs/begun", MARK_FILE).write_text('{"finished": false}')
    begun, unfinished = ["--model", "runs/begun"], "the run in that folder has not finished; the command that started"
    cases += [
        (
            ["finetune", "scenes_recognition", "model.init_from=runs/begun"],
            2,
            f"runs/begun cannot be used: {unfinished}",
        ),
        (["evaluate", "scenes_retrieval", *begun], 2, f"--model=runs/begun cannot be used: {unfinished}"),
        (["classify", "clip.mp4", *begun], 2, f"runs/begun cannot be used: {unfinished}"),
        (["export", "onnx", "runs/begun", "out.onnx"], 2, f"runs/begun cannot be used: {unfinished}"),
        (["convert", "checkpoint.pth", "out", "--config", "runs/begun"], 2, unfinished),
        (["push", "runs/begun", "ORG/NAME"], 2, f"runs/begun cannot be published: {unfinished}"),
        (
            ["embed", "clip.mp4", "--model", "models", "--out", "out"],
            2,
            "models cannot be used: there is no model in that",
        ),
        (["pretrain", "own.yaml", "data.path="], 2, "data.path is empty: set it to the folder of data set 'folder'"),
        (["pretrain", "own.yaml", "data.path=' '"], 2, "data.path is empty: set it to the folder of data set 'folder'"),
        (["data", "check", "folder", "data.path="], 2, "expected the folder of data set folder, got an empty path"),
        (["data", "check", "folder", "runs", "--num-workers", "65"], 2, "a whole number from 0 to 64, got '65'"),
        (["pretrain", "own.yaml"], 2, "data.path=absent cannot be used: there is no such folder."),
        (["pretrain", "own.yaml", "data.path=null"], 2, "data.path is missing: set it to the folder of data set"),
        (["evaluate", "vggsound_finetune", *model], 2, "data.path is missing: set it to the folder of data set"),
        (["evaluate", "scenes_retrieval", *model, "data.eval_size=0"], 2, "expected a number of at least 1"),
    ]
    for name, recipe in (("pretrain", "scenes_tiny"), ("finetune", "scenes_recognition"), ("probe", "scenes_probe")):
        cases += [
            ([name, f"{recipe}s"], 2, f"Did you mean {recipe}?"),
            ([name, "absent.yaml"], 2, "There is no recipe file absent.yaml"),
            ([name, "vggsound_retrieval"], 2, "use `deepavfusion evaluate vggsound_retrieval --model MODEL`"),
            ([name, recipe, "--epochs", "3"], 2, "Did you mean optim.epochs=3?"),
            ([name, recipe, "optim.epoch=3"], 2, "Did you mean optim.epochs?"),
            ([name, recipe, "optm.epochs=3"], 2, "Did you mean optim.epochs?"),
            ([name, "--seed=3", recipe], 2, f"use `deepavfusion {name} {recipe} run.seed=3`"),
            ([name, recipe, "run.output_dir=clip.mp4/x"], 2, "run.output_dir=clip.mp4/x cannot be written to"),
            ([name, recipe, "model.init_from=./x"], 2, "model.init_from=./x cannot be used: there is no such folder; "),
            ([name, recipe, "optim.epochs=abc"], 2, "optim.epochs is 'abc': expected a number."),
            ([name, recipe, "optim.epochs=nan"], 2, "optim.epochs is nan: expected a number above 0 and at most"),
            (
                [name, recipe, "optim.betas=[0.9, 1]"],
                2,
                "optim.betas is 1.0: expected a number of at least 0 and below",
            ),
            ([name, recipe, "run.seed=1.5"], 2, "run.seed is 1.5: expected a whole number."),
            ([name, recipe, "model.hidden_size=big"], 2, "model.hidden_size is 'big': expected a whole number."),
            ([name, recipe, "optim.mixed_precision=bf61"], 2, "no, bf16, fp16. Did you mean bf16?"),
            ([name, recipe, "optim.betas=[0.9"], 2, "is not valid YAML"),
            ([name, recipe, "data.name=folder"], 2, "data.path is missing: set it to the folder of data set 'folder'"),
            ([name, recipe, "data.name=foldr"], 2, "Did you mean folder?"),
        ]
    results = run_all([words for words, _, _ in cases], place)
    for (words, code, text), (found, _, error) in zip(cases, results, strict=True):
        assert (found, text in error) == (code, True), (words, found, error)
        assert "Traceback" not in error
    assert sorted(path.name for path in place.iterdir()) == ["checkpoint.pth", "clip.mp4", "models", "own.yaml", "runs"]


def test_a_command_line_without_recipe_is_answered_in_a_few_lines(capsys):
    for name in RECIPES:
        assert cli.main([name]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert len(err.splitlines()) < 20
        text = " ".join(err.split())  # lines are as wide as the terminal
        assert f"`deepavfusion recipes` says what each does, needs and costs; `deepavfusion {name} --help`" in text
        assert all(recipe in text for recipe in recipe_names(name))


CLASSES = {
    "recognition": "DeepAVFusionForAudioVisualClassification",
    "separation": "DeepAVFusionForSourceSeparation",
    "pretrained": "DeepAVFusionForPreTraining",
}


def write_model(folder, model_class, model_type="deepavfusion"):
    folder.mkdir(parents=True)
    config = {"model_type": model_type, "architectures": [model_class]}
    (folder / "config.json").write_text(json.dumps(config))


def test_models_for_something_else_are_told_without_torch(place):
    """A class of its own, which may well hold the weights, is loaded before it is judged."""
    for name, model_class in CLASSES.items():
        write_model(place / name, model_class)
    write_model(place / "vit", "ViTModel", "vit")
    write_model(place / "own", "OwnModel")
    head, other = (
        "holds a pre-trained encoder (DeepAVFusionForPreTraining) without the weights of a",
        "holds a model for",
    )
    cases = []
    for command, task in TASKS.items():
        words = [command, "clip.mp4", *([] if command == "classify" else ["--out", "out"]), "--model"]
        wrong = next(name for name in CLASSES if name != task)
        cases += [
            (
                [*words, wrong],
                f"deepavfusion {command}: {wrong} {other} {wrong} ({CLASSES[wrong]}): expected one for {task} (",
            ),
            (
                [*words, "pretrained"],
                f"deepavfusion {command}: pretrained {head} {models.CLASSES[task]}: fine-tune it first",
            ),
        ]
    cases += [(["localize", "clip.mp4", "--out", "out", "--model", "pretrained"], "or pass --map attention.")]
    cases += [
        (["export", "vggsounder", "separation", "clip.mp4", "--output", "x.pkl"], f"separation {other} separation"),
        (["evaluate", "scenes_separation", "--model", "recognition"], f"for separation: it {other} recognition"),
        (["evaluate", "scenes_recognition", "--model", "pretrained"], f"for recognition: it {head}"),
        (["demo", "own"], "own holds a model of class OwnModel: expected one of DeepAVFusionFor"),
    ]
    kind = "holds a model of type 'vit': expected 'deepavfusion'."
    for words in (["embed", "clip.mp4", "--out", "out", "--model"], ["export", "onnx"], ["demo"]):
        cases.append(([*words, "vit", *(["out.onnx"] if "onnx" in words else [])], f"vit {kind}"))
    cases += [
        (["convert", "checkpoint.pth", "out", "--config", "vit"], f"--config vit cannot be used: it {kind}"),
        (["finetune", "scenes_recognition", "model.init_from=vit"], f"model.init_from=vit cannot be used: it {kind}"),
        (["evaluate", "scenes_retrieval", "--model", "vit"], f"--model=vit cannot be used: it {kind}"),
    ]
    answered(cases, place)
    for words in (["own"], ["pretrained", "--map", "attention"]):
        assert preflight.parse("localize", ["clip.mp4", "--out", "out", "--model", *words])


def test_files_in_place_of_models_are_told_without_torch(place):
    for name in ("notes.md", "runs/my_model/model.safetensors"):
        Path(name).write_text("text")
    no_model = "that is a file, not the folder of a model"
    cases = []
    for name, hint in (
        ("notes.md", "; there are models in e.g. runs/my_model."),
        ("./checkpoint.pth", "; `deepavfusion convert checkpoint.pth FOLDER` makes one."),
        ("runs/my_model/model.safetensors", "; did you mean runs/my_model?"),
    ):
        unusable = f"{name} cannot be used: {no_model}{hint}"
        for words in (
            *(["classify", "clip.mp4", "--model"], ["embed", "clip.mp4", "--out", "out", "--model"], ["demo"]),
            *([name, "clip.mp4", "--out", "out", "--model"] for name in ("localize", "segment", "separate")),
            ["evaluate", "scenes_recognition", "--model"],
        ):
            cases.append(([*words, name], unusable))
        cases += [
            (["export", "onnx", name, "out.onnx"], unusable),
            (["push", name, "ORG/NAME"], f"{no_model}{hint}"),
            (["finetune", "scenes_recognition", f"model.init_from={name}"], f"model.init_from={unusable}"),
        ]
    answered(cases, place)


def test_without_any_model_it_is_said_what_trains_one(place):
    for name in ("runs", "models"):
        shutil.rmtree(name)
    assert missing_folder("runs/zzz") == "there is no such folder; `deepavfusion recipes` lists what trains one"


def answered(cases, folder):
    """Check that command lines end with code 2 and an error that holds a text, in a process without torch."""
    for (words, text), (code, _, error) in zip(cases, run_all([words for words, _ in cases], folder), strict=True):
        assert (code, text in error) == (2, True), (words, code, error)
        assert "Traceback" not in error


BOXES = ("vggss", "flickr_soundnet", "is3")


def test_missing_files_of_data_sets_are_told_without_torch(place):
    for name in ("data", "csv", "above/AVSBench", "packed"):
        Path(name).mkdir(parents=True)
    for name in ("list.txt", "csv/vggsound.csv", "above/AVSBench/metadata.csv", "packed/clips.zip"):
        Path(name).touch()
    expected = {
        "vggsound": "Expected VGGSound's annotations at data/annotations/vggsound.csv, found none: put vggsound.csv",
        "audioset": "Expected AudioSet's class_labels_indices.csv in data or data/annotations, found none.",
        "music": "Expected MUSIC's list music_solo.csv or MUSIC_solo_videos.json in data/anno or data, found none.",
        "vggsound_music": "Expected the list vggmusic_train.txt at data/annotations/vggmusic_train.txt, found none.",
        "vggss": "Expected VGG-SS's annotations at data/annotations/vggss.json, found none.",
        "flickr_soundnet": "Expected Flickr-SoundNet's annotations at data/Annotations, found none.",
        "is3": "Expected IS3's annotations at data/IS3_annotation.json; found no json.",
        "avsbench": "Expected AVSBench s4 at data: metadata.csv and v1s, or Single-source/s4_data/gt_masks; found no",
        "folder": "Expected files ending in .mp4, .mkv,",
        "shards": "Expected a prepared data set with dataset.json at data; `deepavfusion data prepare` makes one.",
    }
    recipes = {"avsbench": "avsbench_s4", "music": "music_separation", "vggsound_music": "vggsound_music_separation"}
    cases = []
    for name, text in expected.items():
        recipe = recipes.get(name, "scenes_localization" if name in BOXES else "folder_recognition")
        words = ["finetune", recipe, f"data.name={name}", "data.path=data", "model.init_from=runs/my_model"]
        cases.append((words, f"deepavfusion finetune: The recipe's data cannot be used: {text}"))
        if name != "vggsound_music":  # whose splits have a list each
            cases.append((["data", "check", name, "data"], f"deepavfusion data check: {text}"))
    pairs = ["evaluate", "vggsound_music_separation", "--model", "runs/my_model", "data.path=data"]
    cases += [
        (pairs, "Expected the list vggmusic_eval_ss.csv at data/annotations/vggmusic_eval_ss.csv, found none."),
        (
            ["pretrain", "vggsound_base", "data.path=data", "data.annotations=lst.txt"],
            "no such file; did you mean list.txt?",
        ),
        (
            ["data", "check", "folder", "data", "annotations=data"],
            "data.annotations=data cannot be used: that is a folder, not",
        ),
        (
            ["probe", "vggsound_probe", "model.init_from=runs/my_model", "data.path=data", "data.checked_list=x"],
            "data.checked_list=x cannot be used",
        ),
        (["data", "prepare", "avsbench", "above", "out"], "gt_masks; set data.path=above/AVSBench."),
        (
            ["data", "check", "avsbench", "above/AVSBench"],
            "Expected the names of AVSBench's classes at above/AVSBench/",
        ),
        (["data", "check", "avsbench", "above", "data.subset=s5"], "must be one of s4, ms3, avss, got 's5'"),
        (
            ["data", "check", "folder", "packed"],
            "found no videos but 1 archive: unpack with `cd packed && unzip clips.zip`.",
        ),
        (["pretrain", "scenes_tiny", "data.things=x"], "data.things=x cannot be used: there is no such folder."),
        (["pretrain", "vggsound_base", "data.path=csv", "model.init_audio=list.txt"], "got an empty file."),
    ]
    answered(cases, place)
    preflight.check("pretrain", ["vggsound_base", "data.path=models", "data.checked_list=list.txt"])  # no csv is needed
    preflight.check("pretrain", ["folder", "data.name=shards", "data.path=s3://bucket/shards"])


def test_settings_that_do_not_apply_or_go_together_are_told_without_torch(place):
    Path("set").mkdir()
    Path("set", "a.mp4").touch()
    folder = ["finetune", "folder_recognition", "data.path=set", "model.init_from=runs/my_model"]
    pretrain, exclude = ["pretrain", "scenes_tiny"], "are mutually exclusive."
    cases = [
        ([*folder, "data.noise=0.5"], "Unknown option data.noise for dataset 'folder'. Valid options: name, path, "),
        ([*folder, "task.negative_audio=true"], "Unknown option task.negative_audio for task 'recognition'. Valid opt"),
        ([*folder, "model.localization_loss=matching"], "Unknown option model.localization_loss for task 'recogni"),
        ([*pretrain, "run.keep_best=false"], "Unknown option run.keep_best for command 'pretrain'. Valid options: "),
        (["data", "check", "folder", "set", "subset=s4"], "Unknown option data.subset for dataset 'folder'. Valid"),
        ([*pretrain, "optim.betas=[0.9]"], "optim.betas is [0.9]: expected two numbers."),
        ([*pretrain, "optim.warmup_epochs=1", "optim.warmup_fraction=0.1"], f"warmup_fraction {exclude}"),
        ([*pretrain, "model.init_from=runs/my_model", "model.init_image=checkpoint.pth"], f"init_audio {exclude}"),
        (["probe", "scenes_probe", "task.freeze_encoder=false"], "a probe needs task.freeze_encoder=true"),
        ([*pretrain, "optim.fsdp=true", "optim.mixed_precision=fp16"], "which fp16 loss scaling does not support"),
        ([*pretrain, "optim.fsdp=true", "optim.optimizer=muon"], "which Muon needs whole: use optim.optimizer=adamw."),
        ([*pretrain, "model.size=hug"], "expected one of small, base, large, huge. Did you mean huge?"),
    ]
    answered(cases, place)
    for words, text in cases[:4] + cases[5:]:
        with pytest.raises(RecipeError) as raised:  # as without the early checks
            load_recipe(words[0], words[1], words[2:])
        assert text in str(raised.value)
    preflight.check("finetune", [*folder[1:], "data.noise=null", "task.negative_audio=false"])  # as by default
    preflight.check("evaluate", ["scenes_retrieval", "--model", "runs/my_model", "data.eval_size=7"])


def test_folders_without_media_are_told_without_torch(place):
    for name in ("empty", "sounds"):
        Path(name).mkdir()
    Path("empty", "notes.txt").touch()
    Path("sounds", "a.wav").touch()
    model, none = ["--model", "runs/my_model"], "expected files ending in .mp4, .mkv, "
    cases = []
    for name in ("embed", *TASKS):
        words = [name, *model, *(["--out", "out"] if name != "classify" else [])]
        cases += [
            ([*words, "empty"], f"deepavfusion {name}: empty: {none}"),
            ([*words, "empty", "empty/"], f"\nempty/: {none}"),
        ]
        if name not in ("embed", "classify"):
            cases.append(([*words, "sounds"], "but there are none besides 1 audio file; name these one by one."))
        preflight.parse(name, [*words[1:], "empty", "clip.mp4"])
        preflight.parse(name, [*words[1:], "sounds/a.wav"])
    export = ["export", "vggsounder", "runs/my_model"]
    cases += [
        ([*export, "empty", "--output", "x.pkl"], f"deepavfusion export: empty: {none}"),
        ([*export, "clip.mp4", "--output", "x.pkl", "--labels", "x.csv"], "--labels=x.csv cannot be used: there is no"),
        (["demo", "runs/my_model", "--clips", "sounds"], f"deepavfusion demo: sounds: {none}"),
    ]
    answered(cases, place)
    preflight.parse("separate", [*model, "--out", "out", "sounds", "--frame", "1.5"])


def test_results_that_are_there_already_are_told_without_torch(place):
    for name in ("tokens/clip.safetensors", "x.onnx", "x.pkl", "y.json", "labels.csv", "out/index.html", "x.parquet"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("set").mkdir()
    Path("set", "a.mp4").touch()
    exists = "already exists: choose another output path, or pass --overwrite to replace it."
    model, export = ["--model", "runs/my_model"], ["export", "vggsounder", "runs/my_model", "clip.mp4"]
    cases = {
        "tokens/clip.safetensors": ["embed", "clip.mp4", *model, "--out", "tokens"],
        "x.pkl": ["embed", "clip.mp4", *model, "--output", "x.pkl"],
        "x.onnx": ["export", "onnx", "runs/my_model", "x.onnx"],
        "y.json": [*export, "--output", "y.pkl", "--labels", "labels.csv"],
        "x.parquet": ["data", "check", "folder", "set", "--out", "x.parquet"],
        "labels.csv": ["data", "check", "folder", "set", "--report", "labels.csv"],
    }
    page = "out/index.html is no page of this package: choose another output folder, or pass --overwrite"
    paged = [[name, "clip.mp4", "checkpoint.pth", *model, "--out", "out"] for name in TASKS]
    lines = [*((words, f"{name} {exists}") for name, words in cases.items()), *((words, page) for words in paged)]
    lines += [
        (
            ["data", "prepare", "folder", "set", "out"],
            "out exists and is not a preparation; choose a new or empty folder.",
        ),
        (
            ["data", "prepare", "shards", "set", "new"],
            "set is named as a prepared data set; only others can be prepared.",
        ),
        (
            ["data", "prepare", "folder", "set", "new", "data.validation_fraction=0.1"],
            "All clips are prepared: give data",
        ),
        (
            ["data", "check", "shards", "set", "--out", "new.parquet"],
            "--out is for folder, vggsound, audioset, music, ",
        ),
    ]
    answered(lines, place)
    for words in (*cases.values(), *paged):
        preflight.check(words[0], [*words[1:], "--overwrite"])
    Path("set", "b.mp4").touch()
    preflight.parse("embed", ["clip.mp4", "set", *model, "--out", "tokens"])  # some are to be written


def test_results_of_other_work_are_told_without_torch(place):
    """Those of the same work, or that are begun, are left to the command."""
    model, out = ["--model", "runs/my_model"], Path("out")
    out.mkdir()
    cases = []
    for command in TASKS:
        words = [command, "clip.mp4", *model, "--out", "out"]
        given = arguments.PARSERS[command]().parse_args(words[1:])
        record = works.record_of(out, "clip", command)
        for precision in ("None", "torch.bfloat16"):
            identity = [*works.model_files("runs/my_model"), precision]
            fingerprint = works.fingerprint(works.determining(command, given, "clip.mp4", identity))
            about = {"command": command, "fingerprint": fingerprint, "files": [], "format": works.FORMAT}
            record.write_text(json.dumps(about))
            preflight.parse(command, words[1:])
        exists = f"deepavfusion {command}: {record} already exists: choose another output path, or pass --overwrite"
        cases.append(([*words, "--fit", "pad"], exists))
    answered(cases, place)
    for words, _ in cases:
        preflight.parse(words[0], [*words[1:], "--overwrite"])
        preflight.parse(words[0], ["checkpoint.pth", *words[1:]])  # one is to be written
    (out / "clip_heat.unfinished").mkdir()
    preflight.parse("localize", cases[0][0][1:])
    write_model(place / "runs" / "other", models.CLASSES["localization"])
    Path("out", "clip_heat.unfinished").rmdir()
    with pytest.raises(FileExistsError, match="already exists"):
        preflight.parse("localize", ["clip.mp4", "--out", "out", "--model", "runs/other"])


def mark(folder, command, fingerprint, finished=True, **entries):
    """Mark a folder as that of a command."""
    folder.mkdir(parents=True)
    record = {
        **make_record(command, fingerprint),
        "finished": finished,
        "replaces": False,
        "files": [],
        "publishing": None,
    }
    (folder / MARK_FILE).write_text(json.dumps({**record, **entries}))


def begun(folder, command, recipe, *words, finished=False, step=2):
    """A run folder with a checkpoint."""
    _, sections = settings(recipe, words)
    optim = sections["optim"] = sections["optim"] | {"mixed_precision": "no"}  # as runs on this machine have it
    layout = BatchLayout(optim["batch_size"], optim["gradient_accumulation"], 1)
    made = decisive(sections, False, command != "pretrain")
    mark(folder, command, made, finished, batch=dataclasses.asdict(layout))
    checkpoint = folder / "checkpoints" / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / COMPLETE).touch()


def test_folders_of_other_runs_and_evaluations_are_told_without_torch(place):
    begun(place / "run", "pretrain", "scenes_tiny", "run.seed=3")
    begun(place / "done", "finetune", "scenes_recognition", finished=True)
    Path("foreign").mkdir()
    Path("foreign", "notes.txt").touch()
    model, given = "runs/my_model", ["evaluate", "scenes_retrieval", "--model", "runs/my_model"]
    _, sections = settings("scenes_retrieval", [])
    default = place / "runs" / "evaluations" / "scenes_retrieval-my_model"
    with contextlib.chdir(place):
        mark(default, "evaluate", evaluation_fingerprint(model, sections))
    mark(place / "converted", "convert", {"checkpoint": "other.pth", "task": None, "config": None})
    pretrain, finetune = ["pretrain", "scenes_tiny"], ["finetune", "scenes_recognition", "model.init_from=null"]
    other = f"{default.relative_to(place)} holds other results (before -> now):\n  data.eval_size: "
    cases = [
        (
            [*pretrain, "run.output_dir=run"],
            "run holds a run of another recipe (before -> now):\n  run.seed: 3 -> 0\nName another",
        ),
        (
            [*pretrain, "run.output_dir=run", "run.seed=3", "optim.batch_size=64"],
            "\n  effective batch: 32 = optim.batch_size=32",
        ),
        (
            [*pretrain, "run.output_dir=run", "run.seed=3", "optim.epochs=2"],
            " (before -> now):\n  optim.epochs: 3.0 -> 2.0\nName another",
        ),
        (
            [*pretrain, "run.output_dir=run", "run.seed=3", "optim.warmup_epochs=1"],
            " (before -> now):\n  optim.warmup_epochs: 0.15 -> 1.0\nName another",
        ),
        ([*pretrain, "run.output_dir=run", "run.seed=3", "model.hidden_size=64"], "\n  model.hidden_size: 128 -> 64\n"),
        (
            [*finetune, "run.output_dir=run"],
            "run holds a run of another recipe (before -> now):\n  command: pretrain -> finetune",
        ),
        (
            [*finetune, "run.output_dir=done"],
            "done holds a finished model of another recipe (before -> now):\n  model.init_from: ",
        ),
        (
            ["finetune", "scenes_recognition", "run.output_dir=done", "run.resume=false"],
            "done holds a finished model. Name another",
        ),
        (
            [*pretrain, "run.output_dir=foreign"],
            "run.output_dir=foreign is not empty and has no .deepavfusion-run.json",
        ),
        ([*given, "--out", "foreign"], "--out=foreign is not empty and has no .deepavfusion-run.json"),
        ([*given, "--out", "run"], "--out=run holds the results of `deepavfusion pretrain`: name another folder."),
        ([*given, "data.eval_size=7"], other),
        ([*given[:3], "models/other_model", "--out", str(default)], "\n  model: "),
        (["convert", "checkpoint.pth", "converted"], "converted holds other results (before -> now):\n  checkpoint: "),
        (["verify", "clip.mp4"], "clip.mp4 is a file: expected the folder of a run or of an evaluation."),
        (["verify", "foreign"], "foreign holds no evaluation.json: expected the folder of a run or of an evaluation."),
        (["verify", "run"], "run holds no evaluation.json: the run in that folder has not finished; the command that"),
    ]
    Path("old").mkdir()
    Path("old", "evaluation.json").write_text('{"task": "recognition"}')
    cases.append((["verify", "old"], "old holds no predictions/clips.parquet: it was evaluated by an earlier version"))
    answered(cases, place)
    used = "is in use by another run (process "
    in_progress = f"the run in that folder is in progress (process {os.getpid()}): wait until it ends.\n"
    with lock_folder("run"), lock_folder("converted"), lock_folder("runs/my_model"):
        cases = [
            ([*pretrain, "run.output_dir=run", "run.seed=3"], f"run {used}"),
            ([*given, "--out", "run"], f"run {used}"),
            (["convert", "checkpoint.pth", "converted", "--overwrite"], f"converted {used}"),
            (["push", "runs/my_model", "ORG/NAME"], f"runs/my_model cannot be published: runs/my_model {used}"),
            (["classify", "clip.mp4", "--model", "run"], f"run cannot be used: {in_progress}"),
            (["evaluate", "scenes_retrieval", "--model", "run"], f"--model=run cannot be used: {in_progress}"),
            (["push", "run", "ORG/NAME"], f"run cannot be published: {in_progress}"),
            (["verify", "run"], f"run holds no evaluation.json: {in_progress}"),
        ]
        answered(cases, place)
    for words in (
        ["run.seed=3"],
        ["run.allow_changed_recipe=true"],
        ["run.resume=false"],
        ["run.seed=3", "run.log_steps=1"],
    ):
        preflight.check("pretrain", ["scenes_tiny", "run.output_dir=run", *words])
    preflight.check("finetune", ["scenes_recognition", "run.output_dir=done"])
    preflight.check("finetune", [*finetune[1:], "run.output_dir=done", "run.overwrite=true"])
    for words in ([], ["data.eval_size=7", "--overwrite"]):
        preflight.check("evaluate", [*given[1:], *words])


def test_ways_to_write_a_path_are_the_same_recipe(place):
    """As long as the name of the folder is the same, on which the order of its clips depends."""
    for name in ("VIDEOS", "other"):
        Path(name).mkdir()
        Path(name, "clip.mp4").touch()
    Path("linked").symlink_to("VIDEOS")
    words = ["folder_recognition", "data.path=VIDEOS", "model.init_from=models/other_model"]
    begun(place / "run", "finetune", *words)
    change = ["run.output_dir=run", f"model.init_from={place}/models/other_model/"]
    for path in ("VIDEOS/", "./VIDEOS", f"{place}/VIDEOS", "other/../VIDEOS", "runs/../VIDEOS//"):
        preflight.check("finetune", [*words, *change, f"data.path={path}"])
    for path in ("other", "linked", "."):
        with pytest.raises(FolderError, match=f'\\(before -> now\\):\n  data.path: "VIDEOS" -> "{path}"\nName'):
            preflight.check("finetune", [*words, *change, f"data.path={path}"])
    words = ["folder_recognition", f"data.path={place}/VIDEOS", "model.init_from=ORG/NAME"]
    begun(place / "other" / "run", "finetune", *words)
    with contextlib.chdir("VIDEOS"):
        preflight.check("finetune", [*words, "data.path=.", "run.output_dir=../other/run"])


def test_several_processes_wait_with_the_comparison_of_the_recipe(place, monkeypatch):
    """How many clips a batch has depends on their number."""
    begun(place / "run", "pretrain", "scenes_tiny", "run.seed=3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    preflight.check("pretrain", ["scenes_tiny", "run.output_dir=run"])


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("runs/my_model", "my_model"),
        ("./runs/my_model/", "my_model"),
        ("models/other_model", "models-other_model"),
        ("runs/my_model/checkpoints/checkpoint-20", "my_model-checkpoints-checkpoint-20"),
        ("ORG/NAME", "ORG-NAME"),
        ("runs/../models/other_model", "models-other_model"),
    ],
)
def test_evaluations_of_different_models_are_in_different_folders(origin, name, place):
    Path("runs/my_model/checkpoints/checkpoint-20").mkdir(parents=True)
    assert evaluation_folder("RECIPE", origin) == Path(f"runs/evaluations/RECIPE-{name}")
    given = preflight.parse_evaluation(["scenes_retrieval", "--model", origin, "run.output_dir=x"])
    assert preflight.evaluation_place(given, "x") == (Path("x"), "run.output_dir")
    given = preflight.parse_evaluation(["own/scenes_retrieval.yaml", "--model", origin])
    assert preflight.evaluation_place(given, "x") == (Path(f"runs/evaluations/scenes_retrieval-{name}"), "--out")


@pytest.mark.parametrize("model", ["my_model", "my_model/checkpoints/checkpoint-20"])
def test_the_evaluation_of_a_model_that_its_recipe_names_has_that_name_once(model, place):
    (place / "runs" / model).mkdir(parents=True, exist_ok=True)
    assert evaluation_folder("my_model", f"runs/{model}") == Path("runs/evaluations", model.replace("/", "-"))
    assert evaluation_folder("my_mod", f"runs/{model}").name == f"my_mod-{model.replace('/', '-')}"


def test_models_elsewhere_are_named_with_the_folder_above(place, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "first" / "final"
    elsewhere.mkdir(parents=True)
    assert evaluation_folder("RECIPE", str(elsewhere)).name == "RECIPE-first-final"


MEDIA = {
    b"\0\0\0\x18ftypmp42": "an MP4 or QuickTime file",
    **{b"\0\0\0\x18ftyp" + brand: "an image (HEIC or AVIF)" for brand in (b"heic", b"heix", b"hevc", b"mif1", b"avis")},
    b"RIFF\x24\0\0\0WAVEfmt ": "a WAV file",
    b"\x89PNG\r\n\x1a\n": "an image (PNG)",
    b"id,start,label\n": "text",
    b"": "an empty file",
}


@pytest.mark.parametrize(("content", "kind"), MEDIA.items())
@pytest.mark.parametrize("suffix", [".mp4", ".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_named(content, kind, suffix, place, capsys):
    Path(f"clip{suffix}").write_bytes(content)
    assert cli.main(["convert", f"clip{suffix}", "out"]) == 2
    expected = f"clip{suffix}: expected a checkpoint, .pth or .safetensors, got {kind}.\n"
    assert capsys.readouterr().err == f"deepavfusion convert: {expected}"
    assert not Path("out").exists()


def test_what_may_be_a_checkpoint_passes(tmp_path):
    """Also damaged ones, of which there is more to say than what they are not."""
    tensors = {"a": torch.zeros(3)}
    torch.save(tensors, tmp_path / "new.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "x.safetensors")
    for length in range(64):  # of the header, whose size in bytes is at the start of the file
        save_file(tensors, tmp_path / f"{length}.safetensors", metadata={"format": "pt", "note": " " * 8 * length})
    assert {(tmp_path / f"{length}.safetensors").read_bytes()[0] for length in range(64)} == {*range(0, 256, 8)}
    (tmp_path / "cut.pth").write_bytes((tmp_path / "new.pth").read_bytes()[:200])
    for file in tmp_path.iterdir():
        assert checkpoint_fault(file) is None, file
    (tmp_path / "x.safetensors").rename(tmp_path / "x.pth")
    (tmp_path / "new.pth").rename(tmp_path / "new.safetensors")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("notes.txt", "notes")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    faults = {file.name: checkpoint_fault(file) for file in tmp_path.iterdir()}
    assert "got a Git LFS pointer in place of the content: run `git lfs pull`" in faults["pointer.pth"]
    assert faults["x.pth"].endswith("got a safetensors file: name it .safetensors")
    assert faults["new.safetensors"].endswith("got a file as torch.save writes it: name it .pth")
    assert faults["other.pth"].endswith("got a zip archive of other files")
    with pytest.raises(
        ValueError, match="x.pth cannot be read as a checkpoint of plain tensors: expected a checkpoint, "
    ):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("name", [*OUTPUTS, "convert", "evaluate", "pretrain"])
def test_an_output_that_cannot_be_written_is_told_before_any_work(name, place, capsys, monkeypatch):
    """Whatever is wrong with the place, the answer names the argument of the output."""
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: pytest.fail(f"{name} is imported"))
    Path("link").symlink_to("nowhere")
    places = {
        "/proc/x/y": "/proc takes no files",
        "clip.mp4/x/y": "clip.mp4 is a file",
        "link/x": "link is a link to nothing",
        "n" * 300: "file name too long",
    }
    for out, reason in places.items():
        words, argument = {
            "convert": (["checkpoint.pth", out], "output"),
            "evaluate": (["scenes_retrieval", "--model", "runs/my_model", "--out", out], "--out"),
            "pretrain": (["scenes_tiny", f"run.output_dir={out}"], "run.output_dir"),
        }.get(name, (["clip.mp4", "--model", "runs/my_model", "--out", out], "--out"))
        assert cli.main([name, *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"deepavfusion {name}: {argument}={out} cannot be ")
        assert reason in error
        assert error.count("\n") == 1


def test_what_can_be_written_passes_and_nothing_is_left(tmp_path):
    for path in (tmp_path, tmp_path / "a" / "b"):
        check_writable(path, "--out")
        check_output_file(path / "file", "--output")
    assert not list(tmp_path.iterdir())


def test_a_read_only_folder_is_told(tmp_path, monkeypatch):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(FolderError, match=f"^--out={tmp_path} cannot be written to: it is read-only; choose another"):
        check_writable(tmp_path, "--out")
    tmp_path.chmod(0o755)


def test_the_home_folder_is_expanded_wherever_a_path_is_given(tmp_path, monkeypatch):
    """A shell leaves the ~ within a word such as data.path=~/clips alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("command: finetune\ndata: {path: ~/clips}\nrun: {output_dir: ~/out}\n")
    words = ["folder_recognition", "data.path=~/clips", "run.output_dir=~/out", "run.trackers=[~/a]"]
    for given in (words, [str(tmp_path / "own.yaml"), "task.name=recognition", "data.name=folder"]):
        recipe = load_recipe("finetune", *given[:1], given[1:])
        assert (recipe.data.path, recipe.run.output_dir) == (f"{tmp_path}/clips", f"{tmp_path}/out")
    parser = CommandParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--model")
    found = parser.parse_args(["--model=~/m", "~", "~/a", "data.path=~/b", "a~/b", "x=~/c", "~user/d"])
    assert found.model == f"{tmp_path}/m"
    assert found.words == [str(tmp_path), f"{tmp_path}/a", f"data.path={tmp_path}/b", "a~/b", "x=~/c", "~user/d"]


def test_a_file_whose_name_begins_with_a_dash_is_written_with_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("-x.mp4").touch()
    parser = CommandParser()
    parser.add_argument("clip")
    with pytest.raises(SystemExit):
        parser.parse_args(["-x.mp4"])
    assert "did you mean ./-x.mp4?" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        ("runs/my_mdel", "; did you mean runs/my_model?"),
        ("runs/myModel", "; did you mean runs/my_model?"),
        ("models/other_mode", "; did you mean models/other_model?"),
        ("./models/oter_model", "; did you mean models/other_model?"),
        ("other/my_model", "; did you mean runs/my_model?"),
        ("my_model", "; did you mean runs/my_model?"),
        ("runs/quickstart", "; `make quickstart` creates it"),
        ("runs/scenes_tiny", "; `deepavfusion pretrain scenes_tiny` creates it"),
        (
            "runs/scenes_recogntion",
            "; did you mean runs/scenes_recognition, which `deepavfusion finetune scenes_recognition` creates?",
        ),
        ("runs/zzz", ""),
        ("./zzz", ""),
        (".hidden/zzz", ""),
        ("ORG/NAME", ""),
    ],
)
def test_a_misspelt_model_is_answered_with_the_closest(origin, hint, place):
    assert suggestion(origin) == hint
    if origin.startswith(("runs", ".")) or "/" not in origin:
        assert missing_folder(origin) == f"there is no such folder{hint or '; there are models in e.g. runs/my_model'}"
    else:
        assert missing_folder(origin) is None  # it may be a Hub id


@pytest.mark.parametrize("mark", ["", "{", "3", "[]", "{}", '{"finished": 1}', '{"finished": true}', "[" * 9999])
def test_a_mark_that_says_nothing_of_an_unfinished_run_is_passed_over(mark, place):
    Path("runs/other").mkdir()
    Path("runs/other", MARK_FILE).write_text(mark)
    assert missing_model("runs/other").startswith("there is no model in that folder")


def test_runs_of_recipes_and_of_nothing_else_are_known():
    assert maker("scenes_probe") == "deepavfusion probe scenes_probe"
    assert maker("scenes_retrieval") is None
    assert maker("x" * 300) is None


@pytest.mark.parametrize("command", RECIPES)
def test_every_default_passes_the_early_checks(command):
    for _, entries in stored()[command]:
        for key, kind, *_ in entries:
            value = load_values(kind.partition(", default ")[2])
            check_override(key, value, *type_and_limits(*key.split("."), command))


def test_names_that_are_written_twice_are_the_same():
    assert arguments.FITS == FITS
    assert MARK_FILE == modeling_deepavfusion.MARK_FILE
    assert tuple(DATA_SETS) == arguments.DATA_SETS
    assert tuple(TASK_CLASSES) == exports.CONVERTED
    assert {*arguments.PARSERS} == {*cli.INFERENCE, "verify"}
    assert {*preflight.ACCEPTED} | {*arguments.PARSERS} | {"data", "recipes"} == {*cli.COMMANDS}


STOPPED = """
import sys
import deepavfusion_cli as cli

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch", "transformers"):
            sys.exit(7)

sys.meta_path.insert(0, Stop())
for words in {lines}:
    try:
        cli.main(words)
    except SystemExit as stop:
        assert stop.code == 7, words
"""


def test_a_line_is_printed_before_imports_that_take_seconds(place):
    """To standard error: what a command prints may be read by a program."""
    model = ["--model", "runs/my_model"]
    lines = [
        ["classify", "clip.mp4", *model, "--json"],
        ["pretrain", "scenes_tiny"],
        ["data", "check", "folder", "."],
    ]
    code = STOPPED.format(lines=lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == "".join(f"deepavfusion {name}: loading ...\n" for name in ("classify", "pretrain", "data"))
