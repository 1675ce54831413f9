"""What is found of each clip of a data set: whether it can be read, what it lacks, how long it is."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import BatchSampler, Dataset, SequentialSampler

from deepavfusion.processors import MediaError
from deepavfusion_cli.errors import DATA_ADVICE

from ..clips import BrokenClip, ClipDataset
from ..files import FileClips
from ..loading.loaders import ClipLoader
from ..stills import StillClips

_HEADERS = 8  # headers of files that are read at a time


class Finding(NamedTuple):
    """What was found of a clip."""

    index: int
    path: str
    reason: str | None = None
    """Why it cannot be read, or None."""
    lacks: str | None = None
    """Stream that its file does not have: "audio" or "images"."""
    seconds: float | None = None
    """Length of the part that images and audio cover and that is annotated; None for frames with masks or boxes."""
    size: int = 0
    """Size of its file, or of its image, in bytes."""


class _Inspector(Dataset):
    """Reads clips as training does, of data sets of videos a window in the middle."""

    def __init__(self, clips: ClipDataset, decode: bool):
        self.clips, self.decode = clips, decode

    def __len__(self) -> int:
        return len(self.clips)

    def describe(self, i: int) -> str:
        return self.clips.describe(i)

    def collate(self, findings: list[Finding]) -> list[Finding]:
        return findings

    def __getitems__(self, indices: list[int]) -> list[Finding]:
        return [self[i] for i in indices]

    def __getitem__(self, i: int) -> Finding:
        clips, path = self.clips, self.clips.describe(i)
        if not isinstance(clips, FileClips):
            sample = clips[i]
            size = _size(clips.frame(i).image) if isinstance(clips, StillClips) else 0
            return Finding(i, path, sample.reason if isinstance(sample, BrokenClip) else None, size=size)
        row, info, reason, lacks, seconds = clips.rows[i], None, None, None, None
        try:
            info = clips.reader.info(row)
            if self.decode:
                clips.load(row, i, 0)
        except MediaError as error:
            reason = str(error)
        if info is not None:
            lacks = "audio" if not info.has_audio else None if info.has_image else "images"
            start, end = info.span
            stop = end if row.get("end") is None else min(end, row["end"])
            seconds = max(0.0, stop - max(start, row.get("start") or 0.0))
        if lacks and not reason:
            reason = f"{path}: expected images and audio, but it has no {lacks}."
        return Finding(i, path, reason, lacks, seconds, _size(path))


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


def inspect_clips(clips: ClipDataset, num_workers: int, decode: bool = True) -> Iterator[list[Finding]]:
    """Inspect all clips of a data set, in order, a few at a time.

    Args:
        clips: Data set without augmentation.
        num_workers: Worker processes; 0 reads in this process.
        decode: Whether to decode a window of each video. Otherwise only the headers of the files are read.

    Raises:
        DeadWorkerError: A worker ended; the message names the clips that it held.
    """
    inspector = _Inspector(clips, decode)
    batches = BatchSampler(SequentialSampler(inspector), 1 if decode else _HEADERS, drop_last=False)
    loader = ClipLoader(inspector, inspector, batch_sampler=batches, num_workers=num_workers, advice=DATA_ADVICE)
    yield from loader  # which names clips for as long as it exists


__all__ = ["Finding", "inspect_clips"]
