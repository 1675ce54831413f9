"""Charts of evaluations and runs: confusion matrix, success curves, training curves, spectrograms.

Figures are independent of pyplot and of the process's style.
Text from data (names of classes or files) is drawn literally, never as a formula.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from sklearn.metrics import auc

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.media import as_array

from ..wording import NEIGHBOR_METRICS, RANDOM_NEIGHBOR, metric_title
from .style import COLORS, CYCLE, MARKED, chart_axes, figure_png, markers, note_absence, own_style, shorten

MAX_CLASSES = 40  # of a legible confusion matrix
_ANNOTATED = 20  # number of classes up to which cells are annotated
# Parts of the loss of pre-training, in the order of drawing.
_LOSSES = {
    "image": COLORS["image"],
    "audio": COLORS["audio"],
    "alignment": COLORS["all"],
    "invariance": COLORS["fusion"],
    "sigreg": COLORS["total"],
}


@own_style
def confusion_matrix(counts: Any, names: Sequence[str]) -> Figure:
    """Draw a confusion matrix, each row normalized to 1; rows of classes without samples are gray.

    Args:
        counts: (C, C), rows for the true class, columns for the predicted one.
        names: Names of the C classes, at most `MAX_CLASSES`.

    Raises:
        ValueError: For too many classes, another shape, or negative counts.
    """
    counts, size = as_array(counts).astype(np.float64), len(names)
    if not 0 < size <= MAX_CLASSES:
        raise ValueError(f"Expected 1 to {MAX_CLASSES} classes, got {size}.")
    if counts.shape != (size, size) or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"Expected non-negative counts ({size}, {size}), got shape {counts.shape}.")
    totals = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        fractions = counts / totals[:, None]
    cell, font_size = (0.42, 9) if size <= _ANNOTATED else (0.2, 7)
    figure = Figure(figsize=(cell * size + 3.4, cell * size + 2.2), layout="constrained")
    axes = figure.subplots()
    colormap = matplotlib.colormaps["Blues"].with_extremes(bad="#e3e5e8")
    image = axes.imshow(fractions, cmap=colormap, vmin=0, vmax=1, interpolation="nearest")
    labels = [shorten(name, 28) for name in names]
    axes.set_xticks(range(size), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=font_size)
    axes.set_yticks(range(size), [f"{label}  ({n:g})" for label, n in zip(labels, totals)], fontsize=font_size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (samples)")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if size <= _ANNOTATED:
        for row, column in zip(*np.nonzero(counts)):
            fraction = fractions[row, column]
            color = "white" if fraction > 0.55 else "#1d2126"
            axes.text(column, row, f"{100 * fraction:.0f}", ha="center", va="center", fontsize=8, color=color)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.2 / (cell * size)), aspect=14, pad=0.02, ticks=[0, 0.5, 1])
    bar.set_ticklabels(["0 %", "50 %", "100 %"])
    bar.set_label("fraction of the true class")
    bar.outline.set_visible(False)
    return figure


@own_style
def success_curves(ciou: Mapping[str, Any], baselines: Sequence[str] = (), mark: float = 0.5) -> Figure:
    """Draw the fraction of images whose cIoU reaches a threshold, over thresholds, with the AUC in the legend.

    Args:
        ciou: Name -> cIoU (N,) of each image.
        baselines: Names to draw dashed (other clip's audio, whole image, centered box).
        mark: Threshold of the reported fraction, drawn as a vertical line.

    Raises:
        ValueError: For another shape, or NaN.
    """
    thresholds = np.arange(21) / 20
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axvline(mark, color="#b9c0c7", linewidth=1)
    for index, (name, values) in enumerate(ciou.items()):
        values = as_array(values).astype(np.float64)
        if values.ndim != 1 or not len(values) or np.isnan(values).any():
            raise ValueError(f"Expected the cIoU of each image (N,) for {name!r}, got shape {values.shape} or NaN.")
        fractions = (values[:, None] >= thresholds).mean(axis=0)
        at = 100 * float((values >= mark).mean())
        label = f"{name}: {at:.1f} % at {mark:g}, AUC {100 * auc(thresholds, fractions):.1f} %"
        style = {"color": COLORS.get(name, CYCLE[index % len(CYCLE)]), "linewidth": 1.9}
        if name in baselines:
            style = {"color": "#7b858f", "linewidth": 1.2, "linestyle": ["--", ":", "-."][index % 3]}
        axes.plot(thresholds, fractions, label=label, marker="o", markersize=3, **style)
    chart_axes(axes, "Success rate", "cIoU threshold", "fraction of images with a cIoU at or above it")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0)
    return figure


@own_style
def training_curves(
    train: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    chance: Mapping[str, float] | None,
    path: str | Path,
    title: str,
) -> None:
    """Draw losses, nearest-neighbor scores, learning rate and gradient norm of a pre-training over epochs, as a PNG.

    Args:
        train: Records of metrics.jsonl of kind "train".
        evaluations: Records of metrics.jsonl of kind "evaluation".
        chance: Metric -> score (0..1) of random neighbors; None without nearest-neighbor scores.
        path: PNG file to write.
        title: Title of the figure.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    losses, probe, rate, norm = figure.subplots(2, 2).ravel()
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    epochs = [record["epoch"] for record in train]
    _loss_panel(losses, train, evaluations)
    _probe_panel(probe, evaluations, chance)
    few = markers(epochs)
    rate.plot(epochs, [record["learning_rate"] for record in train], color=COLORS["total"], **few)
    chart_axes(rate, "Learning rate", "epoch", "learning rate")
    norm.plot(epochs, [record["grad_norm"] for record in train], color=COLORS["total"], linewidth=1.0, **few)
    if any(record["grad_norm"] > 0 for record in train):
        _log_axis(norm)
    chart_axes(norm, "Gradient norm", "epoch", "norm")
    write_atomically(path, figure_png(figure))


@own_style
def finetuning_curves(
    train: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    metric: str,
    path: str | Path,
    title: str,
) -> None:
    """Draw loss, a metric of the evaluations during training, and learning rate over epochs, as a PNG.

    Args:
        train: Records of metrics.jsonl of kind "train".
        evaluations: Records of metrics.jsonl of kind "evaluation".
        metric: Name of the metric in these.
        path: PNG file to write.
        title: Title of the figure.
    """
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    panels = (
        ("Training loss", "loss", train, "loss"),
        ("Evaluation during training", metric, evaluations, metric_title(metric)),
        ("Learning rate", "learning_rate", train, "learning rate"),
    )
    for axes, (heading, name, records, label) in zip(figure.subplots(1, 3), panels, strict=True):
        points = [(record["epoch"], record[name]) for record in records if name in record]
        if points:
            axes.plot(*zip(*points, strict=True), color=COLORS["total"], **markers(points))
        else:
            note_absence(axes)
        chart_axes(axes, heading, "epoch", label)
    write_atomically(path, figure_png(figure))


def _loss_panel(axes, train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Draw the parts of the loss, on a logarithmic scale unless all of them are errors of reconstruction."""
    names = [name for name in _LOSSES if any(f"{name}_loss" in record for record in train)]
    for name in names:
        for records, style, origin in (
            (train, markers(train), "training"),
            (evaluations, {"linestyle": "--", **MARKED}, "held out"),
        ):
            points = [(record["epoch"], record[f"{name}_loss"]) for record in records if f"{name}_loss" in record]
            if points:
                axes.plot(*zip(*points, strict=True), color=_LOSSES[name], label=f"{name}, {origin}", **style)
        if evaluations and (level := evaluations[-1].get(f"{name}_oracle_loss")) is not None:
            axes.axhline(level, color=_LOSSES[name], linestyle=":", linewidth=1.0, label=f"{name}, oracle")
    if names == ["image", "audio"]:
        chart_axes(axes, "Reconstruction loss of masked patches", "epoch", "mean squared error")
    else:
        _log_axis(axes)
        chart_axes(axes, "Parts of the loss", "epoch", "loss")
    axes.legend()


def _log_axis(axes) -> None:
    """Scale the y axis logarithmically, with plain numbers: the style draws no formulas."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


def _probe_panel(axes, evaluations: Sequence[Mapping[str, Any]], chance: Mapping[str, float] | None) -> None:
    probed = [record for record in evaluations if record.get("probe")]
    if not probed:
        chart_axes(axes, "Nearest-neighbor probe", "epoch", "score")
        note_absence(axes)
        return
    metric = next(iter(probed[0]["probe"]["fusion"]))
    epochs = [record["epoch"] for record in probed]
    for name in probed[0]["probe"]:
        scores = [100 * record["probe"][name][metric] for record in probed]
        axes.plot(epochs, scores, color=COLORS[name], label=name, **MARKED)
    if chance is not None:
        axes.axhline(100 * chance[metric], color="0.4", linestyle=":", label=RANDOM_NEIGHBOR)
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])  # room for the legend
    chart_axes(axes, "Leave-one-out nearest neighbor, held-out clips", "epoch", f"{NEIGHBOR_METRICS[metric]} (%)")
    axes.legend(fontsize=8, ncols=5, loc="upper left", columnspacing=1.2)


@own_style
def log_mels(
    panels: Mapping[str, Any],
    frames_per_second: float = 64.0,
    min_frequency: float = 0.0,
    max_frequency: float = 8000.0,
    unit: str = "log10 power",
) -> Figure:
    """Draw log-mel spectrograms side by side, at most four per row, on a common color scale.

    Args:
        panels: Title -> log-mel (mels, time) or (1, mels, time), as computed by the feature extractor; NaN is gray.
        frames_per_second: Time frames per second: 64 at 16 kHz with a hop of 250.
        min_frequency: Lower edge of the HTK mel filters, in Hz.
        max_frequency: Upper edge of the HTK mel filters, in Hz.
        unit: Unit of the values.

    Raises:
        ValueError: For no panels, or other shapes.
    """
    if not panels:
        raise ValueError("Expected at least one spectrogram, got none.")
    values = {}
    for name, panel in panels.items():
        panel = as_array(panel).astype(np.float64)
        panel = panel[0] if panel.ndim == 3 and panel.shape[0] == 1 else panel
        if panel.ndim != 2:
            raise ValueError(f"Expected a log-mel (mels, time) for {name!r}, got shape {panel.shape}.")
        values[name] = panel
    low_mel, high_mel = _hz_to_mel([min_frequency, max_frequency])
    ticks = [hz for hz in (125, 250, 500, 1000, 2000, 4000, 8000, 16000) if min_frequency < hz <= max_frequency]
    low, high = np.nanpercentile(np.concatenate([panel.ravel() for panel in values.values()]), [1, 99.7])
    high = max(high, low + 0.1)  # silence has no range of its own
    colormap = matplotlib.colormaps["magma"].with_extremes(bad="#808080")
    columns = min(len(values), 4)
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(2.9 * columns + 1.1, 2.35 * rows + 0.35), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for index, (axes, (name, panel)) in enumerate(zip(grid.flat, values.items())):
        mels, steps = panel.shape
        extent = (0, steps / frames_per_second, -0.5, mels - 0.5)
        scale = {"cmap": colormap, "vmin": low, "vmax": high, "interpolation": "nearest"}
        image = axes.imshow(panel, origin="lower", aspect="auto", extent=extent, **scale)
        axes.set_title(shorten(name, 36))
        # Filter i is centered at the (i + 1)-th of mels + 2 even steps of the mel scale.
        positions = (_hz_to_mel(ticks) - low_mel) / (high_mel - low_mel) * (mels + 1) - 1
        first = index % columns == 0
        axes.set_yticks(positions, [f"{hz:g}" if first else "" for hz in ticks])
        axes.set_ylim(extent[2:])
        axes.set_ylabel("Hz" if first else "")
        axes.set_xlabel("seconds" if index + columns >= len(values) else "")
        axes.tick_params(length=2.5)
        axes.spines[:].set_visible(False)
    for axes in grid.flat[len(values) :]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=grid, aspect=22, pad=0.015, shrink=0.95)  # ty: ignore[possibly-unresolved-reference]
    bar.set_label(unit)
    bar.outline.set_visible(False)
    return figure


def _hz_to_mel(hz: Any) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hz, dtype=np.float64) / 700)  # HTK's


__all__ = ["MAX_CLASSES", "confusion_matrix", "finetuning_curves", "log_mels", "success_curves", "training_curves"]
