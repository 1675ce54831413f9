"""Recordings of any length, each stream decoded once from start to end: parts of audio, and frames in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any, TypeVar

import numpy as np

from .audio_streams_deepavfusion import follow_audio
from .file_source_deepavfusion import FileSource
from .streams_deepavfusion import (
    Clip,
    best_stream,
    decode,
    file_start,
    if_in_time,
    seek,
    set_limits,
    steps_back,
    timed,
    upright,
)
from .timestamps_deepavfusion import window_times

_BEYOND = 1.0  # seconds beyond the stated end of a file up to which gaps in its audio are filled
Item = TypeVar("Item")


class Recording:
    """A media file that is read once, in memory that does not depend on its length.

    Args:
        path: Path, bytes, or a seekable binary file object; only from a path can audio and frames be read in turns.
        require: What the file must have: `"audio"`, or `"any"` stream.
        exact: Whether spans are those of all packets, which are read without being decoded, instead of the headers'.

    Attributes:
        info: Streams and spans of the file.

    Raises:
        MediaError: If the file cannot be read, or has no audio where it is required.
        TypeError: If `path` has an unsupported type.
    """

    def __init__(self, path, require: str = "audio", exact: bool = False):
        self._source = FileSource(path)
        self.info = self._source.probe(exact)
        if require == "audio" and not self.info.has_audio:
            raise self._source.error("audio", "it has none, only images")

    @property
    def moves(self) -> bool:
        """Whether the file is a video: it has frames, and is no image file."""
        return self.info.has_image and self._source.still is None

    @property
    def start(self) -> float:
        """Start of the audio in seconds from the file's start."""
        return self.info.audio_span[0]

    @property
    def seconds(self) -> float:
        """Length of the audio in seconds, as the headers state it."""
        return self.info.audio_span[1] - self.info.audio_span[0]

    def audio(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the sampling rate in Hz and samples (channels, samples) float32, about a second at a time.

        Gaps are silent, and damaged packets are skipped.

        Raises:
            MediaError: If no audio can be decoded, its samples are NaN or infinite, or their full scale is not 1.
        """
        count = 0
        with self._source.open("audio") as container:
            begin = self.info.start + file_start(container)
            end = self.info.end + file_start(container) + _BEYOND
            for rate, samples in follow_audio(decode(container, best_stream(container, "audio")), begin, end):
                self._source.check_samples(samples, rate, self.start + count / rate)
                count += samples.shape[1]
                yield rate, samples
        if not count:
            raise self._source.error("audio", "its audio cannot be decoded")

    def frames(self, advice: str = "pass images of the sources as frames") -> "FrameReader":
        """Return a reader of the frames.

        Args:
            advice: What to do if there are none, for the message; by default, as in separation.

        Raises:
            MediaError: If there are none.
        """
        if not self.info.has_image:
            raise self._source.error("images", f"it has audio only{advice and f': {advice}'}")
        return FrameReader(self._source)

    def windows(self, timestamps: Iterable[float], num_frames: int, seconds: float) -> Iterator[Clip]:
        """Yield the windows around ascending timestamps in seconds, each as `load_clip` decodes it.

        Each frame of the file is decoded at most once.

        Args:
            timestamps: Middles of the windows, within the file.
            num_frames: Frames of each window.
            seconds: Length of each window.

        Raises:
            MediaError: If there are no frames, or they cannot be decoded.
        """
        reader, audio = FrameReader.of(self._source.name), FileSource(self._source.name)

        def placed() -> Iterator[tuple[tuple[float, float], list[float]]]:
            for time in timestamps:
                begin, times = window_times(self.info.start, self.info.end, time, num_frames, seconds)
                yield (time, begin), times

        try:
            with audio.kept_open():
                for (time, begin), images in pair_frames(placed(), reader.at):
                    waveform, rate = audio.read_audio(begin, seconds) if self.info.has_audio else (None, None)
                    # Where the size changes within a window, frames of another size are replaced by the first.
                    alike = [image if image.shape == images[0].shape else images[0] for image in images]
                    yield Clip(np.stack(alike), waveform, rate, time, self._source.name)
        finally:
            reader.close()

    def frame_times(self, timestamp: float, num_frames: int, seconds: float) -> list[float]:
        """Times in seconds of the frames of a window; see `window_times`."""
        return window_times(self.info.start, self.info.end, timestamp, num_frames, seconds)[1]


class FrameReader:
    """Reads the frames at ascending times, decoding each frame of the file at most once.

    Attributes:
        rate: Frames per second of the file, as its headers state or suggest it; known once a frame has been read.
    """

    def __init__(self, source: FileSource):
        self._source, self._time, self.rate = source, 0.0, Fraction(25)
        self._images: Generator[np.ndarray] | None = None

    @classmethod
    def of(cls, path) -> "FrameReader":
        """Make a reader of a path, bytes, or seekable binary file object."""
        return cls(FileSource(path))

    def at(self, time: float) -> np.ndarray:
        """Return the frame (H, W, 3) uint8 that is shown at a time in seconds, which must not be before the last one.

        Before the first frame, that one is returned; after the last one, the last.

        Raises:
            MediaError: If no frame can be decoded.
        """
        self._time = time
        if self._images is None:
            self._images = self._decode()
        return next(self._images)

    def close(self) -> None:
        """Close the file. A decoder that is left to the garbage collector hangs a forked process that collects it."""
        if self._images is not None:
            self._images.close()

    def _decode(self) -> Generator[np.ndarray]:
        """Yield the frame at `_time`, which changes in between."""
        while self._source.animation is not None:
            yield self._source.read_frames([self._time])[0][0]
        first = self._time
        for back in steps_back(first):
            with self._source.open(f"images at {first:.2f} s") as container:
                stream, origin = best_stream(container, "video"), file_start(container)
                set_limits(stream)
                if back is not None and not seek(container, stream, first + origin - back):
                    continue
                frames, rate = decode(container, stream), stream.average_rate or stream.guessed_rate or self.rate
                self.rate = Fraction(rate.numerator, rate.denominator)  # PyAV 19 has numbers of its own kind
                ratio = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
                yield from self._shown(frames if back is None else if_in_time(frames, first + origin), origin, ratio)
        raise self._source.error("images", "its images cannot be decoded")

    def _shown(self, frames, origin: float, ratio: float) -> Iterator[np.ndarray]:
        before = None
        for time, frame in timed(frames):
            while time > self._time + origin + 1e-6:
                yield upright([frame if before is None else before], ratio)[0]
            before = frame
        while before is not None:
            yield upright([before], ratio)[0]


def pair_frames(
    windows: Iterable[tuple[Item, list[float]]], at: Callable[[float], Any]
) -> Iterator[tuple[Item, list[Any]]]:
    """Read the frames of overlapping windows in one pass.

    Args:
        windows: Windows and the ascending times of their frames, in the order of the first of these.
        at: Function that returns what is kept of the frame at a time; it is called with ascending times.

    Yields:
        Each window in turn, with the results of `at` for its times.
    """
    waiting: deque[tuple[Item, list[float], list[Any]]] = deque()
    wanted: list[tuple[float, int]] = []  # (time, number of the window)
    number = 0

    def read(until: float) -> Iterator[tuple[Item, list[Any]]]:
        while wanted and wanted[0][0] < until:
            time, window = heappop(wanted)
            waiting[window - number + len(waiting)][2].append(at(time))
        while waiting and len(waiting[0][1]) == len(waiting[0][2]):
            item, _, found = waiting.popleft()
            yield item, found

    for item, times in windows:
        yield from read(times[0])
        waiting.append((item, times, []))
        for time in times:
            heappush(wanted, (time, number))
        number += 1
    yield from read(float("inf"))


__all__ = ["FrameReader", "Recording", "pair_frames"]
