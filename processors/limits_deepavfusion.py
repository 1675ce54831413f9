"""Bounds on what a file may claim, checked before anything is allocated."""

import os

MAX_PIXELS = 2**26  # 8192 x 8192, which includes 8K video and photos of 50 megapixels
PIXELS_SETTING = "DEEPAVFUSION_MAX_PIXELS"  # environment variable with another limit
MAX_CHANNELS = 64
# Sampling rates in Hz that exist: from the slowest sensors to ultrasound.
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 100, 1_000_000
# Largest magnitude of floating-point samples, whose full scale is 1; decoders of lossy formats exceed it a little.
MAX_SAMPLE = 16.0


class MediaError(Exception):
    """Raised if a file cannot be read. The message names the file, what was expected and what was found."""

    exit_code = 2  # of commands: bad input


class ReasonError(MediaError):
    """Raised where the file is not known. The message is the reason alone, to which others add the file."""


class LimitError(ReasonError):
    """Raised if a file claims more than is allowed."""


class OpenerError(ReasonError):
    """Raised if an image is of a format that the installed packages do not open."""


def max_pixels() -> int:
    """Return the largest number of pixels of an image or frame: `MAX_PIXELS`, or what the setting says.

    Raises:
        ValueError: If the setting is not a positive integer.
    """
    text = os.environ.get(PIXELS_SETTING, "").strip() or str(MAX_PIXELS)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"Expected {PIXELS_SETTING} as a positive number of pixels, got {text[:40]!r}.")
    return int(text)


def decoder_options() -> dict[str, str]:
    """Return options of FFmpeg that keep its decoders from allocating frames much larger than allowed.

    Decoders count the margins of frames, too, so that the exact limit is that of `too_many_pixels`.
    """
    limit = max_pixels()
    return {"max_pixels": str(min(limit + limit // 8 + 2**16, 2**31 - 1))}


def too_many_pixels(width: int, height: int) -> str | None:
    """Describe an image of (width, height) with more pixels than allowed; None for any other."""
    limit = max_pixels()
    if width * height <= limit:
        return None
    return (
        f"it claims {width} x {height} pixels, more than the limit of {limit} (set the environment variable "
        f"{PIXELS_SETTING} to allow more)"
    )


def wrong_scale(peak: float, whole: bool) -> str | None:
    """Describe floating-point samples whose full scale cannot be 1; None for any others.

    Args:
        peak: Largest magnitude of the samples.
        whole: Whether all samples are whole numbers.
    """
    if peak > 1 and whole:
        return f"whole numbers up to {peak:.6g}, which look like integer samples"
    return f"samples up to {peak:.6g}" if peak > MAX_SAMPLE else None


def wrong_format(sampling_rate: int, channels: int) -> str | None:
    """Describe audio whose sampling rate (Hz) or number of channels does not exist; None for any other."""
    if not MIN_SAMPLING_RATE <= sampling_rate <= MAX_SAMPLING_RATE:
        return f"it claims a sampling rate of {sampling_rate} Hz (limits: {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE})"
    return f"it claims {channels} channels (limit: {MAX_CHANNELS})" if channels > MAX_CHANNELS else None


__all__ = [
    "MAX_SAMPLING_RATE",
    "MIN_SAMPLING_RATE",
    "LimitError",
    "MediaError",
    "OpenerError",
    "ReasonError",
    "decoder_options",
    "max_pixels",
    "too_many_pixels",
    "wrong_format",
    "wrong_scale",
]
