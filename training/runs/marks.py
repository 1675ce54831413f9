"""The mark by which a folder of this package is known, and what can be said of a folder before it is used."""

import json
import os
from pathlib import Path
from typing import Any

from ..config.recipe import RecipeError
from .checkpoints import differences
from .optimization import BatchLayout

MARK_FILE = ".deepavfusion-run.json"
RECIPE_FILE = "recipe.yaml"
FORMAT = 1


def read_mark(path: Path, argument: str) -> dict[str, Any] | None:
    """A folder's mark; None for a folder that is absent or empty.

    Args:
        argument: name of the argument that gives the folder, for messages.

    Raises:
        RecipeError: for a file, or a folder that is not empty and has no mark that can be read.
    """
    if path.exists() and not path.is_dir():
        raise RecipeError(f"{argument}={path} is a file: expected a folder, or nothing.")
    file = path / MARK_FILE
    if file.is_file():
        try:
            mark = json.loads(file.read_text(encoding="utf-8"))
            known = mark["format"] == FORMAT
        except (ValueError, TypeError, KeyError) as error:
            raise RecipeError(f"{file} cannot be read ({error}): name another {argument}.") from error
        if not known:
            raise RecipeError(f"{file} is of another version of this package: name another {argument}.")
        return mark
    if not path.is_dir() or all(entry.name == ".lock" for entry in path.iterdir()):
        return None
    if (path / RECIPE_FILE).is_file():
        raise RecipeError(
            f"{argument}={path} holds a {RECIPE_FILE} but no {MARK_FILE}: it is a folder of your own, or was "
            f"written by an earlier version. Name another {argument}; model.init_from starts from a model in this one."
        )
    raise RecipeError(
        f"{argument}={path} is not empty and no earlier run's (it has no {MARK_FILE}): name another folder."
    )


def changes(mark: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Lines on how a run differs from the one that a folder's mark is of; `now` is what its own mark would say."""
    if mark["command"] != now["command"]:
        return [f"command: {mark['command']} -> {now['command']}"]
    lines = differences(mark["fingerprint"], now["fingerprint"])
    if mark["batch"] is not None and now["batch"] is not None:
        before, after = BatchLayout(**mark["batch"]), BatchLayout(**now["batch"])
        if before.effective != after.effective:
            lines.append(f"effective batch: {before} -> {after}; {after.keeping(before.effective)}")
    return lines


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def check_writable(path: Path, argument: str) -> None:
    """Raises `RecipeError` for a folder that cannot be written to, or made."""
    parent = existing_parent(path)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise RecipeError(f"{argument}={path} cannot be written to: check {parent}.")


def files_below(folder: Path) -> list[str]:
    """Files in a folder and below, as paths relative to it."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir()]


__all__ = [
    "FORMAT",
    "MARK_FILE",
    "RECIPE_FILE",
    "changes",
    "check_writable",
    "existing_parent",
    "files_below",
    "read_mark",
]
