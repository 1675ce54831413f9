"""
What training reads: map-style datasets of model inputs, and the batch that `collate_clips` makes of them.

A sample is a function of (seed, epoch, index) alone, so a run that is resumed sees what it would have seen. A clip that
cannot be read becomes a [`BrokenClip`] and is reported in its batch, never replaced.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from deepavfusion.training.data.folders import clip_time, label_info


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

    def __getitem__(self, i: int) -> dict | BrokenClip:
        return self.__getitems__([i])[0]

    def __getitems__(self, items: Sequence[int]) -> list[dict | BrokenClip]:
        raise NotImplementedError

    def _check(self, items: Sequence[int]) -> list[int]:
        for i in items:
            if not 0 <= i < len(self):
                raise IndexError(f"clip {i} of {len(self)}")
        return [int(i) for i in items]


def augmentation_seed(seed: int, epoch: int, index: int) -> int:
    """The 63-bit seed of a sample's augmentations."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))
