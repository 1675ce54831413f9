"""Files that appear when they are whole, and what killed processes leave of them."""

import fcntl
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from deepavfusion.inference import files


def writing(path: Path) -> AbstractContextManager[BinaryIO]:
    """A binary file to write, see `inference.files.writing`; the draft of a process that has died is not locked."""
    return files.writing(path, locked=True)


def remove_dead_drafts(folder: Path) -> None:
    """Remove the drafts in a folder whose processes have died, on whatever machine; this process must have none."""
    for draft in folder.glob(".*.tmp"):
        with suppress(OSError), open(draft, "r+b") as file:  # it is locked, or its process has just removed it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()


__all__ = ["remove_dead_drafts", "writing"]
