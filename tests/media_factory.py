"""Makes media files of every odd kind. A frame's gray level and a tone's pitch tell which moment they are of."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def gray_at(time: float) -> int:
    """Gray level of the frame shown from `time` on: ten steps a second, starting at 20."""
    return (20 + round(time * 10)) % 236


def tone(rate: int, seconds: float, frequency: float = 440.0, channels: int = 1, amplitude: float = 0.5) -> np.ndarray:
    """(channels, samples) float32."""
    time = np.arange(round(rate * seconds)) / rate
    return np.repeat(amplitude * np.sin(2 * np.pi * frequency * time)[None], channels, axis=0).astype(np.float32)


LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 6: "5.1", 8: "7.1"}


def write_media(
    target,
    *,
    seconds: float = 4.0,
    fps: float = 10,
    size: tuple[int, int] = (64, 48),
    codec: str | None = "libx264",
    pixel_format: str = "yuv420p",
    audio_codec: str | None = "aac",
    audio: np.ndarray | None = None,
    rate: int = 16000,
    sample_format: str | None = None,
    image_start: float = 0.0,
    audio_start: float = 0.0,
    frame_times: list[float] | None = None,
    container_format: str | None = None,
    video_options: dict | None = None,
    sample_aspect_ratio: Fraction | None = None,
    paint=None,
    metadata: dict | None = None,
):
    """Writes a file (or into a file object) and returns its path.

    Args:
        target: path or binary file object.
        size: (width, height).
        codec, audio_codec: encoders; None leaves the stream out.
        audio: (channels, samples) float32; a tone of `seconds` by default.
        image_start, audio_start: seconds by which a stream is late.
        frame_times: times of the frames where they are not evenly spaced.
        paint: function of a frame's time -> (H, W, 3) uint8; a flat gray that tells the time by default.
    """
    output = str(target) if isinstance(target, (str, Path)) else target
    with av.open(output, "w", format=container_format) as container:
        container.metadata.update(metadata or {})
        if codec is not None:
            video = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=video_options or {})
            video.width, video.height = size
            video.pix_fmt = pixel_format
            video.codec_context.time_base = Fraction(1, 12000)
            # Headers of bare streams hold a frame rate alone, and some encoders know nothing else.
            if container_format in ("h264", "hevc") or codec.startswith("mpeg") or codec in ("gif", "dvvideo"):
                video.codec_context.time_base = 1 / Fraction(fps).limit_denominator(1000)
            if sample_aspect_ratio is not None:
                video.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if audio_codec is not None:
            audio = tone(rate, seconds) if audio is None else audio
            sound = container.add_stream(audio_codec, rate=rate, layout=LAYOUTS[audio.shape[0]])
            if sample_format is not None:
                sound.codec_context.format = sample_format
        if codec is not None:
            times = frame_times if frame_times is not None else [i / fps for i in range(max(round(seconds * fps), 1))]
            for time in times:
                array = np.full((size[1], size[0], 3), gray_at(time), np.uint8) if paint is None else paint(time)
                frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pixel_format)
                frame.time_base = video.codec_context.time_base
                frame.pts = round((time + image_start) / frame.time_base)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio_codec is not None:
            packed = np.ascontiguousarray(audio.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=LAYOUTS[audio.shape[0]])
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(audio_start * rate)
            resampler = av.AudioResampler(
                format=sound.codec_context.format,
                layout=sound.codec_context.layout,
                rate=rate,
                frame_size=sound.codec_context.frame_size or 1024,
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return target


def media_bytes(**options) -> bytes:
    """The bytes of a file that `write_media` makes; `container_format` is needed."""
    buffer = io.BytesIO()
    write_media(buffer, **options)
    return buffer.getvalue()


def turn_mp4(path: Path, degrees: int) -> None:
    """Writes a display matrix into an mp4's video track header, as phones do: turn clockwise by 90, 180 or 270."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    write_display_matrix(path, cosine, sine, -sine, cosine)


def write_display_matrix(path: Path, a: float, b: float, c: float, d: float) -> None:
    """Writes a display matrix into an mp4's video track header.

    Args:
        path: of the file.
        a, b: columns and rows on the screen of a step to the right in the stored frame.
        c, d: those of a step down.
    """
    data = bytearray(path.read_bytes())
    values = [round(value * (1 << 16)) for value in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
    matrix = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    start = 0
    while (start := data.find(b"tkhd", start)) >= 0:
        version = data[start + 4]
        place = start + 4 + (52 if version == 1 else 40)  # after version, flags, times, ids and volume
        if int.from_bytes(data[place + 36 : place + 40], "big"):  # a width: the video's track
            data[place : place + 36] = matrix
        start += 4
    path.write_bytes(data)


def damage(path: Path, share: float = 0.5, length: int = 400) -> None:
    """Overwrites bytes in the middle of a file's media data."""
    data = bytearray(path.read_bytes())
    place = int(len(data) * share)
    data[place : place + length] = bytes((i * 37) % 256 for i in range(length))
    path.write_bytes(data)


def paint_gradients(time: float) -> np.ndarray:
    """(48, 64, 3) uint8: a frame with structure that changes with time."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack([rows * 5, columns * 3, (rows + columns + round(time * 40)) % 256], -1).astype(np.uint8)


def write_kinds(folder: Path, seconds: float, sound_seconds: float, silent_seconds: float, rate: int, picture: str):
    """clip.mov (lossless stereo noise), sound.wav without pictures, silent.mp4, text.mp4 (which is none), a picture."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, round(sound_seconds * rate))).astype(np.float32)
    lossless = {"audio_codec": "pcm_s16le", "audio": noise, "rate": rate}
    write_media(folder / "clip.mov", seconds=seconds, paint=paint_gradients, **lossless)
    write_media(folder / "sound.wav", codec=None, **lossless)
    write_media(folder / "silent.mp4", seconds=silent_seconds, audio_codec=None, paint=paint_gradients)
    (folder / "text.mp4").write_text("no video")
    Image.fromarray(paint_gradients(1.0)).save(folder / picture)
