"""Masked audio-visual pre-training: hide most patches of both modalities, reconstruct them (paper, section 3.4)."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .reconstruction_deepavfusion import DECODERS, DeepAVFusionDecoder, DeepAVFusionMasking
from .vit_deepavfusion import DeepAVFusionPatchEmbeddings, gather_tokens


@dataclass
class DeepAVFusionForPreTrainingOutput(ModelOutput):
    r"""
    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Sum of the two reconstruction losses.
        image_loss (`torch.FloatTensor` of shape `()`):
            Mean squared error over the hidden image patches.
        audio_loss (`torch.FloatTensor` of shape `()`):
            Mean squared error over the hidden spectrogram patches.
        image_logits (`torch.FloatTensor` of shape `(batch, patches, patch pixels * channels)`):
            Reconstructed patches, each (row, column, channel) flattened; zeros for visible patches where these were not
            predicted.
        audio_logits (`torch.FloatTensor` of shape `(batch, patches, patch bins)`):
            Reconstructed spectrogram patches, each (mel, time) flattened.
        image_mask (`torch.FloatTensor` of shape `(batch, patches)`):
            1 = hidden from the encoder, 0 = kept.
        audio_mask (`torch.FloatTensor` of shape `(batch, patches)`):
            The same for the spectrogram.
        image_ids_restore (`torch.LongTensor` of shape `(batch, patches)`):
            Where each patch stands in the order kept, then hidden.
        audio_ids_restore (`torch.LongTensor` of shape `(batch, patches)`):
            The same for the spectrogram.
        hidden_states, image_hidden_states, audio_hidden_states (`tuple`):
            As the encoder gives them.
        attentions, image_attentions, audio_attentions (`tuple`):
            As the encoder gives them.
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
    """
    The encoder with a decoder per modality, trained to reconstruct what was hidden.

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
        image, audio = self.deepavfusion.image.patch_embed, self.deepavfusion.audio.patch_embed
        self.image_num_kept = _num_kept(image, config.image_mask_ratio)
        self.audio_num_kept = _num_kept(audio, config.audio_mask_ratio)
        self.image_decoder = DECODERS[config.image_decoder_type](config, image.grid, image.projection.weight[0].numel())
        self.audio_decoder = DECODERS[config.audio_decoder_type](config, audio.grid, audio.projection.weight[0].numel())
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
        return_loss: bool = True,
        predict_visible: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionForPreTrainingOutput:
        r"""
        Args:
            pixel_values: frames (B, 3, H, W), or video (B, T, 3, H, W); None where no sample has an image.
            input_features: log10-mel spectrograms (B, 1, mels, time steps); None where no sample has audio.
            image_noise: (B, patches); the patches with the smallest noise are kept. Drawn uniformly by default.
            audio_noise: (B, patches) the same for the spectrogram.
            image_present: (B,) bool, False where a sample has no image; it then adds nothing to the image loss.
            audio_present: (B,) bool, the same for audio.
            return_loss: whether to compute the losses.
            predict_visible: whether to predict visible patches as well. By default only when not training, for the loss
                does not need them; they are zeros in the logits then.

        Raises:
            ValueError: for a shape other than the configured one.
        """
        if predict_visible is None:
            predict_visible = not self.training
        embeds = self.deepavfusion.image.patch_embed, self.deepavfusion.audio.patch_embed
        image_masking = _mask(embeds[0], pixel_values, image_noise, self.image_num_kept)
        audio_masking = _mask(embeds[1], input_features, audio_noise, self.audio_num_kept)
        encoded = self.deepavfusion(
            pixel_values,
            input_features,
            image_ids_keep=None if image_masking is None else image_masking.ids_keep,
            audio_ids_keep=None if audio_masking is None else audio_masking.ids_keep,
            image_present=image_present,
            audio_present=audio_present,
            **{**kwargs, "return_dict": True},
        )
        image_loss, image_logits = self._reconstruct(
            self.image_decoder,
            embeds[0],
            pixel_values,
            encoded.image_last_hidden_state,
            encoded.last_hidden_state,
            image_masking,
            image_present,
            return_loss,
            predict_visible,
        )
        audio_loss, audio_logits = self._reconstruct(
            self.audio_decoder,
            embeds[1],
            input_features,
            encoded.audio_last_hidden_state,
            encoded.last_hidden_state,
            audio_masking,
            audio_present,
            return_loss,
            predict_visible,
        )
        losses = [x for x in (image_loss, audio_loss) if x is not None]
        return DeepAVFusionForPreTrainingOutput(
            loss=sum(losses) if losses else None,
            image_loss=image_loss,
            audio_loss=audio_loss,
            image_logits=image_logits,
            audio_logits=audio_logits,
            image_mask=None if image_masking is None else image_masking.mask,
            audio_mask=None if audio_masking is None else audio_masking.mask,
            image_ids_restore=None if image_masking is None else image_masking.ids_restore,
            audio_ids_restore=None if audio_masking is None else audio_masking.ids_restore,
            **self._recorded(encoded, kwargs),
        )

    def _reconstruct(
        self, decoder, embed, values, patches, fusion, masking, present, return_loss, predict_visible
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Loss and logits of one modality; both None where it is absent."""
        if values is None:
            return None, None
        visible, hidden = decoder(patches, fusion, masking, predict_visible)
        loss = None
        if return_loss:
            targets = gather_tokens(embed.patchify(values, channels_last=True), masking.ids_hidden).to(hidden.device)
            loss = reconstruction_loss(hidden, targets, self.config.norm_patch_loss, present)
        if visible is None:
            visible = hidden.new_zeros(hidden.shape[0], masking.ids_keep.shape[1], hidden.shape[2])
        return loss, gather_tokens(torch.cat([visible, hidden], dim=1), masking.ids_restore)

    def patchify_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Frames -> (B, patches, patch pixels * channels), laid out as `image_logits`."""
        return self.deepavfusion.image.patch_embed.patchify(pixel_values, channels_last=True)

    def unpatchify_image(self, patches: torch.Tensor) -> torch.Tensor:
        """Inverse of `patchify_image`."""
        return self.deepavfusion.image.patch_embed.unpatchify(patches)

    def patchify_audio(self, input_features: torch.Tensor) -> torch.Tensor:
        """Spectrograms -> (B, patches, patch bins), laid out as `audio_logits`."""
        return self.deepavfusion.audio.patch_embed.patchify(input_features, channels_last=True)

    def unpatchify_audio(self, patches: torch.Tensor) -> torch.Tensor:
        """Inverse of `patchify_audio`."""
        return self.deepavfusion.audio.patch_embed.unpatchify(patches)


def standardise_patches(patches: torch.Tensor) -> torch.Tensor:
    """Each patch (..., values) minus its mean, over the root of its unbiased variance + 1e-6."""
    mean = patches.mean(dim=-1, keepdim=True)
    return (patches - mean) / (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def reconstruction_loss(
    predictions: torch.Tensor, targets: torch.Tensor, norm_patch_loss: bool, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error over hidden patches, in float32 (paper, section 3.4).

    Args:
        predictions: (B, hidden, values).
        targets: the same shape; standardised patch by patch first where `norm_patch_loss`.
        norm_patch_loss: see the configuration.
        present: (B,) bool, samples that count; None = all. Without any, the loss is 0.
    """
    targets = targets.float()
    if norm_patch_loss:
        targets = standardise_patches(targets)
    if present is None:
        return nn.functional.mse_loss(predictions.float(), targets)
    weights = present.to(predictions.device)[:, None, None]
    # Filled before squaring: the square's gradient at a NaN that an absent input may hold is NaN, masked or not.
    error = (predictions.float() - targets).masked_fill(~weights, 0.0)
    return error.square().mean(dim=(1, 2)).sum() / weights.sum().clamp(min=1)


def _num_kept(embed: DeepAVFusionPatchEmbeddings, mask_ratio: float) -> int:
    kept = int(embed.num_patches * (1 - mask_ratio))
    if not 0 < kept < embed.num_patches:
        raise ValueError(
            f"A mask ratio of {mask_ratio} keeps {kept} of the {embed.num_patches} patches of {embed.name}: expected "
            "at least one kept and one hidden."
        )
    return kept


def _mask(embed, values, noise, num_kept) -> DeepAVFusionMasking | None:
    if values is None:
        return None
    embed.check(values, None)
    expected = (values.shape[0], embed.num_patches)
    if noise is None:
        noise = torch.rand(expected, device=values.device)
    elif tuple(noise.shape) != expected:
        raise ValueError(f"The noise of {embed.name} has shape {tuple(noise.shape)}: expected {expected}.")
    return DeepAVFusionMasking.from_noise(noise, num_kept)


DeepAVFusionForPreTraining.register_for_auto_class("AutoModelForPreTraining")

__all__ = ["DeepAVFusionForPreTraining", "DeepAVFusionForPreTrainingOutput", "standardise_patches"]
