"""`--help` of the commands that take a recipe: all recipes and options, from the dataclasses of the sections."""

import re
import shutil
import textwrap
from typing import Any

import yaml

from .commands import COMMANDS
from .options import Option, Scope, field_options, type_name
from .recipe import Recipe, recipe_goal, recipe_names
from .sections import SECTIONS, config_options, data_sets_of, section_options


def help_text(command: str, description: str, recipe: Recipe | None = None) -> str:
    """Usage, description, recipes and options of a command that takes a recipe and overrides alone.

    Args:
        command: Name of the command.
        description: What it does.
        recipe: Recipe whose comment and values are shown; by default all recipes and the defaults of the options.
    """
    usage = f"usage: deepavfusion {command} {named('RECIPE', recipe)} [section.key=value ...] [--traceback]"
    return "\n\n".join([usage, description.strip(), recipes_text(command, recipe), options_text(command, recipe)])


def named(text: str, recipe: Recipe | None) -> str:
    """A text of `--help` with the recipe in place of the word RECIPE if one is given."""
    return text if recipe is None else re.sub(r"\bRECIPE\b", lambda _: recipe.source, text)


def recipes_text(command: str, recipe: Recipe | None = None) -> str:
    """The packaged recipes that a command accepts, each with its goal, or the comment of one recipe."""
    if recipe is not None:
        return "\n".join([f"recipe {recipe.name}:", *(_fill(line, "  ", "    ") for line in recipe.goal.splitlines())])
    names = recipe_names(command)
    indent = max(map(len, names)) + 4
    goals = [_fill(recipe_goal(name), f"  {name}".ljust(indent), " " * indent) for name in names]
    return "\n".join(["recipes:", *goals])


def options_text(command: str, recipe: Recipe | None = None) -> str:
    """Every option that applies to a command, by section, with type, default and description.

    Args:
        command: Name of the command.
        recipe: Recipe whose values are the defaults; only the options of its task and data set are listed.
    """
    if recipe is None:
        values = (
            f"defaults are for recipes that leave an option out; deepavfusion {command} RECIPE --help shows a recipe's"
        )
        scope = Scope(command)
    else:
        values = f"defaults are those of recipe {recipe.name}"
        scope = Scope(command, recipe.task.name, recipe.data.name)
    parts = [_fill(f"options, as section.key=value (values are YAML; {values}):")]
    for section, cls in SECTIONS.items():
        options = [option for option in section_options(section, command) if not scope.mismatch(option)]
        title = f"{section}: {cls.__doc__.strip().splitlines()[0]}"
        if section == "model" and len(options) > len(field_options(cls)):
            fields = "All fields" if recipe is None else "Fields"
            title += f" {fields} of DeepAVFusionConfig are valid, and listed here."
        defaults = {option.name: _yaml(option.default) for option in options}
        if recipe is not None:
            defaults |= _recipe_defaults(recipe, section)
        entries = [named(_entry(section, option, defaults[option.name], scope), recipe) for option in options]
        parts.append("\n".join([title, *entries]))
    return "\n\n".join(parts)


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


def _entry(section: str, option: Option, default: str, scope: Scope) -> str:
    head = f"  {section}.{option.name}  {type_name(option.type)}, default {default}"
    text = " ".join([option.help, *_limits(f"{section}.{option.name}", option, scope)])
    return f"{head}\n{_fill(text, ' ' * 6, ' ' * 6)}"


def _limits(key: str, option: Option, scope: Scope) -> list[str]:
    """Sentences on the values of an option, and on the tasks and data sets that it applies to."""
    tasks = COMMANDS[scope.command] if scope.task is None else (scope.task,)
    sets = data_sets_of(scope.command) if scope.data_set is None else (scope.data_set,)
    limits = []
    if described := [f"{name}: {option.by_data_set[name]}" for name in sets if name in option.by_data_set]:
        limits.append(f"Of {'; '.join(described)}.")
    if option.choices:
        own = {"task.name": COMMANDS[scope.command], "data.name": data_sets_of(scope.command)}
        choices = own.get(key, option.choices)
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


def _fill(text: str, first: str = "", rest: str = "") -> str:
    """Text wrapped to the terminal, with indents of the first line and of the rest."""
    return textwrap.fill(text, _width(), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((120, 24)).columns, 120))


__all__ = ["help_text", "named", "options_text", "recipes_text"]
