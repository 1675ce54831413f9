"""What is wrong with a command line is answered before torch is imported."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import deepavfusion_cli as cli
from deepavfusion import modeling_deepavfusion
from deepavfusion.processors.fit_deepavfusion import FITS
from deepavfusion.training.data.sources import DATA_SETS
from deepavfusion_cli import arguments, preflight
from deepavfusion_cli.options import stored, type_and_limits
from deepavfusion_cli.paths import (
    MARK_FILE,
    FolderError,
    check_output_file,
    check_writable,
    missing_folder,
    missing_model,
    suggestion,
)
from deepavfusion_cli.recipes import maker
from deepavfusion_cli.values import check_override, load_values

RECIPES = ("pretrain", "finetune", "probe", "evaluate")
OUTPUTS = {name: ["--out"] for name in ("embed", "separate", "segment", "localize")}
SLOW = ("torch", "numpy", "transformers")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a media file, a model's folder and a file of text, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(b"no video")
    Path("checkpoint.pth").write_bytes(b"no checkpoint")
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
    cases += [([name], 2, "") for name in RECIPES]
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
            ([name, recipe, "model.init_from=./x"], 2, "model.init_from=./x cannot be used: there is no such folder."),
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
        ("ORG/NAME", ""),
    ],
)
def test_a_misspelt_model_is_answered_with_the_closest(origin, hint, place):
    assert suggestion(origin) == hint
    if origin.startswith(("runs", ".")):
        assert missing_folder(origin) == f"there is no such folder{hint}"
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
        ["data", "check", "folder", "runs"],
    ]
    code = STOPPED.format(lines=lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == "".join(f"deepavfusion {name}: loading ...\n" for name in ("classify", "pretrain", "data"))
