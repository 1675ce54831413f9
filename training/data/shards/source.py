"""The splits of a prepared data set, for `build_dataset`."""

from typing import Any

from ..sets.folder import divide
from ..sets.names import recording_of
from .reading import ShardReader, read_about, read_shards, rows_of_split

_HELD_OUT = 0.1  # fraction of clips without splits, as of folders


def read_split(root: str, cache: str | None, split: str, fraction: float | None):
    """Read the rows of a split of a prepared data set.

    Args:
        root: Folder of the data set, or its address for fsspec.
        cache: Folder for downloaded files.
        split: `"train"`, `"validation"` or `"test"`.
        fraction: Fraction of the clips to hold out.

    Returns:
        The rows; a note for their card; the group of each row; and whether they are the clips of training, of which the
        split has still to be taken.

    Raises:
        FileNotFoundError: There is no prepared data set.
        ValueError: There are no clips of the split.
    """
    rows, note = read_shards(root, cache), f"prepared from {read_about(root, cache)['data']}"
    if None in rows.data.column("split").unique().to_pylist():
        rows, divided = divide(rows, split, _HELD_OUT if fraction is None else fraction, root)
        return rows, ", ".join(filter(None, (note, divided))), rows["recording"][:], False
    given = rows_of_split(rows, split)
    if (split == "validation" and not len(given)) or (split == "train" and fraction is not None):
        training = rows_of_split(rows, "train")
        return training, note, _recordings(training), True
    if not len(given):
        raise ValueError(f"Expected clips of the split {split!r} in {root}, found none.")
    return given, note, _recordings(given), False


def _recordings(rows) -> list[str]:
    own = rows["recording"][:] if "recording" in rows.column_names else [None] * len(rows)
    return [name or recording_of(path) for name, path in zip(own, rows["path"], strict=True)]


def reader_for(options: dict[str, Any], processor) -> ShardReader:
    """The reader of a prepared data set for a model: JPEG files are decoded at the size that its crops need.

    Args:
        options: `path`, and optionally `cache_dir` and `cache_gb`, of the section `data` of a recipe.
        processor: A `DeepAVFusionProcessor` of the model's sizes.
    """
    # Crops are of at least half of the area, and up to a third wider than high, or higher than wide.
    size = tuple(2 * side for side in processor.visual_processor.output_size)
    return ShardReader(str(options["path"]), options.get("cache_dir"), size, options.get("cache_gb"))


__all__ = ["read_split", "reader_for"]
