"""Other forms of the model with equal weights, as references for correctness and speed.

`textbook(model)` computes exactly what the paper's equations say, without optimizations: it returns a copy of a model
whose modules compute

- keys and values of all tokens, wherever attention goes,
- all rows of a tower layer over [fusion tokens ; patches], then drop those of the fusion tokens,
- all pairs of image and audio tokens, with keys and values of their concatenated channels,
- the projection of all patches, then drop the masked ones,
- all rows of the decoder, and the predictions of all patches, in grid order.

The weights are shared in value, so outputs and gradients must agree with the model's up to rounding.

`published(model, path)` is the authors' code, from a checkout of their repository. It cannot be installed and is not
part of this package; of its requirements, timm must be importable.
"""

import copy
import importlib
import sys
from pathlib import Path

import torch
from torch import nn

from deepavfusion import DeepAVFusionForPreTraining, export_original_state_dict
from deepavfusion.attention_deepavfusion import DeepAVFusionAttention, attend
from deepavfusion.fusion_deepavfusion import DeepAVFusionDenseAttention, DeepAVFusionPairAttention
from deepavfusion.patches_deepavfusion import DeepAVFusionPatchEmbeddings, gather_tokens
from deepavfusion.reconstruction_deepavfusion import DeepAVFusionPlainDecoder
from deepavfusion.vit_deepavfusion import DeepAVFusionLayer


class TextbookAttention(DeepAVFusionAttention):
    """Projects all states to keys and values."""

    def forward(self, query_states, key_value_states, attention_mask=None, need_weights=False):
        projected = (self.q_proj(query_states), self.k_proj(key_value_states), self.v_proj(key_value_states))
        options = (self.num_heads, self.scaling, attention_mask, need_weights)
        output, weights = attend(self, *projected, *options)
        return self.dropout(self.o_proj(output)), weights


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
    DeepAVFusionAttention: TextbookAttention,
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


_MODULES = ("models.deepavfusion", "models.avmae")
_FUSION = {"factorized": "factorized_mmi", "dense": "dense_mmi", "token": "token"}
# Width -> function of models.vits, and what it takes for random weights.
_TOWERS = {384: ("vit_small_patch16", False), 768: ("vit_base_patch16", None), 1024: ("vit_large_patch16", None)}


class _Renamed(nn.Module):
    """A published model under the names of this package's inputs and outputs."""

    def __init__(self, model: nn.Module, pretraining: bool):
        super().__init__()
        self.model, self.pretraining = model, pretraining

    def forward(self, pixel_values, input_features, image_ids_keep=None, audio_ids_keep=None):
        if not self.pretraining:
            image, audio, fusion = self.model(pixel_values, input_features, image_ids_keep, audio_ids_keep)
            return _Outputs(fusion, image, audio)
        image_loss, audio_loss, *_ = self.model(pixel_values, input_features)
        return _Outputs(image_loss + audio_loss)


class _Outputs(tuple):
    """Outputs of a published model: tokens of all streams, or the loss."""

    def __new__(cls, *values):
        return super().__new__(cls, values)

    @property
    def loss(self) -> torch.Tensor:
        return self[0]

    def to_tuple(self) -> tuple[torch.Tensor, ...]:
        return tuple(self)


def published(module: nn.Module, path: Path) -> nn.Module:
    """Build the published form of an encoder, or of a model for pre-training with plain decoders, with equal weights.

    Args:
        module: Model of this package, in one of the published sizes.
        path: Folder of the published code.

    Raises:
        FileNotFoundError: If the folder does not hold that code.
        ModuleNotFoundError: If a package that it imports is missing.
        ValueError: If there is no published model of this size.
    """
    config = module.config
    if not (path / "models" / "deepavfusion.py").is_file():
        raise FileNotFoundError(f"{path} holds no models/deepavfusion.py: expected a checkout of the published code.")
    if config.hidden_size not in _TOWERS or config.num_frames > 1:
        raise ValueError(f"No published model for frames has hidden_size {config.hidden_size}.")
    sys.path.insert(0, str(path))
    try:
        encoders, pretraining = (importlib.import_module(name) for name in _MODULES)
    finally:
        sys.path.remove(str(path))
    tower, random = _TOWERS[config.hidden_size]
    model = encoders.DeepAVFusion(
        image_arch=tower,
        audio_arch=tower,
        image_pretrained=random,
        audio_pretrained=random,
        image_size=config.frame_size,
        audio_size=(config.num_mel_bins, config.spectrogram_length),
        fusion_arch=_FUSION[config.fusion_type],
        num_fusion_tkns=(
            config.num_fusion_tokens,
            config.num_image_aggregation_tokens,
            config.num_audio_aggregation_tokens,
        ),
        fusion_mlp_ratio=config.fusion_mlp_ratio,
        fusion_attn_ratio=config.fusion_attention_ratio,
        fusion_num_heads=config.num_fusion_attention_heads,
    )
    whole = isinstance(module, DeepAVFusionForPreTraining)
    if whole:
        model = pretraining.AVMAE(
            model,
            config.hidden_size,
            image_decoder_depth=config.decoder_num_hidden_layers,
            audio_decoder_depth=config.decoder_num_hidden_layers,
            image_mask_ratio=config.image_mask_ratio,
            audio_mask_ratio=config.audio_mask_ratio,
            image_norm_loss=True,
            audio_norm_loss=True,
            decoder_dim=config.decoder_hidden_size,
            num_heads=config.decoder_num_attention_heads,
        )
    model.load_state_dict(export_original_state_dict(module))
    parameter = next(module.parameters())
    return _Renamed(model, whole).to(parameter.device, parameter.dtype).train(module.training)
