"""Reconstruction losses of simple oracles, which a model that has learned more than colors and stripes stays below."""

import torch

ORACLE = "one color a patch, one value a mel row of a patch (oracle)"


def oracle_losses(model, outputs, inputs: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Losses of oracles that know the mean color of each hidden patch, and the mean of each mel row of it.

    Args:
        model: Pre-training model.
        outputs: Its outputs for the inputs, which hold the masks.
        inputs: `pixel_values` and `input_features`.

    Returns:
        "image_oracle_loss" and "audio_oracle_loss" of each sample, in the units of the model's losses.
    """
    image, audio = model.image_decoder, model.audio_decoder
    pixels, features = inputs["pixel_values"], inputs["input_features"]
    colors = image.targets(pixels).unflatten(-1, (-1, image.patches.num_channels))
    colors = colors.mean(dim=-2, keepdim=True).expand_as(colors).flatten(-2)
    rows = audio.targets(features).unflatten(-1, audio.patches.patch)
    rows = rows.mean(dim=-1, keepdim=True).expand_as(rows).flatten(-2)
    found = {
        "image_oracle_loss": image.losses(colors, pixels, outputs.image_ids_restore, outputs.image_mask),
        "audio_oracle_loss": audio.losses(rows, features, outputs.audio_ids_restore, outputs.audio_mask),
    }
    return {name: losses.tolist() for name, losses in found.items()}


__all__ = ["ORACLE", "oracle_losses"]
