"""The sections of a recipe and their options: which there are, and which apply to a command."""

import dataclasses
import re

from deepavfusion import DeepAVFusionConfig

from ..data import data_sets
from .arguments import (
    COMMANDS,
    TRAINING,
    DataArguments,
    ModelArguments,
    OptimArguments,
    RunArguments,
    TaskArguments,
)
from .options import Option, Scope, field_options

# Fields of the configuration that belong to one task, by the start of their names.
_HEADS = {
    "pretraining_": ("pretraining",),
    "decoder_prediction_": ("pretraining",),
    "alignment_": ("pretraining",),
    "sigreg_": ("pretraining",),
    "classifier_": ("recognition",),
    "separation_": ("separation",),
    "semantic_": ("segmentation",),
    "localization_": ("localization",),
}

SECTIONS = {
    "task": TaskArguments,
    "model": ModelArguments,
    "data": DataArguments,
    "optim": OptimArguments,
    "run": RunArguments,
}


def data_sets_of(command: str) -> tuple[str, ...]:
    """Names of the data sets that serve a task of a command."""
    suitable = {name for task in COMMANDS[command] for name in data_sets(task=TaskArguments(task).data_task)}
    return tuple(name for name in data_sets() if name in suitable)


def config_options() -> list[Option]:
    """Fields of `DeepAVFusionConfig` as options, with the descriptions of its docstring."""
    text = DeepAVFusionConfig.__doc__ or ""
    described = re.findall(r"^ +(\w+) \(`.*\):\n((?: {12}.*\n)+)", text, re.MULTILINE)
    helps = {name: " ".join(lines.split()) for name, lines in described}
    found = []
    for name, hint in DeepAVFusionConfig.__annotations__.items():
        tasks = next((tasks for start, tasks in _HEADS.items() if name.startswith(start)), ())
        default = getattr(DeepAVFusionConfig, name)
        found.append(Option(name, hint, default, helps.get(name, ""), commands=TRAINING, tasks=tasks))
    return found


def section_options(section: str, command: str | None = None) -> list[Option]:
    """Options of a section; `model` includes the fields of the model configuration.

    Args:
        section: Name of the section.
        command: Restrict the options to those that apply to this command, for any of its tasks and data sets.
    """
    options = field_options(SECTIONS[section])
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
