"""Masked reconstruction of one modality (paper, section 3.4): the decoder and its loss.

A model has two decoders, one for the image and one for the audio. Each knows how its input is cut into patches.
"""

import math

import torch
from torch import nn
from transformers import initialization as init

from .cross_deepavfusion import DeepAVFusionCrossLayer
from .masking_deepavfusion import DeepAVFusionMasking
from .patches_deepavfusion import PatchGrid, gather_tokens, sincos_positions
from .presence_deepavfusion import mean_of_present
from .swin_deepavfusion import DeepAVFusionSwinLayer
from .vit_deepavfusion import DeepAVFusionLayer

_EPSILON = 1e-6  # added to the variance of a patch


def standardize_patches(patches: torch.Tensor, channels: int = 1) -> torch.Tensor:
    """Each patch (..., values) minus its mean, over the root of its unbiased variance + 1e-6.

    Args:
        patches: (..., values), with the channels of a pixel next to each other.
        channels: Number of channels that are standardized on their own; 1 standardizes a patch as a whole.
    """
    pixels = patches.unflatten(-1, (-1, channels))
    mean, deviation = _statistics(pixels)
    return ((pixels - mean) / deviation).flatten(-2)


def unstandardize_patches(predictions: torch.Tensor, patches: torch.Tensor, channels: int = 1) -> torch.Tensor:
    """Invert `standardize_patches`: predictions (..., values) with the mean and variance of `patches`."""
    mean, deviation = _statistics(patches.unflatten(-1, (-1, channels)))
    return (predictions.unflatten(-1, (-1, channels)) * deviation + mean).flatten(-2)


def _statistics(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means (..., 1, channels) over the pixels (..., pixels, channels) of each patch, and roots of variances + 1e-6."""
    return pixels.mean(dim=-2, keepdim=True), (pixels.var(dim=-2, keepdim=True) + _EPSILON).sqrt()


def target_channels(norm_patch_loss: bool | str, num_channels: int) -> int | None:
    """How many channels of a patch are standardized on their own in reconstruction targets; None for raw targets."""
    return {True: 1, "patch": 1, "channel": num_channels, False: None, "none": None}[norm_patch_loss]


def reconstruction_loss(
    predictions: torch.Tensor, targets: torch.Tensor, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of each sample over its hidden patches, in float32 (paper, section 3.4).

    Args:
        predictions: (B, hidden, values).
        targets: The same shape.
        present: (B,) bool, or None if all samples are present. The loss of the others is 0.

    Returns:
        (B,) losses.
    """
    errors = predictions.float() - targets
    if present is not None:
        # Mask before squaring: absent inputs may be NaN, at which the gradient of the square is NaN even if masked.
        errors = errors.masked_fill(~present.to(errors.device)[:, None, None], 0.0)
    return errors.square().mean(dim=(1, 2))


class DeepAVFusionDecoder(nn.Module):
    """Base class of the decoders: token projection, mask token, learned positions, predictor and loss.

    Args:
        config: Configuration of the model.
        patches: How the input is cut into patches.

    Attributes:
        prediction_fraction: Fraction of the hidden patches that are predicted in training.
    """

    prediction_fraction = 1.0

    def __init__(self, config, patches: PatchGrid):
        super().__init__()
        dim = config.decoder_hidden_size
        self.patches = patches
        self.target_channels = target_channels(config.norm_patch_loss, patches.num_channels)
        if self.target_channels is not None and patches.patch_values == self.target_channels:
            raise ValueError(
                f"A single value of {patches.name} cannot be standardized: expected patches of more than one, or "
                'norm_patch_loss="none".'
            )
        self.initializer_range = config.initializer_range
        self.embed = nn.Linear(config.hidden_size, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_embeddings = nn.Parameter(sincos_positions(patches.grid, dim).unsqueeze(0))
        self.layers = nn.ModuleList(
            self.make_layer(config, index, patches.grid) for index in range(config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(dim, eps=config.decoder_layer_norm_eps)
        self.predictor = nn.Linear(dim, patches.patch_values)

    @torch.no_grad()
    def init_weights(self):
        """Mask token N(0, initializer_range); positions start from the sin-cos table and are trained."""
        init.normal_(self.mask_token, std=self.initializer_range)
        positions = sincos_positions(self.patches.grid, self.predictor.in_features)
        init.copy_(self.position_embeddings, positions.unsqueeze(0))

    def reconstruct(
        self,
        values: torch.Tensor | None,
        masking: DeepAVFusionMasking,
        encoded: torch.Tensor,
        fusion: torch.Tensor,
        present: torch.Tensor | None = None,
        loss: bool = True,
        logits: bool = True,
        predict_visible: bool = True,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Reconstruct an input from its encoded visible patches.

        Args:
            values: Input of the modality, or None if it is absent.
            masking: From `PatchMasker`.
            encoded: (B, kept, D) encoded visible patches.
            fusion: (B, nF, D) fusion tokens.
            present: (B,) bool, or None if all samples are present. The others do not count in the loss.
            loss: Whether to compute the loss.
            logits: Whether to return logits; they are None otherwise.
            predict_visible: Whether to predict visible patches; their logits are zeros otherwise.

        Returns:
            Loss, None if no patch is hidden, and logits (B, patches, values) in the order of the grid, zeros for hidden
            patches that were not predicted; both zeros for an absent modality.
        """
        if values is None:
            nothing = fusion.new_zeros(())
            zeros = nothing.expand(fusion.shape[0], self.patches.num_patches, self.patches.patch_values)
            return nothing.float() if loss else None, zeros if logits else None
        num_hidden = masking.ids_hidden.shape[1]
        if self.training and self.prediction_fraction < 1:
            # Hidden patches are in the order of their noise: the first ones are a random choice.
            num_predicted = math.ceil(num_hidden * self.prediction_fraction)
            masking = masking._replace(ids_hidden=masking.ids_hidden[:, :num_predicted])
        visible, hidden = self(encoded, fusion, masking, predict_visible)
        loss = loss and num_hidden > 0
        mean = mean_of_present(self._losses(hidden, values, masking, present), present) if loss else None
        if not logits:
            return mean, None
        if visible is None:
            visible = hidden.new_zeros(hidden.shape[0], masking.ids_keep.shape[1], hidden.shape[2])
        if hidden.shape[1] < num_hidden:
            hidden = nn.functional.pad(hidden, (0, 0, 0, num_hidden - hidden.shape[1]))
        return mean, gather_tokens(torch.cat([visible, hidden], dim=1), masking.ids_restore)

    def losses(
        self,
        logits: torch.Tensor,
        values: torch.Tensor,
        ids_restore: torch.Tensor,
        mask: torch.Tensor,
        present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss of each sample, (B,).

        Args:
            logits: (B, patches, values) in the order of the grid.
            values: Input of the modality.
            ids_restore: (B, patches) position of each patch in the shuffled order (visible patches first).
            mask: (B, patches), 1 = hidden; as many in every sample.
            present: (B,) bool, or None if all samples are present. The loss of the others is 0.
        """
        masking = DeepAVFusionMasking.from_restore(ids_restore, int((mask[0] == 0).sum()))
        return self._losses(gather_tokens(logits, masking.ids_hidden), values, masking, present)

    def _losses(self, hidden, values, masking, present=None):
        targets = self.targets(values, masking.ids_hidden)
        return reconstruction_loss(hidden, targets.to(hidden.device), present)

    def targets(self, values: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Compute what the decoder learns to predict, in float32.

        Args:
            values: Input of the modality.
            ids: (B, n) patches to select; by default all in the order of the grid.

        Returns:
            (B, n, values), standardized as `norm_patch_loss` says.
        """
        patches = self.patches.patchify(values, channels_last=True)
        patches = (patches if ids is None else gather_tokens(patches, ids)).float()
        return patches if self.target_channels is None else standardize_patches(patches, self.target_channels)

    def in_input_units(self, logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Logits (B, patches, values) in the units of the input.

        Standardized targets leave out the mean and deviation of a patch, which are those of the true one here: the
        result is better than what the model knows.
        """
        if self.target_channels is None:
            return logits
        patches = self.patches.patchify(values, channels_last=True)
        return unstandardize_patches(logits, patches, self.target_channels)

    def forward(
        self, encoded: torch.Tensor, fusion: torch.Tensor, masking: DeepAVFusionMasking, predict_visible: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Predict the values of the patches.

        Args:
            encoded: (B, kept, D) encoded visible patches.
            fusion: (B, nF, D) fusion tokens.
            masking: Which patches were kept.
            predict_visible: Whether to also predict the visible patches, which the loss does not need.

        Returns:
            Predictions for visible patches (B, kept, values) or None, and for hidden ones (B, hidden, values), in the
            order of `masking.ids_keep` and `masking.ids_hidden`.
        """
        visible, hidden = self.decode(self.embed(encoded), self.embed(fusion), masking, predict_visible)
        return None if visible is None else self.predictor(self.norm(visible)), self.predictor(self.norm(hidden))


class DeepAVFusionPlainDecoder(DeepAVFusionDecoder):
    """Global attention among fusion tokens, visible and hidden patches.

    Attention ignores order, so the patches stay in shuffled order, visible first, and only their positions are
    permuted. Before the first layer, a hidden patch is the mask token at its position, alike in all samples: its query,
    key and value are computed once. The last layer computes only the requested rows.
    """

    @staticmethod
    def make_layer(config, index: int, grid: tuple[int, ...]) -> nn.Module:
        """Layer `index` of the decoder."""
        return DeepAVFusionLayer(
            config,
            config.decoder_hidden_size,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
            config.decoder_layer_norm_eps,
        )

    def decode(self, patches, fusion, masking, predict_visible):
        """Decode tokens (B, kept, d) and (B, nF, d) to visible (or None) and hidden patches (B, ..., d)."""
        num_kept, num_fusion = patches.shape[1], fusion.shape[1]
        positions = self.position_embeddings[0].to(patches.dtype)
        visible = patches + nn.functional.embedding(masking.ids_keep, positions)
        hidden_states = torch.cat([fusion, visible], dim=1)
        masked, ids = self.mask_token[0].to(patches.dtype) + positions, masking.ids_hidden
        requested = slice(num_fusion if predict_visible else num_fusion + num_kept, None)
        first, *rest = self.layers
        if rest:
            hidden_states, _ = first(hidden_states, None, None, None, False, masked, ids)
        else:
            hidden_states, rest = torch.cat([hidden_states, nn.functional.embedding(ids, masked)], dim=1), [first]
        for index, layer in enumerate(rest):
            last = index == len(rest) - 1
            hidden_states, _ = layer(hidden_states, queries=requested if last else None)
        if not predict_visible:
            return None, hidden_states
        return hidden_states[:, :num_kept], hidden_states[:, num_kept:]


class DeepAVFusionSwinDecoder(DeepAVFusionDecoder):
    """Attention in windows of the grid, shifted on odd layers, with the fusion tokens in every window."""

    @staticmethod
    def make_layer(config, index: int, grid: tuple[int, ...]) -> nn.Module:
        """Layer `index` of the decoder."""
        return DeepAVFusionSwinLayer(config, grid, shifted=index % 2 == 1)

    @torch.no_grad()
    def init_weights(self):
        """As in the base class; bias tables are truncated-normal N(0, initializer_range)."""
        super().init_weights()
        for layer in self.layers:
            init.trunc_normal_(layer.relative_position_bias_table, std=self.initializer_range)

    def decode(self, patches, fusion, masking, predict_visible):
        """Decode tokens (B, kept, d) and (B, nF, d) to visible (or None) and hidden patches (B, ..., d)."""
        batch, num_hidden = patches.shape[0], masking.ids_hidden.shape[1]
        tokens = torch.cat([patches, self.mask_token.to(patches.dtype).expand(batch, num_hidden, -1)], dim=1)
        tokens = gather_tokens(tokens, masking.ids_restore) + self.position_embeddings.to(tokens.dtype)
        for layer in self.layers:
            tokens, fusion = layer(tokens, fusion)
        visible = gather_tokens(tokens, masking.ids_keep) if predict_visible else None
        return visible, gather_tokens(tokens, masking.ids_hidden)


class DeepAVFusionCrossDecoder(DeepAVFusionDecoder):
    """Cross-attention from mask tokens to the visible patches and the fusion tokens (CrossMAE, arXiv 2401.14391).

    Only requested patches are computed, each regardless of the others: visible patches are predicted from mask tokens
    too, and in training a random part of the hidden ones may suffice (`config.decoder_prediction_fraction`).
    """

    def __init__(self, config, patches: PatchGrid):
        super().__init__(config, patches)
        self.prediction_fraction = config.decoder_prediction_fraction

    @staticmethod
    def make_layer(config, index: int, grid: tuple[int, ...]) -> nn.Module:
        """Layer `index` of the decoder."""
        return DeepAVFusionCrossLayer(config)

    def decode(self, patches, fusion, masking, predict_visible):
        """Decode tokens (B, kept, d) and (B, nF, d) to visible (or None) and hidden patches (B, ..., d)."""
        num_kept = patches.shape[1]
        positions = nn.functional.embedding(masking.ids_keep, self.position_embeddings[0])
        context = torch.cat([fusion, patches + positions.to(patches.dtype)], dim=1)
        requested = masking.ids_hidden
        if predict_visible:
            requested = torch.cat([masking.ids_keep, requested], dim=1)
        positions = nn.functional.embedding(requested, self.position_embeddings[0])
        queries = self.mask_token.to(patches.dtype) + positions.to(patches.dtype)
        for layer in self.layers:
            queries = layer(queries, context)
        if not predict_visible:
            return None, queries
        return queries[:, :num_kept], queries[:, num_kept:]


DECODERS = {"plain": DeepAVFusionPlainDecoder, "swin": DeepAVFusionSwinDecoder, "cross": DeepAVFusionCrossDecoder}

__all__ = [
    "DECODERS",
    "DeepAVFusionCrossDecoder",
    "DeepAVFusionDecoder",
    "DeepAVFusionPlainDecoder",
    "DeepAVFusionSwinDecoder",
    "standardize_patches",
    "unstandardize_patches",
]
