"""Timestamps of windows: numbers of seconds as they are given, and the windows and frames that they stand for."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from .numbers_deepavfusion import MAX_WINDOWS, is_count
from .sources_deepavfusion import as_items


def as_timestamps(timestamps: Any) -> Any:
    """Check timestamps, and convert sequences of them, such as arrays and columns, to lists.

    Args:
        timestamps: A number of seconds, None, or a sequence of either or of sequences.

    Returns:
        A number, None, or a list.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is not finite.
    """
    if hasattr(timestamps, "tolist"):
        timestamps = timestamps.tolist()
    if (items := as_items(timestamps)) is not None:
        return [as_timestamps(item) for item in items]
    if timestamps is None:
        return None
    if not isinstance(timestamps, Real) or isinstance(timestamps, bool):
        raise TypeError(f"Expected timestamps as numbers of seconds, got {timestamps!r}.")
    if not abs(timestamps) < math.inf:  # fails for NaN, too
        raise ValueError(f"Expected timestamps as finite numbers of seconds, got {timestamps}.")
    return float(timestamps)


def window_times(
    start: float, end: float, timestamp: float, num_frames: int, seconds: float
) -> tuple[float, list[float]]:
    """Place the window of a timestamp within a file, and its frames.

    Args:
        start: Start of the file's first stream in seconds.
        end: End of its last stream.
        timestamp: Middle of the window in seconds; a window that extends beyond the file is shifted into it.
        num_frames: 1 for the frame at the timestamp; more are spread evenly over the window.
        seconds: Length of the window.

    Returns:
        The start of the window, and the ascending times of the frames, in seconds.
    """
    begin = min(timestamp - seconds / 2, end - seconds)
    begin = max(begin, min(start, timestamp))
    step = seconds / num_frames
    return begin, [timestamp] if num_frames == 1 else [begin + (i + 0.5) * step for i in range(num_frames)]


def dense_timestamps(start: float, end: float, num_clips: int, seconds: float) -> list[float]:
    """Spread `num_clips` windows of `seconds` evenly over `start` to `end`, and return their middles."""
    first, last = start + seconds / 2, end - seconds / 2
    if num_clips == 1 or last <= first:
        return [(start + end) / 2] * num_clips
    return [first + (last - first) * index / (num_clips - 1) for index in range(num_clips)]


def window_timestamps(span: Callable, timestamps: Any, num_clips: int | None, seconds: float) -> list:
    """List the middles of windows: given ones, or `num_clips` spread over what `span` returns, (start, end) in seconds.

    Raises:
        TypeError: If a timestamp is no number.
        ValueError: If there are both timestamps and `num_clips`, no windows, or a timestamp that is not finite.
    """
    if num_clips is not None:
        if timestamps is not None:
            raise ValueError("Expected timestamps or num_clips, got both.")
        if not is_count(num_clips, MAX_WINDOWS):
            raise ValueError(f"Expected num_clips of at least 1, got {num_clips!r} (at most {MAX_WINDOWS}).")
        timestamps = dense_timestamps(*span(), num_clips, seconds)
    times = as_timestamps(timestamps)
    times = times if isinstance(times, list) else [times]
    if not times:
        raise ValueError("Expected at least one timestamp, got none.")
    return times


__all__ = ["as_timestamps", "dense_timestamps", "window_times", "window_timestamps"]
