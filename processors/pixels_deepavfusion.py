"""Images in the forms that users have, as tensors of pixels; and their resizing. Needs neither torchvision nor PIL."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .limits_deepavfusion import LimitError, MediaError
from .media_deepavfusion import load_clip
from .numbers_deepavfusion import to_tensor
from .sources_deepavfusion import as_items, is_file
from .stills_deepavfusion import decode_image

try:
    from PIL import Image
except ImportError:
    Image = None

_TORCH_MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # of the filters of PIL


def resize(pixels: torch.Tensor, size: Sequence[int], resample: int = 2, exact: bool = True) -> torch.Tensor:
    """Resize images, with antialiasing.

    PIL resizes uint8 images, as in the published evaluation. Without PIL, torch does, which differs by at most one
    level of 255 (bilinear filter). Floating-point images are always resized by torch.

    Args:
        pixels: (..., 3, H, W) uint8 or floating point.
        size: (height, width) in pixels.
        resample: Filter, as a number of `PIL.Image.Resampling`: 2 is bilinear, which is what the published models use.
        exact: False lets torch resize uint8 images in any case, in less time.

    Returns:
        (..., 3, height, width) of the same dtype.

    Raises:
        ValueError: If torch lacks the filter.
    """
    height, width = size
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    images = pixels.reshape(-1, *pixels.shape[-3:])
    if pixels.dtype == torch.uint8 and Image is not None and (exact or resample not in _TORCH_MODES):
        arrays = [
            np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling(resample)))
            for image in images.movedim(1, -1).numpy(force=True)
        ]
        resized = torch.from_numpy(np.stack(arrays)).movedim(-1, 1).to(pixels.device)
    elif resample not in _TORCH_MODES:
        raise ValueError(
            f"Expected resample as {', '.join(map(str, _TORCH_MODES))} for floating-point images, got {resample!r}."
        )
    else:
        mode = _TORCH_MODES[resample]
        options = {} if mode == "nearest-exact" else {"antialias": True, "align_corners": False}
        if pixels.dtype == torch.uint8 and pixels.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)  # which is many times as fast
            resized = F.interpolate(images, (height, width), mode=mode, **options)
        else:
            resized = F.interpolate(images.float(), (height, width), mode=mode, **options)
            resized = resized.round().clamp(0, 255) if pixels.dtype == torch.uint8 else resized
    return resized.to(pixels.dtype).view(*pixels.shape[:-2], height, width)


def to_pixels(image: Any, channels_first: bool | None = None, check_range: bool = True) -> torch.Tensor:
    """Convert an image to a tensor.

    Args:
        image: Image or video file, see `is_file`, of which the frame in the middle is used; PIL image, which is turned
            and mirrored as its EXIF orientation says; numpy array or torch tensor, (H, W), (H, W, C) or (C, H, W) with
            1 (gray), 3 or 4 channels (alpha is dropped). Integers are in 0..255, floating-point numbers in 0..1, bools
            are 0 or 1.
        channels_first: Whether the layout is (C, H, W). By default it is inferred from the number of channels; if both
            layouts are possible, numpy arrays are read as (H, W, C) and tensors as (C, H, W).
        check_range: Whether floating-point numbers have to be in 0..1.

    Returns:
        (3, H, W), uint8 or float32.

    Raises:
        MediaError: If a PIL image claims more pixels than allowed, or a file cannot be read.
        TypeError: If `image` has an unsupported type.
        ValueError: If its shape or range of values is invalid for an image.
    """
    if is_file(image):
        [image], channels_first = load_clip(image, require="image").frames, False
    if Image is not None and isinstance(image, Image.Image):
        try:
            image, channels_first = decode_image(image), False
        except LimitError as error:
            raise MediaError(f"{getattr(image, 'filename', '') or 'image'}: expected an image, but {error}.") from error
    if isinstance(image, torch.Tensor):
        if image.is_complex():
            raise TypeError(f"Expected an image of real numbers, got a tensor of {image.dtype}.")
        pixels, default_channels_first = image.detach(), True
    elif isinstance(image, np.ndarray):
        if image.dtype.kind not in "biuf":
            raise TypeError(f"Expected an image of real numbers, got an array of {image.dtype}.")
        # torch has few operations on the larger unsigned integers.
        array = image.astype(np.int64) if image.dtype.kind == "u" and image.dtype.itemsize > 1 else image
        pixels, default_channels_first = to_tensor(array), False
    else:
        raise TypeError(
            f"Expected an image as a file, PIL image, numpy array or torch tensor, got {type(image).__name__}."
        )
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
    return _to_rgb(_to_known_range(pixels, check_range))


def _to_rgb(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels[:3]


def _to_known_range(pixels: torch.Tensor, check_range: bool) -> torch.Tensor:
    """Convert integers to uint8 and other numbers to float32, after checking that they are in 0..255 or 0..1."""
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.float()
    if pixels.is_floating_point():
        pixels = pixels.float()
        if not check_range:
            return pixels
        low, high = pixels.aminmax()
        # `not` rather than the opposite comparison, so that NaN fails.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(
                f"Expected a floating-point image in 0..1, got values from {low:.4g} to {high:.4g}; divide it by 255, "
                "pass uint8, or do_rescale=False to take the values as they are."
            )
        return pixels.clamp(0, 1)
    low, high = pixels.aminmax()
    if low < 0 or high > 255:
        raise ValueError(f"Expected an integer image in 0..255, got values from {low} to {high}.")
    return pixels.to(torch.uint8)


def as_list(items: Any, ndim: int) -> list:
    """List the items of any sequence, see `as_items`, or of an array with one axis more than `ndim`.

    A single item gives a list of one.

    Raises:
        ValueError: If the list is empty.
    """
    result = as_items(items)
    if result is None:
        result = list(items) if getattr(items, "ndim", 0) == ndim + 1 else [items]
    if not result:
        raise ValueError("Expected at least one item, got an empty list.")
    return result


__all__ = ["as_list", "resize", "to_pixels"]
