"""PNG, WAV and JSON as a report keeps them: decoded again."""

import io
import json
import wave
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from deepavfusion.inference.media import (
    as_frame,
    as_waveform,
    data_uri,
    own_style,
    plain,
    png,
    png_size,
    to_json,
    wav,
)


def test_frames_come_back_from_png():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    content = png(torch.from_numpy(frame))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), frame)
    assert png_size(content) == (7, 5)
    np.testing.assert_array_equal(as_frame(frame[..., 0])[..., 2], frame[..., 0])


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 3)), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_frames_are_not_guessed_at(frame):
    with pytest.raises(ValueError, match="Expected a frame"):
        as_frame(frame)


def test_figures_are_drawn_on_white_whatever_the_process_has_set():
    def draw():
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([0, 1])
        return png(figure)

    def styled():
        return own_style(draw)()

    ordinary = styled()
    with matplotlib.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        dark = styled()
        assert dict(matplotlib.rcParams) == before
    assert dark == ordinary
    pixels = np.asarray(Image.open(io.BytesIO(ordinary)).convert("RGB"))
    assert (pixels[0, 0] == 255).all()


def test_sounds_come_back_within_16_bit_quantisation():
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
def test_sounds_are_not_guessed_at(waveform):
    with pytest.raises(ValueError, match="Expected"):
        as_waveform(waveform)


@pytest.mark.parametrize("rate", [0, -1, 22050.5])
def test_rates_are_whole(rate):
    with pytest.raises(ValueError, match="sampling rate"):
        wav(np.zeros(8, np.float32), rate)


def test_json_has_no_nan_and_takes_arrays():
    value = {
        1: np.float32(0.5),
        "nan": float("nan"),
        "inf": [np.inf, -np.inf],
        "array": np.arange(2),
        "tensor": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "path": Path("a/b"),
        "set": {2, 1},
        "flag": np.bool_(True),
        "nothing": None,
    }
    text = to_json(value)

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(text, parse_constant=refuse) == {
        "1": 0.5,
        "nan": None,
        "inf": [None, None],
        "array": [0, 1],
        "tensor": [1.5, None],
        "path": "a/b",
        "set": [1, 2],
        "flag": True,
        "nothing": None,
    }
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})


def test_data_uri():
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"
