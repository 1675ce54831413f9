"""The splits of a prepared data set, for `build_dataset`."""

from ..sets.folder import HELD_OUT, divide
from ..sets.names import recording_of
from .reading import ShardReader, read_about, read_shards, rows_of_split


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
    return choose_split(rows, split, fraction, root, note)


def choose_split(rows, split: str, fraction: float | None, root: str, note: str):
    """Choose the rows of a split of a table in which `split` is that of `build_dataset`, or null where there are none.

    Args:
        rows: The rows of all splits.
        split: `"train"`, `"validation"` or `"test"`.
        fraction: Fraction of the clips to hold out.
        root: Where the rows are from, for messages.
        note: A note for the card of the rows.

    Returns:
        As `read_split`.

    Raises:
        ValueError: There are no clips of the split.
    """
    if None in rows.data.column("split").unique().to_pylist():
        rows, divided = divide(rows, split, HELD_OUT if fraction is None else fraction, root)
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


def reader_for(root: str, cache: str | None, processor) -> ShardReader:
    """The reader of a prepared data set for a model: JPEG files are decoded at the size that its crops need."""
    # Crops are of at least half of the area, and up to a third wider than high, or higher than wide.
    return ShardReader(root, cache, tuple(2 * side for side in processor.visual_processor.output_size))


__all__ = ["read_split", "reader_for"]
