"""Random crops, flips and volumes."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from deepavfusion import DeepAVFusionImageProcessor
from deepavfusion.training.data.augmentation import ClipAugmentation, draw_crop
from tests.golden_files import load_golden


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plain(size):
    """A processor whose pixel values are pixels in 0..1."""
    return DeepAVFusionImageProcessor(size=size, image_mean=[0, 0, 0], image_std=[1, 1, 1])


@pytest.mark.parametrize(("size", "image"), [((64, 64), (120, 160)), ((64, 64), (300, 300)), ((32, 96), (100, 200))])
def test_crops_respect_area_and_aspect(size, image):
    draws = generator()
    crops = [draw_crop(*image, size, (0.5, 1.0), (3 / 4, 4 / 3), draws) for _ in range(500)]
    tops, lefts, heights, widths = (np.array(values) for values in zip(*crops, strict=True))
    assert (tops >= 0).all()
    assert (lefts >= 0).all()
    assert (tops + heights <= image[0]).all()
    assert (lefts + widths <= image[1]).all()
    areas, shapes = heights * widths / image[0] / image[1], widths / heights * size[0] / size[1]
    assert areas.min() >= 0.49
    assert shapes.min() >= 3 / 4 * 0.97
    assert shapes.max() <= 4 / 3 * 1.03
    assert areas.std() > 0.02
    assert len(set(crops)) > 300


def test_crops_of_a_square_cover_all_areas_shapes_and_positions():
    draws = generator()
    crops = np.array([draw_crop(400, 400, (64, 64), (0.5, 1.0), (3 / 4, 4 / 3), draws) for _ in range(2000)])
    areas = crops[:, 2] * crops[:, 3] / 160000
    assert areas.min() < 0.52
    assert areas.max() > 0.97
    shapes = np.log(crops[:, 3] / crops[:, 2])
    assert abs(shapes.mean()) < 0.02
    corners = crops[:, :2] / np.maximum(400 - crops[:, 2:], 1)
    assert_close(torch.tensor(corners.mean(0)), torch.tensor([0.5, 0.5], dtype=torch.float64), rtol=0, atol=0.03)


@pytest.mark.parametrize("image", [(10, 1000), (1000, 10), (1, 1)])
def test_central_crop_where_no_draw_fits(image):
    top, left, height, width = draw_crop(*image, (64, 64), (0.5, 1.0), (3 / 4, 4 / 3), generator())
    assert min(height, width) == min(image)
    assert 2 / 3 <= width / height <= 3 / 2
    assert abs(2 * top + height - image[0]) <= 1
    assert abs(2 * left + width - image[1]) <= 1


def test_frames_share_a_crop():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    augmentation = ClipAugmentation(DeepAVFusionImageProcessor(size=32))
    pixel_values = augmentation.frames(np.stack([image] * 3), generator())
    assert pixel_values.shape == (3, 3, 32, 32)
    assert pixel_values.dtype == torch.float32
    assert torch.equal(pixel_values[0], pixel_values[1])
    assert torch.equal(pixel_values[0], pixel_values[2])
    assert torch.equal(augmentation.frames(image[None], generator())[0], pixel_values[0])


def test_decoded_frames_are_resized_by_torch_at_most_one_level_from_pil():
    image = load_golden("image_transforms").inputs["image"].numpy()
    augmentation = ClipAugmentation(plain(224), flip=0)
    for seed in range(5):
        found = augmentation.frames(image[None].copy(), generator(seed))[0]
        top, left, height, width = draw_crop(
            *image.shape[:2], (224, 224), augmentation.area, augmentation.aspect, generator(seed)
        )
        crop = Image.fromarray(image[top : top + height, left : left + width])
        expected = np.array(crop.resize((224, 224), Image.Resampling.BILINEAR))
        assert_close(found.movedim(0, -1) * 255, torch.from_numpy(expected).float(), rtol=0, atol=1 + 1e-3)
        assert torch.equal(augmentation.frames([Image.fromarray(image)], generator(seed))[0], found)


def test_frames_are_not_changed():
    frames = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8)
    before, floating = frames.copy(), frames / np.float32(255)
    for given in (frames, floating):
        ClipAugmentation(DeepAVFusionImageProcessor(size=32)).frames(given, generator())
    assert np.array_equal(frames, before)
    assert np.array_equal(floating, before / np.float32(255))


def test_draws_depend_on_the_generator_alone():
    image = np.random.default_rng(0).integers(0, 256, (1, 60, 80, 3), np.uint8)
    augmentation = ClipAugmentation(DeepAVFusionImageProcessor(size=32))
    torch.manual_seed(0)
    first = augmentation.frames(image, generator(1))
    torch.manual_seed(1)
    assert torch.equal(first, augmentation.frames(image, generator(1)))
    assert not torch.equal(first, augmentation.frames(image, generator(2)))


def test_fraction_of_flipped_clips():
    ramp = np.broadcast_to(np.linspace(0, 1, 64)[None, None, :, None], (1, 64, 64, 3))
    draws = generator()

    def flipped(flip):
        augmentation = ClipAugmentation(plain(16), flip=flip)
        seen = [augmentation.frames(ramp, draws)[0, 0, 0] for _ in range(200)]
        return np.mean([row[0].item() > row[-1].item() for row in seen])

    assert flipped(0.0) == 0
    assert flipped(1.0) == 1
    assert 0.4 < flipped(0.5) < 0.6


def test_no_augmentation_is_a_resize():
    image = torch.rand(1, 3, 48, 48, generator=generator())
    augmentation = ClipAugmentation(plain(48), area=(1, 1), aspect=(1, 1), flip=0)
    assert_close(augmentation.frames(image, generator()), image)


def test_frames_show_the_crop_of_draw_crop():
    rows, columns = np.meshgrid(np.linspace(0, 1, 200), np.linspace(0, 1, 300), indexing="ij")
    image = np.stack([rows, columns, rows], -1)[None].astype(np.float32)
    top, left, height, width = draw_crop(200, 300, (32, 32), (0.5, 1.0), (3 / 4, 4 / 3), generator(3))
    seen = ClipAugmentation(plain(32), flip=0).frames(image, generator(3))[0]
    assert abs(seen[0].mean().item() * 199 - (top + (height - 1) / 2)) < 1
    assert abs(seen[1].mean().item() * 299 - (left + (width - 1) / 2)) < 1


def test_volume():
    wave, draws = torch.sin(torch.arange(2000.0) / 9)[None] / 4, generator()
    augmentation = ClipAugmentation(DeepAVFusionImageProcessor())
    gains = [20 * math.log10(augmentation.waveform(wave, draws).abs().max() / wave.abs().max()) for _ in range(300)]
    assert -6.001 <= min(gains) < -5.5
    assert 5.5 < max(gains) <= 6.001
    assert abs(np.mean(gains)) < 0.7
    assert_close(augmentation.waveform(wave.numpy(), generator(5)), augmentation.waveform(wave, generator(5)))


def test_loud_audio_is_clipped_and_keeps_its_shape():
    wave = torch.sin(torch.arange(3000.0) / 9).view(2, 1500) * 1.78
    louder = ClipAugmentation(DeepAVFusionImageProcessor(), decibels=0).waveform(wave, generator())
    assert_close(louder, wave.clamp(-1, 1))


def test_integer_waveforms_raise():
    with pytest.raises(TypeError, match="int16"):
        ClipAugmentation(DeepAVFusionImageProcessor()).waveform(np.zeros(5, np.int16), generator())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"area": (0, 1)}, "Expected area"),
        ({"area": (0.9, 0.5)}, "Expected area"),
        ({"aspect": (2, 1)}, "Expected aspect"),
        ({"flip": 1.5}, "flip"),
        ({"decibels": -1}, "decibels"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        ClipAugmentation(DeepAVFusionImageProcessor(), **settings)
