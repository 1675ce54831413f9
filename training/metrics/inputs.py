"""What `evaluate` hands to its modules: nested lists or arrays whose rows may differ in length."""

from collections.abc import Sequence

import numpy as np


def rectangle(rows: Sequence[Sequence[float]] | np.ndarray, name: str, dtype: type = np.float64) -> np.ndarray:
    """
    Rows of one length as an array (rows, length).

    Args:
        name: of the rows, for errors.

    Raises:
        ValueError: where there are none, they are empty or differ in length, or hold NaN or infinity.
    """
    if hasattr(rows, "__array__"):  # not row by row, which is slow for tensors
        rows = np.asarray(rows)
        if rows.ndim != 2:
            raise ValueError(f"{name}: the shape is {rows.shape}: expected (rows, length).")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or lengths == [0]:
        raise ValueError(
            f"{name}: {len(rows)} rows of length {', '.join(map(str, lengths)) or 'none'}: expected one row or more, "
            "all of one length above 0."
        )
    values = np.stack([np.asarray(row, dtype) for row in rows])
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: row {int((~np.isfinite(values)).any(1).argmax())} holds NaN or infinity.")
    return values


__all__ = ["rectangle"]
