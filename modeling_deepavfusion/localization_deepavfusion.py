"""Sound localization: where in the frame the sound comes from.

No map was published for this model, so these are our own. `config.localization_map` selects the map of a model:

- `"head"`: a small network on each image patch, which also reads the audio and the fusion tokens;
- `"similarity"`: the cosine similarity of each image patch to the audio, both projected, initially by identity;
- `"attention"`: how much the fusion tokens attend to each image patch. It has no weights.

After the same training on maps of the built-in scenes, attention finds objects whether they sound or not (as many with
the audio of another clip), while head and similarity follow the audio, with no significant difference between the two.
The head is the default because it found the fewest with the audio of another clip; see
training/experiments/results/localization_designs.md.
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
from .labels_deepavfusion import probabilities, smooth
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .outputs_deepavfusion import STREAMS, DeepAVFusionMapOutput, DeepAVFusionModelOutput
from .presence_deepavfusion import mean_of_present, require_modality

# Logit of every patch of a sample without audio: nothing sounds. Finite in every dtype, and its sigmoid is 0.
NOTHING_SOUNDS = -100.0


@dataclass
class DeepAVFusionSoundLocalizationOutput(DeepAVFusionMapOutput):
    r"""Outputs of sound localization.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Binary cross entropy against the maps, or of the matching of frames and audio.
        logits (`torch.FloatTensor` of shape `(batch, rows, columns)`):
            A logit for each patch of the frame, high at sound sources; -100 everywhere for samples without audio.
        hidden_states, image_hidden_states, audio_hidden_states (`tuple`):
            Hidden states of the encoder for the frames with their own audio.
        attentions, image_attentions, audio_attentions (`tuple`):
            Attention weights of the encoder for the frames with their own audio.
    """


class DeepAVFusionIdentityProjection(nn.Linear):
    """Linear map D -> D without bias that starts as the identity."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, bias=False)


class DeepAVFusionLogit(nn.Linear):
    """Linear map D -> 1 with small initial weights: the initial maps are flat, with probabilities near 0.5."""

    initial_std = 0.01

    def __init__(self, dim: int):
        super().__init__(dim, 1)


class DeepAVFusionLocalizationHead(nn.Module):
    """A two-layer GELU MLP from each normalized image patch to a logit.

    Its hidden channels are scaled and shifted by a linear map of the means of the fusion tokens and of the audio
    patches: whether a patch sounds depends on patch *and* audio. With the audio merely added to the patches, the same
    MLP took twice as many steps to make use of it (two colored squares, two tones, as in the tests).
    """

    needs = {}
    reads = STREAMS

    def __init__(self, config):
        super().__init__()
        dim = config.hidden_size
        self.token_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.token_dense = nn.Linear(dim, dim)
        self.condition_dense = nn.Linear(2 * dim, 2 * dim)
        self.activation = nn.GELU()
        self.predictor = DeepAVFusionLogit(dim)

    def forward(self, encoded: DeepAVFusionModelOutput) -> torch.Tensor:
        """Logits (B, nI)."""
        condition = torch.cat(
            [encoded.last_hidden_state.mean(dim=1), encoded.audio_last_hidden_state.mean(dim=1)], dim=-1
        )
        hidden_states = self.token_dense(self.token_norm(encoded.image_last_hidden_state))
        scale, shift = self.condition_dense(condition)[:, None].chunk(2, dim=-1)
        return self.predictor(self.activation(hidden_states * (1 + scale) + shift)).squeeze(-1)


class DeepAVFusionLocalizationSimilarity(nn.Module):
    """Cosine similarity of each projected image patch to the projected mean of the audio patches, scaled and shifted.

    The projections start as the identity, so that a pre-trained encoder yields a zero-shot map.
    """

    initial_scale = 10.0
    needs = {}
    reads = ("image", "audio")

    def __init__(self, config):
        super().__init__()
        dim = config.hidden_size
        self.image_projection = DeepAVFusionIdentityProjection(dim)
        self.audio_projection = DeepAVFusionIdentityProjection(dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(self.initial_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, encoded: DeepAVFusionModelOutput) -> torch.Tensor:
        """Logits (B, nI)."""
        image = self.image_projection(encoded.image_last_hidden_state)
        audio = self.audio_projection(encoded.audio_last_hidden_state.mean(dim=1, keepdim=True))
        return nn.functional.cosine_similarity(image, audio, dim=-1) * self.logit_scale.exp() + self.logit_bias


class DeepAVFusionLocalizationRollout(nn.Module):
    """Attention of the fusion tokens over the image patches, rolled out over the layers with a fusion block.

    In factorized fusion, only the fusion tokens themselves are used, and their attention to pairs is propagated through
    the image aggregation tokens; in dense and token fusion, all tokens are used. Heads and tokens are averaged. Half of
    a fusion token after a layer comes from the previous layer (its residual), so map_l = (map_(l-1) + weights_l) / 2
    (attention rollout, Abnar & Zuidema 2020), which treats each image patch as a representation of its own position.
    The logit is the log of that map relative to uniform attention: 0 = average attention.
    """

    needs = {"output_fusion_attentions": True}
    reads = STREAMS

    def __init__(self, config):
        super().__init__()
        if not config.fusion_layer_indices:
            raise ValueError('localization_map is "attention", but there are no fusion layers: expected at least one.')
        self.num_rows = config.num_fusion_tokens if config.fusion_type == "factorized" else config.num_all_fusion_tokens
        self.num_patches, _ = config.num_patches

    def forward(self, encoded: DeepAVFusionModelOutput) -> torch.Tensor:
        """Logits (B, nI)."""
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
    """The encoder with a map of sound sources over the patches of the frame.

    Fusion is early, so a map depends on frame and audio together: localization needs both. The map of a video model is
    the mean over its frames.

    Trained on maps of where the sound comes from (`localization_loss="supervised"`), or without labels (`"matching"`):
    the strength of the map, [`pair_scores`], must distinguish a frame's own audio from that of the next sample in the
    batch. The matching loss pairs samples within a batch: accumulating gradients over smaller batches forms other
    pairs, so unlike the supervised loss it is not the same as one large batch.

    Loads through `AutoModelForMaskGeneration`: the audio is the prompt, and the mask covers what it refers to.

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
        r"""Localize the sources of a batch.

        Args:
            pixel_values: Frames (B, 3, H, W), or video (B, T, 3, H, W) if `num_frames > 1`.
            input_features: Log10-mel spectrograms (B, 1, mels, time steps). None if no sample has audio.
            labels: (B, height, width) in 0..1, the probability that each position sounds, at any resolution: the target
                of a patch is the mean over its area, without positions labeled -100, which do not count. Used only by
                the supervised loss.
            return_loss: True computes a loss even without labels (the matching loss), False never does. By default, a
                loss is computed if labels are given, and in training if `localization_loss` is `"matching"`.
            image_present: (B,) bool; all must be True, since there is no frame to localize in otherwise.
            audio_present: (B,) bool, False if a sample has no audio: nothing sounds on its map, and it does not count
                in the loss.
            **kwargs: Passed to [`DeepAVFusionModel`].

        Raises:
            ValueError: If there are no frames, shapes differ from the configured ones, labels are outside 0..1, or the
                matching loss gets a single sample in training.
        """
        require_modality("Sound localization needs the frame", "image", pixel_values, image_present)
        matching = self.config.localization_loss == "matching"
        if return_loss is None:
            return_loss = labels is not None or (matching and self.training)
        logits, encoded = self._localize(pixel_values, input_features, audio_present, kwargs)
        loss = None
        if return_loss:
            if input_features is None:  # as a batch of which no sample has audio
                loss = encoded.image_last_hidden_state.float().sum() * 0.0
            elif matching or labels is None:
                loss = self._matching_loss(logits, pixel_values, input_features, audio_present, kwargs)
            else:
                loss = self.localization_loss(logits, labels, audio_present)
        return DeepAVFusionSoundLocalizationOutput(
            loss=loss, logits=logits, **({} if encoded is None else self._recorded(encoded, kwargs))
        )

    def pair_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Score how strongly each map (B, rows, columns) shows a sound source; see [`pair_scores`]."""
        return pair_scores(logits)

    def _localize(self, pixel_values, input_features, audio_present, flags):
        """Logits (B, rows, columns), and the outputs of the encoder."""
        streams = self._streams(flags, *self.localizer.reads)
        flags = {"output_streams": streams, **flags, **self.localizer.needs, "return_dict": True}
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

        Samples that are not `audio_present` (B,) do not count, nor do positions labeled -100.

        Raises:
            ValueError: If labels have the wrong shape, or are outside 0..1.
        """
        if labels.ndim != 3 or labels.shape[0] != logits.shape[0]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}: expected a map a sample, ({logits.shape[0]}, height, width)."
            )
        labels, known = probabilities(labels.to(logits.device))
        # Labels that do not count are 0: what is left is the mean over the others, and patches that have others.
        share = nn.functional.adaptive_avg_pool2d(known.float(), logits.shape[-2:])
        targets = nn.functional.adaptive_avg_pool2d(labels, logits.shape[-2:]) / share.clamp(min=1e-12)
        targets = smooth(targets.clamp(max=1.0), self.config.label_smoothing)
        losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        counts = share > 0
        losses = losses.masked_fill(~counts, 0.0).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
        there = counts.any(dim=-1).any(dim=-1)
        return mean_of_present(losses, there if audio_present is None else there & audio_present.to(there.device))

    def _matching_loss(self, logits, pixel_values, input_features, audio_present, flags):
        """Binary cross entropy of each frame with its own audio (1) and with that of the next sample (0)."""
        batch = logits.shape[0]
        own = torch.ones_like(logits[:, 0, 0], dtype=torch.float32)
        scores, targets, present = pair_scores(logits), own, audio_present
        if batch == 1:
            if self.training:
                raise ValueError("The matching loss compares samples of a batch: expected at least 2, but got 1.")
            return mean_of_present(_binary_cross_entropy(scores, targets), present)
        others_present = None if audio_present is None else audio_present.roll(1)
        flags = {**flags, "output_hidden_states": False, "output_attentions": False}
        others, _ = self._localize(pixel_values, input_features.roll(1, dims=0), others_present, flags)
        scores = torch.cat([scores, pair_scores(others)])
        targets = torch.cat([targets, torch.zeros_like(own)])
        if audio_present is not None:
            present = torch.cat([audio_present, others_present])
        return mean_of_present(_binary_cross_entropy(scores, targets), present)


def top_quarter_mean(maps: torch.Tensor) -> torch.Tensor:
    """Mean of the largest quarter of the values of each map (B, ...), at least of one; (B,)."""
    values = maps.flatten(1)
    return values.topk(max(values.shape[1] // 4, 1), dim=1).values.mean(dim=1)


def pair_scores(logits: torch.Tensor) -> torch.Tensor:
    """Score how strongly each map (B, rows, columns) shows a sound source: mean of the top quarter, (B,) float32."""
    return top_quarter_mean(logits.float())


def _binary_cross_entropy(scores, targets):
    return nn.functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")


__all__ = ["DeepAVFusionForSoundLocalization", "DeepAVFusionSoundLocalizationOutput", "pair_scores", "top_quarter_mean"]
