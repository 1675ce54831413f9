"""Sound-source localization metrics: consensus IoU, its success rate and AUC, and detection scores with negatives."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from deepavfusion.localization_deepavfusion import top_quarter_mean

THRESHOLDS = np.arange(21) / 20


def centered_box(size: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) bool of a centered box with half the height and width: the center-prior baseline."""
    height, width = size
    box = np.zeros(size, bool)
    box[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return box


def confidence(heat: np.ndarray) -> float:
    """Mean of the top quarter of a heat map (H, W): the confidence that a visible object sounds (SLAVC)."""
    return float(top_quarter_mean(torch.from_numpy(np.ascontiguousarray(_finite(heat)))[None]))


def upper_half(heat: np.ndarray) -> np.ndarray:
    """Mask (H, W) bool of the values at or above the median of a heat map (EZ-VSL); everything for a constant map."""
    heat = _finite(heat)
    return heat >= np.partition(heat, heat.size // 2, axis=None)[heat.size // 2]


def _finite(heat: np.ndarray) -> np.ndarray:
    heat = np.asarray(heat, np.float64)
    if not heat.size or not np.isfinite(heat).all():
        raise ValueError(f"Expected a non-empty, finite heat map (H, W), got shape {heat.shape} or NaN or infinity.")
    return heat


def ciou(predicted: np.ndarray, consensus: np.ndarray) -> float:
    """Consensus intersection over union of a predicted area (Senocak et al. 2018).

    Args:
        predicted: (H, W) bool.
        consensus: (H, W) in 0..1, the fraction of annotators' boxes required for consensus that cover a pixel.

    Returns:
        Sum of the consensus within the predicted area / (sum of the consensus + number of predicted pixels without
        consensus); 0 if both are empty.

    Raises:
        ValueError: For mismatched shapes, or a consensus outside 0..1.
    """
    predicted, consensus = np.asarray(predicted, bool), np.asarray(consensus, np.float64)
    if predicted.shape != consensus.shape or not predicted.size:
        raise ValueError(
            f"Expected a predicted area and a consensus map of the same non-empty shape, got {predicted.shape} and "
            f"{consensus.shape}."
        )
    if not (consensus.min() >= 0 and consensus.max() <= 1):  # NaN fails both
        raise ValueError(f"Expected a consensus map in 0..1 without NaN, got {consensus.min()}..{consensus.max()}.")
    union = consensus.sum() + np.count_nonzero(predicted & (consensus == 0))
    return float(consensus[predicted].sum() / union) if union else 0.0


def success_rate(values: np.ndarray, threshold: float = 0.5) -> float:
    """Fraction of images whose cIoU (N,) reaches the threshold."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError(f"Expected cIoU values (N,), N >= 1, without NaN, got shape {values.shape}.")
    return float((values >= threshold).mean())


def localization_auc(values: np.ndarray) -> float:
    """Area under the success rate of cIoU values (N,) over the thresholds 0, 0.05 ... 1 (trapezoidal rule)."""
    return float(auc(THRESHOLDS, [success_rate(values, threshold) for threshold in THRESHOLDS]))


def silent_auc(areas: np.ndarray) -> float:
    """Area under the fraction of images whose predicted area (N,), a fraction of each, is below thresholds 0 ... 1.

    AUC_N of Juanola et al. (2024), for audio of nothing visible: 1 is nearly reached if nothing is ever predicted.
    """
    areas = np.asarray(areas, np.float64)
    if areas.ndim != 1 or not len(areas) or not (areas.min() >= 0 and areas.max() <= 1):  # NaN fails both
        raise ValueError(f"Expected predicted areas (N,) in 0..1, N >= 1, got {areas}.")
    return float(auc(THRESHOLDS, [(areas < threshold).mean() for threshold in THRESHOLDS]))


def interactive_ciou(values: Sequence[float], scenes: Sequence[str]) -> np.ndarray:
    """Smallest cIoU of the sources of each image of several sources (Senocak et al. 2024); their success is IIoU.

    Args:
        values: cIoU of each source.
        scenes: Image that it is in.

    Returns:
        (images,) float64, of images with two sources or more; may be empty.
    """
    found: dict[str, list[float]] = {}
    for value, scene in zip(values, scenes, strict=True):
        found.setdefault(scene, []).append(value)
    return np.array([min(sources) for sources in found.values() if len(sources) > 1], np.float64)


def average_precision(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Average precision of detecting sounding objects, with images without one as negatives.

    A sounding object localized in the wrong place counts as a false positive and as a miss: recall is the fraction of
    all images with a sounding object in which it was localized.

    Args:
        confidence: (N,) confidence of every image, with or without a sounding object.
        correct: (N,) bool, whether the object was localized; False for images without one.
        sounding: (N,) bool, whether there is one.

    Returns:
        The sum of precision times gain in recall over the confidence thresholds, in 0..1.
    """
    confidence, correct, sounding = _detections(confidence, correct, sounding)
    if not correct.any():
        return 0.0
    return float(average_precision_score(correct, confidence) * _localized(correct, sounding))


def max_f1(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Largest F1 over confidence thresholds, with inputs, precision and recall as in `average_precision`."""
    confidence, correct, sounding = _detections(confidence, correct, sounding)
    if not correct.any():
        return 0.0
    precision, recall, _ = precision_recall_curve(correct, confidence)
    return float(_f1(precision, recall * _localized(correct, sounding)).max())


def _localized(correct: np.ndarray, sounding: np.ndarray) -> float:
    """Fraction of the sounding objects that are localized; scikit-learn's recall does not count the other ones."""
    return np.count_nonzero(correct) / np.count_nonzero(sounding)


def slavc_average_precision(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Average precision as in SLAVC's published code.

    A sounding object localized in the wrong place is a false positive but no miss: only images with a confidence below
    the threshold are missed. About 200 of the sorted confidences serve as thresholds, without the largest; recall up to
    the first of them does not count; precision is the largest at this and all lower thresholds.

    Args:
        confidence: As in `average_precision`.
        correct: As in `average_precision`.
        sounding: As in `average_precision`.
    """
    detections = _detections(confidence, correct, sounding)
    thresholds = np.sort(detections[0])[:-1][:: -max(1, len(detections[0]) // 200)]
    if not len(thresholds):
        raise ValueError("Expected two images or more: one image leaves no threshold.")
    precision, recall = _slavc_precision_recall(thresholds, *detections)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best[:-1] * np.diff(recall)))


def slavc_max_f1(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Largest F1 as in SLAVC's published code, over about ten thresholds; see `slavc_average_precision`."""
    detections = _detections(confidence, correct, sounding)
    thresholds = np.sort(detections[0])[:: max(1, len(detections[0]) // 10)]
    return float(_f1(*_slavc_precision_recall(thresholds, *detections)).max())


def _slavc_precision_recall(thresholds, confidence, correct, sounding):
    detected = confidence >= thresholds[:, None]
    true_positives, misses = (detected & correct).sum(1), (~detected & sounding).sum(1)
    false_positives = detected.sum(1) - true_positives
    return tuple(
        np.where(true_positives + others == 0, 1.0, true_positives / np.maximum(true_positives + others, 1))
        for others in (false_positives, misses)
    )


def _f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def _detections(confidence, correct, sounding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    confidence, correct, sounding = np.asarray(confidence), np.asarray(correct, bool), np.asarray(sounding, bool)
    if confidence.ndim != 1 or not confidence.shape == correct.shape == sounding.shape:
        raise ValueError(
            f"Expected confidence, correct and sounding (N,), got shapes {confidence.shape}, {correct.shape} and "
            f"{sounding.shape}."
        )
    if np.isnan(confidence).any():
        raise ValueError(f"The confidence of image {int(np.isnan(confidence).argmax())} is NaN.")
    if not sounding.any():
        raise ValueError("Recall is not defined: no image has a sounding object.")
    if np.any(correct & ~sounding):
        raise ValueError("An image without a sounding object cannot be correct.")
    return confidence, correct, sounding


__all__ = [
    "THRESHOLDS",
    "average_precision",
    "centered_box",
    "ciou",
    "confidence",
    "interactive_ciou",
    "localization_auc",
    "max_f1",
    "silent_auc",
    "slavc_average_precision",
    "slavc_max_f1",
    "success_rate",
    "upper_half",
]
