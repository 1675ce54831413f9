"""The index of a prepared data set: made of the parts of its shards, and read by training."""

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepavfusion_cli.errors import error_number

from ...wording import count
from ..sets.groups import equals
from .downloads import is_remote, local_copy
from .drafts import writing
from .encoding import ARRAYS
from .preparation import WITHOUT_SPLITS, Preparation
from .reading import ABOUT, AGAIN, INDEX, read_about
from .writing import read_part

# Columns of the index beside those of the rows; binary ones are the bytes of arrays of ARRAYS, which need no parsing.
_PLACES = {
    "shard": "string",
    "video_offset": "int64",
    "frame_ends": "large_binary",
    "frame_times": "large_binary",
    "image_start": "float64",
    "image_end": "float64",
    "audio_offset": "int64",
    "audio_ends": "large_binary",
    "audio_start": "float64",
    "audio_end": "float64",
    "bytes": "int64",  # of the source file; parts of earlier versions do not say
}
# Of clips with annotated frames, a column for each frame too.
_STILLS = {
    "image": ["string"],
    "mask": ["string"],
    "timestamp": ["float64"],
    "name": ["string"],
    "scene": ["string"],
    "source": ["string"],
    "mask_offset": "int64",
    "mask_ends": "large_binary",
}

_NAMES = ("path", "split", "recording")
_NEEDED = (*_NAMES, "shard", "video_offset", "audio_offset")


@dataclass
class Prepared:
    """Outcome of a preparation.

    Attributes:
        clips: Number of clips stored.
        broken: (path, reason) of the clips that could not be read.
        bytes: Size of the shards.
    """

    clips: int
    broken: list[tuple[str, str]]
    bytes: int


def is_finished(out: str | Path) -> bool:
    """Whether a folder holds the index of a prepared data set, and what it says of itself."""
    return all(Path(out, name).is_file() for name in (INDEX, ABOUT))


def finish(preparation: Preparation, out: str | Path) -> Prepared:
    """Write the index of all shards and `dataset.json`, with which the preparation is complete.

    Raises:
        FileNotFoundError: A shard is missing.
    """
    import pyarrow as pa
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    out = Path(out)
    kinds = _PLACES | (_STILLS if preparation.about["kind"] != "videos" else {})
    kinds |= dict.fromkeys(_NAMES, "string")
    places = {name: List(Value(kind[0])) if isinstance(kind, list) else Value(kind) for name, kind in kinds.items()}
    if "image" in places:
        places |= {"boxes": List(List(List(Value("float64")))), "visible": List(List(Value("string")))}
    about = dict(preparation.about)
    tables, broken, size = [], [], 0
    for split, rows in preparation.rows.items():
        kept, entries = [], []
        for name, of, _ in preparation.shards():
            if of != split:
                continue
            part = read_part(out, name)
            if part is None:
                raise FileNotFoundError(f"{out / 'shards' / name}.tar is missing; prepare the data set again.")
            kept += [entry["row"] for entry in part["index"]]
            entries += part["index"]
            broken += [tuple(pair) for pair in part["broken"]]
            size += part["bytes"]
        own = rows.select(kept).flatten_indices() if len(kept) < len(rows) else rows
        columns = {name: [entry[name] for entry in entries] for name in places if name not in (*_NAMES, "bytes")}
        columns["bytes"] = [entry.get("bytes") for entry in entries]
        for name in ARRAYS.keys() & columns.keys():
            columns[name] = [np.asarray(values, ARRAYS[name]).tobytes() for values in columns[name]]
        columns["path"] = [preparation.name(path) for path in own["path"]]
        columns["split"] = [split] * len(entries)
        columns["recording"] = preparation.recordings(
            {name: own[name][:] for name in _NAMES if name in own.column_names}
        )
        own = own.remove_columns([name for name in own.column_names if name in places])
        given = Dataset.from_dict(columns, Features(places))
        tables.append(concatenate_datasets([own, given], axis=1) if own.column_names else given)
        if split in about.get("pairs", {}):
            place = {row: k for k, row in enumerate(kept)}
            pairs = about["pairs"][split]
            pairs = [[place[row] for row in pair] for pair in pairs if all(row in place for row in pair)]
            about["pairs"] = {**about["pairs"], split: pairs}
    index = concatenate_datasets(tables)
    table = index.data.table
    with writing(out / INDEX) as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=1000):
            writer.write_batch(batch)
    about = {
        **preparation.settings(),
        **about,
        "splits": {split or WITHOUT_SPLITS: len(table) for split, table in zip(preparation.rows, tables, strict=True)},
        "bytes": size,
        "broken": [list(pair) for pair in broken],
    }
    with writing(out / ABOUT) as file:
        file.write((json.dumps(about, indent=1) + "\n").encode())
    return Prepared(len(index), broken, size)


def read_shards(root: str, cache: str | None = None):
    """The index of a prepared data set as a `datasets.Dataset`, mapped into memory and shared between processes.

    Raises:
        FileNotFoundError: See `read_about`; also if there is no index, or shards are missing.
        ValueError: The index is damaged, does not fit `dataset.json`, or names a clip twice.
    """
    from datasets import Dataset

    about, name = read_about(root, cache), f"{root}/{INDEX}"
    file = local_copy(name, cache)
    again = f"copy it again from where it was prepared, or {AGAIN}"
    if file != name.removeprefix("file://"):
        again = f"delete its copy {file}, and it is downloaded again"
    if not Path(file).is_file():
        raise FileNotFoundError(f"Expected the index of a prepared data set at {name}, found none; {again}.")
    try:
        rows = Dataset.from_file(file)
        for batch in _batches(file):
            batch.validate()
    except Exception as error:  # pyarrow and datasets raise a dozen kinds
        if error_number(error) is not None or isinstance(error, MemoryError):
            raise
        raise ValueError(f"{name} is damaged or incomplete; {again}.") from error
    if lacks := [column for column in _NEEDED if column not in rows.column_names]:
        raise ValueError(f"{name} is not the index of a prepared data set: it has no column {lacks[0]!r}; {again}.")
    expected = sum(about["splits"].values())
    if len(rows) != expected:
        raise ValueError(f"{name} has {len(rows):,} clips, expected {expected:,}, as {ABOUT} says; {again}.")
    _check_places(rows, file, root, again)
    return rows


def _batches(file: str | Path) -> Iterator:
    """The record batches of an index, each in memory until the next one is asked for.

    What has been read of a mapped file stays in memory as long as its mapping; columns that are read once, at every
    start, are therefore not read from the mapping of the training's rows.
    """
    import pyarrow as pa

    with open(file, "rb") as source:
        mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    for batch in pa.ipc.open_stream(pa.py_buffer(mapped)):
        yield batch
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            mapped.madvise(mmap.MADV_DONTNEED)


def _check_places(rows, file: str | Path, root: str, again: str) -> None:
    """Check that every clip of an index has a place of its own, and that the shards are there if they are local.

    Raises:
        FileNotFoundError: Shards are missing.
        ValueError: A clip is named twice.
    """
    names, before, ascending = {}, (-1, 0), True  # names in their order, and the place of the last clip
    for batch in _batches(file):
        if not len(batch):
            continue
        encoded, offsets = batch.column("shard").dictionary_encode(), batch.column("audio_offset").to_numpy()
        numbers = np.array([names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()])
        numbers = numbers[encoded.indices.to_numpy()]
        later = (np.diff(numbers) > 0) | ((np.diff(numbers) == 0) & (np.diff(offsets) > 0))
        ascending = ascending and bool(later.all()) and before < (numbers[0], offsets[0])
        before = (numbers[-1], offsets[-1])
    if not ascending:  # not as it was written
        numbers = np.array([names[name] for name in rows["shard"]])
        places = np.stack([numbers, rows.data.column("audio_offset").to_numpy()])
        _, first, times = np.unique(places, axis=1, return_index=True, return_counts=True)
        if (times > 1).any():
            twice = rows[int(first[times > 1].min())]["path"]
            raise ValueError(f"{root}/{INDEX} names the clip {twice} twice; {again}.")
    if is_remote(root):
        return
    folder = Path(root.removeprefix("file://"), "shards")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{len(missing):,} of {count(len(names), 'shard')} are missing in {folder}, first: {missing[0]}; copy them "
            f"again from where they were prepared, or {AGAIN}."
        )


def rows_of_split(rows, split: str):
    """The rows of an index that are of a split, without reading those of the others."""
    chosen = np.flatnonzero(equals(rows.data.column("split"), split))
    if len(chosen) and chosen[-1] - chosen[0] + 1 == len(chosen):
        return rows.select(range(chosen[0], chosen[-1] + 1))
    return rows.select(chosen)


__all__ = ["Prepared", "finish", "is_finished", "read_shards", "rows_of_split"]
