"""Groups of clips, such as recordings, and classes as arrays: of millions of clips, without an object for each."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_AT_ONCE = 10_000  # names that are Python objects at a time


class Groups(NamedTuple):
    """The groups of clips.

    Attributes:
        numbers: (N,) integers, the number of each clip's group.
        names: (G,) names of the groups, a list or an Arrow array.
    """

    numbers: np.ndarray
    names: Any


class Labels(NamedTuple):
    """The classes of clips.

    Attributes:
        clips: (L,) clip of each label, ascending.
        classes: (L,) class of each label.
    """

    clips: np.ndarray
    classes: np.ndarray


def arrow_column(rows, name: str):
    """A column of a `datasets.Dataset` as an Arrow array, without a copy where its rows are not selected."""
    column, chosen = rows.data.column(name), rows._indices  # which `datasets` would turn into a list
    return column if chosen is None else column.take(chosen.column(0))


def equals(column, value: str) -> np.ndarray:
    """Whether each entry of an Arrow array equals a value, (N,) bool; nulls do not."""
    from pyarrow import compute

    return compute.call_function("equal", [column, value]).fill_null(False).to_numpy(zero_copy_only=False)


def group(values: Any) -> Groups:
    """Number the groups of clips.

    Args:
        values: Name of each clip's group: a sequence, or an Arrow array without nulls.
    """
    if isinstance(values, Groups):
        return values
    if hasattr(values, "dictionary_encode"):
        encoded = values.dictionary_encode()
        encoded = encoded.combine_chunks() if hasattr(encoded, "chunks") else encoded
        return Groups(encoded.indices.to_numpy(), encoded.dictionary)
    numbers: dict[Any, int] = {}
    found = [numbers.setdefault(value, len(numbers)) for value in values]
    return Groups(np.array(found, np.int64), list(numbers))


def label_arrays(rows) -> Labels:
    """The labels of a `datasets.Dataset` with a column `label`, each class of a clip once."""
    column = arrow_column(rows, "label").combine_chunks()
    if not hasattr(column, "offsets"):
        return Labels(np.arange(len(column)), column.to_numpy(zero_copy_only=False))
    clips = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
    return _unique(clips, column.flatten().to_numpy())


def labels_of(classes: Sequence[Sequence[int]]) -> Labels:
    """The labels of clips whose classes are given as lists, each class of a clip once."""
    clips = np.repeat(np.arange(len(classes)), [len(row) for row in classes])
    return _unique(clips, np.fromiter((label for row in classes for label in row), np.int64, len(clips)))


def _unique(first: np.ndarray, second: np.ndarray) -> Labels:
    """Each pair of numbers once, ascending."""
    count = int(second.max()) + 1 if len(second) else 1
    pairs = np.unique(first.astype(np.int64) * count + second)
    return Labels(pairs // count, pairs % count)


def parts_of(names: Any) -> Iterator[list[str]]:
    """A sequence or an Arrow array as lists of some names at a time."""
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        yield part.to_pylist() if hasattr(part, "to_pylist") else list(part)


def _digest(path: str) -> bytes:
    """Digest of the last two parts of a path."""
    path = str(path)
    parts = path.rsplit("/", 2)
    if len(parts) < 3 or parts[1] in ("", ".") or parts[2] in ("", "."):
        # As pathlib, which would keep every name in memory for good (Python 3.12 interns the parts of paths).
        root = "" if not path.startswith("/") else "//" if path.startswith("//") and path[2:3] != "/" else "/"
        parts = [*filter(None, [root]), *(part for part in path.split("/") if part not in ("", "."))]
    return hashlib.sha256("/".join(parts[-2:]).encode("utf-8", "surrogateescape")).digest()


def name_order(names: Any, by_name: bool = False) -> np.ndarray:
    """Positions (N,) of names in a pseudo-random order, which depends on each name's last two parts alone.

    Args:
        names: A sequence, or an Arrow array.
        by_name: Whether those that are alike are in the order of their whole names, instead of their positions.
    """
    keys = np.empty(len(names), np.uint64)
    start = 0
    for part in parts_of(names):
        digests = b"".join(_digest(name)[:8] for name in part)
        keys[start : start + len(part)] = np.frombuffer(digests, ">u8")
        start += len(part)
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(np.diff(keys[order]) == 0)
    for run in np.split(same, np.flatnonzero(np.diff(same) > 1) + 1) if len(same) else ():
        place = slice(int(run[0]), int(run[-1]) + 2)
        alike = {int(i): str(names[int(i)]) for i in order[place]}
        order[place] = sorted(alike, key=lambda i: (_digest(alike[i]), alike[i] if by_name else "", i))
    return order


def held_out_groups(groups: Groups, fraction: float, labels: Labels | None = None) -> np.ndarray:
    """Whether each group is held out, (G,) bool; see `hold_out`.

    Args:
        groups: Groups of the clips.
        fraction: Fraction of the groups to hold out.
        labels: Classes of the clips.
    """
    number = len(groups.names)
    order = name_order(groups.names, by_name=True)
    chosen = np.zeros(number, bool)
    if labels is None:
        chosen[order[: min(max(1, round(fraction * number)), number - 1)]] = True
        return chosen
    # Pairs of a group and one of its classes; the last class is that of groups without any.
    own, classes = _unique(groups.numbers[labels.clips], labels.classes)
    none = int(classes.max()) + 1 if len(classes) else 0
    without = np.setdiff1d(np.arange(number), own)
    own, classes = np.append(own, without), np.append(classes, np.full(len(without), none))
    rank = np.empty(number, np.int64)
    rank[order] = np.arange(number)
    by_group = np.lexsort((classes, own))
    starts, of_groups = np.searchsorted(own[by_group], np.arange(number + 1)), classes[by_group]
    by_class = np.lexsort((rank[own], classes))
    members, totals = own[by_class], np.bincount(classes, minlength=none + 1)
    ends, left = np.cumsum(totals), totals.tolist()
    for label in np.argsort(totals, kind="stable").tolist():  # rarest first
        total = int(totals[label])
        most = max(1, round(fraction * total))
        for member in members[ends[label] - total : ends[label]].tolist():
            if total - left[label] >= most:
                break
            mine = of_groups[starts[member] : starts[member + 1]].tolist()
            if not chosen[member] and all(left[other] > 1 for other in mine):
                chosen[member] = True
                for other in mine:
                    left[other] -= 1
    return chosen


__all__ = [
    "Groups",
    "Labels",
    "arrow_column",
    "equals",
    "group",
    "held_out_groups",
    "label_arrays",
    "labels_of",
    "name_order",
    "parts_of",
]
