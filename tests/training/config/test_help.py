"""`--help` of the commands that take a recipe."""

import re

import pytest

from deepavfusion import DeepAVFusionConfig
from deepavfusion.training.config.arguments import COMMANDS
from deepavfusion.training.config.help import help_text, options_text, recipes_text
from deepavfusion.training.config.options import field_options
from deepavfusion.training.config.recipe import recipe_names
from deepavfusion.training.config.sections import SECTIONS, section_options


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
    assert "Only for the data set audioset, music, avsbench." in text
    assert "A number of at least 0 and below 1." in text
    pretraining = " ".join(options_text("pretrain").split())
    assert "One of scenes, folder, vggsound, audioset, music, vggsound_music." in pretraining
    assert "Only for the task" not in pretraining


@pytest.mark.parametrize("command", COMMANDS)
def test_recipes_have_a_line_each_within_the_width(command):
    lines = recipes_text(command).splitlines()[1:]
    assert [line.split()[0] for line in lines] == recipe_names(command)
    assert all(len(line) <= 100 and len(line.split()) > 3 for line in lines)


def test_help_has_usage_description_recipes_and_options():
    text = help_text("pretrain", "What it does.\n")
    parts = ["usage: deepavfusion pretrain RECIPE", "What it does.", "recipes:", "options,", "run: Output"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
