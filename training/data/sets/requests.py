"""What is asked of a data set, and which of its clips are held out."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepavfusion_cli.paths import named_path

from .folder import held_out_clips
from .groups import Groups, group


class Request(NamedTuple):
    """The arguments of `build_dataset`."""

    options: dict
    split: str
    train: bool
    seed: int
    task: str
    semantic: bool
    size: int | None
    processor: object

    @property
    def path(self) -> Path:
        """Folder of the data set, with its name, on which orders of clips depend."""
        return named_path(self.options["path"])

    def get(self, key: str, default=None):
        """An option, or its default."""
        return self.options.get(key, default)


def held_out(keys: Any, request: Request, divided: bool) -> np.ndarray:
    """Positions (n,) of the clips of a split, given `validation_fraction`.

    Args:
        keys: `Groups`, or the name of each clip's group; clips of a group stay together.
        request: Split and options.
        divided: Whether validation is taken out of these clips.

    Raises:
        ValueError: The validation split is requested without `validation_fraction`.
    """
    fraction = request.get("validation_fraction")
    if fraction is None and request.split == "validation":
        raise ValueError(
            f"Dataset {request.options['name']!r} has no validation split. Use train or test, or hold out a part of "
            "the training clips with data.validation_fraction."
        )
    if fraction is None or not divided:
        return np.arange(len(keys.numbers) if isinstance(keys, Groups) else len(keys))
    groups = group(keys)
    if len(groups.names) < 2:
        raise ValueError(f"data.validation_fraction needs at least two recordings, got one ({groups.names[0]}).")
    return np.flatnonzero(held_out_clips(groups, fraction) == (request.split == "validation"))


__all__ = ["Request", "held_out"]
