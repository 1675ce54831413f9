"""Mixtures of the audio of two clips, to be separated by the clips' frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..wording import count
from .clips import BrokenClip
from .files import FileClips
from .random import Stream, generator
from .sets.folder import order_by_name, row_classes
from .sets.groups import arrow_column, group, name_order

_PARTNER_TRIALS = 100


class MixtureClips(FileClips):
    """Mixtures of two clips, one of which is the target.

    `pixel_values` is the target's frame, `labels` the log-mel of its audio, and `input_features` the log-mel of the sum
    of both, neither weighted nor scaled. `path` names both.

    In training, item i is clip i with a partner drawn anew in every epoch from all clips of other groups; the windows
    of both are random, and the frame is cropped and flipped with `ClipAugmentation`. In evaluation, items 2k and 2k + 1
    are the sources of the fixed pair k, and also hold `waveforms` (2, N) float32: target and interfering source, full
    windows at the extractor's rate. A clip that cannot be read breaks both items of its pair, so that pairs stay whole;
    both its image and its audio are required.

    Args:
        rows: Clips as in [`FileClips`].
        processor: See [`FileClips`].
        train: See [`FileClips`].
        seed: Seed of the augmentations and partners.
        size: Maximum number of items: clips in training, twice the number of pairs in evaluation.
        name: Name of the dataset in its card.
        pairs: Positions in `rows` of evaluation's pairs. None forms pairs, each of different classes where possible.
        groups: `Groups`, or the name of each row's group, such as the recording it is a part of. None puts every file
            into a group of its own.
        temporal_jitter, windows_per_clip, seconds_per_window, reader: See [`FileClips`].

    Raises:
        ValueError: Fewer than two clips, or groups.
    """

    def __init__(
        self,
        rows,
        processor,
        train: bool,
        seed: int,
        size: int | None = None,
        name: str = "mixtures",
        pairs: Sequence[tuple[int, int]] | None = None,
        groups: Any = None,
        temporal_jitter: bool = True,
        windows_per_clip: int | None = None,
        seconds_per_window: float | None = None,
        reader: Any = None,
    ):
        if len(rows) < 2:
            raise ValueError(f"{name}: expected at least two clips to mix, got {len(rows)}.")
        own = group(arrow_column(rows, "path") if groups is None else groups).numbers
        if train and size is not None and size < len(rows):
            chosen = np.sort(name_order(arrow_column(rows, "path"))[:size])
            rows, own = rows.select(chosen), own[chosen]
        windows = (temporal_jitter, windows_per_clip, seconds_per_window)
        super().__init__(rows, processor, train, seed, None, name, *windows, reader)
        self.groups = np.repeat(own, self.windows)  # numbers
        if train and (self.groups == self.groups[0]).all():
            raise ValueError(f"{name}: expected clips of at least two recordings, got {len(rows)} clips of one.")
        self.in_pairs = not train
        self.pairs = []
        about = f"{self.size_text}, each with another one drawn in every epoch"
        if not train:
            note = ""
            if pairs is None:
                classes = self._class_sets()
                pairs = form_pairs(self.rows["path"], classes, self.groups.tolist())
                same = sum(bool(classes[a] & classes[b]) for a, b in pairs)
                note = f", {same} of them of one class" if same else ""
            self.pairs = _first_pairs(list(pairs), self.rows["path"], size)
            about = f"{count(len(self.pairs), 'pair')} of clips{note}"
        self.card = f"{name}: mixtures of {about}"
        self.label_names, self.multi_label = None, False

    def _class_sets(self) -> list[frozenset[int]]:
        labeled = self.label_names is not None
        return [frozenset(c) for c in row_classes(self.rows)] if labeled else [frozenset()] * len(self.rows)

    def __len__(self) -> int:
        return len(self.rows) if self.train else 2 * len(self.pairs)

    def describe(self, i: int) -> str:
        """The paths of item i's sources."""
        target, other = self.sources(int(i))
        return f"{self.rows[target]['path']} + {self.rows[other]['path']}"

    def annotations(self):
        """The row of each item's target."""
        return self.rows if self.train else self.rows.select([self.sources(i)[0] for i in range(len(self))])

    def sources(self, i: int) -> tuple[int, int]:
        """Rows of item i: the target and the other source."""
        if not self.train:
            first, second = self.pairs[i // 2]
            return (second, first) if i % 2 else (first, second)
        draws = generator(self.seed, Stream.MIXTURE_PARTNERS, self.epoch, i)
        for _ in range(_PARTNER_TRIALS):
            other = int(torch.randint(len(self.rows), (), generator=draws))
            if self.groups[other] != self.groups[i]:
                return i, other
        # Nearly all clips are of one recording: choose among the few others.
        others = np.flatnonzero(self.groups != self.groups[i])
        return i, int(others[int(torch.randint(len(others), (), generator=draws))])

    def __getitems__(self, items: Sequence[int]) -> list[dict | BrokenClip]:
        from deepavfusion.processors import MediaError

        loaded: dict[tuple[int, ...], tuple | MediaError] = {}

        def source(row: int, *place: int):
            if (row, *place) not in loaded:
                try:
                    clip = self.load(self.rows[row], *place)
                    loaded[row, *place] = clip, self.waveform(clip.waveform, clip.sampling_rate)
                except MediaError as error:
                    loaded[row, *place] = error
            return loaded[row, *place]

        samples: list[dict | BrokenClip] = []
        for i in self._check(items):
            # Training draws a window for each source of each item. Both items of a pair need the same two windows, each
            # of which is decoded once.
            places = [(i, k) if self.train else () for k in range(2)]
            sources = [(row, *place) for row, place in zip(self.sources(i), places, strict=True)]
            broken = next((key for key in sources if isinstance(source(*key), MediaError)), None)
            if broken is not None:
                samples.append(BrokenClip(self.rows[broken[0]]["path"], str(loaded[broken]), i))
            else:
                samples.append(
                    self._mix(*(source(*key) for key in sources), i) | {"path": self.describe(i), "index": i}
                )
        return samples

    def _mix(self, target: tuple, other: tuple, i: int) -> dict:
        log_mel = self.processor.feature_extractor.log_mel
        waveforms = torch.stack([target[1], other[1]])
        draws = generator(self.seed, Stream.AUGMENTATION, self.epoch, i) if self.train else None
        sample = {
            "pixel_values": self.pixel_values(target[0], draws),
            "input_features": log_mel(waveforms.sum(0))[None],
            "labels": log_mel(waveforms[0])[None],
        }
        return sample if self.train else sample | {"waveforms": waveforms}


def form_pairs(paths: Sequence[str], classes: Sequence[frozenset[int]], groups: Sequence[Any]) -> list[tuple[int, int]]:
    """Form pairs of clips that depend on the clips' names alone.

    Each clip of the first half of `order_by_name` is paired with the first free clip of the second half that shares
    neither class nor group with it. Where none is free, a clip is used again; where there is none at all, one of the
    same class, then any other.

    Args:
        paths: Paths of the clips.
        classes: Classes of each clip; empty sets where there are no labels.
        groups: Group of each clip.

    Returns:
        (first, second) positions of floor(N / 2) pairs.
    """
    order = order_by_name(paths)
    firsts, seconds = order[: len(order) // 2], order[len(order) // 2 :]
    free = list(seconds)
    pairs = []
    for first in firsts:

        def fits(second: int, first=first) -> bool:
            return groups[second] != groups[first] and not classes[second] & classes[first]

        second = next((j for j in free if fits(j)), None)
        if second is None:
            second = next((j for j in order if j != first and fits(j)), None)
        if second is None:
            second = next((j for j in (*free, *order) if j != first and groups[j] != groups[first]), None)
        if second is None:
            second = next(j for j in (*free, *order) if j != first)
        if second in free:
            free.remove(second)
        pairs.append((first, second))
    return pairs


def _first_pairs(pairs: list[tuple[int, int]], paths: Sequence[str], size: int | None) -> list[tuple[int, int]]:
    """At most `size` / 2 pairs in the dataset's order, chosen by the first clips' names."""
    if size is None or size >= 2 * len(pairs):
        return pairs
    if size < 2:
        raise ValueError(f"Mixtures are evaluated in pairs: expected a size of at least 2, got {size}.")
    paths = list(paths)
    return [pairs[i] for i in sorted(order_by_name(paths[first] for first, _ in pairs)[: size // 2])]
