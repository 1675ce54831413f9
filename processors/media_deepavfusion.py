"""Frames and sound of a moment in a media file, whatever shape the file is in. PyAV decodes; its wheel carries FFmpeg.

Only what is asked for is read: decoding starts at the last key frame before the moment and stops after it, so hours of
video cost no more memory than seconds. Packets are decoded one by one: a damaged one must not take the rest with it.
"""

import io
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .decoding_deepavfusion import (
    best_stream,
    collect_audio,
    decode,
    file_start,
    header_span,
    if_in_time,
    packet_spans,
    pick_frames,
    seek,
    steps_back,
    upright,
)

try:
    import av
except ImportError:
    av = None

# Audio decoders need the packets before the first wanted sample: AAC one, MP3's bit reservoir a few, Opus 80 ms.
_AUDIO_PREROLL = 0.25
# A moment so many seconds after the end is still the end: spans are rounded to frames.
_BEYOND = 0.05
# A video stream that covers less is a picture, also where nothing counts its frames.
_STILL = 0.1
_REQUIRE = ("any", "both", "image", "audio")


class MediaError(Exception):
    """A file that cannot be read as asked. The message names the file, what was looked for, and why it failed."""


@dataclass(frozen=True, eq=False)
class Clip:
    """
    A moment of a file; `frames, waveform, sampling_rate = clip` works too.

    A stream that the file lacks, or of which nothing can be decoded, is None.
    """

    frames: np.ndarray | None  # (T, H, W, 3) uint8 RGB, upright, with square pixels
    waveform: np.ndarray | None  # (channels, samples) float32; decoders of lossy formats can go beyond -1..1
    sampling_rate: int | None  # Hz
    timestamp: float = 0.0  # s from the file's start: the middle of the window
    path: str = ""  # the file; "file object" where it has no name

    def __iter__(self):
        return iter((self.frames, self.waveform, self.sampling_rate))


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
    def start(self) -> float:
        """Where the first of its streams begins."""
        return min(span[0] for span in (self.image_span, self.audio_span) if span is not None)

    @property
    def end(self) -> float:
        """Where the last of its streams ends."""
        return max(span[1] for span in (self.image_span, self.audio_span) if span is not None)

    @property
    def span(self) -> tuple[float, float]:
        """The part that all its streams cover; of streams that do not overlap, the longer one."""
        spans = [span for span in (self.image_span, self.audio_span) if span is not None]
        start, end = max(span[0] for span in spans), min(span[1] for span in spans)
        return (start, end) if end > start else max(spans, key=lambda span: span[1] - span[0])


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
    if num_frames < 1 or not 0 < seconds < math.inf:
        raise ValueError(f"num_frames is {num_frames} and seconds {seconds}: expected positive numbers.")
    source = _Source(path)
    info = source.probe()
    if timestamp is not None and timestamp > info.end + _BEYOND:  # headers of some formats hold a guess
        info = source.probe(exact=True)
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
    first, last = info.start, info.end
    if timestamp is None:
        timestamp = sum(info.span) / 2
    elif not math.isfinite(timestamp) or timestamp < 0 or timestamp > last + _BEYOND:
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


def _note_time(frames, last: list):
    """The frames; `last` holds the time of the latest of them, if it has one."""
    for frame in frames:
        last[:] = [] if frame.time is None else [frame.time]
        yield frame


class _Source:
    """A file that can be opened again and again."""

    def __init__(self, path):
        if av is None:
            raise ImportError("Reading media files needs PyAV: pip install av.")
        if isinstance(path, (bytes, bytearray, memoryview)):
            path = io.BytesIO(path)
        if hasattr(path, "read"):
            name = getattr(path, "name", None)  # a number or None for temporary files
            self.file, self.name = path, name if isinstance(name, str) else "file object"
            if getattr(path, "closed", False):
                raise self.error("a binary file object that can seek", "it is closed")
            if not (path.seekable() if hasattr(path, "seekable") else hasattr(path, "seek")):
                raise self.error("a binary file object that can seek", f"{type(path).__name__} cannot")
            self._check(self._check_file)
        elif isinstance(path, (str, os.PathLike)):
            self.file, self.name = None, os.fsdecode(path)
            self._check(self._check_path)
        else:
            raise TypeError(f"A {type(path).__name__} was given: expected a path, bytes or a binary file object.")

    def error(self, wanted: str, why: str) -> MediaError:
        return MediaError(f"{self.name}: looked for {wanted}, but {why}.")

    def _check(self, check) -> None:
        """Runs one of the checks below; what the system or the file object answers comes out as `MediaError`."""
        try:
            check()
        except OSError as error:
            raise self.error("a media file", _reason(error)) from error

    def _check_file(self) -> None:
        if isinstance(self.file, io.TextIOBase) or isinstance(self.file.read(0), str):
            raise self.error("a binary file object that can seek", "it is open as text")
        self.file.seek(0)
        self._refuse_playlist(self.file)

    def _check_path(self) -> None:
        if os.path.isdir(self.name):
            raise self.error("a media file", "it is a directory")
        if not os.path.exists(self.name):
            broken = os.path.islink(self.name)
            raise self.error("a media file", "it is a link to nothing" if broken else "there is no such file")
        if not os.path.isfile(self.name):  # opening a pipe would wait for someone to write into it
            raise self.error("a media file", "it is a pipe, socket or device; give bytes instead")
        if os.path.getsize(self.name) == 0:
            raise self.error("a media file", "it is empty")
        with open(self.name, "rb") as file:
            self._refuse_playlist(file)

    def _refuse_playlist(self, file) -> None:
        """FFmpeg would try for minutes to reach what a playlist names, and open a list that names itself for ever."""
        if file.read(8).startswith((b"#EXTM3U", b"ffconcat")):
            raise self.error("a media file", "it is a playlist")

    @contextmanager
    def open(self, wanted: str):
        """The opened container. What goes wrong inside comes out as `MediaError`.

        Raises:
            AttributeError, ImportError, NameError, TypeError: This code and the installed PyAV do not fit together,
                whatever the file holds.
        """
        try:
            if self.file is not None:
                self.file.seek(0)
            # "file:" keeps names with colons or leading dashes from being read as protocols or options, and the white
            # list keeps playlists from reaching out.
            target = self.file if self.file is not None else "file:" + self.name
            options = {"protocol_whitelist": "file"}
            # Tags that are not UTF-8 must not fail the file. PyAV 19 escapes them, and dropped the argument.
            tags = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
            # Left to itself, PyAV takes a file object's own mode, and writes into temporary ones.
            with av.open(target, mode="r", options=options, **tags) as container:
                yield container
        except (MediaError, AttributeError, ImportError, NameError, TypeError):
            raise
        except Exception as error:  # PyAV and FFmpeg answer with a dozen kinds; users should need to catch one
            raise self.error(wanted, _reason(error)) from error

    def probe(self, exact: bool = False) -> MediaInfo:
        """Streams and their spans; `exact` reads all packets (none is decoded) instead of believing the headers."""
        with self.open("pictures or sound") as container:
            streams = {"video": best_stream(container, "video"), "audio": best_stream(container, "audio")}
            present = {kind: stream for kind, stream in streams.items() if stream is not None}
            if not present:
                raise self.error("pictures or sound", "it has no such stream that can be decoded")
            origin = file_start(container)
            spans = {
                kind: None if exact else header_span(container, stream, origin) for kind, stream in present.items()
            }
            one = "video" in present and present["video"].frames == 1
            if any(span is None for span in spans.values()):
                spans = packet_spans(container, present)
                one = "video" in spans and self._holds_one_picture()
        if "video" in spans and "audio" in spans:
            start, end = spans["video"]
            if one or end - start < _STILL:  # a single picture is shown for as long as there is sound
                spans["video"] = start, max(end, spans["audio"][1])
        found = [spans.get(kind) for kind in ("video", "audio")]
        if found == [None, None]:
            raise self.error("pictures or sound", "its streams hold nothing")
        # Packets before the origin prime the decoder and are not heard.
        return MediaInfo(*(span and (max(span[0] - origin, 0.0), span[1] - origin) for span in found))

    def _holds_one_picture(self) -> bool:
        with self.open("pictures") as container:
            packets = container.demux(best_stream(container, "video"))
            count = 0
            while count < 2:
                try:
                    count += bool(next(packets).size)
                except (StopIteration, av.FFmpegError):  # an error while reading, as of a truncated file, is an end
                    break
            return count == 1

    def read_frames(self, times: list[float]) -> tuple[np.ndarray | None, float]:
        """The frames shown at ascending times (s from the file's start): (T, H, W, 3) uint8, or None without any.

        Also how long before the last of those times the last frame that was decoded began, in seconds: negative where
        a later frame shows that the stream goes on.
        """
        for back in steps_back(times[0]):
            with self.open(f"pictures at {times[0]:.2f} s") as container:
                stream = best_stream(container, "video")
                moments = [time + file_start(container) for time in times]
                if back is not None and not seek(container, stream, moments[0] - back):
                    continue
                decoded = []  # the time of the last frame, chosen or not
                frames = _note_time(decode(container, stream), decoded)
                chosen = pick_frames(frames if back is None else if_in_time(frames, moments[0]), moments)
                if chosen:
                    lag = moments[-1] - decoded[0] if decoded else 0.0
                    # The container's word goes before the codec's, as in players.
                    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
                    return upright(chosen, float(ratio)), lag
        return None, 0.0

    def read_audio(self, start: float, seconds: float) -> tuple[np.ndarray | None, int | None]:
        """The sound from `start` (s from the file's start): (channels, samples) float32 and Hz, or (None, None)."""
        for back in steps_back(start):
            with self.open(f"sound from {start:.2f} s") as container:
                stream = best_stream(container, "audio")
                begin = start + file_start(container)
                if back is not None and not seek(container, stream, begin - _AUDIO_PREROLL - back):
                    continue
                frames = decode(container, stream)
                waveform, rate = collect_audio(frames if back is None else if_in_time(frames, begin), begin, seconds)
                if waveform is not None:
                    return np.nan_to_num(waveform, copy=False, nan=0.0, posinf=0.0, neginf=0.0), rate
        return None, None


def _reason(error: Exception) -> str:
    """What went wrong, without the number and the file that the system's and FFmpeg's own texts add."""
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"


__all__ = ["Clip", "MediaError", "MediaInfo", "dense_timestamps", "load_clip", "probe_clip"]
