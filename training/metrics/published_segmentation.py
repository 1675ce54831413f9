"""Segmentation metrics as computed by DeepAVFusion's published evaluation code, beside those in `segmentation`.

They differ in four ways: images without foreground are skipped; precision, recall, IoU and F are per-image ratios,
averaged over the images in which a class is present or predicted; the background counts as a class (the names ending in
`_no_background` exclude it); the binary F uses each image's own best threshold. The published numbers are of the
validation split; here the caller chooses the split. For semantic masks, and apart from the skipped images, this is the
scorer of AVSBench-semantic.
"""

from collections.abc import Sequence

import numpy as np

from .segmentation import IGNORED, class_totals, f_measure, foreground_curve, probability_map

THRESHOLDS = np.linspace(0, 1 - 1e-10, 256, dtype=np.float32)
MEASURES = ("miou", "precision", "recall", "f")


def published_scores(
    target: np.ndarray, predicted: np.ndarray, num_classes: int, ignored: int = IGNORED
) -> np.ndarray | None:
    """Per-class ratios of one image.

    Args:
        target: (H, W) class indices, 0 for background; pixels whose target is `ignored` do not count.
        predicted: (H, W) class indices.
        num_classes: Number of classes, including the background.
        ignored: Target value of the pixels to ignore.

    Returns:
        (4, num_classes): IoU, precision, recall and F (beta squared 0.3), NaN for classes neither present nor
        predicted; None if the target has no foreground.
    """
    return ratios_of_totals(class_totals(target, predicted, num_classes, ignored))


def ratios_of_totals(totals: np.ndarray) -> np.ndarray | None:
    """`published_scores` from `class_totals` (3, classes) of one image."""
    hits, target, predicted = totals
    if not target[1:].any():
        return None
    union = target + predicted - hits
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(target, 1)
    scores = np.stack([hits / np.maximum(union, 1), precision, recall, f_measure(precision, recall)])
    scores[:, union == 0] = np.nan
    return scores


def published_binary_scores(target: np.ndarray, probability: np.ndarray, ignored: int = IGNORED) -> np.ndarray | None:
    """`published_scores` of binary masks at probability 0.5, with the foreground's F at its best of 256 thresholds.

    Args:
        target: (H, W), 0 or 1, or `ignored`.
        probability: (H, W) foreground probability in 0..1.
        ignored: Target value of the pixels to ignore.

    Returns:
        (4, 2), the last row holding that F twice; None if the target has no foreground.
    """
    target, probability = np.asarray(target), probability_map(probability)
    scores = published_scores(target, probability > 0.5, 2, ignored)
    if scores is not None:
        seen = target != ignored
        curve = foreground_curve(probability[seen].astype(np.float32), target[seen] == 1, THRESHOLDS)
        scores[3] = f_measure(*curve).max()
    return scores


def published_summary(scores: Sequence[np.ndarray | None]) -> dict[str, float]:
    """Means over images, then over the classes that occur in any of them.

    Args:
        scores: One entry per image, from `published_scores` or `published_binary_scores`; None is skipped.

    Returns:
        `miou`, `precision`, `recall`, `f`, and each with the suffix `_no_background`, in 0..1.

    Raises:
        ValueError: If no image has foreground.
    """
    kept = [part for part in scores if part is not None]
    if not kept:
        raise ValueError(f"Nothing to score: none of {len(scores)} images has foreground.")
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
