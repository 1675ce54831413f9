"""Records of results: a JSON file for each media file, written last, that says what was found and in which files."""

import contextlib
import os
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from deepavfusion_cli.terminal import say

from ..files import to_json
from .works import FORMAT, fingerprint, model_files, read_record

# What is said of frames of which the model does not see all.
OUTSIDE = "what is hatched is outside of the model's view; with --fit pad, squash or tiles, it sees whole frames"
NO_AUDIO = "the file has no audio"


def model_identity(pipeline, origin: str) -> list:
    """Identity of a pipeline's model, its commit on the Hub or the identities of its files, and its precision."""
    own = model_files(origin) or [origin, getattr(pipeline.model.config, "_commit_hash", None)]
    return [*own, str(pipeline.mixed_precision)]


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
    tail = {"files": [path.name for path in files], "fingerprint": fingerprint(about), "format": FORMAT}
    return to_json({**head, **content, **tail}).encode("utf-8", "surrogateescape")


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
    "make_record",
    "model_identity",
    "replacing",
    "say_complete",
    "say_written",
]
