"""Pictures for DeepAVFusion: resize, centre crop, ImageNet normalisation, on tensors alone (no torchvision, no PIL)."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs

try:
    from PIL import Image
except ImportError:
    Image = None

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_COEFFICIENT_BITS = 22  # of PIL's fixed-point weights for 8-bit pictures


@functools.lru_cache(maxsize=64)
def _bilinear_taps(size: int, new_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Antialiased bilinear resampling of one axis in fixed point, as PIL rounds it.

    Returns:
        Input positions (taps, new_size) long and weights (taps, new_size) int32 that sum to about 2^22.
    """
    scale = size / new_size
    support = max(scale, 1.0)
    centers = (np.arange(new_size) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), size)
    positions = first + np.arange((last - first).max())[:, None]
    weights = np.maximum(1 - np.abs((positions - centers + 0.5) / support), 0) * (positions < last)
    fixed = (weights / weights.sum(0) * (1 << _COEFFICIENT_BITS) + 0.5).astype(np.int32)
    return torch.from_numpy(np.minimum(positions, size - 1)), torch.from_numpy(fixed)


def _resample(pixels: torch.Tensor, axis: int, new_size: int) -> torch.Tensor:
    """One axis of 8-bit pictures at a new size; pixels are int32 in 0..255, before and after."""
    if pixels.shape[axis] == new_size:
        return pixels
    positions, weights = (taps.to(pixels.device) for taps in _bilinear_taps(pixels.shape[axis], new_size))
    rows = pixels.movedim(axis, 0).contiguous()  # the axis first, so that a tap copies whole rows
    shape = (new_size, *(1,) * (rows.ndim - 1))
    result = torch.full(
        (new_size, *rows.shape[1:]), 1 << (_COEFFICIENT_BITS - 1), dtype=torch.int32, device=rows.device
    )
    for position, weight in zip(positions, weights):
        result += rows.index_select(0, position).mul_(weight.view(shape))
    return (result >> _COEFFICIENT_BITS).clamp_(0, 255).movedim(0, axis)


def resize(pixels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """
    Antialiased bilinear resizing. 8-bit pictures come out as PIL makes them, bit for bit.

    Args:
        pixels: (..., H, W) uint8 or floating.
        size: (height, width) in pixels.

    Returns:
        (..., height, width) of the same dtype.
    """
    height, width = size
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    if pixels.dtype == torch.uint8:
        # Across, then down, rounding in between, as PIL does.
        return _resample(_resample(pixels.int(), -1, width), -2, height).to(torch.uint8)
    flat = pixels.reshape(-1, 1, *pixels.shape[-2:])
    resized = F.interpolate(flat, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized.view(*pixels.shape[:-2], height, width)


def cover_size(height: int, width: int, size: Sequence[int], crop_pct: float) -> tuple[int, int]:
    """(height, width) to which a picture is resized, in its proportions, so that it just covers size / crop_pct."""
    target_height, target_width = (int(side / crop_pct) for side in size)
    if target_height * width >= target_width * height:
        return target_height, max(int(target_height * width / height), target_width)
    return max(int(target_width * height / width), target_height), target_width


def crop_offsets(height: int, width: int, size: Sequence[int]) -> tuple[int, int]:
    """(top, left) of the centre crop of a picture."""
    return round((height - size[0]) / 2), round((width - size[1]) / 2)


def to_pixels(picture: Any, channels_first: bool | None = None) -> torch.Tensor:
    """
    A picture as a tensor.

    Args:
        picture: PIL image, numpy array or torch tensor; (H, W), (H, W, C) or (C, H, W) with 1 (grey), 3 or 4 channels
            (alpha is dropped). Integers are 0..255, floating numbers 0..1, bools 0 or 1.
        channels_first: whether the layout is (C, H, W). None tells by the channel count; where both ends fit, numpy
            arrays are read as (H, W, C), tensors as (C, H, W).

    Returns:
        (3, H, W), uint8 or float32.

    Raises:
        TypeError: for anything else.
        ValueError: for a shape or range that fits no picture.
    """
    if Image is not None and isinstance(picture, Image.Image):
        if picture.mode.startswith("I;16"):
            return to_pixels(np.asarray(picture).astype(np.float32) / 65535)
        if picture.mode in ("I", "F"):
            return to_pixels(np.asarray(picture))
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    if isinstance(picture, torch.Tensor):
        pixels, channels_first_here = picture.detach(), True
    elif isinstance(picture, np.ndarray):
        # torch takes neither read-only nor reversed arrays, and few of its functions take the larger unsigned integers.
        array = picture.astype(np.int64) if picture.dtype.kind == "u" and picture.dtype.itemsize > 1 else picture
        pixels, channels_first_here = torch.from_numpy(np.require(array, requirements="CW")), False
    else:
        raise TypeError(
            f"Expected a picture as a PIL image, numpy array or torch tensor, got {type(picture).__name__}."
        )
    shape = tuple(pixels.shape)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3:
        fits_first, fits_last = shape[0] in (1, 3, 4), shape[-1] in (1, 3, 4)
        if channels_first is None:
            channels_first = channels_first_here if fits_first and fits_last else fits_first
        pixels = pixels if channels_first else pixels.movedim(-1, 0)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4) or min(pixels.shape) < 1:
        raise ValueError(f"Expected a picture of shape (H, W), (H, W, C) or (C, H, W), C = 1, 3 or 4, got {shape}.")
    return _to_rgb(_to_known_range(pixels))


def _to_rgb(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels[:3]


def _to_known_range(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 as it is, other integers checked to be 0..255, floating numbers checked to be 0..1 and made float32."""
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.float()
    if pixels.is_floating_point():
        pixels = pixels.float()
        low, high = pixels.aminmax()
        # `not` rather than the opposite comparison: NaN has to fail.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(
                f"Expected a floating-point picture in 0..1, got values from {low:.4g} to {high:.4g}. Divide by 255, "
                "or pass uint8."
            )
        return pixels.clamp(0, 1)
    low, high = pixels.aminmax()
    if low < 0 or high > 255:
        raise ValueError(f"Expected an integer picture in 0..255, got values from {low} to {high}.")
    return pixels.to(torch.uint8)


def to_size(size: Any) -> dict[str, int]:
    """A size given as an int, [height, width] or {"height": ..., "width": ...}, as the latter.

    Raises:
        ValueError: for anything else, or sides below 1.
    """
    if isinstance(size, int):
        size = (size, size)
    elif not isinstance(size, (list, tuple)) and hasattr(size, "keys") and {"height", "width"} <= set(size.keys()):
        size = (size["height"], size["width"])
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(isinstance(s, int) and s > 0 for s in size):
        raise ValueError(f'Expected a size as an int, [height, width] or {{"height": .., "width": ..}}, got {size!r}.')
    return {"height": size[0], "width": size[1]}


class DeepAVFusionImagesKwargs(ImagesKwargs, total=False):
    """Settings that `from_pretrained` can override.

    crop_pct (`float`):
        Share of the resized picture's covering side that the crop keeps.
    """

    crop_pct: float


class PictureTransform:
    """
    Evaluation transform shared by pictures and videos: resize so that the picture just covers size / crop_pct
    (antialiased bilinear), centre crop, normalise. Needs the attributes size, crop_pct, image_mean and image_std.
    """

    def _set(self, size: Any, crop_pct: float, image_mean: Sequence[float], image_std: Sequence[float]) -> None:
        if not 0 < crop_pct <= 1:
            raise ValueError(f"crop_pct is {crop_pct}: expected a number in (0, 1].")
        if len(image_mean) != 3 or len(image_std) != 3:
            raise ValueError(f"Expected a mean and deviation for 3 channels, got {image_mean} and {image_std}.")
        self.size = to_size(size)
        self.crop_pct = crop_pct
        self.image_mean = [float(value) for value in image_mean]
        self.image_std = [float(value) for value in image_std]

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of `pixel_values`."""
        return self.size["height"], self.size["width"]

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., 3, H, W), uint8 in 0..255 or floating in 0..1 → float32 without the channels' mean and deviation."""
        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        mean = torch.tensor(self.image_mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.image_std, device=pixels.device).view(3, 1, 1)
        return (scaled - mean) / std

    def denormalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The inverse of `normalize`: (..., 3, H, W) float32 in 0..1."""
        mean = torch.tensor(self.image_mean, device=pixel_values.device).view(3, 1, 1)
        std = torch.tensor(self.image_std, device=pixel_values.device).view(3, 1, 1)
        return (pixel_values * std + mean).clamp(0, 1)

    def transform(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., 3, H, W) uint8 or floating in 0..1 → (..., 3, height, width) float32, all with the same crop."""
        height, width = self.output_size
        resized = resize(pixels, cover_size(*pixels.shape[-2:], (height, width), self.crop_pct))
        top, left = crop_offsets(*resized.shape[-2:], (height, width))
        return self.normalize(resized[..., top : top + height, left : left + width])

    def crop_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in pixels of what a crop shows of a picture of the given height and width."""
        resized_height, resized_width = cover_size(height, width, self.output_size, self.crop_pct)
        top, left = crop_offsets(resized_height, resized_width, self.output_size)
        scale_y, scale_x = height / resized_height, width / resized_width
        bottom, right = top + self.output_size[0], left + self.output_size[1]
        box = round(top * scale_y), round(left * scale_x), round(bottom * scale_y), round(right * scale_x)
        return box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)


class DeepAVFusionImageProcessor(PictureTransform, BaseImageProcessor):
    """
    Pictures → `pixel_values`: the evaluation transform of the published models.

    The short side is resized to int(size / crop_pct) with antialiased bilinear interpolation (for a rectangular `size`:
    the picture just covers it), then the centre is cropped and the ImageNet mean and deviation are removed.

    Args:
        size: side of the square output in pixels, or [height, width].
        crop_pct: 0.875 as published; 1.0 is the transform of the segmentation models (short side to `size`).
        image_mean, image_std: per channel, of pixels in 0..1.

    Example:

    ```python
    >>> import numpy as np
    >>> from deepavfusion import DeepAVFusionImageProcessor

    >>> DeepAVFusionImageProcessor()(np.zeros((360, 480, 3), np.uint8), return_tensors="pt").pixel_values.shape
    torch.Size([1, 3, 224, 224])
    ```
    """

    model_input_names = ["pixel_values"]
    valid_kwargs = DeepAVFusionImagesKwargs

    def __init__(
        self,
        size: Any = 224,
        crop_pct: float = 0.875,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        **kwargs,
    ):
        kwargs.pop("image_processor_type", None)
        ImageProcessingMixin.__init__(self, **kwargs)
        self._set(size, crop_pct, image_mean, image_std)

    def __call__(self, images, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        return self.preprocess(images, return_tensors=return_tensors, channels_first=channels_first)

    def preprocess(self, images, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        """
        Args:
            images: a picture (see `to_pixels` for what is one), a list of pictures, which may differ in size, or a
                batch of them as a 4-D array or tensor.
            return_tensors: `"pt"` or `"np"`.
            channels_first: layout of arrays, see `to_pixels`.

        Returns:
            `pixel_values` (B, 3, height, width) float32.

        Raises:
            TypeError, ValueError: for input that is no picture.
        """
        pictures = as_list(images, ndim=3)
        pixel_values = torch.stack([self.transform(to_pixels(picture, channels_first)) for picture in pictures])
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors)


def as_list(items: Any, ndim: int) -> list:
    """The items of a list or of an array with one axis more than `ndim`; a lone item as a list of one.

    Raises:
        ValueError: for an empty list.
    """
    batch = isinstance(items, (np.ndarray, torch.Tensor)) and items.ndim == ndim + 1
    result = list(items) if batch or isinstance(items, (list, tuple)) else [items]
    if not result:
        raise ValueError("Expected at least one item, got an empty list.")
    return result


DeepAVFusionImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = ["DeepAVFusionImageProcessor"]
