"""How much is decoded to reach a timestamp, and streams without timestamps."""

import io
from contextlib import nullcontext
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from deepavfusion.processors import containers_deepavfusion, file_source_deepavfusion
from deepavfusion.processors.media_deepavfusion import MediaError, load_clip, probe_clip
from tests.media_factory import gray_at, media_bytes, tone


@pytest.fixture
def decoded(monkeypatch):
    """Count decoded frames by kind of stream."""
    counts = {"video": 0, "audio": 0}
    original = file_source_deepavfusion.decode

    def counting(container, stream, decoder=None):
        for frame in original(container, stream, decoder):
            counts[stream.type] += 1
            yield frame

    monkeypatch.setattr(file_source_deepavfusion, "decode", counting)
    return counts


# Seeking in the first two arrives after the target.
FORMATS = {
    "transport stream": {"container_format": "mpegts", "codec": "mpeg2video", "audio_codec": "mp2"},
    "avi": {"container_format": "avi", "codec": "mpeg4", "audio_codec": "libmp3lame"},
    "program stream": {"container_format": "mpeg", "codec": "mpeg1video", "audio_codec": "mp2"},
    "matroska": {"container_format": "matroska", "codec": "libx264", "audio_codec": "flac"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_late_timestamps_are_reached_by_seeking(decoded, name):
    """In 20 s at 25 frames per second, whose gray level grows by 10 per second."""
    data = media_bytes(seconds=20, fps=25, rate=44100, video_options={"g": "12"}, **FORMATS[name])
    clip = load_clip(data, 18.0)
    assert clip.frames.mean() == pytest.approx(gray_at(18.0), abs=4)
    assert clip.waveform.shape[1] == pytest.approx(3 * 44100, abs=4410)
    assert decoded["video"] < 100, "the file has 500 frames"
    # Seeking in a program stream is off by seconds, in the others by packets.
    assert decoded["audio"] < (600 if name == "program stream" else 160), "the file has about 770 audio packets"


MP4 = {"container_format": "mp4"}


@pytest.mark.parametrize("name", ["mp4", *FORMATS])
@pytest.mark.parametrize("num_frames", [1, 4])
def test_a_file_is_opened_once_and_gives_what_it_gives_if_opened_anew(monkeypatch, name, num_frames):
    data = media_bytes(seconds=6, fps=25, rate=44100, video_options={"g": "12"}, **({"mp4": MP4} | FORMATS)[name])
    opened, original = [], containers_deepavfusion.av.open
    monkeypatch.setattr(
        containers_deepavfusion.av, "open", lambda *args, **options: opened.append(1) or original(*args, **options)
    )
    kept = [load_clip(data, time, num_frames) for time in (None, 0.4, 4.2)]
    if name in ("mp4", "matroska"):  # other formats have to be read again from earlier places
        assert len(opened) == 3
    monkeypatch.setattr(file_source_deepavfusion.FileSource, "kept_open", lambda self: nullcontext())
    for clip, expected in zip(kept, [load_clip(data, time, num_frames) for time in (None, 0.4, 4.2)], strict=True):
        assert np.array_equal(clip.frames, expected.frames)
        assert np.array_equal(clip.waveform, expected.waveform)


@pytest.mark.parametrize("threads", [1, 3])
def test_video_is_decoded_in_as_many_threads_as_torch_has(monkeypatch, threads):
    contexts, original = [], file_source_deepavfusion.set_limits
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(
        file_source_deepavfusion, "set_limits", lambda stream: original(stream) or contexts.append(stream.codec_context)
    )
    load_clip(media_bytes(**MP4))
    assert [context.thread_count for context in contexts] == [threads]


def test_timestamps_before_the_first_frame_decode_few_frames(decoded):
    data = media_bytes(container_format="matroska", seconds=8, image_start=4.0, audio=tone(16000, 12))
    clip = load_clip(data, 1.0)
    assert clip.frames.mean() == pytest.approx(gray_at(0), abs=2)
    assert decoded["video"] <= 4


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("timestamp", [None, 1.0, 2.0])
def test_raw_streams_without_timestamps(codec, timestamp):
    """Frames follow each other at the frame rate of the stream's header."""
    options = {"video_options": {"x265-params": "log-level=none"}} if codec == "libx265" else {}
    data = media_bytes(
        container_format={"libx264": "h264", "libx265": "hevc"}[codec],
        codec=codec,
        audio_codec=None,
        seconds=4,
        fps=10,
        **options,
    )
    assert probe_clip(data).image_span == pytest.approx((0.0, 4.0), abs=0.11)
    clip = load_clip(data, timestamp, num_frames=2, seconds=1.0)
    middle = 2.0 if timestamp is None else timestamp
    expected = [gray_at(middle - 0.25), gray_at(middle + 0.25)]
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), expected, atol=2.5)


def test_raw_streams_without_durations():
    """Without a frame rate in the stream, 25 frames per second are assumed, of spans and frames alike."""
    buffer, thousandth = io.BytesIO(), Fraction(1, 1000)
    with av.open(buffer, "w", "h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = thousandth
        for i in range(50):
            gray = np.full((48, 64, 3), 20 + 4 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i * 40, thousandth
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = buffer.getvalue()
    with av.open(io.BytesIO(data)) as container:
        assert not any(packet.duration for packet in container.demux()), "not the file that this test needs"
    assert probe_clip(data).image_span == pytest.approx((0.0, 2.0))
    for timestamp, shown in ((None, 25), (0.0, 0), (1.5, 37), (1.99, 49)):
        assert load_clip(data, timestamp).frames.mean() == pytest.approx(20 + 4 * shown, abs=2)
    with pytest.raises(MediaError, match="a timestamp within 0.00 to 2.00 s"):
        load_clip(data, 3.0)


def test_clip_unpacks_to_frames_waveform_and_rate():
    frames, waveform, rate = load_clip(media_bytes(container_format="matroska", audio_codec="flac", seconds=1))
    assert frames.shape == (1, 48, 64, 3)
    assert waveform.shape == (1, 16000)
    assert rate == 16000


def test_closed_file_objects_raise():
    file = io.BytesIO(media_bytes(container_format="matroska", seconds=1))
    file.close()
    with pytest.raises(MediaError, match="it is closed"):
        load_clip(file)


@pytest.mark.parametrize("content", [b"ffconcat version 1.0\nfile list.mp4\n", b"#EXTM3U\n#EXTINF:3,\nlist.mp4\n"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_playlists_raise(tmp_path, content, as_bytes):
    """Such as one that includes itself."""
    path = tmp_path / "list.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match="it is a playlist"):
        load_clip(content if as_bytes else path)


def test_damaged_files_load_or_raise_media_error():
    """Files with random bytes at random positions."""
    random = np.random.default_rng(0)
    files = [
        media_bytes(container_format=kind, codec="mpeg4", seconds=2, audio_codec=audio_codec, rate=44100)
        for kind, audio_codec in (("matroska", "flac"), ("mpegts", "mp2"), ("avi", "libmp3lame"), ("mp4", "aac"))
    ]
    loaded = raised = 0
    for trial in range(120):
        data = bytearray(files[trial % len(files)])
        places = random.integers(0, len(data) if trial % 3 else 600, random.integers(1, 30))
        data[:] = data[: random.integers(1, len(data))] if trial % 5 == 0 else data
        for place in places[places < len(data)]:
            data[place] = random.integers(256)
        try:
            clip = load_clip(bytes(data), num_frames=1 + trial % 3)
        except MediaError:
            raised += 1
        else:
            loaded += 1
            assert clip.frames is not None or np.isfinite(clip.waveform).all()
    assert loaded > 20
    assert raised > 5
