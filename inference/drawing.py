"""Images without matplotlib: heat maps, masks, boxes and outlines over frames, and spectrograms.

Maps and masks may be coarser than their frame: they are stretched over it, maps smoothly, masks in blocks. Everything
is drawn on frames enlarged to at least `SIDE` pixels, so that lines are fine on small frames too.
"""

import colorsys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from .media import as_array, as_frame, as_waveform

SIDE = 224  # pixels
IGNORED = 255  # label of pixels without truth
_SILENCE = 1e-10  # power below which a spectrogram is silence, so that its logarithm is finite
# matplotlib's perceptually uniform "inferno" at 17 evenly spaced values; interpolation is off by 7 of 255 at most.
_INFERNO = (
    *("000004", "0b0724", "210c4a", "3d0965", "57106e", "71196e", "8a226a", "a32c61", "bc3754"),
    *("d24644", "e45a31", "f1731d", "f98e09", "fcac11", "f9cb35", "f2ea69", "fcffa4"),
)
_DISTINCT = [
    *("9aa0a6", "e6194b", "3cb44b", "ffe119", "0082c8", "f58231", "911eb4", "46f0f0"),
    *("f032e6", "d2f53c", "fabebe", "008080", "aa6e28", "800000", "aaffc3", "000080"),
]
_PANEL = (720, 160)  # pixels of a spectrogram: width, height
_MARGINS = (56, 30, 26)  # pixels around it: left, above, below
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


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Colours (..., 3), float 0..255, of values 0..1 (...): from black over red to light yellow, ever brighter."""
    stops = np.array([tuple(bytes.fromhex(color)) for color in _INFERNO], dtype=np.float64)
    positions = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, positions, channel) for channel in stops.T], axis=-1)


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
    colors = heat_colors(0.15 + 0.85 * share)
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


def stft_spectrograms(
    panels: Mapping[str, Any],
    rate: int,
    n_fft: int = 1024,
    dynamic_range: float = 80.0,
    max_frequency: float | None = None,
) -> Image.Image:
    """Power spectrograms of waveforms, one below the other, on shared axes of seconds and Hz.

    Args:
        panels: title -> waveform (N,) of floats.
        rate: in Hz.
        n_fft: samples of the Hann window; the hop is a quarter.
        dynamic_range: dB below the loudest value of all panels that the colours span.
        max_frequency: Hz at the upper edge; half the rate by default.
    """
    if not panels:
        raise ValueError("Expected at least one spectrogram, got none.")
    top = rate / 2 if max_frequency is None else min(max_frequency, rate / 2)
    power = {name: stft_power(waveform, n_fft)[: int(top / rate * n_fft) + 1] for name, waveform in panels.items()}
    peak = max(max(float(values.max()) for values in power.values()), _SILENCE)
    longest = max(len(waveform) for waveform in panels.values()) / rate
    (width, height), (left, above, below) = _PANEL, _MARGINS
    page = Image.new("RGB", (left + width + 16, len(panels) * (above + height + below)), "white")
    draw = ImageDraw.Draw(page)
    for index, (name, values) in enumerate(power.items()):
        share = 1 + 10 * np.log10(np.maximum(values / peak, _SILENCE)) / dynamic_range
        colors = np.round(heat_colors(np.clip(share, 0, 1)[::-1])).astype(np.uint8)  # low frequencies below
        y = index * (above + height + below) + above
        size = (max(1, round(width * len(panels[name]) / rate / longest)), height)
        page.paste(Image.fromarray(colors).resize(size, Image.Resampling.BOX), (left, y))
        draw.text((left, y - 6), " ".join(name.split()), fill="black", anchor="ls", font_size=14)
        for hz in _ticks(top):
            draw.text((left - 6, y + height * (1 - hz / top)), f"{hz:g} Hz", fill="#555555", anchor="rm", font_size=11)
        for time in _ticks(longest):
            x = left + width * time / longest
            draw.text((x, y + height + 4), f"{time:g} s", fill="#555555", anchor="mt", font_size=11)
    return page


def stft_power(waveform: Any, n_fft: int) -> np.ndarray:
    """Power (n_fft // 2 + 1, frames) of a waveform (N,): Hann window, centred frames, hop of a quarter."""
    padded = np.pad(as_waveform(waveform).astype(np.float64), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
    return np.abs(np.fft.rfft(frames * np.hanning(n_fft + 1)[:-1], axis=1).T) ** 2


def _ticks(end: float) -> np.ndarray:
    """At most six round numbers from 0 to `end`."""
    power = 10.0 ** np.floor(np.log10(end / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if end / (factor * power) < 6)
    return np.arange(int(end / step) + 1) * step


__all__ = [
    "IGNORED",
    "SIDE",
    "box_outlines",
    "class_colors",
    "enlarged",
    "heat_colors",
    "heat_overlay",
    "mask_overlay",
    "outline",
    "stft_power",
    "stft_spectrograms",
    "stretched",
]
