"""Masked audio-visual pre-training: hide most patches of both modalities, reconstruct them (paper, section 3.4)."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .reconstruction_deepavfusion import DECODERS, DeepAVFusionDecoder


@dataclass
class DeepAVFusionForPreTrainingOutput(ModelOutput):
    r"""Outputs of pre-training.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Sum of the two reconstruction losses.
        image_loss (`torch.FloatTensor` of shape `()`):
            Mean squared error over the hidden image patches.
        audio_loss (`torch.FloatTensor` of shape `()`):
            Mean squared error over the hidden spectrogram patches.
        image_logits (`torch.FloatTensor` of shape `(batch, patches, patch pixels * channels)`):
            Reconstructed patches, each (row, column, channel) flattened; zeros for visible patches that were not
            predicted.
        audio_logits (`torch.FloatTensor` of shape `(batch, patches, patch bins)`):
            Reconstructed spectrogram patches, each (mel, time) flattened.
        image_mask (`torch.FloatTensor` of shape `(batch, patches)`):
            1 = hidden from the encoder, 0 = kept.
        audio_mask (`torch.FloatTensor` of shape `(batch, patches)`):
            The same for the spectrogram.
        image_ids_restore (`torch.LongTensor` of shape `(batch, patches)`):
            Position of each patch in the shuffled order (visible patches first).
        audio_ids_restore (`torch.LongTensor` of shape `(batch, patches)`):
            The same for the spectrogram.
        hidden_states, image_hidden_states, audio_hidden_states (`tuple`):
            Hidden states of the encoder.
        attentions, image_attentions, audio_attentions (`tuple`):
            Attention weights of the encoder.
    """

    loss: torch.FloatTensor | None = None
    image_loss: torch.FloatTensor | None = None
    audio_loss: torch.FloatTensor | None = None
    image_logits: torch.FloatTensor | None = None
    audio_logits: torch.FloatTensor | None = None
    image_mask: torch.FloatTensor | None = None
    audio_mask: torch.FloatTensor | None = None
    image_ids_restore: torch.LongTensor | None = None
    audio_ids_restore: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    image_attentions: tuple[torch.FloatTensor, ...] | None = None
    audio_attentions: tuple[torch.FloatTensor, ...] | None = None


class DeepAVFusionForPreTraining(DeepAVFusionPreTrainedModel):
    """The encoder with a decoder per modality, trained to reconstruct hidden patches.

    Example:
    ```python
    >>> import torch
    >>> from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining

    >>> config = DeepAVFusionConfig.from_size("small", decoder_hidden_size=192, decoder_num_hidden_layers=2)
    >>> model = DeepAVFusionForPreTraining(config).eval()
    >>> with torch.no_grad():
    ...     outputs = model(pixel_values=torch.randn(1, 3, 224, 224), input_features=torch.randn(1, 1, 128, 192))
    >>> outputs.image_logits.shape, int(outputs.image_mask.sum()), int(outputs.audio_mask.sum())
    (torch.Size([1, 196, 768]), 147, 77)
    ```
    """

    _no_split_modules = ["DeepAVFusionSwinLayer"]
    _keys_to_ignore_on_load_unexpected = []
    _fsdp_plan = {"image_decoder.layers.*": "free_full_weight", "audio_decoder.layers.*": "free_full_weight"}

    def __init__(self, config: DeepAVFusionConfig):
        super().__init__(config)
        self.deepavfusion = DeepAVFusionModel(config)
        image, audio = self.deepavfusion.image.patch_embed.patches, self.deepavfusion.audio.patch_embed.patches
        self.image_decoder = DECODERS[config.image_decoder_type](config, image, config.image_mask_ratio)
        self.audio_decoder = DECODERS[config.audio_decoder_type](config, audio, config.audio_mask_ratio)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, DeepAVFusionDecoder):
            module.init_weights()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        image_noise: torch.FloatTensor | None = None,
        audio_noise: torch.FloatTensor | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        num_visible_image_patches: int | None = None,
        num_visible_audio_patches: int | None = None,
        return_loss: bool = True,
        predict_visible: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionForPreTrainingOutput:
        r"""Mask both modalities, encode the visible patches and reconstruct the hidden ones.

        Args:
            pixel_values: Frames (B, 3, H, W), or video (B, T, 3, H, W); None if no sample has an image.
            input_features: Log10-mel spectrograms (B, 1, mels, time steps); None if no sample has audio.
            image_noise: (B, patches); the patches with the smallest noise are kept. Drawn uniformly by default.
            audio_noise: (B, patches) the same for the spectrogram.
            image_present: (B,) bool, False if a sample has no image; it does not count in the image loss.
            audio_present: (B,) bool, the same for audio.
            num_visible_image_patches: Number of image patches to keep; by default what `image_mask_ratio` leaves. With
                0 the encoder does without the image, which is reconstructed from the audio alone; with all of them
                there is no image loss.
            num_visible_audio_patches: The same for the spectrogram.
            return_loss: Whether to compute the losses.
            predict_visible: Whether to predict visible patches as well; their logits are zeros otherwise. By default
                only in eval mode, since the loss does not need them.
            **kwargs: Passed to [`DeepAVFusionModel`].

        Raises:
            ValueError: If a shape differs from the configured one, or no patch is visible.
        """
        image_masking = self.image_decoder.mask(pixel_values, image_noise, num_visible_image_patches)
        audio_masking = self.audio_decoder.mask(input_features, audio_noise, num_visible_audio_patches)
        inputs = {}
        if num_visible_image_patches != 0:
            inputs |= {"pixel_values": pixel_values, "image_ids_keep": image_masking.ids_keep}
            inputs["image_present"] = image_present
        if num_visible_audio_patches != 0:
            inputs |= {"input_features": input_features, "audio_ids_keep": audio_masking.ids_keep}
            inputs["audio_present"] = audio_present
        encoded = self.deepavfusion(**inputs, **{**kwargs, "return_dict": True})
        if predict_visible is None:
            predict_visible = not self.training
        options = {"fusion": encoded.last_hidden_state, "loss": return_loss, "predict_visible": predict_visible}
        image_loss, image_logits = self.image_decoder.reconstruct(
            pixel_values, image_masking, encoded.image_last_hidden_state, present=image_present, **options
        )
        audio_loss, audio_logits = self.audio_decoder.reconstruct(
            input_features, audio_masking, encoded.audio_last_hidden_state, present=audio_present, **options
        )
        losses = [loss for loss in (image_loss, audio_loss) if loss is not None]
        return DeepAVFusionForPreTrainingOutput(
            loss=sum(losses) if losses else None,
            image_loss=image_loss,
            audio_loss=audio_loss,
            image_logits=image_logits,
            audio_logits=audio_logits,
            image_mask=image_masking.mask,
            audio_mask=audio_masking.mask,
            image_ids_restore=image_masking.ids_restore,
            audio_ids_restore=audio_masking.ids_restore,
            **self._recorded(encoded, kwargs),
        )

    def losses_per_sample(
        self,
        outputs: DeepAVFusionForPreTrainingOutput,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the reconstruction losses of each sample, whose batch means are the losses of `forward`.

        Args:
            outputs: What `forward` returned for the inputs.
            pixel_values: As passed to `forward`.
            input_features: As passed to `forward`.

        Returns:
            `"image_loss"` and `"audio_loss"`, (B,) each, for the inputs that were passed.
        """
        losses = {}
        if pixel_values is not None:
            losses["image_loss"] = self.image_decoder.losses(
                outputs.image_logits, pixel_values, outputs.image_ids_restore, outputs.image_mask
            )
        if input_features is not None:
            losses["audio_loss"] = self.audio_decoder.losses(
                outputs.audio_logits, input_features, outputs.audio_ids_restore, outputs.audio_mask
            )
        return losses

    def patchify_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cut frames into (B, patches, patch pixels * channels), in the layout of `image_logits`."""
        return self.image_decoder.patches.patchify(pixel_values, channels_last=True)

    def unpatchify_image(self, patches: torch.Tensor) -> torch.Tensor:
        """Invert `patchify_image`."""
        return self.image_decoder.patches.unpatchify(patches)

    def patchify_audio(self, input_features: torch.Tensor) -> torch.Tensor:
        """Cut spectrograms into (B, patches, patch bins), in the layout of `audio_logits`."""
        return self.audio_decoder.patches.patchify(input_features, channels_last=True)

    def unpatchify_audio(self, patches: torch.Tensor) -> torch.Tensor:
        """Invert `patchify_audio`."""
        return self.audio_decoder.patches.unpatchify(patches)


__all__ = ["DeepAVFusionForPreTraining", "DeepAVFusionForPreTrainingOutput"]
