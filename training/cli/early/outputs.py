"""The media files that a command is given, and what it would replace: known before a model is loaded."""

import argparse
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepavfusion.inference.jobs.inputs import DRAFT_SUFFIX, find_files, folder_suffixes, holds_media
from deepavfusion.inference.jobs.works import RECORDS, determining, is_complete, model_files, record_of

from ..errors import BAD_INPUT
from ..paths import InputError, similar, unusable
from .models import TASKS

INDEX, GENERATOR = "index.html", "deepavfusion"  # page of a folder of results; its <meta name="generator">
_START = 4096  # characters of a page that hold it
_PRECISIONS = ("None", "torch.bfloat16")  # of matrix products, as identities of models end with
_SHOWN = 3  # names of files in a message


class IndexExistsError(FileExistsError):
    """Raised where the page of a folder would replace a file of another origin."""

    exit_code = BAD_INPUT


def check_inputs(command: str, given: argparse.Namespace) -> None:
    """Raise `InputError` if nothing that a command is given exists, or only folders without media, or lists do not."""
    if not any(map(os.path.lexists, given.files)):
        one = len(given.files) == 1
        names = ", ".join(given.files[:_SHOWN]) + ("" if len(given.files) <= _SHOWN else ", ...")
        found = "there is no such file" if one else "there are no such files"
        raise InputError(f"{names}: expected {'a media file' if one else 'media files'}, but {found}.")
    check_media(given.files, folder_suffixes(command, given), getattr(given, "out", None))
    for option in ("classes", "labels"):
        if (file := getattr(given, option, None)) is not None and not file.is_file():
            raise InputError(unusable(f"--{option}={file}", f"there is no such file{similar(file, False)}"))


def check_media(items: Sequence[str], suffixes: Sequence[str], out: Path | None = None) -> None:
    """Raise `InputError` if what is given is folders, none of which holds media.

    Args:
        items: Files and folders.
        suffixes: Endings of the files that a folder stands for.
        out: Folder of results, which is left out.
    """
    if not any(holds_media(item, suffixes, out) for item in items):
        raise InputError("\n".join(map(str, find_files(items, suffixes, out)[1])))


def check_outputs(command: str, given: argparse.Namespace) -> None:
    """Raise `FileExistsError` if all that a command would write exists, or a page that is not its own, unless replaced.

    Of a model on the Hub, whether results of an earlier run are those of the same work is known once it is loaded.
    """
    if given.overwrite:
        return
    if command == "embed":
        check_embedded(given)
    elif command == "export":
        check_absent(exported(given), overwrite=False)
    elif command in RECORDS and given.out is not None and given.out.is_dir():
        check_others(command, given)
    if is_paged(command, given):
        check_index(given.out, overwrite=False)


def check_absent(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise `FileExistsError` if a file would be replaced without `overwrite`."""
    for path in paths:
        if not overwrite and path.exists():
            raise FileExistsError(
                f"{path} already exists: choose another output path, or pass --overwrite to replace it."
            )


def check_embedded(given: argparse.Namespace) -> None:
    """Raise `FileExistsError` if the tokens of all files that `deepavfusion embed` is given have been written."""
    if given.output is None and not given.out.is_dir():
        return  # without listing folders, which may hold many files
    found = [] if given.output else find_files(given.files, folder_suffixes("embed", given), given.out)[0]
    paths = [tokens_file(given, name) for _, name in found] or [given.output]
    if all(path.exists() for path in paths):
        check_absent(paths, overwrite=False)


def check_others(command: str, given: argparse.Namespace) -> None:
    """Raise `FileExistsError` if results of other work are where those of every file that is given would be."""
    model = model_files(given.model)
    found = find_files(given.files, folder_suffixes(command, given), given.out)[0] if model else []
    records = [record_of(given.out, name, command) for _, name in found]
    if records and all(
        record.exists()
        and not any(record.parent.glob(f"{glob.escape(Path(name).name)}*{DRAFT_SUFFIX}"))
        and not any(is_complete(record, determining(command, given, file, [*model, kind])) for kind in _PRECISIONS)
        for record, (file, name) in zip(records, found, strict=True)
    ):
        check_absent(records, overwrite=False)


def tokens_file(given: argparse.Namespace, name: str) -> Path:
    """File in which `deepavfusion embed` writes the tokens of a media file.

    Args:
        given: Its arguments.
        name: Name of the media file's results.
    """
    return given.output or given.out / f"{name}.safetensors"


def exported(given: argparse.Namespace) -> list[Path]:
    """Files that `deepavfusion export` writes, by its arguments: of VGGSounder with labels, scores as well."""
    scored = getattr(given, "labels", None) is not None
    return [given.output, *([given.output.with_suffix(".json")] if scored else [])]


def is_paged(command: str, given: argparse.Namespace) -> bool:
    """Whether a page shows all results of a command: of several files, or of a folder."""
    several = command in TASKS and (len(given.files) > 1 or any(map(os.path.isdir, given.files)))
    return several and given.out is not None


def check_index(out: Path, overwrite: bool) -> None:
    """Raise `IndexExistsError` if a folder holds an index.html that no command of this package wrote.

    Args:
        out: Folder of the results, which may be absent.
        overwrite: Whether it may be replaced.
    """
    path = out / INDEX
    if overwrite or not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        own = f'<meta name="generator" content="{GENERATOR}">' in file.read(_START)
    if not own:
        raise IndexExistsError(
            f"{path} is no page of this package: choose another output folder, or pass --overwrite to replace it."
        )


__all__ = [
    "GENERATOR",
    "INDEX",
    "IndexExistsError",
    "check_absent",
    "check_index",
    "check_inputs",
    "check_media",
    "check_outputs",
    "exported",
    "is_paged",
    "tokens_file",
]
