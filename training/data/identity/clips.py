"""Digests of clips, and the file beside a model in which those that it was trained on are stored.

A clip is known by the name of its file, without folders, and its size in bytes: these are the same in another working
directory, in a folder that was moved, copied or divided into other classes, and in shards made of it. Where the size is
unknown, the names of the file and of its folder count. Digests say nothing of names to those who do not know them.
"""

import hashlib
import io
import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepavfusion_cli.errors import error_number

from ..sets.groups import parts_of

FILE = "training_clips.parquet"
_META = {b"deepavfusion": b"training clips, format 1"}
_COLUMNS = ("name", "file", "part")
_UNKNOWN = 0  # stands for the digest of a file of unknown size
_AT_ONCE = 1000  # files that a thread looks up at a time
_THREADS = 16  # of file systems that answer slowly


@dataclass(frozen=True)
class ClipDigests:
    """Digests of clips, (N,) uint64 each.

    Attributes:
        name: Of the names of each clip's file and of its folder.
        file: Of the name and size of the file; 0 where the size is unknown.
        part: Of the name of the file, and the start and end of the clip in it.
    """

    name: np.ndarray
    file: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, paths: Any, sizes: Sequence[int | None], starts: Sequence | None = None, ends: Sequence | None = None):
        """Digests of clips, given the paths or names of their files, a sequence or an Arrow array.

        Args:
            paths: Paths, or names in a prepared data set.
            sizes: Size of each file in bytes, or None.
            starts: Start of each clip in its file in seconds, or None; all of the file by default.
            ends: End of each clip.
        """
        places = [folder_and_file(path) for part in parts_of(paths) for path in part]
        names, nothing = [place.rpartition("/")[2] for place in places], [None] * len(places)
        sized = zip(names, sizes, strict=True)
        files = [_UNKNOWN if size is None else _digest(f"{name} {size}") for name, size in sized]
        spans = zip(names, starts or nothing, ends or nothing, strict=True)
        parts = [_digest(f"{name} {start} {end}") for name, start, end in spans]
        return cls(*(np.array(values, np.uint64) for values in (list(map(_digest, places)), files, parts)))

    @classmethod
    def of_rows(cls, rows: Any, stored: bool = False) -> "ClipDigests":
        """Digests of the rows of a `datasets.Dataset` of `make_rows`, a list of checked clips or an index.

        Args:
            rows: The rows.
            stored: Whether they are of a prepared data set: then their files are not looked up.
        """
        columns = {name: rows[name][:] for name in ("bytes", "start", "end") if name in rows.column_names}
        paths = rows["path"][:]
        sizes = columns.get("bytes") or ([None] * len(paths) if stored else file_sizes(paths))
        return cls.of(paths, sizes, columns.get("start"), columns.get("end"))


def folder_and_file(path: str) -> str:
    """The names of a file and its folder, as they are written on any machine."""
    plain = unicodedata.normalize("NFC", str(path)).replace(os.sep, "/")
    return "/".join(plain.rsplit("/", 2)[-2:])


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big") or 1


def file_sizes(paths: Sequence[str]) -> list[int | None]:
    """Sizes of files in bytes; None where there is no such file."""

    def look_up(start: int) -> list[int | None]:
        return [_size(path) for path in paths[start : start + _AT_ONCE]]

    with ThreadPoolExecutor(_THREADS) as pool:
        return [size for part in pool.map(look_up, range(0, len(paths), _AT_ONCE)) for size in part]


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


class TrainingClips:
    """The clips that a model was trained on.

    Args:
        digests: Their digests.
    """

    def __init__(self, digests: ClipDigests):
        columns = [getattr(digests, name) for name in _COLUMNS]
        self.digests = ClipDigests(*np.unique(np.stack(columns), axis=1)) if len(columns[0]) else digests

    def __len__(self) -> int:
        return len(self.digests.name)

    def __or__(self, other: "TrainingClips") -> "TrainingClips":
        both = ([getattr(clips.digests, name) for clips in (self, other)] for name in _COLUMNS)
        return TrainingClips(ClipDigests(*map(np.concatenate, both)))

    def among(self, clips: ClipDigests, parts: bool = False) -> np.ndarray:
        """Whether the model was trained on each of some clips, (N,) bool.

        Args:
            clips: Digests of the clips.
            parts: Whether other parts of the same file count as other clips.
        """
        own, unknown = self.digests, clips.file == _UNKNOWN
        found = np.isin(clips.file, own.file[own.file != _UNKNOWN])
        found |= np.isin(clips.name, own.name[own.file == _UNKNOWN])
        found |= unknown & np.isin(clips.name, own.name)
        return found & np.isin(clips.part, own.part) if parts else found

    def to_bytes(self) -> bytes:
        """The content of `FILE`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({name: getattr(self.digests, name) for name in _COLUMNS}).replace_schema_metadata(_META)
        content = io.BytesIO()
        pq.write_table(table, content)
        return content.getvalue()

    @classmethod
    def read(cls, path: str | Path) -> "TrainingClips":
        """Read a file of `to_bytes`.

        Raises:
            OSError: It cannot be read.
            ValueError: It is damaged, or of another version of this package.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = Path(path).read_bytes()
        try:
            table = pq.read_table(pa.BufferReader(content))
            columns = [table.column(name).to_numpy().astype(np.uint64, casting="no") for name in _COLUMNS]
        except Exception as error:  # pyarrow raises a dozen kinds
            if error_number(error) is not None or isinstance(error, MemoryError):
                raise
            raise ValueError(
                f"{path} is damaged: expected digests of the clips that a model was trained on."
            ) from error
        if not _META.items() <= (table.schema.metadata or {}).items():
            raise ValueError(f"{path} is of another version of this package.")
        return cls(ClipDigests(*columns))


__all__ = ["FILE", "ClipDigests", "TrainingClips", "file_sizes", "folder_and_file"]
