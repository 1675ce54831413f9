"""The configuration: derived sizes, round trip through a file, and invalid values."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from deepavfusion import DeepAVFusionConfig, DeepAVFusionModel
from tests.tiny import tiny_config

from .cases import CASES


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case, tmp_path):
    config = tiny_config(**CASES[case], drop_path_rate=0.1)
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == "deepavfusion"
    loaded = DeepAVFusionConfig.from_pretrained(tmp_path)
    for name in DeepAVFusionConfig().to_dict():
        value, other = getattr(config, name), getattr(loaded, name)
        if isinstance(value, tuple):  # JSON knows lists alone
            other = tuple(other)
        if name != "transformers_version":
            assert other == value, name
    assert loaded.image_grid == config.image_grid
    assert loaded.fusion_layer_indices == config.fusion_layer_indices


@pytest.mark.parametrize(
    ("size", "expected"),
    [("small", (384, 12, 6, 1536, 16)), ("base", (768, 12, 12, 3072, 16)), ("large", (1024, 24, 16, 4096, 16)),
     ("huge", (1280, 32, 16, 5120, 14))],
)  # fmt: skip
def test_named_sizes(size, expected):
    config = DeepAVFusionConfig.from_size(size)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")
    assert tuple(getattr(config, name) for name in names) == expected
    assert config.num_fusion_attention_heads == config.num_attention_heads
    assert config.num_all_fusion_tokens == 32
    assert config.audio_grid == (8, 12)
    assert config.image_grid == ((16, 16) if size == "huge" else (14, 14))


def test_base_is_the_default_and_overrides_win():
    assert DeepAVFusionConfig.from_size("base").to_dict() == DeepAVFusionConfig().to_dict()
    assert DeepAVFusionConfig.from_size("huge", patch_size=16).patch_size == 16
    with pytest.raises(ValueError, match="Unknown size 'tiny': expected one of 'small', 'base', 'large', 'huge'"):
        DeepAVFusionConfig.from_size("tiny")


def test_derived_sizes():
    config = tiny_config(image_size=[48, 80], num_frames=6, tubelet_size=3, fusion_layers=[2, 0])
    assert config.frame_size == (48, 80)
    assert config.image_grid == (2, 6, 10)
    assert config.audio_grid == (4, 6)
    assert config.num_patches == (120, 24)
    assert config.input_shapes == {"pixel_values": (6, 3, 48, 80), "input_features": (1, 32, 48)}
    assert tiny_config().input_shapes["pixel_values"] == (3, 32, 32)
    assert config.fusion_layer_indices == (0, 2)
    assert tiny_config(fusion_layers="none").fusion_layer_indices == tiny_config(fusion_layers=[]).fusion_layer_indices


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"video_attention": "axial"}, "video_attention is 'axial': expected one of 'joint', 'divided'"),
        ({"fusion_type": "sum"}, "fusion_type is 'sum': expected one of 'factorized', 'dense', 'token'"),
        ({"image_decoder_type": "unet"}, "image_decoder_type is 'unet': expected one of 'plain', 'swin'"),
        ({"audio_decoder_type": ""}, "audio_decoder_type is '': expected one of 'plain', 'swin'"),
        ({"classifier_loss": "sum"}, "classifier_loss is 'sum'"),
        ({"hidden_act": "foo"}, "hidden_act is 'foo': expected one of 'gelu', "),
        ({"problem_type": "x"}, "problem_type is 'x': expected one of None, 'single_label_classification', "),
        ({"localization_threshold": 1.0}, "localization_threshold is 1.0: expected a number above 0 and below 1"),
        ({"separation_mask": "phase"}, "separation_mask is 'phase'"),
        ({"separation_condition": "audio"}, "separation_condition is 'audio': expected one of 'image', 'fusion'"),
        ({"separation_scales": 0}, "separation_scales is 0: expected a number of at least 1 and at most 10"),
        ({"unet_norm": "layer"}, "unet_norm is 'layer': expected one of 'batch', 'group'"),
        ({"image_size": [32]}, r"image_size is \[32\]: expected one int or a \[height, width\] pair"),
        ({"image_size": 36}, r"image height is 36: expected a positive multiple of patch_size \(8\)"),
        ({"image_size": [32, 4]}, r"image width is 4: expected a positive multiple of patch_size \(8\)"),
        ({"patch_size": 0}, r"expected a positive multiple of patch_size \(0\)"),
        ({"num_mel_bins": 33}, r"num_mel_bins is 33: expected a positive multiple of audio_patch_size \(8\)"),
        ({"spectrogram_length": 0}, "spectrogram_length is 0: expected a positive multiple"),
        ({"num_frames": 3}, r"num_frames is 3: expected a positive multiple of tubelet_size \(2\)"),
        ({"hidden_size": 33}, r"hidden_size is 33: expected a positive multiple of num_attention_heads \(2\)"),
        ({"num_fusion_attention_heads": 3}, r"hidden_size is 32: .* num_fusion_attention_heads \(3\)"),
        ({"hidden_size": 36, "fusion_attention_ratio": 0.25}, r"fusion_attention_ratio \* hidden_size is 9"),
        ({"fusion_attention_ratio": 0.0}, "fusion_attention_ratio is 0.0: expected a number above 0 and at most 64"),
        ({"fusion_attention_ratio": 0.01}, r"fusion_attention_ratio \* hidden_size is 0"),
        ({"decoder_num_attention_heads": 5}, r"decoder_hidden_size is 16: .* decoder_num_attention_heads \(5\)"),
        ({"decoder_hidden_size": 18}, r"decoder_hidden_size is 18: expected a positive multiple of 4"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0: expected a number of at least 1"),
        ({"fusion_layers": "early"}, 'fusion_layers is \'early\': expected "all", "none" or layer indices'),
        ({"fusion_layers": [0, 3]}, r"fusion_layers is \[0, 3\]: expected distinct indices from 0 to 2"),
        ({"fusion_layers": [1, 1]}, r"fusion_layers is \[1, 1\]: expected distinct indices"),
        ({"fusion_layers": [-1]}, r"fusion_layers is \[-1\]"),
        ({"num_audio_aggregation_tokens": 0}, r"at least one token of each kind, but got counts \(4, 3, 0\)"),
        ({"fusion_type": "token", "num_fusion_tokens": -1}, r"counts \(-1, 3, 2\)"),
        ({"image_mask_ratio": 1.0}, r"image_mask_ratio is 1.0: expected a number of at least 0 and below 1"),
        ({"audio_mask_ratio": -0.1}, "audio_mask_ratio is -0.1"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
        ({"attention_probs_dropout_prob": 2}, "attention_probs_dropout_prob is 2"),
        ({"drop_path_rate": 1}, "drop_path_rate is 1"),
        ({"architectures": -1}, "architectures is -1: expected a list of names of models"),
        ({"architectures": [None]}, r"architectures is \[None\]: expected a list of names"),
    ],
)
def test_invalid_values_are_named(overrides, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message) as raised:
        tiny_config(**overrides)
    assert not isinstance(raised.value, TypeError)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_size", "768"), ("norm_patch_loss", 0.5), ("fusion_layers", 3), ("image_mask_ratio", "0.75")],
)
def test_types_are_checked(name, value):
    with pytest.raises(StrictDataclassError, match=name):
        tiny_config(**{name: value})
    config = tiny_config()
    with pytest.raises(StrictDataclassError, match=name):
        setattr(config, name, value)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_unknown_dtypes_are_named(name):
    for value in ("flaot32", "nn"):
        with pytest.raises(ValueError, match=f"dtype is '{value}': expected a dtype of torch"):
            DeepAVFusionConfig.from_dict({name: value})
    assert DeepAVFusionConfig.from_dict({name: "bfloat16"}).dtype == torch.bfloat16


def test_changed_values_are_checked_when_saved(tmp_path):
    config = tiny_config()
    config.fusion_type = "sum"
    with pytest.raises((ValueError, StrictDataclassError), match="fusion_type is 'sum'"):
        config.save_pretrained(tmp_path)


def test_drop_path_rises_with_depth():
    model = DeepAVFusionModel(tiny_config(drop_path_rate=0.2))
    for layers in (model.image.layers, model.audio.layers, list(model.fusion_layers.values())):
        assert [layer.drop_path.rate for layer in layers] == pytest.approx([0.0, 0.1, 0.2])
