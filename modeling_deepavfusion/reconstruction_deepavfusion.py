"""Decoders of masked pre-training, one per modality: plain (global attention) and swin (shifted windows)."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .vit_deepavfusion import (
    DeepAVFusionAttention,
    DeepAVFusionLayer,
    DeepAVFusionMLP,
    gather_tokens,
    sincos_positions,
)


class DeepAVFusionMasking(NamedTuple):
    """Which patches of a modality the encoder sees. 1 in `mask` = hidden."""

    ids_keep: torch.Tensor  # (B, kept)
    ids_hidden: torch.Tensor  # (B, hidden)
    ids_restore: torch.Tensor  # (B, n): place of each patch in the order kept, then hidden
    mask: torch.Tensor  # (B, n) float

    @classmethod
    def from_noise(cls, noise: torch.Tensor, num_kept: int) -> "DeepAVFusionMasking":
        """Keeps the `num_kept` patches with the smallest noise (B, n), in ascending order of it."""
        order = torch.argsort(noise, dim=1)
        ids_restore = torch.argsort(order, dim=1)
        return cls(order[:, :num_kept], order[:, num_kept:], ids_restore, (ids_restore >= num_kept).to(noise.dtype))


class DeepAVFusionDecoder(nn.Module):
    """What both decoders share: projection of encoder and fusion tokens, mask token, trained positions, predictor.

    Args:
        config: the model's configuration.
        grid: patches along each axis.
        patch_values: numbers to predict for a patch.
    """

    def __init__(self, config, grid: tuple[int, ...], patch_values: int):
        super().__init__()
        dim = config.decoder_hidden_size
        self.grid = grid
        self.initializer_range = config.initializer_range
        self.embed = nn.Linear(config.hidden_size, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_embeddings = nn.Parameter(sincos_positions(grid, dim).unsqueeze(0))
        self.layers = nn.ModuleList(self.make_layer(config, i, grid) for i in range(config.decoder_num_hidden_layers))
        self.norm = nn.LayerNorm(dim, eps=config.decoder_layer_norm_eps)
        self.predictor = nn.Linear(dim, patch_values)

    @torch.no_grad()
    def init_weights(self):
        """Mask token N(0, initializer_range); positions start as the sin-cos table, and are trained from there."""
        init.normal_(self.mask_token, std=self.initializer_range)
        init.copy_(self.position_embeddings, sincos_positions(self.grid, self.predictor.in_features).unsqueeze(0))

    def forward(
        self, patches: torch.Tensor, fusion: torch.Tensor, masking: DeepAVFusionMasking, predict_visible: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """
        Args:
            patches: (B, kept, D) encoded visible patches.
            fusion: (B, nF, D) fusion tokens.
            masking: what was kept.
            predict_visible: whether to predict the visible patches too, which no loss needs.

        Returns:
            Predictions for visible patches (B, kept, values) or None, and for hidden ones (B, hidden, values), in the
            order of `masking.ids_keep` and `masking.ids_hidden`.
        """
        decoded_visible, decoded_hidden = self.decode(self.embed(patches), self.embed(fusion), masking, predict_visible)
        visible = None if decoded_visible is None else self.predictor(self.norm(decoded_visible))
        return visible, self.predictor(self.norm(decoded_hidden))


class DeepAVFusionPlainDecoder(DeepAVFusionDecoder):
    """Global attention among fusion tokens, visible and hidden patches.

    Such attention knows no order, so the patches stay as they come, visible first, and only their positions are
    permuted. The last layer computes the rows that are asked for and no other.
    """

    @staticmethod
    def make_layer(config, index: int, grid: tuple[int, ...]) -> nn.Module:
        return DeepAVFusionLayer(
            config,
            config.decoder_hidden_size,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
            config.decoder_layer_norm_eps,
        )

    def decode(self, patches, fusion, masking, predict_visible):
        batch, num_kept, _ = patches.shape
        num_hidden, num_fusion = masking.ids_hidden.shape[1], fusion.shape[1]
        order = torch.cat([masking.ids_keep, masking.ids_hidden], dim=1)
        positions = nn.functional.embedding(order, self.position_embeddings[0])
        tokens = torch.cat([patches, self.mask_token.to(patches.dtype).expand(batch, num_hidden, -1)], dim=1)
        hidden_states = torch.cat([fusion, tokens + positions.to(tokens.dtype)], dim=1)
        asked = slice(num_fusion if predict_visible else num_fusion + num_kept, None)
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            hidden_states, _ = layer(hidden_states, None, None, asked if last else None)
        if not predict_visible:
            return None, hidden_states
        return hidden_states[:, :num_kept], hidden_states[:, num_kept:]


class DeepAVFusionSwinDecoder(DeepAVFusionDecoder):
    """Attention in windows of the grid, shifted on odd layers, with the fusion tokens in every window."""

    @staticmethod
    def make_layer(config, index: int, grid: tuple[int, ...]) -> nn.Module:
        return DeepAVFusionSwinLayer(config, grid, shifted=index % 2 == 1)

    @torch.no_grad()
    def init_weights(self):
        super().init_weights()
        for layer in self.layers:
            init.trunc_normal_(layer.relative_position_bias_table, std=self.initializer_range)

    def decode(self, patches, fusion, masking, predict_visible):
        batch, num_hidden = patches.shape[0], masking.ids_hidden.shape[1]
        tokens = torch.cat([patches, self.mask_token.to(patches.dtype).expand(batch, num_hidden, -1)], dim=1)
        tokens = gather_tokens(tokens, masking.ids_restore) + self.position_embeddings.to(tokens.dtype)
        for layer in self.layers:
            tokens, fusion = layer(tokens, fusion)
        visible = gather_tokens(tokens, masking.ids_keep) if predict_visible else None
        return visible, gather_tokens(tokens, masking.ids_hidden)


class DeepAVFusionSwinLayer(GradientCheckpointingLayer):
    """Pre-norm layer with attention in windows of 4 x 4 patches and the fusion tokens, with relative position bias.

    A grid whose short side is at most 4 gets windows of that side and no shift. A grid that windows do not tile is
    padded; no one attends to the padding. What a fusion token gathers is averaged over windows; its scores carry no
    bias. Frames of a video are apart.
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
        """patches (B, n, d) in the order of the grid, fusion (B, nF, d) -> both, updated."""
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
        """(w * w, w * w) rows of the bias table for each pair of places in a window."""
        coordinates = torch.arange(self.window, device=device)
        rows, columns = (c.flatten() for c in torch.meshgrid(coordinates, coordinates, indexing="ij"))
        span, offset = 2 * self.window - 1, self.window - 1
        return (rows[:, None] - rows + offset) * span + (columns[:, None] - columns + offset)

    def window_regions(self, device) -> torch.Tensor:
        """(windows, w * w) labels: patches of a window attend to those of their label; padding is -1."""
        regions = grid_regions(self.height, self.width, self.window, self.shift, device)
        return to_windows(regions, self.window, 0).squeeze(-1)

    def _bias(self, frames: int, num_fusion: int) -> torch.Tensor:
        """Added to the scores: (windows, heads, w * w + nF, w * w + nF), -inf where one must not attend."""
        table = self.relative_position_bias_table
        bias = table[self.relative_position_index(table.device)].permute(2, 0, 1)[None]
        regions = self.window_regions(table.device)
        allowed = regions[:, :, None] == regions[:, None, :]
        bias = bias.masked_fill(~allowed[:, None], float("-inf"))
        bias = nn.functional.pad(bias, (0, num_fusion, 0, num_fusion))
        padding = nn.functional.pad(regions < 0, (0, num_fusion))[:, None, None, :]  # as keys of fusion tokens
        fusion_rows = torch.arange(bias.shape[-1], device=table.device)[:, None] >= self.window**2
        return bias.masked_fill(padding & fusion_rows, float("-inf")).repeat(frames, 1, 1, 1)


def grid_regions(height: int, width: int, window: int, shift: int, device) -> torch.Tensor:
    """(1, H, W, 1) labels of the padded and shifted grid; patches attend within a window to those of their label.

    After the cyclic shift a window may hold patches from opposite edges: they have different labels. Padding is -1.
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
    """(F, H, W, d) -> (F * windows, window * window, d), padded at the bottom and right, then rolled by -shift."""
    frames, height, width, dim = patches.shape
    patches = nn.functional.pad(patches, (0, 0, 0, -width % window, 0, -height % window))
    if shift:
        patches = patches.roll((-shift, -shift), (1, 2))
    patches = patches.reshape(frames, patches.shape[1] // window, window, patches.shape[2] // window, window, dim)
    return patches.transpose(2, 3).reshape(-1, window * window, dim)


def from_windows(windows: torch.Tensor, shape: tuple[int, int, int, int], window: int, shift: int) -> torch.Tensor:
    """Inverse of `to_windows`, without the padding: gives `shape` (F, H, W, d)."""
    frames, height, width, dim = shape
    rows, columns = -(-height // window), -(-width // window)
    patches = windows.reshape(frames, rows, columns, window, window, dim).transpose(2, 3)
    patches = patches.reshape(frames, rows * window, columns * window, dim)
    if shift:
        patches = patches.roll((shift, shift), (1, 2))
    return patches[:, :height, :width]


DECODERS = {"plain": DeepAVFusionPlainDecoder, "swin": DeepAVFusionSwinDecoder}

__all__ = ["DeepAVFusionDecoder", "DeepAVFusionMasking", "DeepAVFusionPlainDecoder", "DeepAVFusionSwinDecoder"]
