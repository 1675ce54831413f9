"""Map-style datasets of model inputs, and the batch that `collate_clips` makes of them.

A sample is a function of (seed, epoch, index) alone, so a resumed run sees the samples that it would have seen. A clip
that cannot be read becomes a [`BrokenClip`] and is reported in its batch, never replaced.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from ..wording import count
from .random import Stream, generator
from .sets.folder import clip_time, label_info, make_rows, order_by_name, row_classes


class BrokenClip(NamedTuple):
    """A clip that could not be read."""

    path: str
    reason: str
    index: int


def collate_clips(samples: Sequence[dict | BrokenClip]) -> dict:
    """Collate samples into a batch.

    Returns:
        Every tensor stacked, `labels` of the samples' `label` (long (B,) or float (B, C)), `index` (B,) long, `path`
        (list of str), and `broken`, the (path, reason) of the clips that could not be read and are in no tensor. When
        all are broken there are no tensors.
    """
    broken = [(sample.path, sample.reason) for sample in samples if isinstance(sample, BrokenClip)]
    whole = [sample for sample in samples if not isinstance(sample, BrokenClip)]
    batch: dict = {}
    if whole:
        for name, first in whole[0].items():
            values = [sample[name] for sample in whole]
            key = "labels" if name == "label" else name
            if isinstance(first, torch.Tensor):
                batch[key] = torch.stack(values)
            elif isinstance(first, int):
                batch[key] = torch.tensor(values)
            else:
                batch[key] = values
    batch.setdefault("path", [])
    return batch | {"broken": broken}


class ClipDataset(Dataset):
    """Base class of the datasets.

    Attributes:
        label_names: Names of the classes, or None where clips have no labels.
        multi_label: Whether clips have several labels: then `label` is a float tensor (C,), else an int.
        ceilings: Best scores that a single modality can reach (`modality_ceilings`), or None where unknown.
        card: Description of the data in one line.
        check: Command that reads every clip of the data set, or None for data without files.
    """

    label_names: list[str] | None = None
    multi_label: bool = False
    ceilings: dict | None = None
    card: str = ""
    check: str | None = None
    collate = staticmethod(collate_clips)

    def __init__(self, seed: int):
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentations are drawn. Call it before an iterator with workers is made."""
        self.epoch = epoch

    def describe(self, i: int) -> str:
        """Name item i in messages."""
        raise NotImplementedError

    def annotations(self):
        """The items as a `datasets.Dataset` without media: a row each, with `path` and what annotations say of it."""
        raise NotImplementedError

    def classes(self) -> list[list[int]]:
        """The class indices of every clip, from the annotations; of labeled clips only."""
        return row_classes(self.annotations())

    def as_dataset(self, num_shards: int | None = None):
        """The clips as a `datasets` object whose rows hold annotations, the item's `index`, and its sample.

        The media of a row are decoded when it is read, and augmented as `set_epoch` last chose. Everything of
        `datasets` applies: `select`, `shard`, `split_dataset_by_node`, or `with_format(None)` for annotations alone.
        With transformers' `Trainer`, set `remove_unused_columns=False`.

        Args:
            num_shards: None returns a map-style `datasets.Dataset`, a number an `IterableDataset` of so many shards.

        Raises:
            MediaError: On reading a row whose media cannot be decoded.

        Example:
        ```python
        >>> from deepavfusion import DeepAVFusionConfig
        >>> from deepavfusion.training.data import build_dataset

        >>> config = DeepAVFusionConfig(image_size=32, num_mel_bins=32, spectrogram_length=64)
        >>> clips = build_dataset({"name": "scenes", "train_size": 100}, config, "train", train=True, seed=0)
        >>> clips.as_dataset().select(range(50))[7]["pixel_values"].shape
        torch.Size([3, 32, 32])
        ```
        """
        rows = self.annotations()
        rows = rows.add_column("index", list(range(len(rows))))
        if num_shards is None:
            return rows.with_transform(self._add_samples)
        return rows.to_iterable_dataset(num_shards).map(self._add_samples, batched=True, batch_size=32)

    def _add_samples(self, rows: dict[str, list]) -> dict[str, list]:
        from deepavfusion.processors import MediaError

        samples = self.__getitems__(rows["index"])
        for sample in samples:
            if isinstance(sample, BrokenClip):
                raise MediaError(sample.reason)
        return rows | {name: [sample[name] for sample in samples] for name in (samples[0] if samples else ())}

    def __getitem__(self, i: int) -> dict | BrokenClip:
        return self.__getitems__([i])[0]

    def __getitems__(self, items: Sequence[int]) -> list[dict | BrokenClip]:
        from deepavfusion.processors import MediaError

        samples: list[dict | BrokenClip] = []
        for i in self._check(items):
            try:
                samples.append(self.read(i) | {"path": self.describe(i), "index": i})
            except MediaError as error:
                samples.append(BrokenClip(self.describe(i), str(error), i))
        return samples

    def read(self, i: int) -> dict:
        """Item i without `path` and `index`.

        Raises:
            MediaError: Its files cannot be read, or lack an image or audio stream.
        """
        raise NotImplementedError

    def _check(self, items: Sequence[int]) -> list[int]:
        for i in items:
            if not 0 <= i < len(self):
                raise IndexError(f"Clip index {i} is out of range for {len(self)} clips.")
        return [int(i) for i in items]


class FileClips(ClipDataset):
    """Video files as model inputs.

    Args:
        rows: A `datasets.Dataset` with `path` and optionally `label`, `start` and `end`, as the readers of
            `training.data.sets` return it.
        processor: A `DeepAVFusionProcessor` of the model's sizes.
        train: Whether to augment: random resized crop, flip, volume, drawn from (seed, epoch, index).
        seed: Seed of the augmentations.
        size: Maximum number of clips: the first in `order_by_name`. None takes all.
        name: Name of the dataset in its card.
    """

    def __init__(self, rows, processor, train: bool, seed: int, size: int | None = None, name: str = "videos"):
        from .augmentation import ClipAugmentation

        super().__init__(seed)
        if size is not None and size < len(rows):
            rows = rows.select(sorted(order_by_name(rows["path"])[:size]))
        self.rows, self.processor, self.train, self.name = rows, processor, train, name
        self.augmentation = ClipAugmentation(processor.visual_processor)
        self.label_names, self.multi_label = label_info(rows)
        classes = "no labels" if self.label_names is None else count(len(self.label_names), "class", "classes")
        self.card = (
            f"{name}: {count(len(rows), 'clip')}, {classes}{', several labels per clip' if self.multi_label else ''}"
        )

    def with_classes(self, names: list[str], places: dict[str, int]) -> "FileClips":
        """The clips with other classes.

        Args:
            names: The classes.
            places: Positions in `names` of the clips' own classes; clips that have none of these are left out.
        """
        moved = {i: places.get(name) for i, name in enumerate(self.label_names or ())}
        labels = [[moved[i] for i in row if moved[i] is not None] for row in self.classes()]
        kept = [i for i, (own, row) in enumerate(zip(labels, self.classes(), strict=True)) if own or not row]
        rows = self.rows.select(kept)
        columns = {name: rows[name][:] for name in rows.column_names}
        columns["label"] = [[names[k] for k in labels[i]] if self.multi_label else names[labels[i][0]] for i in kept]
        listed = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return type(self)(make_rows(listed, names), self.processor, self.train, self.seed, name=self.name)

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self, i: int) -> str:
        """The path of item i."""
        return self.rows[int(i)]["path"]

    def annotations(self):
        """The rows that the clips were made of."""
        return self.rows

    def read(self, i: int) -> dict:
        """`pixel_values`, `input_features` and, where there are labels, `label` of item i."""
        row = self.rows[i]
        clip = self.load(row)
        draws = generator(self.seed, Stream.AUGMENTATION, self.epoch, i) if self.train else None
        pixels = self.pixel_values(clip, draws)
        waveform = self.augmentation.waveform(clip.waveform, draws) if self.train else clip.waveform
        features = self.processor.feature_extractor([waveform], sampling_rate=clip.sampling_rate)["input_features"][0]
        return {"pixel_values": pixels, "input_features": features} | self.labels_of(row)

    def labels_of(self, row: dict) -> dict:
        """A row's `label`, where there are labels."""
        if self.label_names is None:
            return {}
        if not self.multi_label:
            return {"label": row["label"]}
        label = torch.zeros(len(self.label_names))
        label[row["label"]] = 1
        return {"label": label}

    def load(self, row: dict):
        """Decode a row's `Clip`: the window around the middle of its annotated part."""
        from deepavfusion.processors import load_clip

        seconds = self.processor.feature_extractor.seconds
        frames = self.processor.num_frames
        return load_clip(row["path"], clip_time(row, seconds), num_frames=frames, seconds=seconds, require="both")

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
        from deepavfusion.processors import dense_timestamps, load_clip, probe_clip

        row, processor = self.clips.rows[i], self.clips.processor
        extractor = processor.feature_extractor
        start, end = probe_clip(row["path"]).span
        start = max(start, row.get("start") or start)
        end = min(end, row.get("end") or end)
        pixels, features = [], []
        for time in dense_timestamps(start, max(start, end), self.num_windows, extractor.seconds):
            clip = load_clip(row["path"], time, processor.num_frames, extractor.seconds, require="both")
            pixels.append(self.clips.pixel_values(clip, None))
            features.append(extractor([clip.waveform], sampling_rate=clip.sampling_rate)["input_features"][0])
        sample = {"pixel_values": torch.stack(pixels), "input_features": torch.stack(features)}
        return sample | self.clips.labels_of(row)
