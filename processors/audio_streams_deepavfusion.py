"""Decoded audio of a stream, placed by its timestamps: collected in a window, or followed to its end."""

import math

import numpy as np

from .limits_deepavfusion import LimitError, wrong_format, wrong_scale

try:
    import av
except ImportError:
    av = None

# Samples per channel for which the buffer of a window is allocated at first.
_FIRST_SAMPLES = 2**20
# Samples per channel that a gap in the audio may have, hours at any sampling rate of recordings.
_MAX_GAP = 2**28


# Decoders that need no more of a stream than its extra data.
_RESTARTED = ("aac", "opus", "vorbis", "mp3float", "flac")
# Seconds from the start of a stream on within which a window needs its first packets: these say that samples are to be
# dropped, which a stream's own decoder alone accounts for.
_PRIMING = 0.6


class AudioDecoders:
    """A new decoder for each window of a stream: that of an earlier window would add other noise to AAC and Opus."""

    def __init__(self):
        self._container, self._since = None, math.inf

    def used_up(self, container, start: float) -> bool:
        """Whether there is no new decoder for a window at `start` seconds of file time, unless the file is reopened."""
        return container is not None and container is self._container and start < self._since

    def new(self, container, stream, origin: float):
        """Return a decoder for the next window, or None for the stream's own one.

        Args:
            container: Open file.
            stream: Its audio.
            origin: Stream time in seconds of the file's start.
        """
        if container is self._container:
            decoder = av.CodecContext.create(stream.codec_context.name, "r")
            decoder.extradata = stream.codec_context.extradata
            return decoder
        begin = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - origin
        restarted = stream.codec_context.name in _RESTARTED
        self._container, self._since = container, begin + _PRIMING if restarted else math.inf
        return None


def place_samples(frames, begin: float):
    """Yield decoded audio with its place in the stream.

    Args:
        frames: Decoded audio frames; all get the sampling rate and the channels of the first.
        begin: Stream time in seconds of place 0.

    Yields:
        The sampling rate in Hz, the place of the first sample, and the samples (channels, samples) float32.

    Raises:
        LimitError: If the sampling rate or the number of channels does not exist.
    """
    rate = layout = resampler = shape = channels = expected = None
    for frame in frames:
        if rate is None:
            rate, layout, channels = frame.sample_rate, frame.layout.name, frame.layout.nb_channels
            if reason := wrong_format(rate, channels):
                raise LimitError(reason)
        if resampler is None or shape != (frame.format.name, frame.layout.name, frame.sample_rate):
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
        time = frame.time
        offset = expected if time is None else round((time - begin) * rate)
        if expected is not None and offset is not None and abs(offset - expected) <= 2:
            offset = expected  # rounded timestamps must not separate samples
        offset = 0 if offset is None else offset
        parts = [part.to_ndarray().reshape(-1, channels) for part in resampler.resample(frame)]
        samples = np.concatenate(parts or [np.zeros((0, channels), dtype=np.float32)]).T
        expected = offset + samples.shape[1]
        yield rate, offset, samples


def wrong_samples(samples: np.ndarray, rate: int, start: float) -> tuple[str, str] | None:
    """Say what was expected of decoded samples and what they are, if they are not finite, with a full scale of 1.

    Args:
        samples: (channels, samples) float32, at least one.
        rate: Sampling rate in Hz.
        start: Time of the first sample in seconds.

    Returns:
        The two parts of the message of an error; None for samples that are as expected.
    """
    peak = max(float(samples.max()), -float(samples.min()))
    if not math.isfinite(peak):
        invalid = ~np.isfinite(samples)
        first = start + int(invalid.any(0).argmax()) / rate
        return (
            "finite samples",
            f"{invalid.sum():,} {'is' if invalid.sum() == 1 else 'are'} NaN or infinite, the first at {first:.3f} s",
        )
    if peak > 1 and (reason := wrong_scale(peak, bool((samples == np.rint(samples)).all()))):
        return "samples with a full scale of 1", f"it has {reason}"
    return None


def collect_audio(frames, begin: float, seconds: float) -> tuple[np.ndarray | None, int | None, int]:
    """Place decoded samples in a window; gaps are silent.

    Args:
        frames: Decoded audio frames.
        begin: Start of the window in seconds of stream time.
        seconds: Length of the window.

    Returns:
        (channels, samples) float32, the sampling rate in Hz, and the place of the first sample in the window; or None,
        None and 0 without samples in it.

    Raises:
        LimitError: If the sampling rate or the number of channels does not exist, or a gap is too long.
    """
    buffer = rate = None
    low, high, length = math.inf, 0, 0
    for rate, offset, samples in place_samples(frames, begin):
        if buffer is None:
            length = round(seconds * rate)
            # It grows with the samples: headers may claim years.
            buffer = np.zeros((samples.shape[0], min(length, _FIRST_SAMPLES)), dtype=np.float32)
        start, stop = max(offset, 0), min(offset + samples.shape[1], length)
        if stop > start:
            check_gap(start - high, rate)
            if stop > buffer.shape[1]:
                more = min(max(stop, 2 * buffer.shape[1]), length) - buffer.shape[1]
                buffer = np.concatenate([buffer, np.zeros((buffer.shape[0], more), np.float32)], axis=1)
            buffer[:, start:stop] = samples[:, start - offset : stop - offset]
            low, high = min(low, start), max(high, stop)
        if offset + samples.shape[1] >= length:
            break
    if buffer is None or high <= low:
        return None, None, 0
    return buffer[:, int(low) : high], rate, int(low)


def follow_audio(frames, begin: float, end: float):
    """Yield decoded samples one after the other, from the first of a stream to the last; gaps are silent.

    Args:
        frames: Decoded audio frames.
        begin: Stream time in seconds; samples before it are dropped, as are those that overlap earlier ones.
        end: Stream time in seconds up to which gaps are filled, so that a wrong timestamp cannot ask for hours of
            silence.

    Yields:
        The sampling rate in Hz, and samples (channels, samples) float32: parts of about a second.

    Raises:
        LimitError: If the sampling rate or the number of channels does not exist, or a gap is too long.
    """
    parts, length, rate = [], 0, None
    for rate, samples in _without_gaps(frames, begin, end):
        parts.append(samples)
        length += samples.shape[1]
        if length >= rate:
            yield rate, np.concatenate(parts, axis=1)
            parts, length = [], 0
    if length:
        yield rate, np.concatenate(parts, axis=1)


def _without_gaps(frames, begin: float, end: float):
    place = None
    for rate, offset, samples in place_samples(frames, begin):
        place = max(offset, 0) if place is None else place
        until = min(offset, round((end - begin) * rate))
        check_gap(until - place, rate)
        for start in range(place, until, rate):
            yield rate, np.zeros((samples.shape[0], min(until - start, rate)), dtype=np.float32)
        place = max(place, until)
        fresh = samples[:, max(place - offset, 0) :]
        yield rate, fresh
        place += fresh.shape[1]


def check_gap(length: int, rate: int) -> None:
    """Raise `LimitError` for a gap of more samples than any recording has."""
    if length > _MAX_GAP:
        raise LimitError(f"its timestamps claim a gap of {length / rate:.6g} s")


__all__ = ["AudioDecoders", "collect_audio", "follow_audio", "place_samples", "wrong_samples"]
