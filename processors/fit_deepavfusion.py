"""How images of any shape are fitted to the shape of a model's input, and maps of the input back to the image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

FITS = ("crop", "pad", "squash", "tiles")
# Images are not enlarged beyond this many times the input's length along one side: of longer ones, a crop shows the
# central part, and tiles are squashed.
_MAX_LENGTH = 32


class Region(NamedTuple):
    """A part of an image that becomes an input of a model.

    The image is cut to `source`, resized to `resized`, and the input is the part of it at `offset`.

    Attributes:
        source: (top, left, bottom, right) in pixels of the image.
        resized: (height, width) in pixels.
        offset: (top, left) of the input in the resized image; negative for margins.
        size: (height, width) of the input.
    """

    source: tuple[int, int, int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    def span(self, axis: int) -> tuple[float, float]:
        """Start and length of the input along rows (0) or columns (1), in pixels of the image."""
        scale = (self.source[axis + 2] - self.source[axis]) / self.resized[axis]
        return self.source[axis] + self.offset[axis] * scale, self.size[axis] * scale

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the input, rounded to pixels of the image."""
        (top, rows), (left, columns) = self.span(0), self.span(1)
        box = round(top), round(left), round(top + rows), round(left + columns)
        return box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)

    def cells(self, axis: int, count: int) -> slice:
        """Which of `count` cells along the input's rows (0) or columns (1) have their center on the image.

        The cell in the middle, if the image is so thin that there is none.
        """
        size, begin = self.size[axis], max(-self.offset[axis], 0)
        end = min(self.resized[axis] - self.offset[axis], size)
        first, last = -((size - 2 * count * begin) // (2 * size)), (2 * count * end - size) // (2 * size)
        if first > last:
            first = last = min((begin + end) * count // (2 * size), count - 1)
        return slice(first, last + 1)


def cover_size(height: int, width: int, size: Sequence[int], crop_pct: float) -> tuple[int, int]:
    """Compute the smallest (height, width) of the same aspect ratio that covers `size` / `crop_pct`."""
    target_height, target_width = (int(side / crop_pct) for side in size)
    if target_height * width >= target_width * height:
        return target_height, max(int(target_height * width / height), target_width)
    return max(int(target_width * height / width), target_height), target_width


def crop_offsets(height: int, width: int, size: Sequence[int]) -> tuple[int, int]:
    """Compute the (top, left) of a center crop of `size` from an image of (height, width)."""
    return round((height - size[0]) / 2), round((width - size[1]) / 2)


def fit_regions(height: int, width: int, size: tuple[int, int], crop_pct: float, fit: str) -> list[Region]:
    """Find the parts of an image that become inputs.

    Args:
        height: Height of the image in pixels.
        width: Its width.
        size: (height, width) of the input.
        crop_pct: Fraction of the resized image's side that a crop keeps.
        fit: One of `FITS`.

    Returns:
        One region, or with tiles as many as cover the image, in order from top to bottom or left to right.
    """
    whole = (0, 0, height, width)
    if fit == "squash":
        return [Region(whole, size, (0, 0), size)]
    if fit == "pad":
        scale = min(size[0] / height, size[1] / width)
        resized = tuple(min(max(round(side * scale), 1), most) for side, most in zip((height, width), size))
        return [Region(whole, resized, (-((size[0] - resized[0]) // 2), -((size[1] - resized[1]) // 2)), size)]
    if fit == "tiles":
        resized = tuple(min(side, _MAX_LENGTH * most) for side, most in zip(cover_size(height, width, size, 1.0), size))
        offsets = [_tile_starts(side, part) for side, part in zip(resized, size)]
        return [Region(whole, resized, (top, left), size) for top in offsets[0] for left in offsets[1]]
    resized = cover_size(height, width, size, crop_pct)
    source = whole
    for axis in (0, 1):
        most = int(_MAX_LENGTH * size[axis] / crop_pct)
        if resized[axis] > most:  # a line of pixels, whose cover would be huge
            length = whole[axis + 2] * most // resized[axis]
            start = (whole[axis + 2] - length) // 2
            source = (start, 0, start + length, width) if axis == 0 else (0, start, height, start + length)
            resized = (most, resized[1]) if axis == 0 else (resized[0], most)
    return [Region(source, resized, crop_offsets(*resized, size), size)]


def _tile_starts(length: int, part: int) -> list[int]:
    """Spread as few parts as cover `length` evenly over it."""
    count = -(-length // part)
    return [round(i * (length - part) / max(count - 1, 1)) for i in range(count)]


def without_margins(maps: torch.Tensor, regions: Sequence[Region]) -> list[torch.Tensor]:
    """Cut the map of each region, (K, ..., h, w) of any resolution, to its cells on the image; see `Region.cells`."""
    height, width = maps.shape[-2:]
    return [
        part[..., region.cells(0, height), region.cells(1, width)] for part, region in zip(maps, regions, strict=True)
    ]


def place_maps(
    maps: torch.Tensor, regions: Sequence[Region], size: tuple[int, int], outside: float, rows: slice | None = None
) -> torch.Tensor:
    """Place the maps of an image's regions on the image, and merge them where they overlap.

    Each map is resized bilinearly, without what it has on margins. Where tiles overlap, they are cross-faded by raised
    cosines with their maxima in the middles of the tiles.

    Args:
        maps: (K, C, h, w), one for each region, of any resolution.
        regions: K regions of the image.
        size: (height, width) of the image.
        outside: Value where no region is.
        rows: Rows of the image to return; all by default.

    Returns:
        (C, rows, width).
    """
    rows = slice(0, size[0]) if rows is None else rows
    total = torch.zeros(maps.shape[1], rows.stop - rows.start, size[1], dtype=maps.dtype)
    weight = torch.zeros(total.shape[1:], dtype=maps.dtype)
    for values, region in zip(maps, regions, strict=True):
        top, left, bottom, right = region.box
        first, last = max(top, rows.start), min(bottom, rows.stop)
        start, stop = max(left, 0), min(right, size[1])
        if first >= last or start >= stop:
            continue
        values, fade_rows = _sample(values, 1, region, first, last)
        values, fade_columns = _sample(values, 2, region, start, stop)
        part = slice(first - rows.start, last - rows.start), slice(start, stop)
        if len(regions) == 1:
            total[:, *part], weight[part] = values, 1
        else:
            fade = fade_rows[:, None] * fade_columns
            total[:, *part] += values * fade
            weight[part] += fade
    if len(regions) > 1:
        total /= weight.clamp(min=torch.finfo(weight.dtype).tiny)
    return total.masked_fill_(weight == 0, outside)


def _sample(
    values: torch.Tensor, axis: int, region: Region, start: int, stop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resize an axis of the map of a region, and return pixels `start` to `stop` of the image and their weights.

    The resizing is that of `torch.nn.functional.interpolate` in mode linear, without computing the other pixels.
    """
    begin, end, count = region.box[axis - 1], region.box[axis + 1], values.shape[axis]
    cells = region.cells(axis - 1, count)
    place = (torch.arange(start - begin, stop - begin, dtype=torch.float64) + 0.5) / (end - begin)
    position = (place * count - 0.5).clamp(cells.start, cells.stop - 1)
    low = position.long()
    high = (low + 1).clamp(max=cells.stop - 1)
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    fraction = (position - low).to(values.dtype).view(shape)
    resized = values.index_select(axis, low) * (1 - fraction) + values.index_select(axis, high) * fraction
    return resized, torch.sin(torch.pi * place).square().clamp(min=1e-4).to(values.dtype)


__all__ = ["FITS", "Region", "cover_size", "crop_offsets", "fit_regions", "place_maps", "without_margins"]
