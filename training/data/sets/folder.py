"""Any folder of videos as a `datasets.Dataset`: rows of path and annotations.

Three layouts:

- a folder per class: `root/<class>/clip.mp4`, at any depth: the class is the clip's folder. Where all of the root's
  folders are named train, validation (or val) and test, they are the splits;
- one flat folder: `root/clip.mp4`, without labels;
- an annotation file, csv or jsonl, with `file` and optionally `label`, `start` and `end` (seconds of the annotated
  part) and `split`. In jsonl a label may be a list: then every row has several. The file lies in the folder (as its
  only csv or jsonl file) or is given; paths in it are relative to the folder.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepavfusion.ranges_deepavfusion import SECONDS

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg")
_SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_COLUMNS = ("file", "label", "start", "end", "split")


def is_video(name: str) -> bool:
    """Whether a file name has the suffix of a video and is not hidden."""
    return name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith(".")


def make_rows(rows: list[dict], label_names: list[str] | None = None):
    """Make a `datasets.Dataset` with the columns `path`, `label` (if there are labels), `start`, `end` and `split`.

    Args:
        rows: Dictionaries with `path` and optionally `label` (a name, or a list of names where a clip has several),
            `start`, `end` (seconds) and `split`.
        label_names: All classes in order; None takes those of the rows, sorted.

    Raises:
        ValueError: No rows; labels on some rows only; names not in `label_names`.
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
        classes = sorted(found) if label_names is None else list(label_names)
        if unknown := sorted(found - set(classes)):
            raise ValueError(f"{len(unknown)} labels are not among the {len(classes)} classes, first: {unknown[0]!r}.")
        number = {name: k for k, name in enumerate(classes)}
        numbers = [[number[name] for name in clip] for clip in names]
        features["label"] = List(ClassLabel(names=classes)) if several else ClassLabel(names=classes)
        columns["label"] = numbers if several else [clip[0] for clip in numbers]
    for column, kind in (("start", "float64"), ("end", "float64"), ("split", "string")):
        features[column] = Value(kind)
        columns[column] = [row.get(column) for row in rows]
    return Dataset.from_dict(columns, features=Features(features))


def label_info(dataset) -> tuple[list[str] | None, bool]:
    """(class names or None, whether clips have several labels) of a dataset of `make_rows`."""
    feature = dataset.features.get("label")
    if feature is None:
        return None, False
    return (feature.names, False) if hasattr(feature, "names") else (feature.feature.names, True)


def row_classes(dataset) -> list[list[int]]:
    """The class indices of each row of a dataset with labels."""
    return [label if isinstance(label, list) else [label] for label in dataset["label"][:]]


def read_times(values: dict[str, Any], where: str) -> dict[str, float]:
    """Read the times of an annotation, `start` and `end` as far as they are given.

    Args:
        values: Name -> number, or text of a number, in seconds.
        where: File and line, for messages.

    Raises:
        ValueError: A time is not within `SECONDS`, or the end is not after the start.
    """
    times = {}
    for name, value in values.items():
        try:
            times[name] = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            times[name] = float("nan")
        if times[name] not in SECONDS:
            raise ValueError(f"{where}: expected {name} in seconds, a number {SECONDS}, got {value!r}.")
    start = times.get("start", 0.0)
    if "end" in times and times["end"] <= start:
        raise ValueError(f"{where}: expected end after start {start}, got {times['end']}.")
    return times


def read_annotations(path: str | Path) -> list[dict]:
    """Read the rows of a csv or jsonl file.

    Returns:
        Dictionaries with `file` and optionally `label`, `start`, `end` and `split`.

    Raises:
        ValueError: No `file` column, a time out of range, an end before its start; with the line's number.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        numbered = [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]
        try:
            rows = [(n, json.loads(line)) for n, line in numbered]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: expected one JSON object per line: {error}") from error
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
    else:
        raise ValueError(f"Expected a .csv or .jsonl file, got {path}.")
    result = []
    for line, row in rows:
        if not isinstance(row, dict) or not row.get("file"):
            found = ", ".join(str(key) for key in row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{path}, line {line}: expected a value for 'file', got the columns {found}.")
        clean = {key: row[key] for key in _COLUMNS if row.get(key) not in (None, "")}
        clean |= read_times({key: clean[key] for key in ("start", "end") if key in clean}, f"{path}, line {line}")
        result.append(clean)
    return result


def read_folder(root: str | Path, annotations: str | Path | None = None):
    """Read a folder of videos as a dataset of `make_rows`.

    Args:
        root: The folder, in one of the module's layouts.
        annotations: csv or jsonl file; None looks for one in the folder.

    Raises:
        FileNotFoundError: The folder, or a file that the annotations name, does not exist.
        ValueError: No videos, or invalid annotations.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected a folder of videos at {root}, found none.")
    if annotations is None:
        found = sorted(p for p in root.iterdir() if p.suffix in (".csv", ".jsonl"))
        if len(found) > 1:
            raise ValueError(
                f"Found {len(found)} annotation files in {root}: choose one of {', '.join(p.name for p in found)}."
            )
        annotations = found[0] if found else None
    if annotations is not None:
        rows = [{**row, "path": root / row["file"]} for row in read_annotations(annotations)]
        missing = [row["path"] for row in rows if not row["path"].is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(rows)} files in {annotations} do not exist, first: {missing[0]}"
            )
        return make_rows(rows)
    rows = []
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        # A link may lead back to a parent: visit every folder once.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        label = {} if Path(folder) == root else {"label": Path(folder).name}
        rows += [{"path": Path(folder) / name, **label} for name in sorted(names) if is_video(name)]
    if not rows:
        raise ValueError(
            f"Expected files ending in {', '.join(VIDEO_SUFFIXES)} in {root} or in a folder per class, found none."
        )
    kinds = Counter("label" in row for row in rows)
    if len(kinds) == 2:
        raise ValueError(
            f"Expected a folder per class or one flat folder, found {kinds[True]} videos in folders and {kinds[False]} "
            f"beside them in {root}."
        )
    tops = {row["path"].relative_to(root).parts[0] for row in rows}
    if tops <= _SPLIT_FOLDERS.keys():
        for row in rows:
            row["split"] = _SPLIT_FOLDERS[row["path"].relative_to(root).parts[0]]
            if row["path"].parent.parent == root:  # in the split's folder itself, not in a class
                del row["label"]
    return make_rows(rows)


def order_by_name(paths: Iterable[str]) -> list[int]:
    """Positions of clips in a pseudo-random order.

    The order depends on each clip's name and folder alone, neither on the machine nor on the other clips.
    """
    keys = [
        hashlib.sha256("/".join(Path(path).parts[-2:]).encode("utf-8", "surrogateescape")).digest() for path in paths
    ]
    return sorted(range(len(keys)), key=lambda i: (keys[i], i))


def hold_out(paths: list[str], fraction: float, held_out: bool) -> list[int]:
    """Positions of the clips that are held out, or of the others.

    Held out are the first in `order_by_name`; of two clips or more, at least one is held out and one is not.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"Expected a fraction of held-out clips between 0 and 1, got {fraction}.")
    count = min(max(1, round(fraction * len(paths))), len(paths) - 1)
    order = order_by_name(paths)
    return sorted(order[:count] if held_out else order[count:])


def clip_time(row: dict, seconds: float) -> float | None:
    """Middle of a row's window in its file, in seconds.

    The middle of the annotated part; `seconds` / 2 after a start without an end; None (the middle of the file) without
    either.
    """
    start, end = row.get("start"), row.get("end")
    if end is not None:
        return ((start or 0.0) + end) / 2
    return None if start is None else start + seconds / 2
