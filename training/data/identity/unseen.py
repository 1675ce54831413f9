"""Leave out of an evaluation the clips that its model was trained on."""

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...wording import count
from ..sets.groups import arrow_column, group
from .clips import ClipDigests, TrainingClips


@dataclass
class LeftOut:
    """What is left out of an evaluation.

    Attributes:
        trained: Clips that the model was trained on.
        clips: Number of clips that were left out.
        total: Number of clips with these.
    """

    trained: TrainingClips
    clips: int = 0
    total: int = 0


_LEFT_OUT: ContextVar[LeftOut | None] = ContextVar("clips to leave out", default=None)


@contextlib.contextmanager
def leaving_out(trained: TrainingClips | None) -> Generator[LeftOut | None]:
    """Leave out the clips that a model was trained on of the videos whose data set is built meanwhile.

    Args:
        trained: The clips; None leaves out nothing.
    """
    found = None if trained is None else LeftOut(trained)
    token = _LEFT_OUT.set(found)
    try:
        yield found
    finally:
        _LEFT_OUT.reset(token)


def without_training_clips(rows: Any, title: str, stored: bool = False) -> tuple[np.ndarray, str]:
    """Choose the rows that a model was not trained on; see `leaving_out`.

    Where the split of rows is given, it is taken as it is, except for clips that were trained on. Elsewhere, other
    clips of the same recordings, such as other parts of the same files, are left out, too.

    Args:
        rows: A `datasets.Dataset` of `make_rows`.
        title: What the rows are, for messages.
        stored: See `ClipDigests.of_rows`.

    Returns:
        Positions (n,) of the rows, and a note for their card, which may be empty.

    Raises:
        ValueError: None are left.
    """
    left_out, every = _LEFT_OUT.get(), np.arange(len(rows))
    if left_out is None or not len(left_out.trained):
        return every, ""
    given = arrow_column(rows, "split").null_count < len(rows)
    trained = left_out.trained.among(ClipDigests.of_rows(rows, stored), parts=given)
    if not given and "recording" in rows.column_names:
        recordings = group(arrow_column(rows, "recording")).numbers
        trained = np.isin(recordings, recordings[trained])
    left_out.total += len(rows)
    left_out.clips += (number := int(trained.sum()))
    if number == len(rows):
        others = "" if given else ", or on others of their recordings"
        raise ValueError(
            f"Expected clips that the model was not trained on in {title}, found none: it was trained on all of its "
            f"{count(number, 'clip')}{others}."
        )
    return every[~trained], f"without {count(number, 'clip')} of the training" if number else ""


__all__ = ["LeftOut", "leaving_out", "without_training_clips"]
