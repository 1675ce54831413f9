"""The `deepavfusion` command: help, version, dispatch, and answers to words that it does not know."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deepavfusion
import deepavfusion_cli as cli
from deepavfusion_cli.recipes import all_recipes, recipe_comment, recipe_file, recipe_needs

SETUP = Path(__file__).parents[2] / "setup.cfg"


def test_the_command_line_lists_what_exists(capsys):
    assert cli.main(["--help"]) == 0
    usage = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert command in usage
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"deepavfusion {deepavfusion.__version__}\n")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fine-tune", "unknown command 'fine-tune'. Did you mean finetune?"),
        ("clasify", "unknown command 'clasify'. Did you mean classify?"),
        ("--verison", "unknown option '--verison'. Did you mean --version?"),
        ("xyz", "unknown command 'xyz'.\n"),
    ],
)
def test_unknown_words_are_answered_with_the_closest(word, message, capsys):
    assert cli.main([word]) == 2
    assert f"deepavfusion: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["fine-tune"], ["recipes"]])
def test_what_runs_no_command_imports_no_torch(arguments):
    setup = SETUP.read_text(encoding="utf-8")
    module, function = re.search(r"deepavfusion = (\w+):(\w+)$", setup, re.MULTILINE).groups()
    code = f"import sys, {module}; {module}.{function}({arguments}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert f"'{module}'" in loaded
    assert not [name for name in ("torch", "numpy", "transformers") if f"'{name}'" in loaded]


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_exists_and_has_help(command, capsys):
    try:
        code = cli.main([command, "--help"])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 0
    assert f"deepavfusion {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "stream", "unbuffered"),
    [
        (["--help"], "stdout", ""),
        (["--help"], "stdout", "1"),
        (["pretrain", "--help"], "stdout", ""),
        (["classify", "--help"], "stdout", ""),
        (["fine-tune"], "stderr", ""),
    ],
)
def test_a_closed_pipe_ends_the_command_quietly(arguments, stream, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    code = f"import sys, deepavfusion_cli; sys.exit(deepavfusion_cli.main({arguments}))"
    try:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        streams = {stream: writer, other: subprocess.PIPE}
        done = subprocess.run([sys.executable, "-c", code], text=True, env=environment, **streams)
    finally:
        os.close(writer)
    assert (done.returncode, getattr(done, other)) == (1, "")


def test_a_broken_pipe_to_something_else_is_an_error(monkeypatch, capsys):
    def fail(argv):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["--help"]) == 1
    assert capsys.readouterr().err == "deepavfusion: broken pipe\n"


_INTERRUPTED = """
import os, signal, sys
import deepavfusion_cli

class Finder:
    def find_spec(self, name, *_):
        if name == "transformers":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.exit(deepavfusion_cli.main(["classify", sys.executable, "--model", "."]))
"""


def test_ctrl_c_during_imports_is_answered_in_one_word(tmp_path):
    (tmp_path / "config.json").write_text("{}")  # a model, as far as is looked before imports
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "deepavfusion classify: loading ...\ninterrupted\n")


def test_all_recipes_are_listed_with_what_they_need_and_cost(capsys):
    assert cli.main(["recipes"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in all_recipes():
        about = recipe_comment(name)
        expected = f" {name} {about['goal']} Needs {recipe_needs(name)}. Cost: {about['cost']}"
        assert expected in text
    assert recipe_needs("scenes_tiny") == "no data"
    place = "runs/quickstart, which `make quickstart` creates"
    assert recipe_needs("scenes_recognition") == f"no data and a model in model.init_from (by default {place})"
    place = "runs/folder, which `deepavfusion pretrain folder` creates"
    assert recipe_needs("folder_recognition").endswith(f" and a model in model.init_from (by default {place})")
    assert not [name for name in all_recipes() if "None" in recipe_needs(name)]
    assert recipe_needs("vggsound_base") == "the data set vggsound in data.path"
    assert recipe_needs("scenes_retrieval") == "no data and a model in --model"


def test_recipes_of_a_command_and_the_file_of_a_recipe(capsys):
    assert cli.main(["recipes", "probe"]) == 0
    text = capsys.readouterr().out
    assert "scenes_probe" in text
    assert "scenes_tiny" not in text
    assert cli.main(["recipes", "scenes_tiny"]) == 0
    assert capsys.readouterr().out == recipe_file("scenes_tiny").read_text(encoding="utf-8")
    assert cli.main(["recipes", "scenes_tyni"]) == 2
    assert "Did you mean scenes_tiny?" in capsys.readouterr().err


def test_what_is_like_no_name_is_answered_without_a_guess(capsys):
    for words in (["nonsense"], ["recipes", "nonsense"], ["pretrain", "nonsense"]):
        assert cli.main(words) == 2
        err = capsys.readouterr().err
        assert "nonsense" in err
        assert "Did you mean" not in err
