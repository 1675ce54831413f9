"""Images without matplotlib: heat maps, masks and outlines over frames, and spectrograms.

Maps and masks may be coarser than their frame and are resized to it, maps bilinearly, masks by nearest neighbor.
Frames are enlarged to at least `SIDE` pixels first, so that lines stay thin on small frames.
"""

import colorsys
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from .media import as_array, as_frame, as_waveform

SIDE = 224  # pixels
IGNORED = 255  # label of ignored pixels
_SILENCE = 1e-10  # floor of a spectrogram's power, which keeps its logarithm finite
# matplotlib's perceptually uniform "inferno" at 17 evenly spaced values; interpolation is off by 7 of 255 at most.
_INFERNO = (
    *("000004", "0b0724", "210c4a", "3d0965", "57106e", "71196e", "8a226a", "a32c61", "bc3754"),
    *("d24644", "e45a31", "f1731d", "f98e09", "fcac11", "f9cb35", "f2ea69", "fcffa4"),
)
_DISTINCT = (
    *("9aa0a6", "e6194b", "3cb44b", "ffe119", "0082c8", "f58231", "911eb4", "46f0f0"),
    *("f032e6", "d2f53c", "fabebe", "008080", "aa6e28", "800000", "aaffc3", "000080"),
)
_LUMA = np.array([0.299, 0.587, 0.114])
_PANEL = (720, 160)  # width and height of a spectrogram in pixels
_MARGINS = (56, 30, 26)  # pixels left of it, above and below
_SOUNDING = (255, 140, 26)  # color of a binary mask


def enlarged(frame: Any, side: int = SIDE) -> np.ndarray:
    """Repeat the pixels of a frame by a whole factor until its longer side has at least `side`."""
    frame = as_frame(frame)
    times = max(1, -(-side // max(frame.shape[:2])))
    return frame.repeat(times, axis=0).repeat(times, axis=1)


def resized(values: Any, height: int, width: int, smooth: bool) -> np.ndarray:
    """Resize a map (h, w) or (1, h, w) to (height, width), bilinearly if `smooth`, else by nearest neighbor."""
    values = as_array(values)
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"Expected a map (H, W), got shape {values.shape}.")
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))[None, None]
    mode = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest-exact"}
    return F.interpolate(tensor, size=(height, width), **mode)[0, 0].numpy()


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the border of a mask (H, W) bool on an image (H, W, 3): white with a dark rim, visible on any background."""
    image = image.copy()
    # Padding makes the image's edge a border, so that a full mask has an outline.
    eroded = ~_dilated(np.pad(~mask, 2, constant_values=True), 2)[2:-2, 2:-2]
    inner = mask & ~eroded
    image[_dilated(inner, 1) & ~inner] = 20
    image[inner] = 255
    return image


def _dilated(mask: np.ndarray, pixels: int) -> np.ndarray:
    values = torch.from_numpy(mask.astype(np.float32))[None]
    return F.max_pool2d(values, 2 * pixels + 1, stride=1, padding=pixels)[0].numpy() > 0


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Colors (..., 3), float 0..255, of values 0..1 (...): from black over red to light yellow."""
    stops = np.array([tuple(bytes.fromhex(color)) for color in _INFERNO], dtype=np.float64)
    positions = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, positions, channel) for channel in stops.T], axis=-1)


def heat_overlay(
    frame: Any,
    heat: Any,
    target: Any = None,
    limits: tuple[float, float] | None = None,
    alpha: float = 0.85,
    seen: Any = None,
) -> np.ndarray:
    """Overlay a heat map on a desaturated frame: the hotter, the brighter and the more opaque.

    Args:
        frame: (H, W, 3) uint8.
        heat: (h, w), of any range and resolution.
        target: (h, w), outlined at the level 0.5.
        limits: Values of the coldest and the hottest color; by default the map's minimum and maximum.
        alpha: Opacity of the hottest color.
        seen: (h, w) bool, what the model saw; the rest is hatched. By default, all.

    Returns:
        (H', W', 3) uint8, the frame enlarged to at least `SIDE`.

    Raises:
        ValueError: For a heat map with NaN or infinity, or of another shape.
    """
    large = enlarged(frame)
    heat = resized(heat, *large.shape[:2], smooth=True)
    if not np.isfinite(heat).all():
        raise ValueError("Expected a finite heat map, got NaN or infinities.")
    low, high = (heat.min(), heat.max()) if limits is None else limits
    heat = np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)
    background = 0.75 * (0.8 * (large @ _LUMA)[..., None] + 0.2 * large)
    weight = (alpha * heat)[..., None]
    image = np.round((1 - weight) * background + weight * heat_colors(0.15 + 0.85 * heat)).astype(np.uint8)
    if target is not None:
        image = outline(image, resized(target, *image.shape[:2], smooth=True) > 0.5)
    return image if seen is None else _hatched(image, resized(seen, *image.shape[:2], smooth=False) == 0)


def _hatched(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Hatch the pixels of an image (H, W, 3) where a mask (H, W) is True."""
    if not where.any():
        return image
    return np.where(where[..., None], _stripes(*where.shape)[..., None].astype(image.dtype), image)


@functools.lru_cache(maxsize=1)
def _stripes(height: int, width: int) -> np.ndarray:
    """Diagonal stripes (height, width) uint8, the same for all frames of a film."""
    rows, columns = np.ogrid[:height, :width]
    return np.where((rows + columns) // 4 % 2 == 0, 150, 110).astype(np.uint8)


def class_colors(count: int) -> np.ndarray:
    """Colors (count, 3) uint8 of classes, the same for any count: 16 of distinct hue and lightness, then more hues."""
    colors = [tuple(bytes.fromhex(color)) for color in _DISTINCT[:count]]
    for index in range(len(colors), count):
        hue = index * 0.61803398875 % 1  # golden-ratio steps never repeat a hue
        saturation, value = [(0.85, 0.95), (0.45, 1.0), (0.9, 0.6)][index % 3]
        colors.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)))
    return np.array(colors, dtype=np.uint8).reshape(-1, 3)


def mask_overlay(
    frame: Any, mask: Any, colors: Any = None, background: int | None = 0, alpha: float = 0.7
) -> np.ndarray:
    """Overlay a mask on a frame: one color for a binary mask, or a color per class.

    Args:
        frame: (H, W, 3) uint8.
        mask: (h, w); bool or float (foreground above 0.5) are binary, integers are classes if `colors` is given, else
            binary. `IGNORED` pixels of an integer mask are hatched.
        colors: (classes, 3) uint8, such as `class_colors`.
        background: Class that is not colored.
        alpha: Opacity of the colors.

    Returns:
        (H', W', 3) uint8, the frame enlarged to at least `SIDE`.

    Raises:
        ValueError: For a mask of another shape, with classes out of range, or with `colors` but not of integers.
    """
    mask = as_array(mask)
    large = enlarged(frame)
    values = resized(mask, *large.shape[:2], smooth=False)
    integers = np.issubdtype(mask.dtype, np.integer)
    ignored = values == IGNORED if integers else np.zeros(values.shape, dtype=bool)
    if colors is None:
        foreground = (values > 0.5) & ~ignored
        color = np.broadcast_to(np.array(_SOUNDING), large.shape)
    else:
        if not integers:
            raise ValueError(f"Expected a mask of class indices, got {mask.dtype}.")
        colors, classes = as_array(colors), np.where(ignored, 0, values).astype(np.int64)
        if classes.min() < 0 or classes.max() >= len(colors):
            raise ValueError(
                f"Expected classes 0..{len(colors) - 1} or {IGNORED}, got {classes.min()}..{classes.max()}."
            )
        foreground = ~ignored if background is None else ~ignored & (classes != background)
        color = colors[classes]
    gray = np.repeat((large @ _LUMA)[..., None], 3, axis=2)
    image = np.where(foreground[..., None], (1 - alpha) * gray + alpha * color, 0.55 * large + 0.3 * gray)
    return _hatched(np.round(image).astype(np.uint8), ignored)


def stft_spectrograms(
    panels: Mapping[str, Any],
    rate: int,
    n_fft: int = 1024,
    dynamic_range: float = 80.0,
    max_frequency: float | None = None,
) -> Image.Image:
    """Draw power spectrograms of waveforms, one below the other, on common axes of seconds and Hz.

    Args:
        panels: Title -> waveform (N,) of floats.
        rate: Sampling rate in Hz.
        n_fft: Length of the Hann window in samples; the hop is a quarter of it.
        dynamic_range: dB below the maximum of all panels that the colors span.
        max_frequency: Upper edge in Hz; by default half the sampling rate.

    Raises:
        ValueError: For no panels, or anything but finite waveforms of floats.
    """
    if not panels:
        raise ValueError("Expected at least one spectrogram, got none.")
    top = rate / 2 if max_frequency is None else min(max_frequency, rate / 2)
    shown = int(top / rate * n_fft) + 1
    power = {name: stft_power(waveform, n_fft)[:shown].copy() for name, waveform in panels.items()}  # frees the rest
    peak = max(max(float(values.max()) for values in power.values()), _SILENCE)
    longest = max(len(waveform) for waveform in panels.values()) / rate
    (width, height), (left, above, below) = _PANEL, _MARGINS
    page = Image.new("RGB", (left + width + 16, len(panels) * (above + height + below)), "white")
    draw = ImageDraw.Draw(page)
    for index, (name, values) in enumerate(power.items()):
        level = 1 + 10 * np.log10(np.maximum(values / peak, _SILENCE)) / dynamic_range
        colors = np.round(heat_colors(np.clip(level, 0, 1)[::-1])).astype(np.uint8)  # low frequencies at the bottom
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
    """Power spectrogram (n_fft // 2 + 1, frames) of a waveform (N,): Hann window, centered frames, hop n_fft // 4."""
    waveform = torch.from_numpy(as_waveform(waveform)).double()
    window = torch.hann_window(n_fft, dtype=torch.float64)
    spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True)
    return spectrum.abs().square().numpy()


def _ticks(end: float) -> np.ndarray:
    """At most six round numbers from 0 to `end`."""
    power = 10.0 ** np.floor(np.log10(end / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if end / (factor * power) < 6)
    return np.arange(int(end / step) + 1) * step


__all__ = [
    "IGNORED",
    "SIDE",
    "class_colors",
    "enlarged",
    "heat_colors",
    "heat_overlay",
    "mask_overlay",
    "outline",
    "resized",
    "stft_power",
    "stft_spectrograms",
]
