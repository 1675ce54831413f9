"""Sound localization: consensus IoU, its success rate and AUC, and detection scores with silent pictures."""

import numpy as np

THRESHOLDS = np.arange(21) / 20


def ciou(found: np.ndarray, consensus: np.ndarray) -> float:
    """
    Consensus intersection over union of a found area (Senocak et al. 2018).

    Args:
        found: (H, W) bool.
        consensus: (H, W) in 0..1, how many of the annotators' boxes agree on a pixel.

    Returns:
        sum of the consensus within the area / (sum of the consensus + found pixels without any); 0 where both are
        empty.
    """
    found, consensus = np.asarray(found, bool), np.asarray(consensus, np.float64)
    if found.shape != consensus.shape:
        raise ValueError(f"The found area has shape {found.shape}, the consensus map {consensus.shape}.")
    union = consensus.sum() + np.count_nonzero(found & (consensus == 0))
    return float(consensus[found].sum() / union) if union else 0.0


def success_rate(values: np.ndarray, threshold: float = 0.5) -> float:
    """Share of pictures whose cIoU (N,) reaches the threshold."""
    return float((np.asarray(values) >= threshold).mean())


def localization_auc(values: np.ndarray) -> float:
    """Area under the success rate over the thresholds 0, 0.05 ... 1 (trapezoids) of cIoU values (N,)."""
    rates = [success_rate(values, threshold) for threshold in THRESHOLDS]
    return float(np.mean(np.add(rates[1:], rates[:-1]) / 2))  # the thresholds are evenly spaced over 0..1


def detection_curve(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray):
    """
    Precision and recall over confidence thresholds, most confident first; equal confidences are one threshold.

    Args:
        confidence: (N,) of every picture, with and without a sounding object.
        correct: (N,) bool, whether the object was found; False for pictures without one.
        sounding: (N,) bool, whether there is one.

    Returns:
        precision, recall: (thresholds,).
    """
    confidence, correct, sounding = np.asarray(confidence), np.asarray(correct, bool), np.asarray(sounding, bool)
    if not sounding.any():
        raise ValueError("No picture has a sounding object: there is no recall.")
    if np.any(correct & ~sounding):
        raise ValueError("A picture without a sounding object cannot be correct.")
    order = np.argsort(-confidence, kind="stable")
    last = np.append(np.diff(confidence[order]) != 0, True)
    hits = np.cumsum(correct[order])[last]
    return hits / (np.flatnonzero(last) + 1), hits / np.count_nonzero(sounding)


def average_precision(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Sum of precision times gain in recall (SLAVC's AP); see `detection_curve`."""
    precision, recall = detection_curve(confidence, correct, sounding)
    return float(np.sum(precision * np.diff(recall, prepend=0.0)))


def max_f1(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Largest F1 over confidence thresholds (SLAVC's max-F1); see `detection_curve`."""
    precision, recall = detection_curve(confidence, correct, sounding)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


__all__ = ["THRESHOLDS", "average_precision", "ciou", "detection_curve", "localization_auc", "max_f1", "success_rate"]
