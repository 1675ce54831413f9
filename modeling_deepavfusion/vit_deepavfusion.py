"""One ViT tower, used twice: over patches of a frame (or of a video) and over patches of a log-mel spectrogram."""

import math

import torch
from torch import nn

from .layers_deepavfusion import DeepAVFusionAttention, DeepAVFusionLayer
from .patches_deepavfusion import DeepAVFusionPatchEmbeddings, PatchGrid


class DeepAVFusionDividedLayer(DeepAVFusionLayer):
    """Layer of the video tower with divided space-time attention: over time at each place, then over each frame.

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
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As the base class, except that `queries` must be None."""
        if queries is not None:
            raise ValueError("Divided attention computes all rows: queries must be None.")
        attend_divided = self._attend_grid if ids is None else self._attend_kept
        hidden_states, weights = attend_divided(hidden_states, context, ids)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))), weights

    def _attend_grid(self, hidden_states, context, ids):
        """All patches are kept: reshape to places x time, then to frames x space."""
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
        attended, weights = self.attention(normed, keys)
        return hidden_states + self.drop_path(attended.reshape(batch, length, dim)), weights

    def _attend_kept(self, hidden_states, context, ids):
        """Some patches are dropped: the groups are ragged, so attend to all under a mask."""
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
        attended, weights = self.attention(normed, keys, allowed)
        return hidden_states + self.drop_path(attended), weights


class DeepAVFusionTower(nn.Module):
    """A plain ViT without class token: patch embeddings, layers, final norm. The encoder runs its layers.

    Args:
        config: Configuration of the model.
        patches: How the input is cut.
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


__all__ = ["DeepAVFusionDividedLayer", "DeepAVFusionTower"]
