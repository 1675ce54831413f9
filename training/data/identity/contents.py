"""What a data set holds, briefly: to tell whether it is still that of an interrupted or finished run."""

import hashlib
from typing import Any

import numpy as np

from ..clips import ClipDataset
from ..files import FileClips
from ..sets.folder import label_info
from ..sets.groups import arrow_column, label_arrays, parts_of
from ..stills import StillClips
from .clips import folder_and_file


def contents_of(clips: ClipDataset, classes: bool = True) -> dict[str, Any]:
    """Number and classes of the items of a data set, and a digest of them in their order, as JSON values.

    The digest is of the names of files and their folders, labels, annotated parts and pairs; of data without files,
    such as scenes, which follow from the recipe, there is none.

    Args:
        clips: The data set.
        classes: Whether the classes are those of the model; otherwise they are None.
    """
    about = {"items": len(clips), "classes": getattr(clips, "label_names", None) if classes else None, "digest": None}
    if isinstance(clips, FileClips):
        rows = clips.rows
        labeled = label_info(rows)[0] is not None
        columns = [arrow_column(rows, name) for name in ("start", "end") if name in rows.column_names]
        arrays = [column.to_numpy(zero_copy_only=False).astype(np.float64) for column in columns]
        arrays += [np.array(clips.pairs or [], np.int64)]
        arrays += label_arrays(rows) if labeled else []
        about["digest"] = _digest(arrow_column(rows, "path"), arrays)
    elif isinstance(clips, StillClips):
        arrays = [clips.rows.num_boxes(), np.asarray(clips.starts)]
        about["digest"] = _digest(clips.rows.names(), arrays)
    return about


def _digest(paths: Any, arrays: list[np.ndarray]) -> str:
    found = hashlib.sha256()
    for part in parts_of(paths):
        found.update("\n".join(map(folder_and_file, part)).encode("utf-8", "surrogateescape") + b"\n")
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


__all__ = ["contents_of"]
