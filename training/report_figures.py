"""Charts of a report: confusions, learning curves, precision-recall, success over thresholds, spectrograms.

Every function returns a matplotlib `Figure` of its own (no pyplot, no window, whatever style a notebook has set).
Words that come from data (names of classes, of files) are drawn as they are, never read as formulas.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .figures import COLORS
from .report_media import as_array, as_waveform, own_style

MAX_CLASSES = 40  # of a confusion matrix that can be read
_NUMBERED = 20  # classes up to which every cell holds its number
_CYCLE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333"]  # Okabe and Ito
_NO_CURVE = ("runtime", "per_second", "total_flos", "eta", "step", "epoch", "kind", "clips", "seconds")
_SILENCE = 1e-10  # power below which a spectrogram is silence, so that its logarithm is finite


def shorten(name: str, length: int = 24) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _counts(counts: Any, names: Sequence[str]) -> np.ndarray:
    counts = as_array(counts).astype(np.float64)
    if counts.shape != (len(names), len(names)) or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"Expected counts ({len(names)}, {len(names)}), none negative, got shape {counts.shape}.")
    return counts


def confusion_counts(labels: Any, predictions: Any, num_classes: int) -> np.ndarray:
    """Counts (C, C): row the true class, column the predicted one. labels, predictions: class indices (N,)."""
    labels, predictions = as_array(labels).astype(np.int64), as_array(predictions).astype(np.int64)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(f"Expected two lists of one length, got shapes {labels.shape} and {predictions.shape}.")
    both = np.concatenate([labels, predictions])
    if both.size and (both.min() < 0 or both.max() >= num_classes):
        raise ValueError(f"Expected classes 0..{num_classes - 1}, got {both.min()}..{both.max()}.")
    return np.bincount(num_classes * labels + predictions, minlength=num_classes**2).reshape(num_classes, -1)


def confused_pairs(counts: Any, names: Sequence[str], limit: int = 30) -> tuple[list[str], list[list[str]]]:
    """The most confused pairs of classes, by number of samples, as (columns, rows) of a table."""
    counts = _counts(counts, names)
    totals = counts.sum(axis=1)
    wrong = counts * (1 - np.eye(len(names)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, counts.shape)):
        if wrong[true, predicted] > 0:
            share, right = (counts[true, k] / totals[true] for k in (predicted, true))
            cells = [f"{wrong[true, predicted]:g}", f"{100 * share:.0f} %", f"{100 * right:.0f} %", f"{totals[true]:g}"]
            rows.append([names[true], names[predicted], *cells])
    return ["true class", "taken for", "samples", "share of the class", "right", "samples of the class"], rows


@own_style
def confusion_matrix(counts: Any, names: Sequence[str]) -> Figure:
    """Confusions, each row normalised to 1, of up to `MAX_CLASSES` classes; a class without samples is grey.

    Args:
        counts: (C, C), row the true class, column the predicted one.
        names: of the C classes.
    """
    counts, size = _counts(counts, names), len(names)
    if not 0 < size <= MAX_CLASSES:
        raise ValueError(f"Expected 1 to {MAX_CLASSES} classes, got {size}: use confused_pairs.")
    totals = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = counts / totals[:, None]
    cell = 0.42 if size <= _NUMBERED else 0.2
    text = 9 if size <= _NUMBERED else 7
    figure = Figure(figsize=(cell * size + 3.4, cell * size + 2.2), layout="constrained")
    axes = figure.subplots()
    colormap = matplotlib.colormaps["Blues"].with_extremes(bad="#e3e5e8")
    drawn = axes.imshow(shares, cmap=colormap, vmin=0, vmax=1, interpolation="nearest")
    labels = [shorten(name, 28) for name in names]
    axes.set_xticks(range(size), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=text)
    axes.set_yticks(range(size), [f"{label}  ({n:g})" for label, n in zip(labels, totals)], fontsize=text)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (samples)")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if size <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts)):
            share = shares[row, column]
            color = "white" if share > 0.55 else "#1d2126"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=color)
    bar = figure.colorbar(drawn, ax=axes, shrink=min(1.0, 2.2 / (cell * size)), aspect=14, pad=0.02, ticks=[0, 0.5, 1])
    bar.set_ticklabels(["0 %", "50 %", "100 %"])
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a record, nested ones under dotted names."""
    numbers = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            numbers |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[f"{prefix}{key}"] = float(value)
    return numbers


def _series(source: Any) -> tuple[str, dict[str, dict[str, tuple[list[float], list[float]]]]]:
    """Records as the axis they run along and panel -> "training" or "held out" -> (x, y)."""
    if isinstance(source, str | Path):
        lines = Path(source).read_text(encoding="utf-8").splitlines()
        source = [json.loads(line) for line in lines if line.strip()]
    records = [(record.get("kind"), _flat(record)) for record in source]
    axis = "epoch" if all("epoch" in numbers for _, numbers in records) else "step"
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for kind, numbers in records:
        if axis not in numbers:
            raise ValueError(f"Expected every record to hold an epoch or a step, got {sorted(numbers)}.")
        for key, value in numbers.items():
            held_out = kind == "evaluation" or key.startswith("eval_")
            name = key.removeprefix("eval_").removeprefix("train_")
            if not any(name == word or name.endswith(f"_{word}") for word in _NO_CURVE):
                xs, ys = panels.setdefault(name, {}).setdefault("held out" if held_out else "training", ([], []))
                xs.append(numbers[axis])
                ys.append(value)
    return axis, panels


@own_style
def learning_curves(source: Any, names: Mapping[str, str] | Sequence[str] | None = None) -> Figure:
    """A panel for each quantity over epochs (or steps): the training records' as a line, held-out ones' as dots.

    Args:
        source: path of a metrics.jsonl, its records, or a Trainer's `state.log_history`. A quantity is held out where
            its record is of kind "evaluation" or its name starts with "eval_".
        names: quantities to draw, without "eval_" ("loss", "probe.fusion.accuracy"), with titles if a mapping; all of
            them by default, but for times and counters.
    """
    axis, panels = _series(source)
    wanted = {name: name for name in (panels if names is None else names)}
    if isinstance(names, Mapping):
        wanted = dict(names)
    missing = [name for name in wanted if name not in panels]
    if missing or not wanted:
        raise ValueError(f"Expected quantities among {sorted(panels)}, got {missing or 'none'}.")
    columns = 2 if len(wanted) in (2, 4) else min(len(wanted), 3)
    rows = -(-len(wanted) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 2.6 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, title) in zip(grid, wanted.items()):
        for part, (xs, ys) in panels[name].items():
            style = {"linewidth": 1.3} if part == "training" else {"marker": "o", "markersize": 4, "linewidth": 1.3}
            color = _CYCLE[0] if part == "training" else _CYCLE[1]
            axes.plot(xs, ys, color=color, label=part, **style)
        _chart(axes, title, axis, "")
        if len(panels[name]) > 1:
            axes.legend()
    for axes in grid[len(wanted) :]:
        axes.set_axis_off()
    return figure


def _chart(axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color="#e4e7ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _share_axes(axes, title: str, xlabel: str, ylabel: str) -> None:
    _chart(axes, title, xlabel, ylabel)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0)


def _line_style(name: str, index: int, chance: Sequence[str]) -> dict[str, Any]:
    """A baseline is thin and dashed; the model's streams have their colours everywhere."""
    if name in chance:
        return {"color": "#7b858f", "linewidth": 1.2, "linestyle": ["--", ":", "-."][index % 3]}
    return {"color": COLORS.get(name, _CYCLE[index % len(_CYCLE)]), "linewidth": 1.9}


@own_style
def precision_recall(
    curves: Mapping[str, tuple[Any, Any]], scores: Mapping[str, float] | None = None, baselines: Sequence[str] = ()
) -> Figure:
    """Precision over recall.

    Args:
        curves: name -> (precision (N,), recall (N,)), in the order of scikit-learn's `precision_recall_curve`.
        scores: name -> average precision, for the legend.
        baselines: names to draw as such.
    """
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (name, (precision, recall)) in enumerate(curves.items()):
        label = name if not scores or name not in scores else f"{name}, AP {100 * scores[name]:.1f} %"
        style = _line_style(name, index, baselines)
        axes.step(as_array(recall), as_array(precision), where="post", label=label, **style)
    _share_axes(axes, "Precision and recall", "recall", "precision")
    return figure


@own_style
def success_curves(
    ciou: Mapping[str, Any], thresholds: Any = None, baselines: Sequence[str] = (), mark: float = 0.5
) -> Figure:
    """Share of images whose cIoU reaches a threshold, over thresholds, with the area under it in the legend.

    Args:
        ciou: name -> cIoU of every image (N,).
        thresholds: increasing; 0, 0.05 ... 1 by default.
        baselines: names to draw as such (shuffled sound, whole image, centred box).
        mark: the threshold whose share is reported, drawn as a line.
    """
    thresholds = np.arange(21) / 20 if thresholds is None else as_array(thresholds).astype(np.float64)
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axvline(mark, color="#b9c0c7", linewidth=1)
    for index, (name, values) in enumerate(ciou.items()):
        values = as_array(values).astype(np.float64)
        if values.ndim != 1 or not len(values) or np.isnan(values).any():
            raise ValueError(f"Expected the cIoU of every image (N,) of {name!r}, got shape {values.shape} or NaN.")
        shares = (values[:, None] >= thresholds).mean(axis=0)
        area = float(((shares[1:] + shares[:-1]) / 2 * np.diff(thresholds)).sum())
        at = 100 * float((values >= mark).mean())
        label = f"{name}: {at:.1f} % at {mark:g}, AUC {100 * area:.1f} %"
        axes.plot(thresholds, shares, label=label, marker="o", markersize=3, **_line_style(name, index, baselines))
    _share_axes(axes, "Images whose cIoU reaches the threshold", "cIoU threshold", "share of images")
    return figure


def _require(panels: Mapping[str, Any]) -> None:
    if not panels:
        raise ValueError("Expected at least one spectrogram, got none.")


def _hz_to_mel(hz: Any) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hz, dtype=np.float64) / 700)  # HTK's


@own_style
def log_mels(
    panels: Mapping[str, Any],
    frames_per_second: float = 64.0,
    min_frequency: float = 0.0,
    max_frequency: float = 8000.0,
    unit: str = "log10 power",
) -> Figure:
    """Log-mel spectrograms side by side, one colour scale, low frequencies below.

    Args:
        panels: name -> log-mel (mels, time) or (1, mels, time), as the feature extractor makes them.
        frames_per_second: 64 at 16 kHz with a hop of 250.
        min_frequency, max_frequency: of the HTK mel filters, in Hz.
        unit: of the values.
    """
    _require(panels)
    values = {}
    for name, panel in panels.items():
        panel = as_array(panel).astype(np.float64)
        panel = panel[0] if panel.ndim == 3 and panel.shape[0] == 1 else panel
        if panel.ndim != 2:
            raise ValueError(f"Expected a log-mel (mels, time) for {name!r}, got shape {panel.shape}.")
        values[name] = panel
    low, high = _hz_to_mel([min_frequency, max_frequency])
    ticks = [hz for hz in (125, 250, 500, 1000, 2000, 4000, 8000, 16000) if min_frequency < hz <= max_frequency]

    def rows(mels: int) -> list[float]:  # filter i is centred at the (i + 1)-th of mels + 2 even steps of the mel scale
        return [float((_hz_to_mel(hz) - low) / (high - low) * (mels + 1) - 1) for hz in ticks]

    every = np.concatenate([panel.ravel() for panel in values.values()])
    limits = tuple(np.percentile(every, [1, 99.7]))
    seconds = {name: panel.shape[1] / frames_per_second for name, panel in values.items()}
    return _spectrograms(values, seconds, lambda panel: (rows(len(panel)), ticks), limits, unit)


@own_style
def stft_spectrograms(
    panels: Mapping[str, Any],
    rate: int,
    n_fft: int = 1024,
    dynamic_range: float = 80.0,
    max_frequency: float | None = None,
) -> Figure:
    """Power spectrograms of waveforms side by side, in dB below the loudest value of all, frequencies linear.

    Args:
        panels: name -> waveform (N,) of floats.
        rate: in Hz.
        n_fft: samples of the Hann window; the hop is a quarter.
        dynamic_range: dB that the colours span.
        max_frequency: Hz at the upper edge; half the rate by default.
    """
    _require(panels)
    hop, window = n_fft // 4, np.hanning(n_fft + 1)[:-1]
    power, seconds = {}, {}
    bins = n_fft // 2 + 1
    top = rate / 2 if max_frequency is None else min(max_frequency, rate / 2)
    kept = min(bins, int(top / rate * n_fft) + 1)
    for name, waveform in panels.items():
        waveform = as_waveform(waveform)
        padded = np.pad(waveform.astype(np.float64), n_fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
        power[name] = np.abs(np.fft.rfft(frames * window, axis=1).T[:kept]) ** 2
        seconds[name] = len(waveform) / rate
    peak = max(max(float(values.max()) for values in power.values()), _SILENCE)
    floor = 10 ** (-dynamic_range / 10)
    decibels = {name: 10 * np.log10(np.maximum(values / peak, floor)) for name, values in power.items()}
    step = next(step for step in (250, 500, 1000, 2000, 4000, 8000, 16000) if top / step <= 5 or step == 16000)
    ticks = list(range(0, int(top) + 1, step))
    return _spectrograms(
        decibels,
        seconds,
        lambda _: ([hz * n_fft / rate for hz in ticks], ticks),
        (-dynamic_range, 0.0),
        "dB, loudest value 0",
    )


def _spectrograms(
    panels: Mapping[str, np.ndarray],
    seconds: Mapping[str, float],
    ticks: Callable[[np.ndarray], tuple[list[float], list[int]]],
    limits: tuple[float, float],
    unit: str,
) -> Figure:
    """Panels (frequencies, time) in a row, at most four beside each other; one colour scale `limits` in `unit`."""
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(2.9 * columns + 1.1, 2.35 * lines + 0.35), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=False)
    low, high = limits
    high = max(high, low + 0.1)  # silence has no range of its own
    for index, (name, values) in enumerate(panels.items()):
        axes = grid.flat[index]
        extent = (0, seconds[name], -0.5, len(values) - 0.5)
        drawn = axes.imshow(
            values,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=low,
            vmax=high,
            extent=extent,
            interpolation="nearest",
        )
        axes.set_title(shorten(name, 36))
        positions, labels = ticks(values)
        first = index % columns == 0
        axes.set_yticks(positions, [f"{hz:g}" for hz in labels] if first else [""] * len(labels))
        axes.set_ylim(extent[2:])
        axes.set_ylabel("Hz" if first else "")
        axes.set_xlabel("seconds" if index + columns >= len(panels) else "")
        axes.tick_params(length=2.5)
        axes.spines[:].set_visible(False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    bar = figure.colorbar(drawn, ax=grid, aspect=22, pad=0.015, shrink=0.95)  # ty: ignore[possibly-unresolved-reference]
    bar.set_label(unit)
    bar.outline.set_visible(False)
    return figure


__all__ = [
    "MAX_CLASSES",
    "confused_pairs",
    "confusion_counts",
    "confusion_matrix",
    "learning_curves",
    "log_mels",
    "precision_recall",
    "shorten",
    "stft_spectrograms",
    "success_curves",
]
