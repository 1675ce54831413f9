"""Masked, reconstructed and original inputs of a pre-training model, as arrays and as a figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from deepavfusion import DeepAVFusionImageProcessor
from deepavfusion.inference.files import write_atomically
from deepavfusion.reconstruction_deepavfusion import unstandardise_patches

from .style import figure_png, own_style

_MASKED = 0.5  # gray of a masked patch, in 0..1


def in_target_units(patches: torch.Tensor, predictions: torch.Tensor, norm_patch_loss: bool) -> torch.Tensor:
    """Rescale predictions (B, n, values) of normalized patches by the original patches' mean and deviation."""
    return unstandardise_patches(predictions, patches) if norm_patch_loss else predictions


@torch.no_grad()
def reconstruction_images(
    model, pixel_values: torch.Tensor, input_features: torch.Tensor, outputs, mean: list[float], std: list[float]
) -> dict[str, list[np.ndarray]]:
    """Masked, reconstructed and original frames (H, W, 3) in 0..1 and spectrograms (mels, time) in log10 power.

    Args:
        model: Pre-training model, which defines the patches and `config.norm_patch_loss`.
        pixel_values: Frames; of a video, the first frame is shown.
        input_features: Log-mel spectrograms.
        outputs: The model's outputs for these inputs in eval mode.
        mean: Mean of the image processor's normalization, per channel.
        std: Standard deviation of that normalization, per channel.

    Returns:
        "image_masked", "image_reconstructed", "image_original", and the same for "audio"; masked values of spectrograms
        are NaN.
    """
    normed = model.config.norm_patch_loss
    image_patches = model.patchify_image(pixel_values.float())
    audio_patches = model.patchify_audio(input_features.float())
    image_masked, audio_masked = outputs.image_mask.bool()[..., None], outputs.audio_mask.bool()[..., None]
    image_predicted = in_target_units(image_patches, outputs.image_logits.float(), normed)
    audio_predicted = in_target_units(audio_patches, outputs.audio_logits.float(), normed)
    image_processor = DeepAVFusionImageProcessor(image_mean=mean, image_std=std)

    def unpatchify(patches: torch.Tensor) -> torch.Tensor:
        values = model.unpatchify_image(patches)
        return values[:, 0] if values.ndim == 5 else values

    def frames(patches: torch.Tensor) -> list[np.ndarray]:
        values = unpatchify(patches)
        return list(image_processor.denormalize(values).permute(0, 2, 3, 1).cpu().numpy())

    def spectrograms(patches: torch.Tensor) -> list[np.ndarray]:
        return list(model.unpatchify_audio(patches)[:, 0].cpu().numpy())

    frame_masks = unpatchify(image_masked.expand_as(image_patches).float()).permute(0, 2, 3, 1).cpu().numpy()
    spectrogram_masks = spectrograms(audio_masked.expand_as(audio_patches).float())
    original, original_audio = frames(image_patches), spectrograms(audio_patches)
    return {
        "image_masked": [np.where(m > 0.5, _MASKED, frame) for m, frame in zip(frame_masks, original, strict=True)],
        "image_reconstructed": frames(torch.where(image_masked, image_predicted, image_patches)),
        "image_original": original,
        "audio_masked": [
            np.where(m > 0.5, np.nan, values) for m, values in zip(spectrogram_masks, original_audio, strict=True)
        ],
        "audio_reconstructed": spectrograms(torch.where(audio_masked, audio_predicted, audio_patches)),
        "audio_original": original_audio,
    }


@own_style
def draw_reconstructions(
    images: dict[str, list[np.ndarray]], names: Sequence[str], path: str | Path, title: str
) -> None:
    """Draw `reconstruction_images` as a PNG: one row per clip; masked, reconstructed and original per modality.

    Spectrograms of a row share a color scale, from the original's 1st to its 99.5th percentile.

    Args:
        images: From `reconstruction_images`.
        names: Names of the clips.
        path: PNG file to write.
        title: Title of the figure.
    """
    rows = len(images["image_original"])
    mels, steps = images["audio_original"][0].shape
    audio_width = min(max(steps / mels, 0.75), 2.0)
    figure = Figure(figsize=(1.7 * (3 + 3 * audio_width) + 0.4, 1.75 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, 6, width_ratios=[1, 1, 1, audio_width, audio_width, audio_width], squeeze=False)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)  # ty: ignore[unknown-argument]
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    colormap = matplotlib.colormaps["magma"].with_extremes(bad=(_MASKED,) * 3)
    for row in range(rows):
        low, high = np.percentile(images["audio_original"][row], [1, 99.5])
        high = max(high, low + 0.1)  # digital silence has no range of its own
        for panel, (key, values) in zip(axes[row], images.items()):
            if key.startswith("image"):
                panel.imshow(values[row], interpolation="nearest")
            else:
                panel.imshow(values[row], origin="lower", aspect="auto", cmap=colormap, vmin=low, vmax=high)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if row == 0:
                modality, what = key.split("_")
                panel.set_title(f"{'frame' if modality == 'image' else 'log-mel'}, {what}", fontsize=9)
        axes[row, 0].set_ylabel(_end(names[row]), fontsize=7)
    write_atomically(path, figure_png(figure))


def _end(name: str, length: int = 24) -> str:
    return name if len(name) <= length else "…" + name[-(length - 1) :]


__all__ = ["draw_reconstructions", "in_target_units", "reconstruction_images"]
