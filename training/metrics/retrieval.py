"""Cross-modal retrieval: recall at k and median rank."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import pairwise


def ranks(similarity: np.ndarray) -> np.ndarray:
    """1-based rank (N,) of each query's own counterpart in similarities (N, N); ties rank before it (pessimistic)."""
    similarity = np.asarray(similarity, np.float64)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise ValueError(f"Expected similarities (N, N), N >= 1, of paired queries and items, got {similarity.shape}.")
    if not np.isfinite(similarity).all():
        raise ValueError("Expected finite similarities, got NaN or infinity.")
    return (similarity >= np.diag(similarity)[:, None]).sum(1)


def recall_at(similarity: np.ndarray, cutoffs: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Recall at each cutoff k: the fraction of queries whose counterpart is among the k most similar items."""
    rank = ranks(similarity)
    if min(cutoffs) < 1:
        raise ValueError(f"Expected cutoffs of 1 or more, got {tuple(cutoffs)}.")
    return {k: float((rank <= k).mean()) for k in cutoffs}


def median_rank(similarity: np.ndarray) -> float:
    """Median of `ranks`; 1 is best."""
    return float(np.median(ranks(similarity)))


def cosine_similarity(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Cosine similarities (N, N) of paired embeddings (N, D).

    Raises:
        ValueError: For mismatched shapes, and for zero or non-finite embeddings.
    """
    queries, items = np.asarray(queries, np.float64), np.asarray(items, np.float64)
    if queries.shape != items.shape or queries.ndim != 2 or not len(queries):
        raise ValueError(f"Expected queries and items (N, D), N >= 1, got shapes {queries.shape} and {items.shape}.")
    for name, values in (("query", queries), ("item", items)):
        norms = np.linalg.norm(values, axis=1)
        invalid = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(invalid):
            raise ValueError(f"The cosine of {name} {invalid[0]} is not defined: it is zero or not finite.")
    return pairwise.cosine_similarity(queries, items)


__all__ = ["cosine_similarity", "median_rank", "ranks", "recall_at"]
