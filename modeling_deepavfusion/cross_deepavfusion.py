"""A transformer layer with cross-attention alone, for the cross decoder of pre-training."""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_deepavfusion import DeepAVFusionAttention
from .vit_deepavfusion import DeepAVFusionMLP


class DeepAVFusionCrossLayer(GradientCheckpointingLayer):
    """Pre-norm layer whose tokens attend to a context, but not to each other (CrossMAE, arXiv 2401.14391).

    The context stays unchanged; every layer normalizes it with a norm of its own.
    """

    def __init__(self, config):
        super().__init__()
        dim, eps = config.decoder_hidden_size, config.decoder_layer_norm_eps
        self.layernorm_before = nn.LayerNorm(dim, eps=eps)
        self.layernorm_context = nn.LayerNorm(dim, eps=eps)
        self.attention = DeepAVFusionAttention(config, dim, config.decoder_num_attention_heads)
        self.layernorm_after = nn.LayerNorm(dim, eps=eps)
        self.mlp = DeepAVFusionMLP(config, dim, config.decoder_intermediate_size)

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Update tokens (B, n, d) from a context (B, c, d)."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), self.layernorm_context(context))
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.layernorm_after(hidden_states))


__all__ = ["DeepAVFusionCrossLayer"]
