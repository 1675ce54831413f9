"""Encoding of frames as PNG and of waveforms as WAV, to bytes or data URIs, without matplotlib."""

import base64
import io
import wave
from typing import Any

import numpy as np
import torch
from PIL import Image

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


def encode_png(image: Image.Image) -> bytes:
    """Encode a PIL image as PNG in its own mode, such as a palette."""
    file = io.BytesIO()
    image.save(file, format="png", optimize=True)
    return file.getvalue()


def png(frame: Any) -> bytes:
    """Encode a frame (see `as_frame`) as PNG."""
    return encode_png(Image.fromarray(as_frame(frame)))


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
    samples = np.clip(np.round(as_waveform(waveform).astype(np.float64) * 32768), -32768, 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(int(rate))
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Encode `content` of media type `kind` as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


__all__ = ["as_array", "as_frame", "as_waveform", "data_uri", "encode_png", "png", "png_size", "wav"]
