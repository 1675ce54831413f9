"""Films of maps over the frames of a video: maps at regular timestamps, interpolated or held in between."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion.processors.recordings_deepavfusion import Recording

from ..drawing import resized
from ..jobs.progress import Progress
from .parts import FilmFrame, FilmParts


@dataclass(frozen=True)
class Overlay:
    """How the results of a pipeline are drawn and noted.

    Attributes:
        map_of: Function of a result that returns the map to draw, (H, W).
        draw: Function of a frame (h, w, 3) uint8 and a map that returns what is shown, uint8.
        describe: Function of a result that returns what is noted of it, as JSON.
        interpolated: Whether maps are interpolated linearly between their timestamps; else each is held for as long as
            its timestamp is the nearest.
        options: Parameters of the pipeline.
    """

    map_of: Callable[[dict[str, Any]], np.ndarray]
    draw: Callable[[np.ndarray, np.ndarray], np.ndarray]
    describe: Callable[[dict[str, Any]], dict[str, Any]]
    interpolated: bool
    options: dict[str, Any]


class MapTrack:
    """Maps at ascending timestamps, of which no more than the two around a time are held.

    Args:
        maps: Pairs of timestamp (s) and map (H, W).
        interpolated: See `Overlay`.
    """

    def __init__(self, maps: Iterator[tuple[float, np.ndarray]], interpolated: bool):
        self._maps, self._interpolated = maps, interpolated
        self._before = self._after = None

    def at(self, time: float) -> np.ndarray:
        """The map at a time, which must not be before the last one; at the ends of the track, the map there."""
        if self._before is None:
            self._before = self._after = next(self._maps)
        while self._after[0] < time and (following := next(self._maps, None)) is not None:
            self._before, self._after = self._after, following
        (first, low), (last, high) = self._before, self._after
        weight = min(max((time - first) / (last - first), 0.0), 1.0) if last > first else 1.0
        if not self._interpolated or low.shape != high.shape:
            return low if weight < 0.5 else high
        return (1 - weight) * low + weight * high


def small_map(values: np.ndarray, short_side: int, smooth: bool) -> np.ndarray:
    """Reduce a map (H, W) to at most `short_side` pixels at its short side; see `resized`. Its dtype is kept."""
    scale = min(1.0, short_side / min(values.shape))
    height, width = (max(1, round(side * scale)) for side in values.shape)
    return values if scale == 1.0 else resized(values, height, width, smooth).astype(values.dtype)


def seen_by(processor: Any, height: int, width: int) -> np.ndarray:
    """What a model sees of a frame, (height, width) bool, as its processor fits the frame to the model's input."""
    seen = np.zeros((height, width), dtype=bool)
    for region in processor.visual_processor.regions(height, width):
        top, left, bottom, right = region.box
        seen[max(top, 0) : bottom, max(left, 0) : right] = True
    return seen


def map_timestamps(start: float, end: float, rate: float) -> list[float]:
    """Timestamps of the maps of a film: the middles of equal parts of it, about `rate` of them a second."""
    count = max(1, round((end - start) * rate))
    return [start + (k + 0.5) * (end - start) / count for k in range(count)]


def write_map_film(
    pipeline: DeepAVFusionPipeline,
    file: str,
    name: str,
    folder: Path,
    target: str,
    overlay: Overlay,
    rate: float,
    batch_size: int,
) -> dict[str, Any]:
    """Write the film of a video with the maps of a pipeline over its frames, and with its audio.

    Args:
        pipeline: The pipeline.
        file: Path of the video.
        name: Name for the progress.
        folder: Folder of the draft, in which the film is made.
        target: Name of the film.
        overlay: How maps are drawn.
        rate: Maps a second, at most 10, the least number of frames a second of a film.
        batch_size: Windows per forward pass.

    Returns:
        What is to be known of the film, as JSON: `film`, `start` and `end` in seconds from the start of the file, and
        `maps`, with a timestamp (s) each.
    """
    film = FilmParts(folder, file)
    timestamps = map_timestamps(film.start, film.start + film.seconds, rate)
    known = {entry["timestamp"] for part in film.notes() for entry in part}
    first = film.times(film.done)[0] if film.done < film.count else film.end
    # From the map before the first frame that is missing; batches are the same wherever the film starts.
    begin = max(sum(time < first for time in timestamps) - 1, 0) // batch_size * batch_size
    noted: list[dict[str, Any]] = []

    def maps() -> Iterator[tuple[float, np.ndarray]]:
        windows = RecordingWindows(film.recording, timestamps[begin:], pipeline.processor)
        results = pipeline(windows, batch_size=batch_size, **overlay.options)  # no more than a batch is held
        for timestamp, entry in zip(timestamps[begin:], results, strict=True):
            if timestamp not in known:
                noted.append({"timestamp": timestamp, **overlay.describe(entry)})
            yield timestamp, overlay.map_of(entry)

    track = MapTrack(reading := maps(), overlay.interpolated)

    def draw(shown: FilmFrame) -> np.ndarray:
        return overlay.draw(shown.frame, track.at(shown.time))

    def notes() -> list[dict[str, Any]]:
        found = list(noted)
        noted.clear()
        return found

    with (
        contextlib.closing(reading),
        Progress(f"film {name}", film.seconds, "s", done=film.seconds_done) as progress,
    ):
        film.write(draw, notes, progress.update)
    if not (folder / target).exists():
        with Progress(f"join {name}", film.seconds, "s") as progress:
            film.join(folder / target, advance=progress.update)
    about = {"film": target, "start": film.start, "end": film.start + film.seconds}
    return about | {"maps": [entry for part in film.notes() for entry in part]}


class RecordingWindows(IterableDataset):
    """Windows of a video, as inputs of a pipeline: a data set, for transformers cannot close generators.

    Args:
        recording: The video.
        timestamps: Middles of the windows in seconds, ascending.
        processor: Processor of the pipeline.
    """

    def __init__(self, recording: Recording, timestamps: list[float], processor: Any):
        self.recording, self.timestamps, self.processor = recording, timestamps, processor

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seconds = self.processor.feature_extractor.seconds
        for clip in self.recording.windows(self.timestamps, self.processor.num_frames, seconds):
            audio = {} if clip.waveform is None else {"audio": clip.waveform, "sampling_rate": clip.sampling_rate}
            yield {"image": clip.frames, **audio}


__all__ = ["MapTrack", "Overlay", "RecordingWindows", "map_timestamps", "seen_by", "small_map", "write_map_film"]
