"""Image processor: resizing, fitting and ImageNet normalization. Needs neither torchvision nor PIL.

The operations are those of transformers' image processors, on its base class `BaseImageProcessor`, in torch.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack

from .fit_deepavfusion import FITS, Region, crop_offsets, fit_regions
from .limits_deepavfusion import max_pixels
from .numbers_deepavfusion import MAX_SIDE, is_count, is_number
from .pixels_deepavfusion import as_list, resize, to_pixels
from .threads_deepavfusion import use_one_thread_after_fork

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


def _plain(size: Any) -> Any:
    """Convert transformers' `SizeDict` to a dictionary."""
    return dict(size) if isinstance(size, SizeDict) else size


def crop_fraction(size: Any, crop_size: dict[str, int]) -> float:
    """Compute the fraction of the resized side that a crop keeps, from the sizes before and after cropping.

    Args:
        size: As for `to_size`, or {"shortest_edge": ...}.
        crop_size: {"height": ..., "width": ...}.
    """
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    sides = {"height": edge, "width": edge} if is_count(edge, MAX_SIDE) else to_size(size)
    side, name = min((crop_size[name], name) for name in crop_size)
    fraction = side / sides[name]
    # The quotient may be rounded so that the resized image lacks a row.
    return fraction if int(side / fraction) == sides[name] else math.nextafter(fraction, 0.0)


class DeepAVFusionImageProcessorKwargs(ImagesKwargs, total=False):
    """Options of the image processor besides those of transformers.

    crop_pct (`float`):
        Fraction of the resized image's side that the crop keeps.
    fit (`str`):
        How images of another shape are fitted: crop, pad, squash or tiles.
    """

    crop_pct: float | int | None
    fit: str | None


class ImageTransform(BaseImageProcessor):
    """Evaluation transform shared by images and videos.

    Resizes (antialiased bilinear), fits and normalizes, as the attributes say, which are the options of a call, too.
    """

    do_convert_rgb = True
    do_resize = True
    size: Any = 224
    crop_size: Any = None
    resample = 2
    do_center_crop = True
    do_normalize = True
    do_rescale = True
    rescale_factor = 1 / 255
    image_mean: Sequence[float] = IMAGENET_MEAN
    image_std: Sequence[float] = IMAGENET_STD
    crop_pct = 0.875
    fit = "crop"

    def __init__(self, **kwargs):
        """Check and store the options."""
        for name in ("auto_map", "image_processor_type", "video_processor_type"):
            kwargs.pop(name, None)
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)

    @property
    def auto_map(self) -> dict[str, str]:
        """The class that `trust_remote_code=True` loads; not stored, so that saving does not change the processor."""
        return {self._auto_class: f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"}

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return {**super().to_dict(), "auto_map": self.auto_map}

    def _standardize_kwargs(self, size=None, crop_size=None, image_mean=None, image_std=None, **kwargs) -> dict:
        """Check the options, of the processor or of a call, and convert them to one form."""
        size = _plain(size)
        if crop_size is None:
            sides, crop_pct = to_size(size), kwargs["crop_pct"]
            size = sides
        else:
            crop_size = to_size(_plain(crop_size))
            sides, crop_pct = crop_size, crop_fraction(size, crop_size)
            size = size if isinstance(size, Mapping) else to_size(size)
        if crop_size is None and (not is_number(crop_pct, 0, 1) or crop_pct == 0):
            raise ValueError(f"Expected crop_pct in (0, 1], got {crop_pct}.")
        if sides["height"] * sides["width"] > max_pixels() * crop_pct**2:
            raise ValueError(f"Expected a size of at most {max_pixels()} pixels, got {size!r}, crop_pct {crop_pct}.")
        mean, std = ([value] * 3 if is_number(value) else list(value) for value in (image_mean, image_std))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"Expected image_mean and image_std of 3 channels, got {image_mean} and {image_std}.")
        if not all(is_number(v, 0, 1) for v in mean) or not all(is_number(v, 1e-6, 1000) for v in std):
            raise ValueError(
                f"Expected image_mean in 0..1 and image_std as positive numbers, for pixels in 0..1, got {image_mean} "
                f"and {image_std}."
            )
        if kwargs.get("do_pad") or kwargs.get("data_format") not in (None, "channels_first"):
            raise ValueError("Expected fit='pad' instead of do_pad, and no data_format but 'channels_first'.")
        if not is_count(kwargs["resample"] + 1, 8):
            raise ValueError(f"Expected resample as a number of PIL.Image.Resampling, got {kwargs['resample']!r}.")
        return {
            **kwargs,
            "resample": int(kwargs["resample"]),
            "size": size,
            "crop_size": crop_size,
            "image_mean": [float(value) for value in mean],
            "image_std": [float(value) for value in std],
            "fit": check_fit(kwargs["fit"]),
        }

    def _validate_preprocess_kwargs(self, **kwargs) -> None:
        """Do nothing: the options have been checked."""

    def with_options(self, **options):
        """Return this processor with other values of options that have been checked."""
        other = copy.copy(self)
        for name, value in options.items():
            setattr(other, name, value)
        return other

    def with_fit(self, fit: str):
        """Return this processor with another `fit`.

        Raises:
            ValueError: If there is no such fit.
        """
        return self.with_options(fit=check_fit(fit))

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of `pixel_values`."""
        size = self.size if self.crop_size is None else self.crop_size
        return size["height"], size["width"]

    def pixels(self, image: Any, input_data_format: Any = None, device: Any = None) -> torch.Tensor:
        """Convert an image to (3, H, W) uint8 or float32 on a device, see `to_pixels`."""
        channels_first = None if input_data_format in (None, "none") else input_data_format == "channels_first"
        pixels = to_pixels(image, channels_first, check_range=self.do_rescale)
        return pixels if device is None else pixels.to(device)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Rescale and normalize (..., 3, H, W) pixels, uint8 or floating point in 0..1; returns float32."""
        values = pixels.to(torch.float32, copy=True)
        if self.do_rescale:
            values = values.div_(255) if pixels.dtype == torch.uint8 else values
            gain = 255 * self.rescale_factor  # floating-point pixels count as levels divided by 255
            values = values if gain == 1 else values.mul_(gain)
        if not self.do_normalize:
            return values
        mean, std = self._statistics(pixels.device)
        return values.sub_(mean).div_(std)

    def denormalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Invert `normalize`: (..., 3, H, W) float32 in 0..1."""
        mean, std = self._statistics(pixel_values.device)
        return (pixel_values * std + mean).clamp(0, 1)

    def _statistics(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor(v, device=device).view(3, 1, 1) for v in (self.image_mean, self.image_std))

    def regions(self, height: int, width: int) -> list[Region]:
        """Find the parts of an image of (height, width) pixels that become inputs: one, or several with tiles."""
        whole, size = (0, 0, height, width), self.output_size
        if not self.do_resize:
            size = size if self.do_center_crop else (height, width)
            return [Region(whole, (height, width), crop_offsets(height, width, size), size)]
        fit = "squash" if self.fit == "crop" and not self.do_center_crop else self.fit
        crop_pct = self.crop_pct if self.crop_size is None else crop_fraction(self.size, self.crop_size)
        return fit_regions(height, width, size, crop_pct, fit)

    def views(self, pixels: torch.Tensor) -> torch.Tensor:
        """Resize, fit and normalize images of one size.

        Args:
            pixels: (..., 3, H, W) uint8, or floating point in 0..1.

        Returns:
            (K, ..., 3, height, width) float32: K inputs of the model, one for each of `regions`.
        """
        resized, views = {}, []
        for region in self.regions(*pixels.shape[-2:]):
            if region.source not in resized:  # tiles are parts of one resized image
                top, left, bottom, right = region.source
                resized = {region.source: resize(pixels[..., top:bottom, left:right], region.resized, self.resample)}
            image, (top, left), size = resized[region.source], region.offset, region.size
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


class DeepAVFusionImageProcessor(ImageTransform):
    """Evaluation transform of the published models: images to `pixel_values`.

    The short side is resized to int(size / crop_pct) with antialiased bilinear interpolation; for a rectangular `size`,
    the image is resized to just cover it. Then the center is cropped and normalized by the ImageNet mean and standard
    deviation. Other ways to fit wide and upright images are `fit="pad"`, `"squash"` and `"tiles"`, which show all of
    an image, so that `crop_pct` has no effect.

    Args:
        size: Side of the square output in pixels, or [height, width]; 224.
        crop_pct: Fraction of the resized side that the crop keeps: 0.875 as published; 1.0 for the segmentation models
            (short side to `size`).
        image_mean: Mean of each channel, of pixels in 0..1.
        image_std: Standard deviation of each channel.
        do_resize: False to crop or pad images to `size` as they are.
        do_center_crop: False to resize images to `size` without cropping, or with do_resize=False not to change it.
        do_rescale: False to take values as they are, instead of integers in 0..255 and other numbers in 0..1.
        rescale_factor: 1 / 255, by which integers are multiplied.
        do_normalize: False to omit mean and standard deviation.
        resample: Filter of resizing, as a number of `PIL.Image.Resampling`; 2, which is bilinear.
        crop_size: As in other processors of transformers: with it, `size` is that of the resized image.
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
    valid_kwargs = DeepAVFusionImageProcessorKwargs

    def __init__(self, **kwargs: Unpack[DeepAVFusionImageProcessorKwargs]):
        """Check and store the options."""
        super().__init__(**kwargs)

    def preprocess(self, images, **kwargs: Unpack[DeepAVFusionImageProcessorKwargs]) -> BatchFeature:
        """Resize, fit and normalize images.

        Args:
            images: An image as described in `to_pixels`, a sequence of images, which may differ in size, or a batch as
                a 4-D array or tensor.
            **kwargs: Options of this call, instead of the processor's own; and `return_tensors` (`"pt"` or `"np"`),
                `input_data_format` ("channels_first" or "channels_last", for arrays) and `device`.

        Returns:
            `pixel_values` (B, 3, height, width) float32. With `fit="tiles"`, each image has as many rows as
            `len(regions(height, width))` of its size.

        Raises:
            MediaError: If a PIL image claims more pixels than allowed, or a file cannot be read.
            TypeError: If an item is not an image.
            ValueError: If an image has the wrong shape or range of values, there are none, or without resizing and
                cropping, they differ in size.
        """
        use_one_thread_after_fork()
        return super().preprocess(images, **kwargs)

    def _preprocess_image_like_inputs(
        self, images, *, return_tensors=None, input_data_format=None, device=None, **options
    ) -> BatchFeature:
        transform = self.with_options(**options)
        views = [transform.views(transform.pixels(image, input_data_format, device)) for image in as_list(images, 3)]
        if len(sizes := {tuple(view.shape[-2:]) for view in views}) > 1:
            raise ValueError(f"Expected images of one size without do_resize and do_center_crop, got {sorted(sizes)}.")
        return BatchFeature({"pixel_values": torch.cat(views)}, tensor_type=return_tensors)


DeepAVFusionImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = ["DeepAVFusionImageProcessor"]
