"""Pre-training objectives beyond reconstruction: alignment of image and audio, and joint embedding of views."""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .presence_deepavfusion import mean_of_present


class DeepAVFusionAlignment(nn.Module):
    """Symmetric InfoNCE between images and audio with a learned temperature (CLIP, arXiv 2103.00020, section 2.3).

    Image and audio must be encoded separately. In a pass with both, each reads the other through the fusion tokens, so
    that pairs would be recognized by what has leaked.
    """

    initial_scale = 1 / 0.07
    max_scale = 100.0

    def __init__(self):
        super().__init__()
        # Not a scalar, which FSDP2 cannot shard.
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(self.initial_scale)))

    @torch.no_grad()
    def init_weights(self):
        """Set the factor on cosine similarities to 1 / 0.07."""
        init.constant_(self.logit_scale, math.log(self.initial_scale))

    def forward(self, image: torch.Tensor, audio: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the loss, in float32.

        Args:
            image: (B, D) features of images alone.
            audio: (B, D) features of their audio alone.
            present: (B,) bool, False if a sample lacks image or audio and is left out; None if all have both.

        Returns:
            Mean cross entropy of finding a sample's audio by its image and its image by its audio, among the samples of
            the batch that have both; 0 if these are fewer than two.
        """
        with torch.autocast(image.device.type, enabled=False):
            image, audio = (nn.functional.normalize(features.float(), dim=-1) for features in (image, audio))
            logits = self.logit_scale.float().exp().clamp(max=self.max_scale) * (image @ audio.T)
            if present is not None:
                # Finite, since a row without any pair would have an undefined softmax and gradient.
                logits = logits.masked_fill(~(present[:, None] & present), torch.finfo(logits.dtype).min)
            targets = torch.arange(logits.shape[0], device=logits.device)
            by_image, by_audio = (
                nn.functional.cross_entropy(scores, targets, reduction="none") for scores in (logits, logits.T)
            )
        return mean_of_present((by_image + by_audio) / 2, present)


def sigreg(samples: torch.Tensor, directions: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Measure how far samples are from an isotropic Gaussian (SIGReg of LeJEPA, arXiv 2511.08544, section 4).

    Samples are projected on random directions. Each projection's empirical characteristic function is compared with
    that of N(0, 1) (Epps & Pulley, 1983): n times the integral of the squared difference, weighted by exp(-t^2 / 2),
    for t from -3 to 3. By symmetry, it is twice a sum of trapezoids between 17 points from 0 to 3, as in the authors'
    code. Its expected value is about 1 for Gaussian samples, however many, and grows with n for others.

    Args:
        samples: (V, n, d) sets of samples.
        directions: (d, K), of any length.
        present: (V, n) bool, False for samples that do not count; None if all do.

    Returns:
        Mean over directions and sets, in float32.
    """
    points = torch.linspace(0.0, 3.0, 17, device=samples.device)
    target = torch.exp(-points.square() / 2)
    widths = torch.full_like(points, 2 * 3.0 / 16)
    widths[0] = widths[-1] = 3.0 / 16
    with torch.autocast(samples.device.type, enabled=False):
        projected = samples.float() @ nn.functional.normalize(directions.float(), dim=0)
        angles = projected.unsqueeze(-1) * points
        if present is None:
            weights = torch.ones(samples.shape[:2], device=samples.device)
        else:
            weights = present.to(angles)
        counts = weights.sum(dim=1)
        means = (weights / counts.clamp(min=1)[:, None])[..., None, None]
        real, imaginary = (means * angles.cos()).sum(dim=1), (means * angles.sin()).sum(dim=1)
        distances = ((real - target).square() + imaginary.square()) @ (widths * target)
        return mean_of_present(distances.mean(dim=1) * counts, None if present is None else counts > 0)


class DeepAVFusionJointEmbedding(nn.Module):
    """Pull projected views of a sample together, and keep all views from collapsing (LeJEPA, arXiv 2511.08544).

    There is neither a teacher nor a stop-gradient: a constant embedding would have an invariance loss of 0, which the
    regularization forbids.
    """

    projection_size = 128
    num_directions = 256

    def __init__(self, config):
        super().__init__()
        dim, width = config.hidden_size, 4 * config.hidden_size
        self.dense = nn.Linear(dim, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.projection = nn.Linear(width, self.projection_size)

    def forward(
        self, views: torch.Tensor, present: torch.Tensor | None = None, directions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the two losses, in float32.

        Args:
            views: (V, B, D) pooled features of each view.
            present: (V, B) bool, False if a sample lacks a view; None if all have all of them.
            directions: (projection size, K) directions of the regularization. Drawn from N(0, 1) by default.

        Returns:
            Invariance loss, the mean squared distance of the projections to the mean of a sample's views, and
            regularization loss, `sigreg` of the projections of each view over the batch.
        """
        projected = self.projection(self.activation_fn(self.norm(self.dense(views)))).float()
        if directions is None:
            directions = torch.randn(self.projection_size, self.num_directions, device=views.device)
        if present is None:
            center = projected.mean(dim=0)
        else:
            weights = present.to(projected)[..., None]
            center = (weights * projected).sum(dim=0) / weights.sum(dim=0)
        distances = (projected - center).square().mean(dim=-1)
        invariance = mean_of_present(distances.flatten(), None if present is None else present.flatten())
        return invariance, sigreg(projected, directions, present)


__all__ = ["DeepAVFusionAlignment", "DeepAVFusionJointEmbedding", "sigreg"]
