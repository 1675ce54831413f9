"""Convolutional decoder of separation and segmentation: a U-Net over the hidden states of one tower.

It is conditioned on the other modality at every scale.
"""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

_GROUP = 8  # channels


class DeepAVFusionBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that is frozen while its weights are, as below adapters, whose files do not store its statistics.

    Frozen, it uses the running statistics and leaves them as they are.
    """

    def forward(self, hidden_states: torch.Tensor, update: bool = True) -> torch.Tensor:
        """Normalize (B, C, h, w); without `update`, by the statistics of the batch, which are not recorded."""
        if not self.training or not self.weight.requires_grad:
            return nn.functional.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if update:
            return super().forward(hidden_states)
        # With copies, since checkpoints expect a repetition to save as many tensors for the backward pass.
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        return nn.functional.batch_norm(
            hidden_states, mean, variance, self.weight, self.bias, training=True, eps=self.eps
        )


class DeepAVFusionDoubleConv(GradientCheckpointingLayer, nn.Sequential):
    """Two blocks of 3 x 3 convolution without bias, norm and ReLU: (B, in, h, w) -> (B, out, h, w).

    Uses the channels-last memory format: same results, but several times as fast on a CPU with few channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        norm: `"batch"`, or `"group"` for group norm with 8 channels a group.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str = "batch"):
        layers = []
        for channels in (in_channels, out_channels):
            layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False))
            groups = math.gcd(max(out_channels // _GROUP, 1), out_channels)
            layers.append(
                nn.GroupNorm(groups, out_channels) if norm == "group" else DeepAVFusionBatchNorm2d(out_channels)
            )
            layers.append(nn.ReLU())
        super().__init__(*layers)
        self._called = False

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, h, w)."""
        self._called = True
        try:
            return super().__call__(hidden_states)
        finally:
            self._called = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, h, w)."""
        hidden_states = hidden_states.contiguous(memory_format=torch.channels_last)
        for layer in self:
            # Activation checkpointing runs `forward` again in the backward pass, without a call: a batch counts once.
            options = {"update": self._called} if isinstance(layer, DeepAVFusionBatchNorm2d) else {}
            hidden_states = layer(hidden_states, **options)
        return hidden_states


class DeepAVFusionLateral(nn.Module):
    """Brings a tap of the tower to a finer scale: (B, in, h, w) -> (B, out, scale * h, scale * w)."""

    def __init__(self, in_channels: int, up_channels: int, out_channels: int, scale: int, norm: str = "batch"):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, up_channels, kernel_size=scale, stride=scale)
        self.conv = DeepAVFusionDoubleConv(up_channels, out_channels, norm)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, scale * h, scale * w)."""
        return self.conv(self.upsample(hidden_states))


class DeepAVFusionUp(nn.Module):
    """Doubles the resolution, halving the channels, and merges the skip connection of the finer scale."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, norm: str = "batch"):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.conv = DeepAVFusionDoubleConv(in_channels // 2 + skip_channels, out_channels, norm)

    def forward(self, hidden_states: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w), with a skip connection (B, skip, 2 h, 2 w), to (B, out, 2 h, 2 w)."""
        return self.conv(torch.cat([self.upsample(hidden_states), skip], dim=1))


class DeepAVFusionUNet(nn.Module):
    """Decoder from the taps of a tower to a map of finer resolution.

    Args:
        hidden_size: Channels D of the taps.
        widths: Channels at each scale, from the grid's (D) to the finest; each scale doubles the resolution.
        norm: `"batch"` or `"group"`.
    """

    def __init__(self, hidden_size: int, widths: list[int], norm: str = "batch"):
        super().__init__()
        scales = range(1, len(widths))
        self.widths = widths
        self.top = DeepAVFusionDoubleConv(2 * hidden_size, hidden_size, norm)
        self.laterals = nn.ModuleList(
            DeepAVFusionLateral(hidden_size, hidden_size // 2**d, widths[d], 2**d, norm) for d in scales
        )
        self.ups = nn.ModuleList(DeepAVFusionUp(widths[d - 1], 2 * widths[d], widths[d], norm) for d in scales)

    def forward(self, taps: list[torch.Tensor], conditions: list[torch.Tensor]) -> torch.Tensor:
        """Decode taps (B, D, h, w), the top's first, and conditions (B, widths[d]) to (B, widths[-1], 2^k h, 2^k w)."""
        hidden_states = self.top(_join(taps[0], conditions[0]))
        for lateral, up, tap, condition in zip(self.laterals, self.ups, taps[1:], conditions[1:], strict=True):
            hidden_states = up(hidden_states, _join(lateral(tap), condition))
        return hidden_states


def _join(hidden_states: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """Appends a condition (B, c), the same at every position, to (B, C, h, w)."""
    condition = condition[:, :, None, None].expand(-1, -1, *hidden_states.shape[2:])
    return torch.cat([hidden_states, condition], dim=1)


def tap_layers(num_layers: int, num_taps: int) -> list[int]:
    """Layers after which hidden states are tapped: `num_taps` evenly spaced numbers, rounded down."""
    if num_taps == 1:
        return [num_layers - 1]
    return [index * (num_layers - 1) // (num_taps - 1) for index in range(num_taps)]


def as_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Reshape row-major tokens (B, h * w, D) to a map (B, D, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


@torch.no_grad()
def init_convolution(module: nn.Module) -> None:
    """Initialize convolutions Kaiming-normal (fan out) and reset norms; other modules stay unchanged."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.GroupNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        if module.weight is not None:
            init.ones_(module.weight)
            init.zeros_(module.bias)
        init.zeros_(module.running_mean)
        init.ones_(module.running_var)
        init.zeros_(module.num_batches_tracked)


__all__ = ["DeepAVFusionUNet", "as_map", "init_convolution", "tap_layers"]
