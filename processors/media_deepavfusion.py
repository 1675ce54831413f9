"""Decode frames and audio around a timestamp of a media file, with PyAV, whose wheel contains FFmpeg.

Decoding starts at the last key frame before the timestamp and stops after it, so that hours of video take no more
memory than seconds. Packets are decoded one by one, so that a damaged one does not discard the rest.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from .audio_streams_deepavfusion import AudioDecoders, collect_audio, wrong_samples
from .containers_deepavfusion import MediaFile, failure_reason
from .decoders_deepavfusion import DecoderSource
from .limits_deepavfusion import LimitError, MediaError
from .numbers_deepavfusion import MAX_FRAMES, is_count, is_number
from .sources_deepavfusion import is_decoder, is_file, open_file
from .stills_deepavfusion import is_misfit, read_still
from .streams_deepavfusion import (
    Clip,
    MediaInfo,
    best_stream,
    decode,
    dense_timestamps,
    file_start,
    header_span,
    holds_stated_audio,
    if_in_time,
    note_time,
    packet_spans,
    pick_frames,
    seek,
    set_limits,
    split_runs,
    steps_back,
    upright,
    window_times,
    window_timestamps,
)

try:
    import av
except ImportError:
    av = None

# Seconds that audio decoders need before the first sample: AAC one packet, MP3's bit reservoir a few, Opus 80 ms.
_AUDIO_PREROLL = 0.25
# Tolerance in seconds of timestamps after the end, because spans are rounded to frames.
_BEYOND = 0.05
# A video stream shorter than this many seconds is a still image, even if its number of frames is unknown.
_STILL = 0.1
# Seconds that an image file covers, as in FFmpeg.
_IMAGE_SPAN = (0.0, 0.04)
# Formats that begin or end with a whole index; those of others grow with what is read.
_INDEXED = {"mov", "mp4", "avi"}
# Frames of windows that are decoded together.
_FRAMES_AT_ONCE = 32
_REQUIRE = ("any", "both", "image", "audio")


def load_clip(
    path,
    timestamp: float | Callable[[MediaInfo], tuple[float, float]] | None = None,
    num_frames: int = 1,
    seconds: float = 3.0,
    require: str = "any",
) -> Clip:
    """Decode frames and audio around a timestamp.

    Args:
        path: A file, see `is_file`: a path, an address that fsspec opens, bytes, a seekable binary file object, or a
            value of `datasets`.
        timestamp: Middle of the window in seconds from the file's start; by default, the middle of the part that both
            streams cover. A function of the file's [`MediaInfo`] returns that, and the time of a single frame.
        num_frames: 1 for the frame at the timestamp; more are spread evenly over the window, at the middles of equal
            parts.
        seconds: Length of the window. A window that extends beyond the file is shifted into it; a shorter file is
            returned as a whole.
        require: What the file must have: `"any"` stream, `"both"`, `"image"` or `"audio"`.

    Returns:
        A [`Clip`]. At damaged packets the audio is silent and the previous frame is repeated.

    Raises:
        MediaError: If the file cannot be read, lacks what is required, or ends before the timestamp; if samples are NaN
            or infinite, or their full scale is not 1.
        TypeError: If `path` has an unsupported type.
        ValueError: If another argument has an invalid value.
    """
    if require not in _REQUIRE:
        raise ValueError(f"Expected require as one of {', '.join(map(repr, _REQUIRE))}, got {require!r}.")
    if not is_count(num_frames, MAX_FRAMES) or not is_number(seconds, 1e-6, 1e9):
        raise ValueError(f"Expected positive num_frames and seconds, got {num_frames} and {seconds}.")
    source = _source(path)
    with source.kept_open():
        info = source.probe()
        given = timestamp(info)[0] if callable(timestamp) else timestamp
        if given is not None and given > info.end + _BEYOND:  # headers of some formats contain an estimate
            info = source.probe(exact=True)
        clip, complete = _load(source, info, timestamp, num_frames, seconds)
        if not complete:  # headers can state more than the packets contain
            info = source.probe(exact=True)
            clip, _ = _load(source, info, timestamp, num_frames, seconds)
    if missing := _missing(clip, require):
        exists = {"image": info.has_image, "audio": info.has_audio}
        names = {"image": "images", "audio": "audio"}
        reasons = [
            f"its {names[kind]} cannot be decoded" if exists[kind] else f"it has no {names[kind]}" for kind in missing
        ]
        expected = {"any": "images or audio", "both": "images and audio", "image": "images"}.get(require, require)
        raise source.error(f"{expected} around {clip.timestamp:.2f} s", " and ".join(reasons))
    return clip


def _missing(clip: Clip, require: str) -> list[str]:
    """Kinds of data that a clip lacks, if it lacks what is required."""
    missing = [kind for kind, data in (("image", clip.frames), ("audio", clip.waveform)) if data is None]
    return missing if len(missing) == 2 or require in missing or require == "both" else []


def load_clips(
    path, timestamps: float | Sequence[float | None] | None = None, num_clips: int | None = None, **options
) -> Iterator[Clip]:
    """Decode several windows of a file, each as in [`load_clip`].

    Args:
        path: A file, as in [`load_clip`].
        timestamps: Middle of a window in seconds, or a list of them; one in the middle of the file by default.
        num_clips: Number of windows spread evenly over the file, instead of timestamps.
        **options: `num_frames`, `seconds` and `require` of [`load_clip`].

    Raises:
        ValueError: If there are both timestamps and `num_clips`, or no windows.
    """
    path, seconds = open_file(path), options.get("seconds", 3.0)
    if num_clips is None:
        times = window_timestamps(tuple, timestamps, None, seconds)
        if len(times) == 1:
            yield load_clip(path, times[0], **options)
            return
    yield from load_windows(
        path, lambda info: window_timestamps(lambda: info.span, timestamps, num_clips, seconds), **options
    )


def load_windows(
    path, place: Callable[[MediaInfo], Sequence], num_frames: int = 1, seconds: float = 3.0, require: str = "any"
) -> Iterator[Clip]:
    """Decode several windows of a file, each bit for bit as [`load_clip`] does.

    MP4, QuickTime and AVI files are opened once for every 32 frames, each of which is decoded once where windows are
    close together.

    Args:
        path: A file, as in [`load_clip`].
        place: Function from the file's [`MediaInfo`] to the `timestamp` of each window.
        num_frames: See [`load_clip`], as all below.
        seconds: Length of a window.
        require: What the file must have.

    Raises:
        MediaError: If a window cannot be read.
    """
    path = open_file(path)
    source = _source(path)
    with source.kept_open():
        info = source.probe()
        times = [sum(info.span) / 2 if time is None else time for time in place(info)]
        # What is unusual, also in the arguments, is left to `load_clip`.
        usual = isinstance(source, _Source) and len(times) > 1 and source.is_indexed
        usual = usual and is_count(num_frames, MAX_FRAMES) and is_number(seconds, 1e-6, 1e9)
        usual = usual and all(is_number(time, 0.0, info.end) for time in times)
        size = max(1, _FRAMES_AT_ONCE // num_frames) if usual else 1
        found = _decode_windows(source, info, times[:size], num_frames, seconds) if usual else []
    for number, time in enumerate(times):
        if usual and number and number % size == 0:
            with source.kept_open():
                found = _decode_windows(source, info, times[number : number + size], num_frames, seconds)
        clip = found[number % size](time) if usual else None
        if clip is None or _missing(clip, require):
            clip = load_clip(path, time, num_frames, seconds, require)
        yield clip


def _decode_windows(
    source: "_Source", info: MediaInfo, times: list[float], num_frames: int, seconds: float
) -> list[Callable[[float], Clip | None]]:
    """Decode windows; returns a function of its timestamp for each, of which the result is None if it is incomplete."""
    placed = [window_times(info.start, info.end, time, num_frames, seconds) for time in times]
    shown = source.pick_frames([images for _, images in placed]) if info.has_image else [None] * len(times)
    heard: dict[float, tuple] = {}
    for begin, _ in placed if info.has_audio else ():
        if begin not in heard:
            heard[begin] = source.read_audio(begin, seconds)

    def make(k: int, time: float) -> Clip | None:
        waveform, rate = heard.get(placed[k][0], (None, None))
        if info.has_image and shown[k] is None:
            return None
        try:
            frames = upright(*shown[k]) if info.has_image else None
        except LimitError:
            return None
        complete = holds_stated_audio(info, placed[k][0], seconds, waveform, rate)
        return Clip(frames, waveform, rate, time, source.name) if complete else None

    return [partial(make, k) for k in range(len(times))]


def probe_clip(path) -> MediaInfo:
    """Read which streams a file has and which times they cover, from its headers, or else from its packets.

    Raises:
        MediaError: If the file cannot be read, or has neither images nor audio.
        TypeError: If `path` has an unsupported type.
    """
    return _source(path).probe()


def _source(path) -> "_Source | DecoderSource":
    """Return the source of a file's frames and audio."""
    path = open_file(path)
    return DecoderSource(path) if is_decoder(path) else _Source(path)


def _load(source: "_Source | DecoderSource", info: MediaInfo, timestamp, num_frames: int, seconds: float):
    """Return the clip, and whether both streams are as long as `info` states."""
    first, last, frame_time = info.start, info.end, None
    if callable(timestamp):
        timestamp, frame_time = timestamp(info)
    if timestamp is None:
        timestamp = sum(info.span) / 2
    elif not math.isfinite(timestamp) or timestamp < 0 or timestamp > last + _BEYOND:
        expected = f"a timestamp within {first:.2f} to {last:.2f} s"
        if source.still is not None:
            expected = "no timestamp, because a still image has no time"
        raise source.error(expected, f"got {timestamp:.2f} s")
    window_start, times = window_times(first, last, timestamp, num_frames, seconds)
    if num_frames == 1 and frame_time is not None:
        times = [frame_time]
    frames = waveform = rate = None
    complete = True
    if info.has_image:
        frames, lag = source.read_frames(times)
        complete = frames is not None and lag < 1.0
    if info.has_audio:
        waveform, rate = source.read_audio(window_start, seconds)
        complete = complete and holds_stated_audio(info, window_start, seconds, waveform, rate)
    return Clip(frames, waveform, rate, timestamp, source.name, source.still is not None), complete


class _Source(MediaFile):
    """Streams of a file."""

    def __init__(self, path):
        super().__init__(path)
        self.still, self._decoders = None, AudioDecoders()

    @property
    def is_indexed(self) -> bool:
        """Whether the file, which is kept open, is a video in which seeking does not depend on what was read before."""
        return self._kept is not None and not _INDEXED.isdisjoint(self._kept.format.name.split(","))

    def probe(self, exact: bool = False) -> MediaInfo:
        """Read streams and their spans; with `exact`, from all packets (without decoding) instead of the headers."""
        if self.is_image:
            self.still = self._read_still()
            self.is_image = False
        if self.still is not None:
            return MediaInfo(_IMAGE_SPAN, None)
        with self.open("images or audio", seeks=not exact) as container:
            streams = {"video": best_stream(container, "video"), "audio": best_stream(container, "audio")}
            present = {kind: stream for kind, stream in streams.items() if stream is not None}
            if not present:
                raise self.error("images or audio", "it has no such stream that can be decoded")
            origin = file_start(container)
            spans = {
                kind: None if exact else header_span(container, stream, origin) for kind, stream in present.items()
            }
            is_still = "video" in present and present["video"].frames == 1
            if any(span is None for span in spans.values()):
                spans = packet_spans(container, present)
                self._close()
                is_still = "video" in spans and self._has_one_frame()
        if "video" in spans and "audio" in spans:
            start, end = spans["video"]
            if is_still or end - start < _STILL:  # a still image is shown as long as there is audio
                spans["video"] = start, max(end, spans["audio"][1])
        found = [spans.get(kind) for kind in ("video", "audio")]
        if found == [None, None]:
            raise self.error("images or audio", "its streams are empty")
        # Packets before the origin only prime the decoder.
        return MediaInfo(*(span and (max(span[0] - origin, 0.0), span[1] - origin) for span in found))

    def _read_still(self) -> np.ndarray | None:
        """Decode an image file as all other ways in do, which FFmpeg would turn and convert in its own way."""
        try:
            return read_still(self.name if self.file is None else self.file)
        except LimitError as error:
            raise self.error("an image", str(error)) from error
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error ...
            if is_misfit(error):
                raise
            raise self.error("an image", failure_reason(error)) from error

    def _has_one_frame(self) -> bool:
        with self.open("images") as container:
            packets = container.demux(best_stream(container, "video"))
            count = 0
            while count < 2:
                try:
                    count += bool(next(packets).size)
                except (StopIteration, av.FFmpegError):  # truncated files end with an error
                    break
            return count == 1

    def read_frames(self, times: list[float]) -> tuple[np.ndarray | None, float]:
        """Decode the frames at ascending times in seconds from the file's start.

        Returns:
            Frames (T, H, W, 3) uint8, or None without any; and how long before the last time the last decoded frame
            started, in seconds, negative if it started later.
        """
        if self.still is not None:
            return np.repeat(self.still[None], len(times), axis=0), 0.0
        chosen, ratio, lag = self._pick(times)
        return (upright(chosen, ratio), lag) if chosen else (None, 0.0)

    def _pick(self, times: list[float]) -> tuple[list, float, float]:
        """Decode frames at ascending times; returns them, the width of a pixel divided by its height, and the lag."""
        for back in steps_back(times[0]):
            with self.open(f"images at {times[0]:.2f} s", seeks=back == 0.0) as container:
                stream = best_stream(container, "video")
                set_limits(stream)
                stream_times = [time + file_start(container) for time in times]
                if back is not None and not seek(container, stream, stream_times[0] - back):
                    continue
                decoded = []  # time of the last frame, chosen or not
                frames = note_time(decode(container, stream), decoded)
                chosen = pick_frames(frames if back is None else if_in_time(frames, stream_times[0]), stream_times)
                if chosen:
                    lag = stream_times[-1] - decoded[0] if decoded else 0.0
                    # The container overrides the codec, as in players.
                    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
                    return chosen, float(ratio), lag
        return [], 1.0, 0.0

    def pick_frames(self, windows: list[list[float]]) -> list[tuple[list, float] | None]:
        """Decode the frames of windows, of each the arguments of `upright`; None for one that ends before its last.

        Where the next frame is close, decoding goes on instead of starting at the key frame before it.
        """
        times = sorted({time for window in windows for time in window})
        with self.open(f"images at {times[0]:.2f} s", seeks=True) as container:
            runs = list(split_runs(container, best_stream(container, "video"), times))
        found: dict[float, tuple] = {}
        for run in runs:
            chosen, ratio, lag = self._pick(run)
            found |= {time: (frame, ratio) for time, frame in zip(run, chosen) if time - run[-1] + lag < 1.0}
        return [
            ([found[time][0] for time in window], found[window[0]][1]) if all(map(found.get, window)) else None
            for window in windows
        ]

    def read_audio(self, start: float, seconds: float) -> tuple[np.ndarray | None, int | None]:
        """Decode audio from `start` in seconds: (channels, samples) float32 and Hz, or (None, None) without any."""
        if self._decoders.used_up(self._kept, start):
            self._close()
        for back in steps_back(start):
            with self.open(f"audio from {start:.2f} s", seeks=back == 0.0) as container:
                stream = best_stream(container, "audio")
                begin = start + file_start(container)
                if back is not None and not seek(container, stream, begin - _AUDIO_PREROLL - back):
                    continue
                frames = decode(container, stream, self._decoders.new(container, stream, begin - start))
                frames = frames if back is None else if_in_time(frames, begin)
                waveform, rate, place = collect_audio(frames, begin, seconds)
                if waveform is not None:
                    self.check_samples(waveform, rate, start + place / rate)
                    return waveform, rate
        return None, None

    def check_samples(self, waveform: np.ndarray, rate: int, start: float) -> None:
        """Raise `MediaError` if samples from a time in seconds on are not finite, or their full scale cannot be 1."""
        if wrong := wrong_samples(waveform, rate, start):
            raise self.error(*wrong)


__all__ = [
    "Clip",
    "MediaError",
    "MediaInfo",
    "dense_timestamps",
    "is_file",
    "load_clip",
    "load_clips",
    "load_windows",
    "probe_clip",
]
