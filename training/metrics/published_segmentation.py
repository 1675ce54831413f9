"""Segmentation as the published evaluation of DeepAVFusion counts it, beside the field's in `segmentation`.

It differs from the field's in four ways: pictures without foreground are skipped; precision, recall, IoU and F are
ratios within a picture, averaged over the pictures in which a class is found or true; the background is a class of the
mean (the names that end in `_no_background` leave it out); the threshold of the binary F is the best one of every
picture by itself. It was applied to the validation split; which split is given here is up to the caller. With classes
and without the skipped pictures, this is the scorer of AVSBench-semantic.
"""

from collections.abc import Sequence

import numpy as np

from .segmentation import IGNORED, class_pair, confusions, f_measure, foreground_curve, probability_map

THRESHOLDS = np.linspace(0, 1 - 1e-10, 256, dtype=np.float32)
MEASURES = ("miou", "precision", "recall", "f")


def published_scores(truth: np.ndarray, found: np.ndarray, num_classes: int, ignored: int = IGNORED):
    """
    Ratios of one picture for each class.

    Args:
        truth, found: (H, W) class indices, 0 the background; pixels whose truth is `ignored` do not count.

    Returns:
        (4, num_classes): IoU, precision, recall and F (beta squared 0.3), NaN for classes that are neither true nor
        found; or None where the truth has no foreground.
    """
    counts = confusions(truth, found, num_classes, ignored)
    return ratios_of_totals(np.stack([np.diag(counts), counts.sum(1), counts.sum(0)]))


def ratios_of_totals(totals: np.ndarray):
    """`published_scores` from a picture's pixel counts (3, classes): right, true, found."""
    hits, true, guessed = totals
    if not true[1:].any():
        return None
    union = true + guessed - hits
    precision, recall = hits / np.maximum(guessed, 1), hits / np.maximum(true, 1)
    scores = np.stack([hits / np.maximum(union, 1), precision, recall, f_measure(precision, recall)])
    scores[:, union == 0] = np.nan
    return scores


def published_binary_scores(truth: np.ndarray, probability: np.ndarray, ignored: int = IGNORED):
    """
    `published_scores` of two classes at probability 0.5, with the F of the foreground at its best of 256 thresholds.

    Args:
        truth: (H, W), 0 or 1, or `ignored`.
        probability: (H, W) of foreground in 0..1.

    Returns:
        (4, 2), the last row twice that F; or None where the truth has no foreground.
    """
    truth, probability = class_pair(truth, probability_map(probability))
    seen = truth != ignored
    truth, probability = truth[seen], probability[seen]
    scores = published_scores(truth, probability > 0.5, 2)
    if scores is not None:
        scores[3] = f_measure(*foreground_curve(probability.astype(np.float32), truth == 1, THRESHOLDS)).max()
    return scores


def published_summary(scores: Sequence[np.ndarray | None]) -> dict[str, float]:
    """
    Means over pictures, then over the classes that occur in any.

    Args:
        scores: of every picture, from `published_scores` or `published_binary_scores`; None is skipped.

    Returns:
        `miou`, `precision`, `recall`, `f`, and each with the ending `_no_background`, in 0..1.

    Raises:
        ValueError: where no picture has foreground.
    """
    kept = [part for part in scores if part is not None]
    if not kept:
        raise ValueError(f"None of {len(scores)} pictures has foreground: there is nothing to score.")
    stacked = np.stack(kept)
    occurs = ~np.isnan(stacked[:, 0]).all(0)
    means = np.nanmean(stacked[:, :, occurs], axis=0)
    foreground = np.flatnonzero(occurs) > 0
    result = {name: float(row.mean()) for name, row in zip(MEASURES, means, strict=True)}
    for name, row in zip(MEASURES, means, strict=True):
        result[f"{name}_no_background"] = float(row[foreground].mean())
    return result


__all__ = [
    "MEASURES",
    "THRESHOLDS",
    "published_binary_scores",
    "published_scores",
    "published_summary",
    "ratios_of_totals",
]
