"""`--help` of the commands that take a recipe: all recipes and options, from the dataclasses of the sections."""

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from deepavfusion_cli import options as cli_options
from deepavfusion_cli.options import assembled, fill

from .commands import COMMANDS
from .options import Option, Scope, field_options, type_name
from .recipe import Recipe
from .sections import SECTIONS, config_options, data_sets_of, section_options


def help_text(command: str, description: str, recipe: Recipe | None = None) -> str:
    """Usage, description, recipes and options of a command that takes a recipe.

    Args:
        command: Name of the command.
        description: What it does.
        recipe: Recipe whose comment and values are shown; by default all recipes and the defaults of the options.
    """
    name = "RECIPE" if recipe is None else recipe.source
    return assembled(command, description, recipes_text(command, recipe), options_text(command, recipe), name)


def recipes_text(command: str, recipe: Recipe | None = None) -> str:
    """The packaged recipes that a command accepts, each with its goal, or the comment of one recipe."""
    if recipe is None:
        return cli_options.recipes_text(command)
    return "\n".join([f"recipe {recipe.name}:", *(fill(line, "  ", "    ") for line in recipe.goal.splitlines())])


def options_text(command: str, recipe: Recipe | None = None) -> str:
    """Every option that applies to a command, by section, with type, default and description.

    Args:
        command: Name of the command.
        recipe: Recipe whose values are the defaults; only the options of its task and data set are listed.
    """
    return cli_options.options_text(command, listed(command, recipe), recipe and recipe.name)


def listed(command: str, recipe: Recipe | None = None) -> list[list]:
    """The options that apply to a command, as the sections of `deepavfusion_cli.options.stored`."""
    scope = Scope(command) if recipe is None else Scope(command, recipe.task.name, recipe.data.name)
    found = []
    for section, cls in SECTIONS.items():
        options = [option for option in section_options(section, command) if not scope.mismatch(option)]
        title = f"{section}: {cls.__doc__.strip().splitlines()[0]}"
        if section == "model" and len(options) > len(field_options(cls)):
            fields = "All fields" if recipe is None else "Fields"
            title += f" {fields} of DeepAVFusionConfig are valid, and listed here."
        defaults = {option.name: _yaml(option.default) for option in options}
        if recipe is not None:
            defaults |= _recipe_defaults(recipe, section)
        found.append([title, [_entry(section, option, defaults[option.name], scope, recipe) for option in options]])
    return found


def write_options() -> None:
    """Write what `--help` lists where no recipe is named, so that it is shown without importing this package."""
    content = {command: listed(command) for command in COMMANDS}
    cli_options.FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _recipe_defaults(recipe: Recipe, section: str) -> dict[str, str]:
    """Values of a recipe's options as YAML; fields that it leaves to its initial model are described in words."""
    values = {name: _yaml(value) for name, value in recipe.to_dict()[section].items()}
    if section != "model":
        return values
    fields = [option.name for option in config_options()]
    if recipe.model.init_from is not None:
        return dict.fromkeys(fields, "that of model.init_from") | values
    config = recipe.model.build_config()
    return {name: _yaml(getattr(config, name)) for name in fields} | values


def _entry(section: str, option: Option, default: str, scope: Scope, recipe: Recipe | None) -> list:
    key = f"{section}.{option.name}"
    text = " ".join([option.help, *_limits(key, option, scope)])
    if recipe is not None:
        text = re.sub(r"\bRECIPE\b", lambda _: recipe.name, text)
    limits: dict[str, Any] = {}
    if choices := _choices(key, option, scope):
        limits["choices"] = list(choices)
    if option.range is not None:
        limits["range"] = {name: limit for name, limit in vars(option.range).items() if limit is not None}
    scopes = (
        ("tasks", option.tasks, COMMANDS[scope.command]),
        ("data_sets", option.data_sets, data_sets_of(scope.command)),
    )
    for kind, names, possible in scopes:
        if names and not {*possible} <= {*names}:
            limits[kind] = [name for name in possible if name in names]
    if section == "model" and option in config_options():
        limits["configuration"] = True
    return [key, f"{type_name(option.type)}, default {default}", text, limits]


def _choices(key: str, option: Option, scope: Scope) -> Sequence[str]:
    own = {"task.name": COMMANDS[scope.command], "data.name": data_sets_of(scope.command)}
    return own.get(key, option.choices)


def _limits(key: str, option: Option, scope: Scope) -> list[str]:
    """Sentences on the values of an option, and on the tasks and data sets that it applies to."""
    tasks = COMMANDS[scope.command] if scope.task is None else (scope.task,)
    sets = data_sets_of(scope.command) if scope.data_set is None else (scope.data_set,)
    limits = []
    if described := [f"{name}: {option.by_data_set[name]}" for name in sets if name in option.by_data_set]:
        limits.append(f"Of {'; '.join(described)}.")
    if choices := _choices(key, option, scope):
        limits.append(f"{'Any' if isinstance(option.default, list) else 'One'} of {', '.join(choices)}.")
    if option.range is not None:
        limits.append(f"A number {option.range}.")
    for title, names, possible in (("task", option.tasks, tasks), ("data set", option.data_sets, sets)):
        applicable = [name for name in possible if name in names]
        if names and len(applicable) < len(possible):
            limits.append(f"Only for the {title} {', '.join(applicable)}.")
    return limits


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


__all__ = ["help_text", "listed", "options_text", "recipes_text", "write_options"]
