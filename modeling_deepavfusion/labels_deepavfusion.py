"""Labels of the heads: which ones do not count, checks, and label smoothing."""

import torch

from .presence_deepavfusion import reads_values

IGNORED = -100  # as in transformers: a sample, pixel or position with this label does not count in the loss


def class_indices(labels: torch.Tensor, shape: tuple[int, ...], num_labels: int, ignored: int = IGNORED):
    """Check class indices.

    Args:
        labels: Integers of any kind; -100 and `ignored` do not count.
        shape: Expected shape.
        num_labels: Number of classes.
        ignored: A second label that does not count.

    Returns:
        int64, with -100 for all that do not count.

    Raises:
        ValueError: If labels are no integers, have another shape, or are no class.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.shape != shape:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}: expected integers of shape {tuple(shape)}."
        )
    labels = labels.long()
    labels = labels.masked_fill(labels == ignored, IGNORED)
    if reads_values():
        unknown = labels[(labels != IGNORED) & ((labels < 0) | (labels >= num_labels))].unique().tolist()
        if unknown:
            also = "" if ignored == IGNORED else f" or {ignored}"
            raise ValueError(
                f"labels include {', '.join(map(str, unknown[:5]))}{', ...' if len(unknown) > 5 else ''}: expected "
                f"class indices from 0 to {num_labels - 1}, or {IGNORED}{also} for what does not count."
            )
    return labels


def probabilities(labels: torch.Tensor, ignored: int = IGNORED) -> tuple[torch.Tensor, torch.Tensor]:
    """Check labels that are probabilities, 0/1 among them.

    Args:
        labels: Any shape and real dtype; -100 and `ignored` do not count.
        ignored: A second label that does not count.

    Returns:
        float32 labels, 0 where they do not count; and which count, bool of the same shape.

    Raises:
        ValueError: If a label is outside 0..1.
    """
    labels = labels.float()
    known = (labels != IGNORED) & (labels != ignored)
    labels = labels.masked_fill(~known, 0.0)
    if reads_values() and not bool(((labels >= 0) & (labels <= 1)).all()):
        raise ValueError(
            f"labels lie in {labels.min():.3g} .. {labels.max():.3g}: expected values in 0 .. 1, or {IGNORED} for what "
            "does not count."
        )
    return labels, known


def smooth(targets: torch.Tensor, fraction: float, num_classes: int = 2) -> torch.Tensor:
    """Spread a fraction of target probabilities evenly over the classes."""
    return targets * (1 - fraction) + fraction / num_classes if fraction else targets


def mean_of_known(losses: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean of losses over those that count, `known` bool of the same shape; 0 if none does."""
    return losses.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


__all__ = ["IGNORED", "class_indices", "mean_of_known", "probabilities", "smooth"]
