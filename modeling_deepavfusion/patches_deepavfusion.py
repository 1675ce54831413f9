"""Patches of an input: cutting, projection and fixed position embeddings."""

import math

import torch
from torch import nn
from transformers import initialization as init

from .presence_deepavfusion import reads_values


def sincos_1d(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Sines, then cosines, of `positions` (n,) at dim/2 frequencies 10000^(-2k/dim); shape (n, dim), float32."""
    frequencies = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64, device="cpu") / (dim / 2))
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(torch.float32)


def sincos_positions(grid: tuple[int, ...], dim: int) -> torch.Tensor:
    """Fixed sin-cos table of a grid of patches, row-major: (number of patches, dim), float32 on the CPU.

    For a (rows, columns) grid, the first dim/2 channels encode the column and the last dim/2 the row. For a (time,
    rows, columns) grid, dim - 2 * floor(dim / 4) channels encode the time, then floor(dim / 4) each the row and the
    column.
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


class PatchGrid:
    """How an input is cut into patches, row-major. It has no weights.

    Args:
        name: Name of the input in error messages.
        input_shape: Shape of a sample, (C, H, W), or (T, C, H, W) for video.
        patch: Sides of a patch, (height, width), or (time, height, width) for video.

    Attributes:
        grid: Number of patches along each axis.
        num_patches: Number of patches.
        num_channels: Number of channels.
        patch_values: Number of values in a patch.
    """

    def __init__(self, name: str, input_shape: tuple[int, ...], patch: tuple[int, ...]):
        self.name = name
        self.input_shape = input_shape
        self.patch = patch
        self.num_channels = input_shape[-3]
        size = (*input_shape[:-3], *input_shape[-2:])
        self.grid = tuple(side // part for side, part in zip(size, patch, strict=True))
        self.num_patches = math.prod(self.grid)
        self.patch_values = self.num_channels * math.prod(patch)

    @classmethod
    def of_image(cls, config) -> "PatchGrid":
        """Patches of frames (B, C, H, W), or of video (B, T, C, H, W) if `num_frames > 1`."""
        time = (config.tubelet_size,) if config.num_frames > 1 else ()
        patch = (*time, config.patch_size, config.patch_size)
        return cls("pixel_values", config.input_shapes["pixel_values"], patch)

    @classmethod
    def of_audio(cls, config) -> "PatchGrid":
        """Patches of log-mel spectrograms (B, 1, mels, time steps)."""
        patch = (config.audio_patch_size, config.audio_patch_size)
        return cls("input_features", config.input_shapes["input_features"], patch)

    def patchify(self, values: torch.Tensor, channels_last: bool = False) -> torch.Tensor:
        """Cut an input into (B, patches, C * patch area).

        Channels come first in a patch, or last as in reconstruction.
        """
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
        """Invert `patchify` with channels last: (B, patches, patch area * C) to an input."""
        axes = len(self.patch)
        values = patches.reshape(patches.shape[0], *self.grid, *self.patch, self.num_channels)
        order = [0, 1 + 2 * axes]
        for axis in range(axes):
            order += [1 + axis, 1 + axes + axis]
        if axes == 3:  # (B, T, C, H, W): the channel comes after both halves of the time axis
            order = [0, 1, 4, 7, 2, 5, 3, 6]
        return values.permute(order).reshape(patches.shape[0], *self.input_shape)

    def check(self, values: torch.Tensor, ids_keep: torch.Tensor | None = None) -> None:
        """Check an input and, if given, the indices (B, kept) of the patches to keep.

        Raises:
            ValueError: If a shape differs from the configured one, or indices have the wrong shape or dtype.
            TypeError: If inputs are integers.
        """
        expected = ", ".join(str(n) for n in self.input_shape)
        if values.ndim != len(self.input_shape) + 1 or tuple(values.shape[1:]) != self.input_shape:
            raise ValueError(f"{self.name} has shape {tuple(values.shape)}: expected (batch, {expected}).")
        if reads_values() and values.shape[0] == 0:
            raise ValueError(f"{self.name} has shape {tuple(values.shape)}: expected at least one sample.")
        if not values.is_floating_point():
            raise TypeError(f"{self.name} has dtype {values.dtype}: expected a floating dtype, as the processor gives.")
        if ids_keep is None:
            return
        if ids_keep.dtype != torch.long or ids_keep.ndim != 2 or ids_keep.shape[0] != values.shape[0]:
            raise ValueError(
                f"Kept indices for {self.name} are {ids_keep.dtype} of shape {tuple(ids_keep.shape)}: expected "
                f"torch.int64 of shape ({values.shape[0]}, kept) with values below {self.num_patches}."
            )


class _PatchProjection:
    """Let a convolution whose stride is its kernel size also take flattened patches, (B, n, C * patch area).

    For those it is a matrix product, computed in this module rather than where the patches are cut, because hooks that
    load a module's weights (offloading, sharding) run when the module is called.
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
    """Patches of an input, projected, with fixed position embeddings.

    Args:
        patches: How the input is cut into patches.
        hidden_size: Width D of the tokens.
    """

    def __init__(self, patches: PatchGrid, hidden_size: int):
        super().__init__()
        self.patches = patches
        convolution = DeepAVFusionPatchProjection2d if len(patches.patch) == 2 else DeepAVFusionPatchProjection3d
        self.projection = convolution(
            patches.num_channels, hidden_size, kernel_size=patches.patch, stride=patches.patch
        )
        self.register_buffer("position_embeddings", sincos_positions(patches.grid, hidden_size), persistent=False)

    @torch.no_grad()
    def init_weights(self):
        """Initialize the filters Xavier-uniform as one matrix; fill in the positions, which loading leaves empty."""
        weight = self.projection.weight
        if not getattr(weight, "_is_hf_initialized", False):  # a view would lose the flag and overwrite loaded weights
            init.xavier_uniform_(weight.view(weight.shape[0], -1))
        init.zeros_(self.projection.bias)
        init.copy_(self.position_embeddings, sincos_positions(self.patches.grid, self.projection.out_channels))

    def forward(self, values: torch.Tensor, ids_keep: torch.Tensor | None = None) -> torch.Tensor:
        """Embed an input as (B, patches, D); with indices (B, kept) only those patches are projected, (B, kept, D)."""
        patches, positions = self.patches.patchify(values), self.position_embeddings
        if ids_keep is not None:
            patches, positions = gather_tokens(patches, ids_keep), positions[ids_keep]
        dtype = self.projection.weight.dtype
        return self.projection(patches.to(dtype)) + positions.to(dtype)


__all__ = ["DeepAVFusionPatchEmbeddings", "PatchGrid", "gather_tokens", "sincos_positions"]
