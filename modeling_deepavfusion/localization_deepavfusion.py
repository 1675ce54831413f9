"""Sound localization: where in the frame the sound comes from.

No map was published for this model, so these are ours. `config.localization_map` names which one a model gives:

- `"head"`: a small network on each image patch, which also reads the sound and the fusion tokens;
- `"similarity"`: the cosine of each image patch with the sound, both projected, from identity at the start;
- `"attention"`: how much the fusion tokens attend to each image patch. It has no weights of its own.

Trained on maps of the built-in scenes for equally long, the attention finds objects whether they sound or not (as many
with another clip's sound), while head and similarity follow the sound, and differ by no more than chance would; the
head is the default, for it found least with another clip's sound (training/results/localization_designs.md).
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel, require_modality
from .outputs_deepavfusion import DeepAVFusionMapOutput, DeepAVFusionModelOutput

# Logit at every place of a sample without sound: nothing sounds. Finite in every dtype, and its sigmoid is 0.
NOTHING_SOUNDS = -100.0


@dataclass
class DeepAVFusionSoundLocalizationOutput(DeepAVFusionMapOutput):
    r"""
    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Binary cross entropy against the maps, or of the matching of frames and sounds.
        logits (`torch.FloatTensor` of shape `(batch, rows, columns)`):
            A logit for each patch of the frame, high where it sounds; -100 all over for samples without sound.
        hidden_states, image_hidden_states, audio_hidden_states (`tuple`):
            As the encoder gives them, of the frames with their own sounds.
        attentions, image_attentions, audio_attentions (`tuple`):
            As the encoder gives them, of the frames with their own sounds.
    """


class DeepAVFusionIdentityProjection(nn.Linear):
    """Linear map D -> D without bias that starts as the identity."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, bias=False)


class DeepAVFusionLogit(nn.Linear):
    """Linear map D -> 1 with small weights at the start: the first maps are flat, near "as likely as not"."""

    initial_std = 0.01

    def __init__(self, dim: int):
        super().__init__(dim, 1)


class DeepAVFusionLocalizationHead(nn.Module):
    """A two-layer GELU MLP on each normed image patch, one logit at the end. Its hidden channels are scaled and shifted
    by a linear map of the fusion tokens' mean and the sound's.

    What sounds is a matter of patch *and* sound. With the sound merely added to the patches, the same MLP took twice as
    many steps to begin to listen (two coloured squares, two tones, as in the tests).
    """

    needs = {}

    def __init__(self, config):
        super().__init__()
        dim = config.hidden_size
        self.token_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.token_dense = nn.Linear(dim, dim)
        self.condition_dense = nn.Linear(2 * dim, 2 * dim)
        self.activation = nn.GELU()
        self.predictor = DeepAVFusionLogit(dim)

    def forward(self, encoded: DeepAVFusionModelOutput) -> torch.Tensor:
        """(B, nI) logits."""
        condition = torch.cat(
            [encoded.last_hidden_state.mean(dim=1), encoded.audio_last_hidden_state.mean(dim=1)], dim=-1
        )
        hidden_states = self.token_dense(self.token_norm(encoded.image_last_hidden_state))
        scale, shift = self.condition_dense(condition)[:, None].chunk(2, dim=-1)
        return self.predictor(self.activation(hidden_states * (1 + scale) + shift)).squeeze(-1)


class DeepAVFusionLocalizationSimilarity(nn.Module):
    """Cosine of each projected image patch with the projected mean of the sound's patches, scaled and shifted.

    The projections start as the identity, so that an encoder fresh from pre-training gives its zero-shot map.
    """

    initial_scale = 10.0
    needs = {}

    def __init__(self, config):
        super().__init__()
        dim = config.hidden_size
        self.image_projection = DeepAVFusionIdentityProjection(dim)
        self.audio_projection = DeepAVFusionIdentityProjection(dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(self.initial_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, encoded: DeepAVFusionModelOutput) -> torch.Tensor:
        """(B, nI) logits."""
        image = self.image_projection(encoded.image_last_hidden_state)
        audio = self.audio_projection(encoded.audio_last_hidden_state.mean(dim=1, keepdim=True))
        return nn.functional.cosine_similarity(image, audio, dim=-1) * self.logit_scale.exp() + self.logit_bias


class DeepAVFusionLocalizationRollout(nn.Module):
    """Attention of the fusion tokens over the image patches, rolled out over the layers with a fusion block.

    In factorized fusion these are the fusion tokens proper, whose attention to pairs is carried through the tokens that
    aggregate the image; in dense and token fusion all of them. Heads and tokens are averaged. Half of what a fusion
    token holds after a layer comes from the layer before (its residual), so map_l = (map_(l-1) + weights_l) / 2
    (attention rollout, Abnar & Zuidema 2020), image patches standing for their own places. The logit is the log of that
    map relative to even attention: 0 = as much as every other patch.
    """

    needs = {"output_fusion_attentions": True}

    def __init__(self, config):
        super().__init__()
        if not config.fusion_layer_indices:
            raise ValueError('localization_map is "attention", but there are no fusion layers: expected at least one.')
        self.num_rows = config.num_fusion_tokens if config.fusion_type == "factorized" else config.num_all_fusion_tokens
        self.num_patches = math.prod(config.image_grid)

    def forward(self, encoded: DeepAVFusionModelOutput) -> torch.Tensor:
        """(B, nI) logits."""
        rollout = None
        for weights in encoded.attentions:
            over_image = weights[:, :, : self.num_rows, : self.num_patches].float().mean(dim=(1, 2))
            over_image = over_image / over_image.sum(dim=-1, keepdim=True).clamp(min=1e-12)
            rollout = over_image if rollout is None else (rollout + over_image) / 2
        relative = (rollout * self.num_patches).clamp(min=1e-6).log()
        return relative.to(encoded.last_hidden_state.dtype)


LOCALIZATION_MAPS = {
    "head": DeepAVFusionLocalizationHead,
    "similarity": DeepAVFusionLocalizationSimilarity,
    "attention": DeepAVFusionLocalizationRollout,
}


class DeepAVFusionForSoundLocalization(DeepAVFusionPreTrainedModel):
    """
    The encoder with a map over the frame's patches that says where the sound comes from.

    Fusion is early, so a map depends on the frame and the sound together: localization needs both. A video model's map
    is the mean over its frames.

    Trained with maps of the sounding place (`localization_loss="supervised"`), or without labels
    (`"matching"`): the strength of the map, [`pair_scores`], must tell a frame's own sound from that of the next sample
    in the batch. The matching loss pairs samples within a batch: accumulating gradients over smaller batches forms
    other pairs, so unlike the supervised loss it is not the same as one large batch.

    Loads through `AutoModelForMaskGeneration`: a map over the frame of what a prompt, here the sound, points at.

    Example:

    ```python
    >>> import torch
    >>> from deepavfusion import DeepAVFusionConfig, DeepAVFusionForSoundLocalization

    >>> model = DeepAVFusionForSoundLocalization(DeepAVFusionConfig.from_size("small")).eval()
    >>> with torch.no_grad():
    ...     outputs = model(pixel_values=torch.randn(1, 3, 224, 224), input_features=torch.randn(1, 1, 128, 192))
    >>> outputs.logits.shape
    torch.Size([1, 14, 14])
    ```
    """

    processor_options = {"crop_pct": 1.0}  # maps cover the frame's whole short side

    def __init__(self, config: DeepAVFusionConfig):
        super().__init__(config)
        self.deepavfusion = DeepAVFusionModel(config)
        self.localizer = LOCALIZATION_MAPS[config.localization_map](config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, DeepAVFusionIdentityProjection):
            init.eye_(module.weight)
        elif isinstance(module, DeepAVFusionLogit):
            init.normal_(module.weight, std=module.initial_std)
            init.zeros_(module.bias)
        elif isinstance(module, DeepAVFusionLocalizationSimilarity):
            init.constant_(module.logit_scale, math.log(module.initial_scale))
            init.zeros_(module.logit_bias)
        else:
            super()._init_weights(module)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        return_loss: bool | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionSoundLocalizationOutput:
        r"""
        Args:
            pixel_values: frames (B, 3, H, W), or video (B, T, 3, H, W) where `num_frames > 1`.
            input_features: log10-mel spectrograms (B, 1, mels, time steps). None where no sample has audio.
            labels: (B, height, width) in 0..1, how surely each place sounds, at any resolution: each patch learns the
                mean over its area. They enter the supervised loss alone.
            return_loss: True computes a loss without labels too, the matching loss; False none at all. By default there
                is one where labels are given, and in training where `localization_loss` is `"matching"`.
            image_present: (B,) bool; all must be True, for there is nowhere to localize otherwise.
            audio_present: (B,) bool, False where a sample has no sound: nothing sounds on its map, and it adds nothing
                to the loss.

        Raises:
            ValueError: without frames, for shapes other than the configured ones, for labels outside 0..1, or for a
                loss where no sample has sound, or a matching loss of a single sample in training.
        """
        require_modality("Sound localization needs the frame", "image", pixel_values, image_present)
        matching = self.config.localization_loss == "matching"
        if return_loss is None:
            return_loss = labels is not None or (matching and self.training)
        logits, encoded = self._localize(pixel_values, input_features, audio_present, kwargs)
        loss = None
        if return_loss:
            if input_features is None:
                raise ValueError("A localization loss needs sound: expected input_features.")
            if matching or labels is None:
                loss = self._matching_loss(logits, pixel_values, input_features, audio_present, kwargs)
            else:
                loss = self.localization_loss(logits, labels, audio_present)
        return DeepAVFusionSoundLocalizationOutput(
            loss=loss, logits=logits, **({} if encoded is None else self._recorded(encoded, kwargs))
        )

    def _localize(self, pixel_values, input_features, audio_present, flags):
        """Logits (B, rows, columns), and what the encoder gave for them."""
        flags = {**flags, **self.localizer.needs, "return_dict": True}
        encoded = self.deepavfusion(pixel_values, input_features, audio_present=audio_present, **flags)
        grid = self.config.image_grid
        if input_features is None:
            return encoded.image_last_hidden_state.new_full(
                (pixel_values.shape[0], *grid[-2:]), NOTHING_SOUNDS
            ), encoded
        logits = self.localizer(encoded).unflatten(1, grid)
        if len(grid) == 3:
            logits = logits.mean(dim=1)
        if audio_present is not None:
            logits = logits.masked_fill(~audio_present.to(logits.device)[:, None, None], NOTHING_SOUNDS)
        return logits, encoded

    def localization_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, audio_present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Binary cross entropy of maps (B, rows, columns) against labels (B, height, width) in 0..1.

        Samples that are not `audio_present` (B,) do not count.
        """
        if labels.ndim != 3 or labels.shape[0] != logits.shape[0]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}: expected a map a sample, ({logits.shape[0]}, height, width)."
            )
        labels = labels.to(logits.device).float()
        if not torch.compiler.is_compiling() and not bool(((labels >= 0) & (labels <= 1)).all()):
            raise ValueError(f"labels lie in {labels.min():.3g} .. {labels.max():.3g}: expected values in 0 .. 1.")
        targets = nn.functional.adaptive_avg_pool2d(labels, logits.shape[-2:])
        losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean((1, 2))
        return _mean_of_present(losses, audio_present)

    def _matching_loss(self, logits, pixel_values, input_features, audio_present, flags):
        """Each frame with its own sound (1) against the same frame with the next sample's sound (0)."""
        batch = logits.shape[0]
        own = torch.ones_like(logits[:, 0, 0], dtype=torch.float32)
        scores, targets, present = pair_scores(logits), own, audio_present
        if batch == 1:
            if self.training:
                raise ValueError("The matching loss compares samples of a batch: expected at least 2, but got 1.")
            return _mean_of_present(_binary_cross_entropy(scores, targets), present)
        others_present = None if audio_present is None else audio_present.roll(1)
        flags = {**flags, "output_hidden_states": False, "output_attentions": False}
        others, _ = self._localize(pixel_values, input_features.roll(1, dims=0), others_present, flags)
        scores = torch.cat([scores, pair_scores(others)])
        targets = torch.cat([targets, torch.zeros_like(own)])
        if audio_present is not None:
            present = torch.cat([audio_present, others_present])
        return _mean_of_present(_binary_cross_entropy(scores, targets), present)


def pair_scores(logits: torch.Tensor) -> torch.Tensor:
    """How strongly anything sounds on each map (B, rows, columns): the mean of its top quarter, (B,) float32."""
    values = logits.float().flatten(1)
    return values.topk(max(values.shape[1] // 4, 1), dim=1).values.mean(dim=1)


def _binary_cross_entropy(scores, targets):
    return nn.functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")


def _mean_of_present(losses: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Mean of losses (B,) over the samples that are there; 0 where none is."""
    if present is None:
        return losses.mean()
    present = present.to(losses.device)
    return losses.masked_fill(~present, 0.0).sum() / present.sum().clamp(min=1)


DeepAVFusionForSoundLocalization.register_for_auto_class("AutoModelForMaskGeneration")

__all__ = ["DeepAVFusionForSoundLocalization", "DeepAVFusionSoundLocalizationOutput", "pair_scores"]
