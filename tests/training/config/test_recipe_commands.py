"""The packaged recipes as commands: what is missing is reported, and small data sets run to the end."""

import re
from pathlib import Path

import pytest
import torch

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionConfig, DeepAVFusionModel
from deepavfusion.training.config.recipe import load_recipe, recipe_command, recipe_names
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.sources import DATA_SETS
from deepavfusion_cli.arguments import data_parser
from tests.tiny import WIDE

PRETRAINING = recipe_names("pretrain")
FINETUNING = recipe_names("evaluate")
ON_DISK = [name for name in FINETUNING if not name.startswith("scenes_")]
TINY = {**WIDE, "spectrogram_length": 64}


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A model to start from: of any size, for nothing of it is trained here."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("origin")
    DeepAVFusionModel(DeepAVFusionConfig(**TINY)).save_pretrained(folder)
    return folder


def command_of(name, origin, folder, *overrides):
    """The command of a recipe, as its comment gives it, with other folders."""
    command, common = recipe_command(name), ["run.cpu=true", "data.num_workers=0", *overrides]
    if command == "evaluate":
        return ["evaluate", name, *common, "--model", str(origin), "--out", str(folder)]
    return [command, name, f"model.init_from={origin}", f"run.output_dir={folder}", *common]


@pytest.mark.parametrize("name", ON_DISK)
def test_a_folder_that_is_not_there_is_told(name, origin, tmp_path, capsys):
    missing = tmp_path / "no such folder"
    assert cli.main(command_of(name, origin, tmp_path / "out", f"data.path={missing}")) == 2
    err = capsys.readouterr().err
    assert err.startswith("deepavfusion ")
    assert str(missing) in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ON_DISK)
def test_a_path_that_is_not_given_is_asked_for(name, origin, tmp_path, capsys):
    assert cli.main(command_of(name, origin, tmp_path / "out")) == 2
    assert "data.path is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "origin", "maker"),
    [
        ("finetune vggsound_finetune", "runs/vggsound_base", "deepavfusion pretrain vggsound_base"),
        ("finetune scenes_recognition", "runs/quickstart", "make quickstart"),
        ("finetune scenes_separation", "runs/quickstart", "make quickstart"),
        ("evaluate scenes_probe --model runs/scenes_probe", "runs/scenes_probe", "deepavfusion probe scenes_probe"),
        ("pretrain scenes_tiny model.init_from=runs/mine", "runs/mine", None),
        ("evaluate scenes_retrieval --model runs/a/scenes_tiny", "runs/a/scenes_tiny", None),
    ],
)
def test_a_model_that_was_not_trained_yet_is_told_with_what_makes_it(
    command, origin, maker, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sizes = ["data.eval_size=8", "data.cache_dir=null"] if "scenes" in command else []
    assert cli.main([*command.split(), *(sizes or [f"data.path={tmp_path}"]), "run.cpu=true"]) == 2
    err = capsys.readouterr().err
    assert f"{origin} cannot be used: there is no such folder" in err
    assert ("creates it" not in err) if maker is None else f"; `{maker}` creates it" in err


@pytest.mark.parametrize(
    ("command", "name", "right"),
    [
        ("finetune", "vggsound_retrieval", "evaluate vggsound_retrieval --model MODEL"),
        ("finetune", "scenes_tiny", "pretrain scenes_tiny"),
        ("finetune", "vggsound_probe", "probe vggsound_probe"),
        ("probe", "vggsound_finetune", "finetune vggsound_finetune"),
        ("pretrain", "vggsound_finetune", "finetune vggsound_finetune"),
    ],
)
def test_a_recipe_of_another_command_names_the_right_one(command, name, right, tmp_path, capsys):
    assert cli.main([command, name, f"run.output_dir={tmp_path / 'out'}"]) == 2
    assert f"use `deepavfusion {right}`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_localization_without_boxes_needs_a_list(tmp_path):
    recipe = load_recipe("finetune", "vggss_localization")
    (tmp_path / "vggss.json").write_text('[{"file": "abcdefghijk_000010", "bbox": [[0, 0, 0.5, 0.5]]}]')
    source = {**recipe.data.source(), "path": str(tmp_path)}
    with pytest.raises(ValueError, match="set data.train_list to a list of training clips"):
        build_dataset(source, DeepAVFusionConfig(**TINY), "train", train=True, seed=0, task="localization")


def documented_commands():
    """The commands of docs/data.md, as lists of words after `deepavfusion`."""
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"^(?:deepavfusion |accelerate launch -m deepavfusion\.training\.)(.+)$", blocks, re.MULTILINE)
    return text, [line.split() for line in lines]


def test_the_data_sets_are_documented():
    text, commands = documented_commands()
    for name in (*DATA_SETS, *PRETRAINING, *ON_DISK):
        assert f"`{name}`" in text or f" {name} " in text, name
    assert {words[1] for words in commands if words[0] != "data"} == {*PRETRAINING, *FINETUNING}


@pytest.mark.parametrize("words", documented_commands()[1], ids=" ".join)
def test_documented_commands_are_accepted(words):
    command, name, *rest = words
    if command == "data":
        given = data_parser(name).parse_intermixed_args([name, *rest])
        assert (given.action, given.name) == (name, rest[0])
        return
    if "--model" in rest:
        place = rest.index("--model")
        assert command == "evaluate"
        del rest[place : place + 2]
    assert load_recipe(command, name, rest).name == name
