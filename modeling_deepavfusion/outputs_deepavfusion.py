"""What the encoder gives, and what the heads that give a map have in common."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class DeepAVFusionModelOutput(ModelOutput):
    r"""
    What the encoder gives. Every field of a modality that was not passed is None; rows of samples whose modality is
    marked absent are zero in the last hidden states (and meaningless in the recorded ones).

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, fusion tokens, hidden_size)`):
            The fusion tokens: fusion, image aggregation, audio aggregation, in that order.
        image_last_hidden_state (`torch.FloatTensor` of shape `(batch, image patches or kept, hidden_size)`):
            The image's patches, row-major (video: time, row, column), or in the order of `image_ids_keep`.
        audio_last_hidden_state (`torch.FloatTensor` of shape `(batch, audio patches or kept, hidden_size)`):
            The spectrogram's patches, row-major with frequency as the row, or in the order of `audio_ids_keep`.
        hidden_states (`tuple`, with `output_hidden_states=True`):
            Fusion tokens before the first layer and after each layer, not normalised: `num_hidden_layers + 1` tensors.
        image_hidden_states (`tuple`, with `output_hidden_states=True`):
            The same for the image's patches.
        audio_hidden_states (`tuple`, with `output_hidden_states=True`):
            The same for the audio's patches.
        attentions (`tuple`, with `output_attentions=True` and eager attention):
            For each layer with a fusion block, weights of the fusion tokens over the patches, image then audio:
            `(batch, heads, fusion tokens, image patches + audio patches)`. In factorized fusion the weights of fusion
            tokens proper are carried through the aggregation tokens.
        image_attentions (`tuple`, with `output_attentions=True` and eager attention):
            For each layer, weights of the image's patches over fusion tokens (where the layer has a fusion block), then
            patches: `(batch, heads, patches, fusion tokens + patches)`.
        audio_attentions (`tuple`, with `output_attentions=True` and eager attention):
            The same for the audio's patches.
    """

    last_hidden_state: torch.FloatTensor | None = None
    image_last_hidden_state: torch.FloatTensor | None = None
    audio_last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    image_attentions: tuple[torch.FloatTensor, ...] | None = None
    audio_attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class DeepAVFusionMapOutput(ModelOutput):
    r"""
    Fields that separation, segmentation and localization share: a loss, a map of logits, and what the encoder recorded.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    image_attentions: tuple[torch.FloatTensor, ...] | None = None
    audio_attentions: tuple[torch.FloatTensor, ...] | None = None


__all__ = ["DeepAVFusionMapOutput", "DeepAVFusionModelOutput"]
