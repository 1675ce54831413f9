"""Recognition: top-k accuracy, mean average precision, mean area under the ROC."""

import numpy as np
import torch

from .knn import average_precision, roc_auc


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of samples whose class is among the k highest scores (N, C); labels (N,). Ties count against the sample."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(
            f"scores have shape {scores.shape}, labels {labels.shape}: expected (N, C) and (N,), one sample or more."
        )
    _check_numbers(scores)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k is {k}: expected 1 to {scores.shape[1]} classes.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"Labels lie in {labels.min()} .. {labels.max()}: expected 0 .. {scores.shape[1] - 1}.")
    own = scores[np.arange(len(labels)), labels]
    return float(((scores >= own[:, None]).sum(1) <= k).mean())


def scored_classes(targets: np.ndarray) -> np.ndarray:
    """Classes (C,) bool with at least one positive and one negative among targets (N, C): the others have no score."""
    positives = (np.asarray(targets) > 0).sum(0)
    return (positives > 0) & (positives < len(targets))


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over classes of the average precision of scores (N, C) for targets (N, C); see `scored_classes`."""
    return _mean_over_classes(average_precision, scores, targets)


def mean_roc_auc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over classes of the area under the ROC of scores (N, C) for targets (N, C); see `scored_classes`."""
    return _mean_over_classes(roc_auc, scores, targets)


def _mean_over_classes(measure, scores, targets) -> float:
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets) > 0
    if scores.shape != targets.shape or scores.ndim != 2:
        raise ValueError(f"scores have shape {scores.shape}, targets {targets.shape}: expected (N, C) of both.")
    _check_numbers(scores)
    classes = np.flatnonzero(scored_classes(targets))
    if not len(classes):
        raise ValueError("No class is present in some samples and absent from others: nothing to score.")
    values, truth = torch.from_numpy(scores), torch.from_numpy(targets)
    return float(np.mean([measure(values[:, c], truth[:, c]) for c in classes]))


def _check_numbers(scores: np.ndarray) -> None:
    strange = np.flatnonzero(np.isnan(scores).any(1))
    if len(strange):
        raise ValueError(f"The scores of {len(strange)} of {len(scores)} samples hold NaN, first: sample {strange[0]}.")


__all__ = ["mean_average_precision", "mean_roc_auc", "scored_classes", "top_k_accuracy"]
