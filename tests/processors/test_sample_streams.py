"""Waveforms that arrive in parts."""

import pytest
import torch
from torch.testing import assert_close

from deepavfusion.processors import sample_streams_deepavfusion as streams
from deepavfusion.processors.feature_extraction_deepavfusion import resample

RATES = [
    (44100, 16000),
    (16000, 44100),
    (48000, 16000),
    (16000, 11025),
    (8000, 16000),
    (16000, 16000),
    (44101, 16000),  # the ratio of these is rounded
    (16000, 44101),
]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(streams, "_CHUNK", 1000)


def push(stream, waveform, part):
    chunks = [chunk for samples in waveform.split(part, -1) for chunk in stream.push(samples)]
    return [*chunks, *stream.finish()]


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
@pytest.mark.parametrize("samples", [1, 999, 8000, 9001])
def test_parts_are_resampled_as_one_waveform(rate, new_rate, samples):
    waveform = torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
    chunks = push(streams.ResamplingStream(rate, new_rate), waveform, 777)
    assert_close(torch.cat(chunks, -1), resample(waveform, rate, new_rate), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
def test_chunks_do_not_depend_on_the_parts_and_the_start(rate, new_rate):
    waveform = torch.randn(9001, generator=torch.Generator().manual_seed(0))
    chunks = push(streams.ResamplingStream(rate, new_rate), waveform, 777)
    assert len(chunks) > 3
    for skip in range(len(chunks) + 1):
        stream = streams.ResamplingStream(rate, new_rate, skip)
        first = stream.needs // 2
        stream.begin_at(first)
        again = push(stream, waveform[first:], 1 + 400 * skip)
        assert len(again) == len(chunks) - skip
        assert all(torch.equal(found, expected) for found, expected in zip(again, chunks[skip:], strict=True))


def test_a_buffer_holds_the_latest_samples():
    buffer = streams.SampleBuffer(3)
    buffer.append(torch.arange(2))
    buffer.append(torch.arange(2, 7))
    assert (buffer.start, buffer.end) == (3, 7)
    assert buffer.read(4, 6).tolist() == [4, 5]
    buffer.drop(5)
    buffer.drop(2)
    assert (buffer.start, buffer.read(5, 7).tolist()) == (5, [5, 6])
    later = streams.SampleBuffer(5)
    later.begin_at(4)
    later.append(torch.arange(4, 7))
    assert later.read(5, 7).tolist() == [5, 6]
