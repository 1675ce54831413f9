"""Emergent semantics: what the nearest neighbour says, leaving the clip itself out (paper, section 4.4).

Streams are pooled by their mean over tokens, normalised to length 1 and compared by cosine; "all" adds the three
similarities. Single-label: share of clips whose nearest neighbour has their class. Multi-label: the neighbour's
labels times its similarity are scores, and the report is their mean average precision and area under the ROC over
classes.
"""

import torch

STREAMS = ("fusion", "image", "audio")


def pool_streams(outputs) -> dict[str, torch.Tensor]:
    """Mean over tokens of an encoder's three streams, each (B, D) float32 of length 1."""
    states = (outputs.last_hidden_state, outputs.image_last_hidden_state, outputs.audio_last_hidden_state)
    return {
        name: torch.nn.functional.normalize(state.float().mean(dim=1), dim=-1)
        for name, state in zip(STREAMS, states, strict=True)
    }


def nearest_neighbours(streams: list[torch.Tensor], chunk: int = 1024) -> tuple[torch.Tensor, torch.Tensor]:
    """Index and similarity of every row's nearest other row.

    Args:
        streams: (N, D) tensors of unit rows, N >= 2; their similarities are added.
        chunk: rows compared at a time, so that memory grows with N and not with its square.

    Returns:
        indices (N,) long, similarities (N,).
    """
    count = streams[0].shape[0]
    if count < 2:
        raise ValueError(f"A nearest neighbour needs at least two clips, but got {count}.")
    indices, values = [], []
    for start in range(0, count, chunk):
        similarity = sum(features[start : start + chunk] @ features.T for features in streams)
        rows = torch.arange(similarity.shape[0], device=similarity.device)
        similarity[rows, start + rows] = -torch.inf
        best = similarity.max(dim=1)
        indices.append(best.indices)
        values.append(best.values)
    return torch.cat(indices), torch.cat(values)


def average_precision(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Area under the precision-recall steps of one class; ties count as one threshold.

    Args:
        scores: (N,). targets: (N,) bool with at least one True.
    """
    order = scores.argsort(descending=True)
    hits = targets[order].double()
    last = _last_of_ties(scores[order])
    true_positives = hits.cumsum(0)[last]
    precision = true_positives / (last + 1)
    gained = torch.diff(true_positives, prepend=true_positives.new_zeros(1))
    return float((precision * gained).sum() / hits.sum())


def roc_auc(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Probability that a positive scores above a negative, ties counting half.

    Args:
        scores: (N,). targets: (N,) bool with at least one True and one False.
    """
    _, ranks, counts = scores.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    mean_rank = (ends - (counts.double() - 1) / 2)[ranks]
    positives = int(targets.sum())
    negatives = targets.numel() - positives
    return float((mean_rank[targets].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _last_of_ties(sorted_scores: torch.Tensor) -> torch.Tensor:
    """Positions at which a run of equal values ends."""
    changes = torch.ones_like(sorted_scores, dtype=torch.bool)
    changes[:-1] = sorted_scores[1:] != sorted_scores[:-1]
    return changes.nonzero().squeeze(1)


def probe(features: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, dict[str, float]]:
    """Leave-one-out nearest-neighbour scores of every stream and of "all".

    Args:
        features: name -> (N, D) unit rows, from `pool_streams`.
        labels: (N,) long classes, or (N, C) 0/1 for clips with several.

    Returns:
        name -> {"accuracy"} or {"map", "auc"}, each in 0..1.
    """
    score = _accuracy if labels.ndim == 1 else _multi_label
    groups = {name: [rows] for name, rows in features.items()}
    groups["all"] = list(features.values())
    return {name: score(*nearest_neighbours(streams), labels.to(streams[0].device)) for name, streams in groups.items()}


def _accuracy(indices: torch.Tensor, similarities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return {"accuracy": float((labels[indices] == labels).double().mean())}


def _multi_label(indices: torch.Tensor, similarities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    positive = labels > 0
    scores = positive[indices] * similarities[:, None]
    seen = [c for c in range(labels.shape[1]) if 0 < int(positive[:, c].sum()) < labels.shape[0]]
    if not seen:
        raise ValueError("No class is present in some clips and absent from others: nothing to score.")
    return {
        "map": sum(average_precision(scores[:, c], positive[:, c]) for c in seen) / len(seen),
        "auc": sum(roc_auc(scores[:, c], positive[:, c]) for c in seen) / len(seen),
    }


def chance(labels: torch.Tensor) -> dict[str, float]:
    """What a neighbour drawn at random among the other clips scores on average, from the labels alone.

    Multi-label: a random ranking's expected average precision, approximated by the share of positives, and AUC 0.5.
    """
    if labels.ndim == 1:
        counts = labels.unique(return_counts=True)[1].double()
        total = labels.shape[0]
        return {"accuracy": float((counts * (counts - 1)).sum() / (total * (total - 1)))}
    shares = (labels > 0).double().mean(dim=0)
    seen = shares[(shares > 0) & (shares < 1)]
    return {"map": float(seen.mean()), "auc": 0.5}


__all__ = ["STREAMS", "average_precision", "chance", "nearest_neighbours", "pool_streams", "probe", "roc_auc"]
