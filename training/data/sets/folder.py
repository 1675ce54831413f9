"""
Any folder of videos as a `datasets` object: rows of path and annotation, media decoded when a row is read.

Three layouts:

- one folder a class: `root/<class>/clip.mp4`, at any depth: the class is the folder that holds the clip. Where all of
  the root's folders are called train, validation (or val) and test, they are the splits;
- one flat folder: `root/clip.mp4`, without labels;
- an annotation file, csv or jsonl, with `file` and, as far as known, `label`, `start` and `end` (seconds of the part
  that matters) and `split`. In jsonl a label may be a list: then every row has several. It lies in the folder (where it
  is the only csv or jsonl file) or is named; files are relative to the folder.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg")
_SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_COLUMNS = ("file", "label", "start", "end", "split")


def is_video(name: str) -> bool:
    """Whether a file name ends like a video's and is not hidden."""
    return name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith(".")


def make_rows(rows: list[dict], label_names: list[str] | None = None):
    """
    Rows as a `datasets.Dataset` with the columns `path`, `label`, `start`, `end`, `split`.

    Args:
        rows: Dictionaries with `path` and optionally `label` (a name, or a list of names where a clip has several),
            `start`, `end` (seconds) and `split`.
        label_names: All classes in order; None takes the names met, sorted.

    Raises:
        ValueError: No rows; labels on some rows only; names not in `label_names`.
    """
    from datasets import ClassLabel, Dataset, Features, List, Value

    if not rows:
        raise ValueError("no clips: expected at least one row")
    labels = [row.get("label") for row in rows]
    unlabelled = sum(label is None for label in labels)
    several = any(isinstance(label, (list, tuple)) for label in labels)
    features = {"path": Value("string")}
    columns = {"path": [str(row["path"]) for row in rows]}
    if unlabelled < len(rows):
        if unlabelled:
            first = next(row["path"] for row in rows if row.get("label") is None)
            raise ValueError(f"{unlabelled} of {len(rows)} clips have no label, expected all or none; first: {first}")
        names = [list(label) if isinstance(label, (list, tuple)) else [label] for label in labels]
        met = {name for clip in names for name in clip}
        known = sorted(met) if label_names is None else list(label_names)
        if unknown := sorted(met - set(known)):
            raise ValueError(f"{len(unknown)} labels are not among the {len(known)} classes, first: {unknown[0]!r}")
        number = {name: k for k, name in enumerate(known)}
        numbers = [[number[name] for name in clip] for clip in names]
        features["label"] = List(ClassLabel(names=known)) if several else ClassLabel(names=known)
        columns["label"] = numbers if several else [clip[0] for clip in numbers]
    for column, kind in (("start", "float64"), ("end", "float64"), ("split", "string")):
        features[column] = Value(kind)
        columns[column] = [row.get(column) for row in rows]
    return Dataset.from_dict(columns, features=Features(features))


def label_info(dataset) -> tuple[list[str] | None, bool]:
    """(class names or None, whether clips have several labels) of a dataset of rows."""
    feature = dataset.features.get("label")
    if feature is None:
        return None, False
    return (feature.names, False) if hasattr(feature, "names") else (feature.feature.names, True)


def read_annotations(path: str | Path) -> list[dict]:
    """
    The rows of a csv or jsonl file, with the keys `file`, `label`, `start`, `end` and `split` as far as they are there.

    Raises:
        ValueError: No `file` column, a time that is not a number, an end before its start; names the line.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        numbered = [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]
        try:
            rows = [(n, json.loads(line)) for n, line in numbered]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not one JSON object a line: {error}") from error
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
    else:
        raise ValueError(f"{path}: expected a .csv or .jsonl file")
    result = []
    for line, row in rows:
        if not isinstance(row, dict) or not row.get("file"):
            have = ", ".join(str(key) for key in row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{path}, line {line}: expected a value for 'file', got the columns {have}")
        clean = {key: row[key] for key in _COLUMNS if row.get(key) not in (None, "")}
        for key in ("start", "end"):
            if key in clean:
                try:
                    clean[key] = float(clean[key])
                except ValueError:
                    raise ValueError(f"{path}, line {line}: {key} is {row[key]!r}, expected seconds") from None
        if clean.get("end", float("inf")) <= clean.get("start", 0.0):
            raise ValueError(f"{path}, line {line}: end {clean['end']} is not after start {clean.get('start', 0.0)}")
        result.append(clean)
    return result


def read_folder(root: str | Path, annotations: str | Path | None = None):
    """
    A folder of videos as a `datasets.Dataset` with the columns `path`, `label` (where there are any), `start`, `end`
    and `split`. Nothing is decoded; see `with_media`.

    Args:
        root: The folder, in one of the module's layouts.
        annotations: csv or jsonl file; None looks for one in the folder.

    Raises:
        FileNotFoundError: No such folder, or files that the annotations name are missing.
        ValueError: No videos, or annotations that make no sense.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of videos at {root}")
    if annotations is None:
        found = sorted(p for p in root.iterdir() if p.suffix in (".csv", ".jsonl"))
        if len(found) > 1:
            raise ValueError(
                f"{root} holds {len(found)} annotation files, say which: {', '.join(p.name for p in found)}"
            )
        annotations = found[0] if found else None
    if annotations is not None:
        rows = [{**row, "path": root / row["file"]} for row in read_annotations(annotations)]
        missing = [row["path"] for row in rows if not row["path"].is_file()]
        if missing:
            raise FileNotFoundError(
                f"{annotations} names {len(missing)} of {len(rows)} files that are not there, first: {missing[0]}"
            )
        return make_rows(rows)
    rows = []
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        # A link may lead back up: every folder once.
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
            f"no videos in {root}: expected files ending in {', '.join(VIDEO_SUFFIXES)}, in it or in one folder a class"
        )
    kinds = Counter("label" in row for row in rows)
    if len(kinds) == 2:
        raise ValueError(
            f"{root} holds {kinds[True]} videos in folders and {kinds[False]} beside them: expected one folder a class "
            "or one flat folder"
        )
    tops = {row["path"].relative_to(root).parts[0] for row in rows}
    if tops <= _SPLIT_FOLDERS.keys():
        for row in rows:
            row["split"] = _SPLIT_FOLDERS[row["path"].relative_to(root).parts[0]]
            if row["path"].parent.parent == root:  # in the split's folder itself, not in a class
                del row["label"]
    return make_rows(rows)


def order_by_name(paths: Iterable[str]) -> list[int]:
    """
    Positions of clips in an order that looks random and depends on each one's name and folder alone, not on the machine
    nor on which other clips there are.
    """
    keys = [
        hashlib.sha256("/".join(Path(path).parts[-2:]).encode("utf-8", "surrogateescape")).digest() for path in paths
    ]
    return sorted(range(len(keys)), key=lambda i: (keys[i], i))


def hold_out(paths: list[str], share: float, held_out: bool) -> list[int]:
    """
    Positions of the clips that are held out, or of those that are not: the first in `order_by_name`, at least one of
    each where there are two.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of clips to hold out must lie between 0 and 1, got {share}")
    count = min(max(1, round(share * len(paths))), len(paths) - 1)
    order = order_by_name(paths)
    return sorted(order[:count] if held_out else order[count:])


def clip_time(row: dict, seconds: float) -> float | None:
    """
    Where to look in a row's file, in seconds: the middle of its part; `seconds` / 2 after a start without an end; None
    (the middle of the file) without either.
    """
    start, end = row.get("start"), row.get("end")
    if end is not None:
        return ((start or 0.0) + end) / 2
    return None if start is None else start + seconds / 2


def with_media(dataset, num_frames: int = 1, seconds: float = 3.0):
    """
    The dataset with `frames` ((T, H, W, 3) uint8), `waveform` ((C, N) float32) and `sampling_rate` beside its columns,
    decoded when a row is read.

    Args:
        dataset: What `read_folder` and its like return, or an `IterableDataset` of such rows.
        num_frames: Frames spread over the window.
        seconds: Length of the window.

    Raises:
        MediaError: When a row is read that has no readable picture or sound.
    """
    from deepavfusion.processors import load_clip

    def decode(batch: dict) -> dict:
        count = len(batch["path"])
        rows = [{name: column[k] for name, column in batch.items()} for k in range(count)]
        clips = [load_clip(r["path"], clip_time(r, seconds), num_frames=num_frames, seconds=seconds) for r in rows]
        media = {name: [getattr(clip, name) for clip in clips] for name in ("frames", "waveform", "sampling_rate")}
        return {**batch, **media}

    if hasattr(dataset, "with_transform"):
        return dataset.with_transform(decode)
    return dataset.map(decode, batched=True, batch_size=1)
