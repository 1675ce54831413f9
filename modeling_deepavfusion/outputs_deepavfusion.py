"""Outputs of the encoder, the recording of hidden states and attentions, and outputs that several heads share."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class DeepAVFusionModelOutput(ModelOutput):
    r"""Outputs of the encoder.

    All fields of a modality that was not passed are None. If a modality is marked absent for some samples, their rows
    are zero in the last hidden states (and meaningless in the hidden states of the layers).

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, fusion tokens, hidden_size)`):
            The fusion tokens: fusion, image aggregation, audio aggregation, in that order.
        image_last_hidden_state (`torch.FloatTensor` of shape `(batch, image patches or kept, hidden_size)`):
            The image's patches, row-major (video: time, row, column), or in the order of `image_ids_keep`.
        audio_last_hidden_state (`torch.FloatTensor` of shape `(batch, audio patches or kept, hidden_size)`):
            The spectrogram's patches, row-major with frequency as the row, or in the order of `audio_ids_keep`.
        hidden_states (`tuple`, with `output_hidden_states=True`):
            Fusion tokens before the first layer and after each layer, not normalized: `num_hidden_layers + 1` tensors.
        image_hidden_states (`tuple`, with `output_hidden_states=True`):
            The same for the image's patches.
        audio_hidden_states (`tuple`, with `output_hidden_states=True`):
            The same for the audio's patches.
        attentions (`tuple`, with `output_attentions=True` and eager attention):
            For each layer with a fusion block, weights of the fusion tokens over the patches, image then audio:
            `(batch, heads, fusion tokens, image patches + audio patches)`. In factorized fusion, the weights of the
            fusion tokens themselves are propagated through the aggregation tokens.
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
    r"""Fields that separation, segmentation and localization share: loss, map of logits, and what was recorded."""

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    image_attentions: tuple[torch.FloatTensor, ...] | None = None
    audio_attentions: tuple[torch.FloatTensor, ...] | None = None


_STREAMS = ("", "image_", "audio_")  # prefixes of output fields: the fusion stream's have none


def _requests(config, flags: dict) -> dict[str, bool]:
    """Whether hidden states and attentions were requested, by a call's `flags` or else by the configuration."""
    names = {"hidden_states": "output_hidden_states", "attentions": "output_attentions"}
    return {name: flags[flag] if flags.get(flag) is not None else getattr(config, flag) for name, flag in names.items()}


def requested_fields(config, flags: dict) -> list[str]:
    """Names of the recorded fields that a call's `flags` or the configuration request, of all streams."""
    requests = _requests(config, flags)
    return [stream + name for name, requested in requests.items() if requested for stream in _STREAMS]


class Recorder:
    """Collects hidden states and attention weights of the three streams where requested.

    Args:
        config: Configuration of the model.
        flags: Keyword arguments of the call, `output_hidden_states` and `output_attentions` among them.
        fusion_attentions: Whether to record the fusion stream's attention weights in any case.

    Raises:
        ValueError: If all attention weights are requested and the attention implementation does not compute them.
    """

    def __init__(self, config, flags: dict, fusion_attentions: bool = False):
        requests = _requests(config, flags)
        if requests["attentions"] and config._attn_implementation != "eager":
            raise ValueError(
                f"output_attentions=True needs attention weights, which {config._attn_implementation!r} attention does "
                'not compute: load the model with attn_implementation="eager".'
            )
        self.hidden_states = ([], [], []) if requests["hidden_states"] else None
        self.attentions = ([], [], []) if requests["attentions"] or fusion_attentions else None
        self.all_attentions = requests["attentions"]

    def states(self, *streams: torch.Tensor | None) -> None:
        """Record the tokens of the fusion, image and audio streams between two layers."""
        if self.hidden_states is not None:
            for recorded, state in zip(self.hidden_states, streams, strict=True):
                recorded.append(state)

    def weights(self, *streams: torch.Tensor | None) -> None:
        """Record the attention weights of the fusion, image and audio streams in a layer."""
        if self.attentions is not None:
            count = 3 if self.all_attentions else 1
            for recorded, weights in zip(self.attentions[:count], streams[:count], strict=True):
                recorded.append(weights)

    def fields(self) -> dict[str, tuple[torch.Tensor, ...] | None]:
        """Output fields: one tuple per stream, without layers that recorded nothing; None for an absent modality."""
        fields = {}
        for suffix, recorded in (("hidden_states", self.hidden_states), ("attentions", self.attentions)):
            for name, stream in zip(_STREAMS, recorded or ([], [], []), strict=True):
                fields[name + suffix] = tuple(x for x in stream if x is not None) or None
        return fields


__all__ = ["DeepAVFusionMapOutput", "DeepAVFusionModelOutput", "Recorder", "requested_fields"]
