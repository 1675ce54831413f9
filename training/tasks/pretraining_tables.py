"""Tables of pre-training."""

from typing import Any

import torch

from ..metrics.knn import STREAMS
from ..report.tables import Table
from ..wording import NEIGHBOR_METRICS, RANDOM_NEIGHBOR, percent
from .probing import probe_tables
from .reconstruction import ORACLE, cross_modal_table
from .retrieval import retrieval_table

FEWEST = 10  # held-out clips with nearest-neighbor scores: with fewer, one changes an accuracy by more than 10 points


def not_scored(labels: list[Any]) -> str | None:
    """Why clips with these labels have no nearest-neighbor scores; None if they have."""
    if any(label is None for label in labels):
        reason = "the held-out clips have no labels"
    elif len(labels) < FEWEST:
        found = "only one held-out clip was" if len(labels) == 1 else f"only {len(labels)} held-out clips were"
        reason = f"{found} read, too few for a score that means anything (at least {FEWEST})"
    else:
        stacked = torch.stack([torch.as_tensor(label) for label in labels])
        counts = stacked.unique(return_counts=True)[1] if stacked.ndim == 1 else (stacked > 0).sum(0)
        if bool((counts == len(labels)).any()) and not bool((counts[counts < len(labels)] > 0).any()):
            reason = "the held-out clips all have the same labels"
        elif int(counts.max()) < 2:
            reason = "no two of the held-out clips have a label in common"
        else:
            return None
    return f"No nearest-neighbor scores: {reason}."


def nested_scores(metrics: dict[str, Any]) -> dict[str, dict[str, float]] | None:
    """Nearest-neighbor scores as stream -> metric -> value, from flat metrics; None without such scores."""
    found = {
        stream: {name: metrics[f"{stream}_{name}"] for name in NEIGHBOR_METRICS if f"{stream}_{name}" in metrics}
        for stream in (*STREAMS, "all", "chance")
    }
    return found if found["chance"] else None


def pretraining_tables(metrics: dict[str, Any], before: dict[str, Any] | None, note: str | None) -> list[Table]:
    """Tables of losses, retrieval and nearest-neighbor scores.

    Args:
        metrics: Metrics of the trained model.
        before: Metrics before training, if known.
        note: Note of the first table.
    """
    columns = {"before training": before, "trained": metrics}
    columns = {title: values for title, values in columns.items() if values is not None}
    tables = []
    if "loss" in metrics:
        losses = {"loss": "sum", "image_loss": "image", "audio_loss": "audio"}
        rows = [[title, *(f"{values[name]:.4f}" for name in losses)] for title, values in columns.items()]
        oracle = [metrics["image_oracle_loss"], metrics["audio_oracle_loss"]]
        rows.append([ORACLE, *(f"{value:.4f}" for value in (sum(oracle), *oracle))])
        tables.append(Table("Held-out losses", ["", *losses.values()], rows))
    cross_modal = cross_modal_table(metrics)
    if cross_modal is not None:
        tables.append(cross_modal)
    if "audio_to_image_r1" in metrics:
        tables.append(retrieval_table(columns))
    tables[0].note = note
    tables += probe_tables(metrics, before)
    scores = {title: nested_scores(values) for title, values in columns.items()}
    trained = scores["trained"]
    if trained is not None:
        random = trained.pop("chance")
        rows = [
            [
                stream,
                NEIGHBOR_METRICS[name],
                *(percent(of[stream][name]) for of in scores.values()),
                percent(random[name]),
            ]
            for stream in trained
            for name in trained[stream]
        ]
        rows += [
            [
                stream,
                f"{NEIGHBOR_METRICS[next(iter(trained[stream]))]}, whitened",
                *(percent(of.get(f"{stream}_whitened")) for of in columns.values()),
                "-",
            ]
            for stream in trained
            if f"{stream}_whitened" in metrics
        ]
        explained = f"{RANDOM_NEIGHBOR.capitalize()}: expected score of neighbors drawn at random from the same clips."
        columns = ["stream", "metric", *scores, RANDOM_NEIGHBOR]
        tables.append(Table("Nearest neighbors", columns, rows, explained))
    return tables


__all__ = ["nested_scores", "not_scored", "pretraining_tables"]
