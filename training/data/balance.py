"""How often classes occur among training clips, and how often to draw clips so that rare classes are seen."""

import torch

from deepavfusion.training.data.clips import Clips


def label_matrix(clips: Clips) -> torch.Tensor:
    """Labels of all clips, (N, classes) float 0/1, without reading any media.

    Raises:
        ValueError: for clips without labels.
    """
    if clips.label_names is None:
        raise ValueError(f"Expected clips with labels, got {clips.card}.")
    matrix = torch.zeros(len(clips), len(clips.label_names))
    for row, classes in zip(matrix, clips.classes(), strict=True):
        row[classes] = 1
    return matrix


def label_frequencies(clips: Clips) -> torch.Tensor:
    """Share of the clips that have each class, (classes,)."""
    return label_matrix(clips).mean(0)


def class_balanced_weights(clips: Clips) -> torch.Tensor:
    """
    How often to draw each clip, (N,), relative to each other: the sum over its classes of one over their counts.

    With one label a clip every class is drawn equally often. With several, the rule is the usual one for AudioSet (Kong
    et al. 2020, Gong et al. 2021): rare classes come up more often, and frequent ones still do in their company.
    Clips without any label are drawn as rarely as the rarest drawn.
    """
    matrix = label_matrix(clips)
    counts = matrix.sum(0)
    weights = matrix @ torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
    return torch.where(weights > 0, weights, weights[weights > 0].min() if bool((weights > 0).any()) else 1.0)


__all__ = ["class_balanced_weights", "label_frequencies", "label_matrix"]
