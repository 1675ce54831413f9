"""Variants of the configuration, models and inputs that the tests of all models share.

A new head is added to `HEAD_CLASSES`. Differences between heads (widths, labels, unused weights) are defined here.
"""

import pytest
import torch

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
    DeepAVFusionProcessor,
)
from deepavfusion.objectives_deepavfusion import DeepAVFusionJointEmbedding
from tests.tiny import WIDE, tiny_config

ENCODER_CLASSES = [DeepAVFusionModel, DeepAVFusionForPreTraining]
HEAD_CLASSES = [
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
]
MODEL_CLASSES = ENCODER_CLASSES + HEAD_CLASSES

CASES = {
    "factorized": {},
    "dense": {"fusion_type": "dense"},
    "token": {"fusion_type": "token", "fusion_attention_ratio": 1.0},
    "no_fusion": {"fusion_layers": "none"},
    "mid_fusion": {"fusion_layers": [1]},
    "late_fusion": {"fusion_layers": [2], "fusion_type": "dense"},
    "joint_video": {"num_frames": 4},
    "divided_video": {"num_frames": 6, "tubelet_size": 3, "video_attention": "divided", "fusion_layers": [0, 2]},
    "odd_grid": {"image_size": [48, 80], "patch_size": 16, "spectrogram_length": 56},
    "patches_of_14": {"image_size": (28, 42), "patch_size": 14, "image_mask_ratio": 0.5},
    "swin": {
        "image_size": [48, 80],
        "audio_mask_ratio": 0.7,
        "image_decoder_type": "swin",
        "audio_decoder_type": "swin",
    },
    "swin_video": {"num_frames": 4, "image_size": 40, "image_decoder_type": "swin"},
    "cross": {"image_decoder_type": "cross", "audio_decoder_type": "cross"},
    "align": {"pretraining_objective": "align"},
    "jepa": {"pretraining_objective": "jepa"},
}
# Cases that differ in pre-training alone.
PRETRAINING_CASES = ("cross", "align", "jepa")


# Heads read what the encoder gives: these cases cover the ways in which that differs.
HEAD_CASES = ("factorized", "late_fusion", "divided_video", "odd_grid")


def model_cases(cases=CASES, head_cases=HEAD_CASES) -> list:
    """Parameters (model class, case): all cases for the encoder and pre-training, a few of them for heads."""
    return [
        pytest.param(model_class, case, id=f"{model_class.__name__}-{case}")
        for model_class in MODEL_CLASSES
        for case in cases
        if (model_class in ENCODER_CLASSES or case in head_cases) and _exists(model_class, case)
    ]


def _exists(model_class, case: str) -> bool:
    if model_class is DeepAVFusionForSemanticSegmentation:
        return "num_frames" not in CASES[case]
    return model_class is not DeepAVFusionModel or case not in PRETRAINING_CASES


CLASS_OVERRIDES = {
    DeepAVFusionForAudioVisualClassification: {"num_labels": 5},
    DeepAVFusionForSemanticSegmentation: {"hidden_size": WIDE["hidden_size"], "num_labels": 3},
}


def make_model(model_class, seed: int = 0, attn_implementation: str = "sdpa", **overrides):
    """A model in eval mode whose every parameter is random: zero biases and unit norms would hide mistakes.

    Convolutions are random as they are, and noise over their many channels would make the U-Nets' activations grow.
    """
    config = tiny_config(**{**CLASS_OVERRIDES.get(model_class, {}), **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class._from_config(config, attn_implementation=attn_implementation).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.05
            if parameter.ndim < 4:
                parameter.add_(noise)
    return model


def save_model(folder, model_class, seed: int = 0, **overrides):
    """Save the model of `make_model` and its processor to a folder, and return the model."""
    model = make_model(model_class, seed, **overrides)
    model.save_pretrained(folder)
    DeepAVFusionProcessor.from_model(model).save_pretrained(folder)
    return model


def make_inputs(config, model_class=DeepAVFusionModel, batch: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Everything that makes a forward pass of `model_class` deterministic."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: (batch, *shape) for name, shape in config.input_shapes.items()}
    if model_class is DeepAVFusionForPreTraining:
        sizes["image_noise"] = (batch, config.num_patches[0])
        sizes["audio_noise"] = (batch, config.num_patches[1])
        if config.pretraining_objective == "jepa":
            sizes["directions"] = (DeepAVFusionJointEmbedding.projection_size, 32)
    return {
        name: (torch.rand if name.endswith("noise") else torch.randn)(size, generator=generator)
        for name, size in sizes.items()
    }


def make_labels(config, model_class, batch: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Labels for `model_class`; none for the encoder, and for pre-training, which needs none."""
    generator = torch.Generator().manual_seed(seed + 1)
    height, width = config.frame_size
    if model_class is DeepAVFusionForAudioVisualClassification:
        return {"labels": torch.randint(config.num_labels, (batch,), generator=generator)}
    if model_class is DeepAVFusionForSourceSeparation:
        return {"labels": torch.randn(batch, 1, config.num_mel_bins, config.spectrogram_length, generator=generator)}
    if model_class is DeepAVFusionForSemanticSegmentation:
        return {"labels": torch.randint(config.num_labels, (batch, height, width), generator=generator)}
    if model_class is DeepAVFusionForSoundLocalization:
        return {"labels": torch.rand(batch, height, width, generator=generator)}
    return {}


def idle_parameters(model) -> set[str]:
    """Parameters that no output depends on.

    Separation and segmentation read hidden states before the final norms; the output of the last layer's fusion block
    is then unused. Joint embedding reads the fusion tokens alone; the output of the towers' last layers is then unused.
    """
    if getattr(model, "joint_embedding", None) is not None:
        last = model.config.num_hidden_layers - 1
        idle = [f"{tower}.{part}." for tower in ("image", "audio") for part in ("norm", f"layers.{last}")]
        return {
            name
            for name, _ in model.named_parameters()
            if name.startswith(tuple(f"deepavfusion.{part}" for part in idle))
        }
    if not isinstance(model, (DeepAVFusionForSourceSeparation, DeepAVFusionForSemanticSegmentation)):
        return set()
    idle = ["image.norm", "audio.norm", "fusion_norm", f"fusion_layers.{model.config.num_hidden_layers - 1}"]
    return {
        name for name, _ in model.named_parameters() if name.startswith(tuple(f"deepavfusion.{part}." for part in idle))
    }


def optional_modalities(model_class) -> tuple[str, ...]:
    """Modalities that a sample may lack. Separation needs audio; segmentation and localization need a frame."""
    if model_class is DeepAVFusionForSourceSeparation:
        return ("image",)
    if model_class in (DeepAVFusionForSemanticSegmentation, DeepAVFusionForSoundLocalization):
        return ("audio",)
    return ("image", "audio")


def objective(outputs) -> torch.Tensor:
    """A scalar that depends on every output: the loss if there is one, else a sum of squares."""
    if outputs.get("loss") is not None:
        return outputs["loss"]
    return sum((k + 1) * value.float().square().mean() for k, value in enumerate(outputs.to_tuple()))


def assert_outputs_equal(outputs, expected, **tolerance):
    """Assert that both have the same fields, and in each the same tensors, none of them empty."""
    assert list(outputs.keys()) == list(expected.keys())
    for name, want in expected.items():
        values = outputs[name] if isinstance(want, tuple) else (outputs[name],)
        for value, target in zip(values, want if isinstance(want, tuple) else (want,), strict=True):
            assert target.numel() > 0
            torch.testing.assert_close(value, target, msg=lambda text, name=name: f"{name}: {text}", **tolerance)
