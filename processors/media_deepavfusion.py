"""Decode frames and audio around a timestamp of a media file, or of several."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import SupportsFloat

from .decoders_deepavfusion import DecoderSource
from .file_source_deepavfusion import FileSource
from .limits_deepavfusion import LimitError, MediaError
from .numbers_deepavfusion import MAX_FRAMES, is_count, is_number
from .sources_deepavfusion import is_decoder, is_file, open_file
from .streams_deepavfusion import Clip, MediaInfo, holds_stated_audio, upright
from .timestamps_deepavfusion import dense_timestamps, window_times, window_timestamps

# Tolerance in seconds of timestamps after the end, because spans are rounded to frames.
_BEYOND = 0.05
# Frames of windows that are decoded together.
_FRAMES_AT_ONCE = 32
_REQUIRE = ("any", "both", "image", "audio")


def load_clip(
    path,
    timestamp: float | Callable[[MediaInfo], tuple[float, float]] | None = None,
    num_frames: int = 1,
    seconds: float | None = 3.0,
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
        seconds: Length of the window; None is that of the part that both streams cover. A window that extends beyond
            the file is shifted into it; a shorter file is returned as a whole.
        require: What the file must have: `"any"` stream, `"both"`, `"image"` or `"audio"`.

    Returns:
        A [`Clip`]. At damaged packets the audio is silent and the previous frame is repeated.

    Raises:
        MediaError: If the file cannot be read, lacks what is required, or ends before the timestamp; if samples are NaN
            or infinite, or their full scale is not 1.
        TypeError: If `path` or `timestamp` has an unsupported type.
        ValueError: If another argument has an invalid value.
    """
    _check_options(num_frames, 3.0 if seconds is None else seconds, require)
    if timestamp is not None and not callable(timestamp):
        if not isinstance(timestamp, SupportsFloat):
            raise TypeError(f"Expected timestamp as a number of seconds, got {timestamp!r}.")
        timestamp = float(timestamp)
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


def _check_options(num_frames: int, seconds: float, require: str) -> None:
    if require not in _REQUIRE:
        raise ValueError(f"Expected require as one of {', '.join(map(repr, _REQUIRE))}, got {require!r}.")
    if not is_count(num_frames, MAX_FRAMES) or not is_number(seconds, 1e-6, 1e9):
        raise ValueError(f"Expected positive num_frames and seconds, got {num_frames} and {seconds}.")


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
        timestamps: Middle of a window in seconds, or a sequence of them; one in the middle of the file by default.
        num_clips: Number of windows spread evenly over the file, instead of timestamps.
        **options: `num_frames`, `seconds` and `require` of [`load_clip`].

    Raises:
        TypeError: If a timestamp is no number.
        ValueError: If there are both timestamps and `num_clips`, no windows, or a timestamp that is not finite.
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
    close together. Windows are placed anew in a file that turns out to be shorter than its headers state.

    Args:
        path: A file, as in [`load_clip`].
        place: Function from the file's [`MediaInfo`] to the `timestamp` of each window.
        num_frames: See [`load_clip`], as all below.
        seconds: Length of a window.
        require: What the file must have.

    Raises:
        MediaError: If a window cannot be read.
    """
    _check_options(num_frames, seconds, require)
    path = open_file(path)
    source = _source(path)

    def placed(info: MediaInfo) -> list[float]:
        return [sum(info.span) / 2 if time is None else time for time in place(info)]

    with source.kept_open():
        info = source.probe()
        times = placed(info)
        # What is unusual is left to `load_clip`.
        usual = isinstance(source, FileSource) and len(times) > 1 and source.is_indexed
        usual = usual and all(is_number(time, 0.0, info.end) for time in times)
        size = max(1, _FRAMES_AT_ONCE // num_frames)
        found = _decode_windows(source, info, times[:size], num_frames, seconds) if usual else []
        # The last window shows whether the file is as long as its headers state; it is decoded first, and kept.
        last = max(range(len(times)), key=times.__getitem__)
        clip, complete = None, True
        if last < len(found):
            clip = found[last](times[last])
            complete = clip is not None
        elif is_number(times[last], 0.0, info.end):
            clip, complete = _load(source, info, times[last], num_frames, seconds)
        kept = {last: clip if complete else None}
        if not complete and (anew := placed(source.probe(exact=True))) != times:
            usual, times = False, anew
    for number, time in enumerate(times):
        if usual and number and number % size == 0:
            with source.kept_open():
                found = _decode_windows(source, info, times[number : number + size], num_frames, seconds)
        clip = kept.pop(number, None)
        if clip is None and usual:
            clip = found[number % size](time)
        if clip is None or _missing(clip, require):
            clip = load_clip(path, time, num_frames, seconds, require)
        yield clip


def _decode_windows(
    source: FileSource, info: MediaInfo, times: list[float], num_frames: int, seconds: float
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


def _source(path) -> FileSource | DecoderSource:
    """Return the source of a file's frames and audio."""
    path = open_file(path)
    return DecoderSource(path) if is_decoder(path) else FileSource(path)


def _load(source: FileSource | DecoderSource, info: MediaInfo, timestamp, num_frames: int, seconds: float | None):
    """Return the clip, and whether both streams are as long as `info` states."""
    first, last, frame_time = info.start, info.end, None
    if callable(timestamp):
        timestamp, frame_time = timestamp(info)
    if seconds is None:
        seconds = max(info.span[1] - info.span[0], 1e-3)
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
