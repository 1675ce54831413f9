"""Views of images, and the masks and boxes that follow them."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion import DeepAVFusionImageProcessor
from deepavfusion.processors import MediaError
from deepavfusion.training.data.augmentation import ClipAugmentation
from deepavfusion.training.data.views import (
    View,
    evaluation_view,
    read_class_map,
    read_image,
    read_mask,
    training_view,
)

from .disk import write, write_image

SIZES = [(48, 64), (64, 48), (31, 97), (40, 40)]


def regions(height: int, width: int) -> np.ndarray:
    """A map of 4 x 5 large regions, each with its own number."""
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 5 // width
    return (rows[:, None] * 5 + columns).astype(np.uint8)


def agreement(pixels: torch.Tensor, labels: torch.Tensor, processor) -> float:
    """Fraction of pixels at which an image of the map's numbers shows the map's number."""
    shown = (processor.denormalize(pixels)[0] * 255 / 10).round().long()
    return (shown == labels.long()).float().mean().item()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_maps_follow_the_evaluation_transform(size, crop_pct):
    processor = DeepAVFusionImageProcessor(size=[64, 96], crop_pct=crop_pct)
    numbers = regions(*size)
    image = torch.from_numpy(numbers * 10).expand(3, -1, -1)
    labels = evaluation_view(processor, *size).of_map(numbers)
    assert labels.shape == (64, 96)
    assert agreement(processor.transform(image), labels, processor) > 0.85  # resizing mixes at the borders


@pytest.mark.parametrize("size", SIZES)
def test_maps_follow_crops_and_flips(size):
    processor = DeepAVFusionImageProcessor(size=64)
    augmentation = ClipAugmentation(processor)
    numbers, flips = regions(*size), set()
    image = np.repeat(numbers[..., None] * 10, 3, axis=-1)
    for seed in range(6):
        pixels = augmentation.frames(image[None], torch.Generator().manual_seed(seed))[0]
        view = training_view(augmentation, *size, torch.Generator().manual_seed(seed))
        flips.add(view.flip)
        assert agreement(pixels, view.of_map(numbers), processor) > 0.85
        mirrored = View(view.top, view.left, view.height, view.width, view.size, not view.flip)
        assert agreement(pixels, mirrored.of_map(numbers), processor) < 0.6
    assert flips == {False, True}


def test_the_whole_image_maps_onto_itself():
    numbers = regions(32, 48)
    assert torch.equal(View(0, 0, 1, 1, (32, 48)).of_map(numbers), torch.from_numpy(numbers))
    flipped = View(0, 0, 1, 1, (32, 48), flip=True).of_map(numbers)
    assert torch.equal(flipped, torch.from_numpy(numbers[:, ::-1].copy()))
    # a mask of another size than its image covers the same part of it
    assert torch.equal(
        View(0, 0, 1, 1, (32, 48)).of_map(np.kron(numbers, np.ones((3, 3), np.uint8))), torch.from_numpy(numbers)
    )


def test_boxes_match_their_masks():
    height, width = 40, 60
    boxes = [(0.25, 0.1, 0.5, 0.6), (0.4, 0.3, 0.95, 0.7)]
    votes = np.zeros((height, width))
    for x1, y1, x2, y2 in boxes:
        votes[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] += 1
    for flip in (False, True):
        view = View(0.05, 0.2, 0.9, 0.6, (36, 36), flip)
        assert torch.equal(view.of_boxes(boxes), view.of_map(np.minimum(votes, 1)).float())
        assert torch.equal(view.of_boxes(boxes, required_boxes=2), view.of_map(votes / 2).float())
    assert set(view.of_boxes(boxes, required_boxes=2).unique().tolist()) == {0.0, 0.5, 1.0}
    assert not View(0, 0, 1, 1, (8, 8)).of_boxes([]).any()
    assert View(0, 0, 1, 1, (8, 8)).of_boxes([(0, 0, 1, 1)]).all()


def test_images_and_masks_of_every_mode(tmp_path):
    foreground = np.zeros((6, 8), bool)
    foreground[2:4, 3:7] = True
    gray = (foreground * 255).astype(np.uint8)
    colored = np.zeros((6, 8, 3), np.uint8)
    colored[foreground] = (0, 64, 0)
    with_alpha = np.concatenate([colored, np.full((6, 8, 1), 255, np.uint8)], axis=-1)
    palette = Image.fromarray(foreground.astype(np.uint8) * 7, mode="P")
    palette.putpalette([0, 0, 0] * 256)  # indices count, not colors
    palette.save(tmp_path / "palette.png")
    for name, array, mode in (
        ("gray.png", gray, None),
        ("bits.png", gray, "1"),
        ("colored.png", colored, None),
        ("alpha.png", with_alpha, None),
        ("gray_alpha.png", gray, "LA"),
    ):
        write_image(tmp_path / name, array, mode)
        assert np.array_equal(read_mask(tmp_path / name), foreground), name
    assert np.array_equal(read_mask(tmp_path / "palette.png"), foreground)
    assert read_image(tmp_path / "bits.png").shape == (6, 8, 3)
    assert np.array_equal(read_image(tmp_path / "alpha.png"), colored)


def test_class_maps(tmp_path):
    numbers = regions(8, 10)
    write_image(tmp_path / "gray.png", numbers)
    palette = Image.fromarray(numbers, mode="P")
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_class_map(tmp_path / "gray.png", 20), numbers)
    assert np.array_equal(read_class_map(tmp_path / "palette.png", 20), numbers)
    numbers[0, 0] = 255
    write_image(tmp_path / "ignored.png", numbers)
    assert read_class_map(tmp_path / "ignored.png", 20)[0, 0] == 255
    with pytest.raises(MediaError, match="values 0 to 18, or 255, got 19"):
        read_class_map(tmp_path / "gray.png", 19)
    write_image(tmp_path / "colored.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(MediaError, match="mode RGB"):
        read_class_map(tmp_path / "colored.png", 20)


def test_invalid_images_raise(tmp_path):
    write(tmp_path / "text.png", "no image")
    whole = write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:300])
    for name in ("gone.png", "text.png", "cut.png"):
        with pytest.raises(MediaError, match=rf"{name}: expected an image"):
            read_image(tmp_path / name)
