"""Audio-visual recognition: fine-tuning and linear probes (paper, section 4.2)."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .labels_deepavfusion import IGNORED, class_indices, mean_of_known, probabilities, smooth
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .presence_deepavfusion import reads_values
from .unet_deepavfusion import init_convolution


@dataclass
class DeepAVFusionClassifierOutput(ModelOutput):
    r"""Outputs of classification.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            Classification loss.
        logits (`torch.FloatTensor` of shape `(batch, labels)`):
            Mean of the logits of the streams that a sample has.
        image_logits (`torch.FloatTensor` of shape `(batch, labels)`):
            Logits of the image stream; zeros for samples without an image.
        audio_logits (`torch.FloatTensor` of shape `(batch, labels)`):
            The same for the audio stream.
        fusion_logits (`torch.FloatTensor` of shape `(batch, labels)`):
            Logits of the fusion stream.
        hidden_states, image_hidden_states, audio_hidden_states (`tuple`):
            Hidden states of the encoder.
        attentions, image_attentions, audio_attentions (`tuple`):
            Attention weights of the encoder.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    image_logits: torch.FloatTensor | None = None
    audio_logits: torch.FloatTensor | None = None
    fusion_logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    image_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    image_attentions: tuple[torch.FloatTensor, ...] | None = None
    audio_attentions: tuple[torch.FloatTensor, ...] | None = None


class DeepAVFusionMaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm over (B, D) that computes its training statistics from present samples only.

    A single sample has no variance: with fewer than two present, the running statistics are used and not updated.
    """

    def forward(self, states: torch.Tensor, present: torch.Tensor | None = None, frozen: bool = False) -> torch.Tensor:
        """Normalize all samples; `present` (B,) bool selects those that count in the statistics, None = all.

        `frozen`, by the running statistics, which stay as they are.
        """
        if not self.training or frozen:
            return nn.functional.batch_norm(states, self.running_mean, self.running_var, eps=self.eps)
        values = states.float()
        weights = values.new_ones(values.shape[0], 1) if present is None else present.to(values)[:, None]
        count = weights.sum()
        batch_mean = (values * weights).sum(dim=0) / count.clamp(min=1)
        batch_variance = ((values - batch_mean).square() * weights).sum(dim=0) / count.clamp(min=1)
        enough = count >= 2
        mean = torch.where(enough, batch_mean, self.running_mean)
        variance = torch.where(enough, batch_variance, self.running_var)
        normed = (values - mean) * (variance + self.eps).rsqrt()
        with torch.no_grad():
            momentum = self.momentum * enough
            unbiased = batch_variance * count / (count - 1).clamp(min=1)
            self.running_mean.copy_(torch.lerp(self.running_mean.float(), batch_mean, momentum))
            self.running_var.copy_(torch.lerp(self.running_var.float(), unbiased, momentum))
            self.num_batches_tracked += enough
        return normed.to(states.dtype)


class DeepAVFusionStreamClassifier(nn.Module):
    """Mean over tokens, batch norm if configured (linear probes), linear map: (B, n, D) -> (B, labels)."""

    def __init__(self, config):
        super().__init__()
        self.norm = None
        if config.classifier_input_norm:
            self.norm = DeepAVFusionMaskedBatchNorm(config.hidden_size, eps=1e-6, affine=False)
        self.dense = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, tokens: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Classify tokens (B, n, D).

        Samples that are not `present` (B,) get zero logits and do not count in the batch statistics.
        """
        pooled = tokens.mean(dim=1)
        present = None if present is None else present.to(pooled.device)
        if self.norm is not None:
            # It has no weights: it is frozen with the linear map, as below adapters, which do not store its statistics.
            pooled = self.norm(pooled, present, frozen=not self.dense.weight.requires_grad)
        logits = self.dense(pooled)
        return logits if present is None else logits.masked_fill(~present[:, None], 0.0)


class DeepAVFusionForAudioVisualClassification(DeepAVFusionPreTrainedModel):
    """The encoder with a linear classifier on each of the three streams, whose logits are averaged.

    Integer labels (B,) give cross entropy. Float labels (B, num_labels) give binary cross entropy, or cross entropy
    with soft targets (mixup) if `config.problem_type` is `"single_label_classification"`; without one, it becomes
    `"multi_label_classification"`, so that pipelines give probabilities of each label. What is labeled -100 does not
    count; a fraction `config.label_smoothing` of the targets is spread over the classes.
    """

    def __init__(self, config: DeepAVFusionConfig):
        super().__init__(config)
        self.deepavfusion = DeepAVFusionModel(config)
        self.image_classifier = DeepAVFusionStreamClassifier(config)
        self.audio_classifier = DeepAVFusionStreamClassifier(config)
        self.fusion_classifier = DeepAVFusionStreamClassifier(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        init_convolution(module)

    @torch.no_grad()
    def init_bias_from_frequencies(self, frequencies: torch.Tensor) -> None:
        """Set every classifier's bias to the log odds of its class, log((p + 1e-3) / (1 - p + 1e-3)).

        Args:
            frequencies: (num_labels,) fraction p of the training samples that have each label, in [0, 1].

        Raises:
            ValueError: If `frequencies` has the wrong shape.
        """
        expected = (self.config.num_labels,)
        if tuple(frequencies.shape) != expected:
            raise ValueError(f"frequencies have shape {tuple(frequencies.shape)}: expected {expected}.")
        bias = ((frequencies + 1e-3) / (1 - frequencies + 1e-3)).log()
        for classifier in (self.image_classifier, self.audio_classifier, self.fusion_classifier):
            classifier.dense.bias.copy_(bias)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionClassifierOutput:
        r"""Classify a batch.

        Args:
            pixel_values: Frames (B, 3, H, W), or video (B, T, 3, H, W); None if no sample has an image.
            input_features: Log10-mel spectrograms (B, 1, mels, time steps); None if no sample has audio.
            labels: (B,) class indices, or (B, num_labels) floats in 0..1; -100 for what does not count in the loss.
            image_present: (B,) bool, False if a sample has no image; its logits are then averaged over the other
                streams.
            audio_present: (B,) bool, the same for audio.
            **kwargs: Passed to [`DeepAVFusionModel`].

        Raises:
            ValueError: If inputs or labels have the wrong shape, or labels are unknown.
        """
        encoded = self.deepavfusion(
            pixel_values,
            input_features,
            image_present=image_present,
            audio_present=audio_present,
            **{**kwargs, "return_dict": True},
        )
        fusion_logits = self.fusion_classifier(encoded.last_hidden_state)
        image_logits = audio_logits = torch.zeros_like(fusion_logits)
        available = [(fusion_logits, None)]
        if input_features is not None:
            audio_logits = self.audio_classifier(encoded.audio_last_hidden_state, audio_present)
            available.insert(0, (audio_logits, audio_present))
        if pixel_values is not None:
            image_logits = self.image_classifier(encoded.image_last_hidden_state, image_present)
            available.insert(0, (image_logits, image_present))
        present = [mask for _, mask in available]
        logits = _mean_over_streams([stream for stream, _ in available], present)
        loss = None
        if labels is not None:
            if self.config.classifier_loss == "joint":
                losses, known = self._losses(logits, labels)
            else:
                pairs = [self._losses(stream, labels) for stream, _ in available]
                losses, known = _mean_over_streams([found for found, _ in pairs], present), pairs[0][1]
            loss = mean_of_known(losses, known)
        return DeepAVFusionClassifierOutput(
            loss=loss,
            logits=logits,
            image_logits=image_logits,
            audio_logits=audio_logits,
            fusion_logits=fusion_logits,
            **self._recorded(encoded, kwargs),
        )

    def classification_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of each sample, (B,); 0 for samples that do not count.

        Raises:
            ValueError: If labels have the wrong shape or dtype, or are unknown.
        """
        return self._losses(logits, labels)[0]

    def _losses(self, logits, labels):
        """Loss of each sample, and which samples count, (B,) both."""
        logits, labels, smoothing = logits.float(), labels.to(logits.device), self.config.label_smoothing
        if labels.is_floating_point() and labels.shape == logits.shape:
            targets, known = probabilities(labels)
            if self.config.problem_type == "single_label_classification":
                targets = smooth(targets, smoothing, logits.shape[-1])
                return nn.functional.cross_entropy(logits, targets, reduction="none"), known.all(dim=1)
            if self.config.problem_type is None and reads_values():  # as other classifiers do, for whoever reads logits
                self.config.problem_type = "multi_label_classification"
            targets = smooth(targets, smoothing)
            losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            losses = losses.masked_fill(~known, 0.0).sum(dim=1) / known.sum(dim=1).clamp(min=1)
            return losses, known.any(dim=1)
        if labels.is_floating_point() or labels.ndim != 1:
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}: expected integers of shape "
                f"({logits.shape[0]},) or floats of shape {tuple(logits.shape)}."
            )
        labels = class_indices(labels, logits.shape[:1], logits.shape[-1])
        losses = nn.functional.cross_entropy(
            logits, labels, reduction="none", ignore_index=IGNORED, label_smoothing=smoothing
        )
        return losses, labels != IGNORED


def _mean_over_streams(values: list[torch.Tensor], present: list[torch.Tensor | None]) -> torch.Tensor:
    """Average values (B, ...) over the streams that each sample has."""
    if all(mask is None for mask in present):
        return torch.stack(values).mean(dim=0)
    weights = torch.stack(
        [values[0].new_ones(values[0].shape[0]) if mask is None else mask.to(values[0]) for mask in present]
    )
    weights = weights.reshape(*weights.shape, *(1,) * (values[0].ndim - 1))
    return (torch.stack(values) * weights).sum(dim=0) / weights.sum(dim=0)


__all__ = ["DeepAVFusionClassifierOutput", "DeepAVFusionForAudioVisualClassification"]
