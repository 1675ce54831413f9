"""The fusion stream's layers: token, dense and factorized fusion (paper, section 3.3).

Attention to *pairs* of an image and an audio token never builds a pair. A linear map of two concatenated tokens is a
sum of two linear maps, so the softmax over all pairs is a product of two softmaxes, and its output the sum of two
ordinary attentions. Time and memory grow with nI + nA instead of nI * nA, with the same weights and the same result up
to rounding.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_deepavfusion import DeepAVFusionAttention, attend_projected
from .presence_deepavfusion import keep_present
from .projections_deepavfusion import group_projections, product_dtype
from .vit_deepavfusion import DeepAVFusionDropPath, DeepAVFusionMLP


class DeepAVFusionPairAttention(nn.Module):
    """Attention over all pairs of an image and an audio token, in factored form.

    The published form has one key and one value projection of concatenated tokens, k_ij = K [a_i ; b_j] + c. Their
    halves are separate modules here. The key constant c cancels in the softmax and stays with the image's half.

    With attention dropout the two factors are dropped independently, which is not the same as dropping pairs.

    Args:
        config: Configuration of the model.
        key_dim: Width of queries and keys.
        value_dim: Width of values.
    """

    def __init__(self, config, key_dim: int, value_dim: int):
        super().__init__()
        dim = config.hidden_size
        self.config = config
        self.num_heads = config.num_fusion_attention_heads
        # Based on the full width, not on key_dim: published weights rely on it.
        self.scaling = (dim // self.num_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.q_proj = nn.Linear(dim, key_dim)
        self.image_k_proj = nn.Linear(dim, key_dim)
        self.image_v_proj = nn.Linear(dim, value_dim, bias=False)
        self.audio_k_proj = nn.Linear(dim, key_dim, bias=False)
        self.audio_v_proj = nn.Linear(dim, value_dim, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(value_dim))
        self.o_proj = nn.Linear(value_dim, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, states, image, audio, image_present=None, audio_present=None, **options):
        """Attend from `states` (B, n, D) to the pairs of `image` (B, nI, D) or None and `audio` (B, nA, D) or None.

        An absent modality drops out of the sum: attention then covers the other modality alone.

        Args:
            states: (B, n, D).
            image: (B, nI, D), or None if no sample has an image.
            audio: (B, nA, D), or None if no sample has audio.
            image_present: (B,) bool, or None if all samples have an image.
            audio_present: (B,) bool, or None if all samples have audio.
            **options: `need_weights`, see `attend`.

        Returns:
            (B, n, D) and the two softmaxes, each None unless attention is eager.
        """
        project, of_image, of_audio, finish = group_projections(
            states,
            (self.q_proj,),
            (self.image_k_proj, self.image_v_proj),
            (self.audio_k_proj, self.audio_v_proj),
            (self.o_proj,),
        )
        (query,) = project(states)
        output, weights = self.v_bias, []
        for side, present, key_value in ((image, image_present, of_image), (audio, audio_present, of_audio)):
            own = None
            if side is not None:
                part, own = attend_projected(self, query, side, key_value, self.num_heads, self.scaling, **options)
                output = output + keep_present(part, present)
            weights.append(own)
        (output,) = finish(output)
        return self.dropout(output), weights


class DeepAVFusionDenseAttention(DeepAVFusionPairAttention):
    """Every fusion token attends to every pair of an image and an audio patch.

    Its weights over (image patches, audio patches) are the two factors: each side sums to one.
    """

    def __init__(self, config):
        width = int(config.hidden_size * config.fusion_attention_ratio)
        super().__init__(config, width, width)

    def forward(self, fusion, image, audio, image_present=None, audio_present=None, **options):
        """As in the base class; the weights are (B, heads, nF, nI + nA), or None unless attention is eager."""
        output, weights = super().forward(fusion, image, audio, image_present, audio_present, **options)
        weights = [w for w in weights if w is not None]
        return output, torch.cat(weights, dim=-1) if weights else None


class DeepAVFusionTokenAttention(DeepAVFusionAttention):
    """Fusion tokens attend to image and audio patches as a single sequence."""

    def __init__(self, config):
        dim = config.hidden_size
        super().__init__(config, dim, config.num_fusion_attention_heads, int(dim * config.fusion_attention_ratio))

    def forward(self, fusion, image, audio, image_present=None, audio_present=None, **options):
        """As `DeepAVFusionDenseAttention.forward`."""
        streams = [(image, image_present), (audio, audio_present)]
        states = torch.cat([stream for stream, _ in streams if stream is not None], dim=1)
        return super().forward(fusion, states, self._mask(states, streams), **options)

    @staticmethod
    def _mask(states, streams):
        """(B, 1, 1, tokens) bool, True if a sample has the token's modality; None if nothing is missing."""
        if all(present is None for stream, present in streams if stream is not None):
            return None
        batch = states.shape[0]
        columns = [
            (present if present is not None else states.new_ones(batch, dtype=torch.bool))[:, None].expand(
                batch, stream.shape[1]
            )
            for stream, present in streams
            if stream is not None
        ]
        return torch.cat(columns, dim=1)[:, None, None, :]


class DeepAVFusionFactorizedAttention(nn.Module):
    """Aggregation tokens gather each modality; fusion tokens attend to all pairs of aggregates.

    The weights over patches are those of the aggregation tokens themselves; those of the fusion tokens are propagated
    through the aggregation tokens, head by head.
    """

    def __init__(self, config):
        super().__init__()
        dim, heads = config.hidden_size, config.num_fusion_attention_heads
        self.split = (
            config.num_fusion_tokens,
            config.num_image_aggregation_tokens,
            config.num_audio_aggregation_tokens,
        )
        self.image_attention = DeepAVFusionAttention(config, dim, heads)
        self.audio_attention = DeepAVFusionAttention(config, dim, heads)
        self.pair_attention = DeepAVFusionPairAttention(config, int(dim * config.fusion_attention_ratio), dim)

    def forward(self, fusion, image, audio, image_present=None, audio_present=None, **options):
        """As `DeepAVFusionDenseAttention.forward`."""
        # Copies, in the dtype of the products, which would otherwise make copies of their own.
        fusion = fusion.to(product_dtype(fusion))
        tokens, image_tokens, audio_tokens = torch.split_with_sizes_copy(fusion, self.split, dim=1)
        image_aggregate = audio_aggregate = image_weights = audio_weights = None
        if image is not None:
            image_aggregate, image_weights = self.image_attention(image_tokens, image, **options)
            image_aggregate = keep_present(image_aggregate, image_present)
        if audio is not None:
            audio_aggregate, audio_weights = self.audio_attention(audio_tokens, audio, **options)
            audio_aggregate = keep_present(audio_aggregate, audio_present)
        pairs, pair_weights = self.pair_attention(
            tokens, image_aggregate, audio_aggregate, image_present, audio_present, **options
        )
        output = torch.cat(
            [
                pairs,
                torch.zeros_like(image_tokens) if image_aggregate is None else image_aggregate,
                torch.zeros_like(audio_tokens) if audio_aggregate is None else audio_aggregate,
            ],
            dim=1,
        )
        return output, self._weights(pair_weights, image_weights, audio_weights)

    def _weights(self, pair_weights, image_weights, audio_weights):
        """(B, heads, fusion tokens, nI + nA), of the modalities that are present; None unless attention is eager."""
        columns = []
        for side, own in enumerate((image_weights, audio_weights)):
            if own is None:
                continue
            zeros = own.new_zeros(*own.shape[:2], self.split[2 - side], own.shape[-1])
            rows = [pair_weights[side] @ own, own, zeros] if side == 0 else [pair_weights[side] @ own, zeros, own]
            columns.append(torch.cat(rows, dim=2))
        return torch.cat(columns, dim=-1) if columns else None


FUSION_ATTENTION = {
    "dense": DeepAVFusionDenseAttention,
    "token": DeepAVFusionTokenAttention,
    "factorized": DeepAVFusionFactorizedAttention,
}


class DeepAVFusionFusionLayer(GradientCheckpointingLayer):
    """One layer of the fusion stream.

    Its residual starts from the *normalized* fusion tokens, not from the tokens themselves. That is how the published
    model was trained, and its weights depend on it.
    """

    def __init__(self, config, drop_path_rate: float = 0.0):
        super().__init__()
        dim, eps = config.hidden_size, config.fusion_layer_norm_eps
        self.fusion_layernorm = nn.LayerNorm(dim, eps=eps)
        self.image_layernorm = nn.LayerNorm(dim, eps=eps)
        self.audio_layernorm = nn.LayerNorm(dim, eps=eps)
        self.attention = FUSION_ATTENTION[config.fusion_type](config)
        self.layernorm_after = nn.LayerNorm(dim, eps=eps)
        self.mlp = DeepAVFusionMLP(config, dim, int(dim * config.fusion_mlp_ratio))
        self.drop_path = DeepAVFusionDropPath(drop_path_rate)

    def forward(
        self,
        fusion: torch.Tensor,
        image: torch.Tensor | None,
        audio: torch.Tensor | None,
        image_present: torch.Tensor | None = None,
        audio_present: torch.Tensor | None = None,
        **options,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Update the fusion tokens.

        Args:
            fusion: (B, nF, D).
            image: (B, nI, D), or None if no sample has an image.
            audio: (B, nA, D), or None if no sample has audio.
            image_present: (B,) bool, or None if all samples have an image.
            audio_present: (B,) bool, or None if all samples have audio.
            **options: `need_weights=True` uses eager attention regardless of the configuration, to get the weights.

        Returns:
            (B, nF, D), and from eager attention the weights (B, heads, nF, nI + nA) over the patches that are present.
        """
        fusion = self.fusion_layernorm(fusion)
        image = None if image is None else self.image_layernorm(image)
        audio = None if audio is None else self.audio_layernorm(audio)
        attended, weights = self.attention(fusion, image, audio, image_present, audio_present, **options)
        fusion = fusion + self.drop_path(attended)
        return fusion + self.drop_path(self.mlp(self.layernorm_after(fusion))), weights


__all__ = [
    "DeepAVFusionDenseAttention",
    "DeepAVFusionFactorizedAttention",
    "DeepAVFusionFusionLayer",
    "DeepAVFusionPairAttention",
    "DeepAVFusionTokenAttention",
]
