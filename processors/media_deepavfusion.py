"""Frames and sound of a moment in a media file, whatever shape the file is in. PyAV decodes; its wheel carries FFmpeg.

Only what is asked for is read: decoding starts at the last key frame before the moment and stops after it, so hours of
video cost no more memory than seconds. Packets are decoded one by one: a damaged one must not take the rest with it.
"""

import io
import math
import os
import re
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

try:
    import av
except ImportError:
    av = None

# Audio decoders need the packets before the first wanted sample: AAC one, MP3's bit reservoir a few, Opus 80 ms.
_AUDIO_PREROLL = 0.25
# A stream of which nothing but damaged packets come is given up after so many in a row.
_MAX_BAD_PACKETS = 500
_REQUIRE = ("any", "both", "image", "audio")


class MediaError(Exception):
    """A file that cannot be read as asked. The message names the file, what was looked for, and why it failed."""


class Clip(NamedTuple):
    """A moment of a file. A stream that the file lacks, or of which nothing can be decoded, is None."""

    frames: np.ndarray | None  # (T, H, W, 3) uint8 RGB, upright, with square pixels
    waveform: np.ndarray | None  # (channels, samples) float32; decoders of lossy formats can go beyond -1..1
    sampling_rate: int | None  # Hz
    timestamp: float = 0.0  # s from the file's start: the middle of the window
    name: str = ""


class MediaInfo(NamedTuple):
    """What a file holds. Times in seconds from its start; None where it has no such stream."""

    image_span: tuple[float, float] | None
    audio_span: tuple[float, float] | None

    @property
    def has_image(self) -> bool:
        return self.image_span is not None

    @property
    def has_audio(self) -> bool:
        return self.audio_span is not None

    @property
    def span(self) -> tuple[float, float]:
        """The part that all its streams cover; of streams that do not overlap, the longer one."""
        spans = [span for span in (self.image_span, self.audio_span) if span is not None]
        start, end = max(span[0] for span in spans), min(span[1] for span in spans)
        if len(spans) == 2 and _is_still(spans[0]):  # a single picture goes with all of the sound
            return spans[1]
        return (start, end) if end > start else max(spans, key=lambda span: span[1] - span[0])


def _is_still(span: tuple[float, float]) -> bool:
    return span[1] - span[0] < 0.1


def load_clip(
    path,
    timestamp: float | None = None,
    num_frames: int = 1,
    seconds: float = 3.0,
    require: str = "any",
) -> Clip:
    """
    Decodes the frame, or frames, and the sound around a moment.

    Args:
        path: path, bytes, or a binary file object that can seek.
        timestamp: middle of the window, in seconds from the file's start. By default the middle of the part that both
            streams cover.
        num_frames: 1 gives the frame shown at the timestamp; more are spread evenly over the window, at the middles of
            its parts.
        seconds: length of the window. It is shifted to lie inside the file where it would leave it; of a file that is
            shorter, all there is comes back.
        require: what the file must have: `"any"` stream, `"both"`, `"image"` or `"audio"`.

    Returns:
        A [`Clip`]. Where packets in the middle were damaged, the sound is silent there and the frame before stays.

    Raises:
        MediaError: for anything that is not such a file, for a timestamp beyond its end, or without what is required.
    """
    if require not in _REQUIRE:
        raise ValueError(f"require is {require!r}: expected one of {', '.join(map(repr, _REQUIRE))}.")
    if num_frames < 1 or seconds <= 0:
        raise ValueError(f"num_frames is {num_frames} and seconds {seconds}: expected positive numbers.")
    source = _Source(path)
    info = source.probe()
    clip, complete = _load(source, info, timestamp, num_frames, seconds)
    if not complete:  # headers can promise what is not there: look at the packets themselves
        info = source.probe(exact=True)
        clip, _ = _load(source, info, timestamp, num_frames, seconds)
    missing = [kind for kind, data in (("image", clip.frames), ("audio", clip.waveform)) if data is None]
    if len(missing) == 2 or require in missing or (require == "both" and missing):
        had = {"image": info.has_image, "audio": info.has_audio}
        reasons = [f"{kind}: {'nothing could be decoded' if had[kind] else 'no such stream'}" for kind in missing]
        raise source.error(f"{require} around {clip.timestamp:.2f} s", "; ".join(reasons))
    return clip


def probe_clip(path) -> MediaInfo:
    """Which streams a file has and what time they cover, from its headers (or its packets, where these do not tell).

    Raises:
        MediaError: for anything that holds neither pictures nor sound.
    """
    return _Source(path).probe()


def dense_timestamps(start: float, end: float, num_clips: int, seconds: float) -> list[float]:
    """Middles of `num_clips` windows of `seconds` spread evenly over `start` .. `end`; they overlap where they must."""
    first, last = start + seconds / 2, end - seconds / 2
    if num_clips == 1 or last <= first:
        return [(start + end) / 2] * num_clips
    return [first + (last - first) * index / (num_clips - 1) for index in range(num_clips)]


def _load(source: "_Source", info: MediaInfo, timestamp, num_frames: int, seconds: float) -> tuple[Clip, bool]:
    """The clip, and whether both streams went as far as `info` says."""
    spans = [span for span in (info.image_span, info.audio_span) if span is not None]
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    if timestamp is None:
        timestamp = sum(info.span) / 2
    elif not math.isfinite(timestamp) or timestamp < 0 or timestamp > last + 0.05:
        raise source.error(f"the moment {timestamp:.2f} s", f"the file covers {first:.2f} to {last:.2f} s")
    window_start = min(timestamp - seconds / 2, last - seconds)
    window_start = max(window_start, min(first, timestamp))
    frames = waveform = rate = None
    complete = True
    if info.has_image:
        step = seconds / num_frames
        times = [timestamp] if num_frames == 1 else [window_start + (i + 0.5) * step for i in range(num_frames)]
        frames, lag = source.read_frames(times)
        complete = frames is not None and lag < 1.0
    if info.has_audio:
        waveform, rate = source.read_audio(window_start, seconds)
        promised = min(window_start + seconds, info.audio_span[1]) - max(window_start, info.audio_span[0])
        complete = complete and waveform is not None and waveform.shape[1] / rate > promised - 0.25
    return Clip(frames, waveform, rate, timestamp, source.name), complete


class _Source:
    """A file that can be opened again and again."""

    def __init__(self, path):
        if av is None:
            raise ImportError("Reading media files needs PyAV: pip install av.")
        if isinstance(path, (bytes, bytearray, memoryview)):
            path = io.BytesIO(path)
        if hasattr(path, "read"):
            self.file, self.name = path, str(getattr(path, "name", "file object"))
            if not (hasattr(path, "seekable") and path.seekable()):
                raise self.error("a binary file object that can seek", f"{type(path).__name__} cannot")
            path.seek(0)
            self._refuse_playlist(path)
        elif isinstance(path, (str, os.PathLike)):
            self.file, self.name = None, os.fspath(path)
            self._check_path()
        else:
            raise TypeError(f"A {type(path).__name__} was given: expected a path, bytes or a binary file object.")

    def error(self, wanted: str, why: str) -> MediaError:
        return MediaError(f"{self.name}: looked for {wanted}, but {why}.")

    def _check_path(self) -> None:
        if os.path.isdir(self.name):
            raise self.error("a media file", "it is a directory")
        if not os.path.exists(self.name):
            broken = os.path.islink(self.name)
            raise self.error("a media file", "it is a link to nothing" if broken else "there is no such file")
        if os.path.getsize(self.name) == 0:
            raise self.error("a media file", "it is empty")
        with open(self.name, "rb") as file:
            self._refuse_playlist(file)

    def _refuse_playlist(self, file) -> None:
        """FFmpeg would try for minutes to reach what a playlist names."""
        if file.read(7) == b"#EXTM3U":
            raise self.error("a media file", "it is a playlist")

    @contextmanager
    def open(self, wanted: str):
        """The opened container. All that goes wrong inside comes out as `MediaError`."""
        try:
            if self.file is not None:
                self.file.seek(0)
            # "file:" keeps names with colons or leading dashes from being read as protocols or options, and the white
            # list keeps playlists from reaching out.
            target = self.file if self.file is not None else "file:" + self.name
            with av.open(target, metadata_errors="ignore", options={"protocol_whitelist": "file"}) as container:
                yield container
        except MediaError:
            raise
        except Exception as error:  # PyAV and FFmpeg answer with a dozen kinds; users should need to catch one
            raise self.error(wanted, f"{type(error).__name__}: {error}") from error

    def probe(self, exact: bool = False) -> MediaInfo:
        """Streams and their spans; `exact` reads all packets (none is decoded) instead of believing the headers."""
        with self.open("pictures or sound") as container:
            streams = {"video": _best(container, "video"), "audio": _best(container, "audio")}
            present = {kind: stream for kind, stream in streams.items() if stream is not None}
            if not present:
                raise self.error("pictures or sound", "it has no such stream that can be decoded")
            origin = _origin(present.values())
            spans = {
                kind: None if exact else _header_span(container, stream, origin) for kind, stream in present.items()
            }
            if any(span is None for span in spans.values()):
                spans = _packet_spans(container, present)
        found = [spans.get(kind) for kind in ("video", "audio")]
        if found == [None, None]:
            raise self.error("pictures or sound", "its streams hold nothing")
        return MediaInfo(*(None if span is None else (span[0] - origin, span[1] - origin) for span in found))

    def read_frames(self, times: list[float]) -> tuple[np.ndarray | None, float]:
        """The frames shown at ascending times (s from the file's start): (T, H, W, 3) uint8, or None without any.

        Also how long before the last of those times the last frame began to be shown, in seconds.
        """
        for seek in (True, False):  # an index can be wrong: then read from the start
            with self.open(f"pictures at {times[0]:.2f} s") as container:
                stream = _best(container, "video")
                moments = [time + _origin_of(container) for time in times]
                if seek and not _seek(container, stream, moments[0]):
                    continue
                chosen, came_before = _pick_frames(_decode(container, stream), moments)
                pixel_ratio = float(stream.codec_context.sample_aspect_ratio or 1)
            if chosen and (came_before or not seek):
                lag = 0.0 if chosen[-1].time is None else moments[-1] - chosen[-1].time
                return _upright(chosen, pixel_ratio), lag
        return None, 0.0

    def read_audio(self, start: float, seconds: float) -> tuple[np.ndarray | None, int | None]:
        """The sound from `start` (s from the file's start): (channels, samples) float32 and Hz, or (None, None)."""
        for seek in (True, False):
            with self.open(f"sound from {start:.2f} s") as container:
                stream = _best(container, "audio")
                begin = start + _origin_of(container)
                if seek and not _seek(container, stream, begin - _AUDIO_PREROLL):
                    continue
                waveform, rate, came_before = _collect_audio(_decode(container, stream), begin, seconds)
            if waveform is not None and (came_before or not seek):
                return np.nan_to_num(waveform, copy=False, nan=0.0, posinf=0.0, neginf=0.0), rate
        return None, None


def _best(container, kind: str):
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


def _origin(streams) -> float:
    """Where the file's time begins, in the streams' own time: players show this moment as 0."""
    return min(_start(stream) for stream in streams)


def _origin_of(container) -> float:
    return _origin(stream for kind in ("video", "audio") if (stream := _best(container, kind)) is not None)


def _header_span(container, stream, origin: float) -> tuple[float, float] | None:
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


def _packet_spans(container, streams: dict) -> dict:
    spans = {}
    kinds = {stream.index: kind for kind, stream in streams.items()}
    for packet in _packets(container, list(streams.values())):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or not packet.size:
            continue
        begin, end = time * packet.time_base, (time + (packet.duration or 0)) * packet.time_base
        kind = kinds[packet.stream_index]
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


def _decode(container, stream):
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


def _seek(container, stream, moment: float) -> bool:
    """Goes to the last key frame before a moment (s, stream time); False where the format cannot."""
    try:
        container.seek(int(moment / stream.time_base), stream=stream, backward=True)
    except (av.FFmpegError, OverflowError):
        return False
    return True


def _pick_frames(frames, moments: list[float]) -> tuple[list, bool]:
    """The frame that is shown at each moment, and whether decoding began before the first of them."""
    chosen, before, came_before = [], None, False
    for frame in frames:
        time = frame.time
        if time is None:  # no timestamps at all: take them as they come
            time = -math.inf if before is None else moments[len(chosen)]
        came_before = came_before or time <= moments[0]
        while len(chosen) < len(moments) and time > moments[len(chosen)] + 1e-6:
            chosen.append(before if before is not None else frame)
        if len(chosen) == len(moments):
            break
        before = frame
    if before is not None:
        chosen += [before] * (len(moments) - len(chosen))
    return chosen, came_before


def _upright(frames: list, ratio: float) -> np.ndarray:
    """RGB arrays of decoded frames with square pixels, turned as the file says; all of the first one's size."""
    width, height = frames[0].width, frames[0].height
    if 0.1 < ratio < 10.0 and abs(ratio - 1.0) > 1e-3:  # enlarge, never throw away
        width, height = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
    turns = round(frames[0].rotation / 90)
    arrays, last = [], None
    for frame in frames:
        if frame is not last:
            array = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
            last = frame
        arrays.append(array)
    return np.ascontiguousarray(np.rot90(np.stack(arrays), k=turns, axes=(1, 2)))


def _collect_audio(frames, begin: float, seconds: float) -> tuple[np.ndarray | None, int | None, bool]:
    """Places decoded samples on the window's time line; gaps are silent. Also whether decoding began before it."""
    buffer = rate = resampler = shape = None
    low, high, came_before, expected = math.inf, 0, False, None
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
        came_before = came_before or offset <= 0
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
        return None, None, came_before
    return buffer[:, int(low) : high], rate, came_before


__all__ = ["Clip", "MediaError", "MediaInfo", "dense_timestamps", "load_clip", "probe_clip"]
