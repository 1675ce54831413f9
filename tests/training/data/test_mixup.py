"""Soft labels, and mixup of frame, sound and label."""

import pytest
import torch

from deepavfusion.training.data.mixup import mixup, soft_labels
from deepavfusion.training.data.random import Stream, generator


def test_soft_labels_spread_the_smoothing_evenly():
    assert torch.allclose(
        soft_labels(torch.tensor([1]), 4, smoothing=0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]), atol=1e-6
    )


def test_mixup_mixes_frame_sound_and_label_with_one_weight():
    values = torch.arange(6.0).view(6, 1)
    inputs = {
        "pixel_values": values.view(6, 1, 1, 1).expand(6, 3, 4, 4),
        "input_features": values.view(6, 1, 1, 1).expand(6, 1, 2, 5),
        "labels": values.expand(6, 2),
    }
    mixed = mixup(inputs, 1.0, generator(1, Stream.MIXUP, 0, 0, 0))
    weight = mixed["labels"][:, 0]
    assert not torch.allclose(weight, values[:, 0])
    assert torch.allclose(mixed["pixel_values"], weight.view(6, 1, 1, 1).expand(6, 3, 4, 4))
    assert torch.allclose(mixed["input_features"], weight.view(6, 1, 1, 1).expand(6, 1, 2, 5))
    assert ((weight >= 0) & (weight <= 5)).all()
    assert all(
        torch.equal(a, b)
        for a, b in zip(mixed.values(), mixup(inputs, 1.0, generator(1, Stream.MIXUP, 0, 0, 0)).values())
    )


def test_mixup_weights_follow_the_beta_distribution():
    labels = torch.eye(2).repeat(5000, 1)
    mixed = mixup({"labels": labels}, 0.2, generator(7, Stream.MIXUP, 0, 0, 0))["labels"]
    # Of Beta(0.2, 0.2) the variance is 1 / (4 * 1.4); a pair of unlike labels shows the weight itself.
    unlike = mixed[(mixed != labels).any(1)][:, 0]
    assert unlike.var() == pytest.approx(1 / 5.6, rel=0.08)


def test_mixup_of_class_indices_raises():
    with pytest.raises(TypeError, match="Expected floating-point labels"):
        mixup({"labels": torch.tensor([1, 2])}, 1.0, generator(0, Stream.MIXUP, 0, 0, 0))
