"""Streams of an open media file: selection, time spans, seeking, and decoding frame by frame."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch

from .limits_deepavfusion import LimitError, decoder_options, too_many_pixels
from .stills_deepavfusion import Orientation, matrix_orientation

try:
    import av
    import av.sidedata.sidedata
    import av.stream
    import av.video.reformatter
except ImportError:
    av = None

# In transport streams and with some indices, seeking arrives after the target. Then targets this many seconds earlier
# are tried, and finally the start of the file, because decoding hours of video takes minutes.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)
# Assumed duration in seconds of a frame that has none.
_FRAME_LENGTH = Fraction(1, 25)
# Seconds up to which decoding goes on to a later frame, where no key frame is known to be closer to it.
_GO_ON = 5.0
# Decoding stops after this many damaged packets in a row.
_MAX_BAD_PACKETS = 500


class MediaInfo(NamedTuple):
    """Streams of a file.

    Attributes:
        image_span: (start, end) of the video stream in seconds from the file's start; None without one.
        audio_span: (start, end) of the audio stream; None without one.
    """

    image_span: tuple[float, float] | None
    audio_span: tuple[float, float] | None

    @property
    def has_image(self) -> bool:
        """Whether there is a video stream."""
        return self.image_span is not None

    @property
    def has_audio(self) -> bool:
        """Whether there is an audio stream."""
        return self.audio_span is not None

    @property
    def start(self) -> float:
        """Start of the first stream in seconds."""
        return min(span[0] for span in (self.image_span, self.audio_span) if span is not None)

    @property
    def end(self) -> float:
        """End of the last stream in seconds."""
        return max(span[1] for span in (self.image_span, self.audio_span) if span is not None)

    @property
    def span(self) -> tuple[float, float]:
        """(start, end) of the part that all streams cover; of the longer stream if they do not overlap."""
        spans = [span for span in (self.image_span, self.audio_span) if span is not None]
        start, end = max(span[0] for span in spans), min(span[1] for span in spans)
        return (start, end) if end > start else max(spans, key=lambda span: span[1] - span[0])


@dataclass(frozen=True, eq=False)
class Clip:
    """Decoded window of a file; also unpacks as `frames, waveform, sampling_rate = clip`.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, upright, with square pixels; None without images.
        waveform: (channels, samples) float32, possibly beyond -1..1 in lossy formats; None without audio.
        sampling_rate: Sampling rate of the waveform in Hz.
        timestamp: Middle of the window in seconds from the file's start.
        path: The file; "file object" if it has no name.
        is_still: Whether the file is an image, which has no time.
    """

    frames: np.ndarray | None
    waveform: np.ndarray | None
    sampling_rate: int | None
    timestamp: float = 0.0
    path: str = ""
    is_still: bool = False

    def __iter__(self):
        """Iterate over frames, waveform and sampling rate."""
        return iter((self.frames, self.waveform, self.sampling_rate))


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
        if packet.duration:
            end = begin + packet.duration * packet.time_base
        else:
            end = begin + (_FRAME_LENGTH if kind == "video" else 0)
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


def decode(container, stream, decoder=None):
    """Yield the frames of a stream, skipping packets that cannot be decoded; by default with the stream's decoder."""
    bad = 0
    for packet in _packets(container, [stream]):
        try:
            frames = packet.decode() if decoder is None else decoder.decode(packet)
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
        next_time = time + float(frame.duration * frame.time_base if frame.duration else _FRAME_LENGTH)
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


def note_time(frames, last: list):
    """Yield the frames, and keep the time of the latest in the list `last`, if it has one."""
    for frame in frames:
        last[:] = [] if frame.time is None else [frame.time]
        yield frame


def holds_stated_audio(info: MediaInfo, start: float, seconds: float, waveform, rate) -> bool:
    """Whether the audio of a window from `start` is as long as `info` states."""
    if not info.has_audio:
        return True
    stated = min(start + seconds, info.audio_span[1]) - max(start, info.audio_span[0])
    return waveform is not None and waveform.shape[1] / rate > stated - 0.25


def split_runs(container, stream, times: list[float]) -> Iterator[list[float]]:
    """Yield the ascending times, in seconds from the file's start, that decoding in one go reaches soonest."""
    index, origin, run, keys = getattr(stream, "index_entries", None), file_start(container), [], []
    for time in times:
        # The key frame before it; -1 if the index, which may not hold all, has none.
        keys.append(-1 if index is None else index.search_timestamp(int((time + origin) / stream.time_base)))
        if run and (time - run[-1] > _GO_ON or keys[-1] != keys[-2]):
            yield run
            run = []
        run.append(time)
    yield run


def frame_matrix(frame) -> np.ndarray | None:
    """Read the display matrix of a decoded frame, (3, 3); None without one."""
    try:
        # Not `frame.side_data`: it and the frame refer to each other, so that frames, 3 MB and more each, would stay in
        # memory until Python looks for such cycles.
        side_data = av.sidedata.sidedata.SideDataContainer(frame)  # ty: ignore[too-many-positional-arguments]
        data = side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    except ValueError:  # the frame has other side data that PyAV does not know; the angle is still known
        turns = math.radians(-frame.rotation)
        cosine, sine = round(math.cos(turns) * 65536), round(math.sin(turns) * 65536)
        return np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return None if data is None else np.frombuffer(bytes(data), dtype=np.int32).reshape(3, 3)


def set_limits(stream) -> None:
    """Keep a video stream's decoder from more threads than torch has, and from frames with more pixels than allowed.

    Raises:
        LimitError: If the headers claim more.
    """
    context = stream.codec_context
    if reason := too_many_pixels(context.width, context.height):
        raise LimitError(reason)
    if context.is_open:  # of a file that is kept open
        return
    context.options = {**context.options, **decoder_options()}
    context.thread_count = torch.get_num_threads()  # by default, one for each core, in every worker of a loader


def upright(frames: list, ratio: float) -> np.ndarray:
    """Convert frames to RGB arrays, turned and mirrored as the file states, with square pixels.

    Args:
        frames: Decoded frames, which are resized to the size of the first.
        ratio: Width of a stored pixel divided by its height, unless a display matrix scales them differently.

    Returns:
        (T, H, W, 3) uint8.

    Raises:
        LimitError: If they have more pixels than allowed.
    """
    width, height = frames[0].width, frames[0].height
    matrix = frame_matrix(frames[0])
    if matrix is not None:
        across, down = np.hypot(matrix[:2, 0], matrix[:2, 1]).tolist()
        ratio = across / down if across > 0 and down > 0 and abs(across / down - 1) > 0.01 else ratio
    if 0.1 < ratio < 10.0 and abs(ratio - 1.0) > 1e-3:  # enlarge one side rather than shrink the other
        width, height = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    if reason := too_many_pixels(width, height):
        raise LimitError(reason)
    orientation = Orientation() if matrix is None else matrix_orientation(matrix)
    shape = (width, height) if orientation.transpose else (height, width)
    result, last = np.empty((len(frames), *shape, 3), dtype=np.uint8), None
    # Not `frame.reformat`: its threads belong to the frame, or since PyAV 19 to what converts all frames of a thread. A
    # forked process, which lacks them, waits forever when it frees them.
    converter = av.video.reformatter.VideoReformatter()
    for i, frame in enumerate(frames):
        if frame is last:
            result[i] = result[i - 1]
            continue
        stored = converter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
        result[i], last = orientation.apply(stored), frame
    return result


__all__ = [
    "Clip",
    "MediaInfo",
    "best_stream",
    "decode",
    "file_start",
    "header_span",
    "holds_stated_audio",
    "if_in_time",
    "note_time",
    "set_limits",
    "packet_spans",
    "pick_frames",
    "seek",
    "split_runs",
    "steps_back",
    "timed",
    "upright",
]
