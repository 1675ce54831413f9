"""Shared parts of the commands that take a recipe: help, exit codes and error messages."""

import os
import sys
from collections.abc import Callable

from deepavfusion.inference.folder import FolderError
from deepavfusion.inference.precision import set_float32_precision

from .config.help import help_text
from .config.recipe import RecipeError, load_recipe
from .data.loading import BrokenDataError
from .runs.run import Run
from .runs.trainer import NonFiniteError


def run_command(command: str, action: Callable[[], int]) -> int:
    """Run an action of a command; errors that a user can fix are printed in one message."""
    set_float32_precision()
    try:
        return action()
    except (RecipeError, FolderError, ImportError) as error:
        code, message = 2, f"deepavfusion {command}: {error}"
    except (NonFiniteError, BrokenDataError) as error:
        code, message = 1, f"deepavfusion {command}: {error}"
    if int(os.environ.get("RANK", 0)) == 0:  # all processes fail with the same message
        print(message, file=sys.stderr)
    return code


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
    if not argv or {"-h", "--help"} & set(argv):
        print(help_text(command, description))
        return 0 if argv else 2
    return run_command(command, lambda: Run(load_recipe(command, argv[0], argv[1:])).run(**hooks))


__all__ = ["run_command", "train_from_recipe"]
