"""Mixtures of two clips' sounds, to be separated by the clips' frames."""

from collections.abc import Sequence

import torch

from .clips import BrokenClip, FileClips
from .random import Stream, generator
from .sets.folder import order_by_name

_PARTNER_TRIALS = 100


class MixtureClips(FileClips):
    """
    Two clips of which one is wanted: `pixel_values` is its frame, `labels` the log-mel of its sound, and
    `input_features` the log-mel of both sounds added, as they are, neither weighted nor scaled. `path` names both.

    In training item i is clip i with a partner drawn anew in every epoch from all clips but those of the same group;
    the frame is cropped and flipped as `ClipAugmentation` draws. In evaluation items 2k and 2k + 1 are the sources of
    pair k, which never changes, and hold `waveforms` (2, N) float32 too: the wanted source and the other, full windows
    at the extractor's rate. A clip that cannot be read breaks both items of its pair, so that pairs stay whole; of
    either, picture and sound are needed.

    Args:
        rows: As `FileClips` has them.
        size: How many items at most: clips in training, and in evaluation twice the number of pairs.
        pairs: Positions in `rows` of evaluation's pairs. None pairs the clips off, each with one of other classes.
        groups: What belongs together, such as parts of one recording, for each row. None: every row for itself.

    The rest are those of [`FileClips`].

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
        groups: Sequence[str] | None = None,
    ):
        if len(rows) < 2:
            raise ValueError(f"{name}: mixtures need two clips at least, got {len(rows)}")
        groups = list(rows["path"]) if groups is None else list(groups)
        if train and size is not None and size < len(rows):
            chosen = sorted(order_by_name(rows["path"])[:size])
            rows, groups = rows.select(chosen), [groups[i] for i in chosen]
        super().__init__(rows, processor, train, seed, None, name)
        self.groups = groups
        if train and len(set(groups)) < 2:
            raise ValueError(f"{name}: all {len(rows)} clips are of one recording: expected two recordings at least")
        self.in_pairs = not train
        self.pairs: list[tuple[int, int]] = []
        about = f"{len(rows)} clips, each with another drawn anew in every epoch"
        if not train:
            same = ""
            if pairs is None:
                pairs = pair_off(self.rows["path"], self._class_sets(), groups)
                same = self._say_same_class(pairs)
            self.pairs = _first_pairs(list(pairs), self.rows["path"], size)
            about = f"{len(self.pairs)} pairs of clips{same}"
        self.card = f"{name}: mixtures of {about}"
        self.label_names, self.multi_label = None, False

    def _class_sets(self) -> list[frozenset[int]]:
        return [frozenset()] * len(self.rows) if self.label_names is None else [frozenset(c) for c in self.classes()]

    def _say_same_class(self, pairs: list[tuple[int, int]]) -> str:
        classes = self._class_sets()
        same = sum(bool(classes[a] & classes[b]) for a, b in pairs)
        return f", {same} of them of one class" if same else ""

    def __len__(self) -> int:
        return len(self.rows) if self.train else 2 * len(self.pairs)

    def describe(self, i: int) -> str:
        first, second = self.sources(int(i))
        return f"{self.rows[first]['path']} + {self.rows[second]['path']}"

    def sources(self, i: int) -> tuple[int, int]:
        """Rows of item i: the wanted one and the other."""
        if not self.train:
            first, second = self.pairs[i // 2]
            return (second, first) if i % 2 else (first, second)
        draws = generator(self.seed, Stream.MIXTURE_PARTNERS, self.epoch, i)
        for _ in range(_PARTNER_TRIALS):
            other = int(torch.randint(len(self.rows), (), generator=draws))
            if self.groups[other] != self.groups[i]:
                return i, other
        # Nearly all clips are of one recording: choose among the few others.
        others = [j for j, group in enumerate(self.groups) if group != self.groups[i]]
        return i, others[int(torch.randint(len(others), (), generator=draws))]

    def __getitems__(self, items: Sequence[int]) -> list[dict | BrokenClip]:
        from deepavfusion.processors import MediaError

        loaded: dict[int, tuple | MediaError] = {}  # both items of a pair need both clips: each is decoded once

        def source(row: int):
            if row not in loaded:
                try:
                    clip = self.load(self.rows[row])
                    loaded[row] = clip, self._window(clip)
                except MediaError as error:
                    loaded[row] = error
            return loaded[row]

        samples: list[dict | BrokenClip] = []
        for i in self._check(items):
            rows = self.sources(i)
            broken = next((row for row in rows if isinstance(source(row), MediaError)), None)
            if broken is not None:
                samples.append(BrokenClip(self.rows[broken]["path"], str(loaded[broken]), i))
            else:
                samples.append(self._mix(*(source(row) for row in rows), i) | {"path": self.describe(i), "index": i})
        return samples

    def _window(self, clip) -> torch.Tensor:
        """A clip's sound, (N,): one channel, a full window at the extractor's rate."""
        from deepavfusion.processors.feature_extraction_deepavfusion import fill_window

        extractor = self.processor.feature_extractor
        return fill_window(extractor.waveforms(clip.waveform, clip.sampling_rate)[0], extractor.num_samples)

    def _mix(self, wanted: tuple, other: tuple, i: int) -> dict:
        log_mel = self.processor.feature_extractor.log_mel
        waveforms = torch.stack([wanted[1], other[1]])
        draws = generator(self.seed, Stream.AUGMENTATION, self.epoch, i) if self.train else None
        sample = {
            "pixel_values": self.pictures(wanted[0], draws),
            "input_features": log_mel(waveforms.sum(0))[None],
            "labels": log_mel(waveforms[0])[None],
        }
        return sample if self.train else sample | {"waveforms": waveforms}


def pair_off(paths: Sequence[str], classes: Sequence[frozenset[int]], groups: Sequence[str]) -> list[tuple[int, int]]:
    """
    Pairs of clips that depend on the clips' names alone: those in the first half of `order_by_name`, each with the
    first of the second half that shares no class and no group with it and is not taken yet. Where all such are taken,
    one is taken again; where there are none, one of the same class, then any other.

    Args:
        paths: Of the clips.
        classes: Of each clip; empty sets where they have none.
        groups: Recording of each clip.

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
    """As many pairs as make `size` items, in the data set's order; which ones depends on the first clips' names."""
    if size is None or size >= 2 * len(pairs):
        return pairs
    if size < 2:
        raise ValueError(f"mixtures are evaluated in pairs: expected a size of at least 2, got {size}")
    paths = list(paths)
    return [pairs[i] for i in sorted(order_by_name(paths[first] for first, _ in pairs)[: size // 2])]
