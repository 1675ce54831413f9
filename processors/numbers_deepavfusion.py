"""Ranges of numbers in settings and arguments: none contains NaN, infinity or a bool."""

import math
from numbers import Integral, Real
from typing import Any

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


__all__ = ["MAX_FRAMES", "MAX_SIDE", "MAX_WINDOWS", "is_count", "is_number"]
