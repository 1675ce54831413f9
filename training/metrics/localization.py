"""Sound localization: consensus maps and IoU, its success rate and AUC, and detection scores with silent pictures."""

from collections.abc import Sequence

import numpy as np

THRESHOLDS = np.arange(21) / 20
FLICKR_FRAME_SIZE = 256


def clipped_boxes(boxes: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """
    Boxes within the picture; those that cover nothing of it are dropped.

    VGG-SS has boxes without width or height, and coordinates far outside of the picture.

    Args:
        boxes: (n, 4), n >= 0: left, top, right, bottom as shares of the picture's width and height.

    Returns:
        (m, 4) in 0..1, m <= n.

    Raises:
        ValueError: for another shape, or NaN.
    """
    boxes = np.asarray(boxes, np.float64)
    if not boxes.size:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"Boxes have shape {boxes.shape}: expected (n, 4), left, top, right, bottom.")
    if np.isnan(boxes).any():
        raise ValueError(f"Box {int(np.isnan(boxes).any(1).argmax())} holds NaN.")
    boxes = np.clip(boxes, 0, 1)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def consensus_map(boxes: Sequence[Sequence[float]] | np.ndarray, size: tuple[int, int], needed: int = 1) -> np.ndarray:
    """
    How many of the annotators' boxes agree on a pixel: min(boxes around its centre / `needed`, 1).

    Args:
        boxes: as in `clipped_boxes`, which is applied first.
        size: (height, width) of the map in pixels.
        needed: how many boxes make a pixel certain.

    Returns:
        (height, width) float64 in 0..1.
    """
    height, width = size
    if needed < 1 or height < 1 or width < 1:
        raise ValueError(f"A map of {height} by {width} pixels for {needed} boxes: all three must be 1 or more.")
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    votes = np.zeros((height, width))
    for left, top, right, bottom in clipped_boxes(boxes):
        votes += ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    return np.minimum(votes / needed, 1)


def flickr_soundnet_consensus(
    boxes: Sequence[Sequence[float]], size: tuple[int, int], frame_size: int = FLICKR_FRAME_SIZE
) -> np.ndarray:
    """`consensus_map` of Flickr-SoundNet's boxes, in pixels of frames of 256 by 256: two boxes make a pixel certain."""
    boxes = np.asarray(boxes, np.float64)
    return consensus_map(boxes / frame_size, size, needed=2)


def vggss_consensus(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """`consensus_map` of VGG-SS's boxes, in shares of the frame: 1 in their union, 0 elsewhere."""
    return consensus_map(boxes, size, needed=1)


def centred_box(size: tuple[int, int]) -> np.ndarray:
    """A box of half the sides in the middle of a map, (H, W) bool: what a blind guess finds."""
    height, width = size
    box = np.zeros(size, bool)
    box[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return box


def confidence(heat: np.ndarray) -> float:
    """Mean of the top quarter of a map (H, W): how sure it is that something in sight sounds (SLAVC)."""
    heat = np.asarray(heat, np.float64).ravel()
    if not heat.size or not np.isfinite(heat).all():
        raise ValueError(f"A map of {heat.size} pixels has no confidence, or it holds NaN or infinity.")
    top = max(1, heat.size // 4)
    return float(np.partition(heat, heat.size - top)[heat.size - top :].mean())


def upper_half(heat: np.ndarray) -> np.ndarray:
    """The area (H, W) bool at or above the middle of a map's sorted values (EZ-VSL); all of a map without contrast."""
    heat = np.asarray(heat, np.float64)
    if not heat.size or not np.isfinite(heat).all():
        raise ValueError(f"A map of {heat.size} pixels has no upper half, or it holds NaN or infinity.")
    return heat >= np.partition(heat, heat.size // 2, axis=None)[heat.size // 2]


def ciou(found: np.ndarray, consensus: np.ndarray) -> float:
    """
    Consensus intersection over union of a found area (Senocak et al. 2018).

    Args:
        found: (H, W) bool.
        consensus: (H, W) in 0..1, how many of the annotators' boxes agree on a pixel.

    Returns:
        sum of the consensus within the area / (sum of the consensus + found pixels without any); 0 where both are
        empty.

    Raises:
        ValueError: for shapes that differ, or a consensus outside 0..1.
    """
    found, consensus = np.asarray(found, bool), np.asarray(consensus, np.float64)
    if found.shape != consensus.shape or not found.size:
        raise ValueError(
            f"The found area has shape {found.shape}, the consensus map {consensus.shape}: expected the same, of one "
            "pixel or more."
        )
    if not (consensus.min() >= 0 and consensus.max() <= 1):  # NaN fails both
        raise ValueError(f"The consensus map holds {consensus.min()} to {consensus.max()}: expected 0..1 and no NaN.")
    union = consensus.sum() + np.count_nonzero(found & (consensus == 0))
    return float(consensus[found].sum() / union) if union else 0.0


def success_rate(values: np.ndarray, threshold: float = 0.5) -> float:
    """Share of pictures whose cIoU (N,) reaches the threshold."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError(f"cIoU values of shape {values.shape}: expected (N,), one or more, without NaN.")
    return float((values >= threshold).mean())


def localization_auc(values: np.ndarray) -> float:
    """Area under the success rate over the thresholds 0, 0.05 ... 1 (trapezoids) of cIoU values (N,)."""
    rates = [success_rate(values, threshold) for threshold in THRESHOLDS]
    return float(np.mean(np.add(rates[1:], rates[:-1]) / 2))  # the thresholds are evenly spaced over 0..1


def detection_curve(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray):
    """
    Precision and recall over confidence thresholds, most confident first; equal confidences are one threshold.

    A sounding object that is found in the wrong place is a false alarm, and it is missed: recall is the share of all
    pictures with a sounding object in which it was found.

    Args:
        confidence: (N,) of every picture, with and without a sounding object.
        correct: (N,) bool, whether the object was found; False for pictures without one.
        sounding: (N,) bool, whether there is one.

    Returns:
        precision, recall: (thresholds,).
    """
    confidence, correct, sounding = _detections(confidence, correct, sounding)
    order = np.argsort(-confidence, kind="stable")
    last = np.append(np.diff(confidence[order]) != 0, True)
    hits = np.cumsum(correct[order])[last]
    return hits / (np.flatnonzero(last) + 1), hits / np.count_nonzero(sounding)


def average_precision(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Sum of precision times gain in recall; see `detection_curve`."""
    precision, recall = detection_curve(confidence, correct, sounding)
    return float(np.sum(precision * np.diff(recall, prepend=0.0)))


def max_f1(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Largest F1 over confidence thresholds; see `detection_curve`."""
    precision, recall = detection_curve(confidence, correct, sounding)
    return float(_f1(precision, recall).max())


def slavc_average_precision(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """
    Average precision as SLAVC's published code counts it.

    A sounding object that is found in the wrong place is a false alarm but not missed: recall is of the pictures with
    a confidence below the threshold. Of the sorted confidences about 200 are thresholds, without the largest; recall up
    to the first of them is not counted; precision is the largest of this and all lower thresholds.

    Args:
        As in `detection_curve`.
    """
    detections = _detections(confidence, correct, sounding)
    thresholds = np.sort(detections[0])[:-1][:: -max(1, len(detections[0]) // 200)]
    if not len(thresholds):
        raise ValueError("One picture leaves no threshold: expected two or more.")
    precision, recall = _slavc_precision_recall(thresholds, *detections)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best[:-1] * np.diff(recall)))


def slavc_max_f1(confidence: np.ndarray, correct: np.ndarray, sounding: np.ndarray) -> float:
    """Largest F1 as SLAVC's published code counts it, at about ten thresholds; see `slavc_average_precision`."""
    detections = _detections(confidence, correct, sounding)
    thresholds = np.sort(detections[0])[:: max(1, len(detections[0]) // 10)]
    return float(_f1(*_slavc_precision_recall(thresholds, *detections)).max())


def _slavc_precision_recall(thresholds, confidence, correct, sounding):
    detected = confidence >= thresholds[:, None]
    right, silent = (detected & correct).sum(1), (~detected & sounding).sum(1)
    wrong = detected.sum(1) - right
    return tuple(
        np.where(right + others == 0, 1.0, right / np.maximum(right + others, 1)) for others in (wrong, silent)
    )


def _f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def _detections(confidence, correct, sounding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    confidence, correct, sounding = np.asarray(confidence), np.asarray(correct, bool), np.asarray(sounding, bool)
    if not confidence.ndim == correct.ndim == sounding.ndim == 1 or not len(confidence) == len(correct) == len(
        sounding
    ):
        raise ValueError(
            f"Confidence has shape {confidence.shape}, correct {correct.shape}, sounding {sounding.shape}: expected "
            "(N,) of all three."
        )
    if np.isnan(confidence).any():
        raise ValueError(f"The confidence of picture {int(np.isnan(confidence).argmax())} is NaN.")
    if not sounding.any():
        raise ValueError("No picture has a sounding object: there is no recall.")
    if np.any(correct & ~sounding):
        raise ValueError("A picture without a sounding object cannot be correct.")
    return confidence, correct, sounding


__all__ = [
    "FLICKR_FRAME_SIZE",
    "THRESHOLDS",
    "average_precision",
    "centred_box",
    "ciou",
    "clipped_boxes",
    "confidence",
    "consensus_map",
    "detection_curve",
    "flickr_soundnet_consensus",
    "localization_auc",
    "max_f1",
    "slavc_average_precision",
    "slavc_max_f1",
    "success_rate",
    "upper_half",
    "vggss_consensus",
]
