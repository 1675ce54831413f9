"""Scores of VGGSounder (Zverev et al., 2025): several labels per clip, for the modalities in which they are perceived.

As in the benchmark's own code: with audio ("a") and with images ("v"), the labels are those that can be heard or seen,
with both ("av") those that can be perceived in both; "a only" and "v only" are those of one modality alone. Clips
without such labels, or without logits of the modality, do not count. Predicted are the k highest logits.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files import UnreadableError, reading

TOP = (1, 3, 5, 10)
# Of what is scored: the logits, and the modalities of the labels.
SETTINGS = {
    "a": ("a", ("A", "AV")),
    "v": ("v", ("V", "AV")),
    "av": ("av", ("AV",)),
    "a only": ("a", ("A",)),
    "v only": ("v", ("V",)),
}
_ANY = ("A", "V", "AV")
_COLUMNS = ("video_id", "label", "modality")


def read_labels(path: Path, names: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Read the labels of VGGSounder.

    Args:
        path: csv with the columns `video_id`, `label` and `modality` (A, V or AV), a row for each label of a clip.
        names: The classes.

    Returns:
        Id of a clip -> modality -> (classes,) bool.

    Raises:
        OSError: The file does not exist.
        ValueError: It has other columns, classes or modalities.
    """
    places, found = {name: i for i, name in enumerate(names)}, {}
    with reading(path), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not set(_COLUMNS) <= set(reader.fieldnames or ()):
            columns = ", ".join(reader.fieldnames or ()) or "none"
            raise UnreadableError(f"{path}: expected the columns {', '.join(_COLUMNS)}, got {columns}.")
        for row in reader:
            clip, label, modality = (row[name] for name in _COLUMNS)
            where = f"{path}, line {reader.line_num}"
            if label not in places:
                raise UnreadableError(f"{where}: expected a class of VGGSounder as label, got {label!r}.")
            if modality not in _ANY:
                raise UnreadableError(f"{where}: expected the modality {', '.join(_ANY)}, got {modality!r}.")
            own = found.setdefault(clip, {name: np.zeros(len(names), bool) for name in _ANY})
            own[modality][places[label]] = True
    if not found:
        raise UnreadableError(f"{path}: expected labels of VGGSounder, got none.")
    return found


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Whether each of the logits (N, C) is among the k highest of its row, (N, C) bool."""
    chosen = np.zeros(logits.shape, bool)
    np.put_along_axis(chosen, np.argsort(logits, axis=1)[:, -k:], True, axis=1)
    return chosen


def multi_label_scores(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Scores of predicted labels.

    Args:
        predicted: (N, C) bool.
        targets: (N, C) bool.

    Returns:
        `hit_rate`, the fraction of clips with a label that is predicted; `f1`, `precision`, `recall` and `jaccard` of
        all labels of all clips; `f1_macro`, the mean of the classes' F1, which is 0 of classes that are neither
        predicted nor labels; and `accuracy`, the fraction of clips of which exactly the labels are predicted.

    Raises:
        ValueError: For mismatched shapes, or no clips.
    """
    predicted, targets = np.asarray(predicted, bool), np.asarray(targets, bool)
    if predicted.ndim != 2 or predicted.shape != targets.shape or not len(targets):
        raise ValueError(f"Expected two arrays (N, C) with N >= 1, got shapes {predicted.shape} and {targets.shape}.")
    both = (predicted & targets).sum(0)
    of_predicted, of_targets = predicted.sum(0), targets.sum(0)
    total = int(of_predicted.sum() + of_targets.sum())
    correct = int(both.sum())
    return {
        "hit_rate": float((predicted & targets).any(1).mean()),
        "f1": _ratio(2 * correct, total),
        "f1_macro": float((2 * both / np.maximum(of_predicted + of_targets, 1)).mean()),
        "precision": _ratio(correct, int(of_predicted.sum())),
        "recall": _ratio(correct, int(of_targets.sum())),
        "jaccard": _ratio(correct, total - correct),
        "accuracy": float((predicted == targets).all(1).mean()),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def modality_confusion(hits: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Modality confusion µ: fractions of clips for which a second modality turns a hit into a miss.

    Args:
        hits: "a", "v" and "av" -> (N,) bool, whether the highest logit is that of a label.

    Returns:
        "a" and "v": the modality alone hits, and both together do not; "av": each alone does.
    """
    lost = ~hits["av"]
    fractions = {"a": hits["a"] & lost, "v": hits["v"] & lost, "av": hits["a"] & hits["v"] & lost}
    return {name: float(values.mean()) for name, values in fractions.items()}


def score(
    predictions: Mapping[str, Mapping[str, Any]], labels: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, dict[str, float]]:
    """Score predictions for VGGSounder.

    Args:
        predictions: Id of a clip -> "a", "v" and "av" -> (classes,) logits, or None.
        labels: Those of `read_labels`.

    Returns:
        For each of `SETTINGS` the number of `clips` and, if there are any, `NAME@K` for the names of
        `multi_label_scores` and those of `TOP` that there are classes for; and for "mu" `modality_confusion` of the
        clips with logits of all modalities.
    """
    result: dict[str, dict[str, float]] = {}
    for name, (modality, kinds) in SETTINGS.items():
        logits, targets = _collect(predictions, labels, (modality,), kinds)
        result[name] = {"clips": len(targets)}
        for k in TOP if len(targets) else ():
            if k <= targets.shape[1]:
                values = multi_label_scores(top_k(logits[modality], k), targets)
                result[name] |= {f"{metric}@{k}": value for metric, value in values.items()}
    logits, targets = _collect(predictions, labels, ("a", "v", "av"), _ANY)
    result["mu"] = {"clips": len(targets)}
    if len(targets):
        hits = {name: (top_k(values, 1) & targets).any(1) for name, values in logits.items()}
        result["mu"] |= modality_confusion(hits)
    return result


def _collect(predictions, labels, modalities: Iterable[str], kinds: Iterable[str]) -> tuple[dict, np.ndarray]:
    """Logits (N, C) of modalities and targets (N, C), of the clips that have all of them."""
    logits: dict[str, list] = {name: [] for name in modalities}
    targets = []
    for clip, own in predictions.items():
        if clip not in labels or any(own[name] is None for name in logits):
            continue
        target = np.any([labels[clip][kind] for kind in kinds], axis=0)
        if target.any():
            targets.append(target)
            for name, rows in logits.items():
                rows.append(own[name])
    return {name: np.array(rows, np.float64) for name, rows in logits.items()}, np.array(targets, bool)


def summary(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The scores in lines of text."""
    lines = []
    for name in SETTINGS:
        own = scores[name]
        parts = [f"{own['clips']:,} clips"]
        if own["clips"]:
            shown = {"hit rate@1": "hit_rate@1", "hit rate@5": "hit_rate@5", "F1@1": "f1@1", "F1@5": "f1@5"}
            parts += [f"{title} {100 * own[key]:.2f} %" for title, key in shown.items() if key in own]
        lines.append(f"{name}: {', '.join(parts)}")
    mu = scores["mu"]
    if mu["clips"]:
        values = ", ".join(f"{name} {100 * mu[name]:.2f} %" for name in ("a", "v", "av"))
        lines.append(f"modality confusion: {values}, of {mu['clips']:,} clips")
    return lines


__all__ = ["SETTINGS", "TOP", "modality_confusion", "multi_label_scores", "read_labels", "score", "summary", "top_k"]
