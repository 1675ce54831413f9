"""Initial weights, and which of them loading keeps or recomputes."""

import math

import pytest
import torch
from torch import nn

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel
from tests.tiny import tiny_config

from .cases import (
    CASES,
    CLASS_OVERRIDES,
    ENCODER_CLASSES,
    HEAD_CASES,
    MODEL_CLASSES,
    make_inputs,
    make_model,
    model_cases,
)

each_class = pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)


def sincos(position, channels):
    """Sines, then cosines, of one position, by the formula of the paper's code, a number at a time."""
    half = channels // 2
    angles = [position * 10000 ** (-k / half) for k in range(half)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def assert_xavier_uniform(weight):
    fan_out, fan_in = weight.flatten(1).shape
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert weight.abs().max() <= bound
    if weight.numel() > 500:
        assert weight.abs().max() > 0.95 * bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert abs(weight.mean().item()) < 0.1 * bound


@each_class
def test_initial_weights(model_class):
    torch.manual_seed(0)
    model = model_class(
        tiny_config(**CLASS_OVERRIDES.get(model_class, {}) | {"image_size": 64, "num_fusion_tokens": 40})
    )
    for name, module in model.named_modules():
        if name == "localizer.predictor":
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.4)
            assert not module.bias.any()
        elif isinstance(module, nn.Linear):
            assert_xavier_uniform(module.weight)
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)) and name.endswith("patch_embed.projection"):
            assert_xavier_uniform(module.weight)  # of the filters as one matrix: fan in = channels * patch area
            assert not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert module.weight.eq(1).all(), name
            assert not module.bias.any(), name
    encoder = getattr(model, "deepavfusion", model)
    assert encoder.fusion_tokens.std().item() == pytest.approx(0.02, rel=0.1)
    for layer in encoder.fusion_layers.values():
        assert not layer.attention.pair_attention.v_bias.any()


def test_initial_decoders():
    torch.manual_seed(0)
    config = tiny_config(decoder_hidden_size=128, image_decoder_type="swin", image_size=[48, 80])
    model = DeepAVFusionForPreTraining(config)
    for decoder, grid in ((model.image_decoder, (6, 10)), (model.audio_decoder, (4, 6))):
        assert decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.3)
        assert decoder.position_embeddings.requires_grad
        row, column = 2, 3
        expected = torch.tensor(sincos(column, 64) + sincos(row, 64))
        torch.testing.assert_close(decoder.position_embeddings[0, row * grid[1] + column], expected)
    for layer in model.image_decoder.layers:
        assert layer.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loaded", [False, True], ids=["built", "loaded"])
def test_positions_are_the_sine_cosine_tables(case, loaded, tmp_path):
    """They are not stored, so a loaded model has to compute them."""
    model = DeepAVFusionModel(tiny_config(**CASES[case]))
    if loaded:
        assert not [name for name in model.state_dict() if "position" in name]
        model.save_pretrained(tmp_path)
        model = DeepAVFusionModel.from_pretrained(tmp_path)
    for tower, grid in ((model.image, model.config.image_grid), (model.audio, model.config.audio_grid)):
        table = tower.patch_embed.position_embeddings
        assert table.shape == (math.prod(grid), 32)
        places = list(torch.cartesian_prod(*(torch.arange(side) for side in grid)).tolist())
        for place, row in zip(places, table, strict=True):
            if len(grid) == 2:
                expected = sincos(place[1], 16) + sincos(place[0], 16)
            else:
                expected = sincos(place[0], 16) + sincos(place[1], 8) + sincos(place[2], 8)
            torch.testing.assert_close(row, torch.tensor(expected))


@pytest.mark.parametrize(("model_class", "case"), model_cases(["factorized", "divided_video"], HEAD_CASES[:1]))
def test_loading_keeps_patch_projections(model_class, case, tmp_path):
    model = make_model(model_class, **CASES[case])
    model.save_pretrained(tmp_path)
    for loaded_class in {*ENCODER_CLASSES, model_class}:
        loaded = loaded_class.from_pretrained(tmp_path)
        ours, theirs = (getattr(m, "deepavfusion", m) for m in (model, loaded))
        for name in ("image", "audio"):
            projection = ours.get_submodule(name).patch_embed.projection
            other = theirs.get_submodule(name).patch_embed.projection
            assert torch.equal(projection.weight, other.weight)
            assert torch.equal(projection.bias, other.bias)
            assert projection.bias.any()


def test_base_and_head_load_each_other(tmp_path):
    base, head = make_model(DeepAVFusionModel, seed=1), make_model(DeepAVFusionForPreTraining, seed=2)
    base.save_pretrained(tmp_path / "base")
    head.save_pretrained(tmp_path / "head")
    inputs = make_inputs(base.config)

    base_of_head, report = DeepAVFusionModel.from_pretrained(tmp_path / "head", output_loading_info=True)
    assert not report["missing_keys"]
    assert all("_decoder." in key for key in report["unexpected_keys"])
    head_of_base, report = DeepAVFusionForPreTraining.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert set(report["missing_keys"]) == {name for name in head.state_dict() if "_decoder." in name}
    with torch.no_grad():
        for loaded, original in ((base_of_head, head.deepavfusion), (head_of_base.deepavfusion, base)):
            assert torch.equal(loaded(**inputs).last_hidden_state, original(**inputs).last_hidden_state)
    fresh = DeepAVFusionForPreTraining(tiny_config())
    table = fresh.image_decoder.position_embeddings
    assert torch.equal(head_of_base.image_decoder.position_embeddings, table)
    assert head_of_base.image_decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.6)
    assert head_of_base.image_decoder.norm.weight.eq(1).all()
    assert_xavier_uniform(head_of_base.image_decoder.predictor.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_loading_in_another_dtype(dtype, tmp_path):
    model = make_model(DeepAVFusionModel)
    model.save_pretrained(tmp_path)
    loaded = DeepAVFusionModel.from_pretrained(tmp_path, dtype=dtype)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    positions = model.image.patch_embed.position_embeddings
    torch.testing.assert_close(loaded.image.patch_embed.position_embeddings.float(), positions, atol=0.01, rtol=0)
    with torch.no_grad():
        expected = model(**make_inputs(model.config)).last_hidden_state
        value = loaded(**make_inputs(model.config)).last_hidden_state.float()
    assert (value - expected).norm() / expected.norm() < 0.05


def test_decoders_left_behind_are_reported_by_pretraining_models_alone(tmp_path):
    make_model(DeepAVFusionForPreTraining).save_pretrained(tmp_path)
    _, info = DeepAVFusionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]
    _, info = DeepAVFusionForPreTraining.from_pretrained(
        tmp_path, decoder_num_hidden_layers=1, output_loading_info=True
    )
    assert "image_decoder.layers.1.mlp.fc1.weight" in info["unexpected_keys"]
