"""Encoding of frames as PNG and of waveforms as WAV, to bytes or data URIs, without matplotlib."""

import base64
import io
import struct
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_UNKNOWN_SIZE = 0xFFFFFFFF  # of a wav file whose size does not fit or is not known yet
_PNG_SIZE = slice(16, 24)  # of a PNG file: width and height, 4 bytes each


def as_array(values: Any) -> np.ndarray:
    """Convert a tensor (any device, any dtype), array or list to a numpy array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def as_frame(values: Any) -> np.ndarray:
    """Convert a frame to (H, W, 3) uint8, from (H, W, 3), (H, W, 4) or gray (H, W).

    Raises:
        ValueError: For a dtype other than uint8, or another shape.
    """
    frame = as_array(values)
    if frame.dtype != np.uint8:
        raise ValueError(f"Expected a frame of uint8 (0..255), got {frame.dtype}.")
    if frame.ndim == 2:
        frame = np.repeat(frame[..., None], 3, axis=2)
    if frame.ndim != 3 or frame.shape[2] not in (3, 4) or 0 in frame.shape:
        raise ValueError(f"Expected a frame of shape (H, W, 3), (H, W, 4) or (H, W), got {frame.shape}.")
    return np.ascontiguousarray(frame[..., :3])


def as_waveform(values: Any) -> np.ndarray:
    """Convert a waveform (N,) of floats, full scale 1, to float32.

    Raises:
        ValueError: For integers, several channels, an empty waveform, NaN or infinity.
    """
    waveform = as_array(values)
    if waveform.ndim != 1 or not len(waveform) or not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(f"Expected a waveform of floats (N,), got {waveform.dtype} of shape {waveform.shape}.")
    if not np.isfinite(waveform).all():
        raise ValueError(f"Expected finite samples, got {(~np.isfinite(waveform)).sum()} that are NaN or infinite.")
    return waveform.astype(np.float32)


def encode_png(image: Image.Image, **notes: str) -> bytes:
    """Encode a PIL image as PNG in its own mode, such as a palette, with notes as text chunks of these names."""
    file, texts = io.BytesIO(), PngInfo()
    for name, text in notes.items():
        texts.add_text(name, text)
    image.save(file, format="png", optimize=True, pnginfo=texts)
    return file.getvalue()


def png(frame: Any, **notes: str) -> bytes:
    """Encode a frame (see `as_frame`) as PNG, with notes as in `encode_png`."""
    return encode_png(Image.fromarray(as_frame(frame)), **notes)


def webp(content: bytes, side: int | None = None, quality: int = 70) -> bytes:
    """Encode the image of a PNG file as lossy WebP, which takes a fraction of the space.

    Args:
        content: The PNG file.
        side: Pixels that its longer side is reduced to, if it is longer.
        quality: Quality of WebP, 0 to 100.
    """
    file = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        shown = image.convert("RGB")
        if side is not None:
            shown.thumbnail((side, side))
        shown.save(file, format="webp", quality=quality)
    return file.getvalue()


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, from a PNG's header."""
    numbers = content[_PNG_SIZE]
    return int.from_bytes(numbers[:4], "big"), int.from_bytes(numbers[4:], "big")


def wav(waveform: Any, rate: int) -> bytes:
    """Encode a waveform (N,) as mono 16-bit PCM; samples beyond full scale are clipped.

    Args:
        waveform: See `as_waveform`.
        rate: Sampling rate in Hz, a positive integer.

    Raises:
        ValueError: For another sampling rate, or a waveform that `as_waveform` rejects.
    """
    if int(rate) != rate or rate <= 0:
        raise ValueError(f"Expected a sampling rate as a positive integer in Hz, got {rate!r}.")
    samples = as_waveform(waveform)
    return wav_header(int(rate), len(samples)) + pcm16(samples)


def pcm16(waveform: np.ndarray) -> bytes:
    """Encode samples (N,) of floats, full scale 1, as 16-bit PCM; those beyond full scale are clipped."""
    return np.clip(np.round(waveform.astype(np.float64) * 32768), -32768, 32767).astype("<i2").tobytes()


def wav_header(rate: int, num_samples: int | None, floats: bool = False) -> bytes:
    """Header of a mono wav file; beyond 4 GiB in the format RF64 (EBU Tech 3306).

    Args:
        rate: Sampling rate in Hz.
        num_samples: Number of samples; None for a file that is still being written, which players read to its end.
        floats: Whether samples are 32-bit floats, instead of 16-bit PCM.
    """
    width = 4 if floats else 2
    size = _UNKNOWN_SIZE if num_samples is None else num_samples * width
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3 if floats else 1, 1, rate, rate * width, width, 8 * width)
    if size + len(layout) + 12 <= _UNKNOWN_SIZE or num_samples is None:
        riff = size if num_samples is None else size + len(layout) + 12
        return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + layout + struct.pack("<4sI", b"data", size)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, size + len(layout) + 48, size, num_samples, 0)
    head = struct.pack("<4sI4s", b"RF64", _UNKNOWN_SIZE, b"WAVE")
    return head + sizes + layout + struct.pack("<4sI", b"data", _UNKNOWN_SIZE)


def data_uri(content: bytes, kind: str) -> str:
    """Encode `content` of media type `kind` as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


__all__ = [
    "as_array",
    "as_frame",
    "as_waveform",
    "data_uri",
    "encode_png",
    "pcm16",
    "png",
    "png_size",
    "wav",
    "wav_header",
    "webp",
]
