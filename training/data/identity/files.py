"""The clips of a data set that a model is trained on."""

import numpy as np

from ..clips import ClipDataset
from ..files import FileClips
from ..frames import FileReader, StillFiles
from ..sets.groups import parts_of
from ..stills import StillClips
from .clips import ClipDigests, TrainingClips, file_sizes


def training_clips(clips: ClipDataset) -> TrainingClips:
    """The clips of a training set; none of data without files, such as scenes."""
    if isinstance(clips, FileClips):
        rows = clips.rows
        if (clips.windows > 1).any():  # a row for each window
            rows = rows.select(
                np.flatnonzero(np.diff(np.repeat(np.arange(len(clips.windows)), clips.windows), prepend=-1))
            )
        return TrainingClips(ClipDigests.of_rows(rows, stored=not isinstance(clips.reader, FileReader)))
    if isinstance(clips, StillClips):
        paths = [path for part in parts_of(clips.rows.groups("audio").names) for path in part]
        sizes = file_sizes(paths) if isinstance(clips.reader, StillFiles) else [None] * len(paths)
        return TrainingClips(ClipDigests.of(paths, sizes))
    return TrainingClips(ClipDigests.of([], []))


__all__ = ["training_clips"]
