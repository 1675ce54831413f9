"""Map-style datasets of model inputs, and the batch that `collate_clips` makes of them.

A sample is a function of (seed, epoch, index) alone, so a resumed run sees the samples that it would have seen. A clip
that cannot be read becomes a [`BrokenClip`] and is reported in its batch, never replaced.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from .sets.folder import row_classes


class BrokenClip(NamedTuple):
    """A clip that could not be read."""

    path: str
    reason: str
    index: int


def following_audio(clips, index: int, group: int, known: dict[int, torch.Tensor | None]) -> torch.Tensor | None:
    """Audio features of the first readable item after an item, the first item following the last.

    Args:
        clips: Data set.
        index: The item.
        group: Number of consecutive items that belong together, of which none is taken.
        known: Features of the items that were read, to which those read here are added; None of unreadable ones.

    Returns:
        (1, mels, time steps), or None if no other item is readable.
    """
    for step in range(group, len(clips)):
        other = (index + step) % len(clips)
        if other // group == index // group:
            continue
        if other not in known:
            sample = clips.__getitems__([other])[0]
            known[other] = None if isinstance(sample, BrokenClip) else sample["input_features"]
        if known[other] is not None:
            return known[other]
    return None


class ClipMedia(NamedTuple):
    """What a clip of an evaluation was made of.

    Attributes:
        frame: The whole frame, (H, W, 3) uint8; None where the model is given all of it as it is.
        waveform: (N,) float32, what is heard in the clip's window.
        sampling_rate: Its sampling rate in Hz.
    """

    frame: np.ndarray | None
    waveform: np.ndarray
    sampling_rate: int


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
        reading: What an evaluation of the clips is called in its progress.
    """

    label_names: list[str] | None = None
    multi_label: bool = False
    ceilings: dict | None = None
    card: str = ""
    check: str | None = None
    reading = "evaluation"
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
        from deepavfusion.processors.threads_deepavfusion import use_one_thread_after_fork

        use_one_thread_after_fork()  # `datasets.map` with several processes forks
        samples: list[dict | BrokenClip] = []
        for i in self._check(items):
            try:
                sample = self.read(i)
                samples.append(sample | {"path": sample.get("path") or self.describe(i), "index": i})
            except MediaError as error:
                samples.append(BrokenClip(self.describe(i), str(error), i))
        return samples

    def read(self, i: int) -> dict:
        """Item i without `index`, and without `path` where that is what `describe` says.

        Raises:
            MediaError: Its files cannot be read, or lack an image or audio stream.
        """
        raise NotImplementedError

    def media(self, i: int) -> ClipMedia | None:
        """What item i of an evaluation was made of; None if the data set cannot tell.

        Raises:
            MediaError: Its files cannot be read.
        """
        return None

    def _check(self, items: Sequence[int]) -> list[int]:
        for i in items:
            if not 0 <= i < len(self):
                raise IndexError(f"Clip index {i} is out of range for {len(self)} clips.")
        return [int(i) for i in items]
