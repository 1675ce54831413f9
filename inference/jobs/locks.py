"""Locks of folders, which end with the process that holds them, however it ends."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO


def lock_folder(folder: str | os.PathLike) -> IO[str]:
    """Lock a folder for this process until the returned file is closed or the process dies, however it dies.

    The folder is created if it is absent.

    Raises:
        BlockingIOError: If another process has locked it; the message names the process.
    """
    path = Path(folder) / ".lock"
    made = [parent for parent in path.parents if not parent.exists()]
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (open for as long as the lock is held)
        except FileNotFoundError:  # the process that had locked the folder has removed it meanwhile
            continue
        try:
            # A record lock: unlike flock's, processes that read data do not inherit it and hold it beyond a kill.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise BlockingIOError(_in_use(folder, owner or "unknown")) from error
        if _is_at(file, path):
            break
        file.close()  # the process that had locked it has removed this file, and others may hold its successor
    try:
        file.truncate(0)
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    except OSError as error:  # the disk is full
        error.filename = str(path)
        path.unlink()
        file.close()
        with contextlib.suppress(OSError):  # until one is not empty
            for parent in made:
                parent.rmdir()
        raise
    return file


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _in_use(folder: str | os.PathLike, owner: str) -> str:
    return f"{folder} is in use by another run (process {owner}): wait until it ends, or name another one."


def folder_owner(folder: str | os.PathLike) -> str | None:
    """Message about the process that has locked a folder; None if it is not locked. Read-only."""
    owner = lock_owner(folder)
    return None if owner is None else _in_use(folder, owner)


def lock_owner(folder: str | os.PathLike) -> str | None:
    """Number of the process that has locked a folder, or "unknown"; None if it is not locked. Read-only."""
    path = Path(folder) / ".lock"
    if not path.is_file():
        return None
    with open(path, encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: all processes of a run may ask at once
        except OSError:
            return file.read().strip() or "unknown"
    return None


__all__ = ["folder_owner", "lock_folder", "lock_owner"]
