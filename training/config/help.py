"""`--help` of the commands that take a recipe: all recipes and options, from the dataclasses of the sections."""

import shutil
import textwrap
from typing import Any

import yaml

from .arguments import COMMANDS
from .options import Option, bounds, field_options, type_name
from .recipe import recipe_goal, recipe_names
from .sections import SECTIONS, data_sets_of, section_options


def help_text(command: str, description: str) -> str:
    """Usage, description, recipes and options of a command that takes a recipe and overrides alone."""
    usage = f"usage: deepavfusion {command} RECIPE [section.key=value ...]"
    return "\n\n".join([usage, description.strip(), recipes_text(command), options_text(command)])


def recipes_text(command: str) -> str:
    """The packaged recipes that a command accepts, a line each."""
    names = recipe_names(command)
    indent = max(map(len, names)) + 4
    goals = {name: textwrap.shorten(recipe_goal(name), _width() - indent, placeholder=" ...") for name in names}
    return "\n".join(["recipes:", *(f"  {name}".ljust(indent) + goal for name, goal in goals.items())])


def options_text(command: str) -> str:
    """Every option that applies to a command, by section, with type, default and description."""
    parts = ["options, as section.key=value (values are YAML):"]
    for section, cls in SECTIONS.items():
        options = section_options(section, command)
        title = f"{section}: {cls.__doc__.strip().splitlines()[0]}"
        if section == "model" and len(options) > len(field_options(cls)):
            title += " All fields of DeepAVFusionConfig are valid, and listed here."
        parts.append("\n".join([title, *(_entry(section, option, command) for option in options)]))
    return "\n\n".join(parts)


def _entry(section: str, option: Option, command: str) -> str:
    head = f"  {section}.{option.name}  {type_name(option.type)}, default {_yaml(option.default)}"
    indent = " " * 6
    text = " ".join([option.help, *_limits(f"{section}.{option.name}", option, command)])
    return f"{head}\n{textwrap.fill(text, _width(), initial_indent=indent, subsequent_indent=indent)}"


def _limits(key: str, option: Option, command: str) -> list[str]:
    """Sentences on the values of an option, and on the tasks and data sets that it applies to."""
    tasks, sets = COMMANDS[command], data_sets_of(command)
    limits = []
    if option.choices:
        choices = {"task.name": tasks, "data.name": sets}.get(key, option.choices)
        limits.append(f"{'Any' if isinstance(option.default, list) else 'One'} of {', '.join(choices)}.")
    if bounds(option):
        limits.append(f"A number {bounds(option)}.")
    for title, names, possible in (("task", option.tasks, tasks), ("data set", option.data_sets, sets)):
        applicable = [name for name in possible if name in names]
        if names and len(applicable) < len(possible):
            limits.append(f"Only for the {title} {', '.join(applicable)}.")
    return limits


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((120, 24)).columns, 120))


__all__ = ["help_text", "options_text", "recipes_text"]
