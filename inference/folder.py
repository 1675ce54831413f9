"""Result folders of commands: ownership, and atomic replacement of earlier results.

A folder of this package has a marker file, `.deepavfusion-run.json`: the command, everything that determines its
results, and the files that it wrote. Folders without the marker are never touched. In folders with it, only files that
it lists are removed, and earlier results stay until the new ones, written to a draft folder, are complete and renamed.

    folder = ResultFolder("converted", "convert", "output")   # read-only; refuses foreign folders
    folder.plan({"checkpoint": "model.pth"})                  # read-only; refuses to replace other results
    with folder.claimed():                                    # locks it
        folder.begin()
        ...                                                   # write into folder.draft
        folder.publish()
    folder.close()
"""

import contextlib
import json
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from deepavfusion_cli.early.marks import DRAFT, OVERWRITE, check_results, make_record, open_folder, read_mark
from deepavfusion_cli.errors import cause
from deepavfusion_cli.paths import MARK_FILE

from .files import FolderError, write_atomically
from .jobs.locks import lock_folder

_IGNORED = f".lock\n{MARK_FILE}\n{DRAFT}/\ncheckpoints/\ntensorboard/\nwandb/\ndeepavfusion/\nruns/\n"


class OneProcess:
    """Stand-in for accelerate's `PartialState` in commands that run in a single process."""

    is_main_process = True

    def wait_for_everyone(self) -> None:
        """Return at once."""


class ResultFolder:
    """Result folder of a command. Repeating a command replaces its own results without `overwrite`.

    Args:
        path: Folder, which may be absent.
        command: Command that writes there, e.g. "convert".
        argument: Name of the argument that gives the folder, for messages.
        overwrite: Replace other results of the same command.
        processes: Processes of the command, as an `Accelerator` or `PartialState`; one by default. All call the methods
            together, except `publish`, which is for the main one.

    Attributes:
        replaces: Set by `plan`: whether the folder holds earlier results, which stay usable until `publish`.

    Raises:
        FolderError: For a path that cannot be written to, a folder that is not empty and has no mark, or one that
            another process is using.
    """

    OVERWRITE = OVERWRITE  # option that allows replacing results, for messages

    def __init__(
        self, path: str | os.PathLike, command: str, argument: str, *, overwrite: bool = False, processes: Any = None
    ):
        self.path, self.command, self.argument, self.overwrite = Path(path), command, argument, overwrite
        self.processes = OneProcess() if processes is None else processes
        self.replaces = False
        self._made: list[Path] = []
        self.lock: IO[str] | None = None
        self.mark = open_folder(self.path, argument)

    @property
    def draft(self) -> Path:
        """Folder for results until `publish` moves them."""
        return self.path / DRAFT

    def plan(self, fingerprint: dict[str, Any]) -> None:
        """Check that the results may be written, without changing anything.

        Args:
            fingerprint: Everything that determines the results, as JSON values.

        Raises:
            FolderError: If the folder holds results of another command, or other results and `overwrite` is False.
        """
        self._record = make_record(self.command, fingerprint)
        if self.mark is not None:
            self.replaces = check_results(
                self.path, self.argument, self.mark, self._record, self.overwrite, self.OVERWRITE
            )

    def claim(self) -> None:
        """Create the folder and lock it for this process.

        Raises:
            FolderError: If another process has taken or changed the folder in the meantime.
        """
        self.processes.wait_for_everyone()  # all have read before the main process changes anything
        if self.processes.is_main_process:
            absent = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self._made = absent if self.mark is None else []
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self.lock = lock_folder(self.path)
            except (OSError, ValueError) as error:
                self._remove_made()
                raise FolderError(f"{self.argument}={self.path} cannot be used: {cause(error, self.path)}") from error
            if read_mark(self.path, self.argument) != self.mark:
                self.close()
                raise FolderError(f"{self.argument}={self.path} was changed by another run meanwhile: start again.")
            if self.mark is None:
                self._write_mark(finished=False, replaces=False, files=[], publishing=None)
            elif self.mark["publishing"] is not None:  # a process was killed between the first rename and the last
                self._move_draft()
        self.processes.wait_for_everyone()

    @contextlib.contextmanager
    def claimed(self) -> Generator[None]:
        """Claim the folder; if the block raises, release it.

        What was half written is removed; of a folder that was absent or empty, everything is.
        """
        new = self.mark is None
        self.claim()
        try:
            yield
        except BaseException:
            if self.lock is not None and new and not self.mark["finished"]:
                self._withdraw()
            else:
                self.discard()
            self.close()
            raise

    def discard(self) -> None:
        """Remove what a failed command has half written; what is being published stays."""
        if self.lock is not None and self.mark is not None and self.mark["publishing"] is None:
            shutil.rmtree(self.draft, ignore_errors=True)

    def _withdraw(self) -> None:
        """Remove what this command wrote to a folder that was absent or empty, and the folders that it created."""
        shutil.rmtree(self.draft, ignore_errors=True)
        ignored = self.path / ".gitignore"
        if ignored.is_file() and ignored.read_text(encoding="utf-8") == _IGNORED:
            ignored.unlink()
        for name in (MARK_FILE, ".lock"):
            (self.path / name).unlink(missing_ok=True)
        self._remove_made()

    def _remove_made(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # until one is not empty; names may hold anything
            for folder in self._made:
                folder.rmdir()

    def begin(self) -> None:
        """Mark the folder as this command's and create an empty draft."""
        if self.processes.is_main_process:
            self._start()
        self.processes.wait_for_everyone()

    def publish(self) -> None:
        """Move all results from the draft into the folder by renames, and remove earlier ones that are not among them.

        For the main process.
        """
        files = self._results()
        stale = sorted(set(self.mark["files"]) - files)
        self._write_mark(finished=True, replaces=False, files=sorted(files), publishing=stale)
        self._move_draft()

    def close(self) -> None:
        """Release the folder."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    def _start(self, keep_draft: bool = False) -> None:
        if self.draft.is_dir() and not keep_draft:
            shutil.rmtree(self.draft)
        files = self.mark["files"]
        self._write_mark(finished=False, replaces=self.replaces, files=files, publishing=None, **self._record)
        self.draft.mkdir(exist_ok=True)
        if not (self.path / ".gitignore").exists():
            write_atomically(self.path / ".gitignore", _IGNORED)

    def _results(self) -> set[str]:
        """Files of the finished command, relative to the folder."""
        return set(files_below(self.draft))

    def _move_draft(self) -> None:
        for name in files_below(self.draft):
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.draft / name, target)
        for name in self.mark["publishing"] or ():
            stale = self.path / name
            stale.unlink(missing_ok=True)
            if stale.parent != self.path and stale.parent.is_dir() and not any(stale.parent.iterdir()):
                stale.parent.rmdir()
        if self.mark["publishing"] is not None:
            shutil.rmtree(self.draft, ignore_errors=True)  # its folders, empty now
            self._write_mark(publishing=None)

    def _write_mark(self, **entries: Any) -> None:
        self.mark = {**(self.mark or self._record), **entries}
        write_atomically(self.path / MARK_FILE, json.dumps(self.mark, indent=1) + "\n")


def files_below(folder: Path) -> list[str]:
    """Files in a folder and below, as paths relative to it."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir()]


__all__ = ["MARK_FILE", "FolderError", "ResultFolder", "lock_folder"]
