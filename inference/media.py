"""Pictures, sounds and numbers in the forms in which a report keeps them: PNG, 16-bit WAV, JSON without NaN."""

import base64
import functools
import io
import json
import math
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

DPI = 144  # of figures: one and a half pixels for each that a page gives them, so that text is sharp on fine screens
_STYLE = {
    "font.size": 10,
    "text.color": "#1d2126",
    "axes.labelcolor": "#3c444c",
    "axes.edgecolor": "#9aa3ac",
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.linewidth": 0.8,
    "xtick.color": "#5a6470",
    "ytick.color": "#5a6470",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_PNG_SIZE = slice(16, 24)  # of a PNG file: width and height, 4 bytes each


def as_array(values: Any) -> np.ndarray:
    """A numpy array of a tensor (any device, any dtype), array or list."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def as_frame(values: Any) -> np.ndarray:
    """A frame (H, W, 3) of uint8. Grey (H, W) and RGBA frames are accepted; other dtypes are refused."""
    frame = as_array(values)
    if frame.dtype != np.uint8:
        raise ValueError(f"Expected a frame of uint8 (0..255), got {frame.dtype}.")
    if frame.ndim == 2:
        frame = np.repeat(frame[..., None], 3, axis=2)
    if frame.ndim != 3 or frame.shape[2] not in (3, 4) or 0 in frame.shape:
        raise ValueError(f"Expected a frame of shape (H, W, 3), (H, W, 4) or (H, W), got {frame.shape}.")
    return np.ascontiguousarray(frame[..., :3])


def as_waveform(values: Any) -> np.ndarray:
    """A waveform (N,) of float32, full scale 1. Integers, several channels, NaN and infinities are refused."""
    waveform = as_array(values)
    if waveform.ndim != 1 or not len(waveform) or not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(f"Expected a waveform of floats (N,), got {waveform.dtype} of shape {waveform.shape}.")
    if not np.isfinite(waveform).all():
        raise ValueError(f"Expected finite samples, got {(~np.isfinite(waveform)).sum()} that are NaN or infinite.")
    return waveform.astype(np.float32)


def own_style(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `function` with matplotlib's defaults and this report's, whatever the process has set.

    Drawing too, not only building a figure: matplotlib makes some of its parts as late as that.
    """

    @functools.wraps(function)
    def styled(*args, **kwargs):
        import matplotlib  # of the extra `train`: frames and sounds are written without it

        defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
        with matplotlib.rc_context({**defaults, **_STYLE}):
            return function(*args, **kwargs)

    return styled


def png(picture: Any) -> bytes:
    """PNG of a matplotlib figure (on white, at `DPI`, without margins) or of a frame of uint8."""
    file = io.BytesIO()
    if hasattr(picture, "savefig"):
        _save_figure(picture, file)
    else:
        Image.fromarray(as_frame(picture)).save(file, format="png", optimize=True)
    return file.getvalue()


@own_style
def _save_figure(figure: Any, file: io.BytesIO) -> None:
    figure.savefig(
        file,
        format="png",
        dpi=DPI,
        bbox_inches="tight",
        pad_inches=0.06,
        facecolor="white",
        metadata={"Software": None},
    )


def png_size(content: bytes) -> tuple[int, int]:
    """(width, height) in pixels, from a PNG's header."""
    numbers = content[_PNG_SIZE]
    return int.from_bytes(numbers[:4], "big"), int.from_bytes(numbers[4:], "big")


def wav(waveform: Any, rate: int) -> bytes:
    """Mono 16-bit PCM of a waveform (N,) at `rate` Hz. Samples beyond full scale are clipped: scale before."""
    if int(rate) != rate or rate <= 0:
        raise ValueError(f"Expected a sampling rate as a positive whole number of Hz, got {rate!r}.")
    samples = np.clip(np.round(as_waveform(waveform).astype(np.float64) * 32768), -32768, 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(int(rate))
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """`content` of media type `kind` as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy and torch become numbers and lists, paths text, NaN and infinities None."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(as_array(value).tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(
        f"Expected what JSON can hold, or arrays, tensors and paths, got {type(value).__name__}: {value!r}."
    )


def to_json(value: Any) -> str:
    """Indented JSON of `plain(value)`; any JSON reader takes it, since it has no NaN."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


__all__ = [
    "DPI",
    "as_array",
    "as_frame",
    "as_waveform",
    "data_uri",
    "own_style",
    "plain",
    "png",
    "png_size",
    "to_json",
    "wav",
]
