"""Atomic writing of files, locks of folders, strict JSON, and errors that name the file or the folder."""

import contextlib
import errno
import fcntl
import functools
import json
import math
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import safetensors

from deepavfusion.modeling_deepavfusion import apply_umask
from deepavfusion_cli.errors import BAD_INPUT, FAILED, cause, disk_is_full, error_number
from deepavfusion_cli.paths import FolderError, check_writable, existing_parent


class UnreadableError(ValueError):
    """Raised for a file that cannot be read; the message names it and the reason."""

    exit_code = BAD_INPUT


class DiskFullError(OSError):
    """Raised where a disk is full; the message names the folder, what is needed there and what is free."""

    exit_code = FAILED


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Generator[None]:
    """Raise `UnreadableError`, which names the file, for what libraries raise while it is read.

    Errors of the operating system and errors that name the file are passed on.
    """
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        if os.fspath(path) in str(error):
            raise
        raise UnreadableError(f"{os.fspath(path)}: {cause(error, path)}") from error


def reads_file(read: Callable) -> Callable:
    """Decorate a function whose first argument is the path of the file that it reads; see `reading`."""

    @functools.wraps(read)
    def named(path, *args, **kwargs):
        with reading(path):
            return read(path, *args, **kwargs)

    return named


@contextlib.contextmanager
def saving(folder: str | os.PathLike, needed: int) -> Generator[None]:
    """Raise `DiskFullError` for what libraries raise if the disk of a folder is full.

    Args:
        folder: Folder that is written to; may be absent.
        needed: Size of what is written, in bytes.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        free = shutil.disk_usage(existing_parent(Path(folder))).free
        # Of full disks, torch only reports that a position in a file is not the expected one.
        writer_failed = isinstance(error, RuntimeError) and free < needed and "inline_container" in str(error)
        elsewhere = free > 2 * needed + 1_000_000 and error_number(error) != errno.EDQUOT
        if elsewhere or not (disk_is_full(error) or writer_failed):
            raise
        raise _disk_full(folder, needed, free) from error


def _disk_full(folder: str | os.PathLike, needed: int, free: int) -> DiskFullError:
    sizes = f"{size_text(needed)} needed there, {size_text(free)} free"
    return DiskFullError(f"{os.fspath(folder)}: the disk is full: {sizes}. Free space, or choose another folder.")


def require_space(folder: Path, needed: int, name: str | None = None) -> None:
    """Raise `DiskFullError` if a number of bytes is not free in a folder.

    Args:
        folder: The folder, which may be absent.
        needed: The number.
        name: How the message calls the folder; by default by its path.
    """
    free = shutil.disk_usage(existing_parent(folder)).free
    if free < needed:
        raise _disk_full(name or folder, needed, free)


def size_text(number: int) -> str:
    """A number of bytes with its unit: "1.5 GB"."""
    unit, name = next(
        entry for entry in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes")) if number >= entry[0] or entry[0] == 1
    )
    return f"{number / unit:.3g} {name}"


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a small file atomically: after a crash, readers find the old content or the new one.

    Raises:
        DiskFullError: If it does not fit on the disk; nothing is left of it.
    """
    path = Path(path)
    content = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with saving(path.parent, len(content)):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
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

    The folder is created if it is absent.

    Raises:
        BlockingIOError: If another process has locked it; the message names the process.
    """
    path = Path(folder) / ".lock"
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
            raise BlockingIOError(_in_use(folder, owner)) from error
        if _is_at(file, path):
            break
        file.close()  # the process that had locked it has removed this file, and others may hold its successor
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _in_use(folder: str | os.PathLike, owner: str) -> str:
    return f"{folder} is in use by another run (process {owner or 'unknown'}): wait until it ends, or name another one."


def folder_owner(folder: str | os.PathLike) -> str | None:
    """Message about the process that has locked a folder; None if it is not locked. Read-only."""
    path = Path(folder) / ".lock"
    if not path.is_file():
        return None
    with open(path, encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: all processes of a run may ask at once
        except OSError:
            return _in_use(folder, file.read().strip())
    return None


def damaged_file(folder: str | os.PathLike, names: Iterable[str] | None = None) -> str | None:
    """Name of the first damaged file of a model's folder, and what is wrong with it; None if there is none.

    Args:
        folder: The folder.
        names: Files in it that are read; by default all.
    """
    files = sorted(Path(folder).glob("*") if names is None else [Path(folder, name) for name in names])
    for file in (file for file in files if file.suffix == ".json"):
        kind, name = (list, "list") if file.name == "modules.json" else (dict, "object")  # of sentence-transformers
        try:
            if not isinstance(json.loads(file.read_text(encoding="utf-8")), kind):
                return f"{file.name} holds something other than a JSON {name}"
        except (OSError, ValueError, RecursionError) as error:
            return f"{file.name}: {cause(error, file)}"
    for file in (file for file in files if file.suffix == ".safetensors"):
        try:
            with safetensors.safe_open(file, "pt"):
                pass
        except (OSError, safetensors.SafetensorError) as error:
            return f"{file.name}: {cause(error, file)}"
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
    "DiskFullError",
    "FolderError",
    "UnreadableError",
    "apply_umask",
    "check_absent",
    "check_writable",
    "damaged_file",
    "existing_parent",
    "folder_owner",
    "lock_folder",
    "plain",
    "reading",
    "reads_file",
    "require_space",
    "saving",
    "size_text",
    "sync_folder",
    "to_json",
    "write_atomically",
    "write_files",
]
