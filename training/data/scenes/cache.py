"""Arrays on disk in which scenes are kept as they are first generated."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deepavfusion.inference.files import apply_umask, require_space, size_text

_FORMAT = 2  # another one wherever scenes or their front end change


class SceneCache:
    """Arrays on disk whose rows are filled as they are first generated, by any number of processes at once.

    A row counts as filled once it is flagged, after its arrays were written, and every process would write the same: so
    nothing is lost or mixed up when a process dies, and none waits for another. The folder's name holds a hash of what
    the rows depend on; other settings use another folder.

    Args:
        folder: Folder of the caches.
        description: What the rows depend on; must be plain values.
        arrays: Name to (shape, dtype); the first dimension counts rows.
    """

    def __init__(self, folder: str | Path, description: dict, arrays: dict[str, tuple[tuple[int, ...], type]]):
        text = json.dumps({"format": _FORMAT, **description}, indent=1, sort_keys=True, default=str)
        self.path = Path(folder).absolute() / f"scenes_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.text, self.shapes, self._arrays = text, arrays, None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, which are created on disk when they are first used."""
        if self._arrays is None:
            if not self.path.exists():
                self._create()
            self._arrays = {name: self._open(name) for name in self._names}
        return self._arrays

    def _open(self, name: str) -> np.ndarray:
        """Map an array of the cache into memory.

        Raises:
            ValueError: Its file is missing or damaged; numpy would fill up one that was cut off with zeros.
        """
        file, shape = self.path / f"{name}.npy", self.shapes.get(name, (self._rows,))[0]
        try:
            with open(file, "rb") as opened:
                np.lib.format.read_magic(opened)
                found, _, dtype = np.lib.format.read_array_header_1_0(opened)
                whole = opened.tell() + math.prod(found) * dtype.itemsize
            if found == tuple(shape) and file.stat().st_size == whole:
                return np.lib.format.open_memmap(file, "r+")
        except (FileNotFoundError, ValueError):
            pass
        raise ValueError(f"{file} is missing or damaged: delete {self.path}, and its scenes are generated again.")

    @property
    def size(self) -> int:
        """Bytes on disk once all rows are filled."""
        return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.shapes.values())

    @property
    def _names(self) -> list[str]:
        return [*self.shapes, "filled"]

    @property
    def _rows(self) -> tuple[int]:
        return next(iter(self.shapes.values()))[0][:1]

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Memory maps take their space as they are filled; where it has gone by then, the process is killed.
        require_space(self.path.parent, self.size)
        draft = Path(tempfile.mkdtemp(prefix=".scenes_", dir=self.path.parent))
        apply_umask([draft])
        for name, (shape, dtype) in {**self.shapes, "filled": (self._rows, np.uint8)}.items():
            np.lib.format.open_memmap(draft / f"{name}.npy", "w+", dtype, shape)
        (draft / "about.json").write_text(self.text)
        try:
            os.rename(draft, self.path)
        except OSError:
            # Another process was first; its cache is the same one.
            shutil.rmtree(draft)
            if not self.path.exists():
                raise

    def __getstate__(self) -> dict:
        # A pickled memory map is a copy of its contents; workers open the files instead.
        return {**self.__dict__, "_arrays": None}

    def missing(self, rows: list[int]) -> list[int]:
        """Those rows that are not filled."""
        return [row for row in rows if not self.arrays["filled"][row]]

    def put(self, rows: list[int], **values: np.ndarray) -> None:
        """Fill rows."""
        for name, value in values.items():
            self.arrays[name][rows] = value
        self.arrays["filled"][rows] = 1

    def get(self, rows: list[int]) -> dict[str, np.ndarray]:
        """Rows of every array."""
        return {name: np.asarray(array[rows]) for name, array in self.arrays.items() if name != "filled"}


def cache_notes(data_sets: Iterable) -> list[str]:
    """Where the scenes of data sets are kept, and how much space they take; empty if they are not.

    Args:
        data_sets: `SceneClips`, and other data sets of clips, which have no cache.
    """
    caches = [clips.cache for clips in data_sets if getattr(clips, "cache", None) is not None]
    sizes = {cache.path: cache.size for cache in caches}
    return [
        f"scenes are kept in {folder} once generated, {size_text(sum(sizes.values()))} in all; the folder may be "
        "deleted, and data.cache_dir sets another one, or null for none"
        for folder in sorted({path.parent for path in sizes})
    ]


__all__ = ["SceneCache", "cache_notes"]
