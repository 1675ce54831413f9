"""A media file as the source of frames and audio, which are decoded with PyAV, whose wheel contains FFmpeg.

Decoding starts at the last key frame before the timestamp and stops after it, so that hours of video take no more
memory than seconds. Packets are decoded one by one, so that a damaged one does not discard the rest.
"""

from contextlib import contextmanager
from functools import cached_property

import numpy as np

from .audio_streams_deepavfusion import AudioDecoders, collect_audio, wrong_samples
from .containers_deepavfusion import MediaFile, failure_reason
from .image_files_deepavfusion import Animation, read_image_file
from .limits_deepavfusion import ReasonError
from .stills_deepavfusion import is_misfit
from .streams_deepavfusion import (
    MediaInfo,
    best_stream,
    decode,
    file_start,
    header_span,
    if_in_time,
    note_time,
    packet_spans,
    pick_frames,
    seek,
    set_limits,
    split_runs,
    steps_back,
    upright,
)

try:
    import av
except ImportError:
    av = None

# Seconds that audio decoders need before the first sample: AAC one packet, MP3's bit reservoir a few, Opus 80 ms.
_AUDIO_PREROLL = 0.25
# A video stream shorter than this many seconds is a still image, even if its number of frames is unknown.
_STILL = 0.1
# Seconds that an image file covers, as in FFmpeg.
_IMAGE_SPAN = (0.0, 0.04)
# Formats that begin or end with a whole index; those of others grow with what is read.
_INDEXED = {"mov", "mp4", "avi"}


class FileSource(MediaFile):
    """Frames and audio of a file, which is opened for each part that is read, or kept open.

    Args:
        path: Path, bytes, or a seekable binary file object.

    Raises:
        MediaError: If there is no such file, or it cannot be one of media; so do the methods, if it cannot be read.
        TypeError: If `path` has an unsupported type.
    """

    def __init__(self, path):
        super().__init__(path)
        self._decoders = AudioDecoders()

    @property
    def is_indexed(self) -> bool:
        """Whether the file, which is kept open, is a video in which seeking does not depend on what was read before."""
        if self._kept is None:
            return False
        formats, stream = self._kept.format.name.split(","), best_stream(self._kept, "video")
        if "avi" in formats and stream is not None:
            # Dropped frames have no packets, and after seeking the times are off by those that follow the key frame.
            return len(getattr(stream, "index_entries", None) or ()) == stream.frames
        return not _INDEXED.isdisjoint(formats)

    def probe(self, exact: bool = False) -> MediaInfo:
        """Read streams and their spans; with `exact`, from all packets (without decoding) instead of the headers."""
        if self.still is not None:
            return MediaInfo(_IMAGE_SPAN, None)
        if self.animation is not None:
            return MediaInfo(self.animation.span, None)
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

    @property
    def still(self) -> np.ndarray | None:
        """The image (H, W, 3) uint8, if the file is one."""
        return self._image if isinstance(self._image, np.ndarray) else None

    @property
    def animation(self) -> Animation | None:
        """The animation, if the file is one that PIL decodes."""
        return self._image if isinstance(self._image, Animation) else None

    @cached_property
    def _image(self) -> np.ndarray | Animation | None:
        """Decode an image file as all other ways in do, which FFmpeg would turn and convert in its own way."""
        if not self.is_image:
            return None
        with self.decodes("an image"):
            return read_image_file(self.name if self.file is None else self.file)

    @contextmanager
    def decodes(self, expected: str):
        """Convert errors of PIL inside to `MediaError`."""
        try:
            yield
        except ReasonError as error:
            raise self.error(expected, str(error)) from error
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, struct.error ...
            if is_misfit(error):
                raise
            raise self.error(expected, failure_reason(error)) from error

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
        if self.animation is not None:
            with self.decodes(f"images at {times[0]:.2f} s"):
                return np.stack([self.animation.frame(time) for time in times]), 0.0
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


__all__ = ["FileSource"]
