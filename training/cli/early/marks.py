"""Marks of result folders, and whether a command may write there: read without torch, and never written here.

See `inference.folder`, which writes them.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from deepavfusion.inference.jobs.locks import folder_owner

from ..errors import cause
from ..paths import MARK_FILE, FolderError, check_writable, is_same_path

FORMAT = 1
OVERWRITE = "--overwrite"  # option that lets a command replace other results
DRAFT = ".draft"  # folder for results until they are complete
_MARK = {
    "command": str,
    "fingerprint": dict,
    "finished": bool,
    "replaces": bool,
    "files": list,
    "publishing": list | None,
}
_MODEL_FILE = re.compile(r"config\.json|(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")


def open_folder(path: Path, argument: str) -> dict[str, Any] | None:
    """Read the mark of a folder that a command wants to write to.

    Args:
        path: Folder, which may be absent.
        argument: Name of the argument that gives the folder, for messages.

    Returns:
        The mark; None for a folder that is absent or empty.

    Raises:
        FolderError: For a path that cannot be written to, a folder that is not empty and has no mark, or one that
            another process is using.
    """
    check_writable(path, argument)
    mark = read_mark(path, argument)
    if owner := folder_owner(path):
        raise FolderError(owner)
    return mark


def check_results(
    path: Path, argument: str, mark: dict[str, Any], record: dict[str, Any], overwrite: bool, option: str
) -> bool:
    """Check that the results in a folder may be replaced.

    Args:
        path: Folder.
        argument: Name of the argument that gives it, for messages.
        mark: Its mark.
        record: What `make_record` returns for the new results.
        overwrite: Whether other results of the same command may be replaced.
        option: Option that allows that, for messages.

    Returns:
        Whether the folder holds results.

    Raises:
        FolderError: If the folder holds results of another command, or other results and `overwrite` is False.
    """
    if mark["command"] != record["command"]:
        raise FolderError(
            f"{argument}={path} holds the results of `deepavfusion {mark['command']}`: name another folder."
        )
    changed, stands = differences(mark["fingerprint"], record["fingerprint"]), holds_results(path, mark)
    if stands and changed and not overwrite:
        raise FolderError(
            f"{path} holds other results (before -> now):\n  " + "\n  ".join(changed) + "\n"
            f"Name another {argument}, or replace what is there with {option}."
        )
    return stands


def check_folder(path: Path, argument: str, command: str, fingerprint: dict[str, Any], overwrite: bool) -> None:
    """Check that a command may write its results into a folder: as `open_folder` and `check_results`."""
    if (mark := open_folder(path, argument)) is not None:
        check_results(path, argument, mark, make_record(command, fingerprint), overwrite, OVERWRITE)


def make_record(command: str, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """The entries of a mark that name the command and everything that determines its results, as JSON values."""
    return {"format": FORMAT, "command": command, "fingerprint": json.loads(json.dumps(fingerprint))}


def holds_results(path: Path, mark: dict[str, Any]) -> bool:
    """Whether a folder holds the results of a finished command, or a model."""
    return mark["finished"] or any(_MODEL_FILE.fullmatch(entry.name) for entry in path.iterdir())


def conversion_fingerprint(
    checkpoint: Path, task: str | None, config: str | None, example: Path | None = None
) -> dict[str, Any]:
    """What determines the results of `deepavfusion convert`."""
    shown = {} if example is None else {"example": str(example.resolve())}
    return {"checkpoint": str(checkpoint.resolve()), "task": task, "config": config, **shown}


def evaluation_fingerprint(origin: str, sections: dict[str, Any]) -> dict[str, Any]:
    """What determines the results of `deepavfusion evaluate`.

    Args:
        origin: Folder or Hub id of the model.
        sections: Sections of the recipe.
    """
    where = str(Path(origin).resolve()) if os.path.isdir(origin) else origin
    return {"model": where, "task": sections["task"], "data": sections["data"]}


def read_mark(path: Path, argument: str) -> dict[str, Any] | None:
    """Read the marker of a folder; None for a folder that is absent or empty.

    Args:
        path: Folder.
        argument: Name of the argument that gives the folder, for messages.

    Raises:
        FolderError: For a file, or a folder that is not empty and has no readable marker.
    """
    if path.exists() and not path.is_dir():
        raise FolderError(f"{argument}={path} is a file: expected a folder, or nothing.")
    file = path / MARK_FILE
    if file.is_file():
        try:
            mark = json.loads(file.read_text(encoding="utf-8"))
            known = mark["format"] == FORMAT
            whole = not known or all(isinstance(mark[key], kind) for key, kind in _MARK.items())
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise FolderError(f"{file} cannot be read ({cause(error, file)}): name another {argument}.") from error
        if not known:
            raise FolderError(f"{file} is of another version of this package: name another {argument}.")
        if not whole:
            raise FolderError(f"{file} is damaged: name another {argument}.")
        return mark
    if not path.is_dir() or all(entry.name == ".lock" for entry in path.iterdir()):
        return None
    raise FolderError(
        f"{argument}={path} is not empty and has no {MARK_FILE}: it is a folder of your own, or was written by an "
        f"earlier version. Name another folder."
    )


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines "key: old -> new", with values as in a recipe, for every entry in which two nested dictionaries differ.

    Two ways to write the path of one file or folder are no difference.
    """
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after and not (
            isinstance(before, str) and isinstance(after, str) and is_same_path(before, after)
        ):
            texts = [_as_in_recipe(value) for value in (before, after)]
            texts = texts if texts[0] != texts[1] else [repr(before), repr(after)]
            lines.append(f"{prefix}{key}: {' -> '.join(texts)}")
    return lines


def _as_in_recipe(value: Any) -> str:
    """A value in JSON; fractions without the last digits, which arithmetic leaves."""
    value = float(f"{value:.12g}") if isinstance(value, float) else value
    return json.dumps(value, ensure_ascii=False, default=repr)


__all__ = [
    "DRAFT",
    "FORMAT",
    "OVERWRITE",
    "check_folder",
    "check_results",
    "conversion_fingerprint",
    "differences",
    "evaluation_fingerprint",
    "holds_results",
    "make_record",
    "open_folder",
    "read_mark",
]
