"""Augmentations of training clips: random resized crop, flip and volume, drawn from a generator that is passed in."""

import math
from typing import Any

import numpy as np
import torch

from deepavfusion.processors.pixels_deepavfusion import resize, to_pixels

_ATTEMPTS = 10
_AREA, _ASPECT = (0.5, 1.0), (3 / 4, 4 / 3)
# Square of the short side of the smallest crop, relative to the area of the image and for a square output.
SMALLEST_CROP = _AREA[0] * _ASPECT[0]


def draw_crop(
    height: int,
    width: int,
    size: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> tuple[int, int, int, int]:
    """Draw a random crop: fraction of the area uniform, distortion log-uniform, position uniform.

    The first of ten draws that lies within the image is taken; failing that, the largest central crop of allowed
    distortion.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        size: (height, width) to which the crop will be resized.
        area: Smallest and largest fraction of the area.
        aspect: Smallest and largest width / height of the crop, relative to that of `size`.
        generator: Generator of the draws; 4 * 10 numbers are drawn in any case.

    Returns:
        (top, left, height, width) in pixels.
    """
    draws = torch.rand(_ATTEMPTS, 4, generator=generator, dtype=torch.float64).tolist()
    low, high = (math.log(value * size[1] / size[0]) for value in aspect)
    for fraction, distortion, down, across in draws:
        pixels = (area[0] + (area[1] - area[0]) * fraction) * height * width
        ratio = math.exp(low + (high - low) * distortion)
        crop_height, crop_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top, left = int(down * (height - crop_height + 1)), int(across * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    ratio = min(max(width / height, math.exp(low)), math.exp(high))
    crop_height, crop_width = min(height, max(round(width / ratio), 1)), min(width, max(round(height * ratio), 1))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


class ClipAugmentation:
    """Augmentation of a clip: a random resized crop and a flip, the same for all frames, and a random volume.

    Args:
        visual_processor: Image or video processor that gives the size and normalizes (`processor.visual_processor`).
        area: Smallest and largest fraction of the image's area.
        aspect: Smallest and largest distortion, width / height relative to the output's.
        flip: Probability of a horizontal flip.
        decibels: Largest change of the volume, in either direction.

    Example:
    ```python
    >>> import numpy as np
    >>> import torch
    >>> from deepavfusion import DeepAVFusionImageProcessor
    >>> from deepavfusion.training.data.augmentation import ClipAugmentation

    >>> augmentation = ClipAugmentation(DeepAVFusionImageProcessor(size=64))
    >>> frames, generator = np.zeros((1, 120, 160, 3), np.uint8), torch.Generator().manual_seed(0)
    >>> augmentation.frames(frames, generator).shape
    torch.Size([1, 3, 64, 64])
    ```
    """

    def __init__(
        self,
        visual_processor,
        area: tuple[float, float] = _AREA,
        aspect: tuple[float, float] = _ASPECT,
        flip: float = 0.5,
        decibels: float = 6.0,
    ):
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"Expected area = (smallest, largest) with 0 < smallest <= largest <= 1, got {area}.")
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"Expected aspect = (smallest, largest) with 0 < smallest <= largest, got {aspect}.")
        if not 0 <= flip <= 1 or decibels < 0:
            raise ValueError(f"Expected flip in 0..1 and decibels of at least 0, got {flip} and {decibels}.")
        self.visual_processor = visual_processor
        self.area, self.aspect, self.flip, self.decibels = tuple(area), tuple(aspect), flip, decibels

    def frames(self, frames: Any, generator: torch.Generator) -> torch.Tensor:
        """Crop, resize, flip at random and normalize the frames of one clip, all alike.

        Integers are resized by torch, which differs from the published evaluation (PIL) by at most one level of 255.

        Args:
            frames: (T, H, W, 3) or (T, 3, H, W), uint8 or floating in 0..1, numpy or torch; or a list of images of one
                size.
            generator: CPU generator of the draws.

        Returns:
            (T, 3, height, width) float32.
        """
        pixels = _decoded(frames)
        if pixels is None:
            pixels = torch.stack([to_pixels(frame) for frame in frames])
        size = self.visual_processor.output_size
        top, left, height, width = draw_crop(*pixels.shape[-2:], size, self.area, self.aspect, generator)
        pixels = resize(pixels[..., top : top + height, left : left + width], size, exact=False)
        if torch.rand((), generator=generator) < self.flip:
            pixels = pixels.flip(-1)
        return self.visual_processor.normalize(pixels.contiguous())

    def waveform(self, waveform: Any, generator: torch.Generator) -> torch.Tensor:
        """Change the volume of a waveform and clip it at full scale.

        Args:
            waveform: (..., N) floating, numpy or torch, full scale ±1.
            generator: CPU generator of the draw.

        Returns:
            (..., N) float32 in -1..1.

        Raises:
            TypeError: For integers, whose full scale is not ±1.
        """
        waveform = torch.as_tensor(waveform)
        if not waveform.is_floating_point():
            raise TypeError(f"Expected a floating-point waveform, got {waveform.dtype}.")
        decibels = (2 * torch.rand((), generator=generator, dtype=torch.float64).item() - 1) * self.decibels
        return (waveform.float() * 10 ** (decibels / 20)).clamp(-1, 1)


def _decoded(frames: Any) -> torch.Tensor | None:
    """Frames as they are decoded, (T, H, W, 3) uint8, as (T, 3, H, W) without a copy; None of others."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4:
        return None
    usable = frames.flags.c_contiguous and frames.flags.writeable
    return torch.from_numpy(frames).movedim(-1, 1) if usable and frames.shape[-1] == 3 < frames.shape[1] else None


__all__ = ["SMALLEST_CROP", "ClipAugmentation", "draw_crop"]
