"""Image processor: published transform, accepted inputs, errors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from deepavfusion import DeepAVFusionImageProcessor, MediaError
from deepavfusion.processors import pixels_deepavfusion
from deepavfusion.processors.fit_deepavfusion import cover_size
from deepavfusion.processors.pixels_deepavfusion import resize, to_pixels
from tests.golden_files import SHARED, load_golden


@pytest.fixture(scope="module")
def golden():
    return load_golden("image_transforms")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_equals_the_published_transform(golden):
    pixel_values = DeepAVFusionImageProcessor()(golden.inputs["image"].numpy()).pixel_values
    assert pixel_values.shape == (1, 3, 224, 224)
    assert_close(pixel_values[0], golden.outputs["eval"], rtol=0, atol=1e-6)


def test_equals_the_published_transform_for_segmentation(golden):
    pixel_values = DeepAVFusionImageProcessor(crop_pct=1.0)(golden.inputs["image"].numpy()).pixel_values
    rows = golden.config["segmentation_eval_rows"]
    assert_close(pixel_values[0, :, :rows], golden.outputs["segmentation_eval"], rtol=0, atol=1e-6)


def test_equals_all_of_the_published_transform_for_segmentation():
    if not (SHARED / "image.safetensors").exists():
        pytest.skip("the whole image is only in the shared folder beside the project")
    from safetensors.torch import load_file

    golden = load_file(SHARED / "image.safetensors")
    pixel_values = DeepAVFusionImageProcessor(crop_pct=1.0)(golden["in.image"].numpy()).pixel_values
    assert_close(pixel_values[0], golden["out.segmentation_eval"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((360, 480), (256, 341)),
        ((37, 91), (256, 629)),
        ((230, 256), (224, 249)),
        ((2, 2), (64, 64)),
        ((16, 1024), (64, 30)),
    ],
)
def test_resize_equals_pil(shape, size):
    image = noise(*shape, 3)
    expected = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    found = resize(torch.from_numpy(image).permute(2, 0, 1), size)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_resize_without_pil_differs_by_at_most_one_level(monkeypatch):
    image = torch.from_numpy(noise(360, 480, 3)).permute(2, 0, 1)
    by_pil = resize(image, (256, 341))
    monkeypatch.setattr(pixels_deepavfusion, "Image", None)
    by_torch = resize(image, (256, 341))
    assert by_torch.dtype == torch.uint8
    assert not torch.equal(by_torch, by_pil)
    assert_close(by_torch.int(), by_pil.int(), rtol=0, atol=1)


@pytest.mark.parametrize("size", [(256, 341), (224, 224), (100, 640), (700, 300)])
def test_resize_by_torch_differs_by_at_most_one_level(golden, size):
    for image in (golden.inputs["image"], torch.from_numpy(noise(100, 120, 3))):
        pixels = image.movedim(-1, 0)
        found = resize(pixels, size, exact=False)
        assert found.dtype == torch.uint8
        assert_close(found.int(), resize(pixels, size).int(), rtol=0, atol=1)


def test_resize_of_stacked_images():
    frames = torch.from_numpy(noise(2, 4, 40, 60, 3)).movedim(-1, 2)
    expected = [[resize(frame, (20, 30)) for frame in clip] for clip in frames]
    assert torch.equal(resize(frames, (20, 30)), torch.stack([torch.stack(clip) for clip in expected]))


def test_resize_of_floating_point_images_does_not_round():
    image = torch.from_numpy(noise(60, 80, 3)).permute(2, 0, 1)
    assert_close(resize(image / 255, (20, 30)), resize(image, (20, 30)) / 255, rtol=0, atol=1.01 / 255)


def test_resize_keeps_a_constant_image():
    for level in (0, 77, 255):
        assert resize(torch.full((3, 50, 70), level, dtype=torch.uint8), (33, 200)).unique().tolist() == [level]


@pytest.mark.parametrize("size", [224, (64, 96), (96, 64), {"height": 32, "width": 48}])
@pytest.mark.parametrize("shape", [(360, 480), (480, 360), (10, 1000), (224, 224), (1, 1)])
def test_output_size_for_any_image_size(size, shape):
    processor = DeepAVFusionImageProcessor(size=size)
    assert processor(noise(*shape, 3)).pixel_values.shape == (1, 3, *processor.output_size)
    resized = cover_size(*shape, processor.output_size, 0.875)
    assert min(r - int(s / 0.875) for r, s in zip(resized, processor.output_size, strict=True)) == 0


RGB = noise(40, 60, 3)
GRAY = np.repeat(RGB[..., :1], 3, -1)
FORMS = {
    "torch": (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
    "channels first": (RGB.transpose(2, 0, 1), RGB),
    "torch channels last": (torch.from_numpy(RGB), RGB),
    "int64": (RGB.astype(np.int64), RGB),
    "uint16": (RGB.astype(np.uint16), RGB),
    "foreign byte order": (RGB.astype(np.dtype(np.int16).newbyteorder()), RGB),
    "unsigned in foreign byte order": (RGB.astype(np.dtype(np.uint32).newbyteorder()), RGB),
    "read-only": (np.broadcast_to(RGB, RGB.shape), RGB),
    "alpha": (np.concatenate([RGB, noise(40, 60, 1, seed=1)], -1), RGB),
    "gray": (GRAY[..., 0], GRAY),
    "gray with a channel": (GRAY[..., :1], GRAY),
    "4-D": (RGB[None], RGB),
    "list": ([RGB], RGB),
    "negative strides": (RGB[::-1][::-1], RGB),
}


@pytest.mark.parametrize("name", FORMS)
def test_accepted_forms_of_an_image_are_equivalent(name):
    image, reference = FORMS[name]
    processor = DeepAVFusionImageProcessor(size=32)
    assert torch.equal(processor(image).pixel_values, processor(reference).pixel_values)


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, np.longdouble, np.dtype(np.float32).newbyteorder()]
)
def test_floating_point_images_are_in_0_to_1(dtype):
    processor = DeepAVFusionImageProcessor(size=32)
    floating = processor((RGB / 255).astype(dtype)).pixel_values
    # Half a level of rounding in each pass of resizing, one level of float16, over the smallest std.
    assert_close(floating, processor(RGB).pixel_values, rtol=0, atol=1.5 / 255 / 0.224)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_pil_modes(mode):
    if mode == "I;16":
        image = Image.fromarray(GRAY[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(GRAY[..., 0].astype(np.float32) / 255)
    else:
        image = Image.fromarray(RGB).convert(mode)
    assert image.mode == mode
    pixels = to_pixels(image)
    assert pixels.shape == (3, 40, 60)
    scaled = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    if mode in ("RGB", "RGBA"):
        expected = RGB
    elif mode in ("I;16", "F"):
        expected = GRAY
    else:
        expected = np.array(image.convert("RGB"))
    assert_close(scaled.permute(1, 2, 0).numpy(), (expected / 255).astype(np.float32), rtol=0, atol=1e-6)


def test_channels_first_overrides_the_inferred_layout():
    square = noise(3, 5, 3)
    assert not torch.equal(to_pixels(square), to_pixels(square, channels_first=True))
    assert torch.equal(to_pixels(square, channels_first=True), torch.from_numpy(square))


def test_images_of_a_batch_may_differ_in_size():
    processor = DeepAVFusionImageProcessor(size=32)
    images = [noise(40, 60, 3), noise(100, 50, 3)]
    batch = processor(images).pixel_values
    for row, image in zip(batch, images, strict=True):
        assert torch.equal(row, processor(image).pixel_values[0])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.full((4, 4, 3), 128.0), ValueError, "in 0..1, got values from 128 to 128"),
        (np.full((4, 4, 3), np.nan), ValueError, "in 0..1, got values from nan"),
        (np.full((4, 4, 3), 300), ValueError, "in 0..255, got values from 300"),
        (np.full((4, 4, 3), -1), ValueError, "in 0..255, got values from -1"),
        (np.zeros((9, 9, 5), np.uint8), ValueError, r"got \(9, 9, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got \(0, 4, 3\)"),
        (np.zeros(7, np.uint8), ValueError, r"got \(7,\)"),
        (np.zeros((4, 4, 3), complex), TypeError, "Expected an image of real numbers, got an array of complex128"),
        (np.zeros((4, 4, 3), object), TypeError, "Expected an image of real numbers, got an array of object"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), TypeError, "got a tensor of torch.complex64"),
        ("image.png", MediaError, "image.png: expected a media file, but there is no such file"),
        (3.5, TypeError, "got float"),
        ([], ValueError, "at least one item"),
        ([None], TypeError, "got NoneType"),
    ],
)
def test_invalid_images_raise(image, error, message):
    with pytest.raises(error, match=message):
        DeepAVFusionImageProcessor(size=16)(image)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "Expected a size"),
        ({"size": [1, 2, 3]}, "Expected a size"),
        ({"size": {"shortest_edge": 3}}, "Expected a size"),
        ({"crop_pct": 0}, r"crop_pct in \(0, 1\], got 0"),
        ({"crop_pct": 1.5}, r"crop_pct in \(0, 1\], got 1.5"),
        ({"image_mean": [0.5]}, "of 3 channels, got"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        DeepAVFusionImageProcessor(**settings)


def test_denormalize_inverts_normalize():
    processor = DeepAVFusionImageProcessor()
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert_close(processor.denormalize(processor.normalize(pixels)), pixels)


@pytest.mark.parametrize("shape", [(360, 480), (480, 360), (224, 224), (1000, 30)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_crop_box_is_the_cropped_area(shape, crop_pct):
    """In an image of its own pixel coordinates, the cropped values are the cropped coordinates."""
    processor = DeepAVFusionImageProcessor(size=[64, 80], crop_pct=crop_pct, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    rows, columns = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")
    pixel_values = processor(np.stack([rows, columns, rows], -1)).pixel_values[0]
    top, left, bottom, right = processor.crop_box(*shape)
    for channel, low, high, side, cropped in ((0, top, bottom, shape[0], 64), (1, left, right, shape[1], 80)):
        centers = pixel_values[channel] * (side - 1) + 0.5  # of the cropped pixels, from the image's edge
        half = (high - low) / cropped / 2
        assert abs(centers.min().item() - half - low) <= 1 + half
        assert abs(centers.max().item() + half - high) <= 1 + half
    assert 0 <= top < bottom <= shape[0]
    assert 0 <= left < right <= shape[1]


def test_save_and_load(tmp_path):
    processor = DeepAVFusionImageProcessor(size=[64, 96], crop_pct=1.0, image_mean=[0.5] * 3, image_std=[0.1] * 3)
    processor.save_pretrained(tmp_path)
    loaded = DeepAVFusionImageProcessor.from_pretrained(tmp_path)
    assert torch.equal(loaded(RGB).pixel_values, processor(RGB).pixel_values)
    changed = DeepAVFusionImageProcessor.from_pretrained(tmp_path, crop_pct=0.5)
    assert changed.crop_pct == 0.5
    assert changed.size == {"height": 64, "width": 96}


def test_returns_numpy_arrays():
    assert isinstance(DeepAVFusionImageProcessor()(RGB, return_tensors="np").pixel_values, np.ndarray)
