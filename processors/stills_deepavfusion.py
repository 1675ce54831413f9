"""Still images as they are shown: the orientation of photos and frames, and the decoding of image files with PIL."""

from typing import Any, NamedTuple

import numpy as np

from .limits_deepavfusion import LimitError, OpenerError, too_many_pixels

try:
    from PIL import Image, UnidentifiedImageError, features
except ImportError:
    Image = None

_EXIF_ORIENTATION = 0x0112
# First bytes of the image files that PIL decodes; WebP is a RIFF file, like AVI.
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"GIF8")
# Brands of HEIF files, which FFmpeg opens as videos of their tiles, thumbnails and depth maps; those of `_ANY` do not
# say how the images are coded.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_AVIF = (b"avif", b"avis")
_ANY = (b"mif1", b"mif2", b"msf1")
_HEIF = (*_HEIC, *_AVIF, *_ANY, b"avci", b"avcs", b"j2ki", b"j2is", b"vvic", b"vvis")


class Orientation(NamedTuple):
    """How a stored image is turned and mirrored to be shown: first transposed, then flipped.

    Attributes:
        transpose: Whether rows become columns.
        flip_x: Whether left and right are exchanged.
        flip_y: Whether top and bottom are exchanged.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Turn stored images (..., H, W, C) as they are shown; returns a view where possible."""
        shown = images.swapaxes(-3, -2) if self.transpose else images
        shown = shown[..., ::-1, :] if self.flip_x else shown
        return shown[..., ::-1, :, :] if self.flip_y else shown


# EXIF orientations 1 to 8: where row 0 and column 0 of the stored image are shown.
_EXIF = (
    Orientation(),
    Orientation(flip_x=True),
    Orientation(flip_x=True, flip_y=True),
    Orientation(flip_y=True),
    Orientation(transpose=True),
    Orientation(transpose=True, flip_x=True),
    Orientation(transpose=True, flip_x=True, flip_y=True),
    Orientation(transpose=True, flip_y=True),
)


def is_misfit(error: Exception) -> bool:
    """Whether an error means that this code does not fit the installed PIL, rather than that an image is damaged.

    PIL's decoders, and those that pillow-heif adds, raise errors of these kinds for damaged images, but in their own
    code.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    raised_by = "" if place is None else place.tb_frame.f_globals.get("__name__", "")
    misfit = isinstance(error, AttributeError | ImportError | NameError | TypeError)
    return misfit and raised_by.partition(".")[0] not in ("PIL", "pillow_heif")


def exif_orientation(image: Any) -> Orientation:
    """Read the orientation of a PIL image; that of an image without a valid one is upright."""
    image.load()  # TIFF files are turned by PIL as they are loaded, which removes the tag
    try:
        number = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # damaged metadata raise many kinds of errors
        if is_misfit(error):
            raise
        return Orientation()
    return _EXIF[number - 1] if isinstance(number, int) and 1 <= number <= 8 else Orientation()


def matrix_orientation(matrix: np.ndarray) -> Orientation:
    """Find the orientation closest to a display matrix.

    Args:
        matrix: (3, 3), of which [0, 0], [0, 1] are the column and row on the screen of a step to the right in the
            stored frame, and [1, 0], [1, 1] those of a step down.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def is_image_file(start: bytes) -> bool:
    """Check by its first 12 bytes whether a file is an image, which PIL decodes; without PIL, only HEIF files are."""
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return is_heif(start) or (Image is not None and (webp or start.startswith(_IMAGE_STARTS)))


def is_heif(start: bytes) -> bool:
    """Check by its first 12 bytes whether a file is a HEIF image, such as a HEIC or AVIF photo."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF


def decode_image(image: Any) -> np.ndarray:
    """Decode a PIL image as it is shown.

    Args:
        image: PIL image of any mode. Integers of 16 bits are reduced to 8, floating-point pixels are in 0..1, alpha is
            dropped.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        LimitError: If the image has more pixels than allowed.
        ValueError: If it has pixels outside the range of its mode.
    """
    return _pixels(image, exif_orientation(check_size(image)))


def _pixels(image: Any, orientation: Orientation) -> np.ndarray:
    # Older versions of pillow open PNG files of 16 bits in the mode of 32 bits, which that format does not have.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        levels = np.round(np.asarray(image).astype(np.float32) / 257).astype(np.uint8)
    elif image.mode == "F":
        levels = _checked(np.asarray(image), 1.0, "a floating-point image in 0..1")
        levels = np.round(levels * 255).astype(np.uint8)
    elif image.mode == "I":
        levels = _checked(np.asarray(image), 255, "an integer image in 0..255").astype(np.uint8)
    else:
        return orientation.apply(np.array(image if image.mode == "RGB" else image.convert("RGB")))
    return orientation.apply(np.repeat(levels[..., None], 3, axis=-1))


def _checked(values: np.ndarray, high: float, expected: str) -> np.ndarray:
    tolerance = high * 1e-3 if values.dtype.kind == "f" else 0
    if not (values.min() >= -tolerance and values.max() <= high + tolerance):  # fails for NaN, too
        raise ValueError(f"Expected {expected}, got values from {values.min():.4g} to {values.max():.4g}.")
    return values.clip(0, high)


def check_size(image: Any) -> Any:
    """Return a PIL image, whose pixels may not have been decoded yet, after checking their number.

    Raises:
        LimitError: If it has more pixels than allowed.
    """
    if reason := too_many_pixels(*image.size):
        raise LimitError(reason)
    return image


def open_image(source: Any) -> Any:
    """Open an image file with PIL, without decoding its pixels.

    Args:
        source: Path or seekable binary file object.

    Raises:
        LimitError: If it has more pixels than allowed.
        OpenerError: If it is a HEIF image that the installed packages do not open.
        Exception: Others of PIL's, if it is damaged.
    """
    if Image is None:
        raise OpenerError("Pillow, which opens images, is not installed: pip install pillow")
    try:
        return check_size(Image.open(source))
    except Image.DecompressionBombError as error:  # PIL's own limit, PIL.Image.MAX_IMAGE_PIXELS
        raise LimitError(f"it claims too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        start = _read_start(source)
        if is_heif(start):
            raise OpenerError(_why_unopened(start)) from error
        raise


def _read_start(source: Any) -> bytes:
    """Read the first bytes of a path or seekable binary file object, the brands of a HEIF file among them."""
    if hasattr(source, "read"):
        source.seek(0)
        return source.read(64)
    with open(source, "rb") as file:
        return file.read(64)


def _why_unopened(start: bytes) -> str:
    """Describe why PIL does not open a HEIF image, and what to do."""
    size = int.from_bytes(start[:4], "big")
    brands = [start[8:12], *(start[i : i + 4] for i in range(16, min(size, len(start)), 4))]
    if not set(brands).isdisjoint(_AVIF):
        if "avif" in features.modules and features.check("avif"):
            return "it is a damaged AVIF image"
        return "it is an AVIF image, which Pillow opens from version 11.3 on: pip install --upgrade pillow"
    if "HEIF" in Image.OPEN:
        return "it is a damaged HEIF image, or of a kind that the registered opener does not decode"
    return (
        "it is a HEIC or HEIF image, which Pillow opens with pillow-heif: pip install pillow-heif, and call "
        "pillow_heif.register_heif_opener() before, or save it as JPEG or PNG"
    )


__all__ = [
    "Orientation",
    "decode_image",
    "exif_orientation",
    "is_heif",
    "is_image_file",
    "is_misfit",
    "matrix_orientation",
    "open_image",
]
