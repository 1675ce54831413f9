"""Which clips of an evaluation are shown: those at fixed percentiles of its own scores."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...metrics.retrieval import ranks
from ...report.predictions import unpack
from ...wording import decibels, percent

# Name of a case -> percentile of the scores.
PERCENTILES = {"Good": 95, "Typical": 50, "Bad": 5, "Worst": 0}


class Measure(NamedTuple):
    """How the clips of a task are ordered.

    Attributes:
        name: Name of the score of a clip, for the axis of a chart.
        text: A score as text.
        higher: Whether higher is better.
        scores: Score (N,) of each row of predictions, NaN for clips that have none.
    """

    name: str
    text: Callable[[float], str]
    higher: bool
    scores: Callable[[list], np.ndarray]


class Case(NamedTuple):
    """A clip that is shown: its name ("Good"), its row in the predictions, and its score."""

    name: str
    place: int
    score: float


def choose(scores: np.ndarray, higher: bool = True) -> list[Case]:
    """Choose the clips at `PERCENTILES` of the scores; of equal scores, the earlier clip counts as worse.

    Args:
        scores: (N,), NaN for clips that have none.
        higher: Whether higher is better.

    Raises:
        ValueError: If no clip has a score.
    """
    scored = np.flatnonzero(~np.isnan(scores))
    if not len(scored):
        raise ValueError("Expected clips with scores, got none.")
    order = scored[np.argsort(scores[scored] if higher else -scores[scored], kind="stable")]
    places = {name: int(order[round(part / 100 * (len(order) - 1))]) for name, part in PERCENTILES.items()}
    return [Case(name, place, float(scores[place])) for name, place in places.items()]


def typical_pair(scores: np.ndarray) -> int:
    """The pair of clips, of scores 2k and 2k + 1, whose mean is the median over all pairs in which both have a score.

    Raises:
        ValueError: If there is no such pair.
    """
    means = scores[: len(scores) // 2 * 2].reshape(-1, 2).mean(axis=1)
    if np.isnan(means).all():
        raise ValueError("Expected a pair of clips with scores, got none.")
    order = np.argsort(means, kind="stable")[: int((~np.isnan(means)).sum())]  # NaN comes last
    return int(order[(len(order) - 1) // 2])


def _scores(score: Callable[[dict], float | None]) -> Callable[[list], np.ndarray]:
    """Scores by a function of a row; rows that are text say why a clip was left out."""
    return lambda rows: np.array([np.nan if isinstance(row, str) else score(row) for row in rows], dtype=np.float64)


def _true_probability(row: dict[str, Any]) -> float:
    label = np.asarray(row["label"])
    joint = np.asarray(row["joint"], np.float64)
    return float(joint[int(label)] if label.ndim == 0 else joint[label > 0].mean())


def _iou(row: dict[str, Any]) -> float:
    """IoU of a binary mask; of classes, the fraction of pixels with the right one."""
    if np.ndim(row["own"]) == 0:
        return float(row["own"])
    return float((unpack(row["maps"]["own"]) == unpack(row["target"])).mean())


def _frame_ranks(rows: list[dict[str, Any]]) -> np.ndarray:
    rows = [row.get("alone", row) for row in rows]
    images, audio = (np.stack([row[name] for row in rows]) for name in ("image", "audio"))
    return ranks(audio @ images.T).astype(np.float64)


def _loss(row: dict[str, Any]) -> float:
    return row["losses"]["image_loss"] + row["losses"]["audio_loss"]


MEASURES = {
    "pretraining": Measure(
        "loss of masked patches, image + audio", lambda score: f"loss {score:.3f}", False, _scores(_loss)
    ),
    "recognition": Measure(
        "probability of the true class", lambda score: f"probability {percent(score)}", True, _scores(_true_probability)
    ),
    "localization": Measure(
        "cIoU, frames with a visible source",
        lambda score: f"cIoU {percent(score)}",
        True,
        _scores(lambda row: row["own"] if row["sounding"] else np.nan),
    ),
    "separation": Measure("SI-SDR improvement (dB)", decibels, True, _scores(lambda row: row["si_sdri"])),
    "segmentation": Measure("IoU of sounding objects", lambda score: f"IoU {percent(score)}", True, _scores(_iou)),
    "retrieval": Measure("rank of the frame for its audio", lambda score: f"rank {score:.0f}", False, _frame_ranks),
}


def measure_of(task: str, rows: Sequence[Any]) -> tuple[str, Measure]:
    """Name of what is shown of an evaluation, and its measure.

    Encoders that were pre-trained without decoders have no reconstructions, and are shown by retrieval.
    """
    shown = "retrieval" if task == "pretraining" and "losses" not in rows[0] else task
    return shown, MEASURES[shown]


__all__ = ["MEASURES", "PERCENTILES", "Case", "Measure", "choose", "measure_of", "typical_pair"]
