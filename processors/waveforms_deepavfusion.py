"""Audio in the forms that users have: batches of waveforms, channels, and integer or floating-point samples.

What is ambiguous is refused: a wrong guess would give features that look valid.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .decoders_deepavfusion import DecoderSource
from .limits_deepavfusion import MAX_CHANNELS, wrong_scale
from .numbers_deepavfusion import to_tensor
from .recordings_deepavfusion import Recording
from .sources_deepavfusion import as_items, is_audio_decoder, is_file

logger = logging.get_logger(__name__)


def to_mono(audio: Any, name: str = "audio") -> torch.Tensor:
    """Convert audio to a mono waveform.

    Args:
        audio: numpy array, torch tensor, Arrow array or list of numbers; (N,), or (C, N) whose channels are averaged.
            Floating-point samples are kept (full scale is ±1), integers of 8, 16 and 32 bits are divided by their full
            scale.
        name: Name of the argument in errors.

    Returns:
        (N,) float32.

    Raises:
        TypeError: If `audio` has an unsupported type.
        ValueError: If it has the wrong shape, no samples, samples that are NaN or infinite, or samples whose full scale
            is not that of their type.
    """
    audio = _as_tensor(audio, name)
    shape = tuple(audio.shape)
    if audio.ndim == 2 and shape[0] > shape[1] > 0:
        raise ValueError(f"Expected {name} as (channels, samples), got {shape}: transpose it.")
    if audio.ndim not in (1, 2) or 0 in shape:
        raise ValueError(f"Expected {name} of shape (samples,) or (channels, samples), not empty, got {shape}.")
    if audio.ndim == 2 and shape[0] > MAX_CHANNELS:
        raise ValueError(f"Expected {name} of at most {MAX_CHANNELS} channels, got shape {shape}.")
    samples = _to_full_scale(audio, name).float()
    if samples.ndim == 2:
        samples = samples.mean(0) if shape[0] > 1 else samples[0]
    return samples


def _as_tensor(audio: Any, name: str) -> torch.Tensor:
    """Convert an array of real numbers to a tensor of its type."""
    if isinstance(audio, torch.Tensor):
        if audio.is_complex() or audio.dtype == torch.bool:
            raise TypeError(f"Expected {name} as real numbers, got {audio.dtype}.")
        return audio.detach()
    if not hasattr(audio, "__array__") and not isinstance(audio, (list, tuple)):
        raise TypeError(
            f"Expected {name} as a numpy array, torch tensor or list of numbers, got {type(audio).__name__}."
        )
    try:
        array = np.asarray(audio)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"Expected {name} as one waveform, got {type(audio).__name__}: {error}.") from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"Expected {name} as real numbers, got {type(audio).__name__} of {array.dtype}.")
    return to_tensor(array)


def _to_full_scale(audio: torch.Tensor, name: str) -> torch.Tensor:
    """Scale samples to ±1, after checking that their full scale is known."""
    if audio.is_floating_point():
        peak = audio.abs().max().item()
        if not math.isfinite(peak):
            invalid = (~torch.isfinite(audio)).sum().item()
            raise ValueError(
                f"Expected finite samples, but {invalid} of {audio.numel()} in {name} are NaN or infinite."
            )
        if peak > 1 and (reason := wrong_scale(peak, bool((audio == audio.round()).all()))):
            raise ValueError(
                f"Expected floating-point samples in -1..1, got {reason} in {name}: divide them by their full scale, "
                "such as 32768 for 16-bit samples, or pass int16."
            )
        return audio
    full = torch.iinfo(audio.dtype)
    half = (full.max - full.min + 1) / 2
    levels = audio.double() - (full.max + full.min + 1) / 2  # unsigned silence is half of full scale
    peak = levels.abs().max().item()
    # No format has 64 bits: such numbers come from lists and tables, which do not keep the type of samples. 16 or 24
    # bits in 32 would be silence.
    if (full.bits == 64 and audio.double().abs().max() > 1) or (full.bits == 32 and 0 < peak <= 2**23):
        raise ValueError(
            f"Expected samples in -1..1, or integers whose type is their full scale, got {full.dtype} up to {peak:.6g} "
            f"in {name}: divide them by their full scale, such as 32768 for 16-bit samples, or pass int16."
        )
    return audio.double() if full.bits == 64 else levels / half


def with_own_rate(audio: Any, sampling_rate: Any = None, seconds: float | None = None) -> tuple[Any, Any]:
    """Split a sound that comes with its sampling rate; other waveforms are returned as they are.

    Args:
        audio: A waveform; a mapping with `array` and `sampling_rate`, or an `AudioDecoder`, as `datasets` returns them;
            or a file, see `is_file`.
        sampling_rate: Sampling rate in Hz that was passed beside it, if any.
        seconds: Length of the beginning to decode; all by default.

    Returns:
        The waveform and its sampling rate in Hz, None if unknown.

    Raises:
        MediaError: If a file cannot be read or has no audio.
        ValueError: If the two sampling rates differ.
    """
    if isinstance(audio, Mapping) and {"array", "sampling_rate"} <= audio.keys():
        waveform, own = audio["array"], audio["sampling_rate"]
    elif is_audio_decoder(audio):
        source = DecoderSource(audio)
        waveform, own = source.all_audio() if seconds is None else source.read_audio(0.0, seconds)
    elif is_file(audio):
        waveform, own = _read(audio, seconds)
    else:
        return audio, sampling_rate
    if sampling_rate is not None and own != sampling_rate:
        raise ValueError(f"Expected one sampling rate, got {own!r} with the audio and sampling_rate={sampling_rate!r}.")
    return waveform, own


def _read(file: Any, seconds: float | None) -> tuple[np.ndarray, int]:
    """Decode a file's audio from its start: (channels, samples) float32, and its sampling rate in Hz."""
    parts, length, rate = [], 0, 0
    for rate, samples in Recording(file).audio():
        parts.append(samples)
        length += samples.shape[1]
        if seconds is not None and length >= seconds * rate:
            break
    return np.concatenate(parts, axis=1), rate


def as_waveforms(audio: Any) -> list:
    """List the sounds of a batch: those of any sequence, see `as_items`, or of a 3-D array (B, C, N).

    Anything else, such as a list of numbers, is one sound.

    Raises:
        ValueError: If the sequence is empty, or a 2-D array may be a batch of waveforms or the channels of one.
    """
    if (items := as_items(audio)) is not None:
        if not items:
            raise ValueError("Expected at least one waveform, got an empty list.")
        return [items] if isinstance(items[0], (int, float, np.number)) else items
    shape = tuple(getattr(audio, "shape", ()))
    if len(shape) == 2 and 2 < shape[0] <= shape[1]:
        raise ValueError(
            f"Expected audio of which it is known whether it is one sound, got shape {shape}: pass [audio] for one of "
            f"{shape[0]} channels, list(audio) for {shape[0]} mono sounds."
        )
    if len(shape) == 2 and shape[0] == 2:
        logger.warning_once(
            "Audio of shape (2, samples) is taken as one stereo sound, whose channels are averaged. Pass list(audio) "
            "for two mono sounds, [audio] for one without this warning."
        )
    return list(audio) if len(shape) == 3 else [audio]


__all__ = ["as_waveforms", "to_mono", "with_own_rate"]
