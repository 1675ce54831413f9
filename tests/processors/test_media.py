"""`load_clip` on files of many kinds, all of which are generated here."""

import io
import os
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import av.stream
import numpy as np
import pytest
from PIL import Image

from deepavfusion.processors import file_source_deepavfusion
from deepavfusion.processors.media_deepavfusion import (
    MediaError,
    dense_timestamps,
    load_clip,
    load_clips,
    load_windows,
    probe_clip,
)
from tests.isolated import run_python
from tests.media_factory import damage, gray_at, media_bytes, tone, turn_mp4, write_media
from tests.warm import warm_python

SHARED = Path(__file__).parents[3] / "shared" / "media"


def level(frames) -> float:
    """Return the mean gray level of the first frame."""
    return float(frames[0].mean())


def pitch(waveform, rate) -> float:
    """Return the loudest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(waveform[0] * np.hanning(waveform.shape[1])))
    return float(np.argmax(spectrum) * rate / waveform.shape[1])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("media") / "plain.mp4", seconds=6, fps=10)


def test_default_timestamp_is_the_middle(plain):
    clip = load_clip(plain)
    frames, waveform, rate = clip
    assert frames.shape == (1, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert waveform.shape == (1, 48000)
    assert waveform.dtype == np.float32
    assert rate == 16000
    assert clip.timestamp == pytest.approx(3.0, abs=0.1)
    assert level(frames) == pytest.approx(gray_at(clip.timestamp), abs=2)
    assert pitch(waveform, rate) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("timestamp", [0.0, 0.45, 2.31, 5.85])
def test_timestamp(plain, timestamp):
    clip = load_clip(plain, timestamp)
    assert level(clip.frames) == pytest.approx(gray_at(np.floor(timestamp * 10 + 1e-6) / 10), abs=2)
    assert clip.waveform.shape == (1, 48000), "the window is shifted to lie inside the file"


def test_frames_are_spread_over_the_window(plain):
    clip = load_clip(plain, 3.0, num_frames=6)
    expected = [gray_at(np.floor((1.5 + 0.5 * (i + 0.5)) * 10 + 1e-6) / 10) for i in range(6)]
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), expected, atol=2)


def test_audio_is_around_the_timestamp(tmp_path):
    """The pitch of the tone changes every second."""
    rate = 16000
    audio = np.concatenate([tone(rate, 1, 300 + 200 * second) for second in range(6)], axis=1)
    path = write_media(tmp_path / "steps.mp4", seconds=6, audio=audio)
    clip = load_clip(path, 3.5)  # 2 s to 5 s
    for second in range(3):
        part = clip.waveform[:, second * rate + 1600 : (second + 1) * rate - 1600]
        assert pitch(part, rate) == pytest.approx(300 + 200 * (second + 2), abs=3)


CODECS = {
    "h264 all intra": ("a.mp4", {"video_options": {"g": "1"}}),
    "h264 one key frame": ("a.mp4", {"video_options": {"g": "10000", "sc_threshold": "0"}}),
    "h264 10 bit": ("a.mp4", {"pixel_format": "yuv420p10le"}),
    "h264 4:4:4": ("a.mkv", {"pixel_format": "yuv444p"}),
    "hevc": ("a.mp4", {"codec": "libx265", "video_options": {"x265-params": "log-level=none"}}),
    "av1": ("a.mp4", {"codec": "libsvtav1", "size": (64, 64), "video_options": {"preset": "12"}}),
    "vp8": ("a.webm", {"codec": "libvpx", "audio_codec": "libopus", "rate": 48000}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "audio_codec": "libopus", "rate": 48000}),
    "vp9 alpha": (
        "a.webm",
        {"codec": "libvpx-vp9", "pixel_format": "yuva420p", "audio_codec": "libopus", "rate": 48000},
    ),
    "mpeg-1": ("a.mpg", {"codec": "mpeg1video", "fps": 25, "audio_codec": "mp2", "rate": 44100}),
    "mpeg-2 transport stream": ("a.ts", {"codec": "mpeg2video", "fps": 25, "audio_codec": "mp2", "rate": 44100}),
    "mpeg-4 in avi": ("a.avi", {"codec": "mpeg4", "audio_codec": "libmp3lame", "rate": 44100}),
    "gray": ("a.mkv", {"codec": "ffv1", "pixel_format": "gray", "audio_codec": "flac"}),
    "alpha": ("a.mov", {"codec": "png", "pixel_format": "rgba", "audio_codec": "pcm_s16le"}),
    "motion jpeg": ("a.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p", "audio_codec": "pcm_s16le"}),
    "prores": ("a.mov", {"codec": "prores_ks", "pixel_format": "yuv422p10le", "audio_codec": "pcm_s16le"}),
    "1 frame per second": ("a.mp4", {"fps": 1}),
    "120 frames per second": ("a.mp4", {"fps": 120}),
    "2 x 2 pixels": ("a.mkv", {"codec": "ffv1", "pixel_format": "bgr0", "size": (2, 2)}),
    "16 x 1024 pixels": ("a.mp4", {"size": (16, 1024)}),
    "8 channels": ("a.mkv", {"audio": tone(48000, 4, channels=8), "rate": 48000, "audio_codec": "flac"}),
    "6 channels": ("a.mp4", {"audio": tone(48000, 4, channels=6), "rate": 48000}),
    "8 kHz, unsigned 8 bit": ("a.avi", {"codec": "mpeg4", "audio_codec": "pcm_u8", "rate": 8000}),
    "96 kHz": ("a.mkv", {"audio_codec": "flac", "rate": 96000}),
    "ac-3": ("a.mkv", {"audio_codec": "ac3", "rate": 48000}),
}


@pytest.mark.parametrize("name", CODECS)
def test_codecs_and_formats(tmp_path, name):
    file_name, options = CODECS[name]
    path = write_media(tmp_path / file_name, **{"seconds": 4.0, **options})
    clip = load_clip(path, 2.55)
    width, height = options.get("size", (64, 48))
    assert clip.frames.shape == (1, height, width, 3)
    shown = np.floor(2.55 * options.get("fps", 10) + 1e-6) / options.get("fps", 10)
    assert level(clip.frames) == pytest.approx(gray_at(shown), abs=4)
    rate = options.get("rate", 16000)
    assert clip.sampling_rate == rate
    channels = options["audio"].shape[0] if "audio" in options else 1
    assert clip.waveform.shape[0] == channels
    assert clip.waveform.shape[1] == pytest.approx(3 * rate, abs=0.1 * rate)
    assert pitch(clip.waveform, rate) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path, degrees):
    def paint(time):
        image = np.zeros((48, 64, 3), np.uint8)
        image[:24, :32] = 255  # bright at the top left
        return image

    path = write_media(tmp_path / "phone.mp4", seconds=1, paint=paint)
    turn_mp4(path, degrees)
    frame = load_clip(path).frames[0].astype(float)
    assert frame.shape == ((48, 64, 3) if degrees == 180 else (64, 48, 3))
    quarters = {
        (row, column): frame[row * frame.shape[0] // 2 :][: frame.shape[0] // 2, column * frame.shape[1] // 2 :][
            :, : frame.shape[1] // 2
        ].mean()
        for row in (0, 1)
        for column in (0, 1)
    }
    assert max(quarters, key=quarters.get) == {90: (0, 1), 180: (1, 1), 270: (1, 0)}[degrees]


def test_pixels_become_square(tmp_path):
    path = write_media(tmp_path / "anamorphic.mp4", seconds=1, sample_aspect_ratio=Fraction(3, 2))
    assert load_clip(path).frames.shape == (1, 48, 96, 3)
    path = write_media(tmp_path / "narrow.mp4", seconds=1, sample_aspect_ratio=Fraction(1, 2))
    assert load_clip(path).frames.shape == (1, 96, 64, 3)


def test_the_container_overrides_the_aspect_ratio(tmp_path):
    """VP9 does not store the aspect ratio of its pixels, but the mp4 does."""
    path = write_media(
        tmp_path / "wide.mp4", codec="libvpx-vp9", audio_codec=None, seconds=1, sample_aspect_ratio=Fraction(2)
    )
    with av.open(str(path)) as container:
        assert not container.streams.video[0].codec_context.sample_aspect_ratio, "not the file that this test needs"
    assert load_clip(path).frames.shape == (1, 48, 128, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_headers_without_duration(tmp_path, suffix):
    """Containers that are written to pipes have no duration in their headers."""
    options = {"codec": "libvpx", "audio_codec": "libopus", "rate": 48000} if suffix == ".webm" else {}

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, part):
            self.data += bytes(part)
            return len(part)

    pipe = Pipe()
    if suffix == ".mp4":
        with av.open(pipe, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in range(40):
                array = np.full((48, 64, 3), gray_at(index / 10), np.uint8)
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    else:
        write_media(pipe, seconds=4, container_format={".mkv": "matroska", ".webm": "webm"}[suffix], **options)
    path = tmp_path / f"live{suffix}"
    path.write_bytes(bytes(pipe.data))
    clip = load_clip(path)
    assert clip.timestamp == pytest.approx(2.0, abs=0.2)
    assert level(clip.frames) == pytest.approx(gray_at(clip.timestamp), abs=3)


def test_streams_that_start_late(tmp_path):
    path = write_media(tmp_path / "late.mkv", seconds=4, image_start=2.0, audio_codec="flac")
    info = probe_clip(path)
    assert info.image_span == pytest.approx((2.0, 6.0), abs=0.15)
    assert info.audio_span == pytest.approx((0.0, 4.0), abs=0.15)
    clip = load_clip(path)
    assert clip.timestamp == pytest.approx(3.0, abs=0.15), "the middle of what both cover"
    assert level(clip.frames) == pytest.approx(gray_at(clip.timestamp - 2), abs=3)
    early = load_clip(path, 0.5)
    assert level(early.frames) == pytest.approx(gray_at(0), abs=2), "the first frame is shown before it starts"


def test_stream_times_that_do_not_start_at_zero(tmp_path):
    path = write_media(tmp_path / "offset.ts", codec="mpeg2video", fps=25, audio_codec="mp2", rate=44100, seconds=4)
    clip = load_clip(path, 1.0)
    assert level(clip.frames) == pytest.approx(gray_at(1.0), abs=3)


def test_variable_frame_rate(tmp_path):
    times = [0.0, 0.1, 1.5, 1.6, 3.9]
    path = write_media(tmp_path / "variable.mkv", frame_times=times, seconds=4)
    for timestamp, shown in ((0.05, 0.0), (1.45, 0.1), (1.55, 1.5), (3.5, 1.6), (3.95, 3.9)):
        assert level(load_clip(path, timestamp).frames) == pytest.approx(gray_at(shown), abs=2)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
@pytest.mark.parametrize("fps", [1, 10])
def test_a_still_image_is_shown_until_the_audio_ends(tmp_path, suffix, fps):
    """Whatever duration the header states for a single frame."""
    options = {"codec": "mpeg2video", "audio_codec": "mp2", "rate": 44100} if suffix == ".ts" else {"rate": 16000}
    if suffix == ".ts":
        fps = 25  # the lowest rate of MPEG-2 is 24
    path = write_media(tmp_path / f"still{suffix}", frame_times=[0.0], fps=fps, seconds=12.0, **options)
    clip = load_clip(path, num_frames=4)
    assert clip.timestamp == pytest.approx(6.0, abs=0.2), "the middle of the audio"
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), gray_at(0), atol=3)
    assert clip.waveform.shape[1] == pytest.approx(3 * options["rate"], abs=10)


def test_slides_are_not_read_as_damage(tmp_path, monkeypatch):
    """For frames that are seconds apart, decoding the next one is enough, without reading all packets."""
    path = write_media(tmp_path / "slides.mkv", frame_times=[0.0, 9.0, 18.0, 27.0], seconds=30, audio_codec="flac")
    monkeypatch.setattr(file_source_deepavfusion, "packet_spans", lambda *_: pytest.fail("all packets were read"))
    for timestamp, shown in ((5.0, 0.0), (13.0, 9.0), (20.0, 18.0)):
        assert level(load_clip(path, timestamp).frames) == pytest.approx(gray_at(shown), abs=2)


def test_timestamps_beyond_an_estimated_duration(tmp_path):
    """FFmpeg estimates the duration of an mp3 without an index from the bit rate of its first frames."""
    rate = 44100
    rng = np.random.default_rng(0)
    loud = rng.standard_normal((1, rate * 10), dtype=np.float32) * 0.2
    audio = np.concatenate([loud, tone(rate, 20, 700)], axis=1)
    path = tmp_path / "vbr.mp3"
    with av.open(str(path), "w", options={"write_xing": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout="mono")
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 5 * 118  # FFmpeg's lambda: variable bit rate
        frame = av.AudioFrame.from_ndarray(audio, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate, frame_size=1152)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    assert probe_clip(path).end < 28, "not the file that this test needs"
    clip = load_clip(path, 29.0)
    assert clip.waveform.shape == (1, 3 * rate)
    assert pitch(clip.waveform, rate) == pytest.approx(700, abs=2)
    with pytest.raises(MediaError, match=r"expected a timestamp within 0\.00 to 30\.0\d s, but got 31\.00 s"):
        load_clip(path, 31.0)


FORK = """
import gc, os, sys, time
import av
from deepavfusion.processors.streams_deepavfusion import upright

gc.disable()
with av.open(sys.argv[1]) as container:
    frames = list(container.decode(video=0))[:2]
upright(frames, 1.5)
if sys.argv[2] == "others":  # convert frames in threads of their own
    frames.pop(0).to_ndarray(format="rgb24")
frames.append(frames)  # garbage that only a collection frees
del frames
process = os.fork()
if process == 0:
    gc.collect()
    with av.open(sys.argv[1]) as container:
        upright(list(container.decode(video=0))[:2], 1.5)
    os._exit(0)
for _ in range(200):
    ended, status = os.waitpid(process, os.WNOHANG)
    if ended:
        print("ended", status)
        break
    time.sleep(0.05)
else:
    os.kill(process, 9)
    print("hangs")
"""


@pytest.mark.parametrize("before", ["nothing", "others"])
def test_a_forked_process_can_free_and_convert_frames(tmp_path, before):
    write_media(tmp_path / "clip.mp4", seconds=1.0, size=(480, 640))
    assert run_python(FORK, tmp_path / "clip.mp4", before, home=tmp_path / "home").strip() == "ended 0"


def test_an_image_has_no_timestamps(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(path)
    assert load_clip(path).is_still
    with pytest.raises(
        MediaError, match=r"photo\.png: expected no timestamp, because a still image has no time, but got 1"
    ):
        load_clip(path, 1.0)


def test_cover_art_is_not_a_video(tmp_path):
    path = tmp_path / "song.mp3"
    write_media(path, codec=None, audio_codec="libmp3lame", rate=44100)
    with av.open(str(path)) as source, av.open(str(tmp_path / "cover.mp3"), "w") as target:
        audio = target.add_stream_from_template(source.streams.audio[0])
        cover = target.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        array = np.full((48, 64, 3), 99, np.uint8)
        target.mux(cover.encode(av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuvj420p")))
        target.mux(cover.encode(None))
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = audio
                target.mux(packet)
    with av.open(str(tmp_path / "cover.mp3")) as container:
        assert len(container.streams.video) == 1, "not the file that this test needs"
    clip = load_clip(tmp_path / "cover.mp3")
    assert clip.frames is None
    assert pitch(clip.waveform, clip.sampling_rate) == pytest.approx(440, abs=2)


def test_missing_streams(tmp_path):
    silent = write_media(tmp_path / "silent.mp4", audio_codec=None)
    audio = write_media(tmp_path / "audio.wav", codec=None, audio_codec="pcm_s16le")
    assert load_clip(silent).waveform is None
    assert load_clip(silent, require="image").frames is not None
    assert load_clip(audio).frames is None
    with pytest.raises(MediaError, match=r"silent\.mp4: expected images and audio .*, but it has no audio"):
        load_clip(silent, require="both")
    with pytest.raises(MediaError, match=r"audio\.wav: expected images .*, but it has no images"):
        load_clip(audio, require="image")


def test_damage_leaves_the_rest_intact(tmp_path):
    path = write_media(
        tmp_path / "damaged.mkv", seconds=8, audio_codec="flac", video_options={"g": "5"}, size=(160, 120)
    )
    whole = load_clip(path, 6.5)
    damage(path, share=0.3)
    clip = load_clip(path, 6.5)
    assert level(clip.frames) == pytest.approx(level(whole.frames), abs=2)
    assert clip.waveform.shape == whole.waveform.shape


def test_truncated_files(tmp_path):
    path = write_media(tmp_path / "cut.mkv", seconds=8, audio_codec="flac")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    clip = load_clip(path)
    assert clip.frames is not None
    assert clip.waveform is not None
    assert clip.timestamp < 3.5, "the middle of the packets, not of the header's duration"


def test_silent_and_loud_samples(tmp_path):
    zeros = np.zeros((1, 64000), np.float32)
    silence = write_media(tmp_path / "silence.wav", codec=None, audio=zeros, audio_codec="pcm_u8")
    assert np.abs(load_clip(silence).waveform).max() < 0.01
    loud = write_media(tmp_path / "loud.wav", codec=None, audio=tone(16000, 4) * 4, audio_codec="pcm_f32le")
    assert load_clip(loud).waveform.max() == pytest.approx(2.0, abs=0.01), "samples beyond 1 are kept"


def test_short_files_are_returned_as_a_whole(tmp_path):
    path = write_media(tmp_path / "short.wav", codec=None, audio=tone(16000, 0.7), audio_codec="pcm_s16le")
    assert load_clip(path).waveform.shape == (1, 11200)


def test_tags_that_are_not_utf8(tmp_path):
    path = write_media(tmp_path / "tags.avi", codec="mpeg4", audio_codec="pcm_s16le", metadata={"title": "XXXXXXXX"})
    data = path.read_bytes()
    assert b"XXXXXXXX" in data
    path.write_bytes(data.replace(b"XXXXXXXX", b"\xff\xfe\xe9\xff\xff\xe8\xff\xff"))
    assert load_clip(path).frames is not None


def test_timestamps_outside_the_file_raise(plain):
    for timestamp in (-1.0, 99.0, float("nan")):
        with pytest.raises(MediaError, match=r"plain\.mp4: expected a timestamp within 0\.00 to 6\.0"):
            load_clip(plain, timestamp)


def test_several_streams(tmp_path):
    """The largest stream is used, not the first."""
    path = tmp_path / "several.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for width, value in ((32, 50), (128, 150)):
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
            streams.append((stream, np.full((48, width, 3), value, np.uint8)))
        for _ in range(20):
            for stream, array in streams:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        for stream, _ in streams:
            container.mux(stream.encode(None))
    frames = load_clip(path).frames
    assert frames.shape[2] == 128
    assert level(frames) == pytest.approx(150, abs=2)


def test_dense_timestamps():
    assert dense_timestamps(0.0, 10.0, 3, 3.0) == [1.5, 5.0, 8.5]
    assert dense_timestamps(0.0, 10.0, 1, 3.0) == [5.0]
    assert dense_timestamps(0.0, 2.0, 3, 3.0) == [1.0, 1.0, 1.0]


MEASURE = """
import resource, sys
from deepavfusion.processors.media_deepavfusion import load_clip
load_clip(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clip = load_clip(sys.argv[2], 3000.0, num_frames=4)
assert clip.waveform.shape[1] == 24000, clip.waveform.shape
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_independent_of_the_duration(tmp_path, plain):
    """Decoded, an hour takes 115 MB of audio alone, and 0.2 MB per frame."""
    rng = np.random.default_rng(0)
    hour = rng.standard_normal((1, 8000 * 3600), dtype=np.float32) * 0.1
    path = write_media(
        tmp_path / "hour.mkv",
        seconds=3600,
        fps=1,
        size=(320, 180),
        audio=hour,
        audio_codec="pcm_s16le",
        rate=8000,
        video_options={"preset": "ultrafast", "g": "20"},
    )
    assert os.path.getsize(path) > 50e6
    output = subprocess.run(
        [warm_python(), "-c", MEASURE, str(plain), str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert int(output) < 40_000, f"{output} kB more than a short file"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder of real clips is not beside the project")
def test_real_clips():
    suffixes = (".mp4", ".webm", ".avi", ".mkv", ".mpg")
    paths = sorted(path for path in SHARED.rglob("*") if path.suffix in suffixes)
    assert len(paths) > 20
    for path in paths:
        clip = load_clip(path, require="both")
        assert clip.frames.shape[1] >= 100, path
        assert np.isfinite(clip.waveform).all(), path
        assert clip.waveform.shape[1] / clip.sampling_rate > 2.9, path


def test_bytes_of_a_streaming_format():
    clip = load_clip(media_bytes(container_format="matroska", audio_codec="flac"))
    assert level(clip.frames) == pytest.approx(gray_at(clip.timestamp), abs=3)


def test_a_file_that_is_no_media_file_or_was_cut_off_is_called_so(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"hello, this is no video" * 20)
    with pytest.raises(MediaError, match="expected images or audio, but it is damaged, cut off, or no media file"):
        load_clip(path)


NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, (1, 5 * 16000)).astype(np.float32)


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened."""
    names, open_media = [], av.open

    def count(target, *arguments, **options):
        names.append(target)
        return open_media(target, *arguments, **options)

    monkeypatch.setattr("deepavfusion.processors.containers_deepavfusion.av.open", count)
    return names


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.waveform, other.waveform)
        assert (one.sampling_rate, one.timestamp, one.path) == (other.sampling_rate, other.timestamp, other.path)


@pytest.mark.parametrize(
    ("name", "options", "opens"),
    [
        # Noise: decoders of AAC make it up, and go on with it where an earlier window has ended.
        ("a.mp4", {"audio": NOISE, "video_options": {"g": "10"}}, 1),
        ("one_key_frame.mp4", {"audio": NOISE, "video_options": {"g": "999"}}, 1),
        ("late.mp4", {"audio_start": 1.3, "image_start": 0.4}, 1),
        ("opus.mp4", {"audio_codec": "libopus", "audio": NOISE[:, ::2], "rate": 8000}, 1),
        # The file is opened again for each window: its decoder cannot be made anew, or where seeking arrives depends on
        # what was read before.
        ("adpcm.avi", {"audio_codec": "adpcm_ms", "audio": NOISE}, 20),
        ("opus.mkv", {"audio_codec": "libopus", "audio": NOISE[:, ::2], "rate": 8000}, 20),
    ],
)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_several_windows_are_those_that_are_decoded_one_by_one(tmp_path, opened, name, options, opens, num_frames):
    file = write_media(tmp_path / name, seconds=5.0, **options)
    times = dense_timestamps(*probe_clip(file).span, 6, 1.0)
    expected = [load_clip(file, time, num_frames, 1.0) for time in times]
    opened.clear()
    assert_same(list(load_clips(file, num_clips=6, num_frames=num_frames, seconds=1.0)), expected)
    assert len(opened) <= opens
    mixed = [times[4], times[0], times[0]]
    assert_same(list(load_clips(file, mixed, num_frames=num_frames, seconds=1.0)), [expected[4], *expected[:1] * 2])


def test_many_frames_are_decoded_in_parts(tmp_path, opened):
    file = write_media(tmp_path / "a.mp4", seconds=5.0, audio=NOISE)
    expected = [load_clip(file, time, 16, 1.0) for time in dense_timestamps(*probe_clip(file).span, 5, 1.0)]
    opened.clear()
    assert_same(list(load_clips(file, num_clips=5, num_frames=16, seconds=1.0)), expected)
    assert len(opened) == 3


def test_windows_that_lack_something_are_read_as_ever(tmp_path):
    silent = write_media(tmp_path / "silent.mp4", audio_codec=None)
    assert [clip.waveform for clip in load_windows(silent, lambda info: [1.0, 2.0])] == [None, None]
    with pytest.raises(MediaError, match=r"silent.mp4: expected images and audio around 1.00 s, but it has no audio"):
        list(load_windows(silent, lambda info: [1.0, 2.0], require="both"))
    with pytest.raises(MediaError, match=r"a timestamp within 0.00 to 4.00 s, but got 9.00 s"):
        list(load_windows(silent, lambda info: [1.0, 9.0]))
    whole = write_media(tmp_path / "whole.mp4", seconds=5.0, audio=NOISE)
    cut = tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        pairs = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and packet.pts * packet.time_base < 2.5:
                packet.stream = pairs[packet.stream_index]
                target.mux(packet)
    data = bytearray(cut.read_bytes())
    cut.write_bytes(data[: len(data) * 2 // 3])
    times = [0.6, 1.2, 1.8]
    assert_same(list(load_clips(cut, times, seconds=1.0)), [load_clip(cut, time, 1, 1.0) for time in times])
