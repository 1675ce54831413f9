"""Leave-one-out nearest-neighbor probe of the encoder's streams (emergent semantics; paper, section 4.4).

Streams are mean-pooled over tokens, L2-normalized and compared by cosine similarity; "all" adds the three similarities.
Single-label: accuracy of the nearest neighbor's class. Multi-label: the neighbor's labels times its similarity are
scores, of which mean average precision and area under the ROC curve are reported.
"""

from collections.abc import Sequence
from typing import Any

import torch

from deepavfusion.inference.common import STREAMS

from .classification import mean_average_precision, mean_roc_auc


def pool_streams(outputs) -> dict[str, torch.Tensor]:
    """Mean-pool an encoder's three streams over tokens: (B, D) float32 each, L2-normalized."""
    states = (outputs.last_hidden_state, outputs.image_last_hidden_state, outputs.audio_last_hidden_state)
    return {
        name: torch.nn.functional.normalize(state.float().mean(dim=1), dim=-1)
        for name, state in zip(STREAMS, states, strict=True)
    }


def nearest_neighbors(streams: list[torch.Tensor], chunk: int = 1024) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest other row of each row.

    Args:
        streams: (N, D) tensors of unit-norm rows, N >= 2, whose similarities are added.
        chunk: Number of rows compared at a time, so that memory grows linearly with N.

    Returns:
        indices: (N,) long.
        similarities: (N,).

    Raises:
        ValueError: For fewer than two rows.
    """
    count = streams[0].shape[0]
    if count < 2:
        raise ValueError(f"Expected at least two clips to find nearest neighbors, got {count}.")
    indices, values = [], []
    for start in range(0, count, chunk):
        similarity = sum(features[start : start + chunk] @ features.T for features in streams)
        rows = torch.arange(similarity.shape[0], device=similarity.device)
        similarity[rows, start + rows] = -torch.inf
        best = similarity.max(dim=1)
        indices.append(best.indices)
        values.append(best.values)
    return torch.cat(indices), torch.cat(values)


def knn_probe(features: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, dict[str, float]]:
    """Leave-one-out nearest-neighbor scores of each stream and of "all".

    Args:
        features: Stream name -> (N, D) unit-norm rows, from `pool_streams`.
        labels: (N,) long class indices, or (N, C) 0/1 for multi-label data.

    Returns:
        Stream name -> {"accuracy"} or {"map", "auc"}, in 0..1.
    """
    score = _accuracy if labels.ndim == 1 else _multi_label
    groups = {name: [rows] for name, rows in features.items()}
    groups["all"] = list(features.values())
    return {name: score(*nearest_neighbors(streams), labels.to(streams[0].device)) for name, streams in groups.items()}


def _accuracy(indices: torch.Tensor, similarities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return {"accuracy": float((labels[indices] == labels).double().mean())}


def _multi_label(indices: torch.Tensor, similarities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    scores = (labels[indices] > 0) * similarities[:, None]
    scores, targets = scores.cpu().numpy(), labels.cpu().numpy()
    return {"map": mean_average_precision(scores, targets), "auc": mean_roc_auc(scores, targets)}


def chance(labels: torch.Tensor) -> dict[str, float]:
    """Expected score of a neighbor drawn at random from the other clips, computed from the labels.

    Multi-label: the expected average precision of a random ranking, approximated by the fraction of positives, and an
    AUC of 0.5.
    """
    if labels.ndim == 1:
        counts = labels.unique(return_counts=True)[1].double()
        total = labels.shape[0]
        return {"accuracy": float((counts * (counts - 1)).sum() / (total * (total - 1)))}
    frequencies = (labels > 0).double().mean(dim=0)
    scored = frequencies[(frequencies > 0) & (frequencies < 1)]
    return {"map": float(scored.mean()), "auc": 0.5}


def neighbor_rows(outputs, labels: Sequence[Any]) -> list[dict[str, Any]]:
    """Features and label of each clip of a batch, which `neighbor_scores` takes.

    Args:
        outputs: Outputs of the encoder.
        labels: Label of each clip; None for clips without labels.
    """
    streams = [part.cpu() for part in pool_streams(outputs).values()]
    return [{"streams": [part[place] for part in streams], "label": label} for place, label in enumerate(labels)]


def neighbor_scores(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Scores of labeled clips: `knn_probe`, and `chance` as "chance"."""
    labels = torch.stack([torch.as_tensor(row["label"]) for row in rows])
    features = {name: torch.stack([row["streams"][k] for row in rows]) for k, name in enumerate(STREAMS)}
    return {**knn_probe(features, labels), "chance": chance(labels)}


__all__ = [
    "STREAMS",
    "chance",
    "knn_probe",
    "nearest_neighbors",
    "neighbor_rows",
    "neighbor_scores",
    "pool_streams",
]
