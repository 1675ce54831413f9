"""Seeded mutations of media, checkpoints and configurations. A mutation is a function of its seed and number alone."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save

from tests.media_factory import media_bytes, paint_gradients

# Values that no setting of a model or processor has.
NONSENSE = (None, -1, 10**9, 1e30, math.nan, math.inf, "x", "", [], {}, [None], [-1, 2], {"a": 1}, "\x1b[31m\n")
_EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def generator(seed: int, number: int) -> np.random.Generator:
    """Random numbers of one mutation."""
    return np.random.default_rng([seed, number])


def small_media() -> dict[str, bytes]:
    """Small whole files of many formats, by name."""
    image = io.BytesIO()
    Image.fromarray(paint_gradients(0.0)).save(image, "PNG")
    photo = io.BytesIO()
    Image.fromarray(paint_gradients(0.0)).save(photo, "JPEG")
    short: dict[str, Any] = {"seconds": 0.5, "size": (32, 32)}
    return {
        "mp4": media_bytes(container_format="mp4", **short),
        "mov": media_bytes(container_format="mov", audio_codec="pcm_s16le", **short),
        "mkv": media_bytes(container_format="matroska", audio_codec="flac", sample_format="s16", **short),
        "webm": media_bytes(container_format="webm", codec="libvpx", audio_codec="libopus", rate=48000, **short),
        "avi": media_bytes(container_format="avi", codec="mpeg4", audio_codec="pcm_s16le", **short),
        "ts": media_bytes(container_format="mpegts", **short),
        "wav": media_bytes(container_format="wav", codec=None, audio_codec="pcm_s16le", seconds=0.5),
        "flac": media_bytes(container_format="flac", codec=None, audio_codec="flac", sample_format="s16", seconds=0.5),
        "mp3": media_bytes(container_format="mp3", codec=None, audio_codec="libmp3lame", seconds=0.5),
        "png": image.getvalue(),
        "jpeg": photo.getvalue(),
    }


def _bits(data: bytearray, draws: np.random.Generator) -> None:
    for place in draws.integers(len(data), size=int(draws.integers(1, 40))):
        data[place] ^= 1 << int(draws.integers(8))


def _header(data: bytearray, draws: np.random.Generator) -> None:
    for place in draws.integers(min(len(data), 256), size=int(draws.integers(1, 8))):
        data[place] = int(draws.integers(256))


def _block(data: bytearray, draws: np.random.Generator) -> None:
    start, length = int(draws.integers(len(data))), int(draws.integers(1, 400))
    data[start : start + length] = draws.bytes(len(data[start : start + length]))


def _zeros(data: bytearray, draws: np.random.Generator) -> None:
    start, length = int(draws.integers(len(data))), int(draws.integers(1, 2000))
    data[start : start + length] = bytes(len(data[start : start + length]))


def _truncated(data: bytearray, draws: np.random.Generator) -> None:
    del data[int(draws.integers(1, len(data))) :]


def _cut(data: bytearray, draws: np.random.Generator) -> None:
    start = int(draws.integers(len(data)))
    del data[start : start + int(draws.integers(1, 1000))]


def _inserted(data: bytearray, draws: np.random.Generator) -> None:
    start = int(draws.integers(len(data)))
    data[start:start] = draws.bytes(int(draws.integers(1, 300)))


def _repeated(data: bytearray, draws: np.random.Generator) -> None:
    start = int(draws.integers(len(data)))
    data[start:start] = data[start : start + int(draws.integers(1, 2000))]


def _sizes(data: bytearray, draws: np.random.Generator) -> None:
    order = "big" if draws.random() < 0.5 else "little"
    for place in draws.integers(max(len(data) - 4, 1), size=int(draws.integers(1, 4))):
        data[place : place + 4] = _EXTREMES[int(draws.integers(len(_EXTREMES)))].to_bytes(4, order)


MUTATIONS: dict[str, Callable[[bytearray, np.random.Generator], None]] = {
    "flipped bits": _bits,
    "changed header": _header,
    "random block": _block,
    "block of zeros": _zeros,
    "cut end": _truncated,
    "cut middle": _cut,
    "inserted bytes": _inserted,
    "repeated bytes": _repeated,
    "extreme numbers": _sizes,
}


def mutate_bytes(data: bytes, draws: np.random.Generator) -> tuple[str, bytes]:
    """A mutated file: (name of the mutation, bytes), never the same bytes."""
    changed = bytearray(data)
    name = list(MUTATIONS)[int(draws.integers(len(MUTATIONS)))]
    while bytes(changed) == data:
        MUTATIONS[name](changed, draws)
    return name, bytes(changed)


def mutate_json(path: Path, draws: np.random.Generator) -> str:
    """Replace a value of a JSON file, at any depth, by nonsense; returns its key and the value."""
    content = json.loads(path.read_text())
    place, key = content, ""
    while isinstance(place, dict) and place:
        parent, key = place, list(place)[int(draws.integers(len(place)))]
        place = place[key]
    value = NONSENSE[int(draws.integers(len(NONSENSE)))]
    parent[key] = value
    path.write_text(json.dumps(content))
    return f"{key} = {value!r}"


def mutate_tensors(tensors: dict[str, torch.Tensor], draws: np.random.Generator) -> tuple[str, dict[str, torch.Tensor]]:
    """Tensors of which one has another value, type, shape or name, or is missing: (what was done, tensors)."""
    changed = dict(tensors)
    name = sorted(tensors)[int(draws.integers(len(tensors)))]
    tensor = tensors[name]
    kinds: dict[str, Callable[[], torch.Tensor]] = {
        "nan": lambda: torch.full(tensor.shape, math.nan),
        "infinite": lambda: torch.full(tensor.shape, -math.inf),
        "integers": lambda: torch.ones(tensor.shape, dtype=torch.int32),
        "complex": lambda: torch.ones(tensor.shape, dtype=torch.complex64),
        "empty": lambda: tensor.new_zeros(0),
        "scalar": lambda: tensor.new_zeros(()),
        "another axis": lambda: tensor[None],
        "flat": lambda: tensor.flatten(),
        "transposed": lambda: tensor.T if tensor.ndim == 2 else tensor.reshape(-1, 1),
        "twice as long": lambda: torch.cat([tensor.reshape(-1), tensor.reshape(-1)]),
    }
    what = [*kinds, "renamed", "missing", "of a layer 10^9"][int(draws.integers(len(kinds) + 3))]
    if what in kinds:
        changed[name] = kinds[what]().contiguous()
    else:
        del changed[name]
        if what == "renamed":
            changed[name + "_"] = tensor
        elif what != "missing":
            changed[f"audio.blocks.{10**9}.norm1.weight"] = tensor
    return f"{name} {what}", changed


def mutate_weights(path: Path, draws: np.random.Generator) -> str:
    """Mutate a safetensors file, its tensors or its bytes; returns what was done."""
    data = path.read_bytes()
    if draws.random() < 0.5:
        what, changed = mutate_bytes(data, draws)
        path.write_bytes(changed)
        return what
    what, tensors = mutate_tensors(load(data), draws)
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
    return what
