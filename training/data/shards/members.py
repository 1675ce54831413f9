"""Members of tar files: written one after the other with their places, and read by place alone."""

import io
import os
import tarfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deepavfusion.processors import MediaError

_OPEN_FILES = 64
_WHOLE = 8 << 20  # members up to this many bytes are read at once


class Place(NamedTuple):
    """Where the content of a member lies in its tar file, in bytes."""

    offset: int
    size: int


class TarWriter:
    """Writes a tar file whose bytes depend on its members alone.

    Args:
        file: Binary file to write to.
    """

    def __init__(self, file):
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (see close)

    def add(self, name: str, content: bytes) -> Place:
        """Add a member and return its place."""
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(content), 0o644
        self._tar.addfile(header, io.BytesIO(content))
        return Place(self._tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(content))

    def close(self) -> None:
        """Write the end of the tar file."""
        self._tar.close()


class ShardFiles:
    """The tar files of a prepared data set, opened as they are needed.

    Files are read by `os.pread`, which is independent of other processes and threads.

    Args:
        root: Folder of the data set, or its address for fsspec, such as `s3://bucket/folder`: then each tar file is
            downloaded once, to `cache`.
        cache: Folder for downloaded files.
    """

    def __init__(self, root: str, cache: str | None = None):
        self.root, self.cache = root, cache
        self._open: OrderedDict[str, int] = OrderedDict()

    def __getstate__(self) -> dict:
        return {"root": self.root, "cache": self.cache, "_open": OrderedDict()}

    def __del__(self):
        for number in getattr(self, "_open", {}).values():
            os.close(number)

    def read(self, shard: str, place: Place) -> bytes:
        """Read `place` of a shard.

        Raises:
            MediaError: The shard is missing, or shorter than the index says.
        """
        try:
            content = os.pread(self._file(shard), place.size, place.offset)
        except OSError as error:
            raise MediaError(f"{self.root}/shards/{shard}: {error.strerror or error}.") from error
        if len(content) < place.size:
            end = place.offset + place.size
            raise MediaError(
                f"{self.root}/shards/{shard}: expected at least {end:,} bytes, as the index says; it ends."
            )
        return content

    def open(self, shard: str, place: Place):
        """A seekable binary file of `place`, which reads large members in parts."""
        return io.BytesIO(self.read(shard, place)) if place.size <= _WHOLE else _Window(self, shard, place)

    def _file(self, shard: str) -> int:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        self._open[shard] = os.open(local_copy(f"{self.root}/shards/{shard}", self.cache), os.O_RDONLY | os.O_CLOEXEC)
        if len(self._open) > _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return self._open[shard]


class _Window(io.RawIOBase):
    """A part of a shard as a file."""

    def __init__(self, files: ShardFiles, shard: str, place: Place):
        self._files, self._shard, self._place, self._at = files, shard, place, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._place.size}[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._place.size - self._at, 0)
        size = left if size is None or size < 0 else min(size, left)
        content = self._files.read(self._shard, Place(self._place.offset + self._at, size)) if size else b""
        self._at += len(content)
        return content


def is_remote(root: str) -> bool:
    """Whether a folder is an address for fsspec."""
    return "://" in root and not root.startswith("file://")


def local_copy(path: str, cache: str | None) -> str:
    """The path of a file on this machine: of an address, a copy that is downloaded once.

    Args:
        path: Path, or address for fsspec.
        cache: Folder for copies; None keeps them in `~/.cache/deepavfusion`.
    """
    if not is_remote(path):
        return path.removeprefix("file://")
    import fsspec

    storage = cache or str(Path.home() / ".cache" / "deepavfusion" / "shards")
    options: Mapping = {"filecache": {"cache_storage": storage}}
    return fsspec.open_local(f"filecache::{path}", mode="rb", **options)


__all__ = ["Place", "ShardFiles", "TarWriter", "is_remote", "local_copy"]
