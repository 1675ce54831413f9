"""Prepared clips as training reads them: only the frames and seconds of a window, from the index's places."""

import io
import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import numpy as np
from PIL import Image

from deepavfusion.processors import MediaError, MediaInfo
from deepavfusion.processors.media_deepavfusion import Clip
from deepavfusion.processors.recordings_deepavfusion import FrameReader
from deepavfusion.processors.timestamps_deepavfusion import window_times
from deepavfusion_cli.early.data import SHARDS, missing_shards
from deepavfusion_cli.errors import cause
from deepavfusion_cli.values import kind_of

from ..augmentation import SMALLEST_CROP
from ..frames import spread_windows
from .audio import AUDIO_FORMATS
from .downloads import local_copy
from .encoding import clip_info, nearest_frames, row_array
from .members import Place, ShardFiles
from .video import VIDEO_FORMATS

_MARGIN = 1.2  # size of a crop of a reduced frame, relative to that of the model's input
INDEX, ABOUT = "index.arrow", SHARDS
VERSION = 2
AGAIN = "prepare the data set again, in another folder"
_VALUES = {"kind": ("videos", "masks", "boxes"), "audio": tuple(AUDIO_FORMATS), "video": tuple(VIDEO_FORMATS)}
_FIELDS = dict.fromkeys(("data", *_VALUES), str)
_FIELDS |= {"tasks": list, "options": dict, "splits": dict, "sampling_rate": int}
_FIELDS_OF: dict[str, dict] = {"masks": {"classes": list | NoneType}, "boxes": {"required_boxes": int}}


def read_about(root: str, cache: str | None = None) -> dict[str, Any]:
    """Read what a prepared data set says of itself.

    Raises:
        FileNotFoundError: There is none, or its preparation is not finished.
        ValueError: It is damaged, or was made by another version of this package.
    """
    try:
        file = local_copy(f"{root}/{ABOUT}", cache)
        about = read_json(file, {"version": int}, AGAIN, name=f"{root}/{ABOUT}")
        if about["version"] != VERSION:
            expected = f"expected a prepared data set of version {VERSION}"
            raise ValueError(f"{root}/{ABOUT}: {expected}, got version {about['version']}; {AGAIN}.")
        check_fields(about, _FIELDS, AGAIN, name=f"{root}/{ABOUT}")
        check_fields(about, _FIELDS_OF.get(about["kind"], {}), AGAIN, name=f"{root}/{ABOUT}")
    except FileNotFoundError:
        raise FileNotFoundError(missing_shards(root)) from None
    for field, values in _VALUES.items():
        if about[field] not in values:
            expected = f"expected {field} {' or '.join(map(json.dumps, values))}"
            raise ValueError(f"{root}/{ABOUT}: {expected}, got {json.dumps(about[field])}; {AGAIN}.")
    return about


def read_json(file: str | Path, fields: dict[str, type | UnionType], advice: str, name: str = "") -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        file: The file.
        fields: Fields that it must have, and their types.
        advice: What to do if it is damaged.
        name: How messages call the file; by default by its path.

    Raises:
        ValueError: It is not a JSON object, or lacks a field.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name or file}: expected a JSON object, but {cause(error, file)}; {advice}.") from error
    check_fields(found, fields, advice, name or str(file))
    return found


def check_fields(found: Any, fields: dict[str, type | UnionType], advice: str, name: str) -> None:
    """Check the fields of a JSON object that was read; see `read_json`.

    Raises:
        ValueError: It is something else, or lacks a field.
    """
    expected = f"{name}: expected a JSON object with {', '.join(fields)}"
    if not isinstance(found, dict):
        raise ValueError(f"{expected}, got {kind_of(found)}; {advice}.")
    for field, kind in fields.items():
        if field not in found or not isinstance(found[field], kind):
            reason = f"{field} is {json.dumps(found[field])[:40]}" if field in found else f"it has no {field}"
            raise ValueError(f"{expected}, but {reason}; {advice}.")


def place_of(row: dict, offset: str, ends: str, number: int) -> Place:
    """The place of one of the images that follow each other, given the columns of their offset and ends."""
    bounds = row_array(row, ends)
    start = int(bounds[number - 1]) if number else 0
    return Place(row[offset] + start, int(bounds[number]) - start)


class ShardReader:
    """Decodes windows of prepared clips, as `load_clip` does those of files.

    Args:
        root: Folder of the data set, or its address for fsspec.
        cache: Folder for downloaded files.
        size: (height, width) in pixels to which `ClipAugmentation` resizes crops: JPEG files are decoded at a half,
            quarter or eighth of their size if the smallest crop is then still 1.2 times as large. None decodes them at
            theirs.
        limit: Largest size of the folder of downloaded tar files in GB; see `local_copy`.
    """

    def __init__(
        self,
        root: str,
        cache: str | None = None,
        size: tuple[int, int] | None = None,
        limit: float | None = None,
    ):
        self.files, self.size, about = ShardFiles(root, cache, limit), size, read_about(root, cache)
        self.rate, self.audio, self.video = about["sampling_rate"], AUDIO_FORMATS[about["audio"]], about["video"]

    def info(self, row: dict) -> MediaInfo:
        """Streams and spans of a clip, in seconds of its source."""
        return clip_info(row)

    def load(self, row: dict, window, num_frames: int, seconds: float) -> Clip:
        """Decode a window of a clip.

        Args:
            row: Row of the index.
            window: Timestamp, function of `MediaInfo`, or None, as for `load_clip`; in seconds of the source.
            num_frames: See `load_clip`; the frames are the stored ones closest to those times.
            seconds: Length of the window.

        Raises:
            MediaError: The clip's members cannot be read, or the timestamp lies outside of it.
        """
        info = clip_info(row)
        timestamp, frame_time = self._timestamps(row, info, window)
        begin, times = window_times(info.start, info.end, timestamp, num_frames, seconds)
        if num_frames == 1 and frame_time is not None:
            times = [frame_time]
        frames = self._stored_frames(row, times) if self.video == "jpeg" else self._video_frames(row, times)
        return Clip(np.stack(frames), self._waveform(row, begin, seconds), self.rate, timestamp, row["path"])

    def load_windows(self, row: dict, num_windows: int, num_frames: int, seconds: float) -> Iterator[Clip]:
        """Decode `num_windows` windows that are spread over a clip, each as `load` does; see `FileReader`."""
        for time in spread_windows(row, clip_info(row).span, num_windows, seconds):
            yield self.load(row, time, num_frames, seconds)

    def frame(self, row: dict, number: int) -> np.ndarray:
        """Decode the stored JPEG file of a number, (H, W, 3) uint8.

        Raises:
            MediaError: It cannot be read.
        """
        return self._frame(row, place_of(row, "video_offset", "frame_ends", number)).copy()

    def audio_of(self, row: dict, window, seconds: float) -> np.ndarray:
        """Decode the audio of a window of a clip, (1, samples) float32; see `load`."""
        info = clip_info(row)
        timestamp, _ = self._timestamps(row, info, window)
        return self._waveform(row, window_times(info.start, info.end, timestamp, 1, seconds)[0], seconds)

    def _timestamps(self, row: dict, info: MediaInfo, window) -> tuple[float, float | None]:
        """Timestamps of a window's middle and, where it names one, of a frame."""
        timestamp, frame_time = sum(info.span) / 2 if window is None else window, None
        if callable(window):
            timestamp, frame_time = window(info)
        if not info.start - 0.05 <= timestamp <= info.end + 0.05:
            expected = f"a timestamp within {info.start:.2f} to {info.end:.2f} s"
            raise MediaError(f"{row['path']}: expected {expected}, but got {timestamp:.2f} s.")
        return timestamp, frame_time

    def _stored_frames(self, row: dict, times: list[float]) -> list[np.ndarray]:
        return [
            self._frame(row, Place(row["video_offset"] + offset, size)) for offset, size in nearest_frames(row, times)
        ]

    def _video_frames(self, row: dict, times: list[float]) -> list[np.ndarray]:
        file = self.files.open(row["shard"], Place(row["video_offset"], int(row_array(row, "frame_ends")[-1])))
        start = row_array(row, "frame_times")[0]
        try:
            with closing(FrameReader.of(file)) as reader:
                return [reader.at(max(float(time - start), 0.0)) for time in times]
        except MediaError as error:
            raise MediaError(f"{self._where(row, 'an MP4 file')}, but {error}") from error

    def _waveform(self, row: dict, begin: float, seconds: float) -> np.ndarray:
        """The part (1, samples) float32 of a window that has audio."""
        start, end = row["audio_start"], row["audio_end"]
        first = max(round((begin - start) * self.rate), 0)
        last = min(round((begin + seconds - start) * self.rate), round((end - start) * self.rate))
        if last <= first:
            raise MediaError(f"{row['path']}: expected audio from {begin:.2f} s, but it has none there.")

        def read(place: int, size: int) -> bytes:
            return self.files.read(row["shard"], Place(row["audio_offset"] + place, size))

        expected = self._where(row, f"audio from {begin:.2f} s")
        try:
            waveform = self.audio.read(read, row_array(row, "audio_ends"), first, last, self.rate)
        except MediaError:
            raise
        except Exception as error:  # PyAV and FFmpeg raise a dozen kinds
            raise MediaError(f"{expected}, but {error}.") from error
        if len(waveform) < last - first:
            raise MediaError(f"{expected}, but it is damaged.")
        return waveform[None]

    def _where(self, row: dict, expected: str) -> str:
        return f"{row['path']}: expected {expected} in {self.files.root}/shards/{row['shard']}"

    def _frame(self, row: dict, place: Place) -> np.ndarray:
        content = self.files.read(row["shard"], place)
        try:
            with Image.open(io.BytesIO(content)) as image:
                if self.size is not None:
                    sides = [own / needed for own, needed in zip((image.height, image.width), self.size, strict=True)]
                    scale = min(1.0, _MARGIN / min(math.sqrt(SMALLEST_CROP * math.prod(sides)), *sides))
                    image.draft("RGB", (int(image.width * scale), int(image.height * scale)))
                return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error ...
            raise MediaError(f"{self._where(row, 'a JPEG file')}, but {error}.") from error


__all__ = [
    "ABOUT",
    "AGAIN",
    "INDEX",
    "VERSION",
    "ShardReader",
    "place_of",
    "read_about",
    "read_json",
]
