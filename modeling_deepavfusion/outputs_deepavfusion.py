"""Outputs of the encoder, the recording of hidden states and attentions, and outputs that several heads share."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput, logging

logger = logging.get_logger(__name__)


@dataclass
class DeepAVFusionModelOutput(ModelOutput):
    r"""Outputs of the encoder.

    Every batch has the same fields, whatever modality its samples lack. The last hidden states of a sample that lacks a
    modality are zeros there, its hidden states of the layers meaningless; all that a batch without the modality returns
    for it is zeros.

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
        attentions (`tuple`, with `output_attentions=True`):
            For each layer with a fusion block, weights of the fusion tokens over the patches, image then audio:
            `(batch, heads, fusion tokens, image patches + audio patches)`. In factorized fusion, the weights of the
            fusion tokens themselves are propagated through the aggregation tokens.
        image_attentions (`tuple`, with `output_attentions=True`):
            For each layer, weights of the image's patches over fusion tokens (where the layer has a fusion block), then
            patches: `(batch, heads, patches, fusion tokens + patches)`.
        audio_attentions (`tuple`, with `output_attentions=True`):
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


STREAMS = ("fusion", "image", "audio")
_PREFIXES = ("", "image_", "audio_")  # of their output fields


def _requests(config, flags: dict) -> dict[str, bool]:
    """Whether hidden states and attentions were requested, by a call's `flags` or else by the configuration."""
    names = {"hidden_states": "output_hidden_states", "attentions": "output_attentions"}
    return {name: flags[flag] if flags.get(flag) is not None else getattr(config, flag) for name, flag in names.items()}


def requested_fields(config, flags: dict) -> list[str]:
    """Names of the recorded fields that a call's `flags` or the configuration request, of all streams."""
    requests = _requests(config, flags)
    return [stream + name for name, requested in requests.items() if requested for stream in _PREFIXES]


class Recorder:
    """Collects hidden states and attention weights of the three streams where requested.

    Args:
        config: Configuration of the model.
        flags: Keyword arguments of the call, `output_hidden_states` and `output_attentions` among them.
        fusion_attentions: Whether to record the fusion stream's attention weights in any case.

    Attributes:
        tower_options: Options of the towers' layers with which they return what is to be recorded.
        fusion_options: Those of the fusion stream's layers.
    """

    # transformers records by hooks on modules (`_can_record_outputs`), which serves here only in part: the fusion
    # stream passes layers without a fusion block unchanged, and hooks do not make sdpa compute weights.

    def __init__(self, config, flags: dict, fusion_attentions: bool = False):
        requests = _requests(config, flags)
        self.config = config
        self.hidden_states = ([], [], []) if requests["hidden_states"] else None
        self.attentions = ([], [], []) if requests["attentions"] or fusion_attentions else None
        self.all_attentions = requests["attentions"]
        if self.all_attentions and config._attn_implementation != "eager" and not torch.compiler.is_compiling():
            logger.warning_once(
                f"output_attentions=True needs attention weights, which {config._attn_implementation!r} attention does "
                'not compute: such calls use eager attention, as a model with attn_implementation="eager" does.'
            )
        self.tower_options = {"need_weights": True} if self.all_attentions else {}
        self.fusion_options = {"need_weights": True} if self.attentions is not None else {}

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

    def fields(
        self, no_image: torch.Tensor | None = None, no_audio: torch.Tensor | None = None
    ) -> dict[str, tuple[torch.Tensor, ...] | None]:
        """Output fields: one tuple per stream, without layers that recorded nothing.

        Args:
            no_image: (B, n, D) zeros that stand for the image tokens, if the image is absent.
            no_audio: The same for audio.
        """
        for stream, zeros in ((1, no_image), (2, no_audio)):
            if zeros is not None:
                self._fill_in(stream, zeros)
        fields = {}
        for suffix, recorded in (("hidden_states", self.hidden_states), ("attentions", self.attentions)):
            for name, stream in zip(_PREFIXES, recorded or ([], [], []), strict=True):
                fields[name + suffix] = tuple(x for x in stream if x is not None) or None
        return fields

    def _fill_in(self, stream: int, zeros: torch.Tensor) -> None:
        """Record zeros in the place of what the stream of an absent modality would have given."""
        count = zeros.shape[1]
        if self.hidden_states is not None:
            self.hidden_states[stream][:] = [zeros] * len(self.hidden_states[stream])
        if self.attentions is None:
            return
        fusion = self.attentions[0]
        padding = (count, 0) if stream == 1 else (0, count)  # image columns come first
        fusion[:] = [None if weights is None else nn.functional.pad(weights, padding) for weights in fusion]
        if self.all_attentions:
            heads = self.config.num_attention_heads
            contexts = [0 if weights is None else weights.shape[2] for weights in fusion]
            self.attentions[stream][:] = [
                zeros.new_zeros(()).expand(zeros.shape[0], heads, count, context + count) for context in contexts
            ]


__all__ = ["STREAMS", "DeepAVFusionMapOutput", "DeepAVFusionModelOutput", "Recorder", "requested_fields"]
