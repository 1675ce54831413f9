"""The model against its textbook form, over shapes drawn by hypothesis: same outputs, same gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.fusion_deepavfusion import DeepAVFusionFusionLayer
from deepavfusion.training.experiments.references import textbook
from deepavfusion.vit_deepavfusion import DeepAVFusionLayer
from tests.tiny import tiny_config

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}
relaxed = settings(max_examples=25, deadline=None, derandomize=True)


def randomize(module, seed):
    """Draw all parameters at random: ones and zeros of initial norms, biases and tables can hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module


def assert_same(ours, reference, call):
    """Same outputs and same gradients of every parameter, for inputs that `call(module)` feeds."""
    results = []
    for module in (ours, reference):
        outputs = call(module)
        module.zero_grad()
        sum((output.float() * (index + 1)).square().mean() for index, output in enumerate(outputs)).backward()
        results.append((outputs, {name: p.grad for name, p in module.named_parameters()}))
    (outputs, gradients), (expected, expected_gradients) = results
    for output, target in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, target, **TOLERANCE)
    for name, target in expected_gradients.items():
        if name.endswith("k_proj.bias"):  # a constant in all scores: its gradient is rounding noise around zero
            assert target is None or target.abs().max() < 1e-3
            continue
        torch.testing.assert_close(gradients[name], target, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@relaxed
@given(
    fusion_type=st.sampled_from(["dense", "factorized", "token"]),
    batch=st.integers(1, 3),
    num_image=st.integers(1, 12),
    num_audio=st.integers(1, 12),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    attention_ratio=st.sampled_from([0.25, 0.5, 1.0]),
    heads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 1000),
)
def test_fusion_layer(fusion_type, batch, num_image, num_audio, counts, attention_ratio, heads, seed):
    config = tiny_config(
        hidden_size=24,
        fusion_type=fusion_type,
        fusion_attention_ratio=attention_ratio,
        num_fusion_attention_heads=heads,
        num_fusion_tokens=counts[0],
        num_image_aggregation_tokens=counts[1],
        num_audio_aggregation_tokens=counts[2],
    )
    config._attn_implementation = "eager"
    layer = randomize(DeepAVFusionFusionLayer(config), seed)
    generator = torch.Generator().manual_seed(seed)
    fusion, image, audio = (
        torch.randn(batch, tokens, config.hidden_size, generator=generator)
        for tokens in (sum(counts), num_image, num_audio)
    )
    assert_same(layer, textbook(layer), lambda module: module(fusion, image, audio))


@relaxed
@given(batch=st.integers(1, 3), tokens=st.integers(1, 12), context=st.integers(0, 8), seed=st.integers(0, 1000))
def test_tower_layer_with_unchanged_context(batch, tokens, context, seed):
    config = tiny_config()
    config._attn_implementation = "sdpa"
    layer = randomize(DeepAVFusionLayer(config, 24, 2, 48, 1e-6), seed)
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(batch, tokens, 24, generator=generator)
    fusion = torch.randn(batch, context, 24, generator=generator) if context else None
    assert_same(layer, textbook(layer), lambda module: module(patches, fusion)[:1])


@relaxed
@given(
    fusion_type=st.sampled_from(["dense", "factorized", "token"]),
    fusion_layers=st.sampled_from(["all", "none", [1], [0]]),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    frames=st.sampled_from([1, 2, 4]),
    mels=st.integers(1, 4),
    times=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_encoder(fusion_type, fusion_layers, rows, columns, frames, mels, times, seed):
    config = tiny_config(
        fusion_type=fusion_type,
        fusion_layers=fusion_layers,
        image_size=[8 * rows, 8 * columns],
        num_frames=frames,
        num_mel_bins=8 * mels,
        spectrogram_length=8 * times,
    )
    model = randomize(DeepAVFusionModel(config), seed).eval()
    reference = textbook(model)
    generator = torch.Generator().manual_seed(seed)
    frame_shape = (3, 8 * rows, 8 * columns)
    pixels = torch.randn(2, *(frame_shape if frames == 1 else (frames, *frame_shape)), generator=generator)
    mel = torch.randn(2, 1, 8 * mels, 8 * times, generator=generator)
    image_kept, audio_kept = (
        torch.rand(2, int(torch.tensor(grid).prod()), generator=generator).argsort(1)[:, : 1 + seed % 3]
        for grid in (config.image_grid, config.audio_grid)
    )
    for arguments in ({}, {"image_ids_keep": image_kept, "audio_ids_keep": audio_kept}):
        assert_same(model, reference, lambda module, arguments=arguments: module(pixels, mel, **arguments).to_tuple())


@relaxed
@given(
    image_ratio=st.sampled_from([0.25, 0.5, 0.75, 0.9]),
    audio_ratio=st.sampled_from([0.3, 0.5, 0.8]),
    norm_patch_loss=st.booleans(),
    layers=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_pretraining(image_ratio, audio_ratio, norm_patch_loss, layers, seed):
    config = tiny_config(
        image_mask_ratio=image_ratio,
        audio_mask_ratio=audio_ratio,
        norm_patch_loss=norm_patch_loss,
        decoder_num_hidden_layers=layers,
    )
    model = randomize(DeepAVFusionForPreTraining(config), seed)
    reference = textbook(model)
    generator = torch.Generator().manual_seed(seed)
    pixels, mel = torch.randn(2, 3, 32, 32, generator=generator), torch.randn(2, 1, 32, 48, generator=generator)
    noise = {
        "image_noise": torch.rand(2, 16, generator=generator),
        "audio_noise": torch.rand(2, 24, generator=generator),
    }

    for training in (True, False):  # training predicts hidden patches alone
        model.train(training), reference.train(training)
        assert_same(model, reference, lambda module: module(pixels, mel, **noise)[:3])
    with torch.no_grad():
        ours, target = model.eval()(pixels, mel, **noise), reference.eval()(pixels, mel, **noise)
        torch.testing.assert_close(ours.image_logits, target.image_logits, **TOLERANCE)
        torch.testing.assert_close(ours.audio_logits, target.audio_logits, **TOLERANCE)
        trained = model.train()(pixels, mel, **noise)
    hidden = trained.image_mask.bool()
    torch.testing.assert_close(trained.image_logits[hidden], target.image_logits[hidden], **TOLERANCE)
    assert not trained.image_logits[~hidden].any()


def test_textbook_refuses_a_missing_modality():
    model = textbook(DeepAVFusionModel(tiny_config(fusion_type="dense")))
    with pytest.raises(ValueError, match="does not support a missing modality"):
        model(input_features=torch.randn(1, 1, 32, 48))
