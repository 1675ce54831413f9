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
)


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
