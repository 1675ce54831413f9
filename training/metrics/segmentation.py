"""Audio-visual segmentation metrics as commonly reported (Zhou et al. 2022): foreground mIoU, F, class means."""

from collections.abc import Sequence

import numpy as np

BETA_SQUARED = 0.3
F_THRESHOLDS = np.linspace(0, 1 - 1e-10, 255)
IGNORED = 255


def image_iou(predicted: np.ndarray, target: np.ndarray) -> float:
    """Foreground IoU of masks (H, W) bool; for an empty target, the fraction of pixels predicted as background."""
    predicted, target = _same_shape(np.asarray(predicted, bool), np.asarray(target, bool))
    if not target.any():
        return float((~predicted).mean())
    return float(np.count_nonzero(predicted & target) / np.count_nonzero(predicted | target))


def probability_map(values: np.ndarray) -> np.ndarray:
    """The map as a float array; raises ValueError for values outside 0..1, such as logits, and for NaN."""
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails both
        raise ValueError(
            f"Expected probabilities in 0..1 without NaN, got {values.min()}..{values.max()}: are these logits?"
        )
    return values


def precision_recall(probability: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Precision and recall (2, 255) of one image at the thresholds `F_THRESHOLDS`; 0 where nothing is predicted."""
    probability, target = _same_shape(probability_map(probability), np.asarray(target, bool))
    return foreground_curve(probability.astype(np.float64), target, F_THRESHOLDS)


def foreground_curve(probability: np.ndarray, target: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Precision and recall (2, thresholds) of the pixels at or above each threshold; inputs are not validated."""
    # Binary search in sorted values: one pass instead of one for each threshold.
    everything, hits = np.sort(probability, axis=None), np.sort(probability[target])
    predicted = len(everything) - np.searchsorted(everything, thresholds, side="left")
    true_positives = len(hits) - np.searchsorted(hits, thresholds, side="left")
    return np.stack([true_positives / np.maximum(predicted, 1), true_positives / max(len(hits), 1)])


def f_measure(precision, recall) -> np.ndarray:
    """F with beta squared 0.3: (1 + b) p r / (b p + r), 0 where both are 0."""
    precision, recall = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    return (1 + BETA_SQUARED) * precision * recall / np.maximum(BETA_SQUARED * precision + recall, 1e-12)


def max_f(curves: Sequence[np.ndarray] | np.ndarray) -> float:
    """The largest F on the mean of the images' curves, each (2, 255) from `precision_recall`."""
    return float(f_measure(*np.mean(_curves(curves), axis=0)).max())


def avsbench_f(curves: Sequence[np.ndarray] | np.ndarray, has_foreground: Sequence[bool]) -> float:
    """F as in AVSBench's scorer: the largest value, over thresholds, of the images' mean F.

    `max_f` takes F of the mean precision and recall instead; the two differ little.

    Args:
        curves: One (2, 255) array per image, from `precision_recall`.
        has_foreground: One flag per image; images without foreground are excluded.

    Raises:
        ValueError: If no image has foreground, or the lengths differ.
    """
    curves, kept = _curves(curves), np.asarray(has_foreground, bool)
    if kept.shape != curves.shape[:1]:
        raise ValueError(f"Expected one flag per curve, got {len(curves)} curves and has_foreground {kept.shape}.")
    if not kept.any():
        raise ValueError(f"F is not defined: none of {len(kept)} images has foreground.")
    return float(f_measure(curves[kept, 0], curves[kept, 1]).mean(0).max())


def _curves(curves: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 3 or curves.shape[1] != 2 or not len(curves):
        raise ValueError(f"Expected curves (images, 2, thresholds) of at least one image, got shape {curves.shape}.")
    return curves


def _same_shape(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if predicted.shape != target.shape or not target.size:
        raise ValueError(
            f"Expected prediction and target of the same non-empty shape, got {predicted.shape} and {target.shape}."
        )
    return predicted, target


def class_totals(
    target: np.ndarray, predicted: np.ndarray, num_classes: int | None = None, ignored: int = IGNORED
) -> np.ndarray:
    """Pixel counts of one image that class scores are computed from.

    Args:
        target: (H, W) class indices; pixels whose target is `ignored` do not count.
        predicted: (H, W) class indices.
        num_classes: Number of classes; by default one more than the largest class that counts.
        ignored: Target value of the pixels to ignore.

    Returns:
        (3, classes) int64: true positives, target pixels, predicted pixels. The sum over images gives `class_scores`.

    Raises:
        ValueError: For mismatched shapes, an empty image, or class indices out of range.
    """
    predicted, target = _same_shape(np.asarray(predicted), np.asarray(target))
    seen = target != ignored
    target, predicted = target[seen].astype(np.int64), predicted[seen].astype(np.int64)
    both = np.concatenate([target, predicted])
    count = num_classes if num_classes is not None else int(both.max(initial=-1)) + 1
    if both.size and (both.min() < 0 or both.max() >= count):
        raise ValueError(
            f"Expected classes 0..{count - 1}, or {ignored} for target pixels to ignore, got targets in "
            f"{target.min()}..{target.max()} and predictions in {predicted.min()}..{predicted.max()}."
        )
    return np.stack([np.bincount(v, minlength=count) for v in (target[target == predicted], target, predicted)])


def class_scores(totals: np.ndarray) -> dict[str, float]:
    """`miou` and `f`, averaged over the classes in targets or predictions, from `class_totals` summed over images."""
    each = scores_per_class(totals)
    if np.isnan(each["iou"]).all():
        raise ValueError("Nothing to score: every pixel is ignored.")
    return {"miou": float(np.nanmean(each["iou"])), "f": float(np.nanmean(each["f"]))}


def scores_per_class(totals: np.ndarray) -> dict[str, np.ndarray]:
    """`iou` and `f` of each class, (C,), NaN for those neither in targets nor in predictions; see `class_scores`."""
    totals = np.asarray(totals)
    if totals.ndim != 2 or len(totals) != 3:
        raise ValueError(f"Expected totals (3, classes), got shape {totals.shape}.")
    hits, target, predicted = totals
    union = target + predicted - hits
    f = f_measure(hits / np.maximum(predicted, 1), hits / np.maximum(target, 1))
    seen = union > 0
    return {"iou": np.where(seen, hits / np.maximum(union, 1), np.nan), "f": np.where(seen, f, np.nan)}


__all__ = [
    "BETA_SQUARED",
    "F_THRESHOLDS",
    "IGNORED",
    "avsbench_f",
    "class_scores",
    "class_totals",
    "f_measure",
    "foreground_curve",
    "image_iou",
    "max_f",
    "scores_per_class",
    "precision_recall",
    "probability_map",
]
