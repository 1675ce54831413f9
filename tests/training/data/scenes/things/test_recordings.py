"""Sounds of things."""

import av
import numpy as np
import pytest

from deepavfusion.training.data.scenes import ScenesConfig, ThingFolder
from deepavfusion.training.data.scenes.audio import NUM_SOURCE_UNIFORMS, gate, play
from deepavfusion.training.data.scenes.things import MAX_SECONDS, STEP, Recording, load_recordings
from tests.training.data.scenes.thing_factory import write_sound, write_things


@pytest.fixture
def folder(tmp_path):
    return write_things(tmp_path / "things", ["cat", "dog"])


def load(folder, rate=16000):
    return load_recordings(ThingFolder.read(folder), rate)


def recording(waveform):
    energy = np.cumsum((waveform.astype(np.float64) ** 2).reshape(-1, STEP).sum(1))
    return Recording(waveform.astype(np.float32), np.concatenate([[0.0], energy]))


def test_sounds_are_mono_at_the_rate_asked_for(folder):
    write_sound(folder / "cat.wav", frequency=500, seconds=0.4, rate=44100, channels=2)
    cat = load(folder)[0]
    assert len(cat.waveform) == pytest.approx(0.4 * 16000, abs=STEP)
    assert len(cat.waveform) % STEP == 0
    assert np.abs(np.fft.rfft(cat.waveform, 16000)).argmax() == 500
    assert cat.waveform[1000:5000].std() == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    assert abs(cat.waveform[0]) < 0.01


@pytest.mark.parametrize(("suffix", "codec", "form"), [("ogg", "libopus", "fltp"), ("flac", "flac", "s16")])
def test_other_formats(folder, suffix, codec, form):
    (folder / "cat.wav").unlink()
    with av.open(str(folder / f"cat.{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono", format=form)
        tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(24000) / 48000)
        tone = tone.astype(np.float32) if form == "fltp" else (tone * 2**15).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format=form, layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    assert np.abs(np.fft.rfft(load(folder)[0].waveform, 16000)).argmax() == pytest.approx(500, abs=2)


def test_long_sounds_are_cut(folder):
    write_sound(folder / "cat.wav", seconds=25)
    assert len(load(folder)[0].waveform) == MAX_SECONDS * 16000


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no sound", "cat.wav"), (b"", "cat.wav: expected a media file, but it is empty"), (None, "cat.wav.*silent")],
)
def test_faulty_sounds_are_named(folder, content, message):
    write_sound(folder / "cat.wav", level=0) if content is None else (folder / "cat.wav").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize("seconds", [0.2, 1.1, 9.0])
def test_windows_are_of_the_sound(seconds):
    """Short sounds are repeated, long ones are cut; onset and end are those of the source."""
    config = ScenesConfig(seconds=1.5)
    loop = np.random.default_rng(0).standard_normal(round(seconds * 16000))
    loop = recording(loop)
    starts = set()
    for u in np.random.default_rng(1).random((20, NUM_SOURCE_UNIFORMS)):
        wave = play(loop, u, config)
        assert wave.shape == (24000,)
        assert wave.dtype == np.float32
        onset, end = gate(u, config.seconds)
        first, last = round(onset * 16000), round(end * 16000)
        assert not wave[:first].any()
        assert not wave[last:].any()
        assert -12.1 < 20 * np.log10(wave[first:last].std() / 0.14) < 0.1
        # Between the fades it is the loop itself, from some start on.
        middle = wave[first + 1000 : first + 1200]
        periodic = np.concatenate([loop.waveform, loop.waveform[:200]])
        windows = np.lib.stride_tricks.sliding_window_view(periodic, 200)[:-1]
        match = (windows @ middle) / np.linalg.norm(windows, axis=1) / np.linalg.norm(middle)
        assert match.max() > 0.9999
        starts.add(int(match.argmax()))
        later = wave[first + 4000 : first + 4200]
        found = np.take(loop.waveform, np.arange(match.argmax() + 3000, match.argmax() + 3200), mode="wrap")
        assert np.corrcoef(found, later)[0, 1] > 0.9999
    assert len(starts) > 10


def test_no_window_is_silent():
    """A click in a long silence, at its very start, is in every window."""
    config, silence = ScenesConfig(seconds=1.0), np.zeros(10 * 16000)
    silence[:40] = 1
    click = recording(silence)
    for u in np.random.default_rng(1).random((50, NUM_SOURCE_UNIFORMS)):
        wave = play(click, u, config)
        assert np.isfinite(wave).all()
        assert wave.max() > 0.1
