"""Audio-visual pre-training: hide most patches of both modalities, reconstruct them (paper, section 3.4).

`config.pretraining_objective` selects what is learned: reconstruction, as published; alignment of image and audio on
top of it; or a joint embedding of views instead, without decoders.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .masking_deepavfusion import DeepAVFusionMasking, PatchMasker
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .objectives_deepavfusion import DeepAVFusionAlignment, DeepAVFusionJointEmbedding
from .outputs_deepavfusion import STREAMS, DeepAVFusionModelOutput
from .presence_deepavfusion import blank_absent, check_present, require_any
from .reconstruction_deepavfusion import DECODERS, DeepAVFusionDecoder


@dataclass
class DeepAVFusionForPreTrainingOutput(ModelOutput):
    r"""Outputs of pre-training.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Sum of the two reconstruction losses; with `"align"`, plus `alignment_weight` times the alignment loss; with
            `"jepa"`, `sigreg_weight` of the regularization loss and the rest of the invariance loss.
        image_loss (`torch.FloatTensor` of shape `()`):
            Mean squared error over the hidden image patches; None with `"jepa"`, like all of reconstruction.
        audio_loss (`torch.FloatTensor` of shape `()`):
            Mean squared error over the hidden spectrogram patches.
        alignment_loss (`torch.FloatTensor` of shape `()`, with `"align"`):
            InfoNCE between images and audio, each encoded alone.
        invariance_loss (`torch.FloatTensor` of shape `()`, with `"jepa"`):
            Mean squared distance of the projected views to their mean.
        sigreg_loss (`torch.FloatTensor` of shape `()`, with `"jepa"`):
            Distance of the projected views from an isotropic Gaussian.
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
    alignment_loss: torch.FloatTensor | None = None
    invariance_loss: torch.FloatTensor | None = None
    sigreg_loss: torch.FloatTensor | None = None
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


class _Modality(NamedTuple):
    """One modality of a batch: its values, None if it is absent, their mask, and which samples have it."""

    name: str
    input_name: str
    values: torch.Tensor | None
    masking: DeepAVFusionMasking
    present: torch.Tensor | None

    def checked_present(self) -> torch.Tensor | None:
        """Presence mask (B,) on the device of the values; None if all samples have the modality."""
        return check_present(self.name, self.present, self.values)


class DeepAVFusionForPreTraining(DeepAVFusionPreTrainedModel):
    """The encoder with a decoder per modality, trained to reconstruct hidden patches.

    Other values of `config.pretraining_objective` add a loss or replace it. Both compare the samples of a batch, so
    that accumulating gradients over smaller batches is not the same as one large batch:

    - `"align"` also encodes image and audio alone, and distinguishes pairs from other combinations in the batch.
    - `"jepa"` has no decoders. Three views of a sample, both modalities (masked) and each of them alone, are pooled to
      the mean of the fusion tokens and pulled together; no view may collapse.

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

    _no_split_modules = ["DeepAVFusionCrossLayer", "DeepAVFusionSwinLayer"]
    _keys_to_ignore_on_load_unexpected = []
    _fsdp_plan = {"image_decoder.layers.*": "free_full_weight", "audio_decoder.layers.*": "free_full_weight"}

    def __init__(self, config: DeepAVFusionConfig):
        super().__init__(config)
        self.deepavfusion = DeepAVFusionModel(config)
        image, audio = self.deepavfusion.image.patch_embed.patches, self.deepavfusion.audio.patch_embed.patches
        self.image_masker = PatchMasker(image, config.image_mask_ratio)
        self.audio_masker = PatchMasker(audio, config.audio_mask_ratio)
        joint = config.pretraining_objective == "jepa"
        self.image_decoder = None if joint else DECODERS[config.image_decoder_type](config, image)
        self.audio_decoder = None if joint else DECODERS[config.audio_decoder_type](config, audio)
        self.alignment = DeepAVFusionAlignment() if config.pretraining_objective == "align" else None
        self.joint_embedding = DeepAVFusionJointEmbedding(config) if joint else None
        self.post_init()
        if joint:
            self.fsdp_plan = {name: rule for name, rule in self.fsdp_plan.items() if "_decoder." not in name}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, (DeepAVFusionDecoder, DeepAVFusionAlignment)):
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
        directions: torch.FloatTensor | None = None,
        return_logits: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionForPreTrainingOutput:
        r"""Mask both modalities, encode the visible patches and reconstruct the hidden ones, or what the objective is.

        Args:
            pixel_values: Frames (B, 3, H, W), or video (B, T, 3, H, W); None if no sample has an image.
            input_features: Log10-mel spectrograms (B, 1, mels, time steps); None if no sample has audio.
            image_noise: (B, patches); the patches with the smallest noise are kept. Drawn uniformly by default.
            audio_noise: (B, patches) the same for the spectrogram.
            image_present: (B,) bool, False if a sample has no image; it does not count in the image loss, nor in those
                that compare image and audio.
            audio_present: (B,) bool, the same for audio.
            num_visible_image_patches: Number of image patches to keep; by default what `image_mask_ratio` leaves. With
                0 the encoder does without the image, which is reconstructed from the audio alone; with all of them
                there is no image loss.
            num_visible_audio_patches: The same for the spectrogram.
            return_loss: Whether to compute the losses.
            predict_visible: Whether to predict visible patches as well; their logits are zeros otherwise. By default
                only in eval mode, since the loss does not need them.
            directions: (projection size, K) directions of the regularization of `"jepa"`; drawn from N(0, 1) by
                default.
            return_logits: Whether to return logits; training need not assemble them from predictions.
            **kwargs: Passed to [`DeepAVFusionModel`].

        Raises:
            ValueError: If a shape differs from the configured one, or no patch is visible.
        """
        require_any(pixel_values, input_features)
        image_masking = self.image_masker(pixel_values, image_noise, num_visible_image_patches, input_features)
        audio_masking = self.audio_masker(input_features, audio_noise, num_visible_audio_patches, pixel_values)
        inputs = {"image_ids_keep": image_masking.ids_keep, "audio_ids_keep": audio_masking.ids_keep}
        if num_visible_image_patches != 0:
            inputs |= {"pixel_values": pixel_values, "image_present": image_present}
        if num_visible_audio_patches != 0:
            inputs |= {"input_features": input_features, "audio_present": audio_present}
        if inputs.get("pixel_values") is inputs.get("input_features") is None:
            raise ValueError(
                "No patch is visible: expected num_visible_image_patches or num_visible_audio_patches > 0."
            )
        read = STREAMS if self.joint_embedding is None else ("fusion",)
        encoded = self.deepavfusion(
            **inputs, output_streams=self._streams(kwargs, *read), **{**kwargs, "return_dict": True}
        )
        image = _Modality("image", "pixel_values", pixel_values, image_masking, image_present)
        audio = _Modality("audio", "input_features", input_features, audio_masking, audio_present)
        losses = {}
        if self.joint_embedding is None:
            if predict_visible is None:
                predict_visible = not self.training
            losses |= self._reconstruct(
                image, audio, encoded, loss=return_loss, logits=return_logits, predict_visible=predict_visible
            )
            if self.alignment is not None and return_loss:
                losses["alignment_loss"] = self._align(image, audio)
        elif return_loss:
            losses |= self._embed_jointly(image, audio, encoded, directions)
        return DeepAVFusionForPreTrainingOutput(
            loss=self._total(losses),
            **losses,
            image_mask=image_masking.mask,
            audio_mask=audio_masking.mask,
            image_ids_restore=image_masking.ids_restore,
            audio_ids_restore=audio_masking.ids_restore,
            **self._recorded(encoded, kwargs),
        )

    def _reconstruct(self, image, audio, encoded, **options) -> dict[str, torch.Tensor | None]:
        """Losses and logits of both decoders."""
        options["fusion"] = encoded.last_hidden_state
        image_loss, image_logits = self.image_decoder.reconstruct(
            image.values, image.masking, encoded.image_last_hidden_state, present=image.present, **options
        )
        audio_loss, audio_logits = self.audio_decoder.reconstruct(
            audio.values, audio.masking, encoded.audio_last_hidden_state, present=audio.present, **options
        )
        return {
            "image_loss": image_loss,
            "audio_loss": audio_loss,
            "image_logits": image_logits,
            "audio_logits": audio_logits,
        }

    def _align(self, image: "_Modality", audio: "_Modality") -> torch.Tensor:
        """Alignment of the means over image patches and over audio patches; 0 if there are no pairs."""
        if image.values is None or audio.values is None:
            return self.alignment.logit_scale.float().sum() * 0.0
        present = [side.checked_present() for side in (image, audio) if side.present is not None]
        return self.alignment(
            self._encode_alone(image, "image").image_last_hidden_state.mean(dim=1),
            self._encode_alone(audio, "audio").audio_last_hidden_state.mean(dim=1),
            torch.stack(present).all(dim=0) if present else None,
        )

    def _embed_jointly(self, image, audio, encoded, directions) -> dict[str, torch.Tensor]:
        """Losses of the joint embedding of both modalities together and of each alone."""
        sides = [side for side in (image, audio) if side.values is not None]
        views = [encoded, *(self._encode_alone(side, "fusion") for side in sides)]
        views = torch.stack([view.last_hidden_state.mean(dim=1) for view in views])
        present = None
        if any(side.present is not None for side in sides):
            present = torch.ones(views.shape[:2], dtype=torch.bool, device=views.device)
            for row, side in enumerate(sides, start=1):
                if side.present is not None:
                    present[row] = side.checked_present()
        invariance_loss, sigreg_loss = self.joint_embedding(views, present, directions)
        return {"invariance_loss": invariance_loss, "sigreg_loss": sigreg_loss}

    def _encode_alone(self, side: "_Modality", stream: str) -> DeepAVFusionModelOutput:
        """Encode one modality without the other; `config.pretraining_masked_views` hides the same patches of it.

        Only the tokens of one stream are returned.
        """
        inputs = {side.input_name: blank_absent(side.values, side.checked_present())}
        # A modality that is hidden altogether cannot be encoded masked.
        if self.config.pretraining_masked_views and side.masking.ids_keep.shape[1] > 0:
            inputs[f"{side.name}_ids_keep"] = side.masking.ids_keep
        options = {"output_streams": (stream,), "output_hidden_states": False, "output_attentions": False}
        return self.deepavfusion(**inputs, **options, return_dict=True)

    def _total(self, losses: dict[str, torch.Tensor | None]) -> torch.Tensor | None:
        """Sum of the losses that there are, weighted as configured; None if there are none."""
        config = self.config
        weights = {
            "image_loss": 1.0,
            "audio_loss": 1.0,
            "alignment_loss": config.alignment_weight,
            "invariance_loss": 1 - config.sigreg_weight,
            "sigreg_loss": config.sigreg_weight,
        }
        parts = [weight * losses[name] for name, weight in weights.items() if losses.get(name) is not None]
        return sum(parts) if parts else None

    def losses_per_sample(
        self,
        outputs: DeepAVFusionForPreTrainingOutput,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        image_present: torch.Tensor | None = None,
        audio_present: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the reconstruction losses of each sample.

        Their means, over the samples that have the modality, are the losses of `forward`.

        Args:
            outputs: What `forward` returned for the inputs.
            pixel_values: As passed to `forward`, like the rest.
            input_features: Likewise.
            image_present: Likewise.
            audio_present: Likewise.

        Returns:
            `"image_loss"` and `"audio_loss"`, (B,) each, for the inputs that were passed; 0 for samples that lack the
            modality.

        Raises:
            ValueError: If the model has no decoders, or a presence mask has the wrong dtype or shape.
        """
        if self.image_decoder is None:
            raise ValueError('There are no reconstruction losses with pretraining_objective "jepa".')
        losses = {}
        if pixel_values is not None:
            losses["image_loss"] = self.image_decoder.losses(
                outputs.image_logits,
                pixel_values,
                outputs.image_ids_restore,
                outputs.image_mask,
                check_present("image", image_present, pixel_values),
            )
        if input_features is not None:
            losses["audio_loss"] = self.audio_decoder.losses(
                outputs.audio_logits,
                input_features,
                outputs.audio_ids_restore,
                outputs.audio_mask,
                check_present("audio", audio_present, input_features),
            )
        return losses

    def patchify_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cut frames into (B, patches, patch pixels * channels), in the layout of `image_logits`."""
        return self.image_masker.patches.patchify(pixel_values, channels_last=True)

    def unpatchify_image(self, patches: torch.Tensor) -> torch.Tensor:
        """Invert `patchify_image`."""
        return self.image_masker.patches.unpatchify(patches)

    def patchify_audio(self, input_features: torch.Tensor) -> torch.Tensor:
        """Cut spectrograms into (B, patches, patch bins), in the layout of `audio_logits`."""
        return self.audio_masker.patches.patchify(input_features, channels_last=True)

    def unpatchify_audio(self, patches: torch.Tensor) -> torch.Tensor:
        """Invert `patchify_audio`."""
        return self.audio_masker.patches.unpatchify(patches)


__all__ = ["DeepAVFusionForPreTraining", "DeepAVFusionForPreTrainingOutput"]
