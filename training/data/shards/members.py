"""Members of tar files: written one after the other with their places, and read by place alone."""

import io
import os
import tarfile
from collections import OrderedDict
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from deepavfusion.processors import MediaError

from .downloads import local_copy

_OPEN_FILES = 64
_RETRIES = 2
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

    def add(self, name: str, content: bytes | BinaryIO) -> Place:
        """Add a member, bytes or a seekable file, and return its place."""
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        header = tarfile.TarInfo(name)
        header.size, header.mode = file.seek(0, os.SEEK_END), 0o644
        file.seek(0)
        self._tar.addfile(header, file)
        return Place(self._tar.offset - -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, header.size)

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
        limit: Largest size of that folder's tar files in GB; see `local_copy`.
    """

    def __init__(self, root: str, cache: str | None = None, limit: float | None = None):
        self.root, self.cache, self.limit = root, cache, limit
        self._open: OrderedDict[str, int] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**vars(self), "_open": OrderedDict()}

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
        opened = self._open_file(f"{self.root}/shards/{shard}")
        # What was removed from the folder of downloads takes space until it is closed.
        for name in [name for name, number in self._open.items() if not os.fstat(number).st_nlink]:
            os.close(self._open.pop(name))
        self._open[shard] = opened
        if len(self._open) > _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return self._open[shard]

    def _open_file(self, path: str) -> int:
        for _ in range(_RETRIES):
            # Another process may need the space of a downloaded file before it is opened here.
            with suppress(FileNotFoundError):
                return os.open(local_copy(path, self.cache, self.limit), os.O_RDONLY | os.O_CLOEXEC)
        return os.open(local_copy(path, self.cache, self.limit), os.O_RDONLY | os.O_CLOEXEC)


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


__all__ = ["Place", "ShardFiles", "TarWriter"]
