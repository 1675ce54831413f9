"""Audio-visual segmentation as the field measures it (Zhou et al. 2022): foreground mIoU, F, and class means."""

from collections.abc import Sequence

import numpy as np

BETA_SQUARED = 0.3
F_THRESHOLDS = np.linspace(0, 1 - 1e-10, 255)
IGNORED = 255


def image_iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Foreground IoU of masks (H, W) bool; where the truth is empty, the share of pixels that were left empty."""
    found, truth = np.asarray(found, bool), np.asarray(truth, bool)
    if found.shape != truth.shape or not truth.size:
        raise ValueError(
            f"The found mask has shape {found.shape}, the true one {truth.shape}: expected the same, not empty."
        )
    if not truth.any():
        return float((~found).mean())
    return float(np.count_nonzero(found & truth) / np.count_nonzero(found | truth))


def probability_map(values: np.ndarray) -> np.ndarray:
    """The map as it is; raises ValueError where it holds something else than numbers in 0..1."""
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails both
        raise ValueError(
            f"The map holds values from {values.min()} to {values.max()}: expected probabilities in 0..1, not logits, "
            "and no NaN."
        )
    return values


def precision_recall(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(2, 255) precision and recall of one picture at the thresholds of `F_THRESHOLDS`; 0 where nothing is found."""
    probability, truth = probability_map(probability), np.asarray(truth, bool)
    if probability.shape != truth.shape or not truth.size:
        raise ValueError(
            f"The map has shape {probability.shape}, the truth {truth.shape}: expected the same, not empty."
        )
    return foreground_curve(probability.astype(np.float64), truth, F_THRESHOLDS)


def foreground_curve(probability: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(2, thresholds) precision and recall of the pixels at or above each threshold. Its inputs are not checked."""
    # From sorted values: one pass instead of one for each threshold.
    everything, hits = np.sort(probability, axis=None), np.sort(probability[truth])
    found = len(everything) - np.searchsorted(everything, thresholds, side="left")
    right = len(hits) - np.searchsorted(hits, thresholds, side="left")
    return np.stack([right / np.maximum(found, 1), right / max(len(hits), 1)])


def f_measure(precision, recall):
    """F with beta squared 0.3: (1 + b) p r / (b p + r), 0 where both are 0."""
    precision, recall = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    return (1 + BETA_SQUARED) * precision * recall / np.maximum(BETA_SQUARED * precision + recall, 1e-12)


def max_f(curves: Sequence[np.ndarray]) -> float:
    """The largest F on the mean of the pictures' curves, each (2, 255) from `precision_recall`."""
    return float(f_measure(*np.mean(_curves(curves), axis=0)).max())


def avsbench_f(curves: Sequence[np.ndarray] | np.ndarray, has_foreground: Sequence[bool]) -> float:
    """
    F as AVSBench's own scorer takes it: the mean of the pictures' F at each threshold, at its largest.

    `max_f` takes F of the mean precision and recall instead; the two differ by little.

    Args:
        curves: each (2, 255), from `precision_recall`.
        has_foreground: of every picture; those without are left out.
    """
    curves, kept = _curves(curves), np.asarray(has_foreground, bool)
    if kept.shape != curves.shape[:1]:
        raise ValueError(f"There are {len(curves)} curves, but has_foreground has shape {kept.shape}.")
    if not kept.any():
        raise ValueError(f"None of {len(kept)} pictures has foreground: there is no F.")
    return float(f_measure(curves[kept, 0], curves[kept, 1]).mean(0).max())


def _curves(curves: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 3 or curves.shape[1] != 2 or not len(curves):
        raise ValueError(
            f"The curves have shape {curves.shape}: expected (pictures, 2, thresholds), one picture or more."
        )
    return curves


def class_pair(truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays; raises ValueError where their shapes differ or they are empty."""
    truth, found = np.asarray(truth), np.asarray(found)
    if truth.shape != found.shape or not truth.size:
        raise ValueError(
            f"The truth has shape {truth.shape}, what was found {found.shape}: expected the same, not empty."
        )
    return truth, found


def confusions(truth: np.ndarray, found: np.ndarray, num_classes: int, ignored: int = IGNORED) -> np.ndarray:
    """(C, C) pixel counts, rows the truth; pixels whose truth is `ignored` do not count."""
    truth, found = (values.ravel().astype(np.int64) for values in class_pair(truth, found))
    seen = truth != ignored
    truth, found = truth[seen], found[seen]
    if len(truth) and (min(truth.min(), found.min()) < 0 or max(truth.max(), found.max()) >= num_classes):
        raise ValueError(
            f"True labels lie in {truth.min()} .. {truth.max()}, found ones in {found.min()} .. {found.max()}: "
            f"expected 0 .. {num_classes - 1}, or {ignored} where the truth is to be ignored."
        )
    return np.bincount(truth * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_totals(truth: np.ndarray, found: np.ndarray, ignored: int = IGNORED) -> np.ndarray:
    """
    What the scores of classes need of a picture, without `confusions`' table of all pairs.

    Args:
        truth, found: (H, W) class indices; pixels whose truth is `ignored` do not count.

    Returns:
        (3, classes) pixel counts: right, true, found; up to the largest class that counts.

    Raises:
        ValueError: for shapes that differ, an empty picture, or class indices below 0.
    """
    truth, found = (values.ravel().astype(np.int64) for values in class_pair(truth, found))
    seen = truth != ignored
    truth, found = truth[seen], found[seen]
    if not len(truth):
        return np.zeros((3, 0), np.int64)
    if min(truth.min(), found.min()) < 0:
        raise ValueError(f"The smallest class is {min(truth.min(), found.min())}: expected 0 or more.")
    count = max(truth.max(), found.max()) + 1
    return np.stack([np.bincount(values, minlength=count) for values in (truth[truth == found], truth, found)])


def class_scores(counts: np.ndarray) -> dict[str, float]:
    """`miou` and `f`: means over the classes that occur or are found, from `confusions` summed over pictures."""
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"The counts have shape {counts.shape}: expected (classes, classes).")
    return scores_of_totals(np.stack([np.diag(counts), counts.sum(1), counts.sum(0)]))


def scores_of_totals(totals: np.ndarray) -> dict[str, float]:
    """`class_scores`, from `class_totals` summed over pictures."""
    totals = np.asarray(totals)
    if totals.ndim != 2 or len(totals) != 3:
        raise ValueError(f"The totals have shape {totals.shape}: expected (3, classes).")
    if not totals.any():
        raise ValueError("No pixel was counted: there is nothing to score.")
    hits, truth, found = totals[:, totals[1:].any(0)]
    f = f_measure(hits / np.maximum(found, 1), hits / np.maximum(truth, 1))
    return {"miou": float((hits / (truth + found - hits)).mean()), "f": float(f.mean())}


__all__ = [
    "BETA_SQUARED",
    "F_THRESHOLDS",
    "IGNORED",
    "avsbench_f",
    "class_pair",
    "class_scores",
    "class_totals",
    "confusions",
    "f_measure",
    "foreground_curve",
    "image_iou",
    "max_f",
    "precision_recall",
    "probability_map",
    "scores_of_totals",
]
