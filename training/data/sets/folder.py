"""Any folder of videos as a `datasets.Dataset`: rows of path and annotations.

Three layouts:

- a folder per class: `root/<class>/clip.mp4`, at any depth: the class is the clip's folder. Where all of the root's
  folders are named train, validation (or val) and test, they are the splits;
- one flat folder: `root/clip.mp4`, without labels;
- an annotation file, csv or jsonl, with `file` (or `file_name`) and optionally `label`, `start` and `end` (seconds of
  the annotated part), `split` and `recording`. In jsonl a label may be a list: then every row has several. The file
  lies in the folder (as its only csv or jsonl file) or is given; paths in it are relative to the folder.
"""

import functools
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from deepavfusion.inference.jobs.inputs import VIDEO_SUFFIXES, other_media, walk_files
from deepavfusion_cli.early.contents import annotation_files, check_videos, is_video

from ...wording import count
from .annotations import is_split, read_annotations, split_name
from .groups import Labels, arrow_column, equals, group, held_out_groups, label_arrays, labels_of, name_order
from .names import find_listed, recordings_of

logger = logging.getLogger(__name__)

HELD_OUT = 0.1  # fraction of the clips of a folder without splits that is held out by default
WHOLE = 1.0  # fraction with which a folder without splits is held out as a whole
WHOLE_FOLDER = "the whole folder"  # in the description of such clips
HELD_OUT_CLIPS = "held out"  # in that of clips of which a fraction is


@functools.cache
def _report(note: str) -> None:
    """Log a note on a folder, once for all of its splits."""
    logger.warning(note)


def make_rows(rows: list[dict], label_names: list[str] | None = None):
    """Make a `datasets.Dataset` with the columns `path`, `label` (if there are labels), `start`, `end` and `split`.

    Args:
        rows: Dictionaries with `path` and optionally `label` (a name, or a list of names where a clip has several),
            `start`, `end` (seconds) and `split`; also `clip` (the published name) and `recording` (the recording that
            it is part of), which become columns if any row has them.
        label_names: All classes in order; None takes those of the rows, sorted: numbers by their values.

    Raises:
        ValueError: No rows; labels on some rows only; names not in `label_names`; names of files that are not UTF-8.
    """
    from datasets import ClassLabel, Dataset, Features, List, Value

    if not rows:
        raise ValueError("Expected at least one clip, got none.")
    labels = [row.get("label") for row in rows]
    unlabeled = sum(label is None for label in labels)
    several = any(isinstance(label, (list, tuple)) for label in labels)
    features = {"path": Value("string")}
    columns = {"path": [str(row["path"]) for row in rows]}
    if unlabeled < len(rows):
        if unlabeled:
            first = next(row["path"] for row in rows if row.get("label") is None)
            raise ValueError(
                f"Expected labels for all clips or none, but {unlabeled} of {len(rows)} have none: {first}"
            )
        names = [list(label) if isinstance(label, (list, tuple)) else [label] for label in labels]
        found = {name for clip in names for name in clip}
        by_value = int if all(name.isdecimal() for name in found) else str
        classes = sorted(found, key=lambda name: (by_value(name), name)) if label_names is None else list(label_names)
        if unknown := sorted(found - set(classes)):
            raise ValueError(f"{len(unknown)} labels are not among the {len(classes)} classes, first: {unknown[0]!r}.")
        number = {name: k for k, name in enumerate(classes)}
        numbers = [[number[name] for name in clip] for clip in names]
        features["label"] = List(ClassLabel(names=classes)) if several else ClassLabel(names=classes)
        columns["label"] = numbers if several else [clip[0] for clip in numbers]
    for column, kind in (("start", "float64"), ("end", "float64"), ("split", "string")):
        features[column] = Value(kind)
        columns[column] = [row.get(column) for row in rows]
    for column in ("clip", "recording"):
        if any(column in row for row in rows):
            features[column] = Value("string")
            columns[column] = [row.get(column) for row in rows]
    try:
        return Dataset.from_dict(columns, features=Features(features))
    except UnicodeEncodeError:
        wrong = next(path for path in columns["path"] if _as_utf8(path) != path)
        raise ValueError(f"Expected names of files in UTF-8, but that of {wrong} is not: rename it.") from None


def _as_utf8(path: str) -> str:
    """A path whose bytes that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def label_info(dataset) -> tuple[list[str] | None, bool]:
    """(class names or None, whether clips have several labels) of a dataset of `make_rows`."""
    feature = dataset.features.get("label")
    if feature is None:
        return None, False
    return (feature.names, False) if hasattr(feature, "names") else (feature.feature.names, True)


def row_classes(dataset) -> list[list[int]]:
    """The class indices of each row of a dataset with labels."""
    return [label if isinstance(label, list) else [label] for label in dataset["label"][:]]


def read_folder(root: str | Path, annotations: str | Path | None = None, allow_outside: bool = False):
    """Read a folder of videos as a dataset of `make_rows`.

    Args:
        root: The folder, in one of the module's layouts.
        annotations: csv or jsonl file; None looks for one in the folder.
        allow_outside: Whether the annotations may name files outside of the folder.

    Raises:
        FileNotFoundError: The folder, or a file that the annotations name, does not exist.
        ValueError: No videos, invalid annotations, or files outside of the folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected a folder of videos at {root}, found none.")
    if annotations is None:
        found = annotation_files(root)
        if len(found) > 1:
            raise ValueError(
                f"Found {len(found)} annotation files in {root}: choose one of {', '.join(p.name for p in found)} with "
                "data.annotations."
            )
        annotations = found[0] if found else None
    if annotations is not None:
        listed = read_annotations(annotations)
        paths = find_listed(root, [row["file"] for row in listed], annotations, allow_outside)
        if not listed:
            raise ValueError(f"Expected rows of files in {annotations}, found none.")
        return make_rows([{**row, "path": path} for row, path in zip(listed, paths, strict=True)])
    files = list(walk_files(root))
    check_videos(root, files)
    paths = [path for path in files if is_video(path.name)]
    left_out = other_media(files, VIDEO_SUFFIXES)
    rows = [{"path": path, **({} if path.parent == root else {"label": path.parent.name})} for path in paths]
    if left_out:
        _report(f"{root}: {left_out} left out: a folder stands for its videos")
    kinds = Counter("label" in row for row in rows)
    if len(kinds) == 2:
        first = next(row["path"].name for row in rows if "label" not in row)
        verb, others = "is" if kinds[True] == 1 else "are", "it" if kinds[False] == 1 else "these"
        raise ValueError(
            f"Expected a folder per class, or all videos in one folder without classes, but in {root} "
            f"{count(kinds[True], 'video')} {verb} in folders and {kinds[False]} in none, first: {first}. Move "
            f"{others} into the folder of a class, or elsewhere."
        )
    tops = {row["path"].relative_to(root).parts[0] for row in rows}
    named = sorted(filter(is_split, tops))
    others = sorted(tops.difference(named))
    if others and len(set(map(split_name, named))) > 1:
        raise ValueError(
            f"Expected folders of splits alone, or of classes alone, in {root}, found the splits {', '.join(named)} "
            f"beside {', '.join(others[:5])}{', ...' if len(others) > 5 else ''}: move these elsewhere, or into the "
            "splits."
        )
    if not others:
        for row in rows:
            row["split"] = split_name(row["path"].relative_to(root).parts[0])
            if row["path"].parent.parent == root:  # in the split's folder itself, not in a class
                del row["label"]
    return make_rows(rows)


def divide(rows, split: str, fraction: float, root: str):
    """The rows of a split of a folder, with the column `recording`.

    Without given splits, clips are held out as both validation and test split (see `hold_out`), by classes where there
    are any. Without a given recording, it is that of `recordings_of`.

    Args:
        rows: A dataset of `make_rows`.
        split: `"train"`, `"validation"` or `"test"`.
        fraction: Fraction of the clips to hold out, or `WHOLE` for all.
        root: Where the rows are from, for messages.

    Returns:
        The rows, and a note on how they are divided, empty if their splits are given.

    Raises:
        ValueError: There are no clips of the split.
    """
    note, chosen = "", None
    rows = _with_recordings(rows)
    given = arrow_column(rows, "split")
    splits = {entry["values"].as_py(): entry["counts"].as_py() for entry in given.value_counts()}
    for name in [name for name in splits if name is not None and not is_split(name)]:
        _report(
            f"{root}: {count(splits[name], 'clip')} of the split {name!r} not used: expected train, validation or test"
        )
    if unknown := splits.pop(None, 0) if len(splits) > 1 else 0:
        logger.warning("%s: %d of %d clips have no split and are not used", root, unknown, len(rows))
    if set(splits) != {None}:
        chosen = equals(given, split)
        found = f"clips of the splits {', '.join(sorted(splits))}"
    elif fraction == WHOLE:
        chosen, note, found = np.full(len(rows), split != "train"), WHOLE_FOLDER, "no split"
    else:
        groups = group(arrow_column(rows, "recording"))
        classes = None if label_info(rows)[0] is None else label_arrays(rows)
        held = held_out_clips(groups, fraction, classes)
        if not held.any():  # every class is a single recording, as in folders of one video each
            held, classes = held_out_clips(groups, fraction), None
        note = (
            f"{held.sum()} of {count(len(rows), 'clip')} {HELD_OUT_CLIPS}{' by class' if classes is not None else ''}"
        )
        chosen = held if split != "train" else ~held
        found = f"{count(len(rows), 'clip')} of {count(len(groups.names), 'recording')} in all"
        if len(groups.names) == 1:
            found += ", and clips of one recording stay together: add clips of other recordings"
    if not chosen.any():
        raise ValueError(f"Expected clips of the split {split!r} in {root}, found {found}.")
    return rows.select(np.flatnonzero(chosen)), note


def _with_recordings(rows):
    """The rows with the recording of each: where none is given, that of `recordings_of`."""
    if "recording" in rows.column_names:
        column = arrow_column(rows, "recording")
        if not column.null_count and not equals(column, "").any():
            return rows
    own = rows["recording"][:] if "recording" in rows.column_names else [None] * len(rows)
    recordings = [name or of_file for name, of_file in zip(own, recordings_of(rows["path"][:]), strict=True)]
    rows = rows.remove_columns("recording") if "recording" in rows.column_names else rows
    return rows.add_column("recording", recordings)


def order_by_name(paths: Iterable[str]) -> list[int]:
    """Positions of clips in a pseudo-random order.

    The order depends on each clip's name and folder alone, neither on the machine nor on the other clips.
    """
    return name_order(list(paths)).tolist()


def hold_out(groups: Any, fraction: float, held_out: bool, classes: Any = None) -> list[int]:
    """Positions of the clips that are held out, or of the others; see `held_out_clips`."""
    return np.flatnonzero(held_out_clips(groups, fraction, classes) == held_out).tolist()


def held_out_clips(groups: Any, fraction: float, classes: Any = None) -> np.ndarray:
    """Whether each clip is held out, (N,) bool.

    Held out are the first groups in `order_by_name`: of two or more, at least one, and at least one is not. With
    classes, this holds for the groups of each class, as far as their clips have no other classes.

    Args:
        groups: `Groups`, or the name of each clip's group; clips of a group stay together.
        fraction: Fraction of the groups to hold out, above 0 and below 1.
        classes: `Labels`, or a list of the classes of each clip.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"Expected a fraction of held-out clips between 0 and 1, got {fraction}.")
    groups = group(groups)
    labels = classes if classes is None or isinstance(classes, Labels) else labels_of(classes)
    return held_out_groups(groups, fraction, labels)[groups.numbers]


def annotated_end(row: dict, seconds: float) -> float | None:
    """End of the annotated part of a row in seconds: `seconds` after a start without an end; None without either."""
    start, end = row.get("start"), row.get("end")
    return start + seconds if end is None and start is not None else end


def clip_time(row: dict, seconds: float) -> float | None:
    """Middle of a row's window in its file, in seconds.

    The middle of the annotated part; `seconds` / 2 after a start without an end; None (the middle of the file) without
    either.
    """
    end = annotated_end(row, seconds)
    return None if end is None else ((row.get("start") or 0.0) + end) / 2
