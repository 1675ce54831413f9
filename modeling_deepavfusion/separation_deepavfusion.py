"""Source separation: extract the source shown in the frame from a mixture (paper, section 4.3)."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .outputs_deepavfusion import DeepAVFusionMapOutput
from .presence_deepavfusion import blank_absent, keep_present, require_modality
from .unet_deepavfusion import DeepAVFusionUNet, as_map, init_convolution, tap_layers


@dataclass
class DeepAVFusionSourceSeparationOutput(DeepAVFusionMapOutput):
    r"""Outputs of source separation.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Binary cross entropy against the mask of the target source.
        logits (`torch.FloatTensor` of shape `(batch, 1, mels, time steps)`):
            Logits of the mask.
        hidden_states, image_hidden_states, audio_hidden_states (`tuple`):
            Hidden states of the encoder.
        attentions, image_attentions, audio_attentions (`tuple`):
            Attention weights of the encoder.
    """


class DeepAVFusionForSourceSeparation(DeepAVFusionPreTrainedModel):
    """The encoder with a U-Net over the spectrogram's patches, conditioned on the frame, which shows the target source.

    Each scale reads a different layer; the first layer is the U-Net's top, the last its finest lateral, as published.
    """

    main_input_name = "input_features"

    def __init__(self, config: DeepAVFusionConfig):
        super().__init__(config)
        dim, all_scales = config.hidden_size, max(config.audio_patch_size.bit_length() - 1, 1)
        num_scales = min(config.separation_scales or all_scales, all_scales)
        if dim % 2**num_scales:
            raise ValueError(
                f"hidden_size is {dim}: source separation with {config.audio_patch_size} x {config.audio_patch_size} "
                f"patches expects a multiple of {2**num_scales}."
            )
        if config.separation_condition != "image" and not config.fusion_layer_indices:
            raise ValueError(
                f"separation_condition is {config.separation_condition!r}, but there are no fusion layers: expected "
                "'image', or at least one fusion layer."
            )
        self.deepavfusion = DeepAVFusionModel(config)
        self.tap_layers = tap_layers(config.num_hidden_layers, num_scales + 1)
        widths = [dim // 2**scale for scale in range(num_scales + 1)]
        self.tap_norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-5) for _ in self.tap_layers)
        self.condition_norm = nn.LayerNorm(dim, eps=1e-5)
        self.condition_projections = nn.ModuleList(nn.Linear(dim, width) for width in widths)
        self.unet = DeepAVFusionUNet(dim, widths, config.unet_norm)
        # Where scales are left out, each position predicts the block of bins that it covers.
        self.block = 2 ** (all_scales - num_scales)
        self.predictor = nn.Conv2d(widths[-1], self.block**2, kernel_size=3, padding=1)
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
        labels: torch.FloatTensor | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionSourceSeparationOutput:
        r"""Predict the masks of the target sources.

        Args:
            pixel_values: (B, 3, H, W) frames of the target sources. Without a frame the condition is zero.
            input_features: (B, 1, mels, time steps) log10-mel spectrograms of the mixtures.
            labels: (B, 1, mels, time steps) log10-mel spectrograms of the target sources.
            image_present: (B,) bool, False if a sample has no frame.
            audio_present: (B,) bool; all must be True, since there is nothing to separate otherwise.
            **kwargs: Passed to [`DeepAVFusionModel`].

        Raises:
            ValueError: If there is no mixture, or shapes differ from the configured ones.
        """
        require_modality("Source separation needs the mixture", "audio", input_features, audio_present)
        if labels is not None and labels.shape != input_features.shape:
            raise ValueError(f"labels have shape {tuple(labels.shape)}: expected {tuple(input_features.shape)}.")
        condition = self.config.separation_condition
        read = {"image": ("audio", "image"), "fusion": ("audio", "fusion"), "image_alone": ("audio",)}[condition]
        encoded = self.deepavfusion(
            pixel_values,
            input_features,
            image_present=image_present,
            output_streams=self._streams(kwargs, *read),
            **{**kwargs, "output_hidden_states": True, "return_dict": True},
        )
        grid = self.config.audio_grid
        # Norms in order from the last layer's tap to the first's; the U-Net starts from the first's.
        taps = [
            as_map(norm(encoded.audio_hidden_states[layer + 1]), grid)
            for norm, layer in zip(self.tap_norms, reversed(self.tap_layers), strict=True)
        ]
        decoded = self.unet(taps[::-1], self._conditions(encoded, pixel_values, image_present, taps[0]))
        logits = nn.functional.pixel_shuffle(self.predictor(decoded), self.block)
        if logits.shape[2:] != input_features.shape[2:]:  # patches whose side is not a power of two
            logits = nn.functional.interpolate(logits, size=input_features.shape[2:], mode="bilinear")
        loss = None if labels is None else self.separation_loss(logits, labels, input_features)
        return DeepAVFusionSourceSeparationOutput(loss=loss, logits=logits, **self._recorded(encoded, kwargs))

    def _conditions(self, encoded, pixel_values, image_present, tap):
        """Condition (B, width) of each scale of the U-Net, from the patch grid to the finest."""
        if pixel_values is None:
            return [tap.new_zeros(tap.shape[0], projection.out_features) for projection in self.condition_projections]
        if self.config.separation_condition == "image_alone":
            alone = blank_absent(pixel_values, image_present)
            encoded = self.deepavfusion(alone, output_streams=("fusion",), output_hidden_states=True, return_dict=True)
        image = self.config.separation_condition == "image"
        tokens = (encoded.image_hidden_states if image else encoded.hidden_states)[-1]
        pooled = self.condition_norm(tokens).mean(dim=1)
        conditions = [projection(pooled) for projection in self.condition_projections]
        return [keep_present(condition[:, None], image_present)[:, 0] for condition in conditions]

    def separation_loss(self, logits: torch.Tensor, labels: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy of mask logits against the configured mask of the target source."""
        mixture = 10.0 ** mixture.float()
        target = separation_target(10.0 ** labels.float(), mixture, self.config.separation_mask)
        weight = mixture.log1p().clamp(1e-3, 10.0) if self.config.separation_weighted_loss else None
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), target, weight=weight)


def separation_target(source: torch.Tensor, mixture: torch.Tensor, kind: str) -> torch.Tensor:
    """Compute the target mask, in [0, 1], from linear mel powers of source and mixture.

    Args:
        source: Linear mel power of the target source.
        mixture: Linear mel power of the mixture, of the same shape.
        kind: `"ideal_ratio"` (source over mixture, at most 1); or as published `"ratio"` (source over source + mixture,
            which gives 0.5 even for a lone source) and `"binary"` (source above mixture).
    """
    if kind == "binary":
        return (source > mixture).to(source.dtype)
    if kind == "ratio":
        return (source / (source + mixture + 1e-5)).clamp(0.0, 1.0)
    return (source / mixture.clamp(min=torch.finfo(mixture.dtype).tiny)).clamp(0.0, 1.0)


__all__ = ["DeepAVFusionForSourceSeparation", "DeepAVFusionSourceSeparationOutput", "separation_target"]
