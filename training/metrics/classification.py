"""Classification metrics: top-k accuracy, mean average precision, mean area under the ROC curve."""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Fraction of samples whose true class is among the k highest scores; ties count against the sample.

    `sklearn.metrics.top_k_accuracy_score` breaks ties by class index, which would give a constant model credit.

    Args:
        scores: (N, C) array.
        labels: (N,) class indices.
        k: Number of classes that may come first, 1 to C.

    Raises:
        ValueError: For mismatched shapes, no samples, NaN scores, or labels or k out of range.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(
            f"Expected scores (N, C) and labels (N,) with N >= 1, got shapes {scores.shape} and {labels.shape}."
        )
    _check_numbers(scores)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"Expected k in 1..{scores.shape[1]} (the number of classes), got {k}.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"Expected labels in 0..{scores.shape[1] - 1}, got {labels.min()}..{labels.max()}.")
    own = scores[np.arange(len(labels)), labels]
    return float(((scores >= own[:, None]).sum(1) <= k).mean())


def scored_classes(targets: np.ndarray) -> np.ndarray:
    """Mask (C,) of the classes with both positives and negatives among targets (N, C); others have no score."""
    positives = (np.asarray(targets) > 0).sum(0)
    return (positives > 0) & (positives < len(targets))


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Macro-averaged average precision of scores (N, C) for targets (N, C), over `scored_classes`."""
    targets, scores = _scored_columns(scores, targets)
    return float(average_precision_score(targets, scores, average="macro"))


def mean_roc_auc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Macro-averaged area under the ROC curve of scores (N, C) for targets (N, C), over `scored_classes`."""
    targets, scores = _scored_columns(scores, targets)
    return float(roc_auc_score(targets, scores, average="macro"))


def class_accuracy(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Fraction of the samples of each class whose highest score is that of the class.

    Args:
        scores: (N, C).
        targets: (N, C) bool, one class for each sample.

    Returns:
        (C,), NaN for classes without samples.
    """
    correct = targets[np.arange(len(scores)), scores.argmax(1)]
    return np.array([correct[of_class].mean() if of_class.any() else np.nan for of_class in targets.T])


def class_average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision (C,) of each class, of scores and targets (N, C); NaN of those that are no `scored_classes`."""
    scored = scored_classes(targets)
    columns = zip(scored, scores.T, targets.T, strict=True)
    return np.array([average_precision_score(own > 0, found) if kept else np.nan for kept, found, own in columns])


def most_frequent_scores(targets: np.ndarray, multi_label: bool) -> dict[str, float]:
    """Scores of a model that answers every sample with the most frequent classes of targets (N, C) bool.

    Returns:
        `precision_at_1` of samples with several labels, else `top1` and `top5`.
    """
    fractions = np.sort(targets.mean(0))[::-1]
    if multi_label:
        return {"precision_at_1": float(fractions[0])}
    return {"top1": float(fractions[0]), "top5": float(fractions[:5].sum())}


def _scored_columns(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets) > 0
    if scores.shape != targets.shape or scores.ndim != 2:
        raise ValueError(f"Expected scores and targets (N, C), got shapes {scores.shape} and {targets.shape}.")
    _check_numbers(scores)
    kept = scored_classes(targets)
    if not kept.any():
        raise ValueError("Nothing to score: no class has both positive and negative samples.")
    return targets[:, kept], scores[:, kept]


def _check_numbers(scores: np.ndarray) -> None:
    invalid = np.flatnonzero(np.isnan(scores).any(1))
    if len(invalid):
        raise ValueError(
            f"The scores of {len(invalid)} of {len(scores)} samples contain NaN, first sample {invalid[0]}."
        )


__all__ = [
    "class_accuracy",
    "class_average_precision",
    "mean_average_precision",
    "mean_roc_auc",
    "most_frequent_scores",
    "scored_classes",
    "top_k_accuracy",
]
