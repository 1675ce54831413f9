"""Shared parts of the commands that take a recipe: help, and the recipe's place on the command line."""

from collections.abc import Callable

from deepavfusion.inference.jobs.progress import plain_output
from deepavfusion.inference.precision import set_float32_precision
from deepavfusion_cli.options import check_order, without_recipe
from deepavfusion_cli.preflight import HELP
from deepavfusion_cli.terminal import say

from .config.help import help_text
from .config.recipe import Recipe, load_recipe


def print_help(command: str, words: list[str], text: Callable[[Recipe | None], str]) -> int:
    """Print the help of a command, with the values of a recipe if one is named.

    Args:
        command: Name of the command.
        words: Recipe and overrides; may be empty.
        text: Function of the recipe, or of None, that gives the help.

    Raises:
        RecipeError: For a recipe that cannot be used.
    """
    say(text(load_recipe(command, words[0], words[1:]) if words else None), kept="\n")
    return 0


def train_from_recipe(command: str, argv: list[str], description: str, **hooks) -> int:
    """Run the `main` of a training command.

    Args:
        command: Name of the command.
        argv: Recipe and overrides.
        description: Text of `--help`.
        hooks: Keyword arguments of `Run.run`.

    Returns:
        The exit code.

    Raises:
        RecipeError: For a recipe that cannot be used, or if none is named.
    """
    if not argv:
        raise without_recipe(command)
    if HELP & set(argv):
        words = [word for word in argv if word not in HELP]
        return print_help(command, words, lambda recipe: help_text(command, description, recipe))
    check_order(command, argv)
    set_float32_precision()
    plain_output()
    recipe = load_recipe(command, argv[0], argv[1:])
    from .runs.run import Run  # here: `--help` does not wait for what trains

    return Run(recipe).run(**hooks)


__all__ = ["print_help", "train_from_recipe"]
