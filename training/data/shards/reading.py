"""Prepared clips as training reads them: only the frames and seconds of a window, from the index's places."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deepavfusion.processors import MediaError, MediaInfo
from deepavfusion.processors.media_deepavfusion import Clip
from deepavfusion.processors.streams_deepavfusion import window_times

from .encoding import clip_info, decode_flac, nearest_frames
from .members import Place, ShardFiles, local_copy

INDEX, ABOUT = "index.arrow", "dataset.json"
VERSION = 2


def read_about(root: str, cache: str | None = None) -> dict[str, Any]:
    """Read what a prepared data set says of itself.

    Raises:
        FileNotFoundError: There is none, or its preparation is not finished.
        ValueError: It was made by a later version of this package.
    """
    try:
        about = json.loads(Path(local_copy(f"{root}/{ABOUT}", cache)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        unfinished = Path(root, "parts").is_dir()
        hint = "its preparation is not finished: run the same `deepavfusion data prepare` again" if unfinished else None
        raise FileNotFoundError(
            f"Expected a prepared data set with {ABOUT} at {root}; {hint or '`deepavfusion data prepare` makes one'}."
        ) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{root}/{ABOUT}: expected JSON, got {error}.") from error
    if not isinstance(about, dict) or about.get("version") != VERSION:
        version = about.get("version") if isinstance(about, dict) else None
        raise ValueError(f"{root}/{ABOUT}: expected a prepared data set of version {VERSION}, got version {version}.")
    return about


def read_shards(root: str, cache: str | None = None):
    """The index of a prepared data set as a `datasets.Dataset`, mapped into memory and shared between processes.

    Raises:
        FileNotFoundError: See `read_about`; also if there is no index.
    """
    from datasets import Dataset

    read_about(root, cache)
    return Dataset.from_file(local_copy(f"{root}/{INDEX}", cache))


def rows_of_split(rows, split: str):
    """The rows of an index that are of a split, without reading those of the others."""
    from pyarrow import compute

    equal = compute.call_function("equal", [rows.data.column("split"), split])
    chosen = np.flatnonzero(equal.to_numpy(zero_copy_only=False))
    if len(chosen) and chosen[-1] - chosen[0] + 1 == len(chosen):
        return rows.select(range(chosen[0], chosen[-1] + 1))
    return rows.select(chosen)


def place_of(first: int, ends: list[int], number: int) -> Place:
    """The place of one of the images that follow each other from an offset on."""
    start = ends[number - 1] if number else 0
    return Place(first + start, ends[number] - start)


class ShardReader:
    """Decodes windows of prepared clips, as `load_clip` does those of files.

    Args:
        root: Folder of the data set, or its address for fsspec.
        cache: Folder for downloaded files.
        size: Smallest (height, width) in pixels that the model needs of a whole frame: JPEG files are decoded at a
            half, quarter or eighth of their size if that is not smaller. None decodes them at theirs.
    """

    def __init__(self, root: str, cache: str | None = None, size: tuple[int, int] | None = None):
        self.files, self.size = ShardFiles(root, cache), size
        self.rate = read_about(root, cache)["sampling_rate"]

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
        frames = [
            self._frame(row["shard"], Place(row["video_offset"] + offset, size), row["path"])
            for offset, size in nearest_frames(row, times)
        ]
        return Clip(np.stack(frames), self._audio(row, begin, seconds), self.rate, timestamp, row["path"])

    def frame(self, row: dict, number: int) -> np.ndarray:
        """Decode the stored frame of a number, (H, W, 3) uint8.

        Raises:
            MediaError: It cannot be read.
        """
        place = place_of(row["video_offset"], row["frame_ends"], number)
        return self._frame(row["shard"], place, row["path"]).copy()

    def audio(self, row: dict, window, seconds: float) -> np.ndarray:
        """Decode the audio of a window of a clip, (1, samples) float32; see `load`."""
        info = clip_info(row)
        timestamp, _ = self._timestamps(row, info, window)
        return self._audio(row, window_times(info.start, info.end, timestamp, 1, seconds)[0], seconds)

    def _timestamps(self, row: dict, info: MediaInfo, window) -> tuple[float, float | None]:
        """Timestamps of a window's middle and, where it names one, of a frame."""
        timestamp, frame_time = sum(info.span) / 2 if window is None else window, None
        if callable(window):
            timestamp, frame_time = window(info)
        if not info.start - 0.05 <= timestamp <= info.end + 0.05:
            expected = f"a timestamp within {info.start:.2f} to {info.end:.2f} s"
            raise MediaError(f"{row['path']}: expected {expected}, but got {timestamp:.2f} s.")
        return timestamp, frame_time

    def _audio(self, row: dict, begin: float, seconds: float) -> np.ndarray:
        if row["audio_start"] >= begin + seconds or row["audio_end"] <= begin:
            raise MediaError(f"{row['path']}: expected audio from {begin:.2f} s, but it has none there.")
        shard = row["shard"]
        file = self.files.open(shard, Place(row["audio_offset"], row["audio_size"]))
        where = f"{row['path']}: expected FLAC audio from {begin:.2f} s in {self.files.root}/shards/{shard}"
        try:
            waveform = decode_flac(file, begin - row["audio_start"], seconds)
        except Exception as error:  # PyAV and FFmpeg raise a dozen kinds
            raise MediaError(f"{where}, but {error}.") from error
        if not waveform.size:
            raise MediaError(f"{where}, but it is damaged.")
        return waveform

    def _frame(self, shard: str, place: Place, path: str) -> np.ndarray:
        content = self.files.read(shard, place)
        try:
            with Image.open(io.BytesIO(content)) as image:
                if self.size is not None:
                    height, width = self.size
                    scale = max(height / image.height, width / image.width)
                    image.draft("RGB", (int(image.width * scale), int(image.height * scale)))
                return np.asarray(image.convert("RGB"))
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error ...
            raise MediaError(
                f"{path}: expected a JPEG file in {self.files.root}/shards/{shard}, but {error}."
            ) from error


__all__ = ["ABOUT", "INDEX", "VERSION", "ShardReader", "place_of", "read_about", "read_shards", "rows_of_split"]
