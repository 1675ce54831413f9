"""Annotation files of folders of videos: csv, tsv or jsonl."""

import json
import math
from pathlib import Path
from typing import Any

from deepavfusion.ranges_deepavfusion import SECONDS
from deepavfusion_cli.early.contents import ANNOTATION_SUFFIXES
from deepavfusion_cli.values import kind_of

from .tables import read_records, read_text

COLUMNS = ("file", "label", "start", "end", "split", "recording")
_ALIASES = {"file_name": "file", "filename": "file"}
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_name(name: str) -> str:
    """A split as `build_dataset` calls it: `val` -> `validation`; other names are unchanged."""
    return _SPLITS.get(name.strip().lower(), name)


def is_split(name: str) -> bool:
    """Whether a name is that of a split."""
    return split_name(name) in _SPLITS.values()


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
            times[name] = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            times[name] = math.nan
        if times[name] not in SECONDS:
            raise ValueError(f"{where}: expected {name} in seconds, a number {SECONDS}, got {value!r}.")
    start = times.get("start", 0.0)
    if "end" in times and times["end"] <= start:
        raise ValueError(f"{where}: expected end after start {start}, got {times['end']}.")
    return times


def read_annotations(path: str | Path) -> list[dict]:
    """Read the rows of a csv, tsv or jsonl file.

    Returns:
        Dictionaries with `file` and optionally `label` (str, or a list of str), `start` and `end` (float seconds),
        `split` and `recording`.

    Raises:
        ValueError: No `file` (or `file_name`) column, a time out of range, an end before its start, a
            label that is no name; with the line's number.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in ANNOTATION_SUFFIXES:
        raise ValueError(f"Expected a .csv or .jsonl file, got {path}.")
    rows = _json_lines(path) if suffix == ".jsonl" else read_records(path, ",;\t")[1]
    return [_clean(row, f"{path}, line {line}") for line, row in rows]


def _json_lines(path: Path) -> list[tuple[int, Any]]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: expected one JSON object per line: {error}") from error
    return rows


def _clean(row: Any, where: str) -> dict:
    given = {}
    for key, value in row.items() if isinstance(row, dict) else ():
        key = str(key).strip().lower()
        if value not in (None, ""):
            given.setdefault(_ALIASES.get(key, key), value)
    file = given.get("file")
    if not isinstance(file, str) or not file.strip():
        found = f"the columns {', '.join(map(str, row))}" if isinstance(row, dict) else kind_of(row)
        raise ValueError(f"{where}: expected a path as the value for 'file' (or 'file_name'), got {found}.")
    clean = {key: given[key] for key in COLUMNS if key in given}
    clean["file"] = file.strip()
    clean |= read_times({key: clean[key] for key in ("start", "end") if key in clean}, where)
    if "label" in clean:
        label = clean["label"]
        several = isinstance(label, list)
        clean["label"] = [_name(entry, where) for entry in label] if several else _name(label, where)
    for key in ("split", "recording"):
        if key in clean:
            clean[key] = _name(clean[key], where, key)
    if "split" in clean:
        clean["split"] = split_name(clean["split"])
    return clean


def _name(value: Any, where: str, key: str = "label") -> str:
    """A name; numbers are names too: 3 and 3.0 are "3"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f"{where}: expected a name as {key}, got {value!r}.")
    return str(value).strip()
