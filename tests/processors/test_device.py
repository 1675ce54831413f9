"""Pipelines with a model on a stand-in for an accelerator: post-processing gets back to the CPU, and numbers stay."""

import pytest
from transformers import pipeline

from tests.fake_device import fake_device

from .test_pipelines import assert_same, each_task, folder, pipes  # noqa: F401


@each_task
@pytest.mark.parametrize("device_type", ["cuda", "mps"])
def test_pipelines(task, device_type, pipes, folder):  # noqa: F811
    expected = pipes[task](str(folder / "clip.mov"))
    with fake_device(device_type):
        pipe = pipeline(task, model=str(folder / task), device=device_type)
        assert {p.device.type for p in pipe.model.parameters()} == {device_type}
        assert_same(pipe(str(folder / "clip.mov")), expected)
