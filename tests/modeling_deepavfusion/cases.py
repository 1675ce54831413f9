"""Small configurations and inputs that the tests of all models share. A new model class is added to `MODEL_CLASSES`."""

import math

import torch

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel

MODEL_CLASSES = [DeepAVFusionModel, DeepAVFusionForPreTraining]

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
}


def make_config(**overrides) -> DeepAVFusionConfig:
    return DeepAVFusionConfig(
        **{
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "num_fusion_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "num_mel_bins": 32,
            "spectrogram_length": 48,
            "audio_patch_size": 8,
            "num_fusion_tokens": 4,
            "num_image_aggregation_tokens": 3,
            "num_audio_aggregation_tokens": 2,
            "decoder_hidden_size": 16,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
            "decoder_num_hidden_layers": 2,
            **overrides,
        }
    )


def make_model(model_class, seed: int = 0, attn_implementation: str = "sdpa", **overrides):
    """A model in eval mode whose every parameter is random: zero biases and unit norms would hide mistakes."""
    model = model_class._from_config(make_config(**overrides), attn_implementation=attn_implementation).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def make_inputs(config, model_class=DeepAVFusionModel, batch: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Everything that makes a forward pass of `model_class` deterministic."""
    generator = torch.Generator().manual_seed(seed)
    height, width = config.frame_size
    frames = (config.num_frames,) if config.num_frames > 1 else ()
    sizes = {
        "pixel_values": (batch, *frames, config.num_channels, height, width),
        "input_features": (batch, 1, config.num_mel_bins, config.spectrogram_length),
    }
    if model_class is DeepAVFusionForPreTraining:
        sizes["image_noise"] = (batch, math.prod(config.image_grid))
        sizes["audio_noise"] = (batch, math.prod(config.audio_grid))
    return {
        name: (torch.rand if name.endswith("noise") else torch.randn)(size, generator=generator)
        for name, size in sizes.items()
    }


def objective(outputs) -> torch.Tensor:
    """A scalar that depends on every output: the loss where there is one, else a sum of squares."""
    if outputs.get("loss") is not None:
        return outputs["loss"]
    return sum((k + 1) * value.float().square().mean() for k, value in enumerate(outputs.to_tuple()))


def assert_outputs_equal(outputs, expected, **tolerance):
    """The same fields, and in each the same tensors, of which no one is empty."""
    assert list(outputs.keys()) == list(expected.keys())
    for name, want in expected.items():
        values = outputs[name] if isinstance(want, tuple) else (outputs[name],)
        for value, target in zip(values, want if isinstance(want, tuple) else (want,), strict=True):
            assert target.numel() > 0
            torch.testing.assert_close(value, target, msg=lambda text, name=name: f"{name}: {text}", **tolerance)
