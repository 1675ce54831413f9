"""Figures of a run: training curves, and masked / reconstructed / original for both modalities."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

# Colours that remain apart under the common forms of colour blindness (Okabe and Ito).
COLORS = {"fusion": "#0072B2", "image": "#E69F00", "audio": "#009E73", "all": "#CC79A7", "total": "#333333"}
_LABELS = {"accuracy": "1-NN accuracy (%)", "map": "1-NN mAP (%)"}
_HIDDEN = 0.5  # grey of a hidden patch, on the pictures' scale of 0..1


def _style(axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure, path: str | Path) -> None:
    figure.savefig(path, dpi=130, bbox_inches="tight", metadata={"Software": None})


def training_curves(
    train: list[dict[str, Any]],
    evaluations: list[dict[str, Any]],
    chance: dict[str, float] | None,
    path: str | Path,
    title: str,
) -> None:
    """Draws losses, nearest-neighbour scores, learning rate and gradient norm over epochs.

    Args:
        train, evaluations: records of metrics.jsonl of kind "train" and "evaluation".
        chance: metric -> score (0..1) of random neighbours; None where there are no labels.
        path: PNG to write.
        title: of the figure.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")  # not pyplot's: a notebook's own figures stay as they are
    axes = figure.subplots(2, 2)
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    epochs = [record["epoch"] for record in train]
    eval_epochs = [record["epoch"] for record in evaluations]
    for key, color in (("image_loss", COLORS["image"]), ("audio_loss", COLORS["audio"])):
        name = key.removesuffix("_loss")
        axes[0, 0].plot(
            epochs, [record[key] for record in train], color=color, linewidth=1.2, label=f"{name}, training"
        )
        axes[0, 0].plot(
            eval_epochs,
            [record[key] for record in evaluations],
            color=color,
            linestyle="--",
            marker="o",
            markersize=4,
            label=f"{name}, held out",
        )
    _style(axes[0, 0], "Reconstruction loss of hidden patches", "epoch", "mean squared error")
    axes[0, 0].legend(frameon=False, fontsize=9)
    _probe_panel(axes[0, 1], evaluations, chance)
    axes[1, 0].plot(epochs, [record["lr"] for record in train], color=COLORS["total"], linewidth=1.4)
    _style(axes[1, 0], "Learning rate", "epoch", "learning rate")
    axes[1, 1].plot(epochs, [record["grad_norm"] for record in train], color=COLORS["total"], linewidth=1.0)
    if any(record["grad_norm"] > 0 for record in train):
        axes[1, 1].set_yscale("log")
    _style(axes[1, 1], "Gradient norm", "epoch", "norm")
    _save(figure, path)


def _probe_panel(axes, evaluations: list[dict[str, Any]], chance: dict[str, float] | None) -> None:
    probed = [record for record in evaluations if record.get("probe")]
    if not probed:
        _style(axes, "Nearest-neighbour probe", "epoch", "score")
        axes.text(0.5, 0.5, "no labels", ha="center", va="center", transform=axes.transAxes, color="0.4")
        return
    metric = next(iter(probed[0]["probe"]["fusion"]))
    epochs = [record["epoch"] for record in probed]
    for name in probed[0]["probe"]:
        scores = [100 * record["probe"][name][metric] for record in probed]
        axes.plot(epochs, scores, color=COLORS[name], marker="o", markersize=4, linewidth=1.6, label=name)
    if chance is not None:
        axes.axhline(100 * chance[metric], color="0.4", linestyle=":", linewidth=1.2, label="chance")
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])  # room for the legend
    _style(axes, "Leave-one-out nearest neighbour, held-out clips", "epoch", _LABELS[metric])
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="upper left", columnspacing=1.2)


def in_target_units(patches: torch.Tensor, predictions: torch.Tensor, norm_patch_loss: bool) -> torch.Tensor:
    """Predictions (B, n, values) on the input's scale; standardised ones take the original's mean and deviation."""
    if not norm_patch_loss:
        return predictions
    mean = patches.mean(dim=-1, keepdim=True)
    deviation = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    return predictions * deviation + mean


@torch.no_grad()
def reconstruction_pictures(
    model, pixel_values: torch.Tensor, input_features: torch.Tensor, outputs, mean: list[float], std: list[float]
) -> dict[str, list[np.ndarray]]:
    """Original, masked and reconstructed frames (H, W, 3) in 0..1 and spectrograms (mels, time) in log10 power.

    Args:
        model: the pre-training model (its patch layout and `config.norm_patch_loss`).
        pixel_values, input_features: inputs (of a video, the first frame is drawn).
        outputs: what the model gave for them in eval mode.
        mean, std: the image processor's normalisation, per channel.
    """
    normed = model.config.norm_patch_loss
    image_patches = model.patchify_image(pixel_values.float())
    audio_patches = model.patchify_audio(input_features.float())
    image_hidden, audio_hidden = outputs.image_mask.bool()[..., None], outputs.audio_mask.bool()[..., None]
    image_predicted = in_target_units(image_patches, outputs.image_logits.float(), normed)
    audio_predicted = in_target_units(audio_patches, outputs.audio_logits.float(), normed)

    def frames(patches: torch.Tensor) -> list[np.ndarray]:
        values = model.unpatchify_image(patches)
        values = values[:, 0] if values.ndim == 5 else values
        shape = (1, -1, 1, 1)
        values = values * values.new_tensor(std).view(shape) + values.new_tensor(mean).view(shape)
        return list(values.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy())

    def spectrograms(patches: torch.Tensor) -> list[np.ndarray]:
        return list(model.unpatchify_audio(patches)[:, 0].cpu().numpy())

    def frame_mask() -> list[np.ndarray]:
        values = model.unpatchify_image(image_hidden.expand_as(image_patches).float())
        values = values[:, 0] if values.ndim == 5 else values
        return list(values.permute(0, 2, 3, 1).cpu().numpy())

    def spectrogram_mask() -> list[np.ndarray]:
        return spectrograms(audio_hidden.expand_as(audio_patches).float())

    original, original_audio = frames(image_patches), spectrograms(audio_patches)
    masked = [np.where(mask > 0.5, _HIDDEN, image) for mask, image in zip(frame_mask(), original, strict=True)]
    masked_audio = [np.where(m > 0.5, np.nan, s) for m, s in zip(spectrogram_mask(), original_audio, strict=True)]
    return {
        "image_masked": masked,
        "image_reconstructed": frames(torch.where(image_hidden, image_predicted, image_patches)),
        "image_original": original,
        "audio_masked": masked_audio,
        "audio_reconstructed": spectrograms(torch.where(audio_hidden, audio_predicted, audio_patches)),
        "audio_original": original_audio,
    }


def draw_reconstructions(pictures: dict[str, list[np.ndarray]], names: list[str], path: str | Path, title: str) -> None:
    """Draws `reconstruction_pictures`: a row a clip; masked, reconstructed, original frame, then spectrogram.

    Spectrograms of a row share one colour scale (the original's 1st to 99.5th percentile); low frequencies are below.
    """
    columns = list(pictures)
    rows = len(pictures["image_original"])
    mels, steps = pictures["audio_original"][0].shape
    audio_width = min(max(steps / mels, 0.75), 2.0)
    figure = Figure(figsize=(1.7 * (3 + 3 * audio_width) + 0.4, 1.75 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, 6, width_ratios=[1, 1, 1, audio_width, audio_width, audio_width], squeeze=False)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)  # ty: ignore[unknown-argument]
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    colormap = matplotlib.colormaps["magma"].with_extremes(bad=(_HIDDEN,) * 3)
    for row in range(rows):
        low, high = np.percentile(pictures["audio_original"][row], [1, 99.5])
        high = max(high, low + 0.1)  # digital silence has no range of its own
        for column, key in enumerate(columns):
            panel = axes[row, column]
            values = pictures[key][row]
            if key.startswith("image"):
                panel.imshow(values, interpolation="nearest")
            else:
                panel.imshow(values, origin="lower", aspect="auto", cmap=colormap, vmin=low, vmax=high)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
            if row == 0:
                kind, what = key.split("_")
                panel.set_title(f"{'frame' if kind == 'image' else 'log-mel'}, {what}", fontsize=9)
        axes[row, 0].set_ylabel(_shorten(names[row]), fontsize=7)
    _save(figure, path)


def _shorten(name: str, length: int = 24) -> str:
    return name if len(name) <= length else "…" + name[-(length - 1) :]


__all__ = ["draw_reconstructions", "in_target_units", "reconstruction_pictures", "training_curves"]
