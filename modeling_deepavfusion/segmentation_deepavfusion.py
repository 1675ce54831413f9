"""Audio-visual segmentation: the pixels of sounding objects (paper, section 4.4)."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .labels_deepavfusion import IGNORED, class_indices, mean_of_known, probabilities, smooth
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .outputs_deepavfusion import DeepAVFusionMapOutput
from .presence_deepavfusion import keep_present, require_modality
from .unet_deepavfusion import DeepAVFusionUNet, as_map, init_convolution, tap_layers


@dataclass
class DeepAVFusionSemanticSegmentationOutput(DeepAVFusionMapOutput):
    r"""Outputs of segmentation.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Binary cross entropy (one label) or cross entropy (several).
        logits (`torch.FloatTensor` of shape `(batch, labels, height, width)`):
            Logits at the frame's full size.
        hidden_states, image_hidden_states, audio_hidden_states (`tuple`):
            Hidden states of the encoder.
        attentions, image_attentions, audio_attentions (`tuple`):
            Attention weights of the encoder.
    """


class DeepAVFusionForSemanticSegmentation(DeepAVFusionPreTrainedModel):
    """The encoder with a U-Net over the frame's patches, conditioned on the audio at every scale.

    With one label, the logits predict whether a pixel sounds; with several, which class sounds there. Pixels labeled
    `semantic_loss_ignore_index` (255) or -100 do not count; a fraction `config.label_smoothing` of the targets is
    spread over the classes.
    """

    processor_options = {"crop_pct": 1.0}  # frames keep their whole short side, as published

    def __init__(self, config: DeepAVFusionConfig):
        super().__init__(config)
        dim, num_scales = config.hidden_size, max(config.patch_size.bit_length() - 2, 1)
        if config.num_frames > 1:
            raise ValueError(f"num_frames is {config.num_frames}: segmentation expects an image model (num_frames=1).")
        if dim % 2**num_scales:
            raise ValueError(
                f"hidden_size is {dim}: segmentation with {config.patch_size} x {config.patch_size} patches expects a "
                f"multiple of {2**num_scales}."
            )
        self.deepavfusion = DeepAVFusionModel(config)
        self.tap_layers = tap_layers(config.num_hidden_layers, num_scales + 1)
        widths = [max(config.segmentation_width, dim // 2**scale) for scale in range(num_scales + 1)]
        if widths[0] != dim:
            raise ValueError(
                f"hidden_size is {dim}: expected at least the segmentation_width {config.segmentation_width}."
            )
        self.tap_norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-5) for _ in self.tap_layers)
        self.condition_projections = nn.ModuleList(nn.Linear(dim, width) for width in widths)
        self.condition_norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-5) for width in widths)
        self.unet = DeepAVFusionUNet(dim, widths, config.unet_norm)
        self.head = nn.Conv2d(widths[-1], config.segmentation_width, kernel_size=3, padding=1)
        self.predictor = nn.Conv2d(config.segmentation_width, config.num_labels, kernel_size=3, padding=1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        init_convolution(module)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionSemanticSegmentationOutput:
        r"""Segment a batch of frames.

        Args:
            pixel_values: (B, 3, H, W) frames.
            input_features: (B, 1, mels, time steps) log10-mel spectrograms. Without audio the condition is zero.
            labels: (B, H, W) class indices, or 0/1 floats if `num_labels` is 1.
            image_present: (B,) bool; all must be True, since there is nothing to segment otherwise.
            audio_present: (B,) bool, False if a sample has no audio.
            **kwargs: Passed to [`DeepAVFusionModel`].

        Raises:
            ValueError: If there are no frames, or shapes differ from the configured ones.
        """
        require_modality("Segmentation needs the frame", "image", pixel_values, image_present)
        encoded = self.deepavfusion(
            pixel_values,
            input_features,
            audio_present=audio_present,
            output_streams=self._streams(kwargs, "image", "audio"),
            **{**kwargs, "output_hidden_states": True, "return_dict": True},
        )
        taps = [
            as_map(norm(encoded.image_hidden_states[layer + 1]), self.config.image_grid)
            for norm, layer in zip(self.tap_norms, self.tap_layers, strict=True)
        ]
        hidden_states = self.head(self.unet(taps, self._conditions(encoded, input_features, audio_present, taps[0])))
        hidden_states = nn.functional.interpolate(
            hidden_states, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False
        )
        logits = self.predictor(hidden_states)
        loss = None if labels is None else self.segmentation_loss(logits, labels)
        return DeepAVFusionSemanticSegmentationOutput(loss=loss, logits=logits, **self._recorded(encoded, kwargs))

    def _conditions(self, encoded, input_features, audio_present, tap):
        """Condition (B, width) of each scale of the U-Net, from the patch grid to the finest."""
        if input_features is None:
            return [tap.new_zeros(tap.shape[0], projection.out_features) for projection in self.condition_projections]
        tokens = encoded.audio_hidden_states[-1]
        conditions = [
            norm(projection(tokens)).mean(dim=1)
            for projection, norm in zip(self.condition_projections, self.condition_norms, strict=True)
        ]
        return [keep_present(condition[:, None], audio_present)[:, 0] for condition in conditions]

    def segmentation_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy for one label, cross entropy for several.

        Raises:
            ValueError: If labels have the wrong shape, or class indices are unknown.
        """
        expected, ignored = (logits.shape[0], *logits.shape[2:]), self.config.semantic_loss_ignore_index
        logits, labels, smoothing = logits.float(), labels.to(logits.device), self.config.label_smoothing
        if tuple(labels.shape) != expected:
            raise ValueError(f"labels have shape {tuple(labels.shape)}: expected {expected}.")
        if self.config.num_labels == 1:
            targets, known = probabilities(labels, ignored)
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits[:, 0], smooth(targets, smoothing), reduction="none"
            )
            return mean_of_known(losses, known)
        labels = class_indices(labels, expected, self.config.num_labels, ignored)
        loss = nn.functional.cross_entropy(
            logits, labels, reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing
        )
        return loss / (labels != IGNORED).sum().clamp(min=1)


__all__ = ["DeepAVFusionForSemanticSegmentation", "DeepAVFusionSemanticSegmentationOutput"]
