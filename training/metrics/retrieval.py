"""Cross-modal retrieval: recall at k and median rank."""

from collections.abc import Sequence

import numpy as np


def ranks(similarity: np.ndarray) -> np.ndarray:
    """Rank (N,), from 1, of each query's own counterpart in similarities (N, N). Ties rank before it (pessimistic)."""
    similarity = np.asarray(similarity, np.float64)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise ValueError(
            f"Similarities have shape {similarity.shape}: expected (N, N), N >= 1, query i belonging to item i."
        )
    if not np.isfinite(similarity).all():
        raise ValueError("Similarities hold NaN or infinity.")
    return (similarity >= np.diag(similarity)[:, None]).sum(1)


def recall_at(similarity: np.ndarray, cuts: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """k -> share of queries whose counterpart ranks k-th or better."""
    found = ranks(similarity)
    if min(cuts) < 1:
        raise ValueError(f"Cuts are {tuple(cuts)}: expected 1 or more.")
    return {k: float((found <= k).mean()) for k in cuts}


def median_rank(similarity: np.ndarray) -> float:
    """Median of `ranks`; 1 is best."""
    return float(np.median(ranks(similarity)))


def cosine_similarity(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(N, N) of embeddings (N, D) of any length above 0."""
    queries, items = np.asarray(queries, np.float64), np.asarray(items, np.float64)
    if queries.shape != items.shape or queries.ndim != 2 or not len(queries):
        raise ValueError(f"Embeddings have shapes {queries.shape} and {items.shape}: expected (N, D) of both, N >= 1.")
    for name, values in (("Query", queries), ("Item", items)):
        lengths = np.linalg.norm(values, axis=1)
        wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(wrong):
            raise ValueError(f"{name} {wrong[0]} is zero, or holds NaN or infinity: its cosine is not defined.")
    return _unit(queries) @ _unit(items).T


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


__all__ = ["cosine_similarity", "median_rank", "ranks", "recall_at"]
