"""The model exactly as in the paper's equations, without optimizations: the reference for correctness and speed.

`textbook(model)` returns a copy of a model whose modules compute

- all rows of a tower layer over [fusion tokens ; patches], then drop those of the fusion tokens,
- all pairs of image and audio tokens, with keys and values of their concatenated channels,
- the projection of all patches, then drop the masked ones,
- all rows of the decoder, and the predictions of all patches, in grid order.

The weights are shared in value, so outputs and gradients must agree with the model's up to rounding.
"""

import copy

import torch
from torch import nn

from deepavfusion.fusion_deepavfusion import DeepAVFusionDenseAttention, DeepAVFusionPairAttention
from deepavfusion.patches_deepavfusion import DeepAVFusionPatchEmbeddings, gather_tokens
from deepavfusion.reconstruction_deepavfusion import DeepAVFusionPlainDecoder
from deepavfusion.vit_deepavfusion import DeepAVFusionLayer, attend


class TextbookLayer(DeepAVFusionLayer):
    """A transformer layer over all tokens."""

    def forward(self, hidden_states, context=None, ids=None, queries=None):
        tokens = hidden_states if context is None else torch.cat([context, hidden_states], dim=1)
        normed = self.layernorm_before(tokens)
        attended, weights = self.attention(normed, normed)
        tokens = tokens + self.drop_path(attended)
        tokens = tokens + self.drop_path(self.mlp(self.layernorm_after(tokens)))
        tokens = tokens[:, tokens.shape[1] - hidden_states.shape[1] :]
        if weights is not None:
            weights = weights[:, :, weights.shape[2] - hidden_states.shape[1] :]
        return (tokens, weights) if queries is None else (tokens[:, queries], weights)


class TextbookPairAttention(DeepAVFusionPairAttention):
    """One key and one value for each of the nI * nA pairs. Both modalities are required."""

    def forward(self, states, image, audio, image_present=None, audio_present=None):
        if image is None or audio is None or image_present is not None or audio_present is not None:
            raise ValueError(
                "The textbook form does not support a missing modality: expected both streams and no presence masks."
            )
        batch, num_image, dim = image.shape
        num_audio = audio.shape[1]
        pairs = torch.cat(
            [
                image[:, :, None, :].expand(batch, num_image, num_audio, dim),
                audio[:, None, :, :].expand(batch, num_image, num_audio, dim),
            ],
            dim=-1,
        ).view(batch, num_image * num_audio, 2 * dim)
        key_weight = torch.cat([self.image_k_proj.weight, self.audio_k_proj.weight], dim=1)
        value_weight = torch.cat([self.image_v_proj.weight, self.audio_v_proj.weight], dim=1)
        output, weights = attend(
            self,
            self.q_proj(states),
            nn.functional.linear(pairs, key_weight, self.image_k_proj.bias),
            nn.functional.linear(pairs, value_weight, self.v_bias),
            self.num_heads,
            self.scaling,
        )
        factors = [None, None]
        if weights is not None:
            weights = weights.view(batch, self.num_heads, -1, num_image, num_audio)
            factors = [weights.sum(dim=4), weights.sum(dim=3)]
        return self.dropout(self.o_proj(output)), factors


class TextbookDenseAttention(TextbookPairAttention):
    """Pairs of patches; attention weights of patches are sums of pair weights over the other modality."""

    def forward(self, fusion, image, audio, image_present=None, audio_present=None):
        output, weights = super().forward(fusion, image, audio, image_present, audio_present)
        return output, None if weights[0] is None else torch.cat(weights, dim=-1)


class TextbookPatchEmbeddings(DeepAVFusionPatchEmbeddings):
    """Projects all patches by the convolution, then drops the masked ones."""

    def forward(self, values, ids_keep=None):
        if len(self.patches.patch) == 3:
            values = values.transpose(1, 2)
        tokens = self.projection(values.to(self.projection.weight.dtype)).flatten(2).transpose(1, 2)
        tokens = tokens + self.position_embeddings
        return tokens if ids_keep is None else gather_tokens(tokens, ids_keep)


class TextbookPlainDecoder(DeepAVFusionPlainDecoder):
    """All tokens pass through all layers and all patches are predicted, in grid order."""

    def forward(self, patches, fusion, masking, predict_visible):
        patches, fusion = self.embed(patches), self.embed(fusion)
        batch, num_hidden = patches.shape[0], masking.ids_hidden.shape[1]
        tokens = torch.cat([patches, self.mask_token.expand(batch, num_hidden, -1)], dim=1)
        tokens = gather_tokens(tokens, masking.ids_restore) + self.position_embeddings
        tokens = torch.cat([fusion, tokens], dim=1)
        for layer in self.layers:
            tokens, _ = layer(tokens)
        predictions = self.predictor(self.norm(tokens[:, fusion.shape[1] :]))
        return gather_tokens(predictions, masking.ids_keep), gather_tokens(predictions, masking.ids_hidden)


TEXTBOOK = {
    DeepAVFusionLayer: TextbookLayer,
    DeepAVFusionPairAttention: TextbookPairAttention,
    DeepAVFusionDenseAttention: TextbookDenseAttention,
    DeepAVFusionPatchEmbeddings: TextbookPatchEmbeddings,
    DeepAVFusionPlainDecoder: TextbookPlainDecoder,
}


def textbook(module: nn.Module) -> nn.Module:
    """Copy a model, or any part of one, into its textbook form with equal weights."""
    module = copy.deepcopy(module)
    for part in module.modules():
        part.__class__ = TEXTBOOK.get(type(part), type(part))
    return module
