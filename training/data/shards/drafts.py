"""Files that appear when they are whole, and what killed processes leave of them."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepavfusion.inference.files import sync_folder
from deepavfusion_cli.errors import disk_is_full


@contextmanager
def writing(path: Path) -> Generator[BinaryIO]:
    """A binary file to write, which appears at a path when it is whole, atomically.

    Until then it is a draft beside it, which this process locks: an unlocked one is that of a process that has died.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _locked(draft) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(draft, path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and disk_is_full(error) and error.filename is None:
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def _locked(draft: Path) -> BinaryIO:
    while True:
        file = open(draft, "wb")  # noqa: SIM115  (closed by the caller)
        with suppress(OSError):  # a file system without locks: drafts stay there
            fcntl.lockf(file, fcntl.LOCK_EX)
        if draft.exists():
            return file
        file.close()  # another process has taken it for a dead one's before it was locked


def remove_dead_drafts(folder: Path) -> None:
    """Remove the drafts in a folder whose processes have died, on whatever machine; this process must have none."""
    for draft in folder.glob(".*.tmp"):
        with suppress(OSError), open(draft, "r+b") as file:  # it is locked, or its process has just removed it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()


__all__ = ["remove_dead_drafts", "writing"]
