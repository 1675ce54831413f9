"""Lists of usable clips: parquet files that `deepavfusion data check --out` writes, and that training reads.

A list holds the rows of all splits of a data set (`make_rows`, or `still_rows` of frames with masks or boxes), without
those that cannot be read; paths are relative to the data set's folder. With it, a run does not search the folder. What
the rows depend on is stored and compared: the options of the data set and the contents of its annotation files.
"""

import hashlib
import json
import logging
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepavfusion.inference.files import write_files

from ...wording import count
from .inspection import Finding

logger = logging.getLogger(__name__)

_KEY, _VERSION = b"deepavfusion", 1
_FILES = ("annotations", "train_list", "test_list")  # options that name files, whose contents count
_CLIP_OPTIONS = (*_FILES, "allow_outside", "subset", "drop_overlap", "cache_dir")
_PATHS = ("path", "audio", "mask")  # columns of files
_LOOKED_UP = 32  # clips whose files are looked up when a list is read


class Listing(NamedTuple):
    """Rows of a list."""

    rows: Any
    """A `datasets.Dataset` of `make_rows` with `recording`, or of `still_rows`; with `seconds` (of the clip's usable
    part) and `bytes`; `split` is that of `build_dataset`, or None for folders without splits."""
    notes: dict[str, str]
    """Split -> note for its card."""
    classes: list[str] | None = None
    """Names of the values of masks, if they have any."""


def check_command(options: Mapping[str, Any], out: str | Path | None = None) -> str:
    """The command that checks a data set.

    Args:
        options: Section `data` of a recipe.
        out: List to write.
    """
    own = [f"data.{key}={options[key]}" for key in _CLIP_OPTIONS if options.get(key) is not None]
    words = ["deepavfusion", "data", "check", options["name"], str(options["path"]), *own]
    return shlex.join([*words, *([] if out is None else ["--out", str(out), "--overwrite"])])


def digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _decisive(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide which clips there are; of files, digests."""
    given = {key: options[key] for key in _CLIP_OPTIONS if options.get(key) not in (None, False)}
    return {key: digest(value) if key in _FILES else value for key, value in given.items()}


def write_listing(
    path: str | Path,
    options: Mapping[str, Any],
    splits: Mapping[str | None, tuple[Any, Sequence[Finding]]],
    annotation_files: Iterable[Path],
    started: float,
    notes: Mapping[str, str],
    classes: Sequence[str] | None = None,
) -> int:
    """Write the list of the usable clips of a data set; returns their number.

    Args:
        path: Parquet file to write.
        options: Section `data` of a recipe.
        splits: Split -> its rows, and what was found of each.
        annotation_files: Files that the rows depend on.
        started: Time at which the data set was read, in seconds since the epoch.
        notes: Split -> note for its card.
        classes: Names of the values of masks, if they have any.

    Raises:
        ValueError: There are no usable clips.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset, Features, Value, concatenate_datasets

    root, tables = str(options["path"]), []
    added = Features({"split": Value("string"), "seconds": Value("float64"), "bytes": Value("int64")})
    for split, (rows, findings) in splits.items():
        usable = [finding for finding in findings if finding.reason is None]
        own = rows.select([finding.index for finding in usable]).flatten_indices()
        files = {name: own[name][:] for name in _PATHS if name in own.column_names}
        added |= {name: Value("string") for name in files}
        columns = {
            **{name: [file and _inside(root, file) for file in paths] for name, paths in files.items()},
            "split": [split] * len(usable),
            "seconds": [finding.seconds for finding in usable],
            "bytes": [finding.size for finding in usable],
        }
        own = own.remove_columns([name for name in added if name in own.column_names])
        tables.append(concatenate_datasets([own, Dataset.from_dict(columns, added)], axis=1))
    rows = concatenate_datasets([table for table in tables if len(table)] or tables)
    if not len(rows):
        raise ValueError(f"Expected usable clips of {options['name']} in {root}, found none.")
    inside = {_inside(root, str(file)): digest(file) for file in annotation_files}
    about = {
        "version": _VERSION,
        "data": options["name"],
        "options": _decisive(options),
        "files": {name: value for name, value in inside.items() if not os.path.isabs(name)},
        "started": started,
        "notes": dict(notes),
        "classes": None if classes is None else list(classes),
    }
    table = rows.data.table.combine_chunks()
    metadata = {**(rows.features.arrow_schema.metadata or {}), _KEY: json.dumps(about).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(rows.features.arrow_schema).replace_schema_metadata(metadata), sink)
    write_files({Path(path): sink.getvalue().to_pybytes()}, overwrite=True)
    return len(rows)


def _inside(root: str, path: str) -> str:
    """A path relative to the root, or absolute if it is elsewhere."""
    relative = os.path.relpath(path, root)
    return os.path.abspath(path) if relative.startswith("..") else relative.replace(os.sep, "/")


def read_listing(path: str | Path, options: Mapping[str, Any]) -> Listing:
    """Read a list of usable clips.

    Args:
        path: Parquet file of `write_listing`.
        options: Section `data` of a recipe.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such list, of another data set or made with other options; annotation files have changed
            since; or files of clips are gone or have another size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset, DatasetInfo, Features
    from datasets.table import InMemoryTable

    path, root = Path(path), str(options["path"])
    again = f"`{check_command(options, path)}` writes it anew"
    if not path.is_file():
        raise FileNotFoundError(f"Expected a list of usable clips at {path}, found none; {again}.")
    content = path.read_bytes()
    try:
        table = pq.read_table(pa.BufferReader(content))
        about = json.loads((table.schema.metadata or {})[_KEY])
    except KeyError as error:
        raise ValueError(f"{path} is no list of usable clips; {again}.") from error
    except Exception as error:  # pyarrow raises a dozen kinds
        raise ValueError(f"{path} is damaged, or no list of usable clips; {again}.") from error
    if about.get("version") != _VERSION:
        raise ValueError(f"{path}: expected a list of version {_VERSION}, got version {about.get('version')}; {again}.")
    if reason := _mismatch(about, options, root):
        raise ValueError(f"{path} {reason}; {again}.")
    names = table.column("path").to_pylist()
    if reason := _stale(names, table.column("bytes").to_pylist(), root):
        raise ValueError(f"{path} is out of date: {reason}; {again}.")
    _report_changes(path, names, root, about["started"], again)
    for place, column in enumerate(table.column_names):
        if column in _PATHS:
            files = [name and os.path.join(root, name) for name in table.column(column).to_pylist()]
            table = table.set_column(place, column, pa.array(files, pa.string()))
    features = Features.from_arrow_schema(table.schema)
    fingerprint = hashlib.sha256(content + root.encode()).hexdigest()[:16]
    rows = Dataset(InMemoryTable(table), info=DatasetInfo(features=features), fingerprint=fingerprint)
    return Listing(rows, about["notes"], about.get("classes"))


def _mismatch(about: dict, options: Mapping[str, Any], root: str) -> str | None:
    """Why a list is not that of a data set and its options."""
    if about["data"] != options["name"]:
        return f"is of the data set {about['data']}, expected {options['name']}"
    was, now = about["options"], _decisive(options)
    for key in _CLIP_OPTIONS:
        if was.get(key) != now.get(key):
            if key in _FILES:
                return f"was made with another data.{key}"
            return f"was made with data.{key}={was.get(key)}, expected {now.get(key)}"
    for name, known in about["files"].items():
        file = Path(root, name)
        if file.is_file() and digest(file) != known:
            return f"is out of date: {file} has changed since"
    return None


def _stale(names: Sequence[str], sizes: Sequence[int], root: str) -> str | None:
    """What is wrong with a few files, spread over the list."""
    chosen = sorted({round(k * (len(names) - 1) / (_LOOKED_UP - 1)) for k in range(_LOOKED_UP)})
    wrong = []
    for i in chosen:
        file = Path(root, names[i])
        found = file.stat().st_size if file.is_file() else None
        if found != sizes[i]:
            what = "is not there" if found is None else f"has {found:,} bytes, expected {sizes[i]:,}"
            wrong.append(f"{file} {what}")
    return f"of {count(len(chosen), 'file')} looked up, {len(wrong)} differ, first: {wrong[0]}" if wrong else None


def _report_changes(path: Path, names: Sequence[str], root: str, started: float, again: str) -> None:
    """Log that folders have changed since the check: clips may have been added."""
    folders = {name.rpartition("/")[0] for name in names}
    for folder in list(folders):
        while folder and (folder := folder.rpartition("/")[0]) not in folders:
            folders.add(folder)
    own = path.resolve().parent  # the list itself changes its folder
    changed = []
    for folder in sorted(folders):
        place = Path(root, folder)
        if place.is_dir() and place.stat().st_mtime > started and place.resolve() != own:
            changed.append(place)
    if changed:
        what = f"{count(len(changed), 'folder')} changed after {path} was made, first: {changed[0]}"
        logger.warning("%s; files that were added since are not used: %s", what, again)


__all__ = ["Listing", "check_command", "digest", "read_listing", "write_listing"]
