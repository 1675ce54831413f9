"""What a sample shows of a picture, so that masks and boxes follow it through resizing, cropping and flipping."""

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
    """
    The part of a picture that a model sees.

    Attributes:
        top, left, height, width: Of the part, as shares of the picture's height and width.
        size: (height, width) of what the model sees, in pixels.
        flip: Whether it is mirrored.
    """

    top: float
    left: float
    height: float
    width: float
    size: tuple[int, int]
    flip: bool = False

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the middles of the model's rows and columns lie in the picture, as shares of its height and width."""
        rows = self.top + (np.arange(self.size[0]) + 0.5) / self.size[0] * self.height
        columns = self.left + (np.arange(self.size[1]) + 0.5) / self.size[1] * self.width
        return rows, columns[::-1] if self.flip else columns

    def of_map(self, values: np.ndarray) -> torch.Tensor:
        """(h, w) of the whole picture -> (H, W) of what the model sees: the nearest pixel, no mixing of classes."""
        rows, columns = (
            np.clip((share * count).astype(np.int64), 0, count - 1)
            for share, count in zip(self.centres(), values.shape, strict=True)
        )
        return torch.from_numpy(np.ascontiguousarray(values[rows[:, None], columns]))

    def of_boxes(self, boxes: Sequence[Box], needed: int = 1) -> torch.Tensor:
        """
        A consensus map: min(number of boxes / `needed`, 1) at each pixel that the model sees.

        Args:
            boxes: (x1, y1, x2, y2) in shares of the whole picture.
            needed: How many boxes make a place certain.

        Returns:
            (H, W) float32.
        """
        rows, columns = self.centres()
        votes = np.zeros(self.size, np.float32)
        for left, top, right, bottom in boxes:
            votes += ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
        return torch.from_numpy(np.minimum(votes / needed, 1))


def evaluation_view(visual_processor, height: int, width: int) -> View:
    """What `visual_processor.transform` keeps of a picture of (height, width) pixels."""
    size = visual_processor.output_size
    resized = cover_size(height, width, size, visual_processor.crop_pct)
    top, left = crop_offsets(*resized, size)
    return View(top / resized[0], left / resized[1], size[0] / resized[0], size[1] / resized[1], tuple(size))


def training_view(augmentation: ClipAugmentation, height: int, width: int, generator: torch.Generator) -> View:
    """What `augmentation.pictures` keeps of a picture of (height, width) pixels, drawn from an equal generator."""
    size = augmentation.visual_processor.output_size
    part = draw_crop(height, width, size, augmentation.area, augmentation.aspect, generator)
    flip = bool(torch.rand((), generator=generator) < augmentation.flip)
    top, left = part[0] / height, part[1] / width
    return View(top, left, part[2] / height, part[3] / width, tuple(size), flip)


def _open(path: str | Path, wanted: str, convert) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.array(convert(picture))
    except MediaError:
        raise
    except Exception as error:  # decoders answer with OSError, SyntaxError, struct.error ...
        raise MediaError(f"{path}: looked for {wanted}, but {type(error).__name__}: {error}.") from error


def read_picture(path: str | Path) -> np.ndarray:
    """
    A picture file as (H, W, 3) uint8.

    Raises:
        MediaError: It is not there, or is no picture.
    """
    return _open(path, "a picture", lambda picture: picture.convert("RGB"))


def read_mask(path: str | Path) -> np.ndarray:
    """
    A mask as (H, W) uint8 of foreground: 1 where any channel is not 0. Alpha does not count.

    Raises:
        MediaError: It is not there, or is no picture.
    """
    values = _open(path, "a mask", _without_alpha)
    return (values.reshape(*values.shape[:2], -1) != 0).any(-1).astype(np.uint8)


def _without_alpha(picture):
    if picture.mode in ("RGBA", "PA"):
        return picture.convert("RGB")
    return picture.getchannel(0) if picture.mode == "LA" else picture


def read_class_map(path: str | Path, num_classes: int) -> np.ndarray:
    """
    A map of class indices as (H, W) uint8: grey levels or palette indices 0 .. num_classes - 1, and 255, to be ignored.

    Raises:
        MediaError: It is not there, is no picture of one channel, or holds other values.
    """

    def check(picture):
        if picture.mode not in ("L", "P"):
            raise MediaError(
                f"{path}: looked for a map of classes, but it is a picture of mode {picture.mode}: expected one "
                "channel of class indices."
            )
        return picture

    values = _open(path, "a map of classes", check)
    strange = values[(values >= num_classes) & (values != 255)]
    if strange.size:
        raise MediaError(
            f"{path}: looked for a map of {num_classes} classes, but it holds the value {strange.max()}: expected "
            f"0 to {num_classes - 1}, or 255."
        )
    return values
