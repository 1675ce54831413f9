"""Class frequencies of training clips, and sampling weights that balance the classes."""

import numpy as np
import torch

from .clips import ClipDataset
from .files import FileClips
from .sets.groups import Labels, label_arrays, labels_of


def _labels(clips: ClipDataset) -> Labels:
    """(clip, class) of every label of every clip, two arrays of equal length."""
    if clips.label_names is None:
        raise ValueError(f"Expected clips with labels, got {clips.card}.")
    if isinstance(clips, FileClips):
        return label_arrays(clips.rows)
    return labels_of(clips.classes())


def label_frequencies(clips: ClipDataset) -> torch.Tensor:
    """Fraction of the clips that have each class, (classes,) float32.

    Raises:
        ValueError: For clips without labels.
    """
    _, labels = _labels(clips)
    counts = np.bincount(labels, minlength=len(clips.label_names))
    return torch.from_numpy(counts / max(len(clips), 1)).float()


def class_balanced_weights(clips: ClipDataset) -> torch.Tensor:
    """Relative sampling weights of the clips, (N,) float64: the sum over a clip's classes of the inverse class count.

    With one label per clip every class is drawn equally often. With several, the rule is the usual one for AudioSet
    (Kong et al. 2020, Gong et al. 2021): rare classes are drawn more often, and frequent ones still occur along with
    them. Clips without any label get the smallest weight of the others.

    Raises:
        ValueError: For clips without labels.
    """
    owners, labels = _labels(clips)
    counts = np.bincount(labels, minlength=len(clips.label_names))
    weights = np.bincount(owners, 1 / counts[labels], minlength=len(clips))
    labeled = weights > 0
    weights[~labeled] = weights[labeled].min() if labeled.any() else 1.0
    return torch.from_numpy(weights)


__all__ = ["class_balanced_weights", "label_frequencies"]
