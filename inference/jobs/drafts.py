"""Drafts of results: written as they are made, continued after a kill, and published at the end.

A draft is a folder NAME.unfinished beside the results. It holds state.json, which says what it is a draft of and how
much of it counts, the parts of films, which can be watched meanwhile, and of separated recordings a wav file of 32-bit
floats for each source, of which 16-bit files are made at the end. When all is there, the results are moved to their
places, and the folder is removed.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from ..files import draft_of, sync_folder, write_atomically
from ..films.parts import PART_FILE
from .locks import lock_folder

_STATE = "state.json"
_FORMAT = 1


class Draft:
    """Folder beside the results of a file, in which they are made before they are moved to their places.

    Use it as a context manager, which locks the folder. Whatever ends the block, the draft stays, so that the same
    command continues it, unless it is still empty.

    Args:
        folder: The folder, which may be absent.
        outputs: Files that are published, in this order.
        about: What determines the results, as JSON values; the draft of anything else is started anew.

    Raises:
        FileExistsError: If the folder holds something else.
    """

    BEGINNING = "working"  # the stage of a draft in the making
    KIND = "results of this command"

    def __init__(self, folder: Path, outputs: Sequence[Path], about: dict[str, Any]):
        self.folder, self.outputs = folder, list(outputs)
        self._about = json.loads(json.dumps({**about, "outputs": [path.name for path in outputs]}))
        self._own_names = {path.name for path in self.outputs}
        self._read()

    def _read(self) -> None:
        """Read how far the draft in the folder is, if it is one of this work."""
        self._reset()
        self._names = set(self._own_names)
        if not self.folder.exists():
            return
        try:
            stored = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            known = stored["format"] == _FORMAT
            self._names |= set(stored["names"])
        except (OSError, ValueError, TypeError, KeyError):
            known = self.folder.is_dir() and not any(path.name != ".lock" for path in self.folder.iterdir())
            stored = None
        if not known:
            raise FileExistsError(f"{self.folder} exists, but is not the draft of {self.KIND}: move it away.")
        if stored is not None and stored["about"] == self._about and self._holds(stored):
            self._restore(stored)

    def _reset(self) -> None:
        self._stage = self.BEGINNING

    def _restore(self, stored: dict[str, Any]) -> None:
        self._stage = stored["stage"]

    def _holds(self, stored: dict[str, Any]) -> bool:
        """Whether the files hold what the state says."""
        return True

    def _state(self) -> dict[str, Any]:
        """What `_restore` reads, besides the stage."""
        return {}

    @property
    def publishing(self) -> bool:
        """Whether an earlier process had begun to move the results to their places."""
        return self._stage == "publishing"

    @property
    def empty(self) -> bool:
        """Whether nothing would be lost with the draft."""
        return not self.publishing and not any(self._parts_of_films())

    def __enter__(self) -> Self:
        """Create and lock the folder, and remove what an earlier draft holds beyond this one's state.

        Raises:
            BlockingIOError: If another process is at work on it.
        """
        self._lock = lock_folder(self.folder)
        try:
            self._read()  # again: another process may have worked on it until now
            self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _open(self) -> None:
        """Start anew, unless the folder holds a draft of this work."""
        if not self._is_ours():
            self._clear()
        self._save()

    def _is_ours(self) -> bool:
        try:
            return json.loads((self.folder / _STATE).read_text(encoding="utf-8"))["about"] == self._about
        except FileNotFoundError:
            return False

    def __exit__(self, *_: object) -> None:
        """Unlock the folder, and remove an empty draft."""
        try:
            if self.empty:
                self._remove()
        finally:
            self.close()

    def close(self) -> None:
        """Release the folder."""
        self._lock.close()

    def add_file(self, path: Path, content: bytes) -> None:
        """Write one of the outputs into the draft."""
        write_atomically(self.folder / path.name, content)

    def publish(self) -> None:
        """Move the results to their places."""
        if not self.publishing:
            self._stage = "publishing"
            self._save()
        for path in self.outputs:
            if (self.folder / path.name).exists():  # else an earlier process has moved it
                os.replace(self.folder / path.name, path)
        sync_folder(self.folder.parent)
        self._remove()

    def _save(self) -> None:
        state = {"format": _FORMAT, "stage": self._stage, "about": self._about, "names": sorted(self._names)}
        write_atomically(self.folder / _STATE, json.dumps(self._state() | state, indent=1) + "\n")

    def _parts_of_films(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("film-*") if PART_FILE.fullmatch(path.name))

    def _clear(self) -> None:
        """Remove the files of this draft, and of an earlier one in the folder, but for the lock."""
        own = {Path(name).name for name in (*self._names, _STATE)}
        for path in self.folder.glob("*"):
            name = draft_of(path.name) or path.name  # a killed process leaves what it was writing
            if name in own or PART_FILE.fullmatch(name):
                path.unlink(missing_ok=True)

    def _remove(self) -> None:
        self._clear()
        (self.folder / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or another process has just locked it
            self.folder.rmdir()


__all__ = ["Draft"]
