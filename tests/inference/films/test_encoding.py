"""Films decode to the frames and the audio that were written, and play in browsers."""

from fractions import Fraction

import av
import numpy as np
import pytest

from deepavfusion.inference.films import encoding
from deepavfusion.inference.films.encoding import EncoderError, FilmWriter, few_channels, film_rate, join, reduced
from tests.media_factory import tone


def gray(level, height=48, width=64):
    return np.full((height, width, 3), level, np.uint8)


def streams(path):
    with av.open(str(path)) as container:
        return {stream.type: stream.codec_context.name for stream in container.streams}


def decode(path, kind):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray()) for frame in container.decode(**{kind: 0})]


def test_parts_are_joined_without_a_gap(tmp_path):
    rate, counts = Fraction(30000, 1001), [20, 20, 7]
    parts = [tmp_path / f"{k}.mp4" for k in range(3)]
    for k, (path, count) in enumerate(zip(parts, counts, strict=True)):
        with FilmWriter(path, rate) as film:
            for i in range(count):
                film.add(gray(20 + 4 * (20 * k + i), 47, 65))
    audio = ((44100, tone(44100, 0.5)) for _ in range(2))
    written = []
    join(tmp_path / "film.mp4", parts, rate, counts, audio, start=0.5, advance=written.append)
    assert sum(written) == pytest.approx(47 / rate)
    frames = decode(tmp_path / "film.mp4", "video")
    assert [time for time, _ in frames] == pytest.approx([k / rate for k in range(47)], abs=1e-4)
    with av.open(str(tmp_path / "film.mp4")) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (66, 48)  # even, as H.264 needs it
        assert video.codec_context.pix_fmt == "yuv420p"
        levels = [int(frame.to_ndarray(format="rgb24")[20, 20, 0]) for frame in container.decode(video=0)]
    assert np.abs(np.array(levels) - (20 + 4 * np.arange(47))).max() <= 3
    sound = decode(tmp_path / "film.mp4", "audio")
    start, waveform = sound[0][0], np.concatenate([samples[0] for _, samples in sound])
    begin = round((0.6 - start) * 44100)
    spectrum = np.abs(np.fft.rfft(waveform[begin : begin + 22050]))
    assert spectrum.argmax() == 220  # 440 Hz, in steps of 2 Hz
    assert np.abs(waveform[: round((0.5 - start) * 44100) - 200]).max(initial=0) < 0.05  # silent until its start
    content = (tmp_path / "film.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is loaded


def test_a_film_without_audio_has_one_stream(tmp_path):
    with FilmWriter(tmp_path / "part.mp4", Fraction(10)) as film:
        film.add(gray(100))
        with pytest.raises(ValueError, match="sampling rate"):
            film.add_audio(tone(16000, 0.1))
    join(tmp_path / "film.mp4", [tmp_path / "part.mp4"], Fraction(10), [1])
    assert streams(tmp_path / "film.mp4") == {"video": "h264"}
    join(tmp_path / "film.mp4", [tmp_path / "part.mp4"], Fraction(10), [1], iter(()))
    assert streams(tmp_path / "film.mp4") == {"video": "h264"}


@pytest.mark.parametrize("rate", [8000, 10000, 192000])
def test_rates_that_aac_lacks_are_resampled(tmp_path, rate):
    with FilmWriter(tmp_path / "film.mp4", Fraction(10), rate, channels=2) as film:
        film.add(gray(100))
        film.add_audio(2 * tone(rate, 1.0, channels=2))  # clipped
    assert streams(tmp_path / "film.mp4") == {"video": "h264", "audio": "aac"}
    with av.open(str(tmp_path / "film.mp4")) as container:
        found = container.streams.audio[0].rate
        waveform = np.concatenate([frame.to_ndarray()[1] for frame in container.decode(audio=0)])
    assert found == (rate if rate == 8000 else 48000)
    assert np.abs(np.fft.rfft(waveform[:found])).argmax() == 440


def test_a_film_that_fails_leaves_no_file(tmp_path):
    with FilmWriter(tmp_path / "part.mp4", Fraction(10)) as film:
        film.add(gray(100))

    def failing():
        yield 16000, tone(16000, 0.1)
        raise OSError("no audio")

    with pytest.raises(OSError, match="no audio"):
        join(tmp_path / "film.mp4", [tmp_path / "part.mp4"], Fraction(10), [1], failing())
    assert [path.name for path in tmp_path.iterdir()] == ["part.mp4"]


def test_the_encoder_is_named_if_it_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_ENCODERS", ("nothing264",))
    with pytest.raises(EncoderError, match="one of the encoders nothing264"):
        FilmWriter(tmp_path / "film.mp4", Fraction(10))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rate", "film"), [(1, 10), (Fraction(30000, 1001), Fraction(30000, 1001)), (90000, 30)])
def test_rates_of_films(rate, film):
    assert film_rate(Fraction(rate)) == film


@pytest.mark.parametrize(
    ("size", "expected"),
    [((720, 1280), (360, 640)), ((1280, 720), (640, 360)), ((1, 9), (2, 8)), ((99, 101), (100, 100))],
)
def test_frames_are_reduced_to_even_sides(size, expected):
    assert reduced(gray(1, *size), 360, even=True).size[::-1] == expected


def test_more_than_two_channels_are_averaged():
    surround = np.arange(12, dtype=np.float32).reshape(6, 2)
    (rate, mono), (_, stereo) = few_channels([(48000, surround), (48000, surround[:2])])
    assert rate == 48000
    np.testing.assert_array_equal(mono, [[5, 6]])
    np.testing.assert_array_equal(stereo, surround[:2])
