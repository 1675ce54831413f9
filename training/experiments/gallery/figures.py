"""Charts of the gallery: distributions of scores, and a strip of frames with what sounds and what was separated."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ...report.style import COLORS, CYCLE, chart_axes, own_style
from .choice import Case, Measure

_BINS = 30


class StripScene(NamedTuple):
    """A scene of a strip.

    Attributes:
        title: Name of the scene.
        frames: T frames over time, (H, W, 3) uint8 each.
        overlays: The same frames with what sounds overlaid.
        separated: (mels, time), log-mel of what was separated by its frame.
    """

    title: str
    frames: Sequence[np.ndarray]
    overlays: Sequence[np.ndarray]
    separated: np.ndarray


@own_style
def distribution(scores: np.ndarray, cases: Sequence[Case], measure: Measure) -> Figure:
    """Draw the histogram of the scores of all clips, with a line for each case.

    Args:
        scores: (N,), NaN for clips that have none.
        cases: What is shown.
        measure: What the scores are.
    """
    figure = Figure(figsize=(6.4, 2.1), layout="constrained")
    axes = figure.subplots()
    scores = scores[~np.isnan(scores)]
    axes.hist(scores, bins=_BINS, color=COLORS["fusion"], alpha=0.55)
    for case, color in zip(cases, CYCLE[1:]):
        axes.axvline(case.score, color=color, linewidth=1.6, label=f"{case.name.lower()}: {measure.text(case.score)}")
    chart_axes(axes, f"{len(scores):,} scores", measure.name, "clips")
    if not measure.higher:
        axes.invert_xaxis()  # better is on the right, as of all others
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


@own_style
def strip(scenes: Sequence[StripScene], mixture: np.ndarray, seconds: float, max_frequency: float) -> Figure:
    """Draw scenes over time, without and with what sounds, and spectrograms of their mixture and what was separated.

    Args:
        scenes: The scenes, each with as many frames.
        mixture: (mels, time), log-mel of the mixture.
        seconds: Length of the scenes.
        max_frequency: Upper edge of the mel filters in Hz.
    """
    count = len(scenes[0].frames)
    rows = [
        (label, images)
        for scene in scenes
        for label, images in ((scene.title, scene.frames), ("what sounds", scene.overlays))
    ]
    separated = [(f"separated by the frame of {scene.title}", scene.separated) for scene in scenes]
    panels = [("mixture", mixture), *separated]
    heights = [1.0] * len(rows) + [1.0] * len(panels)
    figure = Figure(figsize=(8.5, 8.5 / count * sum(heights)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)  # ty: ignore[unknown-argument]
    grid = figure.add_gridspec(len(heights), count, height_ratios=heights)
    for row, (label, images) in enumerate(rows):
        for column, image in enumerate(images):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
            if row == 0:
                axes.set_title(f"{(column + 0.5) / count * seconds:.2g} s", fontsize=9, loc="center")
    low, high = np.percentile(mixture, [1, 99.7])
    high = max(high, low + 0.1)  # silence has no range of its own
    colormap = matplotlib.colormaps["magma"]
    for row, (title, values) in enumerate(panels, len(rows)):
        axes = figure.add_subplot(grid[row, :])
        extent = (0, seconds, 0, max_frequency / 1000)
        axes.imshow(values, origin="lower", aspect="auto", extent=extent, cmap=colormap, vmin=low, vmax=high)
        axes.set_title(title, fontsize=9)
        axes.set_yticks([])
        axes.set_ylabel("mel")
        axes.spines[:].set_visible(False)
        last = row == len(heights) - 1
        axes.tick_params(length=2.5, labelbottom=last)
        axes.set_xlabel("seconds" if last else "")
    return figure


__all__ = ["StripScene", "distribution", "strip"]
