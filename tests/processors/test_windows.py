"""Several windows of files that are shorter than their headers state, or whose times depend on where reading starts."""

from fractions import Fraction

import av
import numpy as np
import pytest

from deepavfusion import DeepAVFusionConfig, DeepAVFusionProcessor
from deepavfusion.processors import file_source_deepavfusion, probe_clip
from deepavfusion.processors.media_deepavfusion import MediaError, load_clip, load_clips, load_windows
from tests.media_factory import media_bytes

NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, (1, 12 * 48000)).astype(np.float32)
WEBM = {"container_format": "webm", "codec": "libvpx", "audio_codec": "libopus", "rate": 48000, "audio": NOISE}
# Frames that cannot be compressed, so that half of the bytes are about half of the time.
RANDOM = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def texture(time: float) -> np.ndarray:
    return np.roll(RANDOM, round(time * 10) * 7, axis=0)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Files of 12 s by format, of which the second half is missing."""
    folder, found = tmp_path_factory.mktemp("halves"), {}
    wholes = {
        "mkv": media_bytes(container_format="matroska", seconds=12, paint=texture, rate=48000, audio=NOISE),
        "webm": media_bytes(seconds=12, paint=texture, **WEBM),
    }
    whole = folder / "whole.mp4"
    whole.write_bytes(media_bytes(container_format="mp4", seconds=12, paint=texture, rate=48000, audio=NOISE))
    front = folder / "front.mp4"
    with av.open(str(whole)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as target:
        pairs = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = pairs[packet.stream_index]
                target.mux(packet)
    wholes["mp4"] = front.read_bytes()
    for name, data in wholes.items():
        found[name] = folder / f"half.{name}"
        found[name].write_bytes(data[: len(data) // 2])
    return found


@pytest.mark.parametrize("name", ["mkv", "webm", "mp4"])
@pytest.mark.parametrize(("num_clips", "num_frames"), [(1, 1), (3, 1), (6, 16)])
def test_windows_are_placed_in_what_is_there(halves, name, num_clips, num_frames):
    path = halves[name]
    stated = probe_clip(path).end
    assert stated == pytest.approx(12, abs=0.2), "not the file that this test needs"
    clips = list(load_clips(path, num_clips=num_clips, num_frames=num_frames, seconds=1.0))
    times = [clip.timestamp for clip in clips]
    assert len(times) == num_clips
    assert max(times) < 9
    if num_clips > 1:
        assert times[-1] > 3
        np.testing.assert_allclose(np.diff(times), (times[-1] - times[0]) / (num_clips - 1), atol=1e-6)
        assert times[0] == pytest.approx(0.5, abs=0.1)
    for clip in clips:
        alone = load_clip(path, clip.timestamp, num_frames, 1.0)
        assert np.array_equal(clip.frames, alone.frames)
        assert np.array_equal(clip.waveform, alone.waveform)


@pytest.mark.parametrize("name", ["mkv", "webm", "mp4"])
def test_the_processor_reads_them(halves, name):
    config = DeepAVFusionConfig(image_size=32, spectrogram_length=64)
    processor = DeepAVFusionProcessor.from_config(config)
    inputs = processor(videos=halves[name], num_clips=3)
    assert inputs.pixel_values.shape == (3, 3, 32, 32)
    assert len({tuple(view.flatten()[:99].tolist()) for view in inputs.pixel_values}) == 3
    # Beside audio of its own, the windows are those of the file, too.
    beside = processor(videos=halves[name], num_clips=3, audio=np.zeros(12 * 16000, np.float32), sampling_rate=16000)
    assert (beside.pixel_values == inputs.pixel_values).all()


@pytest.mark.parametrize("name", ["mkv", "webm", "mp4"])
def test_frames_of_whole_videos_are_spread_over_what_is_there(halves, name):
    processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(image_size=32, num_frames=12)).video_processor
    views = processor(halves[name]).pixel_values[0]
    assert len({tuple(view.flatten()[:99].tolist()) for view in views}) == 12, "the last frame is repeated"


def test_given_timestamps_stay(halves):
    path = halves["mkv"]
    with pytest.raises(MediaError, match="expected a timestamp within .*, but got 11.00 s"):
        list(load_clips(path, [1.0, 11.0]))
    assert [clip.timestamp for clip in load_windows(path, lambda info: [2.0, 1.0])] == [2.0, 1.0]


def test_packets_of_whole_files_are_not_read(monkeypatch):
    monkeypatch.setattr(file_source_deepavfusion, "packet_spans", lambda *_: pytest.fail("all packets were read"))
    for name in ("mp4", "matroska"):
        assert len(list(load_clips(media_bytes(container_format=name, seconds=6, audio=NOISE), num_clips=40))) == 40


def test_avi_with_dropped_frames(tmp_path):
    """Their times after seeking are others than those of decoding from the start: windows are read one by one."""
    path, thousandth = tmp_path / "variable.avi", Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = thousandth
        stream.gop_size = 12
        audio = container.add_stream("mp3", rate=44100, layout="mono")
        for i in range(250):
            gray = np.full((48, 64, 3), i, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i * 40, thousandth
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for start in range(0, 441000, 1152):
            sound = av.AudioFrame.from_ndarray(NOISE[:, start : start + 1152], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 44100, start
            container.mux(audio.encode(sound))
        container.mux(audio.encode())
    for seconds in (1.0, 3.0):
        for clip in load_clips(path, num_clips=5, num_frames=4, seconds=seconds):
            alone = load_clip(path, clip.timestamp, 4, seconds)
            assert np.array_equal(clip.frames, alone.frames)
            assert np.array_equal(clip.waveform, alone.waveform)
