"""Atomic writing of files, and strict JSON."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


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


def apply_umask(files: Iterable[Path]) -> None:
    """Give files the permissions of newly created ones; safetensors makes its files private to the user."""
    umask = os.umask(0o077)  # can only be read by setting it
    os.umask(umask)
    for file in files:
        file.chmod(0o666 & ~umask)


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


__all__ = ["apply_umask", "check_absent", "plain", "sync_folder", "to_json", "write_atomically", "write_files"]
