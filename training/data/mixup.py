"""Mixup of audio-visual pairs, and soft labels (Zhang et al. 2018; paper, appendix on fine-tuning)."""

import torch

from .loading import on_device


def soft_labels(labels: torch.Tensor, num_labels: int, smoothing: float = 0.0) -> torch.Tensor:
    """Class indices (B,) as distributions (B, num_labels), `smoothing` of each spread evenly over all classes."""
    one_hot = torch.nn.functional.one_hot(labels, num_labels).float()
    return one_hot * (1 - smoothing) + smoothing / num_labels


def mixup(inputs: dict[str, torch.Tensor], alpha: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Mix every sample with another of the batch: image, audio and labels with the same weight.

    Args:
        inputs: `pixel_values` (B, ...), `input_features` (B, ...) and float `labels` (B, C).
        alpha: Parameter of the Beta(alpha, alpha) distribution of each sample's weight.
        generator: CPU generator of the draws.

    Returns:
        The same tensors mixed: sample i is w_i times itself plus (1 - w_i) times its partner in a random permutation.

    Raises:
        TypeError: For labels that are class indices, which cannot be mixed: see `soft_labels`.
    """
    if not inputs["labels"].is_floating_point():
        raise TypeError(f"Expected floating-point labels (batch, classes) for mixup, got {inputs['labels'].dtype}.")
    batch = inputs["labels"].shape[0]
    # A Beta draw is a ratio of two Gamma draws.
    shape = torch.full((2, batch), float(alpha), dtype=torch.float64)
    draws = torch._standard_gamma(shape, generator=generator)
    weights = (draws[0] / draws.sum(0).clamp(min=1e-300)).float()
    order = torch.randperm(batch, generator=generator)
    mixed = {}
    for name, values in inputs.items():
        weight = on_device(weights, values.device).view(-1, *(1,) * (values.ndim - 1))
        mixed[name] = weight * values + (1 - weight) * values[on_device(order, values.device)]
    return mixed


__all__ = ["mixup", "soft_labels"]
