"""Frames of stored clips: image files one after the other in a QuickTime file, or H.264 with frequent key frames."""

import io
import zlib
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from deepavfusion.inference.films.encoding import reduced
from deepavfusion.processors.recordings_deepavfusion import FrameReader

_CLOCK = 90_000  # ticks a second in QuickTime files
_MAX_RATE = 30  # frames a second of H.264
_KEY_FRAMES = 16  # frames from one key frame of H.264 to the next
_H264 = {"preset": "veryfast", "crf": "20", "x264-params": "scenecut=0", "threads": "1"}
_PIECE = 1 << 20  # bytes that are read back at a time


class VideoPlaces(NamedTuple):
    """Where frames lie in a file.

    Attributes:
        offset: Offset of the first image file, in bytes; 0 of H.264.
        ends: Ends of the image files, which follow each other, from `offset` on; of H.264, of the whole file.
        times: Times of the image files in the source, in seconds; of H.264, of its first frame.
    """

    offset: int
    ends: list[int]
    times: list[float]


def write_jpegs(file: BinaryIO, reader: FrameReader, span: tuple[float, float], encoding: Any) -> VideoPlaces:
    """Write `fps` frames a second as a Motion-JPEG file, in memory that does not depend on its length.

    Args:
        file: Seekable binary file to write to and read from.
        reader: Frames of the source.
        span: (start, end) of the part to write, in seconds of the source.
        encoding: The `Encoding`.
    """
    count = max(1, int((span[1] - span[0]) * encoding.fps + 1e-6))
    times = [span[0] + k / encoding.fps for k in range(count)]
    return write_images(file, (encode_frame(reader.at(time), encoding) for time in times), times)


def write_images(file: BinaryIO, images: Iterable[bytes], times: list[float], codec: str = "mjpeg") -> VideoPlaces:
    """Write JPEG or PNG files as a QuickTime file, in which they follow each other; see `write_jpegs`.

    Args:
        file: Seekable binary file to write to and read from.
        images: The files.
        times: Their ascending times in seconds.
        codec: `"mjpeg"` or `"png"`.
    """
    import av

    images = iter(images)
    first = next(images)
    width, height = Image.open(io.BytesIO(first)).size
    ends, digest = [], 0
    ticks = [round((time - times[0]) * _CLOCK) for time in times]
    durations = [after - before for before, after in zip(ticks, ticks[1:], strict=False)]
    durations.append(durations[-1] if durations else 1)
    with av.open(file, "w", format="mov", options={"fflags": "+bitexact"}) as container:
        stream = container.add_mux_stream(codec, width=width, height=height, time_base=Fraction(1, _CLOCK))
        for image, tick, duration in zip(chain([first], images), ticks, durations, strict=True):
            ends.append((ends[-1] if ends else 0) + len(image))
            digest = zlib.crc32(image, digest)
            packet = av.Packet(image)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, _CLOCK), True
            packet.pts = packet.dts = tick
            packet.duration = max(duration, 1)
            container.mux(packet)
    file.seek(0)
    offset = file.read(len(first) + 4096).index(first)
    if _digest(file, offset, ends[-1]) != digest:
        raise RuntimeError("Expected the images of a QuickTime file to follow each other.")
    return VideoPlaces(offset, ends, times)


def _digest(file: BinaryIO, offset: int, size: int) -> int:
    found, end = 0, offset + size
    for place in range(offset, end, _PIECE):
        file.seek(place)
        found = zlib.crc32(file.read(min(_PIECE, end - place)), found)
    return found


def encode_frame(frame: np.ndarray, encoding: Any) -> bytes:
    """Encode a frame (H, W, 3) uint8 as a JPEG file, reduced to the short side of the `Encoding`."""
    file = io.BytesIO()
    reduced(frame, encoding.short_side).save(file, format="jpeg", quality=encoding.quality)
    return file.getvalue()


def write_h264(file: BinaryIO, reader: FrameReader, span: tuple[float, float], encoding: Any) -> VideoPlaces:
    """Write frames as H.264 in an MP4 file, as many a second as the source has, up to 30; see `write_jpegs`."""
    import av

    first = reduced(reader.at(span[0]), encoding.short_side, even=True)
    rate = min(reader.rate, Fraction(_MAX_RATE)).limit_denominator(1001) or Fraction(1)
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=_H264)
        stream.width, stream.height, stream.pix_fmt = *first.size, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = _KEY_FRAMES, 0
        stream.codec_context.time_base, stream.codec_context.thread_count = 1 / rate, 1
        for k in range(max(1, int((span[1] - span[0]) * rate + 1e-6))):
            # The frame in the middle of the time for which it is shown, so that rounded times do not repeat another.
            image = reduced(reader.at(span[0] + float((k + Fraction(1, 2)) / rate)), encoding.short_side, even=True)
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return VideoPlaces(0, [file.seek(0, 2)], [span[0]])


class VideoFormat(NamedTuple):
    """How frames are stored: the suffix of their members, and the function that writes them."""

    suffix: str
    write: Callable[[BinaryIO, FrameReader, tuple[float, float], Any], VideoPlaces]


VIDEO_FORMATS = {"jpeg": VideoFormat("mov", write_jpegs), "h264": VideoFormat("mp4", write_h264)}

__all__ = [
    "VIDEO_FORMATS",
    "VideoFormat",
    "VideoPlaces",
    "encode_frame",
    "write_h264",
    "write_images",
    "write_jpegs",
]
