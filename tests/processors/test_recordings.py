"""Recordings that are decoded once, from start to end."""

import gc
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from deepavfusion.processors import audio_streams_deepavfusion as audio_streams
from deepavfusion.processors import recordings_deepavfusion as recordings
from deepavfusion.processors.media_deepavfusion import MediaError, load_clip
from deepavfusion.processors.recordings_deepavfusion import Recording, pair_frames
from tests.media_factory import damage, gray_at, tone, write_display_matrix, write_media


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Ten seconds whose gray level grows by 10 per second, with late audio."""
    return write_media(
        tmp_path_factory.mktemp("recordings") / "clip.mp4", seconds=10, fps=10, rate=22050, audio_start=0.5
    )


def samples(path):
    rates, parts = zip(*Recording(path).audio(), strict=True)
    return rates[0], list(parts)


def test_audio_is_that_of_a_whole_clip(file):
    rate, parts = samples(file)
    clip = load_clip(file, seconds=100)
    assert rate == clip.sampling_rate == 22050
    assert len(parts) > 5
    assert all(part.shape[1] < 1.2 * rate for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), clip.waveform)


@pytest.mark.parametrize("codec", ["mp4", "avi", "mp3", "flac", "wav"])
def test_audio_of_other_formats(tmp_path, codec):
    audio_codec = {"mp3": "libmp3lame", "avi": "libmp3lame", "flac": "flac", "wav": "pcm_s16le"}
    picture = None if codec in ("mp3", "flac", "wav") else "mpeg4"
    path = write_media(
        tmp_path / f"clip.{codec}",
        seconds=3,
        codec=picture,
        audio_codec=audio_codec.get(codec, "aac"),
        audio=tone(44100, 3, channels=2),
        rate=44100,
    )
    np.testing.assert_array_equal(
        np.concatenate(samples(path)[1], axis=1), load_clip(path, seconds=100, require="audio").waveform
    )


def test_damaged_packets_are_skipped(tmp_path):
    path = write_media(tmp_path / "clip.mp4", seconds=4)
    damage(path)
    found = np.concatenate(samples(path)[1], axis=1)
    assert np.isfinite(found).all()
    assert abs(found.shape[1] / 16000 - 4) < 0.5


def frame(time, length=100, rate=1000):
    audio = av.AudioFrame.from_ndarray(np.full((1, length), time, np.float32), format="flt", layout="mono")
    audio.sample_rate, audio.time_base = rate, 1 / Fraction(rate)
    audio.pts = round(time * rate)
    return audio


def test_gaps_are_silent_and_overlaps_dropped():
    found = [part for _, part in audio_streams.follow_audio([frame(0.5), frame(2.0), frame(2.05), frame(2.4)], 0, 10)]
    assert all(part.shape[1] <= 2100 for part in found)
    joined = np.concatenate(found, axis=1)[0]
    expected = np.zeros(2000)
    expected[:100], expected[1500:1600], expected[1600:1650], expected[1900:] = 0.5, 2.0, 2.05, 2.4
    np.testing.assert_allclose(joined, expected)


def test_a_wrong_timestamp_does_not_ask_for_days_of_silence():
    found = [part for _, part in audio_streams.follow_audio([frame(0.0), frame(1e6), frame(1e6 + 0.1)], 0, 3)]
    assert np.concatenate(found, axis=1).shape == (1, 3000 + 200)


@pytest.mark.parametrize("first", [0.0, 6.3])
def test_frames_are_decoded_once(file, first, monkeypatch):
    decoded, original = [], recordings.decode

    def counting(container, stream):
        for image in original(container, stream):
            decoded.append(image.time)
            yield image

    monkeypatch.setattr(recordings, "decode", counting)
    reader = Recording(file).frames()
    for time in [first, first, *np.arange(first + 0.1, 10, 0.37)]:
        found = reader.at(time)
        assert found.shape == (48, 64, 3)
        np.testing.assert_array_equal(found, load_clip(file, time).frames[0])
        assert abs(float(found.mean()) - gray_at(np.floor(time * 10 + 1e-6) / 10)) < 2
    np.testing.assert_array_equal(reader.at(99.0), load_clip(file, 9.95).frames[0])
    assert len(decoded) == len(set(decoded)) <= 100


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    silent = write_media(tmp_path / "silent.mp4", seconds=1, audio_codec=None)
    with pytest.raises(MediaError, match=r"silent\.mp4: expected audio, but it has none, only images"):
        Recording(silent)
    sound = write_media(tmp_path / "sound.wav", codec=None, seconds=1, audio_codec="pcm_s16le")
    with pytest.raises(MediaError, match=r"sound\.wav: expected images, but it has audio only: pass images"):
        Recording(sound).frames()
    with pytest.raises(MediaError, match=r"it has audio only\.$"):
        Recording(sound).frames(advice="")
    monkeypatch.setattr(recordings, "decode", lambda *_: iter(()))
    with pytest.raises(MediaError, match=r"sound\.wav: expected audio, but its audio cannot be decoded"):
        list(Recording(sound).audio())
    both = Recording(write_media(tmp_path / "clip.mp4", seconds=1))
    with pytest.raises(MediaError, match=r"clip\.mp4: expected images, but its images cannot be decoded"):
        both.frames().at(0.5)


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("hop", [0.4, 1.0, 3.0])
def test_frames_of_overlapping_windows_are_read_in_order(count, hop):
    read = []
    windows = [(SimpleNamespace(n=n), [n * hop + i / count for i in range(count)]) for n in range(7)]
    windows.append((SimpleNamespace(n=7), [time + 0.1 for time in windows[-1][1]]))
    waiting, given = 0, 0

    def arriving():
        nonlocal given
        for window in windows:
            given += 1
            yield window

    for number, (item, found) in enumerate(pair_frames(arriving(), lambda time: read.append(time) or time)):
        assert item is windows[number][0]
        assert found == windows[number][1]
        waiting = max(waiting, given - number)
    assert number == 7
    assert read == sorted(read)
    assert waiting <= 2 + 1 / hop


@pytest.mark.parametrize("turned", [False, True])
def test_decoded_frames_are_freed_at_once(tmp_path, turned):
    """Without waiting for the garbage collector, which a few hundred megabytes of frames do not call."""

    def decoded():
        return sum(type(item) is av.VideoFrame for item in gc.get_objects())

    path = write_media(tmp_path / "clip.mp4", seconds=4)
    if turned:
        write_display_matrix(path, 0, 1, -1, 0)
    gc.collect()
    before = decoded()
    gc.disable()
    try:
        reader = Recording(path).frames()
        for time in np.arange(0, 4, 0.1):
            reader.at(time)
        held = decoded() - before  # the frame that is shown, the next one, and those that the decoder returned with it
        for clip in range(5):
            load_clip(path, timestamp=clip / 2 + 1, num_frames=8)
        assert held <= 6
        assert decoded() - before <= 6
    finally:
        gc.enable()
