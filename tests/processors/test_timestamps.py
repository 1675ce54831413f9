"""Timestamps in every form, and what is no timestamp."""

import math
import re
from decimal import Decimal

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionConfig, DeepAVFusionProcessor
from deepavfusion.processors.media_deepavfusion import load_clip, load_clips
from deepavfusion.processors.timestamps_deepavfusion import as_timestamps
from tests.media_factory import media_bytes


@pytest.fixture(scope="module")
def film():
    return media_bytes(container_format="mp4", seconds=4)


@pytest.mark.parametrize(
    "times",
    [[1.0, 2.0], (1, 2), range(1, 3), np.array([1.0, 2.0]), np.array([1, 2]), torch.tensor([1.0, 2.0])],
    ids=["list", "tuple", "range", "floats", "integers", "tensor"],
)
def test_sequences(film, times):
    assert as_timestamps(times) == [1.0, 2.0]
    assert [clip.timestamp for clip in load_clips(film, times)] == [1.0, 2.0]
    processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(image_size=32))
    assert processor(videos=film, timestamps=times).pixel_values.shape[0] == 2
    assert processor(videos=[film, film], timestamps=[times, 0.5]).pixel_values.shape[0] == 3


@pytest.mark.parametrize("time", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0)])
def test_numbers(film, time):
    assert as_timestamps(time) == 1.0
    assert [clip.timestamp for clip in load_clips(film, time)] == [1.0]
    assert load_clip(film, time).timestamp == 1.0


@pytest.mark.parametrize("wrong", ["1.0", b"1", True, Decimal(1), {"a": 1.0}])
def test_what_is_no_number_is_refused(film, wrong):
    processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(image_size=32))
    message = re.escape(f"Expected timestamps as numbers of seconds, got {wrong!r}")
    for times in (wrong, [wrong], [1.0, wrong], [[1.0, wrong]]):
        with pytest.raises(TypeError, match=message):
            as_timestamps(times)
        with pytest.raises(TypeError, match=message):
            processor(videos=film, timestamps=times)
    with pytest.raises(TypeError, match=message):
        list(load_clips(film, [wrong]))


def test_text_for_one_clip_is_refused(film):
    with pytest.raises(TypeError, match="Expected timestamp as a number of seconds, got '1.0'"):
        load_clip(film, "1.0")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(wrong):
    for times in (wrong, [wrong], np.array([1.0, wrong])):
        with pytest.raises(ValueError, match="Expected timestamps as finite numbers of seconds, got"):
            as_timestamps(times)
