"""Views of images, so that masks and boxes follow an image through resizing, cropping and flipping."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deepavfusion.processors import MediaError
from deepavfusion.processors.image_processing_deepavfusion import cover_size, crop_offsets

from .augmentation import ClipAugmentation, draw_crop

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """The part of an image that a model sees.

    Attributes:
        top, left, height, width: The part, in fractions of the image's height and width.
        size: (height, width) of the model's input, in pixels.
        flip: Whether it is flipped horizontally.
    """

    top: float
    left: float
    height: float
    width: float
    size: tuple[int, int]
    flip: bool = False

    def centers(self) -> tuple[np.ndarray, np.ndarray]:
        """Centers of the input's rows and columns, in fractions of the image's height and width."""
        rows = self.top + (np.arange(self.size[0]) + 0.5) / self.size[0] * self.height
        columns = self.left + (np.arange(self.size[1]) + 0.5) / self.size[1] * self.width
        return rows, columns[::-1] if self.flip else columns

    def of_map(self, values: np.ndarray) -> torch.Tensor:
        """Map (h, w) of the whole image -> (H, W) of the view, by nearest pixel, so that classes do not mix."""
        rows, columns = (
            np.clip((fraction * count).astype(np.int64), 0, count - 1)
            for fraction, count in zip(self.centers(), values.shape, strict=True)
        )
        return torch.from_numpy(np.ascontiguousarray(values[rows[:, None], columns]))

    def of_boxes(self, boxes: Sequence[Box], required_boxes: int = 1) -> torch.Tensor:
        """Consensus map of the view: min(number of boxes / `required_boxes`, 1) at each pixel.

        Args:
            boxes: (x1, y1, x2, y2) in fractions of the whole image.
            required_boxes: Number of boxes required for consensus.

        Returns:
            (H, W) float32.
        """
        rows, columns = self.centers()
        votes = np.zeros(self.size, np.float32)
        for left, top, right, bottom in boxes:
            votes += ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
        return torch.from_numpy(np.minimum(votes / required_boxes, 1))


def evaluation_view(visual_processor, height: int, width: int) -> View:
    """The view that `visual_processor.transform` takes of an image of (height, width) pixels."""
    size = visual_processor.output_size
    resized = cover_size(height, width, size, visual_processor.crop_pct)
    top, left = crop_offsets(*resized, size)
    return View(top / resized[0], left / resized[1], size[0] / resized[0], size[1] / resized[1], tuple(size))


def training_view(augmentation: ClipAugmentation, height: int, width: int, generator: torch.Generator) -> View:
    """The view that `augmentation.frames` takes of an image of (height, width) pixels, given an equal generator."""
    size = augmentation.visual_processor.output_size
    part = draw_crop(height, width, size, augmentation.area, augmentation.aspect, generator)
    flip = bool(torch.rand((), generator=generator) < augmentation.flip)
    top, left = part[0] / height, part[1] / width
    return View(top, left, part[2] / height, part[3] / width, tuple(size), flip)


def _open(path: str | Path, expected: str, convert) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(convert(image))
    except MediaError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error ...
        raise MediaError(f"{path}: expected {expected}, got {type(error).__name__}: {error}.") from error


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8.

    Raises:
        MediaError: The file is missing or not an image.
    """
    return _open(path, "an image", lambda image: image.convert("RGB"))


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask as (H, W) uint8: 1 where any channel is not 0. The alpha channel does not count.

    Raises:
        MediaError: The file is missing or not an image.
    """
    values = _open(path, "a mask", _without_alpha)
    return (values.reshape(*values.shape[:2], -1) != 0).any(-1).astype(np.uint8)


def _without_alpha(image):
    if image.mode in ("RGBA", "PA"):
        return image.convert("RGB")
    return image.getchannel(0) if image.mode == "LA" else image


def read_class_map(path: str | Path, num_classes: int) -> np.ndarray:
    """Read class indices as (H, W) uint8: gray levels or palette indices 0 .. num_classes - 1, or 255, to be ignored.

    Raises:
        MediaError: The file is missing, not an image of one channel, or holds other values.
    """

    def check(image):
        if image.mode not in ("L", "P"):
            raise MediaError(
                f"{path}: expected a class map with one channel of class indices, got an image of mode {image.mode}."
            )
        return image

    values = _open(path, "a class map", check)
    invalid = values[(values >= num_classes) & (values != 255)]
    if invalid.size:
        raise MediaError(
            f"{path}: expected a class map with the values 0 to {num_classes - 1}, or 255, got {invalid.max()}."
        )
    return values
