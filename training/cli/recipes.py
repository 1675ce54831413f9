"""The packaged recipes: their names, commands and goals, read without importing what runs them."""

import difflib
import functools
import importlib.util
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

# Command -> its tasks.
COMMANDS = {
    "pretrain": ("pretraining",),
    "finetune": ("recognition", "separation", "segmentation", "localization"),
    "probe": ("recognition",),
    "evaluate": ("recognition", "separation", "segmentation", "localization", "retrieval"),
}
# Command -> commands whose recipes it accepts.
ACCEPTED = {command: (command,) for command in COMMANDS} | {"evaluate": ("finetune", "probe", "evaluate")}
SUFFIXES = (".yaml", ".yml")


class RecipeError(ValueError):
    """Raised for an unusable recipe or override; the message says what was expected."""

    exit_code = 2  # of commands: bad input


def unknown(what: str, name: str, title: str, valid: Iterable[str], closest: str | None = None) -> RecipeError:
    """Build the error for an unknown name, with a suggestion and a list of the valid names.

    Args:
        what: Description of what is unknown, e.g. "option optim.epoch".
        name: The unknown name.
        title: Description of the valid names, e.g. "options".
        valid: The valid names.
        closest: The suggestion; by default the closest of the valid names.
    """
    valid = list(valid)
    closest = closest or next(iter(difflib.get_close_matches(name, valid, n=1)), None)
    hint = f" Did you mean {closest}?" if closest else ""
    return RecipeError(f"Unknown {what}.{hint} Valid {title}: {', '.join(valid)}.")


@functools.cache
def package_folder() -> Path:
    """Folder of the main package, which is found, but not imported."""
    spec = importlib.util.find_spec("deepavfusion")
    return Path("" if spec is None or spec.origin is None else spec.origin).parent


@functools.cache
def recipe_folder() -> Path:
    """Folder of the packaged recipes: beside this package in the repository, inside the main package in a wheel."""
    near = Path(__file__).parents[1] / "recipes"
    return near if near.is_dir() else package_folder() / "training" / "recipes"


def recipe_file(name: str) -> Path | None:
    """File of a packaged recipe; None if there is none of that name."""
    file = recipe_folder() / f"{name}.yaml"
    try:
        return file if os.sep not in name and file.is_file() else None
    except OSError:  # a name that is too long
        return None


def all_recipes() -> list[str]:
    """Names of all packaged recipes."""
    return sorted(file.stem for file in recipe_folder().glob("*.yaml"))


def recipe_names(command: str) -> list[str]:
    """List the names of the packaged recipes that a command accepts."""
    return [name for name in all_recipes() if recipe_command(name) in ACCEPTED[command]]


def recipe_command(name: str) -> str | None:
    """Command that a packaged recipe is for; None if there is no such recipe."""
    file = recipe_file(name)
    found = file and re.search(r"^command: *(\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def recipe_comment(name: str) -> dict[str, str]:
    """What the comment of a packaged recipe says, each in one line: "goal", "cost" and, where it does, "expected"."""
    comment = first_comment((recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8")).partition("\n\n")[0]
    parts = re.split(r"^(Goal|Cost|Expected): ", comment, flags=re.MULTILINE)[1:]
    return {title.lower(): " ".join(text.split()) for title, text in zip(parts[::2], parts[1::2], strict=True)}


def recipe_goal(name: str) -> str:
    """Goal of a packaged recipe, in one line."""
    return recipe_comment(name)["goal"]


def recipe_needs(name: str) -> str:
    """What a packaged recipe needs to run, in words: data and a model."""
    text = (recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    data, init_from = (
        found and found[1]
        for found in (
            re.search(r"^data:\n(?:  .*\n)*?  name: *(\w+)", text, re.MULTILINE),
            re.search(r"^  init_from: *(\S+)", text, re.MULTILINE),
        )
    )
    own = {"scenes": "no data", "folder": "a folder of your clips in data.path"}
    needs = [own.get(data, f"the data set {data} in data.path")]
    if recipe_command(name) == "evaluate":
        needs.append("a model in --model")
    elif init_from is not None and init_from != "null":
        command = maker(Path(init_from).name)
        needs.append(f"a model in model.init_from (by default {init_from}, which `{command}` creates)")
    return " and ".join(needs)


def first_comment(text: str) -> str:
    """The comment that a recipe starts with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line.lstrip("#").strip() for line in lines)


def check_recipe(command: str, recipe: str) -> None:
    """Check that there is a recipe of that name or path, and that one of the package is for the command.

    Raises:
        RecipeError: Otherwise; names the closest recipe, or the right command.
    """
    if recipe.endswith(SUFFIXES):
        if not Path(recipe).is_file():
            raise RecipeError(f"There is no recipe file {recipe}.")
    elif recipe_file(recipe) is None:
        what = f"recipe {recipe!r} (neither a name nor a path ending in .yaml)"
        raise unknown(what, recipe, "recipes", recipe_names(command))
    else:
        check_command(command, recipe, recipe_command(recipe))


def check_command(command: str, recipe: str, own: str | None) -> None:
    """Raise `RecipeError` if a recipe, which is for the command `own`, is not for a command."""
    if own not in ACCEPTED[command]:
        model = " --model MODEL" if own == "evaluate" else ""
        raise RecipeError(
            f"Recipe {recipe} is not for `deepavfusion {command}`: use `deepavfusion {own} {recipe}{model}`."
        )


def maker(name: str) -> str | None:
    """Command that creates runs/NAME; None if none of the package does."""
    if name == "quickstart":
        return "make quickstart"
    command = recipe_command(name)
    return None if command in (None, "evaluate") else f"deepavfusion {command} {name}"


def run_names() -> list[str]:
    """Names of the folders in runs/ that commands of the package create."""
    return ["quickstart", *(name for name in all_recipes() if maker(name))]


__all__ = [
    "ACCEPTED",
    "COMMANDS",
    "SUFFIXES",
    "RecipeError",
    "all_recipes",
    "check_command",
    "check_recipe",
    "first_comment",
    "maker",
    "package_folder",
    "recipe_command",
    "recipe_comment",
    "recipe_file",
    "recipe_goal",
    "recipe_names",
    "recipe_needs",
    "run_names",
    "unknown",
]
