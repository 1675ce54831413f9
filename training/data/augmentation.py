"""Augmentations of training clips: random resized crop, flip and volume, drawn from a generator that is passed in."""

import math
from typing import Any

import torch

from deepavfusion.processors.image_processing_deepavfusion import resize, to_pixels

_ATTEMPTS = 10


def draw_crop(
    height: int,
    width: int,
    size: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> tuple[int, int, int, int]:
    """
    A random part of a picture: share of its area uniform, distortion log-uniform, place uniform.

    Ten tries to find one that lies within the picture; then the largest centred part of allowed distortion.

    Args:
        height, width: of the picture.
        size: (height, width) to which the part will be resized.
        area: least and greatest share.
        aspect: least and greatest width / height of the part, relative to that of `size`.
        generator: is asked for 4 * 10 numbers, whatever comes out.

    Returns:
        (top, left, height, width) in pixels.
    """
    draws = torch.rand(_ATTEMPTS, 4, generator=generator, dtype=torch.float64).tolist()
    low, high = (math.log(value * size[1] / size[0]) for value in aspect)
    for share, shape, down, across in draws:
        pixels = (area[0] + (area[1] - area[0]) * share) * height * width
        ratio = math.exp(low + (high - low) * shape)
        crop_height, crop_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top, left = int(down * (height - crop_height + 1)), int(across * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    ratio = min(max(width / height, math.exp(low)), math.exp(high))
    crop_height, crop_width = min(height, max(round(width / ratio), 1)), min(width, max(round(height * ratio), 1))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


class ClipAugmentation:
    """
    Pictures and sound of a clip as they are augmented for training: a random resized crop, the same for all frames, a
    flip in half of the clips, and another volume.

    Args:
        visual_processor: image or video processor, `processor.visual_processor`: gives the size and normalises.
        area: least and greatest share of the picture's area.
        aspect: least and greatest distortion, width / height relative to the output's.
        flip: probability.
        decibels: the volume changes by up to this, either way.

    Example:

    ```python
    >>> import numpy as np
    >>> import torch
    >>> from deepavfusion import DeepAVFusionImageProcessor
    >>> from deepavfusion.processors import ClipAugmentation

    >>> augmentation = ClipAugmentation(DeepAVFusionImageProcessor(size=64))
    >>> frames, generator = np.zeros((1, 120, 160, 3), np.uint8), torch.Generator().manual_seed(0)
    >>> augmentation.pictures(frames, generator).shape
    torch.Size([1, 3, 64, 64])
    ```
    """

    def __init__(
        self,
        visual_processor,
        area: tuple[float, float] = (0.5, 1.0),
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        decibels: float = 6.0,
    ):
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area is {area}: expected 0 < least <= greatest <= 1.")
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"aspect is {aspect}: expected 0 < least <= greatest.")
        if not 0 <= flip <= 1 or decibels < 0:
            raise ValueError(f"Expected flip in 0..1 and decibels of at least 0, got {flip} and {decibels}.")
        self.visual_processor = visual_processor
        self.area, self.aspect, self.flip, self.decibels = tuple(area), tuple(aspect), flip, decibels

    def pictures(self, frames: Any, generator: torch.Generator) -> torch.Tensor:
        """
        Frames of one clip, cropped alike, resized, perhaps flipped, and normalised.

        Args:
            frames: (T, H, W, 3) or (T, 3, H, W), uint8 or floating in 0..1, numpy or torch; or a list of pictures of
                one size.
            generator: of the draws, on the CPU.

        Returns:
            (T, 3, height, width) float32.
        """
        pixels = torch.stack([to_pixels(frame) for frame in frames])
        size = self.visual_processor.output_size
        top, left, height, width = draw_crop(*pixels.shape[-2:], size, self.area, self.aspect, generator)
        pixels = resize(pixels[..., top : top + height, left : left + width], size)
        if torch.rand((), generator=generator) < self.flip:
            pixels = pixels.flip(-1)
        return self.visual_processor.normalize(pixels)

    def sound(self, waveform: Any, generator: torch.Generator) -> torch.Tensor:
        """
        A waveform at another volume, clipped at full scale.

        Args:
            waveform: (..., N) floating, numpy or torch, full scale ±1.
            generator: of the draw, on the CPU.

        Returns:
            (..., N) float32 in -1..1.

        Raises:
            TypeError: for integers, whose full scale is not ±1.
        """
        waveform = torch.as_tensor(waveform)
        if not waveform.is_floating_point():
            raise TypeError(f"Expected a floating-point waveform, got {waveform.dtype}.")
        decibels = (2 * torch.rand((), generator=generator, dtype=torch.float64).item() - 1) * self.decibels
        return (waveform.float() * 10 ** (decibels / 20)).clamp(-1, 1)


__all__ = ["ClipAugmentation", "draw_crop"]
