"""Paths on a command line, checked before anything is imported, read or written: outputs, and folders of models."""

import difflib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepavfusion.inference.jobs.locks import lock_owner

from .errors import BAD_INPUT, cause, disk_is_full
from .recipes import maker, run_names

RUNS = "runs"  # folder of the runs of recipes
EVALUATION_FILE, PREDICTIONS, CLIPS_FILE = "evaluation.json", "predictions", "clips.parquet"  # of an evaluation
MARK_FILE = ".deepavfusion-run.json"  # in result folders of commands
HUB_ID = re.compile(r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)  # ORG/NAME


class FolderError(ValueError):
    """Raised for a folder that a command cannot write to; the message gives the reason and what to do."""

    exit_code = BAD_INPUT


class InputError(ValueError):
    """Raised for an input that is not there; the message names it."""

    exit_code = BAD_INPUT


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def named_path(path: str | os.PathLike) -> Path:
    """A path that ends with the name of its file or folder, which `.` and `..` do not."""
    path = Path(path)
    return path.resolve() if path.name in ("", "..") else path


def is_same_path(first: str, second: str) -> bool:
    """Whether two paths are the same file or folder by the same name, which orders of clips depend on."""
    named = (named_path(first), named_path(second))
    return len({(path.name, path.parent.resolve()) for path in named}) == 1


def check_writable(path: Path, argument: str) -> None:
    """Raise `FolderError` if a folder cannot be created or written to; leaves nothing behind.

    Args:
        path: The folder, which may be absent.
        argument: Argument that gives it, for the message.
    """
    try:
        place, reason = _obstacle(path)
    except (OSError, ValueError) as error:  # a name that is too long, a folder above that may not be entered
        raise FolderError(f"{argument}={path} cannot be used: {cause(error, path)}") from error
    if reason:
        where = "it" if place == path else place
        raise FolderError(f"{argument}={path} cannot be written to: {where} {reason}; choose another folder.")


def _obstacle(path: Path) -> tuple[Path, str]:
    """What prevents that a folder is created or written to, and the reason, which is empty if nothing does."""
    parent = existing_parent(path)
    for link in (path, *path.absolute().parents):
        if link.is_symlink() and not link.exists():
            return link, "is a link to nothing"
    if not parent.is_dir():
        return parent, "is a file"
    if not os.access(parent, os.W_OK | os.X_OK):
        return parent, "is read-only"
    try:
        # Permissions are not enough: root may write anywhere, but not into /proc or a read-only file system.
        with tempfile.TemporaryFile(dir=parent):
            return parent, ""
    except OSError as error:
        return parent, "" if disk_is_full(error) else "takes no files"


def check_empty(path: Path, argument: str) -> None:
    """Raise `FolderError` unless a folder is absent or empty.

    Args:
        path: The folder.
        argument: Argument that gives it, for the message.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "is not empty" if path.is_dir() else "is a file"
        raise FolderError(f"{argument}={path} {what}: name a new folder.")


def check_output_file(path: Path, argument: str) -> None:
    """Raise `FolderError` if a file cannot be created or replaced; leaves nothing behind.

    Args:
        path: The file, which may be absent.
        argument: Argument that gives it, for the message.
    """
    check_writable(path.parent, argument)
    if path.is_dir():
        raise FolderError(f"{argument}={path} is a folder: name a file in it.")


def is_hub_id(origin: str) -> bool:
    """Whether the origin of a model is ORG/NAME rather than a file or folder, such as `runs/NAME`."""
    named = HUB_ID.fullmatch(origin) is not None and not origin.startswith(f"{RUNS}/")
    return named and not os.path.exists(origin)


def missing_folder(origin: str) -> str | None:
    """Reason why there is no folder of a model: it is absent, or a file. None if it is there, or for a Hub id."""
    path = Path(origin)
    if path.is_file():
        weights = path.suffix in (".pth", ".safetensors")
        near = f"; `deepavfusion convert {path} FOLDER` makes one" if weights else advice(origin)
        near = f"; did you mean {path.parent}?" if (path.parent / "config.json").is_file() else near
        return f"that is a file, not the folder of a model{near}"
    if path.is_dir() or is_hub_id(origin):
        return None
    return f"there is no such folder{advice(origin)}"


def missing_model(origin: str) -> str | None:
    """Reason why a folder holds no model, and what else may be meant; None if it holds one, or for a Hub id.

    Args:
        origin: Folder or Hub id of a model.
    """
    path = Path(origin)
    if not path.is_dir():
        return missing_folder(origin)
    if (path / "config.json").is_file():
        return None
    return unfinished_run(path) or f"there is no model in that folder{advice(origin)}"


def unfinished_run(folder: Path) -> str | None:
    """Reason why a folder lacks results: its run is in progress, or was interrupted; None for other folders."""
    if not _is_unfinished(folder / MARK_FILE):
        return None
    if (process := lock_owner(folder)) is not None:
        return f"the run in that folder is in progress (process {process}): wait until it ends"
    return "the run in that folder has not finished; the command that started it resumes it"


def _is_unfinished(mark: Path) -> bool:
    """Whether a mark, as `inference.folder` writes it, is that of an unfinished run."""
    try:
        return json.loads(mark.read_text(encoding="utf-8"))["finished"] is False
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # none, or a damaged one
        return False


def evaluation_folder(recipe: str, origin: str) -> Path:
    """Folder in which `deepavfusion evaluate` writes its report by default: one for each recipe and model.

    A model that is named by the recipe, which may have trained it, has a folder of that name alone.

    Args:
        recipe: Name of the recipe.
        origin: Folder of the model, by which it is named, from the current folder or with the one above; or Hub id.
    """
    path = Path(origin)
    parts = path.parts
    if path.is_dir():
        path, here = path.resolve(), Path.cwd()
        parts = path.relative_to(here).parts if path.is_relative_to(here) else path.parts[-2:]
    model = "-".join([part for part in parts if part not in (RUNS, path.anchor)] or [path.name])
    return Path(RUNS, "evaluations", model if f"{model}-".startswith(f"{recipe}-") else f"{recipe}-{model}")


def missing_evaluation(folder: Path) -> str | None:
    """Sentence that says that a folder holds no evaluation, or none with predictions; None if it does."""
    if not (folder / EVALUATION_FILE).is_file():
        fault = "is a file" if folder.is_file() else f"holds no {EVALUATION_FILE}"
        expected = unfinished_run(folder) or "expected the folder of a run or of an evaluation"
        return f"{folder} {fault}: {expected}."
    try:
        named = "task" in json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        named = False  # it is damaged, or of something else, which is answered later
    if named and not (folder / PREDICTIONS / CLIPS_FILE).is_file():
        return (
            f"{folder} holds no {PREDICTIONS}/{CLIPS_FILE}: it was evaluated by an earlier version, so evaluate the "
            "model again."
        )
    return None


def no_data_path(name: str, path: Any) -> str | None:
    """Sentence that says that a data set on disk lacks its folder, `data.path`; None if it is named."""
    if str(path or "").strip():
        return None
    what = "missing" if path is None else "empty"
    return f"data.path is {what}: set it to the folder of data set {name!r}, data.path=FOLDER."


def no_data(path: str) -> str | None:
    """Reason why a path holds no data set: it is no folder."""
    if not os.path.exists(path):
        return f"there is no such folder{similar(Path(path))}"
    return None if os.path.isdir(path) else "that is a file, not a folder"


def unusable(origin: str, reason: str) -> str:
    """Sentence that says why a model or data cannot be used."""
    return sentence(f"{origin} cannot be used: {reason}")


def sentence(text: str) -> str:
    """End a sentence, unless it ends with a question."""
    return text if text.endswith("?") else f"{text}."


def suggestion(origin: str) -> str:
    """What else the folder of a model may be, as a part of a sentence: "; did you mean runs/quickstart?" or "".

    Folders beside it that hold a model are suggested, those in runs/, and those that a recipe of the package makes.

    Args:
        origin: Folder of a model that holds none, or an unknown Hub id.
    """
    path = Path(origin)
    in_runs = path.parts[:-1] == (RUNS,)
    if in_runs and (command := maker(path.name)):
        return f"; `{command}` creates it"
    for parent in (path.parent, Path(RUNS)):
        if found := _closest(path, model_folders(parent)):
            return found
    if in_runs and (close := difflib.get_close_matches(path.name, run_names(), n=1)):
        return f"; did you mean {RUNS}/{close[0]}, which `{maker(close[0])}` creates?"
    return ""


def advice(origin: str) -> str:
    """What to use in place of a folder that holds no model: `suggestion`, models in runs/, or how to train one."""
    names = ", ".join(str(folder) for folder in [*model_folders(Path(RUNS))][:3])
    others = f"there are models in e.g. {names}" if names else "`deepavfusion recipes` lists what trains one"
    return suggestion(origin) or f"; {others}"


def similar(path: Path, folders: bool = True) -> str:
    """What else an absent folder, or file, may be, as a part of a sentence, from those beside it: as `suggestion`."""
    try:
        return _closest(path, [entry for entry in path.parent.iterdir() if entry.is_dir() == folders])
    except (OSError, ValueError):
        return ""


def _closest(path: Path, folders: Iterable[Path]) -> str:
    names = {folder.name: folder for folder in folders if folder != path}
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""


def model_folders(parent: Path) -> Iterable[Path]:
    """The folders in a folder that hold a model."""
    try:
        return sorted(config.parent for config in parent.glob("*/config.json"))
    except (OSError, ValueError):
        return []


__all__ = [
    "EVALUATION_FILE",
    "MARK_FILE",
    "PREDICTIONS",
    "RUNS",
    "FolderError",
    "InputError",
    "advice",
    "check_empty",
    "check_output_file",
    "check_writable",
    "evaluation_folder",
    "existing_parent",
    "is_same_path",
    "missing_evaluation",
    "missing_folder",
    "missing_model",
    "model_folders",
    "named_path",
    "no_data",
    "no_data_path",
    "sentence",
    "similar",
    "suggestion",
    "unfinished_run",
    "unusable",
]
