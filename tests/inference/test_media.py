"""PNG and WAV, decoded again."""

import io
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion.inference.media import (
    as_frame,
    as_waveform,
    data_uri,
    png,
    png_size,
    wav,
    wav_header,
    webp,
)
from deepavfusion.processors import load_clip, probe_clip


@pytest.mark.parametrize(("samples", "floats"), [(2_000_000_000, False), (3_000_000_000, False), (3_000_000_000, True)])
def test_wav_files_of_any_length(tmp_path, samples, floats):
    """Up to 19 hours, in files without contents on disk; beyond 4 GiB as RF64."""
    path = tmp_path / "long.wav"
    header = wav_header(44100, samples, floats)
    path.write_bytes(header)
    assert (header[:4] == b"RF64") == (samples > 2_100_000_000)
    with open(path, "r+b") as file:
        file.truncate(len(header) + samples * (4 if floats else 2))
    assert probe_clip(path).end == pytest.approx(samples / 44100, abs=0.01)
    assert load_clip(path, samples / 44100 - 1).waveform.shape == (1, 3 * 44100)


def test_a_wav_file_that_is_being_written_can_be_read(tmp_path):
    waveform = np.linspace(-1, 1, 16000, dtype="<f4")
    (tmp_path / "draft.wav").write_bytes(wav_header(16000, None, floats=True) + waveform.tobytes())
    clip = load_clip(tmp_path / "draft.wav", seconds=10)
    np.testing.assert_array_equal(clip.waveform[0], waveform)


def test_notes_of_images():
    content = png(np.zeros((4, 4, 3), np.uint8), timestamp="1.25")
    assert Image.open(io.BytesIO(content)).info["timestamp"] == "1.25"


def test_png_is_lossless():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    content = png(torch.from_numpy(frame))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), frame)
    assert png_size(content) == (7, 5)
    np.testing.assert_array_equal(as_frame(frame[..., 0])[..., 2], frame[..., 0])


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 3)), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_invalid_frames_are_refused(frame):
    with pytest.raises(ValueError, match="Expected a frame"):
        as_frame(frame)


def test_wav_is_exact_to_16_bits():
    waveform = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    waveform[:2] = -1, 1
    with wave.open(io.BytesIO(wav(torch.from_numpy(waveform), 16000))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        samples = np.frombuffer(file.readframes(2000), "<i2") / 32768
    assert np.abs(samples[2:] - waveform[2:]).max() <= 0.5 / 32768
    assert np.abs(samples[:2] - waveform[:2]).max() <= 1 / 32768


@pytest.mark.parametrize(
    "waveform", [np.zeros((1, 8), np.float32), np.zeros(8, np.int16), np.zeros(0, np.float32), [0.0, float("nan")]]
)
def test_invalid_waveforms_are_refused(waveform):
    with pytest.raises(ValueError, match="Expected"):
        as_waveform(waveform)


@pytest.mark.parametrize("rate", [0, -1, 22050.5])
def test_sampling_rates_are_positive_integers(rate):
    with pytest.raises(ValueError, match="sampling rate"):
        wav(np.zeros(8, np.float32), rate)


def test_data_uri():
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"


def test_webp_is_smaller_and_alike():
    rows, columns = np.mgrid[:200, :300]
    noise = np.random.default_rng(0).normal(0, 2, (200, 300, 3))
    frame = np.clip(np.stack([rows, columns * 0.8, (rows + columns) / 2], axis=-1) + noise, 0, 255).astype(np.uint8)
    content = png(frame)
    for side, size in ((None, (300, 200)), (150, (150, 100)), (400, (300, 200))):
        with Image.open(io.BytesIO(webp(content, side))) as image:
            assert (image.format, image.size) == ("WEBP", size)
            assert len(webp(content, side)) < len(content) / 2
    found = np.asarray(Image.open(io.BytesIO(webp(content))), float)
    assert np.abs(found - frame).mean() < 3
