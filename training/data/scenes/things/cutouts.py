"""The images of things."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import ceil, cos, pi, sin

import numpy as np

from deepavfusion.processors.stills_deepavfusion import exif_orientation, is_misfit, open_image

from .folder import ThingFolder, load_all

_VISIBLE = 128  # alpha from which on a pixel of an image counts as a part of the thing
_MIN_PIXELS = 16  # of a thing that must be visible where nothing hides it
_MARGIN = 1.1  # faint parts of an image are kept up to this many radii from its middle


@dataclass(frozen=True, eq=False)
class Cutout:
    """The image of a thing, in a square around its visible part.

    Attributes:
        levels: (S, S, 4) uint8 each, premultiplied by alpha, S halves from one to the next; the border is transparent.
        extent: Half the side of the square (without the border) in radii of the thing, where 1 radius encloses its
            visible part.
        least_radius: Radius in pixels below which too little of the thing would be visible.
    """

    levels: tuple[np.ndarray, ...]
    extent: float
    least_radius: float = 0.0

    def paint(
        self, image: np.ndarray, x0: float, y0: float, radius: float, turn: float, flip: bool
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Paint the thing onto an image, in place.

        Args:
            image: (H, W, 3) float32 in 0..1.
            x0: Column of the middle of the thing in pixels.
            y0: Row of the middle.
            radius: Radius of the thing in pixels.
            turn: Rotation in turns.
            flip: Whether to mirror the thing.

        Returns:
            Rows and columns that were painted, and the alpha (h, w) of each of their pixels, in 0..1.
        """
        height, width = image.shape[:2]
        reach = _MARGIN * radius + 1
        left, right = max(int(x0 - reach), 0), min(int(x0 + reach) + 2, width)
        top, bottom = max(int(y0 - reach), 0), min(int(y0 + reach) + 2, height)
        x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x0)) / np.float32(radius)
        y = ((np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y0)) / np.float32(radius))[:, None]
        c, s = np.float32(cos(2 * pi * turn)), np.float32(sin(2 * pi * turn))
        own_x, own_y = c * x + s * y, c * y - s * x
        # The smallest level that is not enlarged, if there is one.
        fitting = [level for level in self.levels if len(level) - 2 >= 2 * self.extent * radius]
        level = fitting[-1] if fitting else self.levels[0]
        scale, middle = np.float32((len(level) - 2) / (2 * self.extent)), np.float32((len(level) - 1) / 2)
        paint = _interpolate(level, middle + scale * own_y, middle + scale * (-own_x if flip else own_x))
        window = slice(top, bottom), slice(left, right)
        cover = paint[..., 3]
        image[window] = image[window] * (1 - cover[..., None]) + paint[..., :3]
        return window, cover


def _interpolate(level: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bilinear samples (h, w, 4) float32 in 0..1 of an image (S, S, 4) uint8; positions beyond it have its border."""
    most = np.float32(len(level) - 1)
    row, column = np.clip(row, 0, most)[..., None], np.clip(column, 0, most)[..., None]
    i, j = (np.minimum(position[..., 0].astype(np.int32), len(level) - 2) for position in (row, column))
    row, column = row - i[..., None], column - j[..., None]
    upper = level[i, j] * (1 - column) + level[i, j + 1] * column
    lower = level[i + 1, j] * (1 - column) + level[i + 1, j + 1] * column
    return (upper * (1 - row) + lower * row) / np.float32(255)


@lru_cache(maxsize=2)
def load_cutouts(folder: ThingFolder, radius: int) -> tuple[Cutout, ...]:
    """Decode the images of all things.

    Args:
        folder: The things.
        radius: Radius of the largest object in pixels, to which larger images are reduced.

    Raises:
        ValueError: If a file cannot be decoded, has no alpha channel, or no visible pixel.
    """
    return load_all(folder.images, partial(_load_cutout, radius=radius))


def _load_cutout(path: str, radius: int) -> Cutout:
    from PIL import Image

    expected = f"{path}: expected a PNG image with an alpha channel"
    try:
        with open_image(path) as file:
            mode, has_alpha = file.mode, file.has_transparency_data
            orientation = exif_orientation(file)
            image = Image.fromarray(np.ascontiguousarray(orientation.apply(np.asarray(file.convert("RGBA")))))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error ...
        if is_misfit(error):
            raise
        raise ValueError(f"{expected}, got {type(error).__name__}: {error}") from error
    if not has_alpha:
        raise ValueError(f"{expected}, got one of mode {mode} without")
    rows, columns = np.nonzero(np.asarray(image)[..., 3] >= _VISIBLE)
    if not len(rows):
        raise ValueError(f"{expected} and a visible thing, but no pixel has an alpha of at least 0.5")
    y, x = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    own_radius = float(np.hypot(rows - y, columns - x).max()) + 0.5
    side = 2 * ceil(_MARGIN * own_radius)
    left, top = round(x + 0.5 - side / 2), round(y + 0.5 - side / 2)
    square = image.crop((left, top, left + side, top + side)).convert("RGBa")
    extent = side / 2 / own_radius
    small, levels = min(side, ceil(2 * extent * radius)), []
    while not levels or small >= 8:
        square = square.resize((small, small), Image.Resampling.BOX)
        levels.append(np.pad(np.asarray(square), ((1, 1), (1, 1), (0, 0))))
        small //= 2
    cutout = Cutout(tuple(levels), extent)
    least_radius = _least_radius(cutout, radius)
    if least_radius is None:
        raise ValueError(
            f"{path}: expected a thing of which at least {_MIN_PIXELS} pixels are visible (alpha of at least 0.5) when "
            f"it is drawn at {2 * radius} x {2 * radius} pixels, but it is too thin or too faint"
        )
    return replace(cutout, least_radius=least_radius)


def _least_radius(cutout: Cutout, largest: int) -> float | None:
    for radius in np.linspace(2, largest, 4 * largest):
        blank = np.zeros((2 * largest + 4, 2 * largest + 4, 3), np.float32)
        _, cover = cutout.paint(blank, largest + 2, largest + 2, radius, turn=0, flip=False)
        if (cover >= 0.5).sum() >= _MIN_PIXELS:
            return float(radius)
    return None


__all__ = ["Cutout", "load_cutouts"]
