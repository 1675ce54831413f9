"""MP4 files with H.264 and AAC, which browsers play: written frame by frame, and joined from parts without a loss."""

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from ..files import writing

SHORT_SIDE = 360  # pixels of the short side of films, at most
_ENCODERS = ("libx264", "libopenh264")  # of FFmpeg, for H.264
_KEY_SECONDS = 2  # from one key frame to the next
_BLOCK = 1024  # samples that are encoded at a time
_LAYOUTS = {1: "mono", 2: "stereo"}
_FALLBACK_RATE = 48000  # Hz, of audio with a sampling rate that AAC does not have


class EncoderError(ValueError):
    """Raised where PyAV has no encoder for H.264."""


def video_encoder() -> str:
    """Name of the encoder for H.264.

    Raises:
        EncoderError: If PyAV has none.
    """
    found = next((name for name in _ENCODERS if name in av.codecs_available), None)
    if found is None:
        names = ", ".join(_ENCODERS)
        raise EncoderError(f"films need PyAV with one of the encoders {names}, which it lacks: pass --no-film")
    return found


def film_rate(rate: Fraction) -> Fraction:
    """Frames per second of the film of a video: those of the video, between 10 and 30."""
    return min(max(rate, Fraction(10)), Fraction(30)).limit_denominator(1001)


def reduced(frame: np.ndarray, short_side: int, even: bool = False) -> Image.Image:
    """A frame whose short side is at most `short_side` pixels; with `even`, its sides are even."""
    image = Image.fromarray(frame)
    scale, unit = min(1.0, short_side / min(image.size)), 2 if even else 1
    size = tuple(max(unit, round(side * scale / unit) * unit) for side in image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


class FilmWriter:
    """Writes frames, and audio if there is any, to an MP4 file. Use it as a context manager.

    Args:
        path: File to write, whatever its name.
        rate: Frames per second.
        sampling_rate: Sampling rate of the audio in Hz; None for a film without audio.
        channels: Channels of the audio, 1 or 2.
        quality: Constant rate factor of H.264; less is better.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        rate: Fraction,
        sampling_rate: int | None = None,
        channels: int = 1,
        quality: int = 23,
    ):
        self.rate, self.frames = rate, 0
        encoder = video_encoder()
        self._container = av.open(os.fspath(path), "w", format="mp4", options={"movflags": "+faststart"})
        # One thread, so that the same frames give the same file.
        options = {"threads": "1"}
        if encoder == "libx264":
            options |= {"preset": "veryfast", "crf": str(quality), "x264-params": "colormatrix=smpte170m"}
        self._video = self._container.add_stream(encoder, rate=rate, options=options)
        self._video.pix_fmt, self._converter = "yuv420p", VideoReformatter()
        context = self._video.codec_context
        context.gop_size, context.max_b_frames, context.time_base = round(_KEY_SECONDS * rate), 0, 1 / rate
        self._audio = None if sampling_rate is None else AudioEncoder(self._container, sampling_rate, channels)

    def __enter__(self) -> "FilmWriter":
        """Return the writer itself."""
        return self

    def __exit__(self, kind, *_: object) -> None:
        """Write what remains, unless an error was raised, and close the file."""
        if kind is None:
            self._container.mux(self._video.encode(None))
            if self._audio is not None:
                self._audio.finish()
        self._container.close()

    def add(self, frame: np.ndarray) -> None:
        """Add the next frame (H, W, 3) uint8, all of one size; a last row and column is doubled where it is odd."""
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self.frames:
            self._video.height, self._video.width = frame.shape[:2]
        video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        # In one thread, as in decoding (`upright`): others would not survive a fork.
        video_frame = self._converter.reformat(video_frame, format=self._video.pix_fmt, threads=1)
        video_frame.pts, video_frame.time_base, video_frame.duration = self.frames, 1 / self.rate, 1
        self._container.mux(self._video.encode(video_frame))
        self.frames += 1

    def add_audio(self, samples: np.ndarray) -> None:
        """Add the samples (channels, n) float32 that follow."""
        if self._audio is None:
            raise ValueError("Expected a sampling rate of the film for audio, got none.")
        self._audio.add(samples)


class AudioEncoder:
    """Encodes audio as AAC into an open MP4 file.

    Args:
        container: The file.
        rate: Sampling rate in Hz.
        channels: 1 or 2.
        start: Time of the first sample in seconds.
        bits: Bits a second of each channel.
    """

    BITS = 64_000  # a second, of each channel

    def __init__(self, container, rate: int, channels: int, start: float = 0.0, bits: int = BITS):
        self._container, self.rate, self._layout = container, rate, _LAYOUTS[channels]
        known = rate in (av.codec.Codec("aac", "w").audio_rates or ())
        self._stream = container.add_stream("aac", rate=rate if known else _FALLBACK_RATE, layout=self._layout)
        self._stream.bit_rate = bits * channels
        self._resampler = av.AudioResampler("fltp", self._layout, self._stream.rate, frame_size=_BLOCK)
        self._place = max(round(start * rate), 0)

    @property
    def seconds(self) -> float:
        """Time of the next sample."""
        return self._place / self.rate

    def add(self, samples: np.ndarray) -> None:
        """Add samples (channels, n) float32; those beyond full scale are clipped."""
        if not samples.shape[1]:
            return
        clipped = np.ascontiguousarray(np.clip(samples, -1, 1), dtype=np.float32)
        block = av.AudioFrame.from_ndarray(clipped, format="fltp", layout=self._layout)
        block.sample_rate, block.pts, block.time_base = self.rate, self._place, Fraction(1, self.rate)
        self._place += samples.shape[1]
        self._encode(block)

    def finish(self) -> None:
        """Encode what remains."""
        self._encode(None)
        self._container.mux(self._stream.encode(None))

    def _encode(self, block) -> None:
        for part in self._resampler.resample(block):
            self._container.mux(self._stream.encode(part))


def compressed_audio(waveform: np.ndarray, rate: int, bits: int = 48_000) -> bytes:
    """Encode a waveform (N,) float32 as AAC in an MP4 file, which browsers play; see `AudioEncoder`."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        encoder = AudioEncoder(container, rate, channels=1, bits=bits)
        encoder.add(waveform[None])
        encoder.finish()
    return file.getvalue()


def few_channels(parts: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of audio, (Hz, (channels, n) float32), of which more than two channels are averaged, as for the models."""
    for rate, samples in parts:
        yield rate, samples if len(samples) <= 2 else samples.mean(0, keepdims=True)


def join(
    target: Path,
    parts: Sequence[Path],
    rate: Fraction,
    counts: Sequence[int],
    audio: Iterable[tuple[int, np.ndarray]] | None = None,
    start: float = 0.0,
    advance: Callable[[float], object] = lambda seconds: None,
) -> None:
    """Join films that follow each other, without encoding their frames again, and add audio.

    Nothing of the length of the film is held in memory. The target appears once it is whole.

    Args:
        target: File to write.
        parts: Films of one encoder, size and rate, as of `FilmWriter`, without audio.
        rate: Their frames per second.
        counts: Number of frames of each.
        audio: Sampling rate in Hz and samples (channels, n) float32, 1 or 2 channels, part by part; None for none.
        start: Time of the first sample in seconds.
        advance: Called with the seconds of the film that have been written since the last call.
    """
    options = {"movflags": "+faststart"}
    with writing(target) as draft, av.open(draft.name, "w", format="mp4", options=options) as container:
        _mux(container, parts, rate, counts, audio, start, advance)


def _mux(container, parts, rate, counts, audio, start, advance) -> None:
    first = None if audio is None else next(audio := iter(audio), None)
    with av.open(os.fspath(parts[0])) as source:
        video = container.add_stream_from_template(source.streams.video[0])
    encoder = None
    if first is not None:
        encoder, audio = AudioEncoder(container, first[0], len(first[1]), start), chain([first], audio)
    place = 0
    for part, count in zip(parts, counts, strict=True):
        with av.open(os.fspath(part)) as source:
            for packet in source.demux(source.streams.video[0]):
                if not packet.size:
                    continue
                offset = Fraction(place) / rate / packet.time_base
                packet.pts, packet.dts = packet.pts + int(offset), packet.dts + int(offset)
                packet.stream = video
                container.mux(packet)
        place += count
        _add_until(encoder, audio, float(place / rate))
        advance(float(count / rate))
    if encoder is not None:
        _add_until(encoder, audio, math.inf)
        encoder.finish()


def _add_until(encoder: AudioEncoder | None, audio, seconds: float) -> None:
    """Encode the audio up to a time, so that the file's streams stay beside each other."""
    while encoder is not None and encoder.seconds < seconds:
        part = next(audio, None)
        if part is None:
            return
        encoder.add(part[1])


__all__ = [
    "SHORT_SIDE",
    "AudioEncoder",
    "EncoderError",
    "FilmWriter",
    "compressed_audio",
    "few_channels",
    "film_rate",
    "join",
    "reduced",
    "video_encoder",
]
