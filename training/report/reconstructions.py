"""Masked, reconstructed and original inputs of a pre-training model as a figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.pages.reconstructions import MASKED

from .charts import log_mels
from .report import Example, ExampleImage
from .style import figure_png, own_style


@own_style
def draw_reconstructions(
    images: list[dict[str, list[np.ndarray]]], names: Sequence[str], path: str | Path, title: str
) -> None:
    """Draw `reconstruction_images` as a PNG: masked, reconstructed and original per modality, a row per clip and unit.

    Spectrograms of a row share a color scale, from the original's 1st to its 99.5th percentile.

    Args:
        images: From `reconstruction_images`.
        names: Names of the clips.
        path: PNG file to write.
        title: Title of the figure.
    """
    rows = [(clip, unit) for clip in range(len(names)) for unit in range(len(images))]
    mels, steps = images[0]["audio_original"][0].shape
    audio_width = min(max(steps / mels, 0.75), 2.0)
    figure = Figure(figsize=(1.7 * (3 + 3 * audio_width) + 0.4, 1.75 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots(len(rows), 6, width_ratios=[1, 1, 1, audio_width, audio_width, audio_width], squeeze=False)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)  # ty: ignore[unknown-argument]
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    colormap = matplotlib.colormaps["magma"].with_extremes(bad=(MASKED,) * 3)
    for row, (clip, unit) in enumerate(rows):
        low, high = np.percentile(images[unit]["audio_original"][clip], [1, 99.5])
        high = max(high, low + 0.1)  # digital silence has no range of its own
        for panel, (key, values) in zip(axes[row], images[unit].items()):
            if key.startswith("image"):
                panel.imshow(values[clip], interpolation="nearest")
            else:
                panel.imshow(values[clip], origin="lower", aspect="auto", cmap=colormap, vmin=low, vmax=high)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if row == 0:
                modality, what = key.split("_")
                panel.set_title(f"{'frame' if modality == 'image' else 'log-mel'}, {what}", fontsize=9)
        units = "" if len(images) == 1 else ("\nstandardized", "\nunits of the input")[unit]
        axes[row, 0].set_ylabel(_end(names[clip]) + units, fontsize=7)
    write_atomically(path, figure_png(figure))


def reconstruction_example(
    images: list[dict[str, list[np.ndarray]]], clip: int, name: str, losses: dict[str, float], extractor
) -> Example:
    """A clip of `reconstruction_images`, in the units of the input, as an example of a report.

    Args:
        images: From `reconstruction_images`.
        clip: Its place among them.
        name: Name of the clip.
        losses: Its `image_loss` and `audio_loss`.
        extractor: Feature extractor of the spectrograms.
    """
    found = {key: values[clip] for key, values in images[-1].items()}
    kinds = ("masked", "reconstructed", "original")
    frames = [(found[f"image_{kind}"] * 255).round().clip(0, 255).astype(np.uint8) for kind in kinds]
    rate = extractor.sampling_rate
    figure = log_mels(
        {kind: found[f"audio_{kind}"] for kind in kinds},
        frames_per_second=rate / extractor.hop_length,
        max_frequency=rate / 2,
    )
    shown = [ExampleImage(frame, f"frame, {kind}") for frame, kind in zip(frames, kinds, strict=True)]
    text = f"Loss of masked patches: image {losses['image_loss']:.3f}, audio {losses['audio_loss']:.3f}"
    if len(images) > 1:
        text += "; predicted patches are shown with the mean and deviation of the true ones"
    return Example(name, [*shown, ExampleImage(figure, "log-mel: masked, reconstructed, original")], text=text)


def _end(name: str, length: int = 24) -> str:
    return name if len(name) <= length else "…" + name[-(length - 1) :]


__all__ = ["draw_reconstructions", "reconstruction_example"]
