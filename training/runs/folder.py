"""The result folder of a training run: whose it is, and which recipe it holds."""

from pathlib import Path
from typing import IO, Any

from accelerate import Accelerator, PartialState

from ..config.recipe import RecipeError, recipe_command
from .checkpoints import differences, lock_folder

RECIPE_FILE = "recipe.yaml"


def claim_folder(folder: Path, processes: Accelerator | PartialState) -> IO[str] | None:
    """Makes the folder, or takes that of an earlier run, for this run alone.

    Returns:
        the lock, to be closed when the run ends; None on other processes than the main one.

    Raises:
        RecipeError: for a folder that holds something else, or where another run is at work.
    """
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"run.output_dir={folder} is a file: expected a folder, or nothing.")
    if folder.is_dir() and any(e.name != ".lock" for e in folder.iterdir()) and not (folder / RECIPE_FILE).is_file():
        raise RecipeError(f"run.output_dir={folder} is not empty and no earlier run's: name another folder.")
    lock = None
    if processes.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_folder(folder)
        except BlockingIOError as error:
            raise RecipeError(str(error)) from error
    processes.wait_for_everyone()
    return lock


def require_same_recipe(folder: Path, earlier: dict[str, Any], current: dict[str, Any], run) -> None:
    """Raises `RecipeError` where a run would go on with another recipe and `run.allow_changed_recipe` is false."""
    changed = differences(earlier, current)
    if changed and not run.allow_changed_recipe:
        raise RecipeError(
            f"{folder} holds a run of another recipe (before -> now):\n  "
            + "\n  ".join(changed)
            + "\nName another run.output_dir, start over with run.resume=false, or go on all the same with "
            "run.allow_changed_recipe=true."
        )


def check_origin(origin: str, argument: str) -> None:
    """Tells of a model in `runs/`, where trainings leave theirs, that is not there; it is no name on the Hub.

    Args:
        origin: folder or Hub name of a model.
        argument: what gave it, e.g. "model.init_from".

    Raises:
        RecipeError: with the command that makes the model, where it is a recipe's or the quickstart's.
    """
    path = Path(origin)
    if path.parts[:1] != ("runs",) or (path / "config.json").is_file():
        return
    command = _maker(path.name) if len(path.parts) == 2 else None
    hint = "" if command is None else f": `{command}` makes it"
    raise RecipeError(f"{argument}={origin} cannot be used: there is no model in that folder{hint}.")


def _maker(name: str) -> str | None:
    """The command that fills runs/NAME, if one of the package does."""
    if name == "quickstart":
        return "make quickstart"
    command = recipe_command(name)
    return None if command in (None, "evaluate") else f"deepavfusion {command} {name}"


__all__ = ["RECIPE_FILE", "check_origin", "claim_folder", "require_same_recipe"]
