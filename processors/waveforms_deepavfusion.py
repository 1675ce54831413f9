"""Audio in the forms that users have: batches of waveforms, channels, and integer or floating-point samples.

What is ambiguous is refused: a wrong guess would give features that look valid.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .limits_deepavfusion import MAX_CHANNELS, wrong_scale

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
    return samples if samples.ndim == 1 else samples.mean(0)


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
    return torch.from_numpy(np.require(array, requirements="CW"))


def _to_full_scale(audio: torch.Tensor, name: str) -> torch.Tensor:
    """Scale samples to ±1, after checking that their full scale is known."""
    if audio.is_floating_point():
        invalid = (~torch.isfinite(audio)).sum().item()
        if invalid:
            raise ValueError(
                f"Expected finite samples, but {invalid} of {audio.numel()} in {name} are NaN or infinite."
            )
        peak = audio.abs().max().item()
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


def with_own_rate(audio: Any, sampling_rate: Any = None) -> tuple[Any, Any]:
    """Split a waveform that comes with its sampling rate, as values of `datasets` do; others are returned as they are.

    Args:
        audio: A waveform, or one as `datasets` decodes it: an object with the items `array` and `sampling_rate`.
        sampling_rate: Sampling rate in Hz that was passed beside it, if any.

    Returns:
        The waveform and its sampling rate in Hz, None if unknown.

    Raises:
        ValueError: If the two sampling rates differ.
    """
    decoded = isinstance(audio, Mapping) and {"array", "sampling_rate"} <= audio.keys()
    if not decoded and not hasattr(audio, "get_all_samples"):  # torchcodec's decoder, which `datasets` subclasses
        return audio, sampling_rate
    own = audio["sampling_rate"]
    if sampling_rate is not None and own != sampling_rate:
        raise ValueError(f"Expected one sampling rate, got {own!r} with the audio and sampling_rate={sampling_rate!r}.")
    return audio["array"], own


def as_waveforms(audio: Any) -> list:
    """List the waveforms of a batch: a list, a tuple, or a 3-D array (B, C, N). Anything else is one waveform.

    Raises:
        ValueError: If the list is empty, or a 2-D array may be a batch of waveforms or the channels of one.
    """
    if isinstance(audio, (list, tuple)):
        if not audio:
            raise ValueError("Expected at least one waveform, got an empty list.")
        return [audio] if isinstance(audio[0], (int, float, np.number)) else list(audio)
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
