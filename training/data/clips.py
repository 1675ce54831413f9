"""
What training reads: map-style datasets of model inputs, and the batch that `collate_clips` makes of them.

A sample is a function of (seed, epoch, index) alone, so a run that is resumed sees what it would have seen. A clip that
cannot be read becomes a [`BrokenClip`] and is reported in its batch, never replaced.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from .random import Stream, generator
from .sets.folder import clip_time, label_info, order_by_name


class BrokenClip(NamedTuple):
    """A clip that could not be read."""

    path: str
    reason: str
    index: int


def collate_clips(samples: Sequence[dict | BrokenClip]) -> dict:
    """
    A batch of samples: every tensor stacked, `labels` of their `label`s (long (B,) or float (B, C)), `index` (B,) long,
    `path` list of str, and `broken`, the (path, reason) of those that could not be read and are in no tensor. When all
    are broken there are no tensors.
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


class Clips(Dataset):
    """
    What the datasets of this module share.

    Attributes:
        label_names: Names of the classes, or None where clips have no labels.
        multi_label: Whether clips have several labels: then `label` is a float tensor (C,), else an int.
        ceilings: What one sense alone can reach at best, where that is known (`modality_ceilings`), else None.
        card: One line that says what data this is.
    """

    label_names: list[str] | None = None
    multi_label: bool = False
    ceilings: dict | None = None
    card: str = ""
    collate = staticmethod(collate_clips)

    def __init__(self, seed: int):
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentations are drawn. Call it before an iterator with workers is made."""
        self.epoch = epoch

    def describe(self, i: int) -> str:
        """What item i is, for messages."""
        raise NotImplementedError

    def classes(self) -> list[list[int]]:
        """The class indices of every clip, without reading media; of labelled clips only."""
        raise NotImplementedError

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
        """
        Item i without `path` and `index`.

        Raises:
            MediaError: Its files cannot be read, or lack picture or sound.
        """
        raise NotImplementedError

    def _check(self, items: Sequence[int]) -> list[int]:
        for i in items:
            if not 0 <= i < len(self):
                raise IndexError(f"clip {i} of {len(self)}")
        return [int(i) for i in items]


class FileClips(Clips):
    """
    Video files as model inputs.

    Args:
        rows: A `datasets.Dataset` with `path` and, as far as there are, `label`, `start` and `end`: what `read_folder`
            and its like return.
        processor: A `DeepAVFusionProcessor` of the model's sizes.
        train: Whether to augment: random resized crop, flip, volume, drawn from (seed, epoch, index).
        seed: Of the augmentations.
        size: How many clips at most: the first in `order_by_name`. None takes all.
        name: What to call the data set.
    """

    def __init__(self, rows, processor, train: bool, seed: int, size: int | None = None, name: str = "videos"):
        from .augmentation import ClipAugmentation

        super().__init__(seed)
        if size is not None and size < len(rows):
            rows = rows.select(sorted(order_by_name(rows["path"])[:size]))
        self.rows, self.processor, self.train = rows, processor, train
        self.augmentation = ClipAugmentation(processor.visual_processor)
        self.label_names, self.multi_label = label_info(rows)
        classes = "no labels" if self.label_names is None else f"{len(self.label_names)} classes"
        self.card = f"{name}: {len(rows)} clips, {classes}{', several labels a clip' if self.multi_label else ''}"

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self, i: int) -> str:
        return self.rows[int(i)]["path"]

    def classes(self) -> list[list[int]]:
        return [label if isinstance(label, list) else [label] for label in self.rows["label"]]

    def read(self, i: int) -> dict:
        row = self.rows[i]
        clip = self.load(row)
        draws = generator(self.seed, Stream.AUGMENTATION, self.epoch, i) if self.train else None
        pixels = self.pictures(clip, draws)
        waveform = self.augmentation.sound(clip.waveform, draws) if self.train else clip.waveform
        extractor = self.processor.feature_extractor
        sample = {
            "pixel_values": pixels,
            "input_features": extractor(waveform, sampling_rate=clip.sampling_rate)["input_features"][0],
        }
        return sample | self.labels_of(row)

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
        """A row's `Clip`: the window in the middle of its part."""
        from deepavfusion.processors import load_clip

        seconds = self.processor.feature_extractor.seconds
        frames = self.processor.num_frames
        return load_clip(row["path"], clip_time(row, seconds), num_frames=frames, seconds=seconds, require="both")

    def pictures(self, clip, generator: torch.Generator | None) -> torch.Tensor:
        """`pixel_values` of a clip: augmented by draws from the generator, or as evaluated without one."""
        if generator is not None:
            pixels = self.augmentation.pictures(clip.frames, generator)
        else:
            pixels = self.processor.visual_processor.transform(torch.from_numpy(clip.frames).movedim(-1, 1))
        return pixels if self.processor.video_processor is not None else pixels[0]
