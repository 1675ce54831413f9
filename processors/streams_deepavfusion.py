"""Streams of an opened media file, frame by frame: which one, what time it covers, which frames are shown when."""

import math
import re
from fractions import Fraction

import numpy as np

try:
    import av
    import av.stream
except ImportError:
    av = None

# Transport streams and some indices lead to a moment after the one asked for. Then so many seconds earlier are tried,
# and only then the start of the file: decoding hours of video to reach a moment takes minutes.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)
# Seconds that a frame lasts where nothing tells.
_FRAME_LENGTH = 0.04
# A stream of which nothing but damaged packets come is given up after so many in a row.
_MAX_BAD_PACKETS = 500


def best_stream(container, kind: str):
    """The default, then the largest, of the streams of a kind that can be decoded and are no cover art; or None."""
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
    """Where the file's time begins, in the streams' own time (s): players show this moment as 0."""
    streams = (best_stream(container, kind) for kind in ("video", "audio"))
    return min(_start(stream) for stream in streams if stream is not None)


def header_span(container, stream, origin: float) -> tuple[float, float] | None:
    """What time a stream covers by the headers (s, stream time), or None; `origin` is the file's start."""
    start = _start(stream)
    if stream.duration is not None and stream.duration > 0:
        return start, start + float(stream.duration * stream.time_base)
    tag = re.match(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska's, end of the stream
    if tag:
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return start, max(start, origin + 3600 * hours + 60 * minutes + seconds)
    if container.duration is not None and container.duration > 0:
        return start, max(start, origin + container.duration / av.time_base)
    return None


def packet_spans(container, streams: dict) -> dict:
    """What time streams cover, by their packets (s, stream time): of {kind: stream} those that hold any."""
    spans = {}
    kinds = {stream.index: kind for kind, stream in streams.items()}
    for packet in _packets(container, list(streams.values())):
        if not packet.size:
            continue
        kind = kinds[packet.stream_index]
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            begin = time * packet.time_base
        else:  # a bare stream: one packet follows the other
            begin = spans[kind][1] if kind in spans else Fraction(0)
        end = begin + (packet.duration or 0) * packet.time_base
        low, high = spans.get(kind, (begin, end))
        spans[kind] = (min(low, begin), max(high, end))
    return {kind: (float(low), float(high)) for kind, (low, high) in spans.items()}


def _packets(container, streams):
    """Packets until the end; an error while reading, as of a truncated file, is an end."""
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        yield packet


def decode(container, stream):
    """Frames of a stream; packets that cannot be decoded are passed over."""
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


def seek(container, stream, moment: float) -> bool:
    """Goes to the last key frame before a moment (s, stream time); False where the format cannot."""
    try:
        container.seek(int(moment / stream.time_base), stream=stream, backward=True)
    except (av.FFmpegError, OverflowError):
        return False
    return True


def steps_back(start: float):
    """Seconds before a moment to seek to, one after the other until one serves; None is to read from the start."""
    yield from (back for back in _SEEK_BACK if back == 0.0 or back < start)
    yield None


def if_in_time(frames, moment: float):
    """The frames, if the first of them is known not to be after the moment (s, stream time); otherwise none."""
    first = next(frames, None)
    if first is not None and first.time is not None and first.time <= moment + 1e-3:  # a sample's rounding
        yield first
        yield from frames


def pick_frames(frames, moments: list[float]) -> list:
    """The frame that is shown at each moment (s, stream time)."""
    chosen, before, next_time = [], None, 0.0
    for frame in frames:
        time = frame.time
        if time is None:  # a bare stream: one frame follows the other
            time = next_time
        next_time = time + (float(frame.duration * frame.time_base) if frame.duration else _FRAME_LENGTH)
        while len(chosen) < len(moments) and time > moments[len(chosen)] + 1e-6:
            chosen.append(before if before is not None else frame)
        if len(chosen) == len(moments):
            break
        before = frame
    if before is not None:
        chosen += [before] * (len(moments) - len(chosen))
    return chosen


def upright(frames: list, ratio: float) -> np.ndarray:
    """RGB arrays of decoded frames with square pixels, turned as the file says; all of the first one's size."""
    width, height = frames[0].width, frames[0].height
    if 0.1 < ratio < 10.0 and abs(ratio - 1.0) > 1e-3:  # enlarge, never throw away
        width, height = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    turns = round(frames[0].rotation / 90)
    arrays, array, last = [], None, None
    for frame in frames:
        if frame is not last:
            array = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
            last = frame
        arrays.append(array)
    return np.ascontiguousarray(np.rot90(np.stack(arrays), k=turns, axes=(1, 2)))


def collect_audio(frames, begin: float, seconds: float) -> tuple[np.ndarray | None, int | None]:
    """Places decoded samples on the window's time line; gaps are silent."""
    buffer = rate = layout = resampler = shape = None
    low, high, length, expected = math.inf, 0, 0, None
    for frame in frames:
        if rate is None:
            rate, layout = frame.sample_rate, frame.layout.name
            length = round(seconds * rate)
            buffer = np.zeros((frame.layout.nb_channels, length), dtype=np.float32)
        if resampler is None or shape != (frame.format.name, frame.layout.name, frame.sample_rate):
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
        time = frame.time
        offset = expected if time is None else round((time - begin) * rate)
        if expected is not None and offset is not None and abs(offset - expected) <= 2:
            offset = expected  # rounding of timestamps must not tear samples apart
        offset = 0 if offset is None else offset
        parts = [part.to_ndarray().reshape(-1, buffer.shape[0]) for part in resampler.resample(frame)]
        samples = np.concatenate(parts or [buffer.T[:0]]).T
        expected = offset + samples.shape[1]
        start, stop = max(offset, 0), min(expected, length)
        if stop > start:
            buffer[:, start:stop] = samples[:, start - offset : stop - offset]
            low, high = min(low, start), max(high, stop)
        if expected >= length:
            break
    if buffer is None or high <= low:
        return None, None
    return buffer[:, int(low) : high], rate


__all__ = [
    "best_stream",
    "collect_audio",
    "decode",
    "file_start",
    "header_span",
    "if_in_time",
    "packet_spans",
    "pick_frames",
    "seek",
    "steps_back",
    "upright",
]
