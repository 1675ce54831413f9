"""Views of images, so that masks and boxes follow an image through resizing, cropping and flipping."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from deepavfusion.processors import MediaError
from deepavfusion.processors.limits_deepavfusion import ReasonError
from deepavfusion.processors.stills_deepavfusion import (
    Orientation,
    decode_image,
    exif_orientation,
    is_misfit,
    open_image,
)
from deepavfusion_cli.early.contents import is_video

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
    [region] = visual_processor.regions(height, width)
    (top, rows), (left, columns) = region.span(0), region.span(1)
    return View(top / height, left / width, rows / height, columns / width, region.size)


def training_view(augmentation: ClipAugmentation, height: int, width: int, generator: torch.Generator) -> View:
    """The view that `augmentation.frames` takes of an image of (height, width) pixels, given an equal generator."""
    size = augmentation.visual_processor.output_size
    part = draw_crop(height, width, size, augmentation.area, augmentation.aspect, generator)
    flip = bool(torch.rand((), generator=generator) < augmentation.flip)
    top, left = part[0] / height, part[1] / width
    return View(top, left, part[2] / height, part[3] / width, tuple(size), flip)


class Frame(NamedTuple):
    """An image that a mask belongs to: its file, and its (height, width) as it is shown."""

    path: str
    shape: tuple[int, int]

    def orientation(self, size: tuple[int, int]) -> Orientation:
        """The orientation of a mask without one of its own, stored as (width, height) pixels.

        Masks are drawn on the image as it is shown, unless their shape says that they are stored as the image is.
        """
        if size != self.shape or size[0] == size[1] or is_video(self.path):
            return Orientation()
        with open_image(self.path) as image:
            orientation = exif_orientation(image)
        return orientation if orientation.transpose else Orientation()


@contextmanager
def _opened(path: str | Path, expected: str):
    """Open an image file with PIL, turning errors inside into `MediaError`."""
    try:
        with open_image(str(path)) as image:
            yield image
    except ReasonError as error:
        raise MediaError(f"{path}: expected {expected}, but {error}.") from error
    except MediaError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error ...
        if is_misfit(error):
            raise
        raise MediaError(f"{path}: expected {expected}, got {type(error).__name__}: {error}.") from error


def _read_shown(path: str | Path, expected: str, convert, frame: Frame | None) -> np.ndarray:
    """Read a converted image as it is shown, (H, W, channels)."""
    with _opened(path, expected) as image:
        orientation = exif_orientation(image)
        if frame is not None and orientation == Orientation():
            orientation = frame.orientation(image.size)
        values = np.asarray(convert(image))
        return orientation.apply(values.reshape(*values.shape[:2], -1))


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8, as it is shown.

    Raises:
        MediaError: The file is missing or not an image, or has more pixels than allowed.
    """
    with _opened(path, "an image") as image:
        return np.ascontiguousarray(decode_image(image))


def read_mask(path: str | Path, frame: Frame | None = None) -> np.ndarray:
    """Read a mask as (H, W) uint8: 1 where any channel is not 0. The alpha channel does not count.

    Args:
        path: Image file, shown as its own orientation says.
        frame: The image that the mask belongs to, whose orientation counts if the mask has none and is stored alike.

    Raises:
        MediaError: The file is missing or not an image, or has more pixels than allowed.
    """
    return (_read_shown(path, "a mask", _without_alpha, frame) != 0).any(-1).astype(np.uint8)


def _without_alpha(image):
    if image.mode in ("RGBA", "PA"):
        return image.convert("RGB")
    return image.getchannel(0) if image.mode == "LA" else image


def read_class_map(path: str | Path, num_classes: int, frame: Frame | None = None) -> np.ndarray:
    """Read class indices as (H, W) uint8: gray levels or palette indices 0 .. num_classes - 1, or 255, to be ignored.

    Args:
        path: Image file.
        num_classes: Number of classes.
        frame: See [`read_mask`].

    Raises:
        MediaError: The file is missing, not an image of one channel, or holds other values.
    """

    def check(image):
        if image.mode not in ("L", "P"):
            raise MediaError(
                f"{path}: expected a class map with one channel of class indices, got an image of mode {image.mode}."
            )
        return image

    values = np.ascontiguousarray(_read_shown(path, "a class map", check, frame)[..., 0])
    invalid = values[(values >= num_classes) & (values != 255)]
    if invalid.size:
        raise MediaError(
            f"{path}: expected a class map with the values 0 to {num_classes - 1}, or 255, got {invalid.max()}."
        )
    return values
