"""Copies on this machine of files at addresses that fsspec opens, each downloaded once, in a folder of limited size."""

import hashlib
import os
from pathlib import Path

_KEPT = "*/*.tar"  # what may be removed to make room


def is_remote(root: str) -> bool:
    """Whether a folder is an address for fsspec."""
    return "://" in root and not root.startswith("file://")


def local_copy(path: str, cache: str | None = None, limit: float | None = None) -> str:
    """The path of a file on this machine: of an address, a copy that is downloaded once.

    Processes that want the same copy wait for the one that downloads it.

    Args:
        path: Path, or address for fsspec.
        cache: Folder for copies; None keeps them in `~/.cache/deepavfusion`.
        limit: Largest size of all tar files in the folder, in GB (10^9 bytes): before one is downloaded, those that
            were opened longest ago are removed. None removes none.

    Raises:
        FileNotFoundError: There is no such file at the address.
    """
    if not is_remote(path):
        return path.removeprefix("file://")
    import fsspec
    from filelock import FileLock

    folder = Path(cache) if cache else Path.home() / ".cache" / "deepavfusion" / "shards"
    address, _, name = path.rpartition("/")
    target = folder / hashlib.sha256(address.encode()).hexdigest()[:16] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists():
            os.utime(target)
            return str(target)
        files, remote = fsspec.core.url_to_fs(path)
        if limit is not None and target.match(_KEPT):
            make_room(folder, limit * 1e9 - files.size(remote))
        temporary = target.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            files.get_file(remote, str(temporary))
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return str(target)


def make_room(folder: Path, size: float) -> None:
    """Remove the tar files in the folders of `folder` that were opened longest ago, until they take `size` bytes."""
    files = []
    for path in folder.glob(_KEPT):
        try:
            about = path.stat()
        except FileNotFoundError:  # another process has just removed it
            continue
        files.append((about.st_mtime_ns, about.st_size, path))
    total = sum(own for _, own, _ in files)
    for _, own, path in sorted(files):
        if total <= size:
            return
        path.unlink(missing_ok=True)
        total -= own


__all__ = ["is_remote", "local_copy", "make_room"]
