"""Atomic writing of files, locks of folders, and strict JSON."""

import fcntl
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from deepavfusion.modeling_deepavfusion import apply_umask


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a small file atomically: after a crash, readers find the old content or the new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def check_absent(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise `FileExistsError` if a file would be replaced without `overwrite`."""
    for path in paths:
        if not overwrite and path.exists():
            raise FileExistsError(
                f"{path} already exists: choose another output path, or pass --overwrite to replace it."
            )


def write_files(files: Mapping[Path, bytes], overwrite: bool) -> None:
    """Write files, each atomically.

    Raises:
        FileExistsError: If any of them exists, unless `overwrite`; none is written in that case.
    """
    check_absent(files, overwrite)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: str | os.PathLike) -> IO[str]:
    """Lock a folder for this process until the returned file is closed or the process dies, however it dies.

    Raises:
        BlockingIOError: If another process has locked it; the message names the process.
    """
    path = Path(folder) / ".lock"
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (open for as long as the lock is held)
    try:
        # A record lock: unlike flock's, processes that read data do not inherit it and hold it beyond a kill.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = path.read_text(encoding="utf-8").strip()
        file.close()
        raise BlockingIOError(f"{folder} is in use by another run (process {owner}).") from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def folder_owner(folder: str | os.PathLike) -> str | None:
    """Message about the process that has locked a folder; None if it is not locked. Read-only."""
    path = Path(folder) / ".lock"
    if not path.is_file():
        return None
    with open(path, encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: all processes of a run may ask at once
        except OSError:
            return f"{folder} is in use by another run (process {file.read().strip()})."
    return None


def plain(value: Any) -> Any:
    """Convert a value to JSON types: arrays and tensors to lists, paths to strings, NaN and infinities to None.

    Raises:
        TypeError: For anything that has no JSON equivalent.
    """
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"Expected JSON types, arrays, tensors or paths, got {type(value).__name__}: {value!r}.")


def to_json(value: Any) -> str:
    """Format `plain(value)` as indented JSON without NaN, which any JSON parser accepts."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


__all__ = [
    "apply_umask",
    "check_absent",
    "folder_owner",
    "lock_folder",
    "plain",
    "sync_folder",
    "to_json",
    "write_atomically",
    "write_files",
]
