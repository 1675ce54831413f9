"""Cross-modal retrieval: recall at k and median rank."""

from collections.abc import Sequence

import numpy as np


def ranks(similarity: np.ndarray) -> np.ndarray:
    """Rank (N,), from 1, of each query's own counterpart in similarities (N, N). Ties rank before it (pessimistic)."""
    similarity = np.asarray(similarity, np.float64)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"Similarities have shape {similarity.shape}: expected (N, N), query i belonging to item i.")
    if not np.isfinite(similarity).all():
        raise ValueError("Similarities hold NaN or infinity.")
    return (similarity >= np.diag(similarity)[:, None]).sum(1)


def recall_at(similarity: np.ndarray, cuts: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """k -> share of queries whose counterpart ranks k-th or better."""
    found = ranks(similarity)
    return {k: float((found <= k).mean()) for k in cuts}


__all__ = ["ranks", "recall_at"]
