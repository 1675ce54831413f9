"""Audio-visual segmentation as the field measures it (Zhou et al. 2022): foreground mIoU, F, and class means."""

import numpy as np

BETA_SQUARED = 0.3
F_THRESHOLDS = np.linspace(0, 1 - 1e-10, 255)


def image_iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Foreground IoU of masks (H, W) bool; where the truth is empty, the share of pixels that were left empty."""
    found, truth = np.asarray(found, bool), np.asarray(truth, bool)
    if found.shape != truth.shape:
        raise ValueError(f"The found mask has shape {found.shape}, the true one {truth.shape}.")
    if not truth.any():
        return float((~found).mean())
    return float(np.count_nonzero(found & truth) / np.count_nonzero(found | truth))


def precision_recall(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(2, 255) precision and recall of one picture at the thresholds of `F_THRESHOLDS`; 0 where nothing is found."""
    probability, truth = np.asarray(probability, np.float64).ravel(), np.asarray(truth, bool).ravel()
    if probability.shape != truth.shape:
        raise ValueError(f"The map has {probability.size} pixels, the truth {truth.size}.")
    # Pixels at or above a threshold, from sorted values: one pass instead of 255.
    everything, hits = np.sort(probability), np.sort(probability[truth])
    found = len(everything) - np.searchsorted(everything, F_THRESHOLDS, side="left")
    right = len(hits) - np.searchsorted(hits, F_THRESHOLDS, side="left")
    return np.stack([right / np.maximum(found, 1), right / max(int(truth.sum()), 1)])


def f_measure(precision, recall):
    """F with beta squared 0.3: (1 + b) p r / (b p + r), 0 where both are 0."""
    precision, recall = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    return (1 + BETA_SQUARED) * precision * recall / np.maximum(BETA_SQUARED * precision + recall, 1e-12)


def confusions(truth: np.ndarray, found: np.ndarray, num_classes: int, ignored: int = 255) -> np.ndarray:
    """(C, C) pixel counts, rows the truth; pixels labelled `ignored` do not count."""
    truth, found = np.asarray(truth).ravel().astype(np.int64), np.asarray(found).ravel().astype(np.int64)
    seen = truth != ignored
    truth, found = truth[seen], found[seen]
    if len(truth) and (min(truth.min(), found.min()) < 0 or max(truth.max(), found.max()) >= num_classes):
        raise ValueError(f"Labels lie outside 0 .. {num_classes - 1}.")
    return np.bincount(truth * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(counts: np.ndarray) -> dict[str, float]:
    """`miou` and `f`: means over the classes that occur or are found, from `confusions` summed over pictures."""
    hits, truth, found = np.diag(counts), counts.sum(1), counts.sum(0)
    there = truth + found > 0
    hits, truth, found = hits[there], truth[there], found[there]
    f = f_measure(hits / np.maximum(found, 1), hits / np.maximum(truth, 1))
    return {"miou": float((hits / (truth + found - hits)).mean()), "f": float(f.mean())}


__all__ = ["F_THRESHOLDS", "class_scores", "confusions", "f_measure", "image_iou", "precision_recall"]
