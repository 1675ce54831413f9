"""Video files as model inputs: a random window of each in training, the middle one or several in evaluation."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from deepavfusion.inference.jobs.progress import counted
from deepavfusion.processors.timestamps_deepavfusion import window_times

from ..wording import count
from .clips import ClipDataset, ClipMedia
from .frames import FileReader
from .random import Stream, generator
from .sets.folder import clip_time, label_info
from .sets.groups import arrow_column, name_order


def training_window(
    draws: torch.Generator, seconds: float, start: float | None = None, end: float | None = None
) -> Callable:
    """Draw a window and a frame in it (as the published training does at every visit of a clip).

    The window is uniform over those that lie within the part that all streams of the file cover, and that an annotation
    names, where there is one; the middle of a shorter part. The frame is uniform over the window's part with images.

    Args:
        draws: CPU generator; two numbers are drawn in any case.
        seconds: Length of the window.
        start: Start of the annotated part in seconds, if there is one; alone, it is that of the window.
        end: End of the annotated part.

    Returns:
        A function from a file's `MediaInfo` to the timestamps of the window's middle and of the frame, for `load_clip`.
    """
    at, frame_at = torch.rand(2, generator=draws, dtype=torch.float64).tolist()

    def place(info) -> tuple[float, float]:
        low, high = info.span
        if start is not None or end is not None:
            stop = start + seconds if end is None else end
            low, high = max(low, start or 0.0), min(high, stop)
            if high < low:  # outside of the file, for which loading the clip raises an error
                return stop, stop
        room = high - low - seconds
        middle = low + seconds / 2 + at * room if room > 0 else (low + high) / 2
        begin, _ = window_times(info.start, info.end, middle, 1, seconds)
        shown = info.image_span or info.span
        first, last = (min(max(time, shown[0]), shown[1]) for time in (begin, begin + seconds))
        return middle, first + frame_at * (last - first)

    return place


def num_windows(rows, seconds: float, reader: FileReader) -> list[int]:
    """Number of windows of each row, one for every `seconds` of its annotated part or file, and at least one.

    Files that cannot be read get one, which is reported when it is read.
    """
    from deepavfusion.processors import MediaError

    def length(row: dict) -> float:
        if row.get("end") is not None:
            return row["end"] - (row.get("start") or 0.0)
        if row.get("start") is not None:
            return 0.0
        if row.get("seconds") is not None:  # in lists of checked clips
            return row["seconds"]
        try:
            start, end = reader.info(row).span
        except MediaError:
            return 0.0
        return end - start

    with ThreadPoolExecutor() as pool:
        lengths = counted(pool.map(length, rows), "reading the lengths of clips", "clip", total=len(rows))
        return [max(1, round(value / seconds)) for value in lengths]


class FileClips(ClipDataset):
    """Video files as model inputs.

    In training, a clip's window and, for a model of single frames, the frame in it are drawn anew in every epoch
    (`training_window`), from (seed, epoch, index). In evaluation, they are in the middle.

    Args:
        rows: A `datasets.Dataset` with `path` and optionally `label`, `start` and `end`, as the readers of
            `training.data.sets` return it.
        processor: A `DeepAVFusionProcessor` of the model's sizes.
        train: Whether to augment: random resized crop, flip, volume, drawn from (seed, epoch, index).
        seed: Seed of the augmentations.
        size: Maximum number of clips: the first in `order_by_name`. None takes all.
        name: Name of the dataset in its card.
        temporal_jitter: Whether training windows are random; otherwise they are those of evaluation.
        windows_per_clip: Number of windows of each clip in an epoch of training; one by default.
        seconds_per_window: Instead, one window for every so many seconds of a clip (`num_windows`).
        reader: What decodes the clips of rows; by default, a `FileReader`.

    Attributes:
        pairs: Positions of rows to mix for the evaluation of separation, where annotations name them.

    Raises:
        ValueError: Both `windows_per_clip` and `seconds_per_window`.
    """

    pairs: list[tuple[int, int]] | None = None

    def __init__(
        self,
        rows,
        processor,
        train: bool,
        seed: int,
        size: int | None = None,
        name: str = "videos",
        temporal_jitter: bool = True,
        windows_per_clip: int | None = None,
        seconds_per_window: float | None = None,
        reader: Any = None,
    ):
        from .augmentation import ClipAugmentation

        super().__init__(seed)
        self.reader = reader or FileReader()
        if size is not None and size < len(rows):
            rows = rows.select(np.sort(name_order(arrow_column(rows, "path"))[:size]))
        if windows_per_clip is not None and seconds_per_window is not None:
            given = f"{windows_per_clip} and {seconds_per_window}"
            raise ValueError(f"Expected either windows_per_clip or seconds_per_window, got both: {given}.")
        self.size_text, self.windows = count(len(rows), "clip"), np.ones(len(rows), np.int32)
        if train and (windows_per_clip, seconds_per_window) != (None, None):
            several = windows_per_clip or num_windows(rows, seconds_per_window, self.reader)
            self.windows = np.broadcast_to(np.asarray(several, np.int32), len(rows))
            rows = rows.select(np.repeat(np.arange(len(rows)), self.windows))
            self.size_text += f" in {count(len(rows), 'window')}"
        self.temporal_jitter = temporal_jitter
        self.rows, self.processor, self.train, self.name = rows, processor, train, name
        self.augmentation = ClipAugmentation(processor.visual_processor)
        self.label_names, self.multi_label = label_info(rows)
        classes = "no labels" if self.label_names is None else count(len(self.label_names), "class", "classes")
        self.card = f"{name}: {self.size_text}, {classes}{', several labels per clip' if self.multi_label else ''}"

    def with_classes(self, names: list[str], places: dict[str, int]) -> "FileClips":
        """The clips with other classes.

        Args:
            names: The classes.
            places: Positions in `names` of the clips' own classes; clips that have none of these are left out.
        """
        from datasets import ClassLabel, List

        moved = {i: places.get(name) for i, name in enumerate(self.label_names or ())}
        labels = [[moved[i] for i in row if moved[i] is not None] for row in self.classes()]
        kept = [i for i, (own, row) in enumerate(zip(labels, self.classes(), strict=True)) if own or not row]
        values = [labels[i] if self.multi_label else labels[i][0] for i in kept]
        feature = List(ClassLabel(names=names)) if self.multi_label else ClassLabel(names=names)
        rows = self.rows.select(kept).remove_columns("label").add_column("label", values, feature=feature)
        same = {"name": self.name, "temporal_jitter": self.temporal_jitter, "reader": self.reader}
        return type(self)(rows, self.processor, self.train, self.seed, **same)

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self, i: int) -> str:
        """The path of item i."""
        return self.rows[int(i)]["path"]

    def annotations(self):
        """The rows that the clips were made of."""
        return self.rows

    def read(self, i: int) -> dict:
        """`pixel_values`, `input_features`, `path` and, where there are labels, `label` of item i."""
        row = self.rows[i]
        clip = self.load(row, i, 0)
        draws = generator(self.seed, Stream.AUGMENTATION, self.epoch, i) if self.train else None
        pixels = self.pixel_values(clip, draws)
        waveform = self.augmentation.waveform(clip.waveform, draws) if self.train else clip.waveform
        features = self.processor.feature_extractor.log_mel(self.waveform(waveform, clip.sampling_rate))[None]
        return {"pixel_values": pixels, "input_features": features, "path": row["path"]} | self.labels_of(row)

    def media(self, i: int) -> ClipMedia:
        """The middle frame and the audio of the window of item i."""
        clip = self.load(self.rows[int(i)], int(i), 0)
        return ClipMedia(clip.frames[len(clip.frames) // 2], clip.waveform.mean(0), clip.sampling_rate)

    def waveform(self, waveform, sampling_rate: int) -> torch.Tensor:
        """Convert audio to (N,): one channel, a full window at the extractor's rate."""
        from deepavfusion.processors.feature_extraction_deepavfusion import fill_window

        extractor = self.processor.feature_extractor
        return fill_window(extractor.waveforms([waveform], sampling_rate)[0], extractor.num_samples)

    def labels_of(self, row: dict) -> dict:
        """A row's `label`, where there are labels."""
        if self.label_names is None:
            return {}
        if not self.multi_label:
            return {"label": row["label"]}
        label = torch.zeros(len(self.label_names))
        label[row["label"]] = 1
        return {"label": label}

    def load(self, row: dict, *place: int):
        """Decode a `Clip` of a row: in training a window drawn for a place in the epoch, else the one in the middle.

        Args:
            row: The row, whose annotated part, if there is one, the windows are taken from.
            place: The item and the source in it, which distinguish the draws of an epoch.
        """
        seconds, frames = self.processor.feature_extractor.seconds, self.processor.num_frames
        if self.train and self.temporal_jitter:
            draws = generator(self.seed, Stream.WINDOWS, self.epoch, *place)
            window = training_window(draws, seconds, row.get("start"), row.get("end"))
        else:
            window = clip_time(row, seconds)
        return self.reader.load(row, window, frames, seconds)

    def pixel_values(self, clip, draws: torch.Generator | None) -> torch.Tensor:
        """Pixels of a clip: augmented with a generator, as in evaluation without one."""
        if draws is not None:
            pixels = self.augmentation.frames(clip.frames, draws)
        else:
            pixels = self.processor.visual_processor.transform(torch.from_numpy(clip.frames).movedim(-1, 1))
        return pixels if self.processor.video_processor is not None else pixels[0]


class DenseClips(ClipDataset):
    """The clips of a dataset of files, each as windows spread evenly over it, for evaluations that average over them.

    The windows spread over the annotated part, or over the part of the file that both streams cover. All windows of a
    clip shorter than a window are the same.

    Samples hold `pixel_values` (K, 3, H, W), or (K, T, 3, H, W) of videos, and `input_features` (K, 1, mels, frames),
    not augmented, and `label`, `index` and `path` once.

    Args:
        clips: The clips.
        num_windows: Number of windows K; 10 is the published number, for clips of 10 s.
    """

    def __init__(self, clips: FileClips, num_windows: int = 10):
        if num_windows < 1:
            raise ValueError(f"Expected num_windows of at least 1, got {num_windows}.")
        super().__init__(clips.seed)
        self.clips, self.num_windows = clips, num_windows
        self.reading = f"{clips.reading}, {num_windows} windows each"
        self.label_names, self.multi_label = clips.label_names, clips.multi_label
        self.card = f"{clips.card}, {num_windows} windows each"

    def __len__(self) -> int:
        return len(self.clips)

    def describe(self, i: int) -> str:
        """The path of item i."""
        return self.clips.describe(i)

    def annotations(self):
        """The rows of the clips."""
        return self.clips.annotations()

    def read(self, i: int) -> dict:
        """The windows of item i, and its `label` where there are labels."""
        row, processor = self.clips.rows[i], self.clips.processor
        extractor, pixels, features = processor.feature_extractor, [], []
        windows = (row, self.num_windows, processor.num_frames, extractor.seconds)
        for clip in self.clips.reader.load_windows(*windows):
            pixels.append(self.clips.pixel_values(clip, None))
            features.append(extractor([clip.waveform], sampling_rate=clip.sampling_rate)["input_features"][0])
        sample = {"pixel_values": torch.stack(pixels), "input_features": torch.stack(features)}
        return sample | self.clips.labels_of(row)


def share_files(*data_sets) -> bool:
    """Whether two data sets have files in common; False unless both are of video files."""
    if not all(isinstance(clips, FileClips) for clips in data_sets):
        return False
    one, other = (set(arrow_column(clips.rows, "path").to_pylist()) for clips in data_sets)
    return not one.isdisjoint(other)


__all__ = ["DenseClips", "FileClips", "num_windows", "share_files", "training_window"]
