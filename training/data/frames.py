"""How clips are read from files, and frames with annotations: what is known of each."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepavfusion_cli.early.contents import is_video

from .sets.folder import annotated_end
from .sets.groups import Groups, group
from .views import Box, Frame, read_class_map, read_image, read_mask


class FileReader:
    """Decodes the files of rows, by their `path`."""

    def info(self, row: dict):
        """`MediaInfo` of a row's file."""
        from deepavfusion.processors import probe_clip

        return probe_clip(row["path"])

    def load(self, row: dict, window, num_frames: int, seconds: float):
        """Decode a `Clip` of a row's file, which must have images and audio; see `load_clip`."""
        from deepavfusion.processors import load_clip

        return load_clip(row["path"], window, num_frames, seconds, require="both")

    def load_windows(self, row: dict, num_windows: int, num_frames: int, seconds: float) -> Iterator:
        """Decode a `Clip` for each of `num_windows` windows that are spread over a row's file, which is opened once."""
        from deepavfusion.processors.media_deepavfusion import load_windows

        def place(info) -> list[float]:
            return spread_windows(row, info.span, num_windows, seconds)

        return load_windows(row["path"], place, num_frames, seconds, require="both")


def spread_windows(row: dict, span: tuple[float, float], num_windows: int, seconds: float) -> list[float]:
    """Middles of windows spread evenly over the annotated part of a row, or over the `span` of its file."""
    from deepavfusion.processors import dense_timestamps

    start, end = max(span[0], row.get("start") or span[0]), min(span[1], annotated_end(row, seconds) or span[1])
    return dense_timestamps(start, max(start, end), num_windows, seconds)


class Still(NamedTuple):
    """A frame and the audio that belongs to it."""

    image: str
    """An image file, or the clip whose frame at `timestamp` it is."""
    audio: str
    """An audio file, or the clip."""
    timestamp: float | None = None
    """The middle of the window in the audio or clip, in seconds; None is the middle of the file."""
    mask: str | None = None
    """Image file with the mask."""
    boxes: tuple[Box, ...] | None = None
    """(x1, y1, x2, y2) in fractions of the image as shown: empty where no visible object sounds, None if unknown."""
    name: str = ""
    """Name in messages; the image's path by default."""
    recording: str = ""
    """The recording that it is part of; frames of one are held out together."""
    place: tuple[int, int] | None = None
    """Of a frame in a prepared data set: row of the index, and number of the frame in it."""
    scene: str = ""
    """What is shown, where several rows show the same with different audio."""
    source: str = ""
    """What sounds, where it is known."""
    visible: tuple[str, ...] = ()
    """What is visible that may sound, where it is known."""


class Stills(Sequence):
    """Frames, of which what concerns all of them is read as arrays.

    Args:
        rows: The frames.
    """

    def __init__(self, rows: Sequence[Still]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Still:
        return self._rows[i]

    def select(self, places: np.ndarray) -> "Stills":
        """The frames at some places (n,), in their order."""
        return Stills([self._rows[i] for i in places.tolist()])

    def names(self) -> Any:
        """Name of each frame, as `name_order` takes them."""
        return [name_of(row) for row in self._rows]

    def groups(self, field: str) -> Groups:
        """Groups of the frames with the same `audio` or `recording`."""
        return group([getattr(row, field) for row in self._rows])

    def num_boxes(self) -> np.ndarray:
        """Number of boxes of each frame, (N,); -1 where they are unknown."""
        return np.array([-1 if row.boxes is None else len(row.boxes) for row in self._rows], np.int64)


def name_of(row: Still) -> str:
    """Name of a frame in messages, by which frames are ordered, too."""
    return row.name or row.image


class StillFiles:
    """Reads frames, their audio and their masks from files."""

    def image(self, row: Still, seconds: float = 3.0):
        """The frame of a row as it is shown, (H, W, 3) uint8."""
        from deepavfusion.processors import load_clip

        if is_video(row.image):
            return load_clip(row.image, row.timestamp, seconds=seconds, require="image").frames[0]
        return read_image(row.image)

    def load(self, row: Still, window, seconds: float):
        """The frame of a row, and the audio of a window (see `load_clip`): waveform (channels, samples) and Hz."""
        from deepavfusion.processors import load_clip

        if row.image == row.audio:
            frames, waveform, rate = load_clip(row.image, window, seconds=seconds, require="both")
            return frames[0], waveform, rate
        image = self.image(row, seconds)
        audio = load_clip(row.audio, window, seconds=seconds, require="audio")
        return image, audio.waveform, audio.sampling_rate

    def mask(self, row: Still, shape: tuple[int, int], num_classes: int | None):
        """The mask of a frame of `shape` (height, width): (H, W) uint8, class indices or, without classes, 0 and 1."""
        frame = Frame(row.image, shape)
        return read_mask(row.mask, frame) if num_classes is None else read_class_map(row.mask, num_classes, frame)


__all__ = ["FileReader", "Still", "StillFiles", "Stills", "name_of", "spread_windows"]
