"""Features of the encoder for retrieval: the mean of a stream's tokens, of one modality at a time or of both."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .presence_deepavfusion import blank_absent, check_present, keep_present


class DeepAVFusionFeatures:
    """`get_image_features`, `get_audio_features` and `get_fusion_features` of the encoder.

    Each returns a [`BaseModelOutputWithPooling`]: the features (B, hidden_size) are its `pooler_output`, the tokens
    that they are the mean of its `last_hidden_state`. `hidden_states` and `attentions`, if requested, are those of the
    same stream.
    """

    _streams: Callable[..., tuple[str, ...]]  # of DeepAVFusionPreTrainedModel

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor,
        image_present: torch.BoolTensor | None = None,
        normalize: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""Compute features of the image alone: the mean of its tokens, encoded without audio.

        Args:
            pixel_values: Frames (B, 3, H, W), or video (B, T, 3, H, W).
            image_present: (B,) bool; the features of samples without an image are zeros.
            normalize: Whether to scale each sample's features to length 1, for cosine similarities.
            **kwargs: As in `forward`.

        Returns:
            `pooler_output` (B, hidden_size) and `last_hidden_state` (B, image patches, hidden_size).
        """
        present = check_present("image", image_present, pixel_values)
        outputs = self(pixel_values=blank_absent(pixel_values, present), **self._options(kwargs, "image"))
        return _pool(outputs, "image_", normalize, present)

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.FloatTensor,
        audio_present: torch.BoolTensor | None = None,
        normalize: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""Compute features of the audio alone: the mean of its tokens, encoded without an image.

        Args:
            input_features: Log10-mel spectrograms (B, 1, mels, time steps).
            audio_present: (B,) bool; the features of samples without audio are zeros.
            normalize: Whether to scale each sample's features to length 1, for cosine similarities.
            **kwargs: As in `forward`.

        Returns:
            `pooler_output` (B, hidden_size) and `last_hidden_state` (B, audio patches, hidden_size).
        """
        present = check_present("audio", audio_present, input_features)
        outputs = self(input_features=blank_absent(input_features, present), **self._options(kwargs, "audio"))
        return _pool(outputs, "audio_", normalize, present)

    @can_return_tuple
    def get_fusion_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        normalize: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        r"""Compute features of the fusion stream, the mean of its tokens, from both modalities or the given one.

        Features of images alone and of audio alone share the space of the fusion tokens.

        Args:
            pixel_values: As in `forward`.
            input_features: As in `forward`.
            image_present: As in `forward`.
            audio_present: As in `forward`.
            normalize: Whether to scale each sample's features to length 1, for cosine similarities.
            **kwargs: As in `forward`.

        Returns:
            `pooler_output` (B, hidden_size) and `last_hidden_state` (B, fusion tokens, hidden_size).
        """
        present = {"image_present": image_present, "audio_present": audio_present}
        outputs = self(pixel_values, input_features, **present, **self._options(kwargs, "fusion"))
        return _pool(outputs, "", normalize)

    def _options(self, kwargs: dict, stream: str) -> dict:
        """Keyword arguments of `forward` for the features of one stream."""
        return {"output_streams": self._streams(kwargs, stream), **kwargs, "return_dict": True}


def _pool(outputs, stream: str, normalize: bool, present: torch.Tensor | None = None) -> BaseModelOutputWithPooling:
    """The tokens of a stream and their mean, of length 1 with `normalize`; zeros for samples that are not present."""
    tokens = keep_present(outputs[f"{stream}last_hidden_state"], present)
    features = tokens.mean(dim=1)
    return BaseModelOutputWithPooling(
        last_hidden_state=tokens,
        pooler_output=nn.functional.normalize(features, dim=-1) if normalize else features,
        hidden_states=outputs.get(f"{stream}hidden_states"),
        attentions=outputs.get(f"{stream}attentions"),
    )


__all__ = ["DeepAVFusionFeatures"]
