"""What the demo does with a video, without the page that shows it: films, a clicked thing, labels over time."""

import contextlib
import math
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from deepavfusion.processors import load_clip
from deepavfusion.processors.pipeline_base_deepavfusion import as_frame
from deepavfusion.processors.recordings_deepavfusion import Recording

from ..drawing import IGNORED, outline
from ..films.encoding import SHORT_SIDE, reduced
from ..films.maps import RecordingWindows, map_timestamps, small_map, write_map_film
from ..localize import heat_film
from ..media import wav
from ..segment import mask_film
from .models import DemoModel

Advance = Callable[[float, str], object]  # called with the fraction that is done, and what is being done
_MAPS_PER_SECOND = 2.0
_BATCH = 4  # windows per forward pass: progress is shown after each
_LABELS = 6
_MOST_WINDOWS = 24
_SIDE = 0.4  # of the square around a click where nothing was found, relative to the short side of the frame
_MARGIN = 1.25  # of the square around a thing, relative to its longer side


@dataclass(frozen=True)
class Thing:
    """A thing in a frame that was clicked.

    Attributes:
        sounding: Whether it sounds; None if no model says so.
        label: What it is; None if no model says so.
        mask: (H, W) bool, its pixels; where nothing was found, those of a square around the click.
        box: The square that stands for it, (left, top, right, bottom) in pixels of the frame.
        score: Probability that anything in the frame sounds; None if no model says so.
    """

    sounding: bool | None
    label: str | None
    mask: np.ndarray
    box: tuple[int, int, int, int]
    score: float | None = None


def frame_at(path: str, time: float) -> np.ndarray:
    """The frame (H, W, 3) uint8 of a video at a time in seconds, at most 360 pixels at its short side."""
    return np.asarray(reduced(as_frame(load_clip(path, time, require="image").frames), SHORT_SIDE))


def shown_frame(path: str, time: float) -> np.ndarray:
    """The frame of `frame_at`, to be clicked: several times as large if it is small, as the page enlarges no image."""
    frame = Image.fromarray(frame_at(path, time))
    times = math.ceil(SHORT_SIDE / min(frame.size))
    return np.asarray(frame.resize((frame.width * times, frame.height * times), Image.Resampling.BICUBIC))


@contextlib.contextmanager
def _reporting(pipeline, total: int, advance: Advance, text: str) -> Generator[None]:
    """Report the windows that a pipeline has processed, of a total."""
    done = 0

    def report(windows: int) -> None:
        nonlocal done
        done += windows
        advance(min(done / total, 1.0), text)

    advance(0.0, text)
    pipeline.progress = report
    try:
        yield
    finally:
        pipeline.progress = None


def map_film(model: DemoModel, path: str, folder: Path, advance: Advance) -> tuple[Path, list[dict[str, Any]]]:
    """Write the film of what sounds: heat maps of a localization model, or masks of a segmentation model.

    Args:
        model: The model.
        path: The video.
        folder: Folder for the film.
        advance: Called with the progress.

    Returns:
        The film, and what is noted of each map: `timestamp` (s), and `score` or `labels` (fractions of the area).

    Raises:
        MediaError: If the video cannot be read.
    """
    pipeline, localizes = model.pipeline, "localize" in model.abilities
    info = Recording(path, require="any", exact=True).info
    total = len(map_timestamps(info.start, info.end, _MAPS_PER_SECOND))
    overlay = heat_film(pipeline.processor) if localizes else mask_film(pipeline.model.config.num_labels)
    draft, name = folder / "draft", f"{Path(path).stem[:60]}_{'heat' if localizes else 'overlay'}.mp4"
    draft.mkdir()
    with _reporting(pipeline, total, advance, "Mapping what sounds"):
        about = write_map_film(pipeline, path, Path(path).stem, draft, name, overlay, _MAPS_PER_SECOND, _BATCH)
    (draft / name).replace(folder / name)
    shutil.rmtree(draft)
    return folder / name, about["maps"]


def thing_at(model: DemoModel | None, path: str, time: float, place: tuple[float, float]) -> Thing:
    """Find the thing at a place of a frame.

    Args:
        model: Localization or segmentation model; None takes a square around the place, of which nothing is known.
        path: The video.
        time: Time of the frame in seconds.
        place: Fractions of the frame's width and height, from its left upper corner.

    Raises:
        MediaError: If the video cannot be read.
    """
    entry = None if model is None else model.pipeline(path, timestamps=[time])[0]
    frame = frame_at(path, time) if entry is None else np.asarray(entry["frame"])
    height, width = frame.shape[:2]
    x, y = min(int(place[0] * width), width - 1), min(int(place[1] * height), height - 1)
    square = _square((x, y, x + 1, y + 1), height, width, _SIDE * min(height, width))
    around = np.zeros((height, width), dtype=bool)
    around[square[1] : square[3], square[0] : square[2]] = True
    if entry is None:
        return Thing(None, None, around, square)
    mask, labels = entry["mask"], entry.get("labels")
    value, score = mask[y, x], entry.get("score")
    if labels is not None and value == IGNORED:
        return Thing(None, None, around, square)
    name = None if labels is None else labels.get(int(value))
    if not value:
        return Thing(False, name if len(labels or ()) and name != "background" else None, around, square, score)
    found = component(mask == value, y, x)
    rows, columns = np.nonzero(found.any(1))[0], np.nonzero(found.any(0))[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    side = _MARGIN * max(box[2] - box[0], box[3] - box[1])
    return Thing(True, None if name == "sounding" else name, found, _square(box, height, width, side), score)


def component(mask: np.ndarray, row: int, column: int) -> np.ndarray:
    """The connected part (H, W) of a mask (H, W) bool that holds a pixel of it; diagonals connect."""
    scale = min(1.0, SHORT_SIDE / 2 / min(mask.shape))  # a large mask is followed at a lower resolution
    small = small_map(mask.astype(np.float32), SHORT_SIDE // 2, smooth=False) > 0.5
    allowed = torch.from_numpy(small)[None, None]
    found = torch.zeros_like(allowed)
    start = (min(int(row * scale), small.shape[0] - 1), min(int(column * scale), small.shape[1] - 1))
    found[0, 0, start[0], start[1]] = True
    count = 0
    while (grown := int(found.sum())) > count:
        count = grown
        found = (F.max_pool2d(found.float(), 3, stride=1, padding=1) > 0) & (allowed | found)
    large = F.interpolate(found.float(), size=mask.shape, mode="nearest-exact")[0, 0].numpy() > 0
    return (large & mask) if (large & mask).any() else large


def _square(box: tuple[int, int, int, int], height: int, width: int, side: float) -> tuple[int, int, int, int]:
    """The square of a side around a box, moved into the frame, and not larger than that."""
    size = max(1, min(round(side), height, width))
    left, top = ((box[k] + box[k + 2] - size) / 2 for k in (0, 1))
    left, top = round(min(max(left, 0), width - size)), round(min(max(top, 0), height - size))
    return left, top, left + size, top + size


def outlined(path: str, time: float, thing: Thing) -> np.ndarray:
    """The frame with the outline of a thing, as large as `shown_frame` gives it."""
    frame = shown_frame(path, time)
    height, width = frame.shape[:2]
    mask = F.interpolate(torch.from_numpy(thing.mask).float()[None, None], size=(height, width), mode="nearest-exact")
    return outline(frame, mask[0, 0].numpy() > 0.5)


def cut_out(path: str, time: float, thing: Thing) -> Image.Image:
    """A thing in its place and size, at the resolution of the video; all outside of its square has the mean color.

    Of wide and upright frames, the square of their short side around the thing: models may see no more than that.
    """
    frame = as_frame(load_clip(path, time, require="image").frames)
    height, width = frame.shape[:2]
    left, top, right, bottom = (round(edge * height / thing.mask.shape[0]) for edge in thing.box)
    alone = np.empty_like(frame)
    alone[:] = frame.mean((0, 1))
    alone[top:bottom, left:right] = frame[top:bottom, left:right]
    x1, y1, x2, y2 = _square((left, top, right, bottom), height, width, min(height, width))
    return Image.fromarray(alone[y1:y2, x1:x2])


def separated(model: DemoModel, path: str, image: Image.Image, folder: Path, advance: Advance) -> Path:
    """Write the part of a recording's audio that an image belongs to, as a wav file.

    Args:
        model: Separation model.
        path: The recording.
        image: The image of the source.
        folder: Folder for the file.
        advance: Called with the progress.

    Raises:
        MediaError: If the file cannot be read, or has no audio.
    """
    separation = model.pipeline.stream(path, frames=[image], batch_size=_BATCH)
    seconds, parts = max(separation.recording.seconds, 1e-6), []
    advance(0.0, "Separating")
    for part in separation.parts():
        parts.append(part.sources[0])
        advance(min((part.start + len(part.mixture)) / separation.rate / seconds, 1.0), "Separating")
    waveform = np.concatenate(parts)
    waveform = waveform / max(1.0, float(np.abs(waveform).max()))  # nothing is clipped
    target = folder / f"{Path(path).stem[:60]}_alone.wav"
    target.write_bytes(wav(waveform, separation.rate))
    return target


def labels_over_time(model: DemoModel, path: str, advance: Advance) -> tuple[list[float], dict[str, list[float]]]:
    """The likeliest labels of windows that follow each other by half their length, of at most 24.

    Args:
        model: Recognition model.
        path: The video.
        advance: Called with the progress.

    Returns:
        Middles of the windows in seconds, and the probabilities of the six likeliest labels in each of them.

    Raises:
        MediaError: If the video cannot be read.
    """
    pipeline, recording = model.pipeline, Recording(path, require="any", exact=True)
    start, end = recording.info.start, recording.info.end
    length = pipeline.processor.feature_extractor.seconds
    rate = min(2 / length, _MOST_WINDOWS / max(end - start, 1e-6))
    times = map_timestamps(start, end, rate)
    with _reporting(pipeline, len(times), advance, "Recognizing"):
        windows = RecordingWindows(recording, times, pipeline.processor)
        results = list(pipeline(windows, batch_size=_BATCH, top_k=None))
    scores = [{entry["label"]: entry["score"] for entry in result} for result in results]
    best = sorted(scores[0], key=lambda label: max(row[label] for row in scores), reverse=True)[:_LABELS]
    return times, {label: [row[label] for row in scores] for label in best}


__all__ = [
    "Advance",
    "Thing",
    "component",
    "cut_out",
    "frame_at",
    "labels_over_time",
    "map_film",
    "outlined",
    "separated",
    "shown_frame",
    "thing_at",
]
