"""Records of results: a JSON file for each media file, written last, that says what was found and in which files."""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from deepavfusion_cli.terminal import say

from ..files import to_json

# Command -> ending of the names of its records.
RECORDS = {
    "localize": "_heat.json",
    "segment": "_mask.json",
    "separate": "_separated.json",
    "classify": "_labels.json",
}
# What is said of frames of which the model does not see all.
OUTSIDE = "what is hatched is outside of the model's view; with --fit pad, squash or tiles, it sees whole frames"
NO_AUDIO = "the file has no audio"
_FORMAT = 1


def identity(file: str) -> list:
    """Identity of a file: its path, size in bytes and last change in nanoseconds; of another input, its name."""
    if not os.path.isfile(file):
        return [file]
    status = os.stat(file)
    return [os.path.realpath(file), status.st_size, status.st_mtime_ns]


def model_identity(pipeline, origin: str) -> list:
    """Identity of a pipeline's model, its commit on the Hub or the identities of its files, and its precision."""
    files = sorted(path for path in Path(origin).glob("*") if path.suffix in (".json", ".safetensors", ".bin"))
    own = [identity(str(path)) for path in files] or [origin, getattr(pipeline.model.config, "_commit_hash", None)]
    return [*own, str(pipeline.mixed_precision)]


def fingerprint(about: dict[str, Any]) -> str:
    """Digest of what determines results, JSON values."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def record_of(out: Path, name: str, command: str) -> Path:
    """Path of the record of a file's results.

    Args:
        out: Folder of the results.
        name: Prefix of the names of the results.
        command: Name of the command.
    """
    return out / f"{name}{RECORDS[command]}"


def make_record(
    command: str, file: str, model: str, about: dict[str, Any], files: list[Path], content: dict[str, Any]
) -> bytes:
    """Encode a record.

    Args:
        command: Name of the command.
        file: Media file, as given.
        model: Model, as given.
        about: What determines the results.
        files: The files of the results, beside the record.
        content: What was found.
    """
    head = {"command": command, "file": file, "model": model}
    tail = {"files": [path.name for path in files], "fingerprint": fingerprint(about), "format": _FORMAT}
    return to_json({**head, **content, **tail}).encode("utf-8", "surrogateescape")


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a record; None for a file that is absent, or is no record of this package."""
    try:
        record = json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
        known = record["format"] == _FORMAT and path.name.endswith(RECORDS[record["command"]])
        return record if known and isinstance(record["files"], list) and record["fingerprint"] else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def is_complete(path: Path, about: dict[str, Any]) -> bool:
    """Whether a record is one of the same work, and all of its files are there."""
    record = read_record(path)
    return record is not None and record["fingerprint"] == fingerprint(about) and has_files(path, record)


def has_files(path: Path, record: dict[str, Any]) -> bool:
    """Whether all files of a record, which lies at a path, are there."""
    return all((path.parent / Path(name).name).is_file() for name in record["files"])


@contextlib.contextmanager
def replacing(path: Path, files: Iterable[Path]) -> Generator[None]:
    """Put new results in the place of earlier ones: at the end, those of their files that are no more are removed.

    Args:
        path: Path of the record, beside which all files lie.
        files: The files of the new results.
    """
    earlier = read_record(path)
    yield
    names = {file.name for file in files}
    for name in () if earlier is None else {Path(name).name for name in earlier["files"]} - names:
        (path.parent / name).unlink(missing_ok=True)


def say_complete(name: str, record: Path) -> None:
    """Say that the results of a file are complete, so that nothing is done."""
    say(f"{name}: its results are there already, as {record} says", stream=sys.stderr)


def say_written(paths: Iterable[str | os.PathLike]) -> None:
    """Say which files were written, a line for each."""
    for path in paths:
        say(f"written to {os.fspath(path)}")


__all__ = [
    "NO_AUDIO",
    "OUTSIDE",
    "RECORDS",
    "has_files",
    "identity",
    "is_complete",
    "make_record",
    "model_identity",
    "read_record",
    "record_of",
    "replacing",
    "say_complete",
    "say_written",
]
