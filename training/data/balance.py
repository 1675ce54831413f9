"""How often classes occur among training clips, and how often to draw clips so that rare classes are seen."""

import numpy as np
import torch

from .clips import Clips


def _labels(clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """(clip, class) of every label of every clip: two arrays as long as there are labels."""
    if clips.label_names is None:
        raise ValueError(f"Expected clips with labels, got {clips.card}.")
    classes = [sorted(set(row)) for row in clips.classes()]
    owners = np.repeat(np.arange(len(classes)), [len(row) for row in classes])
    return owners, np.fromiter((label for row in classes for label in row), np.int64, len(owners))


def label_frequencies(clips: Clips) -> torch.Tensor:
    """Share of the clips that have each class, (classes,) float32.

    Raises:
        ValueError: for clips without labels.
    """
    _, labels = _labels(clips)
    counts = np.bincount(labels, minlength=len(clips.label_names))
    return torch.from_numpy(counts / max(len(clips), 1)).float()


def class_balanced_weights(clips: Clips) -> torch.Tensor:
    """
    How often to draw each clip, (N,) float64, relative to each other: the sum over its classes of one over their
    counts.

    With one label a clip every class is drawn equally often. With several, the rule is the usual one for AudioSet (Kong
    et al. 2020, Gong et al. 2021): rare classes come up more often, and frequent ones still do in their company.
    Clips without any label are drawn as rarely as the rarest drawn.

    Raises:
        ValueError: for clips without labels.
    """
    owners, labels = _labels(clips)
    counts = np.bincount(labels, minlength=len(clips.label_names))
    weights = np.bincount(owners, 1 / counts[labels], minlength=len(clips))
    drawn = weights > 0
    weights[~drawn] = weights[drawn].min() if drawn.any() else 1.0
    return torch.from_numpy(weights)


__all__ = ["class_balanced_weights", "label_frequencies"]
