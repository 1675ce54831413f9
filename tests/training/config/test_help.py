"""`--help` of the commands that take a recipe."""

import inspect
import re

import pytest
import yaml

from deepavfusion import DeepAVFusionConfig
from deepavfusion.training import evaluate, finetune, pretrain, probe
from deepavfusion.training.config.commands import COMMANDS
from deepavfusion.training.config.help import help_text, options_text, recipes_text
from deepavfusion.training.config.help import listed as sections
from deepavfusion.training.config.options import field_options
from deepavfusion.training.config.recipe import load_recipe, recipe_goal, recipe_names
from deepavfusion.training.config.sections import SECTIONS, config_options, section_options
from deepavfusion_cli.options import command_help, stored


@pytest.fixture(autouse=True)
def width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def listed(command):
    return re.findall(r"^  (\w+\.\w+)  (\S.*), default (.*)$", options_text(command), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_exactly_the_options_that_apply(command):
    expected = [f"{name}.{option.name}" for name in SECTIONS for option in section_options(name, command)]
    assert [key for key, _, _ in listed(command)] == expected
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize(
    ("option", "commands"),
    [
        ("task.name", ["pretrain", "finetune", "probe", "evaluate"]),
        ("task.mixup", ["finetune", "probe"]),
        ("task.semantic", ["finetune", "evaluate"]),
        ("task.dense_windows", ["finetune", "probe", "evaluate"]),
        ("model.init_image", ["pretrain"]),
        ("model.hidden_size", ["pretrain", "finetune", "probe"]),
        ("model.localization_map", ["finetune"]),
        ("model.classifier_loss", ["finetune", "probe"]),
        ("data.path", ["pretrain", "finetune", "probe", "evaluate"]),
        ("data.selection_split", ["finetune", "probe"]),
        ("optim.tower_warmup_epochs", ["pretrain"]),
        ("optim.mixed_precision", ["pretrain", "finetune", "probe", "evaluate"]),
        ("run.num_reconstructions", ["pretrain"]),
        ("run.num_examples", ["finetune", "probe", "evaluate"]),
        ("run.output_dir", ["pretrain", "finetune", "probe"]),
    ],
)
def test_options_are_listed_for_the_commands_that_use_them(option, commands):
    assert [command for command in COMMANDS if option in {key for key, _, _ in listed(command)}] == commands


def test_types_and_defaults_are_those_of_the_fields():
    found = {key: (kind, default) for key, kind, default in listed("finetune")}
    assert found["optim.base_lr"] == ("float", "0.0003")
    assert found["optim.betas"] == ("list of float", "[0.9, 0.999]")
    assert found["optim.layer_decay"] == ("float or null", "null")
    assert found["run.keep_best"] == ("bool", "true")
    assert found["model.image_size"] == ("int or list of int", "224")
    assert found["model.fusion_layers"] == ("str or list of int", "all")


@pytest.mark.parametrize("indent", ["", "    "])
def test_fields_are_described_whether_docstrings_are_indented_or_not(indent, monkeypatch):
    """Python 3.13 removes the indentation."""
    text = inspect.getdoc(DeepAVFusionConfig)
    first, *lines = text.splitlines()
    monkeypatch.setattr(DeepAVFusionConfig, "__doc__", "\n".join([first, *(line and indent + line for line in lines)]))
    described = config_options.__wrapped__()
    assert described
    assert [option.name for option in described if not option.help] == []


def test_what_is_shown_without_importing_is_what_is_defined():
    """`make options` writes it."""
    assert stored() == {command: sections(command) for command in COMMANDS}
    for module in (pretrain, finetune, probe, evaluate):
        command = module.__name__.rpartition(".")[2]
        assert command_help(command) == help_text(command, module.__doc__)


def test_a_recipe_that_is_known_is_named(capsys):
    assert pretrain.main(["scenes_tiny", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: deepavfusion pretrain scenes_tiny [section.key=value ...]")
    assert "null for runs/scenes_tiny." in text
    assert evaluate.main(["scenes_retrieval", "--help"]) == 0
    assert "else runs/evaluations/scenes_retrieval-MODEL" in " ".join(capsys.readouterr().out.split())
    assert "null for runs/RECIPE." in options_text("pretrain")


def test_every_option_has_a_description():
    for section in SECTIONS:
        for option in section_options(section):
            assert re.search(r"\w.*[.)]$", option.help), f"{section}.{option.name}"


def test_all_fields_of_the_configuration_are_listed():
    own = {option.name for option in field_options(SECTIONS["model"])}
    fields = {option.name for option in section_options("model")} - own
    assert fields == set(DeepAVFusionConfig.__annotations__)
    assert "All fields of DeepAVFusionConfig are valid" in options_text("pretrain")
    assert "DeepAVFusionConfig" not in options_text("evaluate")


def test_limits_are_part_of_the_description():
    text = " ".join(options_text("finetune").split())
    assert "One of recognition, separation, segmentation, localization." in text
    assert "Only for the task segmentation." in text
    assert "Only for the data set audioset, music, shards, avsbench." in text
    assert "A number of at least 0 and below 1." in text
    pretraining = " ".join(options_text("pretrain").split())
    assert "One of scenes, folder, vggsound, audioset, music, vggsound_music, shards." in pretraining
    assert "Only for the task" not in pretraining


@pytest.mark.parametrize("command", COMMANDS)
def test_recipes_are_listed_with_their_whole_goals(command):
    text = recipes_text(command)
    lines = text.splitlines()[1:]
    assert [line.split()[0] for line in lines if line[2] != " "] == recipe_names(command)
    assert all(len(line) <= 100 for line in lines)
    for name in recipe_names(command):
        assert f" {name} {recipe_goal(name)}" in " ".join(text.split())


def test_the_default_task_is_one_of_the_command():
    for command, tasks in COMMANDS.items():
        assert {key: default for key, _, default in listed(command)}["task.name"] == tasks[0]


def test_the_values_of_a_data_set_are_shown_where_it_can_be_used():
    values = {"audioset": "balanced, unbalanced or all", "avsbench": "s4, ms3 or avss"}
    for command, names in (("pretrain", ["audioset"]), ("finetune", ["audioset", "avsbench"])):
        text = " ".join(options_text(command).split())
        assert [name for name in values if f"{name}: {values[name]}" in text] == names


def test_help_with_a_recipe_shows_its_values(capsys):
    assert pretrain.main(["scenes_tiny", "--help", "optim.epochs=3"]) == 0
    text = capsys.readouterr().out
    recipe = load_recipe("pretrain", "scenes_tiny", ["optim.epochs=3"])
    found = dict(re.findall(r"^  (\w+\.\w+)  \S.*, default (.*)$", text, re.MULTILINE))
    assert found["optim.epochs"] == "3.0"
    assert found["optim.base_lr"] == yaml.safe_dump(recipe.optim.base_lr).split()[0]
    assert found["model.hidden_size"] == "128"
    assert found["run.output_dir"] == "runs/scenes_tiny"
    assert "data.path" not in found  # scenes have none
    assert "defaults are those of recipe scenes_tiny" in text
    assert recipe_goal("scenes_tiny") in text
    assert "vggsound_base:" not in text


def test_help_with_a_recipe_leaves_fields_to_its_initial_model(capsys):
    assert finetune.main(["-h", "scenes_recognition"]) == 0
    text = capsys.readouterr().out
    assert "model.hidden_act  str, default that of model.init_from" in text
    assert "model.init_from  str or null, default runs/quickstart" in text


def test_help_of_evaluate_with_a_recipe(capsys):
    assert evaluate.main(["--model", "ORG/NAME", "music_separation", "--help"]) == 0
    text = capsys.readouterr().out
    assert "data.name  str, default music" in text
    assert "usage: deepavfusion evaluate" in text
    assert evaluate.main(["--help"]) == 0
    assert "data.name  str, default scenes" in capsys.readouterr().out


def test_help_with_a_recipe_that_is_not_there(capsys):
    assert pretrain.main(["scenes_tony", "--help"]) == 2
    assert "Did you mean scenes_tiny?" in capsys.readouterr().err


def test_help_has_usage_description_recipes_and_options():
    text = help_text("pretrain", "What it does.\n")
    parts = ["usage: deepavfusion pretrain RECIPE", "What it does.", "recipes:", "options,", "run: Output"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
