"""Inputs of the `evaluate` modules: nested lists or arrays, to be validated as rectangular."""

from collections.abc import Sequence

import numpy as np


def rectangle(rows: Sequence[Sequence[float]] | np.ndarray, name: str, dtype: type = np.float64) -> np.ndarray:
    """Stack rows of equal length into an array (rows, length).

    Args:
        rows: Sequence of sequences, or an array or tensor.
        name: What the rows are, for error messages.
        dtype: Type of the result.

    Raises:
        ValueError: If there are no rows, or they are empty, differ in length, or contain NaN or infinity.
    """
    if hasattr(rows, "__array__"):  # not row by row, which is slow for tensors
        rows = np.asarray(rows)
        if rows.ndim != 2:
            raise ValueError(f"{name}: expected shape (rows, length), got {rows.shape}.")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or lengths == [0]:
        raise ValueError(
            f"{name}: expected one or more rows of equal length above 0, got {len(rows)} rows of length "
            f"{', '.join(map(str, lengths)) or 'none'}."
        )
    values = np.stack([np.asarray(row, dtype) for row in rows])
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: row {int((~np.isfinite(values)).any(1).argmax())} contains NaN or infinity.")
    return values


__all__ = ["rectangle"]
