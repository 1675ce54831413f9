"""The index of a prepared data set, made of the parts of its shards."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .drafts import writing
from .encoding import ARRAYS
from .preparation import Preparation
from .reading import ABOUT, INDEX
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
        columns = {name: [entry[name] for entry in entries] for name in places if name not in _NAMES}
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
        "splits": {split or "clips": len(table) for split, table in zip(preparation.rows, tables, strict=True)},
        "bytes": size,
        "broken": [list(pair) for pair in broken],
    }
    with writing(out / ABOUT) as file:
        file.write((json.dumps(about, indent=1) + "\n").encode())
    return Prepared(len(index), broken, size)


__all__ = ["Prepared", "finish"]
