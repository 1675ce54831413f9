"""A clip as members of a shard: frames as JPEG in a Motion-JPEG file, audio as FLAC, and back."""

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from PIL import Image

from deepavfusion.processors import MediaError, MediaInfo
from deepavfusion.processors.recordings_deepavfusion import Recording
from deepavfusion.processors.sample_streams_deepavfusion import ResamplingStream

_CLOCK = 90_000  # ticks a second in Motion-JPEG files


@dataclass(frozen=True)
class Encoding:
    """How clips are stored.

    Attributes:
        fps: Frames per second.
        short_side: Largest short side of the frames, in pixels; smaller frames keep their size.
        quality: Quality of the JPEG files, 1 to 95.
        sampling_rate: Sampling rate of the audio in Hz.
    """

    fps: float = 4.0
    short_side: int = 256
    quality: int = 90
    sampling_rate: int = 16_000


@dataclass
class EncodedClip:
    """Members of a clip, and what the index needs to find frames and samples in them.

    Attributes:
        video: Motion-JPEG file of all frames.
        audio: FLAC file.
        first_frame: Offset of the first JPEG file in `video`.
        frame_ends: Ends of the JPEG files, which follow each other, from `first_frame` on.
        frame_times: Time of each frame in the source, in seconds.
        image_span: (start, end) of the images in the source, in seconds; None of audio files.
        audio_span: (start, end) of the audio.
    """

    video: bytes
    audio: bytes
    first_frame: int
    frame_ends: list[int]
    frame_times: list[float]
    image_span: tuple[float, float] | None
    audio_span: tuple[float, float]


def encode_clip(path: str, encoding: Encoding, start: float | None = None, end: float | None = None) -> EncodedClip:
    """Decode a file once, and encode its frames and audio.

    Args:
        path: Media file with images and audio.
        encoding: How to store it.
        start: Start of the part to store, in seconds from the file's start; the file's by default.
        end: End of that part.

    Raises:
        MediaError: The file cannot be read, lacks a stream, or has nothing in the part.
    """
    recording = Recording(path)
    reader, info = recording.frames(), recording.info
    images = _cut(info.image_span, start, end)
    sounds = _cut(info.audio_span, start, end)
    if images is None or sounds is None:
        part = f"{0.0 if start is None else start:.2f} s to {'the end' if end is None else f'{end:.2f} s'}"
        raise MediaError(f"{path}: expected images and audio from {part}, but the file has none there.")
    count = max(1, int((images[1] - images[0]) * encoding.fps + 1e-6))
    times = [images[0] + k / encoding.fps for k in range(count)]
    with closing(reader):
        frames = [encode_frame(reader.at(time), encoding) for time in times]
    video, first, ends = pack_images(frames, times)
    audio, span = encode_audio(path, recording, encoding, sounds)
    return EncodedClip(video, audio, first, ends, times, images, span)


def encode_audio(
    path: str, recording: Recording, encoding: Encoding, span: tuple[float, float]
) -> tuple[bytes, tuple[float, float]]:
    """Encode the audio of a recording in `span`; returns a FLAC file, and its (start, end) in seconds.

    Raises:
        MediaError: It cannot be decoded.
    """
    parts = list(_resampled(recording, encoding.sampling_rate, span))
    if not sum(len(part) for part in parts):
        raise MediaError(f"{path}: expected audio, but the audio stream cannot be decoded.")
    audio, samples = _flac(parts, encoding.sampling_rate)
    return audio, (span[0], span[0] + samples / encoding.sampling_rate)


def _cut(span: tuple[float, float] | None, start: float | None, end: float | None) -> tuple[float, float] | None:
    if span is None:
        return None
    low, high = max(span[0], start or 0.0), span[1] if end is None else min(span[1], end)
    return (low, high) if high > low else None


def encode_frame(frame: np.ndarray, encoding: Encoding) -> bytes:
    """Encode a frame (H, W, 3) uint8 as a JPEG file, reduced to the short side of the encoding."""
    image = Image.fromarray(frame)
    scale = encoding.short_side / min(image.size)
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, format="jpeg", quality=encoding.quality)
    return file.getvalue()


def pack_images(images: list[bytes], times: list[float], codec: str = "mjpeg") -> tuple[bytes, int, list[int]]:
    """Pack JPEG or PNG files into one video file, in which they follow each other.

    Args:
        images: Contents of the files.
        times: Their ascending times in seconds.
        codec: `"mjpeg"` or `"png"`.

    Returns:
        The QuickTime file, the offset of the first image in it, and where each ends, from that offset on.
    """
    import av

    file = io.BytesIO()
    width, height = Image.open(io.BytesIO(images[0])).size
    with av.open(file, "w", format="mov", options={"fflags": "+bitexact"}) as container:
        stream = container.add_mux_stream(codec, width=width, height=height, time_base=Fraction(1, _CLOCK))
        ticks = [round(time * _CLOCK) for time in times]
        for image, tick, following in zip(
            images, ticks, [*ticks[1:], 2 * ticks[-1] - (ticks[-2:] + [0])[0]], strict=True
        ):
            packet = av.Packet(image)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, _CLOCK), True
            packet.pts = packet.dts = tick - ticks[0]
            packet.duration = max(following - tick, 1)
            container.mux(packet)
    content = file.getvalue()
    first = content.index(images[0])
    if content[first : first + sum(map(len, images))] != b"".join(images):
        raise RuntimeError("Expected the images of a video file to follow each other.")
    return content, first, np.cumsum([len(image) for image in images]).tolist()


def _resampled(recording: Recording, rate: int, span: tuple[float, float]) -> Iterator[np.ndarray]:
    """Parts (n,) float32 of the mono audio of a span, at a sampling rate."""
    stream = None
    position = 0  # of the next sample of `rate`, from the start of the recording's audio
    first, last = (round((time - recording.start) * rate) for time in span)

    def cut(chunks: Iterator[torch.Tensor]) -> Iterator[np.ndarray]:
        nonlocal position
        for chunk in chunks:
            low, high = max(first - position, 0), min(last - position, chunk.shape[-1])
            position += chunk.shape[-1]
            if high > low:
                yield chunk[low:high].numpy()

    with closing(recording.audio()) as blocks:
        for own_rate, samples in blocks:
            stream = stream or ResamplingStream(own_rate, rate)
            yield from cut(stream.push(torch.from_numpy(samples.mean(0))))
            if position >= last:
                return
    if stream is not None:
        yield from cut(stream.finish())


def _flac(parts: list[np.ndarray], rate: int) -> tuple[bytes, int]:
    """The file, and its number of samples."""
    import av

    file, samples = io.BytesIO(), 0
    with av.open(file, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=rate, layout="mono")
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for part in parts:
            values = (part * 32768).round().clip(-32768, 32767).astype(np.int16)
            for begin in range(0, len(values), 4096):
                block = av.AudioFrame.from_ndarray(values[None, begin : begin + 4096], format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = rate, samples, Fraction(1, rate)
                samples += block.samples
                container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return file.getvalue(), samples


def decode_flac(file, start: float, seconds: float) -> np.ndarray:
    """Decode a part of a file that `encode_clip` has written.

    Args:
        file: Seekable binary file, mono.
        start: Start of the part in seconds; a part that begins before the file is cut.
        seconds: Length of the part.

    Returns:
        (1, samples) float32, shorter than `seconds` where the file ends.
    """
    import av

    with av.open(file, mode="r", format="flac") as container:
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        first, last = round(start * rate), round((start + seconds) * rate)
        if start > 2 * seconds:
            container.seek(round((start - 1) * av.time_base))
        parts = []
        for packet in container.demux(stream):
            for frame in packet.decode():
                place = frame.pts
                if place + frame.samples > first and place < last:
                    samples = frame.to_ndarray()[0]
                    parts.append(samples[max(first - place, 0) : last - place])
            if packet.pts is not None and packet.pts >= last:
                break
    return (np.concatenate(parts).astype(np.float32) / 32768 if parts else np.zeros(0, np.float32))[None]


def clip_info(row: dict) -> MediaInfo:
    """Streams and spans of a stored clip, in the source's seconds."""
    images = None if row["image_start"] is None else (row["image_start"], row["image_end"])
    return MediaInfo(images, (row["audio_start"], row["audio_end"]))


def nearest_frames(row: dict, times: list[float]) -> list[tuple[int, int]]:
    """Offset and size, from the first frame on, of the stored frames closest to `times`."""
    at = np.asarray(row["frame_times"])
    bounds = [0, *row["frame_ends"]]
    spans = [(low, high - low) for low, high in pairwise(bounds)]
    return [spans[int(np.abs(at - time).argmin())] for time in times]


__all__ = [
    "EncodedClip",
    "Encoding",
    "clip_info",
    "decode_flac",
    "encode_audio",
    "encode_clip",
    "encode_frame",
    "nearest_frames",
    "pack_images",
]
