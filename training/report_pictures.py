"""Pictures over frames: heat maps, masks, boxes and outlines; rows of examples; what was retrieved.

Maps and masks may be coarser than their frame: they are stretched over it, maps smoothly, masks in blocks. Everything
is drawn on frames enlarged to at least `SIDE` pixels, so that lines are fine on small frames too.
"""

import colorsys
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .report_figures import shorten
from .report_media import as_array, as_frame, own_style

SIDE = 224  # pixels
IGNORED = 255  # label of pixels without truth
_RIGHT, _WRONG = "#0b7a55", "#c0500c"
_DISTINCT = [
    *("9aa0a6", "e6194b", "3cb44b", "ffe119", "0082c8", "f58231", "911eb4", "46f0f0"),
    *("f032e6", "d2f53c", "fabebe", "008080", "aa6e28", "800000", "aaffc3", "000080"),
]
_SOUNDING = (255, 140, 26)  # what a binary mask is painted with


def enlarged(frame: Any, side: int = SIDE) -> np.ndarray:
    """The frame, its pixels repeated until the longer side has at least `side`."""
    frame = as_frame(frame)
    times = max(1, -(-side // max(frame.shape[:2])))
    return frame.repeat(times, axis=0).repeat(times, axis=1)


def stretched(values: Any, height: int, width: int, smooth: bool) -> np.ndarray:
    """A map (h, w) or (1, h, w) at (height, width): bilinear between pixels' centres, or the nearest value."""
    values = as_array(values)
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"Expected a map (H, W), got shape {values.shape}.")
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))[None, None]
    mode = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest-exact"}
    return torch.nn.functional.interpolate(tensor, size=(height, width), **mode)[0, 0].numpy()


def outline(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`picture` (H, W, 3) with the border of `mask` (H, W) bool: a white line with a dark rim, seen on any ground."""
    picture = picture.copy()
    inner = mask & ~_eroded(mask, 2)
    picture[_grown(inner, 1) & ~inner] = 20
    picture[inner] = 255
    return picture


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    for _ in range(pixels):
        padded = np.pad(mask, 1)
        mask = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).any(axis=(2, 3))
    return mask


def _eroded(mask: np.ndarray, pixels: int) -> np.ndarray:
    """What remains `pixels` inside; the frame's edge counts as a border, so that a full mask has an outline."""
    for _ in range(pixels):
        padded = np.pad(mask, 1)
        mask = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).all(axis=(2, 3))
    return mask


def box_outlines(picture: np.ndarray, boxes: Any, size: tuple[int, int]) -> np.ndarray:
    """`picture` with outlines of boxes (n, 4): x1, y1, x2, y2 in pixels of a frame of `size` (height, width)."""
    boxes = as_array(boxes).astype(np.float64).reshape(-1, 4)
    height, width = picture.shape[:2]
    for x1, y1, x2, y2 in boxes * np.array([width / size[1], height / size[0]] * 2):
        left, right = np.clip(np.round([x1, x2]), 0, width).astype(int)
        top, bottom = np.clip(np.round([y1, y2]), 0, height).astype(int)
        mask = np.zeros((height, width), dtype=bool)
        mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        picture = outline(picture, mask)
    return picture


def heat_overlay(
    frame: Any,
    heat: Any,
    truth: Any = None,
    boxes: Any = None,
    limits: tuple[float, float] | None = None,
    alpha: float = 0.85,
) -> np.ndarray:
    """A heat map over a frame made grey: the hotter, the brighter and the less transparent.

    Args:
        frame: (H, W, 3) uint8.
        heat: (h, w), any range, of any resolution.
        truth: (h, w), outlined where it is 0.5.
        boxes: (n, 4), x1, y1, x2, y2 in pixels of the frame, drawn as outlines.
        limits: values of the coldest and the hottest colour; the map's own minimum and maximum by default.
        alpha: opacity of the hottest colour.

    Returns: (H', W', 3) uint8, the frame enlarged to at least `SIDE`.
    """
    frame = as_frame(frame)
    large = enlarged(frame)
    height, width = large.shape[:2]
    heat = stretched(heat, height, width, smooth=True)
    if not np.isfinite(heat).all():
        raise ValueError("Expected a finite heat map, got NaN or infinities.")
    low, high = (heat.min(), heat.max()) if limits is None else limits
    share = np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)
    grey = (large @ np.array([0.299, 0.587, 0.114]))[..., None]
    ground = 0.75 * (0.8 * grey + 0.2 * large)
    colors = 255 * matplotlib.colormaps["inferno"](0.15 + 0.85 * share)[..., :3]
    weight = (alpha * share)[..., None]
    picture = np.round((1 - weight) * ground + weight * colors).astype(np.uint8)
    return _with_truth(picture, truth, boxes, frame.shape[:2])


def _with_truth(picture: np.ndarray, truth: Any, boxes: Any, size: tuple[int, int]) -> np.ndarray:
    if truth is not None:
        picture = outline(picture, stretched(truth, *picture.shape[:2], smooth=True) > 0.5)
    return picture if boxes is None else box_outlines(picture, boxes, size)


def class_colors(count: int) -> np.ndarray:
    """Colours (count, 3) uint8 of classes, always the same: 16 that differ in hue and lightness, then more hues."""
    colors = [tuple(bytes.fromhex(color)) for color in _DISTINCT[:count]]
    for index in range(len(colors), count):
        hue = index * 0.61803398875 % 1  # steps of the golden angle never meet an earlier hue
        saturation, value = [(0.85, 0.95), (0.45, 1.0), (0.9, 0.6)][index % 3]
        colors.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)))
    return np.array(colors, dtype=np.uint8).reshape(-1, 3)


def mask_overlay(
    frame: Any, mask: Any, colors: Any = None, background: int | None = 0, alpha: float = 0.7
) -> np.ndarray:
    """A mask painted over a frame: True or above 0.5 of a binary mask, or a colour for every class.

    Args:
        frame: (H, W, 3) uint8.
        mask: (h, w); bool or floats are binary, integers are classes if `colors` is given, else binary. Pixels that are
            `IGNORED` are hatched, but not in a bool or float mask.
        colors: (classes, 3) uint8, such as `class_colors`.
        background: class that stays unpainted.
        alpha: opacity of the paint.

    Returns: (H', W', 3) uint8, the frame enlarged to at least `SIDE`.
    """
    mask = as_array(mask)
    large = enlarged(frame)
    height, width = large.shape[:2]
    values = stretched(mask, height, width, smooth=False)
    ignored = np.zeros(values.shape, dtype=bool)
    if np.issubdtype(mask.dtype, np.integer):
        ignored = values == IGNORED
    if colors is None:
        painted = (values > 0.5) & ~ignored
        paint = np.broadcast_to(np.array(_SOUNDING), large.shape)
    else:
        if not np.issubdtype(mask.dtype, np.integer):
            raise ValueError(f"Expected a mask of class indices, got {mask.dtype}.")
        colors, classes = as_array(colors), np.where(ignored, 0, values).astype(np.int64)
        if classes.min() < 0 or classes.max() >= len(colors):
            raise ValueError(
                f"Expected classes 0..{len(colors) - 1} or {IGNORED}, got {classes.min()}..{classes.max()}."
            )
        painted = ~ignored if background is None else ~ignored & (classes != background)
        paint = colors[classes]
    grey = np.repeat((large @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=2)
    ground = 0.55 * large + 0.3 * grey
    picture = np.where(painted[..., None], (1 - alpha) * grey + alpha * paint, ground)
    rows, columns = np.indices(values.shape)
    hatch = (rows + columns) // 4 % 2 == 0
    picture = np.where(ignored[..., None], np.where(hatch[..., None], 150.0, 110.0), picture)
    return np.round(picture).astype(np.uint8)


def _grid(rows: int, columns: int, width: float = 1.9, aspect: float = 1.0) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns + 0.2, width * aspect * rows + 0.42), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)  # ty: ignore[unknown-argument]
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, grid


def _check(rows: dict[str, Sequence[Any] | None]) -> int:
    lengths = {name: len(items) for name, items in rows.items() if items is not None}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        raise ValueError(f"Expected as many of each, and at least one, got {lengths}.")
    return next(iter(lengths.values()))


def _draw_rows(columns: dict[str, list[np.ndarray]], names: Sequence[str] | None, legend: float = 0.0) -> Figure:
    """Rows of pictures under titles; `legend`: inches left for one on the right."""
    count = len(next(iter(columns.values())))
    height, width = next(iter(columns.values()))[0].shape[:2]
    figure, grid = _grid(count, len(columns), aspect=height / width)
    figure.set_figwidth(figure.get_figwidth() + legend)
    for column, (title, pictures) in enumerate(columns.items()):
        grid[0, column].set_title(title, loc="left")
        for row, picture in enumerate(pictures):
            grid[row, column].imshow(picture, interpolation="nearest" if picture.shape[0] <= SIDE else "antialiased")
    for row, name in enumerate(names or []):
        grid[row, 0].set_ylabel(shorten(name, 26), fontsize=8)
    return figure


@own_style
def localization_examples(
    frames: Sequence[Any],
    maps: Sequence[Any],
    truths: Sequence[Any] | None = None,
    boxes: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A row for each example: frame | map | truth, whose outline is on the map as well.

    Args:
        frames: each (H, W, 3) uint8.
        maps: each (h, w), of any resolution.
        truths: each (h, w), consensus maps in 0..1.
        boxes: each (n, 4), in pixels of the frame; drawn instead of, or beside, the truths.
        names: of the rows.
        limits: one colour scale for all maps; each map's own range by default.
    """
    count = _check({"frames": frames, "maps": maps, "truths": truths, "boxes": boxes, "names": names})
    columns: dict[str, list[np.ndarray]] = {"frame": [], "map, truth outlined": [], "truth": []}
    for i in range(count):
        truth = None if truths is None else truths[i]
        marks = None if boxes is None else boxes[i]
        columns["frame"].append(enlarged(frames[i]))
        columns["map, truth outlined"].append(heat_overlay(frames[i], maps[i], truth, marks, limits))
        painted = enlarged(frames[i]) if truth is None else heat_overlay(frames[i], truth, limits=(0, 1), alpha=0.7)
        columns["truth"].append(_with_truth(painted, truth, marks, as_frame(frames[i]).shape[:2]))
    if truths is None and boxes is None:
        columns = {"frame": columns["frame"], "map": columns["map, truth outlined"]}
    return _draw_rows(columns, names)


@own_style
def segmentation_examples(
    frames: Sequence[Any],
    predictions: Sequence[Any],
    truths: Sequence[Any],
    class_names: Sequence[str] | None = None,
    background: int | None = 0,
    names: Sequence[str] | None = None,
) -> Figure:
    """A row for each example: frame | predicted | truth.

    Args:
        frames: each (H, W, 3) uint8.
        predictions, truths: each (h, w): binary (bool, or floats painted above 0.5), or class indices where
            `class_names` are given; `IGNORED` pixels of the truth are hatched.
        class_names: of all classes; those that occur stand in the legend.
        background: class that stays unpainted.
        names: of the rows.
    """
    count = _check({"frames": frames, "predictions": predictions, "truths": truths, "names": names})
    colors = None if class_names is None else class_colors(len(class_names))
    columns = {
        "frame": [enlarged(frame) for frame in frames],
        "predicted": [mask_overlay(frames[i], predictions[i], colors, background) for i in range(count)],
        "truth": [mask_overlay(frames[i], truths[i], colors, background) for i in range(count)],
    }
    if class_names is None:
        return _draw_rows(columns, names)
    figure = _draw_rows(columns, names, legend=2.2)
    present = {int(index) for masks in (predictions, truths) for mask in masks for index in np.unique(as_array(mask))}
    shown = sorted(present - {IGNORED, background})
    handles = [Patch(color=colors[index] / 255, label=shorten(class_names[index], 26)) for index in shown]
    if any(bool((as_array(mask) == IGNORED).any()) for mask in truths):
        handles.append(Patch(facecolor="#828282", edgecolor="#969696", hatch="////", label="ignored"))
    if handles:
        figure.legend(handles=handles, loc="outside right upper", handlelength=1.1)
    return figure


@own_style
def retrieval_examples(
    queries: Sequence[Any],
    results: Sequence[Sequence[Any]],
    correct: Sequence[Sequence[bool]],
    query_names: Sequence[str] | None = None,
    result_names: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """A row for each query and what was found for it, best first; right and wrong by mark, border and colour.

    Args:
        queries: each a frame (H, W, 3) uint8, or a spectrogram (frequencies, time) of floats.
        results: of each query, the pictures found (usually five), of the same two kinds.
        correct: of each query, which of them are right.
        query_names, result_names: words under the pictures.
    """
    count = _check({"queries": queries, "results": results, "correct": correct})
    widest = max(len(found) for found in results)
    figure, grid = _grid(count, widest + 1, width=1.55, aspect=1.16)
    for row in range(count):
        _check({"results": results[row], "correct": correct[row]})
        _draw(grid[row, 0], queries[row])
        grid[row, 0].set_xlabel(shorten(query_names[row]) if query_names else "", fontsize=8)
        for column, (picture, right) in enumerate(zip(results[row], correct[row]), start=1):
            axes, color = grid[row, column], _RIGHT if right else _WRONG
            _draw(axes, picture)
            name = f" {shorten(result_names[row][column - 1], 20)}" if result_names else ""
            axes.set_xlabel(f"{'✓' if right else '✗'}{name}", fontsize=8, color=color)
            axes.add_patch(
                Rectangle(
                    (0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=color, linewidth=3, clip_on=False
                )
            )
        for axes in grid[row, 1 + len(results[row]) :]:
            axes.set_axis_off()
    for column, axes in enumerate(grid[0]):
        axes.set_title("query" if column == 0 else f"{column}.", loc="left")
    return figure


def _draw(axes, picture: Any) -> None:
    """A frame as it is, or a spectrogram with its low frequencies below."""
    values = as_array(picture)
    if values.dtype == np.uint8:
        axes.imshow(enlarged(values))
        return
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2:
        raise ValueError(f"Expected a frame of uint8 or a spectrogram (frequencies, time), got shape {values.shape}.")
    axes.imshow(values, origin="lower", aspect="auto", cmap="magma")
    axes.set_box_aspect(1)


__all__ = [
    "IGNORED",
    "SIDE",
    "box_outlines",
    "class_colors",
    "enlarged",
    "heat_overlay",
    "localization_examples",
    "mask_overlay",
    "outline",
    "retrieval_examples",
    "segmentation_examples",
    "stretched",
]
