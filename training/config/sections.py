"""Sections of a recipe, their options, and the commands that these apply to."""

import dataclasses
import functools
import inspect
import re

from deepavfusion import DeepAVFusionConfig
from deepavfusion.ranges_deepavfusion import field_ranges

from ..data import data_sets
from .arguments import DataArguments, OptimArguments, RunArguments, TaskArguments
from .commands import COMMANDS, TRAINING
from .model import ModelArguments
from .options import Option, Scope, field_options

# Prefix of fields of the configuration -> tasks that they apply to.
_HEADS = {
    "pretraining_": ("pretraining",),
    "decoder_prediction_": ("pretraining",),
    "alignment_": ("pretraining",),
    "sigreg_": ("pretraining",),
    "classifier_": ("recognition",),
    "separation_": ("separation",),
    "semantic_": ("segmentation",),
    "localization_": ("localization",),
    "unet_": ("separation", "segmentation"),
}

SECTIONS = {
    "task": TaskArguments,
    "model": ModelArguments,
    "data": DataArguments,
    "optim": OptimArguments,
    "run": RunArguments,
}


def data_sets_of(command: str) -> tuple[str, ...]:
    """List the data sets that support a task of a command."""
    suitable = {name for task in COMMANDS[command] for name in data_sets(task=TaskArguments(task).data_task)}
    return tuple(name for name in data_sets() if name in suitable)


@functools.cache
def config_options() -> tuple[Option, ...]:
    """The fields of `DeepAVFusionConfig` as options, with the descriptions in its docstring."""
    # Python 3.13 removes the indentation of docstrings, earlier versions keep it.
    text = inspect.getdoc(DeepAVFusionConfig) or ""
    described = re.findall(r"^ +(\w+) \(`.*\):\n((?: {8}.*(?:\n|$))+)", text, re.MULTILINE)
    helps = {name: " ".join(lines.split()) for name, lines in described}
    ranges, found = dict(field_ranges(DeepAVFusionConfig)), []
    for name, hint in DeepAVFusionConfig.__annotations__.items():
        tasks = next((tasks for start, tasks in _HEADS.items() if name.startswith(start)), ())
        default = getattr(DeepAVFusionConfig, name)
        found.append(
            Option(name, hint, default, helps.get(name, ""), commands=TRAINING, tasks=tasks, range=ranges.get(name))
        )
    return tuple(found)


def section_options(section: str, command: str | None = None) -> list[Option]:
    """List the options of a section; `model` includes the fields of the model configuration.

    Args:
        section: Name of the section.
        command: Command to restrict the options to: those that apply to any of its tasks and data sets.
    """
    options = list(field_options(SECTIONS[section]))
    if section == "task" and command is not None:
        name, *others = options
        options = [dataclasses.replace(name, default=COMMANDS[command][0]), *others]
    if section == "model":
        options += config_options()
    if section == "data":
        options = [dataclasses.replace(option, data_sets=data_sets(option=option.name)) for option in options]
    return options if command is None else [option for option in options if _applies(option, command)]


def _applies(option: Option, command: str) -> bool:
    scopes = (Scope(command, task=task) for task in COMMANDS[command])
    sets = (Scope(data_set=name) for name in data_sets_of(command))
    return any(not scope.mismatch(option) for scope in scopes) and any(not scope.mismatch(option) for scope in sets)


__all__ = ["SECTIONS", "config_options", "data_sets_of", "section_options"]
