"""Atomic writing of files, strict JSON, and errors that name the file or the folder."""

import contextlib
import errno
import fcntl
import functools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors

from deepavfusion.modeling_deepavfusion import apply_umask
from deepavfusion_cli.early.outputs import check_absent
from deepavfusion_cli.errors import BAD_INPUT, FAILED, cause, disk_is_full, error_number
from deepavfusion_cli.paths import FolderError, check_writable, existing_parent

_DRAFT = re.compile(r"\.(.+)\.\d+\.tmp", re.DOTALL)


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
    sizes = f"{size_text(needed)} needed there, {size_text(free)} free" if needed else f"{size_text(free)} free there"
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


@contextlib.contextmanager
def writing(path: str | os.PathLike, needed: int = 0, locked: bool = False) -> Generator[BinaryIO]:
    """A binary file to write, which appears at a path once it is whole, atomically, with the permissions of new files.

    Until then it is a draft beside it, whose path is the `name` of the file, for what writes by paths. After a crash,
    readers find what was there before, or the new file. Whatever error ends the block, the draft is removed; a killed
    process leaves it, see `draft_of`.

    Args:
        path: The file.
        needed: Size of what is written, in bytes, as far as it is known.
        locked: Whether the process locks the draft, so that others know that it is at work.

    Raises:
        DiskFullError: If it does not fit on the disk.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with saving(path.parent, needed), _opened(draft, locked) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(draft, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and disk_is_full(error) and error.filename is None:
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def _opened(draft: Path, locked: bool) -> BinaryIO:
    while True:
        file = open(draft, "wb")  # noqa: SIM115  (closed by the caller)
        if locked:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.lockf(file, fcntl.LOCK_EX)
        if not locked or draft.exists():
            return file
        file.close()  # another process has taken it for a dead one's before it was locked


def draft_of(name: str) -> str | None:
    """Name of the file that a draft of `writing` was to become, by the draft's name; None for other files."""
    found = _DRAFT.fullmatch(name)
    return None if found is None else found[1]


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a small file as `writing` does.

    Raises:
        DiskFullError: If it does not fit on the disk; nothing is left of it.
    """
    content = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with writing(path, len(content)) as file:
        file.write(content)


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
        if not file.is_file():
            return f"{file.name} is {'a folder, not a file' if file.exists() else 'a link to nothing'}"
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
    "draft_of",
    "existing_parent",
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
    "writing",
]
