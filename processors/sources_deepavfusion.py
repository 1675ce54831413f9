"""Values that stand for files: paths, addresses, bytes, file objects, and what `datasets` and fsspec return."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch

from .limits_deepavfusion import MediaError

try:
    import fsspec
except ImportError:
    fsspec = None

# "https://host/clip.mp4", "zip://clip.mp4::archive.zip", "zip::https://host/archive.zip".
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
_BYTES = (bytes, bytearray, memoryview)


class NamedBytes(io.BytesIO):
    """Bytes of a file whose name is known, for errors."""

    def __init__(self, content: bytes, name: str | None):
        super().__init__(content)
        self.name = name


def is_file(value: Any) -> bool:
    """Check whether a value is a file.

    Files are paths, addresses, bytes, objects with `read`, fsspec's `OpenFile`, and the values of the features `Video`,
    `Audio` and `Image` of `datasets`: mappings with `path` or `bytes`, and the decoders of torchcodec.
    """
    if isinstance(value, Mapping):
        return "array" not in value and any(value.get(name) is not None for name in ("bytes", "path"))
    named = isinstance(value, (str, os.PathLike, *_BYTES))
    return named or hasattr(value, "read") or _opens(value) or is_decoder(value)


def is_decoder(value: Any) -> bool:
    """Check whether a value is a `VideoDecoder` or `AudioDecoder` of torchcodec."""
    return hasattr(value, "get_frames_played_at") or is_audio_decoder(value)


def is_audio_decoder(value: Any) -> bool:
    """Check whether a value is an `AudioDecoder` of torchcodec, which `datasets` subclasses."""
    return hasattr(value, "get_samples_played_in_range")


def is_address(value: Any) -> bool:
    """Check whether a value is the address of a file, which fsspec opens, and no local path."""
    return isinstance(value, str) and _ADDRESS.match(value) is not None and not os.path.exists(value)


def _opens(value: Any) -> bool:
    """Check whether a value is a file of fsspec that is not open yet (`OpenFile`, `UPath`)."""
    return hasattr(value, "fs") and hasattr(value, "open")


def open_file(value: Any) -> Any:
    """Convert a file to a local path, a binary file object, or a decoder that does not know its file.

    Args:
        value: A file, see `is_file`. Addresses are opened by fsspec.

    Raises:
        ImportError: If fsspec, or the package that it needs for an address, is not installed.
        MediaError: If an address cannot be opened.
    """
    if is_decoder(value):
        value = getattr(value, "_hf_encoded", value)  # `datasets` keeps the file of a decoder
    if isinstance(value, Mapping):
        content, value = value.get("bytes"), value.get("path")
        if content is not None:
            return NamedBytes(content, value)
    if isinstance(value, _BYTES):
        return io.BytesIO(value)
    if _opens(value):
        return _open(lambda: value, str(getattr(value, "path", value)))
    if isinstance(value, (str, os.PathLike)):
        path = os.fsdecode(value)
        if is_address(path):
            if fsspec is None:
                raise ImportError(f"{path}: expected fsspec to open an address; install it: pip install fsspec")
            return _open(lambda: fsspec.open(path, "rb"), path)
    return value


def _open(find: Callable[[], Any], name: str) -> Any:
    """Open the file of fsspec that a function returns, and give the file object a name for errors."""
    try:
        # An `OpenFile` has a mode; a `UPath` opens text by default.
        file = (found := find()).open(*([] if hasattr(found, "mode") else ["rb"]))
    except ImportError as error:  # fsspec says what to install
        raise ImportError(f"{name}: expected the package for this kind of address: {error}") from error
    except FileNotFoundError as error:
        reason = unreachable(error)
        found = "there is no such file" if reason is None else f"its address cannot be reached ({reason})"
        raise MediaError(f"{name}: expected a media file, but {found}.") from error
    except Exception as error:  # each file system has its own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"{name}: expected an address that fsspec can open, but: {reason}.") from error
    with contextlib.suppress(AttributeError):
        file.opened_from = found  # which closes archives when it is freed
        if not isinstance(getattr(file, "name", None), str):
            file.name = name
    return file


def unreachable(error: BaseException) -> str | None:
    """Why an address cannot be reached, of an error for which fsspec has raised `FileNotFoundError`; else None."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None or getattr(cause, "status", None) in (404, 410):
        return None
    return " ".join(str(cause).split()).rstrip(".") or type(cause).__name__


def as_items(values: Any) -> list | None:
    """List the items of any sequence of values, with None for missing ones.

    Sequences are lists, tuples, generators and other iterables, columns of `datasets` and pandas, and arrays of objects
    or text.

    Returns:
        None if `values` is a single value: a file, a mapping, or numbers, such as an image or waveform.
    """
    if is_file(values) or isinstance(values, (Mapping, torch.Tensor)):
        return None
    if not isinstance(values, (list, tuple)):
        if isinstance(values, np.ndarray) or hasattr(values, "__array__"):
            array = np.asarray(values)
            if array.dtype.kind not in "OSTU" or array.ndim != 1:
                return None
            values = array.tolist()
        elif not isinstance(values, Iterable):
            return None
    items = list(values)
    numbers = bool(items) and all(isinstance(item, Number) for item in items)
    return items if numbers else [None if _is_missing(item) else item for item in items]


def _is_missing(item: Any) -> bool:
    """Check for None and for the missing values of pandas."""
    return item is None or (isinstance(item, float) and item != item) or type(item).__name__ == "NAType"


__all__ = ["as_items", "is_address", "is_audio_decoder", "is_decoder", "is_file", "open_file", "unreachable"]
