"""Separation of recordings of any length: read, separated and given out in parts, in memory that does not grow."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from .chunking_deepavfusion import SeparationStream, WindowCutter, consistent_masks, window_frames
from .recordings_deepavfusion import FrameReader, Recording, pair_frames
from .sample_streams_deepavfusion import ResamplingStream, SampleBuffer

Item = TypeVar("Item")


class SeparatedPart(NamedTuple):
    """A part of a separated recording, at its sampling rate.

    Attributes:
        index: Number of the part.
        start: First sample of the part.
        mixture: (n,) float32, the mean over channels.
        sources: (sources, n) float32.
    """

    index: int
    start: int
    mixture: np.ndarray
    sources: np.ndarray


class RecordingSeparation:
    """Separation of the audio of a file by a model, in parts.

    Parts do not depend on where the separation starts: what was interrupted is continued with the same samples.

    Args:
        recording: The recording.
        processor: Processor of the model.
        forward: Function of `pixel_values` and `input_features`, a row for each window, source and tile, that returns
            mask logits (rows, 1, mels, time steps); those of tiles are averaged.
        targets: Pixel values (tiles, ...) of the frame of each source; None takes that in the middle of each window.
        overlap: Minimum fraction of a window that the next one overlaps, in [0, 1).
        consistency: Whether the masks of several sources are divided by their sum.
        batch_size: Rows per call of `forward`.
    """

    def __init__(
        self,
        recording: Recording,
        processor,
        forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        targets: list[torch.Tensor] | None = None,
        overlap: float = 0.5,
        consistency: bool = False,
        batch_size: int = 8,
    ):
        self.recording, self.processor, self.forward, self.targets = recording, processor, forward, targets
        self.overlap, self.consistency, self.batch_size = overlap, consistency, batch_size
        self.extractor = processor.feature_extractor
        # Windows are grouped by their numbers, so that they meet the same others wherever the separation starts.
        self.group = max(batch_size // (1 if targets is None else sum(len(tiles) for tiles in targets)), 1)
        window_frames(self.extractor, 0, overlap)  # raises for an overlap that is invalid
        if consistency:
            consistent_masks(torch.zeros(1 if targets is None else len(targets), 1))  # and here for a single source
        if targets is None:
            recording.frames()  # and for a file without images
        self.rate: int | None = None

    def parts(self, skip: int = 0) -> Iterator[SeparatedPart]:
        """Separate the recording.

        Args:
            skip: Number of parts that are left out at the beginning; the model does not run on their windows.

        Raises:
            MediaError: If the file cannot be read, or lacks the frames that are needed.
        """
        frames = self.recording.frames() if self.targets is None else None
        audio = self.recording.audio()
        self.rate, first = next(audio)
        self._place(self.rate, skip)
        self._mixture.append(_mono(first))
        windows = self._windows(first, audio)
        if frames is None:
            paired = ((window, None) for window in windows)
        else:
            paired = with_frames(self.recording, frames, self.processor, self._timed(windows))
        for _, group in groupby(paired, lambda pair: pair[0][0] // self.group):
            for start, logits in self._masks(list(group)):
                self._separated.add_window(logits, start)
            yield from self._resampled(self._separated.take(), finished=False)
        yield from self._resampled(self._separated.finish(), finished=True)

    def _place(self, rate: int, skip: int) -> None:
        """Create the streams, each from the first sample that the first part depends on."""
        extractor, model_rate = self.extractor, self.extractor.sampling_rate
        self._output = ResamplingStream(model_rate, rate, skip)
        block = SeparationStream.block_of(extractor, self._output.needs)
        self._separated = SeparationStream(extractor, block)
        hop = window_frames(extractor, 0, self.overlap)[0].step
        window = max((self._separated.first_frame - extractor.spectrogram_length) // hop + 1, 0)
        self._cutter = WindowCutter(extractor, self.overlap, window // self.group * self.group)
        needed = min(self._cutter.samples.start, self._separated.samples.start)
        self._input = ResamplingStream(rate, model_rate)
        self._input = ResamplingStream(rate, model_rate, self._input.before(needed))
        for buffer in (self._cutter.samples, self._separated.samples):
            buffer.begin_at(self._input.chunk * self._input.step)
        self._output.begin_at(self._separated.position)
        self._mixture = SampleBuffer(skip * self._output.step)
        self._emitted = self._mixture.start

    def _windows(self, first: np.ndarray, audio: Iterable) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield the windows of the recording, and pass its samples on."""

        def cut(chunks: Iterator[torch.Tensor], finished: bool):
            for chunk in chunks:
                self._cutter.samples.append(chunk)
                self._separated.samples.append(chunk)
                yield from self._cutter.take()
            if finished:
                yield from self._cutter.take(finished=True)

        yield from cut(self._input.push(_mono(first)), finished=False)
        for _, samples in audio:
            mono = _mono(samples)
            self._mixture.append(mono)
            yield from cut(self._input.push(mono), finished=False)
        yield from cut(self._input.finish(), finished=True)

    def _timed(self, windows: Iterable[tuple[int, int, torch.Tensor]]) -> Iterator[tuple]:
        """Add the time of its middle, in seconds from the file's start, to each window."""
        for index, start, samples in windows:
            end = min(start + self.extractor.num_samples, self._cutter.samples.end)
            yield (
                (index, start, samples),
                self.recording.start + (start + end) / 2 / self.extractor.sampling_rate,
            )

    def _masks(self, group: list[tuple]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the first sample and the mask logits (sources, mels, time steps) of each window of a group."""
        waveforms = [samples for (_, _, samples), _ in group]
        features = self.extractor(waveforms, sampling_rate=self.extractor.sampling_rate).input_features
        targets = [self.targets or [pixels] for _, pixels in group]
        count = len(targets[0])
        sources = [tiles for images in targets for tiles in images]
        tiles = torch.tensor([len(pixels) for pixels in sources])
        features = features.repeat_interleave(count, dim=0).repeat_interleave(tiles, dim=0)
        rows = zip(torch.cat(sources).split(self.batch_size), features.split(self.batch_size), strict=True)
        logits = torch.cat([self.forward(*row).float().cpu() for row in rows])[:, 0]
        logits = torch.stack([values.mean(0) for values in logits.split(tiles.tolist())])
        for ((_, start, _), _), masks in zip(group, logits.split(count), strict=True):
            yield start, consistent_masks(masks) if self.consistency else masks

    def _resampled(self, blocks: Iterator[torch.Tensor], finished: bool) -> Iterator[SeparatedPart]:
        """Yield the parts that blocks of separated samples complete; if it is finished, all that remain."""
        for block in blocks:
            for sources in self._output.push(block):
                yield self._part(sources)
        for sources in self._output.finish() if finished else ():
            # Rounding may have made the last one too long or short.
            end = self._mixture.end - self._emitted
            if end <= self._output.step:  # the last one
                sources = torch.nn.functional.pad(sources, (0, max(end - sources.shape[1], 0)))[:, :end]
            yield self._part(sources)

    def _part(self, sources: torch.Tensor) -> SeparatedPart:
        start, self._emitted = self._emitted, self._emitted + sources.shape[1]
        mixture = self._mixture.read(start, self._emitted).numpy().copy()
        self._mixture.drop(self._emitted)
        return SeparatedPart(self._output.chunk, start, mixture, sources.numpy())


def with_frames(
    recording: Recording, frames: FrameReader, processor, windows: Iterable[tuple[Item, float]]
) -> Iterator[tuple[Item, torch.Tensor]]:
    """Read the frames of overlapping windows in one pass.

    Args:
        recording: The recording.
        frames: Its frames.
        processor: Processor of the model.
        windows: Windows and their middles in seconds from the file's start, ascending.

    Yields:
        Each window, and its pixel values: (tiles, 3, height, width), or (tiles, num_frames, 3, height, width).
    """
    count, seconds = processor.num_frames, processor.feature_extractor.seconds

    def read(time: float) -> torch.Tensor:
        pixels = processor(images=[frames.at(time)]).pixel_values
        return pixels if count == 1 else pixels[:, 0]  # an image is a video of equal frames

    timed = ((window, recording.frame_times(time, count, seconds)) for window, time in windows)
    for window, pixels in pair_frames(timed, read):
        # Where the size changes within a window, frames with another number of tiles are replaced by the first.
        alike = [tiles if len(tiles) == len(pixels[0]) else pixels[0] for tiles in pixels]
        yield window, pixels[0] if count == 1 else torch.stack(alike, dim=1)


def _mono(samples: np.ndarray) -> torch.Tensor:
    """(n,) mean of (channels, n)."""
    return torch.from_numpy(samples).mean(0)


__all__ = ["RecordingSeparation", "SeparatedPart", "with_frames"]
