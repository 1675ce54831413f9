"""Numbers in settings and arguments: ranges, none of which contains NaN, infinity or a bool, and arrays of any kind."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

# Largest numbers of windows of a file, of frames of a clip, and of pixels on a side.
MAX_WINDOWS = 1_000_000
MAX_FRAMES = 4096
MAX_SIDE = 16384


def is_count(value: Any, at_most: int) -> bool:
    """Whether a value is an integer from 1 to `at_most`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= value <= at_most


def is_number(value: Any, at_least: float = -math.inf, at_most: float = math.inf) -> bool:
    """Whether a value is a finite number from `at_least` to `at_most`."""
    real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return real and at_least <= value <= at_most


def to_lists(values: Any) -> Any:
    """Convert numbers in arrays, tensors and other iterables, nested or not, to lists of Python's numbers."""
    values = values.tolist() if hasattr(values, "tolist") else values
    nested = isinstance(values, Iterable) and not isinstance(values, (str, bytes))
    return [to_lists(value) for value in values] if nested else values


def to_tensor(values: Any) -> torch.Tensor:
    """Convert numbers to a tensor, arrays with their type.

    Arrays that torch does not take are converted: read-only and reversed ones, foreign byte orders, and floating-point
    numbers of more than 64 bits.
    """
    if not isinstance(values, np.ndarray):
        return torch.as_tensor(values)
    dtype = np.dtype(np.float64) if values.dtype.kind == "f" and values.dtype.itemsize > 8 else values.dtype
    return torch.from_numpy(np.require(values, dtype.newbyteorder("="), requirements="CW"))


__all__ = ["MAX_FRAMES", "MAX_SIDE", "MAX_WINDOWS", "is_count", "is_number", "to_lists", "to_tensor"]
