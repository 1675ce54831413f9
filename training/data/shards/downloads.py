"""Copies on this machine of files at addresses that fsspec opens, in a folder of limited size.

Each file is downloaded once, and again after it has changed at its address.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from deepavfusion.inference.files import write_atomically, writing
from deepavfusion.processors.sources_deepavfusion import unreachable

logger = logging.getLogger(__name__)

_KEPT = "*/*.tar"  # what may be removed to make room


def is_remote(root: str) -> bool:
    """Whether a folder is an address for fsspec."""
    return "://" in root and not root.startswith("file://")


def local_copy(path: str, cache: str | None = None, limit: float | None = None) -> str:
    """The path of a file on this machine: of an address, a copy that is downloaded unless there is one that equals it.

    Processes that want the same copy wait for the one that downloads it. A copy is also used, with a warning, while its
    address cannot be reached.

    Args:
        path: Path, or address for fsspec.
        cache: Folder for copies; None keeps them in `~/.cache/deepavfusion`.
        limit: Largest size of all tar files in the folder, in GB (10^9 bytes): before one is downloaded, those that
            were opened longest ago are removed. None removes none.

    Raises:
        FileNotFoundError: There is no such file at the address.
        ConnectionError: The address cannot be reached, and there is no copy.
    """
    if not is_remote(path):
        return path.removeprefix("file://")
    import fsspec
    from filelock import FileLock

    folder = Path(cache) if cache else Path.home() / ".cache" / "deepavfusion" / "shards"
    address, _, name = path.rpartition("/")
    target = folder / hashlib.sha256(address.encode()).hexdigest()[:16] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = target.with_name(f"{name}.version")
    with FileLock(f"{target}.lock"):
        files, remote = fsspec.core.url_to_fs(path)
        there = target.exists()
        version = _version(files, remote, path, there)
        # A copy of another size was damaged here.
        there = there and (version is None or files.size(remote) in (None, target.stat().st_size))
        if there and version in (None, mark.read_text(encoding="utf-8") if mark.exists() else ""):
            os.utime(target)
            return str(target)
        if limit is not None and target.match(_KEPT):
            make_room(folder, limit * 1e9 - (files.size(remote) or 0))
        with writing(target) as draft:
            files.get_file(remote, draft.name)
            mark.unlink(missing_ok=True)  # or a copy that is replaced by another would have its mark for an instant
        write_atomically(mark, str(version))
    return str(target)


def _version(files: Any, remote: str, path: str, there: bool) -> str | None:
    """What distinguishes this version of a file from others; None if that is not known and there is a copy of it."""
    try:
        return str(files.checksum(remote))
    except Exception as error:  # of any kind, as the libraries of addresses differ
        if not there:
            if reason := unreachable(error):
                raise ConnectionError(f"{path} cannot be reached: {reason}.") from error
            raise
        logger.warning("%s cannot be reached (%s): its copy is used", path, error or type(error).__name__)
        return None


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
