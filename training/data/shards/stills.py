"""Frames with masks or boxes in shards: what is stored of them, and how it is read.

A clip holds the audio of a file and those frames of it that are annotated, each at its timestamp; the masks are PNG
files, of the size of their originals, in a video file of their own, `<key>.masks.mov`.
"""

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from deepavfusion.processors import MediaError
from deepavfusion.processors.recordings_deepavfusion import Recording

from ..frames import Still, StillFiles
from .encoding import EncodedClip, Encoding, encode_audio, encode_clip, temporary_file
from .reading import ShardReader, place_of
from .video import VideoPlaces, encode_frame, write_images

# Columns with an entry for each frame.
FRAME_COLUMNS = ("image", "mask", "timestamp", "boxes", "name", "scene", "source", "visible")


@dataclass
class EncodedStills:
    """Members of a clip with annotated frames.

    Attributes:
        clip: Frames and audio; None if no frame can be read.
        masks: Video file of the masks; None without masks.
        mask_places: Where the PNG files lie in it.
        kept: Numbers of the frames that are stored.
        broken: (name, reason) of those that cannot be read.
    """

    clip: EncodedClip | None = None
    masks: BinaryIO | None = None
    mask_places: VideoPlaces | None = None
    kept: list[int] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        masks = 0 if self.masks is None else self.masks.seek(0, os.SEEK_END)
        return masks if self.clip is None else masks + self.clip.size

    def close(self) -> None:
        """Close the files, which are temporary."""
        for file in (self.clip, self.masks):
            if file is not None:
                file.close()


def still_rows(stills: Sequence[Still], path: Callable[[str], str], name: Callable[[str], str]):
    """Rows of clips with annotated frames, as a `datasets.Dataset`.

    Frames with masks of one audio file, which follow each other, are one clip; of others, each is one.

    Args:
        stills: The frames.
        path: Function from a file to its absolute path.
        name: Function from a file to its name in the prepared data set.

    Returns:
        Rows with `path` (of the audio), `recording`, and lists of `FRAME_COLUMNS`.
    """
    from datasets import Dataset, Features, List, Value

    text, number = Value("string"), Value("float64")
    kinds = {"image": text, "mask": text, "timestamp": number, "boxes": List(List(number)), "name": text}
    kinds |= {"scene": text, "source": text, "visible": List(text)}
    features = Features({"path": text, "recording": text, **{key: List(kind) for key, kind in kinds.items()}})
    rows = []
    for _, group in groupby(enumerate(stills), lambda pair: pair[0] if pair[1].mask is None else pair[1].audio):
        frames = [still for _, still in group]
        columns = {key: [getattr(still, key) for still in frames] for key in FRAME_COLUMNS}
        columns["image"] = [name(file) for file in columns["image"]]
        columns["mask"] = [None if file is None else name(file) for file in columns["mask"]]
        columns["name"] = [_name(still, name) for still in frames]
        rows.append({"path": path(frames[0].audio), "recording": frames[0].recording, **columns})
    return Dataset.from_list(rows, features=features)


def _name(still: Still, name: Callable[[str], str]) -> str:
    if still.name in ("", still.image):
        return name(still.image)
    return f"{name(still.image)} with {name(still.audio)}"


def stills_of(row: dict, number: int = 0, path: Callable[[str], str] = str) -> list[Still]:
    """The frames of a clip.

    Args:
        row: Row of `still_rows`, or of the index.
        number: Number of the row.
        path: Function from names of images and masks to their files.
    """
    found = []
    for k, values in enumerate(zip(*(row[column] for column in FRAME_COLUMNS), strict=True)):
        frame = dict(zip(FRAME_COLUMNS, values, strict=True))
        frame |= {"image": path(frame["image"]), "visible": tuple(frame["visible"])}
        if frame["mask"] is not None:
            frame["mask"] = path(frame["mask"])
        if frame["boxes"] is not None:
            frame["boxes"] = tuple(map(tuple, frame["boxes"]))
        found.append(Still(audio=row["path"], recording=row["recording"] or "", place=(number, k), **frame))
    return found


def is_clip(still: Still) -> bool:
    """Whether a frame stands for its clip, from which training draws any window and frame."""
    return still.image == still.audio and still.mask is None and still.boxes is None


def encode_stills(
    stills: Sequence[Still],
    encoding: Encoding,
    num_classes: int | None,
    folder: str | None = None,
    seconds: float = math.inf,
) -> EncodedStills:
    """Encode the frames of a clip, as JPEG files whatever the encoding of videos is, their masks, and its audio.

    Args:
        stills: The frames, all of one audio file.
        encoding: How to store them.
        num_classes: Number of classes of masks; None stores the foreground alone.
        folder: See `encode_clip`.
        seconds: See `encode_clip`, for a frame that stands for its clip.

    Raises:
        MediaError: The audio cannot be read.
    """
    path = stills[0].audio
    if is_clip(stills[0]):
        return EncodedStills(encode_clip(path, encoding, folder=folder, seconds=seconds), kept=[0])
    result, frames, masks, times, files = EncodedStills(), [], [], [], StillFiles()
    recording = Recording(path)
    info = recording.info
    for k, still in enumerate(stills):
        try:
            image = files.image(still)
            mask = None if still.mask is None else files.mask(still, image.shape[:2], num_classes)
        except MediaError as error:
            result.broken.append((still.name, str(error)))
            continue
        result.kept.append(k)
        frames.append(encode_frame(image, encoding))
        times.append(sum(info.span) / 2 if still.timestamp is None else still.timestamp)
        if mask is not None:
            masks.append(_png(mask))
    audio, audio_places, span = encode_audio(path, recording, encoding, info.audio_span, folder)
    if not frames:
        audio.close()
    else:
        video = temporary_file(folder)
        places = write_images(video, frames, times)
        result.clip = EncodedClip(video, audio, places, audio_places, info.image_span, span, "mov")
    if masks:
        result.masks = temporary_file(folder)
        result.mask_places = write_images(result.masks, masks, times, "png")
    return result


def _png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format="png")
    return file.getvalue()


class ShardStills:
    """Reads frames, their audio and their masks from shards, as `StillFiles` does from files.

    Args:
        reader: Reader of the prepared data set.
        rows: Its index, to which the `place` of frames refers.
    """

    def __init__(self, reader: ShardReader, rows: Any):
        self.reader, self.rows = reader, rows

    def load(self, row: Still, window, seconds: float):
        """The frame of a row, and the audio of a window: waveform (1, samples) and rate in Hz."""
        entry, number = self._entry(row)
        if is_clip(row):
            clip = self.reader.load(entry, window, 1, seconds)
            return clip.frames[0], clip.waveform, clip.sampling_rate
        return self.reader.frame(entry, number), self.reader.audio_of(entry, window, seconds), self.reader.rate

    def mask(self, row: Still, shape: tuple[int, int], num_classes: int | None) -> np.ndarray:
        """The mask of a frame: (H, W) uint8, class indices or, without classes, 0 and 1."""
        entry, number = self._entry(row)
        shard = entry["shard"]
        content = self.reader.files.read(shard, place_of(entry, "mask_offset", "mask_ends", number))
        try:
            with Image.open(io.BytesIO(content)) as image:
                values = np.array(image)
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error ...
            where = f"{self.reader.files.root}/shards/{shard}"
            raise MediaError(f"{row.mask}: expected a PNG file in {where}, but {error}.") from error
        return values if num_classes is not None else (values != 0).astype(np.uint8)

    def _entry(self, row: Still) -> tuple[dict, int]:
        number, frame = row.place
        return self.rows[number], frame


__all__ = ["FRAME_COLUMNS", "EncodedStills", "ShardStills", "encode_stills", "is_clip", "still_rows", "stills_of"]
