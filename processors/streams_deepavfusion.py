"""Streams of an open media file: selection, time spans, seeking, and decoding frame by frame."""

import math
import re
from fractions import Fraction

import numpy as np

try:
    import av
    import av.stream
except ImportError:
    av = None

# In transport streams and with some indices, seeking arrives after the target. Then targets this many seconds earlier
# are tried, and finally the start of the file, because decoding hours of video takes minutes.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)
# Assumed duration in seconds of a frame that has none.
_FRAME_LENGTH = 0.04
# Decoding stops after this many damaged packets in a row.
_MAX_BAD_PACKETS = 500


def best_stream(container, kind: str):
    """Select the default, or else the largest, decodable stream of a kind other than cover art; None without any."""
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if stream.codec_context is not None and not stream.disposition & av.stream.Disposition.attached_pic
    ]

    def rank(stream) -> tuple:
        context = stream.codec_context
        size = context.width * context.height if kind == "video" else context.channels
        return bool(stream.disposition & av.stream.Disposition.default), size, -stream.index

    return max(streams, key=rank, default=None)


def _start(stream) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def file_start(container) -> float:
    """Return the stream time in seconds at which the file starts, shown as 0 by players."""
    streams = (best_stream(container, kind) for kind in ("video", "audio"))
    return min(_start(stream) for stream in streams if stream is not None)


def header_span(container, stream, origin: float) -> tuple[float, float] | None:
    """Read the (start, end) of a stream from the headers in seconds of stream time; None if they do not state it."""
    start = _start(stream)
    if stream.duration is not None and stream.duration > 0:
        return start, start + float(stream.duration * stream.time_base)
    tag = re.match(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska: end of the stream
    if tag:
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return start, max(start, origin + 3600 * hours + 60 * minutes + seconds)
    if container.duration is not None and container.duration > 0:
        return start, max(start, origin + container.duration / av.time_base)
    return None


def packet_spans(container, streams: dict) -> dict:
    """Read the (start, end) of streams {kind: stream} from their packets in seconds; omits empty streams."""
    spans = {}
    kinds = {stream.index: kind for kind, stream in streams.items()}
    for packet in _packets(container, list(streams.values())):
        if not packet.size:
            continue
        kind = kinds[packet.stream_index]
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            begin = time * packet.time_base
        else:  # a raw stream: packets follow each other
            begin = spans[kind][1] if kind in spans else Fraction(0)
        end = begin + (packet.duration or 0) * packet.time_base
        low, high = spans.get(kind, (begin, end))
        spans[kind] = (min(low, begin), max(high, end))
    return {kind: (float(low), float(high)) for kind, (low, high) in spans.items()}


def _packets(container, streams):
    """Yield packets until the end or the first error (truncated files end with one)."""
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        yield packet


def decode(container, stream):
    """Yield the frames of a stream, skipping packets that cannot be decoded."""
    bad = 0
    for packet in _packets(container, [stream]):
        try:
            frames = packet.decode()
            bad = 0
        except (av.FFmpegError, ValueError):
            bad += 1
            if bad > _MAX_BAD_PACKETS:
                return
            continue
        yield from frames


def seek(container, stream, time: float) -> bool:
    """Seek to the last key frame before a stream time in seconds; returns False if the format does not support it."""
    try:
        container.seek(int(time / stream.time_base), stream=stream, backward=True)
    except (av.FFmpegError, OverflowError):
        return False
    return True


def steps_back(start: float):
    """Yield how many seconds before a time to seek to, to be tried in turn; None for reading from the start."""
    yield from (back for back in _SEEK_BACK if back == 0.0 or back < start)
    yield None


def if_in_time(frames, time: float):
    """Yield the frames if the first one starts by a stream time in seconds, else none."""
    first = next(frames, None)
    if first is not None and first.time is not None and first.time <= time + 1e-3:  # rounding to samples
        yield first
        yield from frames


def timed(frames):
    """Yield (stream time in seconds, frame); the frames of a raw stream, which have no times, follow each other."""
    next_time = 0.0
    for frame in frames:
        time = next_time if frame.time is None else frame.time
        next_time = time + (float(frame.duration * frame.time_base) if frame.duration else _FRAME_LENGTH)
        yield time, frame


def pick_frames(frames, times: list[float]) -> list:
    """Choose the frame that is shown at each of ascending stream times in seconds."""
    chosen, before = [], None
    for time, frame in timed(frames):
        while len(chosen) < len(times) and time > times[len(chosen)] + 1e-6:
            chosen.append(before if before is not None else frame)
        if len(chosen) == len(times):
            break
        before = frame
    if before is not None:
        chosen += [before] * (len(times) - len(chosen))
    return chosen


def window_times(
    start: float, end: float, timestamp: float, num_frames: int, seconds: float
) -> tuple[float, list[float]]:
    """Place the window of a timestamp within a file, and its frames.

    Args:
        start: Start of the file's first stream in seconds.
        end: End of its last stream.
        timestamp: Middle of the window in seconds; a window that extends beyond the file is shifted into it.
        num_frames: 1 for the frame at the timestamp; more are spread evenly over the window.
        seconds: Length of the window.

    Returns:
        The start of the window, and the ascending times of the frames, in seconds.
    """
    begin = min(timestamp - seconds / 2, end - seconds)
    begin = max(begin, min(start, timestamp))
    step = seconds / num_frames
    return begin, [timestamp] if num_frames == 1 else [begin + (i + 0.5) * step for i in range(num_frames)]


def upright(frames: list, ratio: float) -> np.ndarray:
    """Convert frames to RGB arrays, rotated as the file states, with square pixels.

    Args:
        frames: Decoded frames, which are resized to the size of the first.
        ratio: Width of a pixel divided by its height.

    Returns:
        (T, H, W, 3) uint8.
    """
    width, height = frames[0].width, frames[0].height
    if 0.1 < ratio < 10.0 and abs(ratio - 1.0) > 1e-3:  # enlarge one side rather than shrink the other
        width, height = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    turns = round(frames[0].rotation / 90)
    arrays, array, last = [], None, None
    for frame in frames:
        if frame is not last:
            array = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
            last = frame
        arrays.append(array)
    return np.ascontiguousarray(np.rot90(np.stack(arrays), k=turns, axes=(1, 2)))


def place_samples(frames, begin: float):
    """Yield decoded audio with its place in the stream.

    Args:
        frames: Decoded audio frames; all get the sampling rate and the channels of the first.
        begin: Stream time in seconds of place 0.

    Yields:
        The sampling rate in Hz, the place of the first sample, and the samples (channels, samples) float32.
    """
    rate = layout = resampler = shape = channels = expected = None
    for frame in frames:
        if rate is None:
            rate, layout, channels = frame.sample_rate, frame.layout.name, frame.layout.nb_channels
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


def collect_audio(frames, begin: float, seconds: float) -> tuple[np.ndarray | None, int | None]:
    """Place decoded samples in a window; gaps are silent.

    Args:
        frames: Decoded audio frames.
        begin: Start of the window in seconds of stream time.
        seconds: Length of the window.

    Returns:
        (channels, samples) float32 and the sampling rate in Hz, or (None, None) without samples in the window.
    """
    buffer = rate = None
    low, high, length = math.inf, 0, 0
    for rate, offset, samples in place_samples(frames, begin):
        if buffer is None:
            length = round(seconds * rate)
            buffer = np.zeros((samples.shape[0], length), dtype=np.float32)
        start, stop = max(offset, 0), min(offset + samples.shape[1], length)
        if stop > start:
            buffer[:, start:stop] = samples[:, start - offset : stop - offset]
            low, high = min(low, start), max(high, stop)
        if offset + samples.shape[1] >= length:
            break
    if buffer is None or high <= low:
        return None, None
    return buffer[:, int(low) : high], rate


def follow_audio(frames, begin: float, end: float):
    """Yield decoded samples one after the other, from the first of a stream to the last; gaps are silent.

    Args:
        frames: Decoded audio frames.
        begin: Stream time in seconds; samples before it are dropped, as are those that overlap earlier ones.
        end: Stream time in seconds up to which gaps are filled, so that a wrong timestamp cannot ask for days of
            silence.

    Yields:
        The sampling rate in Hz, and samples (channels, samples) float32: parts of about a second.
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
        while (gap := min(offset, round((end - begin) * rate)) - place) > 0:
            yield rate, np.zeros((samples.shape[0], min(gap, rate)), dtype=np.float32)
            place += min(gap, rate)
        fresh = samples[:, max(place - offset, 0) :]
        yield rate, fresh
        place += fresh.shape[1]


__all__ = [
    "best_stream",
    "collect_audio",
    "decode",
    "file_start",
    "follow_audio",
    "header_span",
    "if_in_time",
    "packet_spans",
    "pick_frames",
    "seek",
    "steps_back",
    "timed",
    "upright",
    "window_times",
]
