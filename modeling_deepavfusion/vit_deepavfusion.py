"""One ViT tower, used twice: over patches of a frame (or of a video) and over patches of a log-mel spectrogram.

A tower's layer may be given *context* tokens, the fusion stream. It attends to them and leaves them unchanged: the rows
that the published code computes for them inside a tower are thrown away there, so here only keys and values exist.
"""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def sincos_1d(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Sines, then cosines, of `positions` (n,) at dim/2 frequencies 10000^(-2k/dim); shape (n, dim), float32."""
    frequencies = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64, device="cpu") / (dim / 2))
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(torch.float32)


def sincos_positions(grid: tuple[int, ...], dim: int) -> torch.Tensor:
    """Fixed sin-cos table of a grid of patches, row-major: (number of patches, dim), float32 on the CPU.

    A (rows, columns) grid gives its first dim/2 channels to the column and its last dim/2 to the row. A (time, rows,
    columns) grid gives dim - 2 * floor(dim / 4) channels to time, then floor(dim / 4) each to row and column.
    """
    axes = [torch.arange(size, device="cpu") for size in grid]
    coordinates = [c.flatten() for c in torch.meshgrid(*axes, indexing="ij")]
    if len(grid) == 2:
        rows, columns = coordinates
        parts = [(columns, dim // 2), (rows, dim // 2)]
    else:
        side = dim // 4
        parts = list(zip(coordinates, (dim - 2 * side, side, side), strict=True))
    return torch.cat([sincos_1d(position, width) for position, width in parts], dim=1)


def gather_tokens(tokens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Rows `ids` (B, k) of `tokens` (B, n, D), as (B, k, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention with its weights: query, key, value (B, heads, n, d) -> (B, n, heads, d), (B, heads, n, m)."""
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2), weights


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    scaling: float,
    attention_mask: torch.Tensor | None = None,
    need_weights: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Multi-head attention through the implementation that the configuration names (eager, sdpa, flash).

    Args:
        module: owner of `config` and `attention_dropout`.
        query: (B, n, heads * d).
        key: (B, m, heads * d).
        value: (B, m, heads * e).
        num_heads: number of heads.
        scaling: factor on the scores.
        attention_mask: bool (True = may attend) or added to the scores, broadcastable to (B, heads, n, m), or None.
            Flash kernels take neither such a mask nor values of another width than the keys': those go through sdpa.
        need_weights: whether to attend eagerly whatever the configuration names, for the weights.

    Returns:
        (B, n, heads * e), and the weights (B, heads, n, m) where the implementation gives them (eager), else None.
    """
    batch, queries, _ = query.shape
    query, key, value = (x.view(batch, x.shape[1], num_heads, -1).transpose(1, 2) for x in (query, key, value))
    implementation = "eager" if need_weights else module.config._attn_implementation
    if "flash" in (implementation or "") and (attention_mask is not None or key.shape[-1] != value.shape[-1]):
        implementation = "sdpa"
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.to(query.dtype)
    function = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
    dropout = module.attention_dropout if module.training else 0.0
    output, weights = function(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout)
    return output.reshape(batch, queries, -1), weights


class DeepAVFusionDropPath(nn.Module):
    """Stochastic depth: drops the whole residual branch of a sample with probability `rate`, scaling the others up."""

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.rate == 0.0 or not self.training:
            return hidden_states
        keep = 1.0 - self.rate
        shape = (hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1)
        return hidden_states * (hidden_states.new_empty(shape).bernoulli_(keep) / keep)

    def extra_repr(self) -> str:
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
        return self.dropout(self.fc2(self.dropout(self.activation_fn(self.fc1(hidden_states)))))


class DeepAVFusionAttention(nn.Module):
    """Attention of queries to keys and values that may stem from other tokens."""

    def __init__(self, config, hidden_size: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.scaling = (hidden_size // num_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        query_states: torch.Tensor,
        key_value_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """query_states (B, n, D), key_value_states (B, m, D) -> (B, n, D) and, from eager attention, weights."""
        output, weights = attend(
            self,
            self.q_proj(query_states),
            self.k_proj(key_value_states),
            self.v_proj(key_value_states),
            self.num_heads,
            self.scaling,
            attention_mask,
            need_weights,
        )
        return self.dropout(self.o_proj(output)), weights


class DeepAVFusionLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer over a tower's patches, which also attend to context tokens."""

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
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            hidden_states: (B, n, D).
            context: (B, c, D) tokens attended to and not updated. In the weights they come before the patches.
            ids: (B, n) places of the patches in the grid; only divided attention needs them.
            queries: which rows to compute and return; all by default.

        Returns:
            (B, n or fewer, D), and the attention weights (B, heads, n or fewer, c + n) from eager attention.
        """
        normed = self.layernorm_before(hidden_states)
        keys = normed if context is None else torch.cat([self.layernorm_before(context), normed], dim=1)
        if queries is not None:
            hidden_states, normed = hidden_states[:, queries], normed[:, queries]
        attended, weights = self.attention(normed, keys)
        hidden_states = hidden_states + self.drop_path(attended)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))), weights


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
        if queries is not None:
            raise ValueError("Divided attention computes all rows: queries must be None.")
        attend_divided = self._attend_grid if ids is None else self._attend_kept
        hidden_states, weights = attend_divided(hidden_states, context, ids)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))), weights

    def _attend_grid(self, hidden_states, context, ids):
        """All patches are there: reshape to places x time, then to frames x space."""
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
        """Some patches are masked away: the groups are ragged, so attend to all under a mask."""
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


class _PatchProjection:
    """Lets a convolution whose stride is its kernel also take patches already cut out, (B, n, C * patch area).

    For those it is one matrix product. It is made in this module, and not by whoever cuts the patches, because hooks
    that bring a module's weights in (offloading, sharding) run when the module is called.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.ndim == 3:
            return nn.functional.linear(values, self.weight.flatten(1), self.bias)
        return super().forward(values)  # ty: ignore[missing-attribute]


class DeepAVFusionPatchProjection2d(_PatchProjection, nn.Conv2d):
    """Image (B, C, H, W) -> (B, D, rows, columns), or patches (B, n, C * p * p) -> (B, n, D)."""


class DeepAVFusionPatchProjection3d(_PatchProjection, nn.Conv3d):
    """Video (B, C, T, H, W) -> (B, D, times, rows, columns), or patches (B, n, C * t * p * p) -> (B, n, D)."""


class DeepAVFusionPatchEmbeddings(nn.Module):
    """Patches of an image (B, C, H, W) or video (B, T, C, H, W), row-major, projected and given their fixed positions.

    With indices of the patches to keep, only those are projected.
    """

    def __init__(self, name: str, num_channels: int, size: tuple[int, ...], patch: tuple[int, ...], hidden_size: int):
        super().__init__()
        self.name = name
        self.num_channels = num_channels
        self.input_shape = (num_channels, *size) if len(size) == 2 else (size[0], num_channels, *size[1:])
        self.patch = patch
        self.grid = tuple(s // p for s, p in zip(size, patch, strict=True))
        self.num_patches = math.prod(self.grid)
        convolution = DeepAVFusionPatchProjection2d if len(patch) == 2 else DeepAVFusionPatchProjection3d
        self.projection = convolution(num_channels, hidden_size, kernel_size=patch, stride=patch)
        self.register_buffer("position_embeddings", sincos_positions(self.grid, hidden_size), persistent=False)

    @torch.no_grad()
    def init_weights(self):
        """Xavier-uniform on the filters seen as one matrix; positions are filled in, for loading leaves them empty."""
        weight = self.projection.weight
        if not getattr(weight, "_is_hf_initialized", False):  # a view would lose the mark and overwrite loaded weights
            init.xavier_uniform_(weight.view(weight.shape[0], -1))
        init.zeros_(self.projection.bias)
        init.copy_(self.position_embeddings, sincos_positions(self.grid, self.projection.out_channels))

    def patchify(self, values: torch.Tensor, channels_last: bool = False) -> torch.Tensor:
        """Input -> (B, patches, C * patch area). Channels come first in a patch, or last as in reconstruction."""
        if len(self.patch) == 3:
            values = values.transpose(1, 2)
        batch, channels = values.shape[:2]
        axes = len(self.patch)
        shape = [batch, channels]
        for cells, side in zip(self.grid, self.patch, strict=True):
            shape += [cells, side]
        cell_axes, side_axes = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
        order = (0, *cell_axes, *side_axes, 1) if channels_last else (0, *cell_axes, 1, *side_axes)
        return values.reshape(shape).permute(order).reshape(batch, self.num_patches, -1)

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        """Inverse of `patchify` with channels last: (B, patches, patch area * C) -> input."""
        axes = len(self.patch)
        values = patches.reshape(patches.shape[0], *self.grid, *self.patch, self.num_channels)
        order = [0, 1 + 2 * axes]
        for axis in range(axes):
            order += [1 + axis, 1 + axes + axis]
        if axes == 3:  # (B, T, C, H, W): the channel comes after both halves of the time axis
            order = [0, 1, 4, 7, 2, 5, 3, 6]
        return values.permute(order).reshape(patches.shape[0], *self.input_shape)

    def forward(self, values: torch.Tensor, ids_keep: torch.Tensor | None = None) -> torch.Tensor:
        """Input -> (B, patches or kept, D)."""
        patches, positions = self.patchify(values), self.position_embeddings
        if ids_keep is not None:
            patches, positions = gather_tokens(patches, ids_keep), positions[ids_keep]
        dtype = self.projection.weight.dtype
        return self.projection(patches.to(dtype)) + positions.to(dtype)

    def check(self, values: torch.Tensor, ids_keep: torch.Tensor | None) -> None:
        """Raises `ValueError` or `TypeError` where an input is not what the configuration describes."""
        expected = ", ".join(str(n) for n in self.input_shape)
        if values.ndim != len(self.input_shape) + 1 or tuple(values.shape[1:]) != self.input_shape:
            raise ValueError(f"{self.name} has shape {tuple(values.shape)}: expected (batch, {expected}).")
        if not values.is_floating_point():
            raise TypeError(f"{self.name} has dtype {values.dtype}: expected a floating dtype, as the processor gives.")
        if ids_keep is None:
            return
        if ids_keep.dtype != torch.long or ids_keep.ndim != 2 or ids_keep.shape[0] != values.shape[0]:
            raise ValueError(
                f"Kept indices for {self.name} are {ids_keep.dtype} of shape {tuple(ids_keep.shape)}: expected "
                f"torch.int64 of shape ({values.shape[0]}, kept) with values below {self.num_patches}."
            )


class DeepAVFusionTower(nn.Module):
    """A plain ViT without class token: patch embeddings, layers, final norm. The encoder runs its layers."""

    def __init__(self, config, patch_embed: DeepAVFusionPatchEmbeddings, layer_class=DeepAVFusionLayer):
        super().__init__()
        depth = config.num_hidden_layers
        self.patch_embed = patch_embed
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


def image_patch_embeddings(config) -> DeepAVFusionPatchEmbeddings:
    """Patch embeddings of frames (B, 3, H, W), or of video (B, 3, T, H, W) where `num_frames > 1`."""
    size, patch = config.frame_size, (config.patch_size, config.patch_size)
    if config.num_frames > 1:
        size, patch = (config.num_frames, *size), (config.tubelet_size, *patch)
    return DeepAVFusionPatchEmbeddings("pixel_values", config.num_channels, size, patch, config.hidden_size)


def audio_patch_embeddings(config) -> DeepAVFusionPatchEmbeddings:
    """Patch embeddings of log-mel spectrograms (B, 1, mels, frames)."""
    size, patch = (config.num_mel_bins, config.spectrogram_length), (config.audio_patch_size,) * 2
    return DeepAVFusionPatchEmbeddings("input_features", 1, size, patch, config.hidden_size)


__all__ = [
    "DeepAVFusionAttention",
    "DeepAVFusionDividedLayer",
    "DeepAVFusionDropPath",
    "DeepAVFusionLayer",
    "DeepAVFusionMLP",
    "DeepAVFusionPatchEmbeddings",
    "DeepAVFusionTower",
    "attend",
    "audio_patch_embeddings",
    "gather_tokens",
    "image_patch_embeddings",
    "sincos_positions",
]
