"""A clip as members of a shard: its frames in one file, its audio in another."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from os import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

import numpy as np
import torch

from deepavfusion.processors import MediaError, MediaInfo
from deepavfusion.processors.recordings_deepavfusion import Recording
from deepavfusion.processors.sample_streams_deepavfusion import ResamplingStream

from .audio import AUDIO_FORMATS, AudioPlaces
from .video import VIDEO_FORMATS, VideoPlaces

ARRAYS = {
    "frame_ends": "<i8",
    "frame_times": "<f8",
    "audio_ends": "<i8",
    "mask_ends": "<i8",
}  # columns of the index with many numbers
_IN_MEMORY = 16 << 20  # bytes of a member that are kept in memory; longer ones are written to a temporary file


@dataclass(frozen=True)
class Encoding:
    """How clips are stored.

    Attributes:
        fps: Frames per second, of JPEG files; H.264 has as many as the source, up to 30.
        short_side: Largest short side of the frames, in pixels; smaller frames keep their size.
        quality: Quality of the JPEG files, 1 to 95.
        sampling_rate: Sampling rate of the audio in Hz.
        audio: `"flac"`, or `"pcm"`, which takes more space and no decoding.
        video: `"jpeg"`, or `"h264"`: a video with a key frame every 16 frames.
    """

    fps: float = 4.0
    short_side: int = 256
    quality: int = 90
    sampling_rate: int = 16_000
    audio: str = "flac"
    video: str = "jpeg"


@dataclass
class EncodedClip:
    """Members of a clip, and what the index needs to find frames and samples in them.

    Attributes:
        video: File of the frames.
        audio: File of the audio.
        video_places: Where the frames lie in it.
        audio_places: Where the samples lie in it.
        image_span: (start, end) of the images in the source, in seconds; None of audio files.
        audio_span: (start, end) of the audio.
        video_suffix: Suffix of the file of the frames.
        fractions: Fractions of the images and of the audio of the part to store that are encoded.
    """

    video: BinaryIO
    audio: BinaryIO
    video_places: VideoPlaces
    audio_places: AudioPlaces
    image_span: tuple[float, float] | None
    audio_span: tuple[float, float]
    video_suffix: str
    fractions: tuple[float, float] = (1.0, 1.0)

    @property
    def size(self) -> int:
        """Size of both files in bytes; where a fraction is encoded, that of all, in proportion."""
        files = zip((self.video, self.audio), self.fractions, strict=True)
        return round(sum(file.seek(0, SEEK_END) / fraction for file, fraction in files))

    def close(self) -> None:
        """Close the files, which are temporary."""
        self.video.close()
        self.audio.close()


def encode_clip(
    path: str,
    encoding: Encoding,
    start: float | None = None,
    end: float | None = None,
    folder: str | None = None,
    seconds: float = math.inf,
) -> EncodedClip:
    """Decode a file once, and encode its frames and audio, in memory that does not depend on its length.

    Args:
        path: Media file with images and audio.
        encoding: How to store it.
        start: Start of the part to store, in seconds from the file's start; the file's by default.
        end: End of that part.
        folder: Folder for what is too large for memory; by default, that of temporary files.
        seconds: Largest length of what is encoded of that part, for an estimate.

    Raises:
        MediaError: The file cannot be read, lacks a stream, or has nothing in the part.
    """
    recording = Recording(path)
    reader, info = recording.frames(advice=""), recording.info
    images = _cut(info.image_span, start, end)
    sounds = _cut(info.audio_span, start, end)
    if images is None or sounds is None:
        part = f"{0.0 if start is None else start:.2f} s to {'the end' if end is None else f'{end:.2f} s'}"
        raise MediaError(f"{path}: expected images and audio from {part}, but the file has none there.")
    spans, stop = (images, sounds), min(images[0], sounds[0]) + seconds
    # Of what begins later, the first instant alone.
    images, sounds = ((low, min(high, max(stop, low + 0.1))) for low, high in spans)
    fractions = (_length(images) / _length(spans[0]), _length(sounds) / _length(spans[1]))
    video, written = temporary_file(folder), VIDEO_FORMATS[encoding.video]
    with closing(reader):
        video_places = written.write(video, reader, images, encoding)
    audio, audio_places, span = encode_audio(path, recording, encoding, sounds, folder)
    return EncodedClip(video, audio, video_places, audio_places, images, span, written.suffix, fractions)


def _length(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def temporary_file(folder: str | None) -> BinaryIO:
    """A file in memory; what is too large for that, in a folder, by default that of temporary files."""
    return SpooledTemporaryFile(_IN_MEMORY, dir=folder)


def encode_audio(
    path: str, recording: Recording, encoding: Encoding, span: tuple[float, float], folder: str | None = None
) -> tuple[BinaryIO, AudioPlaces, tuple[float, float]]:
    """Encode the audio of a recording in `span`; returns a file, its places, and its (start, end) in seconds.

    Raises:
        MediaError: It cannot be decoded.
    """
    audio, parts = temporary_file(folder), _resampled(recording, encoding.sampling_rate, span)
    places = AUDIO_FORMATS[encoding.audio].write(audio, parts, encoding.sampling_rate)
    if not places.samples:
        raise MediaError(f"{path}: expected audio, but the audio stream cannot be decoded.")
    return audio, places, (span[0], span[0] + places.samples / encoding.sampling_rate)


def _cut(span: tuple[float, float] | None, start: float | None, end: float | None) -> tuple[float, float] | None:
    if span is None:
        return None
    low, high = max(span[0], start or 0.0), span[1] if end is None else min(span[1], end)
    return (low, high) if high > low else None


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


def clip_info(row: dict) -> MediaInfo:
    """Streams and spans of a stored clip, in the source's seconds."""
    images = None if row["image_start"] is None else (row["image_start"], row["image_end"])
    return MediaInfo(images, (row["audio_start"], row["audio_end"]))


def row_array(row: dict, name: str) -> np.ndarray:
    """The numbers (n,) of a column of `ARRAYS`."""
    return np.frombuffer(row[name], ARRAYS[name])


def nearest_frames(row: dict, times: list[float]) -> list[tuple[int, int]]:
    """Offset and size, from the first frame on, of the stored frames closest to `times`."""
    at, ends = row_array(row, "frame_times"), row_array(row, "frame_ends")
    chosen = [int(np.abs(at - time).argmin()) for time in times]
    begins = [int(ends[k - 1]) if k else 0 for k in chosen]
    return [(begin, int(ends[k]) - begin) for k, begin in zip(chosen, begins, strict=True)]


__all__ = [
    "ARRAYS",
    "EncodedClip",
    "Encoding",
    "clip_info",
    "encode_audio",
    "encode_clip",
    "nearest_frames",
    "row_array",
    "temporary_file",
]
