"""What determines the results of a media file, and whether a record of them is that of the same work: without torch."""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

# Command -> ending of the names of its records.
RECORDS = {
    "localize": "_heat.json",
    "segment": "_mask.json",
    "separate": "_separated.json",
    "classify": "_labels.json",
}
FORMAT = 1  # of records
_MAPS = ("at", "num_clips", "fit", "batch_size", "film", "maps_per_second")
# Command -> arguments that determine its results.
_SETTINGS = {
    "localize": ("map", *_MAPS),
    "segment": ("threshold", *_MAPS),
    "separate": ("overlap", "consistency", "fit", "film"),
    "classify": ("top_k", "at", "num_clips", "fit", "batch_size"),
}


def identity(file: str) -> list:
    """Identity of a file: its path, size in bytes and last change in nanoseconds; of another input, its name."""
    if not os.path.isfile(file):
        return [file]
    status = os.stat(file)
    return [os.path.realpath(file), status.st_size, status.st_mtime_ns]


def model_files(origin: str) -> list:
    """Identities of the files of a model in a folder; none of a model on the Hub."""
    files = sorted(path for path in Path(origin).glob("*") if path.suffix in (".json", ".safetensors", ".bin"))
    return [identity(str(path)) for path in files]


def determining(command: str, given: argparse.Namespace, file: str, model: list) -> dict[str, Any]:
    """What determines the results of a media file, as JSON values.

    Args:
        command: Name of the command.
        given: Its arguments.
        file: The media file.
        model: Identity of the model, with its precision.
    """
    about = {"command": command, **{name: getattr(given, name) for name in _SETTINGS[command]}}
    if command == "separate":
        about["frame"] = [identity(item) if isinstance(item, str) else item for item in given.frame or ()]
    return about | {"file": identity(file), "model": model}


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


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a record; None for a file that is absent, or is no record of this package."""
    try:
        record = json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
        known = record["format"] == FORMAT and path.name.endswith(RECORDS[record["command"]])
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


__all__ = [
    "FORMAT",
    "RECORDS",
    "determining",
    "fingerprint",
    "has_files",
    "identity",
    "is_complete",
    "model_files",
    "read_record",
    "record_of",
]
