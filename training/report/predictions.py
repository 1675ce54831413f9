"""Stored predictions of an evaluation: what a model answered for each clip, in Parquet files.

A row holds numbers, text, arrays and tensors in dictionaries and lists, which are stored without loss: a column for
each value, named by its path ("maps/own"), arrays as lists of their elements. How values are put together again stands
in the metadata of the file.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepavfusion_cli.errors import error_number, raised_by_package
from deepavfusion_cli.paths import PREDICTIONS as FOLDER

NEIGHBORS = "nearest_neighbours"  # scores that `probe` writes, and the predictions that they follow from
_META = b"deepavfusion"
_FORMAT = 2
_NAME = "clip"  # column of the names of clips
_TEXT = "left out"  # column of rows that are only text: why a clip was not scored


def pack(array: np.ndarray) -> dict[str, Any]:
    """Compress a map without loss, as values of a row."""
    content = zlib.compress(np.ascontiguousarray(array).tobytes(), 6)
    return {"zlib": content, "dtype": str(array.dtype), "shape": list(array.shape)}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The map that `pack` compressed."""
    values = np.frombuffer(zlib.decompress(packed["zlib"]), packed["dtype"])
    return values.reshape([int(size) for size in packed["shape"]])


def write_table(
    path: Path, rows: list[dict[str, Any] | str], about: Mapping[str, Any], names: list[str] | None = None
) -> None:
    """Write rows to a file.

    Args:
        path: The file.
        rows: A dictionary, or a text, for each clip.
        about: JSON values to be stored with them.
        names: Names of the clips, a column for readers other than `read_table`.

    Raises:
        TypeError: If a row holds a value of an unsupported type.
        ValueError: If a value has another type or shape than in the rows before.
    """
    import pyarrow  # here: the package `datasets`, which brings it, is not needed for anything else in this folder
    import pyarrow.parquet

    flat = [{json.dumps([_TEXT]): row} if isinstance(row, str) else dict(_leaves(row, [])) for row in rows]
    kinds: dict[str, list] = {}
    for row in flat:
        for name, value in row.items():
            kind = _kind(value)
            if value is not None and kinds.setdefault(name, kind) != kind:
                raise ValueError(f"Expected {name} as {kinds[name]} in every row, got {kind}.")
    empty = sorted({name for row in flat for name, value in row.items() if value is None})
    columns = {name: [_plain(row.get(name)) for row in flat] for name in kinds}
    named = {} if names is None else {_NAME: pyarrow.array(names, pyarrow.string())}
    arrays = named | {_title(name): pyarrow.array(values, _type(kinds[name])) for name, values in columns.items()}
    meta = {"format": _FORMAT, "about": dict(about), "rows": len(rows), "kinds": kinds, "empty": empty}
    table = pyarrow.table(arrays).replace_schema_metadata({_META: json.dumps(meta).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, compression="zstd")


def read_table(path: Path) -> tuple[list[dict[str, Any] | str], dict[str, Any]]:
    """Read what `write_table` wrote: the rows, and what is stored with them.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is damaged, or was not written by this package.
    """
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        meta = json.loads((table.schema.metadata or {})[_META])
        if meta["format"] != _FORMAT:
            raise ValueError(f"they have the format {meta['format']} of another version, expected {_FORMAT}")
        columns = {name: table.column(_title(name)).to_pylist() for name in meta["kinds"]}
        rows = []
        for index in range(meta["rows"]):
            row: dict[Any, Any] = {}
            for name in meta["empty"]:
                _put(row, json.loads(name), None)
            for name, kind in meta["kinds"].items():
                if columns[name][index] is not None:
                    _put(row, json.loads(name), _restored(columns[name][index], kind))
            rows.append(row[_TEXT] if _TEXT in row else _lists(row))
    except Exception as error:  # pyarrow raises a dozen kinds
        if error_number(error) is not None:
            raise
        own = isinstance(error, ValueError) and raised_by_package(error)
        reason = str(error) if own else "it is damaged, incomplete or another file"
        raise ValueError(
            f"{path} holds no predictions that can be read: {reason}. Evaluate the model again."
        ) from error
    return rows, meta["about"]


def _leaves(value: Any, path: list) -> Iterator[tuple[str, Any]]:
    """Path, as JSON, and value of everything in nested dictionaries and lists."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, [*path, key])
    elif isinstance(value, (list, tuple)) and not all(isinstance(item, (int, float)) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, [*path, index])
    else:
        yield json.dumps(path), value


def _kind(value: Any) -> list:
    """How a value is restored: [name of the kind, type of elements, shape]."""
    if isinstance(value, torch.Tensor):
        return ["tensor", str(value.dtype).removeprefix("torch."), list(value.shape)]
    if isinstance(value, (np.bool_, np.integer, np.float64)):
        value = value.item()
    if isinstance(value, (np.ndarray, np.generic)):
        return ["array", str(value.dtype), list(value.shape)]
    if isinstance(value, (list, tuple)):
        return ["list", "float64", [len(value)]]
    name = type(value).__name__
    if value is not None and name not in ("bool", "int", "float", "str", "bytes"):
        raise TypeError(f"Expected numbers, text, bytes, arrays and tensors as predictions, got {name}.")
    return [name, "", []]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.bool_, np.integer, np.float64)):
        return value.item()
    return value.reshape(-1) if isinstance(value, (np.ndarray, np.generic)) else value


def _type(kind: list):
    import pyarrow

    name, dtype, _ = kind
    if name in ("tensor", "array", "list"):
        return pyarrow.list_(pyarrow.from_numpy_dtype(np.dtype(dtype)))
    return {
        "bool": pyarrow.bool_(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "str": pyarrow.string(),
        "bytes": pyarrow.binary(),
    }[name]


def _restored(value: Any, kind: list) -> Any:
    name, dtype, shape = kind
    if name in ("tensor", "array"):
        array = np.asarray(value, dtype).reshape(shape)
        if name == "tensor":
            return torch.from_numpy(array)
        return array if shape else array[()]
    return value


def _title(name: str) -> str:
    return "/".join(map(str, json.loads(name)))


def _put(row: dict, path: list, value: Any) -> None:
    for key in path[:-1]:
        row = row.setdefault(key, {})
    row[path[-1]] = value


def _lists(value: Any) -> Any:
    """Dictionaries whose keys are places as lists."""
    if not isinstance(value, dict):
        return value
    items = {key: _lists(item) for key, item in value.items()}
    return [items[key] for key in sorted(items)] if items and all(isinstance(key, int) for key in items) else items


def differences(stored: Any, derived: Any, tolerance: float, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name, stored and derived value of every number that differs by more than a tolerance.

    Args:
        stored: Numbers, arrays and texts in dictionaries and lists.
        derived: The same, derived anew.
        tolerance: Largest difference that counts as none; NaN equals NaN.
        name: Name of the value.
    """
    if isinstance(stored, Mapping) and isinstance(derived, Mapping):
        for key in dict.fromkeys([*stored, *derived]):
            inner = f"{name}.{key}" if name else str(key)
            yield from differences(stored.get(key), derived.get(key), tolerance, inner)
    elif stored is None or derived is None or isinstance(stored, (str, bytes)) or isinstance(derived, (str, bytes)):
        if stored is not derived and stored != derived:
            yield name, stored, derived
    else:
        first, second = np.asarray(stored, np.float64), np.asarray(derived, np.float64)
        if first.shape != second.shape:
            yield name, f"shape {first.shape}", f"shape {second.shape}"
            return
        wrong = ~(np.isclose(first, second, rtol=0, atol=tolerance, equal_nan=True))
        if wrong.any():
            place = np.unravel_index(int(wrong.argmax()), wrong.shape)
            where = name + "".join(f"[{int(index)}]" for index in place)
            yield where, float(first[place]), float(second[place])


__all__ = ["FOLDER", "NEIGHBORS", "differences", "pack", "read_table", "unpack", "write_table"]
