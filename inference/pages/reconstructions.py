"""Masked, reconstructed and original inputs of a pre-training model, as arrays."""

import numpy as np
import torch

from deepavfusion import DeepAVFusionImageProcessor

MASKED = 0.5  # gray of a masked patch, in 0..1


@torch.no_grad()
def reconstruction_images(
    model, pixel_values: torch.Tensor, input_features: torch.Tensor, outputs, mean: list[float], std: list[float]
) -> list[dict[str, list[np.ndarray]]]:
    """Masked, reconstructed and original frames (H, W, 3) in 0..1 and spectrograms (mels, time).

    Args:
        model: Pre-training model, which defines the patches and the units of its targets.
        pixel_values: Frames; of a video, the first frame is shown.
        input_features: Log-mel spectrograms.
        outputs: The model's outputs for these inputs in eval mode.
        mean: Mean of the image processor's normalization, per channel.
        std: Standard deviation of that normalization, per channel.

    Returns:
        "image_masked", "image_reconstructed", "image_original", and the same for "audio"; masked values of spectrograms
        are NaN. One such set in the units of the model's targets. Where those are standardized (gray is 0, black and
        white are three standard deviations), a second set in the units of the inputs, in which predicted patches have
        the mean and deviation of the true ones: it looks better than what the model knows.
    """
    image, audio = model.image_decoder, model.audio_decoder
    pixels, features = pixel_values.float(), input_features.float()
    predictions = outputs.image_logits.float(), outputs.audio_logits.float()
    masks = outputs.image_mask.bool()[..., None], outputs.audio_mask.bool()[..., None]
    image_processor = DeepAVFusionImageProcessor(image_mean=mean, image_std=std)

    def frames(patches: torch.Tensor) -> torch.Tensor:
        values = model.unpatchify_image(patches)
        return values[:, 0] if values.ndim == 5 else values

    def panels(originals, predicted, display) -> dict[str, list[np.ndarray]]:
        found = {}
        for name, original, prediction, mask in zip(("image", "audio"), originals, predicted, masks, strict=True):
            whole = frames if name == "image" else model.unpatchify_audio
            hidden = whole(mask.expand_as(original).float()) > 0.5
            shown = {"masked": original, "reconstructed": torch.where(mask, prediction, original), "original": original}
            for kind, patches in shown.items():
                values = whole(patches)
                if name == "image":
                    values = display(values)
                if kind == "masked":
                    values = values.masked_fill(hidden, MASKED if name == "image" else torch.nan)
                values = values.permute(0, 2, 3, 1) if name == "image" else values[:, 0]
                found[f"{name}_{kind}"] = list(values.cpu().numpy())
        return found

    inputs = model.patchify_image(pixels), model.patchify_audio(features)
    if image.target_channels is None:
        return [panels(inputs, predictions, image_processor.denormalize)]
    targets = image.targets(pixels), audio.targets(features)
    restored = image.in_input_units(predictions[0], pixels), audio.in_input_units(predictions[1], features)
    return [
        panels(targets, predictions, lambda values: (0.5 + values / 6).clamp(0, 1)),
        panels(inputs, restored, image_processor.denormalize),
    ]


__all__ = ["MASKED", "reconstruction_images"]
