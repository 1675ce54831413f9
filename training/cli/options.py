"""The options of recipes by name, and `--help` of the commands that take one, without importing what defines them.

options.json holds what `--help` lists; `make options` writes it from the dataclasses of the sections, and a test
compares the two.
"""

import ast
import difflib
import functools
import json
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from .arguments import evaluate_parser
from .parser import CommandParser
from .recipes import (
    SUFFIXES,
    RecipeError,
    all_recipes,
    recipe_command,
    recipe_comment,
    recipe_file,
    recipe_folder,
    recipe_goal,
    recipe_names,
    recipe_needs,
    unknown,
)

FILE = Path(__file__).with_name("options.json")
# Names by which other programs know options -> `section.key`.
ALIASES = {
    "lr": "optim.base_lr",
    "learning_rate": "optim.base_lr",
    "model": "model.init_from",
    "out": "run.output_dir",
    "output": "run.output_dir",
}


@functools.cache
def stored() -> dict[str, list]:
    """Command -> its sections, as (title, options).

    An option is (key, type and default, description, limits), where limits are `choices`, the bounds of the `range`,
    the `tasks` and `data_sets` that it is restricted to, and `configuration`, true for fields of the model's.
    """
    return json.loads(FILE.read_text(encoding="utf-8"))


@functools.cache
def option_names(command: str) -> dict[str, list[str]]:
    """Section -> names of the options of a command, in order."""
    return {
        title.partition(":")[0]: [key.partition(".")[2] for key, *_ in entries] for title, entries in stored()[command]
    }


def closest_option(section: str, name: str, command: str) -> str | None:
    """The option `section.key` of a command that an unknown one may stand for.

    It is the option of that name in any section or as other programs call it, else a similar one in the same section,
    else a very similar one anywhere; None if there is none.
    """
    names = option_names(command)
    place, _, alias = ALIASES.get(name, "").partition(".")
    if alias and alias in names[place]:
        return f"{place}.{alias}"
    for cutoff, places in ((1.0, names), (0.5, [section] if section in names else []), (0.75, names)):
        for place in places:
            if close := difflib.get_close_matches(name, names[place], n=1, cutoff=cutoff):
                return f"{place}.{close[0]}"
    return None


def check_order(command: str, words: Sequence[str]) -> None:
    """Check that a command line starts with the recipe.

    Raises:
        RecipeError: If an option comes first; the message gives the right command line.
    """
    first, others = words[0], words[1:]
    if first.endswith(SUFFIXES) or not (first.startswith("-") or "=" in first):
        return
    found = (word for word in others if word.endswith(SUFFIXES) or recipe_file(word))
    recipe, option = next(found, "RECIPE"), first
    if first.startswith("-"):
        name, separator, value = first.lstrip("-").partition("=")
        closest = closest_option("", name.partition(".")[2] or name.replace("-", "_"), command)
        if not separator and others and others[0] != recipe and not others[0].startswith("-"):
            value = others[0]
        option = f"{closest}={value or '...'}" if closest else "section.key=value"
    raise RecipeError(
        f"Argument {first!r} is before the recipe, which comes first: use `deepavfusion {command} {recipe} {option}`."
    )


def split_override(override: str, following: str, command: str) -> tuple[str, str, str]:
    """Split an override `section.key=value`.

    Args:
        override: The word of the command line.
        following: The word after it: the value of what is written as `--option VALUE`.
        command: Command of the recipe.

    Returns:
        Section, name and value, as text.

    Raises:
        RecipeError: For a word of another form, or an unknown section.
    """
    key, separator, text = override.partition("=")
    section, dot, name = key.partition(".")
    sought = (name or section).lstrip("-").replace("-", "_")
    closest = closest_option(section, sought, command)
    if not separator or not dot or not name:
        if override.startswith("--") and not separator and "=" not in following:
            text = following
        example = "An example is optim.epochs=10."
        if closest:
            valid = f"{closest}={text or '...'}"
            example = f"Use {valid}." if sought in ALIASES else f"Did you mean {valid}?"
        raise RecipeError(f"Argument {override!r}: expected section.key=value. {example}")
    sections = option_names(command)
    if section not in sections:
        raise unknown(f"section {section!r} in {override!r}", section, "sections", sections, closest)
    return section, name, text


def type_and_limits(section: str, name: str, command: str) -> tuple[str, dict]:
    """Type of an option and its limits, as in `stored`: of the command, or else of the first that has the option."""
    key = f"{section}.{name}"
    for sections in (stored()[command], *stored().values()):
        for _, entries in sections:
            for found, kind, _, limits in entries:
                if found == key:
                    return kind.partition(", default ")[0], limits
    raise unknown_option(section, name, command)


def unknown_option(section: str, name: str, command: str) -> RecipeError:
    """Build the error for an option that no command has, with a suggestion and those of the command."""
    closest = closest_option(section, name, command)
    return unknown(f"option {section}.{name}", name, "options", option_names(command)[section], closest)


def inapplicable(key: str, scope: str, valid: Iterable[str]) -> RecipeError:
    """Build the error for an option `section.key` that a scope, such as "dataset 'folder'", does not have."""
    return RecipeError(f"Unknown option {key} for {scope}. Valid options: {', '.join(valid)}.")


def command_help(command: str) -> str:
    """`--help` of a command that takes a recipe, where none is named."""
    # The module of the command is beside the recipes.
    source = (recipe_folder().parent / f"{command}.py").read_text(encoding="utf-8")
    description = ast.get_docstring(ast.parse(source)) or ""
    return assembled(command, description, recipes_text(command), options_text(command, stored()[command]))


def without_recipe(command: str) -> RecipeError:
    """Build the error for a command line that names no recipe: a usage, and what there is to name."""
    usage = evaluate_parser("", "").format_usage().strip() if command == "evaluate" else _usage(command)
    names = fill(f"recipes: {', '.join(recipe_names(command))}", rest="  ")
    more = (
        f"`deepavfusion recipes` says what each does, needs and costs; `deepavfusion {command} --help` lists options."
    )
    return RecipeError("\n\n".join(["expected a recipe, got none.", usage, names, fill(more)]))


def _usage(command: str, recipe: str = "RECIPE") -> str:
    return f"usage: deepavfusion {command} {recipe} [section.key=value ...] [--traceback]"


def assembled(command: str, description: str, recipes: str, options: str, recipe: str = "RECIPE") -> str:
    """Text of `--help` from its parts.

    Args:
        command: Name of the command.
        description: What it does.
        recipes: What `recipes_text` returns, or the comment of a recipe.
        options: What `options_text` returns.
        recipe: Recipe that is named.
    """
    if command == "evaluate":
        return evaluate_parser(description, f"{recipes}\n\n{options}", recipe).format_help()
    return "\n\n".join([_usage(command, recipe), description.strip(), recipes, options])


def recipes_text(command: str) -> str:
    """The packaged recipes that a command accepts, each with its goal."""
    names = recipe_names(command)
    indent = max(map(len, names)) + 4
    goals = [fill(recipe_goal(name), f"  {name}".ljust(indent), " " * indent) for name in names]
    return "\n".join(["recipes:", *goals])


def recipes_parser() -> CommandParser:
    """Build the parser of `deepavfusion recipes`."""
    parser = CommandParser(
        prog="deepavfusion recipes",
        description="List the recipes of the package, each with its goal, what it needs and its cost; or print one.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a command, to list its recipes, or a recipe")
    return parser


def overview(commands: Sequence[str]) -> str:
    """The packaged recipes of commands, each with its goal, what it needs and its cost.

    Args:
        commands: Names of commands that take recipes.
    """
    parts = []
    for command in commands:
        names = [name for name in all_recipes() if recipe_command(name) == command]
        width = max(map(len, names)) + 4
        parts.append(f"{command}:")
        for name in names:
            about = recipe_comment(name)
            lines = (about["goal"], f"Needs {recipe_needs(name)}.", f"Cost: {about['cost']}")
            starts = (f"  {name}".ljust(width), " " * width, " " * width)
            parts += [fill(line, start, " " * (width + 2)) for line, start in zip(lines, starts, strict=True)]
        parts.append("")
    return "\n".join([*parts, "deepavfusion recipes RECIPE prints the file of a recipe, to start an own one from."])


def options_text(command: str, sections: Sequence, recipe: str | None = None) -> str:
    """Options by section, each with type, default and description.

    Args:
        command: Name of the command.
        sections: As in `stored`.
        recipe: Recipe whose values are the defaults.
    """
    values = f"defaults are those of recipe {recipe}"
    if recipe is None:
        values = (
            f"defaults are for recipes that leave an option out; deepavfusion {command} RECIPE --help shows a recipe's"
        )
    parts = [fill(f"options, as section.key=value (values are YAML; {values}):")]
    for title, entries in sections:
        lines = [f"  {key}  {kind}\n{fill(text, ' ' * 6, ' ' * 6)}" for key, kind, text, _ in entries]
        parts.append("\n".join([title, *lines]))
    return "\n\n".join(parts)


def fill(text: str, first: str = "", rest: str = "") -> str:
    """Text wrapped to the terminal, with indents of the first line and of the rest."""
    width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 120))
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


__all__ = [
    "ALIASES",
    "FILE",
    "assembled",
    "check_order",
    "closest_option",
    "command_help",
    "fill",
    "inapplicable",
    "option_names",
    "options_text",
    "overview",
    "recipes_parser",
    "recipes_text",
    "split_override",
    "stored",
    "type_and_limits",
    "unknown_option",
    "without_recipe",
]
