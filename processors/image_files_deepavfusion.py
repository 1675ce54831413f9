"""Image files: stills, and animations that FFmpeg cannot read, as videos of the frames that PIL decodes."""

import io
from typing import Any

import numpy as np

from .stills_deepavfusion import decode_image, open_image

try:
    from PIL import UnidentifiedImageError
except ImportError:
    UnidentifiedImageError = ImportError

# Formats whose further images, such as other views, pages and bursts, are no animation.
_COLLECTIONS = ("MPO", "TIFF", "HEIF")
# Formats of animations that FFmpeg does not decode, or of which it shows the first frame alone.
_ANIMATIONS = ("WEBP", "AVIF")
# Seconds that a frame without a duration is shown, as in browsers.
_FRAME_SECONDS = 0.1


class Animation:
    """Frames of an animated image, which are decoded one at a time, and when they are shown.

    Args:
        image: PIL image.

    Attributes:
        span: (start, end) in seconds.

    Raises:
        LimitError: If the image has more pixels than allowed.
        Exception: Others of PIL's, if it is damaged; so do the methods.
    """

    def __init__(self, image: Any):
        self._image, seconds = image, []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()  # which reads the duration
            seconds.append(image.info.get("duration", 0) / 1000 or _FRAME_SECONDS)
        self._ends = np.cumsum(seconds)
        self.span = 0.0, float(self._ends[-1])

    def frame(self, time: float) -> np.ndarray:
        """Decode the frame that is shown at a time in seconds, (H, W, 3) uint8; decoding goes on if times ascend."""
        number = int(np.searchsorted(self._ends, time + 1e-6, side="right"))
        self._image.seek(min(number, len(self._ends) - 1))
        return np.ascontiguousarray(decode_image(self._image))


def read_image_file(source: Any) -> np.ndarray | Animation | None:
    """Decode an image file as it is shown.

    Args:
        source: Path or seekable binary file object of which `is_image_file` is true.

    Returns:
        (H, W, 3) uint8 RGB; an animation that only PIL decodes; None for others, which are videos, and for other files
        that start like images.

    Raises:
        OpenerError: If it is a photo of a format that needs a package that is not installed.
        LimitError: If it has more pixels than allowed.
        Exception: Others of PIL's, if it is damaged.
    """
    if not isinstance(source, str):
        source.seek(0)
        source = io.BytesIO(source.read())
    try:
        image = open_image(source)
    except UnidentifiedImageError:
        return None
    if getattr(image, "is_animated", False) and image.format in _ANIMATIONS:
        return Animation(image)
    with image:
        if getattr(image, "is_animated", False) and image.format not in _COLLECTIONS:
            return None
        return np.ascontiguousarray(decode_image(image))


__all__ = ["Animation", "read_image_file"]
