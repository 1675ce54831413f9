"""A transformer layer with attention in shifted windows, for the swin decoder of pre-training."""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_deepavfusion import DeepAVFusionAttention
from .vit_deepavfusion import DeepAVFusionMLP


def grid_regions(height: int, width: int, window: int, shift: int, device) -> torch.Tensor:
    """Labels (1, H, W, 1) of the padded and shifted grid; in a window, patches attend to those with the same label.

    After the cyclic shift, a window may contain patches from opposite edges, which get different labels. Padding is -1.
    """
    padded_height, padded_width = (side + -side % window for side in (height, width))
    row = torch.arange(padded_height, device=device)
    column = torch.arange(padded_width, device=device)
    labels = 0 * (row[:, None] + column)
    if shift:
        row_label = (row >= padded_height - window).long() + (row >= padded_height - shift).long()
        column_label = (column >= padded_width - window).long() + (column >= padded_width - shift).long()
        labels = row_label[:, None] * 3 + column_label
    padding = ((row >= height)[:, None] | (column >= width)).roll((-shift, -shift), (0, 1))
    return labels.masked_fill(padding, -1)[None, :, :, None]


def to_windows(patches: torch.Tensor, window: int, shift: int) -> torch.Tensor:
    """Cut (F, H, W, d) into (F * windows, window * window, d), padded at the bottom and right, rolled by -shift."""
    frames, height, width, dim = patches.shape
    patches = nn.functional.pad(patches, (0, 0, 0, -width % window, 0, -height % window))
    if shift:
        patches = patches.roll((-shift, -shift), (1, 2))
    patches = patches.reshape(frames, patches.shape[1] // window, window, patches.shape[2] // window, window, dim)
    return patches.transpose(2, 3).reshape(-1, window * window, dim)


def from_windows(windows: torch.Tensor, shape: tuple[int, int, int, int], window: int, shift: int) -> torch.Tensor:
    """Invert `to_windows`, without the padding: returns `shape` (F, H, W, d)."""
    frames, height, width, dim = shape
    rows, columns = -(-height // window), -(-width // window)
    patches = windows.reshape(frames, rows, columns, window, window, dim).transpose(2, 3)
    patches = patches.reshape(frames, rows * window, columns * window, dim)
    if shift:
        patches = patches.roll((shift, shift), (1, 2))
    return patches[:, :height, :width]


class DeepAVFusionSwinLayer(GradientCheckpointingLayer):
    """Pre-norm layer with attention in windows of 4 x 4 patches and the fusion tokens, with relative position bias.

    A grid whose short side is at most 4 gets windows of that side and no shift. A grid that windows do not tile is
    padded, and padding is masked out. The output of a fusion token is averaged over windows; its scores have no bias.
    Windows do not span frames of a video.

    Args:
        config: Configuration of the model.
        grid: Patches along each axis, (rows, columns) or (time, rows, columns).
        shifted: Whether to shift the windows by half their side.
    """

    def __init__(self, config, grid: tuple[int, ...], shifted: bool):
        super().__init__()
        dim, eps = config.decoder_hidden_size, config.decoder_layer_norm_eps
        self.height, self.width = grid[-2:]
        self.window = min(4, self.height, self.width)
        self.shift = self.window // 2 if shifted and min(self.height, self.width) > 4 else 0
        self.num_heads = config.decoder_num_attention_heads
        self.layernorm_before = nn.LayerNorm(dim, eps=eps)
        self.attention = DeepAVFusionAttention(config, dim, self.num_heads)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * self.window - 1) ** 2, self.num_heads))
        self.layernorm_after = nn.LayerNorm(dim, eps=eps)
        self.mlp = DeepAVFusionMLP(config, dim, config.decoder_intermediate_size)

    def forward(self, patches: torch.Tensor, fusion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Update patches (B, n, d), in the order of the grid, and fusion tokens (B, nF, d)."""
        batch, length, dim = patches.shape
        area, num_fusion = self.window**2, fusion.shape[1]
        frames = (batch * (length // (self.height * self.width)), self.height, self.width, dim)

        windows = to_windows(self.layernorm_before(patches).reshape(frames), self.window, self.shift)
        per_sample = windows.shape[0] // batch
        states = torch.cat([windows, self.layernorm_before(fusion).repeat_interleave(per_sample, dim=0)], dim=1)
        attended, _ = self.attention(states, states, self._bias(frames[0], num_fusion))
        from_patches = from_windows(attended[:, :area], frames, self.window, self.shift)
        patches = patches + from_patches.reshape(batch, length, dim)
        fusion = fusion + attended[:, area:].view(batch, per_sample, num_fusion, dim).mean(dim=1)
        patches = patches + self.mlp(self.layernorm_after(patches))
        return patches, fusion + self.mlp(self.layernorm_after(fusion))

    def relative_position_index(self, device) -> torch.Tensor:
        """Rows of the bias table for each pair of positions in a window, (w * w, w * w)."""
        coordinates = torch.arange(self.window, device=device)
        rows, columns = (c.flatten() for c in torch.meshgrid(coordinates, coordinates, indexing="ij"))
        span, offset = 2 * self.window - 1, self.window - 1
        return (rows[:, None] - rows + offset) * span + (columns[:, None] - columns + offset)

    def window_regions(self, device) -> torch.Tensor:
        """Labels (windows, w * w): patches of a window attend to those with the same label; padding is -1."""
        regions = grid_regions(self.height, self.width, self.window, self.shift, device)
        return to_windows(regions, self.window, 0).squeeze(-1)

    def _bias(self, frames: int, num_fusion: int) -> torch.Tensor:
        """Bias added to the scores: (windows, heads, w * w + nF, w * w + nF), -inf if masked out."""
        table = self.relative_position_bias_table
        bias = table[self.relative_position_index(table.device)].permute(2, 0, 1)[None]
        regions = self.window_regions(table.device)
        allowed = regions[:, :, None] == regions[:, None, :]
        bias = bias.masked_fill(~allowed[:, None], float("-inf"))
        bias = nn.functional.pad(bias, (0, num_fusion, 0, num_fusion))
        padding = nn.functional.pad(regions < 0, (0, num_fusion))[:, None, None, :]  # as keys of fusion tokens
        fusion_rows = torch.arange(bias.shape[-1], device=table.device)[:, None] >= self.window**2
        return bias.masked_fill(padding & fusion_rows, float("-inf")).repeat(frames, 1, 1, 1)


__all__ = ["DeepAVFusionSwinLayer"]
