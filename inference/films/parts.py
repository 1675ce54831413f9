"""Films in the making: parts of half a minute in the folder of a draft, each of which can be watched and is kept."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from deepavfusion.processors.recordings_deepavfusion import Recording

from ..files import write_atomically, writing
from .encoding import SHORT_SIDE, FilmWriter, few_channels, film_rate, join, reduced

_SECONDS = 30  # of a part
PART_FILE = re.compile(r"film-\d{5,}\.(mp4|json)")


class FilmFrame(NamedTuple):
    """A frame of a film.

    Attributes:
        time: Time in seconds from the start of the file.
        frame: (H, W, 3) uint8, as it is shown, at most `SHORT_SIDE` pixels at its short side.
    """

    time: float
    frame: np.ndarray


class FilmParts:
    """The film of a video, in parts that are written one after the other into a folder.

    A part counts once its notes are there, which are written last: what was interrupted continues after the last part
    that counts, with the same frames.

    Args:
        folder: Folder that exists.
        path: Path of the video.

    Raises:
        MediaError: If the file cannot be read.
    """

    def __init__(self, folder: Path, path: str):
        self.folder = folder
        self.recording = Recording(path, require="any", exact=True)
        self.start, self.end = self.recording.info.start, self.recording.info.end
        reader = self.recording.frames()
        try:
            self._size = reduced(reader.at(self.start), SHORT_SIDE, even=True).size
            self.rate = film_rate(reader.rate)
        finally:
            reader.close()
        self.frames = max(1, int((self.end - self.start) * self.rate + 1e-6))
        self.frames_of_part = round(_SECONDS * self.rate)
        self.count = -(-self.frames // self.frames_of_part)

    @property
    def seconds(self) -> float:
        """Length of the film."""
        return float(self.frames / self.rate)

    @property
    def done(self) -> int:
        """Number of parts that count."""
        return next(
            (part for part in range(self.count) if not (self._notes(part).is_file() and self._film(part).is_file())),
            self.count,
        )

    @property
    def seconds_done(self) -> float:
        """Length of the parts that count."""
        return min(self.done * self.frames_of_part / float(self.rate), self.seconds)

    def times(self, part: int) -> list[float]:
        """Times of the frames of a part, in seconds from the start of the file: the middles of their display."""
        first = part * self.frames_of_part
        last = min(first + self.frames_of_part, self.frames)
        return [self.start + float((k + Fraction(1, 2)) / self.rate) for k in range(first, last)]

    def write(
        self,
        draw: Callable[[FilmFrame], np.ndarray] = lambda shown: shown.frame,
        notes: Callable[[], Any] = lambda: None,
        advance: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        """Write the parts that are missing.

        Args:
            draw: Function of each frame in turn that returns what is shown, (H, W, 3) uint8 of one size.
            notes: Function that is called after each part, and returns what is to be known of it, as JSON.
            advance: Called with the seconds that have been written since the last call.
        """
        reader = self.recording.frames()
        try:
            for part in range(self.done, self.count):
                with writing(self._film(part)) as draft, FilmWriter(draft.name, self.rate) as film:
                    for time in self.times(part):
                        film.add(draw(FilmFrame(time, self._fitted(reader.at(time)))))
                        advance(float(1 / self.rate))
                write_atomically(self._notes(part), json.dumps(notes()))
        finally:
            reader.close()

    def notes(self) -> Iterator[Any]:
        """Yield the notes of each part that counts."""
        for part in range(self.done):
            yield json.loads(self._notes(part).read_text(encoding="utf-8"))

    def join(
        self,
        target: Path,
        audio: Iterable[tuple[int, np.ndarray]] | None = None,
        advance: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        """Make a film of all parts and of audio.

        Args:
            target: File to write.
            audio: Sampling rate in Hz and samples (channels, n), part by part, which start with the audio of the file;
                by default those of the file, if it has any.
            advance: Called with the seconds that have been written since the last call.
        """
        info = self.recording.info
        if audio is None and info.has_audio:
            audio = few_channels(self.recording.audio())
        start = info.audio_span[0] - self.start if info.audio_span else 0.0
        counts = [len(self.times(part)) for part in range(self.count)]
        join(target, [self._film(part) for part in range(self.count)], self.rate, counts, audio, start, advance)

    def _film(self, part: int) -> Path:
        return self.folder / f"film-{part:05d}.mp4"

    def _notes(self, part: int) -> Path:
        return self.folder / f"film-{part:05d}.json"

    def _fitted(self, frame: np.ndarray) -> np.ndarray:
        """Reduce a frame to the size of the film's first."""
        image = reduced(frame, SHORT_SIDE, even=True)
        return np.asarray(image if image.size == self._size else image.resize(self._size, Image.Resampling.BICUBIC))


__all__ = ["PART_FILE", "FilmFrame", "FilmParts"]
