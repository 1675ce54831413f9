"""Shared parts of the commands that take a recipe: help, exit codes and error messages."""

import os
import sys
from collections.abc import Callable

from deepavfusion.inference.folder import FolderError
from deepavfusion.inference.jobs.progress import plain_output
from deepavfusion.inference.precision import set_float32_precision

from .config.help import help_text
from .config.recipe import Recipe, RecipeError, load_recipe

HELP = frozenset({"-h", "--help"})


def run_command(command: str, action: Callable[[], int]) -> int:
    """Run an action of a command; errors that a user can fix are printed in one message."""
    from .data.loading import BrokenDataError  # here and below: `--help` does not wait for what trains
    from .runs.trainer import NonFiniteError

    set_float32_precision()
    plain_output()
    try:
        return action()
    except (RecipeError, FolderError, ImportError) as error:
        code, message = 2, f"deepavfusion {command}: {error}"
    except (NonFiniteError, BrokenDataError) as error:
        code, message = 1, f"deepavfusion {command}: {error}"
    if int(os.environ.get("RANK", 0)) == 0:  # all processes fail with the same message
        print(message, file=sys.stderr)
    return code


def print_help(command: str, words: list[str], text: Callable[[Recipe | None], str]) -> int:
    """Print the help of a command, with the values of a recipe if one is named.

    Args:
        command: Name of the command.
        words: Recipe and overrides; may be empty.
        text: Function of the recipe, or of None, that gives the help.

    Returns:
        The exit code: 0, or 2 with a message for a recipe that cannot be used.
    """
    try:
        recipe = load_recipe(command, words[0], words[1:]) if words else None
    except RecipeError as error:
        print(f"deepavfusion {command}: {error}", file=sys.stderr)
        return 2
    print(text(recipe))
    return 0


def train_from_recipe(command: str, argv: list[str] | None, description: str, **hooks) -> int:
    """Run the `main` of a training command.

    Args:
        command: Name of the command.
        argv: Recipe and overrides; by default those of the process.
        description: Text of `--help`.
        hooks: Keyword arguments of `Run.run`.

    Returns:
        The exit code.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or HELP & set(argv):
        words = [word for word in argv if word not in HELP]
        code = print_help(command, words, lambda recipe: help_text(command, description, recipe))
        return code if argv else 2

    def action() -> int:
        from .runs.run import Run

        return Run(load_recipe(command, argv[0], argv[1:])).run(**hooks)

    return run_command(command, action)


__all__ = ["HELP", "print_help", "run_command", "train_from_recipe"]
