"""Image processor: resizing, fitting and ImageNet normalization. Needs neither torchvision nor PIL."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs

from .fit_deepavfusion import FITS, Region, fit_regions
from .limits_deepavfusion import LimitError, MediaError, max_pixels
from .numbers_deepavfusion import MAX_SIDE, is_count, is_number
from .stills_deepavfusion import decode_image

try:
    from PIL import Image
except ImportError:
    Image = None

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize(pixels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize images with antialiased bilinear interpolation.

    PIL resizes uint8 images, as in the published evaluation. Without PIL, torch does, which differs by at most one
    level of 255. Floating-point images are always resized by torch.

    Args:
        pixels: (..., 3, H, W) uint8 or floating point.
        size: (height, width) in pixels.

    Returns:
        (..., 3, height, width) of the same dtype.
    """
    height, width = size
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    images = pixels.reshape(-1, *pixels.shape[-3:])
    if pixels.dtype == torch.uint8 and Image is not None:
        arrays = [
            np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
            for image in images.movedim(1, -1).numpy(force=True)
        ]
        resized = torch.from_numpy(np.stack(arrays)).movedim(-1, 1).to(pixels.device)
    else:
        resized = F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True, align_corners=False)
        resized = resized.round().clamp(0, 255) if pixels.dtype == torch.uint8 else resized
    return resized.to(pixels.dtype).view(*pixels.shape[:-2], height, width)


def to_pixels(image: Any, channels_first: bool | None = None) -> torch.Tensor:
    """Convert an image to a tensor.

    Args:
        image: PIL image, which is turned and mirrored as its EXIF orientation says, numpy array or torch tensor;
            (H, W), (H, W, C) or (C, H, W) with 1 (gray), 3 or 4 channels (alpha is dropped). Integers are in 0..255,
            floating-point numbers in 0..1, bools are 0 or 1.
        channels_first: Whether the layout is (C, H, W). By default it is inferred from the number of channels; if both
            layouts are possible, numpy arrays are read as (H, W, C) and tensors as (C, H, W).

    Returns:
        (3, H, W), uint8 or float32.

    Raises:
        MediaError: If a PIL image claims more pixels than allowed.
        TypeError: If `image` has an unsupported type.
        ValueError: If its shape or range of values is invalid for an image.
    """
    if Image is not None and isinstance(image, Image.Image):
        try:
            image, channels_first = decode_image(image), False
        except LimitError as error:
            raise MediaError(f"{getattr(image, 'filename', '') or 'image'}: expected an image, but {error}.") from error
    if isinstance(image, torch.Tensor):
        pixels, default_channels_first = image.detach(), True
    elif isinstance(image, np.ndarray):
        # torch supports neither read-only nor reversed arrays, and few operations on the larger unsigned integers.
        array = image.astype(np.int64) if image.dtype.kind == "u" and image.dtype.itemsize > 1 else image
        pixels, default_channels_first = torch.from_numpy(np.require(array, requirements="CW")), False
    else:
        raise TypeError(f"Expected an image as a PIL image, numpy array or torch tensor, got {type(image).__name__}.")
    shape = tuple(pixels.shape)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3:
        fits_first, fits_last = shape[0] in (1, 3, 4), shape[-1] in (1, 3, 4)
        if channels_first is None:
            channels_first = default_channels_first if fits_first and fits_last else fits_first
        pixels = pixels if channels_first else pixels.movedim(-1, 0)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4) or min(pixels.shape) < 1:
        raise ValueError(f"Expected an image of shape (H, W), (H, W, C) or (C, H, W), C = 1, 3 or 4, got {shape}.")
    return _to_rgb(_to_known_range(pixels))


def _to_rgb(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels[:3]


def _to_known_range(pixels: torch.Tensor) -> torch.Tensor:
    """Convert integers to uint8 and other numbers to float32, after checking that they are in 0..255 or 0..1."""
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.float()
    if pixels.is_floating_point():
        pixels = pixels.float()
        low, high = pixels.aminmax()
        # `not` rather than the opposite comparison, so that NaN fails.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(
                f"Expected a floating-point image in 0..1, got values from {low:.4g} to {high:.4g}; divide it by 255 "
                "or pass uint8."
            )
        return pixels.clamp(0, 1)
    low, high = pixels.aminmax()
    if low < 0 or high > 255:
        raise ValueError(f"Expected an integer image in 0..255, got values from {low} to {high}.")
    return pixels.to(torch.uint8)


def to_size(size: Any) -> dict[str, int]:
    """Convert an int, [height, width] or {"height": ..., "width": ...} to the dict form.

    Raises:
        ValueError: If `size` is anything else, or a side is below 1 or above 16384.
    """
    if isinstance(size, int):
        size = (size, size)
    elif not isinstance(size, (list, tuple)) and hasattr(size, "keys") and {"height", "width"} <= set(size.keys()):
        size = (size["height"], size["width"])
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(is_count(s, MAX_SIDE) for s in size):
        raise ValueError(
            'Expected a size as an int, [height, width] or {"height": .., "width": ..}, with sides of at most '
            f"{MAX_SIDE}, got {size!r}."
        )
    return {"height": size[0], "width": size[1]}


def check_fit(fit: Any) -> str:
    """Return `fit`.

    Raises:
        ValueError: If there is no such fit.
    """
    if fit not in FITS:
        raise ValueError(f"Expected fit as one of {', '.join(FITS)}, got {fit!r}.")
    return fit


class DeepAVFusionImagesKwargs(ImagesKwargs, total=False):
    """Settings that `from_pretrained` can override.

    crop_pct (`float`):
        Fraction of the resized image's side that the crop keeps.
    fit (`str`):
        How images of another shape are fitted: crop, pad, squash or tiles.
    """

    crop_pct: float
    fit: str


class ImageTransform:
    """Evaluation transform shared by images and videos.

    Resizes (antialiased bilinear), fits and normalizes. Subclasses have the attributes size, crop_pct, image_mean,
    image_std and fit.
    """

    def _set(
        self, size: Any, crop_pct: float, image_mean: Sequence[float], image_std: Sequence[float], fit: str
    ) -> None:
        if not 0 < crop_pct <= 1:
            raise ValueError(f"Expected crop_pct in (0, 1], got {crop_pct}.")
        if len(image_mean) != 3 or len(image_std) != 3:
            raise ValueError(f"Expected image_mean and image_std of 3 channels, got {image_mean} and {image_std}.")
        if not all(is_number(v, 0, 1) for v in image_mean) or not all(is_number(v, 1e-6, 1000) for v in image_std):
            raise ValueError(
                f"Expected image_mean in 0..1 and image_std as positive numbers, for pixels in 0..1, got {image_mean} "
                f"and {image_std}."
            )
        self.size = to_size(size)
        if self.size["height"] * self.size["width"] > max_pixels() * crop_pct**2:
            raise ValueError(f"Expected a size of at most {max_pixels()} pixels, got {size!r}, crop_pct {crop_pct}.")
        self.crop_pct = crop_pct
        self.image_mean = [float(value) for value in image_mean]
        self.image_std = [float(value) for value in image_std]
        self.fit = check_fit(fit)

    def with_fit(self, fit: str):
        """Return this processor with another `fit`.

        Raises:
            ValueError: If there is no such fit.
        """
        other = copy.copy(self)
        other.fit = check_fit(fit)
        return other

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of `pixel_values`."""
        return self.size["height"], self.size["width"]

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalize (..., 3, H, W) pixels, uint8 or floating point in 0..1, by the mean and std; returns float32."""
        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        mean = torch.tensor(self.image_mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.image_std, device=pixels.device).view(3, 1, 1)
        return (scaled - mean) / std

    def denormalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Invert `normalize`: (..., 3, H, W) float32 in 0..1."""
        mean = torch.tensor(self.image_mean, device=pixel_values.device).view(3, 1, 1)
        std = torch.tensor(self.image_std, device=pixel_values.device).view(3, 1, 1)
        return (pixel_values * std + mean).clamp(0, 1)

    def regions(self, height: int, width: int) -> list[Region]:
        """Find the parts of an image of (height, width) pixels that become inputs: one, or several with tiles."""
        return fit_regions(height, width, self.output_size, self.crop_pct, self.fit)

    def views(self, pixels: torch.Tensor) -> torch.Tensor:
        """Resize, fit and normalize images of one size.

        Args:
            pixels: (..., 3, H, W) uint8, or floating point in 0..1.

        Returns:
            (K, ..., 3, height, width) float32: K inputs of the model, one for each of `regions`.
        """
        size, resized = self.output_size, {}
        views = []
        for region in self.regions(*pixels.shape[-2:]):
            if region.source not in resized:  # tiles are parts of one resized image
                top, left, bottom, right = region.source
                resized = {region.source: resize(pixels[..., top:bottom, left:right], region.resized)}
            image, (top, left) = resized[region.source], region.offset
            part = self.normalize(image[..., max(top, 0) : top + size[0], max(left, 0) : left + size[1]])
            above, before = max(-top, 0), max(-left, 0)
            below, behind = size[0] - above - part.shape[-2], size[1] - before - part.shape[-1]
            views.append(F.pad(part, (before, behind, above, below)))  # with the mean color
        return torch.stack(views)

    def transform(self, pixels: torch.Tensor) -> torch.Tensor:
        """Resize, fit and normalize images of one size, each to one input.

        Args:
            pixels: (..., 3, H, W) uint8, or floating point in 0..1.

        Returns:
            (..., 3, height, width) float32.

        Raises:
            ValueError: If the processor cuts the images into several tiles.
        """
        views = self.views(pixels)
        if len(views) > 1:
            raise ValueError(
                f"Expected one view of an image, but fit='tiles' cuts {tuple(pixels.shape[-2:])} into {len(views)}: "
                "use another fit."
            )
        return views[0]

    def crop_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Compute the part of a (height, width) image that the model sees: (top, left, bottom, right) in its pixels."""
        boxes = [region.box for region in self.regions(height, width)]
        top, left = (max(min(box[side] for box in boxes), 0) for side in (0, 1))
        bottom, right = max(box[2] for box in boxes), max(box[3] for box in boxes)
        return top, left, min(bottom, height), min(right, width)


class DeepAVFusionImageProcessor(ImageTransform, BaseImageProcessor):
    """Evaluation transform of the published models: images to `pixel_values`.

    The short side is resized to int(size / crop_pct) with antialiased bilinear interpolation; for a rectangular `size`,
    the image is resized to just cover it. Then the center is cropped and normalized by the ImageNet mean and standard
    deviation. Other ways to fit wide and upright images are `fit="pad"`, `"squash"` and `"tiles"`, which show all of
    an image, so that `crop_pct` has no effect.

    Args:
        size: Side of the square output in pixels, or [height, width].
        crop_pct: Fraction of the resized side that the crop keeps: 0.875 as published; 1.0 for the segmentation models
            (short side to `size`).
        image_mean: Mean of each channel, of pixels in 0..1.
        image_std: Standard deviation of each channel.
        fit: `"crop"` (the center, as published), `"pad"` (all of the image, with margins of the mean color), `"squash"`
            (all of it, distorted) or `"tiles"` (overlapping crops that cover it, each of which is an input).

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
        fit: str = "crop",
        **kwargs,
    ):
        """Check and store the settings."""
        kwargs.pop("image_processor_type", None)
        ImageProcessingMixin.__init__(self, **kwargs)
        self._set(size, crop_pct, image_mean, image_std, fit)

    def __call__(self, images, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        """Call `preprocess`."""
        return self.preprocess(images, return_tensors=return_tensors, channels_first=channels_first)

    def preprocess(self, images, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        """Resize, fit and normalize images.

        Args:
            images: An image as described in `to_pixels`, a list of images, which may differ in size, or a batch as a
                4-D array or tensor.
            return_tensors: `"pt"` or `"np"`.
            channels_first: Layout of arrays, see `to_pixels`.

        Returns:
            `pixel_values` (B, 3, height, width) float32. With `fit="tiles"`, each image has as many rows as
            `len(regions(height, width))` of its size.

        Raises:
            MediaError: If a PIL image claims more pixels than allowed.
            TypeError: If an item is not an image.
            ValueError: If an image has the wrong shape or range of values, or the list is empty.
        """
        items = as_list(images, ndim=3)
        pixel_values = torch.cat([self.views(to_pixels(image, channels_first)) for image in items])
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors)


def as_list(items: Any, ndim: int) -> list:
    """List the items of a list, or of an array with one axis more than `ndim`; a single item gives a list of one.

    Raises:
        ValueError: If the list is empty.
    """
    batch = isinstance(items, (np.ndarray, torch.Tensor)) and items.ndim == ndim + 1
    result = list(items) if batch or isinstance(items, (list, tuple)) else [items]
    if not result:
        raise ValueError("Expected at least one item, got an empty list.")
    return result


DeepAVFusionImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = ["DeepAVFusionImageProcessor"]
