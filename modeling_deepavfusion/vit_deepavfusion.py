"""Building blocks of a ViT, leaves first: MLP, transformer layers, and the tower.

The tower is used twice: over patches of a frame (or of a video) and over patches of a log-mel spectrogram. The fusion
stream and the decoders use the same blocks.
"""

import math

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_deepavfusion import DeepAVFusionAttention
from .patches_deepavfusion import DeepAVFusionPatchEmbeddings, PatchGrid
from .projections_deepavfusion import group_projections


class DeepAVFusionDropPath(nn.Module):
    """Stochastic depth: drops the whole residual branch of a sample with probability `rate`, scaling the others up."""

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Drop samples of (B, ...) in training."""
        if self.rate == 0.0 or not self.training:
            return hidden_states
        keep = 1.0 - self.rate
        shape = (hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1)
        return hidden_states * (hidden_states.new_empty(shape).bernoulli_(keep) / keep)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate}"


class DeepAVFusionMLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, config, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (..., D) to (..., D)."""
        expand, reduce = group_projections(hidden_states, (self.fc1,), (self.fc2,))
        (hidden_states,) = expand(hidden_states)
        (hidden_states,) = reduce(self.dropout(self.activation_fn(hidden_states)))
        return self.dropout(hidden_states)


class DeepAVFusionLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer over a tower's patches, which also attend to context tokens, the fusion stream.

    The context stays unchanged: inside a tower, the published code also updates it and discards the result, so only its
    keys and values are computed here.
    """

    def __init__(self, config, hidden_size, num_heads, intermediate_size, layer_norm_eps, drop_path_rate=0.0):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.attention = DeepAVFusionAttention(config, hidden_size, num_heads)
        self.layernorm_after = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.mlp = DeepAVFusionMLP(config, hidden_size, intermediate_size)
        self.drop_path = DeepAVFusionDropPath(drop_path_rate)

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
        queries: slice | None = None,
        need_weights: bool = False,
        rows: torch.Tensor | None = None,
        row_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Update the patches.

        Args:
            hidden_states: (B, n, D).
            context: (B, c, D) tokens attended to and not updated. In the weights they come before the patches.
            ids: (B, n) positions of the patches in the grid; used only by divided attention.
            queries: Which rows to compute and return; all by default.
            need_weights: Whether to use eager attention regardless of the configuration, to get the weights.
            rows: (P, D) rows that samples have in common. There must be neither context nor `queries`.
            row_ids: (B, r) those that follow the patches of each sample.

        Returns:
            (B, n, n + r or fewer, D), and the attention weights (B, heads, n or fewer, c + n) from eager attention.
        """
        states = hidden_states
        if context is not None:
            states, length = torch.cat([context, hidden_states], dim=1), context.shape[1]
            start, stop, _ = (queries or slice(None)).indices(hidden_states.shape[1])
            queries = slice(length + start, length + stop)
        normed = self.layernorm_before(states)
        if queries is not None:
            hidden_states = states[:, queries]
        shared = {}
        if rows is not None:
            shared = {"rows": self.layernorm_before(rows), "row_ids": row_ids}
            hidden_states = torch.cat([hidden_states, nn.functional.embedding(row_ids, rows)], dim=1)
        attended, weights = self.attention(normed, normed, need_weights=need_weights, queries=queries, **shared)
        hidden_states = hidden_states + self.drop_path(attended)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))), weights


class DeepAVFusionDividedLayer(DeepAVFusionLayer):
    """Layer of the video tower with divided space-time attention: over time at each position, then over each frame.

    Context tokens take part in the attention over each frame.
    """

    def __init__(self, config, hidden_size, num_heads, intermediate_size, layer_norm_eps, drop_path_rate=0.0):
        super().__init__(config, hidden_size, num_heads, intermediate_size, layer_norm_eps, drop_path_rate)
        self.grid = config.image_grid
        self.temporal_layernorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.temporal_attention = DeepAVFusionAttention(config, hidden_size, num_heads)
        self.temporal_dense = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
        queries: slice | None = None,
        need_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As in the base class, except that `queries` must be None."""
        if queries is not None:
            raise ValueError("Divided attention computes all rows: queries must be None.")
        attend_divided = self._attend_grid if ids is None else self._attend_kept
        hidden_states, weights = attend_divided(hidden_states, context, ids, need_weights)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))), weights

    def _attend_grid(self, hidden_states, context, ids, need_weights):
        """All patches are kept: reshape to space x time, then to frames x space."""
        batch, length, dim = hidden_states.shape
        frames, space = self.grid[0], length // self.grid[0]
        over_time = hidden_states.view(batch, frames, space, dim).transpose(1, 2).reshape(batch * space, frames, dim)
        normed = self.temporal_layernorm(over_time)
        attended = self.temporal_dense(self.temporal_attention(normed, normed)[0])
        attended = attended.view(batch, space, frames, dim).transpose(1, 2).reshape(batch, length, dim)
        hidden_states = hidden_states + self.drop_path(attended)

        normed = self.layernorm_before(hidden_states).view(batch * frames, space, dim)
        keys = normed
        if context is not None:
            context = self.layernorm_before(context).repeat_interleave(frames, dim=0)
            keys = torch.cat([context, normed], dim=1)
        attended, weights = self.attention(normed, keys, need_weights=need_weights)
        return hidden_states + self.drop_path(attended.reshape(batch, length, dim)), weights

    def _attend_kept(self, hidden_states, context, ids, need_weights):
        """Some patches are dropped: the groups are ragged, so attend to all patches with a mask."""
        space = math.prod(self.grid[1:])
        place, frame = ids % space, ids // space
        normed = self.temporal_layernorm(hidden_states)
        mask = place[:, None, :, None] == place[:, None, None, :]
        attended = self.temporal_dense(self.temporal_attention(normed, normed, mask)[0])
        hidden_states = hidden_states + self.drop_path(attended)

        normed = self.layernorm_before(hidden_states)
        allowed = frame[:, None, :, None] == frame[:, None, None, :]
        keys = normed
        if context is not None:
            keys = torch.cat([self.layernorm_before(context), normed], dim=1)
            allowed = nn.functional.pad(allowed, (context.shape[1], 0), value=True)
        attended, weights = self.attention(normed, keys, allowed, need_weights)
        return hidden_states + self.drop_path(attended), weights


class DeepAVFusionTower(nn.Module):
    """A plain ViT without class token: patch embeddings, layers, final norm. The encoder runs its layers.

    Args:
        config: Configuration of the model.
        patches: How the input is cut into patches.
        layer_class: Class of the layers.
    """

    def __init__(self, config, patches: PatchGrid, layer_class: type[DeepAVFusionLayer] = DeepAVFusionLayer):
        super().__init__()
        depth = config.num_hidden_layers
        self.patch_embed = DeepAVFusionPatchEmbeddings(patches, config.hidden_size)
        self.layers = nn.ModuleList(
            layer_class(
                config,
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                config.layer_norm_eps,
                config.drop_path_rate * index / max(depth - 1, 1),
            )
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def absent_tokens(self, like: torch.Tensor, ids_keep: torch.Tensor | None = None) -> torch.Tensor:
        """Zeros (B, patches or kept, D), which take no memory, for a modality that no sample of a batch has.

        Args:
            like: (B, ..., D) tokens of another stream.
            ids_keep: (B, kept) as the modality would have been encoded with.
        """
        count = self.patch_embed.patches.num_patches if ids_keep is None else ids_keep.shape[1]
        return like.new_zeros(()).expand(like.shape[0], count, like.shape[-1])


__all__ = [
    "DeepAVFusionDividedLayer",
    "DeepAVFusionDropPath",
    "DeepAVFusionLayer",
    "DeepAVFusionMLP",
    "DeepAVFusionTower",
]
