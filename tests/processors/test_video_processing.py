"""Video processor: frames, accepted inputs, errors."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion import DeepAVFusionImageProcessor, DeepAVFusionVideoProcessor, MediaError
from deepavfusion.processors.video_processing_deepavfusion import spread_frames
from tests.media_factory import write_media


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


VIDEO = noise(4, 30, 40, 3)


@pytest.fixture(scope="module")
def processor():
    return DeepAVFusionVideoProcessor(size=[16, 24], num_frames=4)


def test_frames_equal_those_of_the_image_processor(processor):
    pixel_values = processor(VIDEO).pixel_values
    assert pixel_values.shape == (1, 4, 3, 16, 24)
    assert pixel_values.dtype == torch.float32
    assert torch.equal(pixel_values[0], DeepAVFusionImageProcessor(size=[16, 24])(VIDEO).pixel_values)


@pytest.mark.parametrize(
    "video",
    [
        torch.from_numpy(VIDEO),
        torch.from_numpy(VIDEO).permute(0, 3, 1, 2),
        VIDEO.transpose(0, 3, 1, 2),
        list(VIDEO),
        list(torch.from_numpy(VIDEO)),
        VIDEO[None],
        [VIDEO],
        [list(VIDEO)],
    ],
    ids=["torch", "torch, channels first", "channels first", "frames", "torch frames", "5-D", "list", "list of frames"],
)
def test_accepted_forms_of_a_video_are_equivalent(processor, video):
    assert torch.equal(processor(video).pixel_values, processor(VIDEO).pixel_values)


def test_pil_frames(processor):
    frames = [Image.fromarray(frame) for frame in VIDEO]
    assert torch.equal(processor(frames).pixel_values, processor(VIDEO).pixel_values)
    assert torch.equal(processor([frames, frames]).pixel_values[1], processor(VIDEO).pixel_values[0])


def test_videos_of_a_batch_may_differ(processor):
    videos = [VIDEO, noise(9, 50, 20, 3), noise(1, 7, 7, 3)]
    batch = processor(videos).pixel_values
    assert batch.shape == (3, 4, 3, 16, 24)
    for row, video in zip(batch, videos, strict=True):
        assert torch.equal(row, processor(video).pixel_values[0])


@pytest.mark.parametrize(
    ("count", "num_frames", "expected"),
    [(4, 4, [0, 1, 2, 3]), (8, 4, [1, 3, 5, 7]), (9, 3, [1, 4, 7]), (1, 4, [0, 0, 0, 0]), (2, 4, [0, 0, 1, 1])],
)
def test_frames_are_spread_evenly(count, num_frames, expected):
    assert spread_frames(count, num_frames) == expected
    levels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None] * 20, (count, 8, 8, 3))
    spread = DeepAVFusionVideoProcessor(size=8, num_frames=num_frames)
    found = (spread.denormalize(spread(levels).pixel_values[0]) * 255 / 20).round()[:, 0, 0, 0]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("video", "error", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"got shape \(8, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "at least one frame"),
        ([noise(8, 8, 3), noise(9, 8, 3)], ValueError, "frames of one size"),
        ([], ValueError, "at least one video"),
        (np.zeros((0, 2, 8, 8, 3), np.uint8), ValueError, "at least one video"),
        ([None], TypeError, "NoneType"),
        ([VIDEO, None], TypeError, "Expected a video as a file, an array, a tensor or a list of frames, got NoneType"),
        ([VIDEO, 3], TypeError, "Expected a video .* got int"),
        ([VIDEO, np.zeros(())], TypeError, "Expected a video .* got ndarray"),
        ([VIDEO, {"frames": VIDEO}], TypeError, "Expected a video .* got dict"),
        ([VIDEO, VIDEO[:0]], ValueError, "at least one frame"),
        ("clip.mp4", MediaError, "clip.mp4: expected a media file, but there is no such file"),
        (3.5, TypeError, "got float"),
    ],
)
def test_invalid_videos_raise(processor, video, error, message):
    with pytest.raises(error, match=message):
        processor(video)


@pytest.mark.parametrize("do_sample_frames", [True, False])
def test_num_frames_of_a_call_is_that_of_files(processor, tmp_path, do_sample_frames):
    path = str(write_media(tmp_path / "clip.mp4", seconds=2.0, fps=8))
    options = {"do_sample_frames": do_sample_frames}
    expected = DeepAVFusionVideoProcessor(size=[16, 24], num_frames=2)(path).pixel_values
    assert torch.equal(processor([path], num_frames=2, **options).pixel_values, expected)
    assert processor([path], **options).pixel_values.shape[1] == processor.num_frames == 4


def test_num_frames_below_one_raises():
    with pytest.raises(ValueError, match="num_frames of at least 1 and at most 4096, got 0"):
        DeepAVFusionVideoProcessor(num_frames=0)


def test_save_and_load(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    loaded = DeepAVFusionVideoProcessor.from_pretrained(tmp_path)
    assert (loaded.num_frames, loaded.size) == (4, {"height": 16, "width": 24})
    assert torch.equal(loaded(VIDEO).pixel_values, processor(VIDEO).pixel_values)
    assert DeepAVFusionVideoProcessor.from_pretrained(tmp_path, num_frames=2)(VIDEO).pixel_values.shape[1] == 2
