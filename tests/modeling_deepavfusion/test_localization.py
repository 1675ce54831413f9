"""Sound localization: the three maps, the two losses, and samples without audio or frame."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from deepavfusion import DeepAVFusionForSoundLocalization, DeepAVFusionModel
from deepavfusion.localization_deepavfusion import pair_scores
from tests.tiny import tiny_config

from .cases import CASES, make_inputs, make_model

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
MAPS = ["head", "similarity", "attention"]

each_map = pytest.mark.parametrize("kind", MAPS)


def make(kind="head", seed=0, **overrides):
    return make_model(DeepAVFusionForSoundLocalization, seed=seed, localization_map=kind, **overrides)


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        (kind, case)
        for kind in MAPS
        for case in CASES
        if "swin" not in case and (kind, case) != ("attention", "no_fusion")
    ],
)
def test_a_logit_for_each_patch(kind, case):
    model = make(kind, **CASES[case])
    with torch.no_grad():
        outputs = model(**make_inputs(model.config, batch=3))
    assert list(outputs) == ["logits"]
    assert outputs.logits.shape == (3, *model.config.image_grid[-2:])
    assert outputs.logits.isfinite().all()
    assert outputs.logits.flatten(1).std(dim=1).gt(0).all()


@each_map
def test_the_map_depends_on_frame_and_sound(kind):
    model = make(kind)
    inputs = make_inputs(model.config)
    with torch.no_grad():
        logits = model(**inputs).logits
        for name in inputs:
            changed = model(**{**inputs, name: inputs[name].roll(1, dims=0)}).logits
            assert (changed - logits).abs().max() > 1e-3, name


def test_similarity_of_a_new_head_is_the_encoder_s_own():
    """Zero-shot: projections start as the identity, whatever the encoder."""
    torch.manual_seed(0)
    model = DeepAVFusionForSoundLocalization(tiny_config(localization_map="similarity")).eval()
    inputs = make_inputs(model.config)
    with torch.no_grad():
        logits = model(**inputs).logits
        encoded = model.deepavfusion(**inputs)
        cosines = cosine_similarity(
            encoded.image_last_hidden_state, encoded.audio_last_hidden_state.mean(dim=1)[:, None], dim=-1
        )
    torch.testing.assert_close(logits, 10 * cosines.view(2, 4, 4))


@pytest.mark.parametrize("case", ["factorized", "dense", "token", "late_fusion"])
def test_attention_map_by_hand(case):
    model = make("attention", attn_implementation="eager", **CASES[case])
    inputs = make_inputs(model.config)
    with torch.no_grad():
        logits = model(**inputs).logits
        layers = model.deepavfusion(**inputs, output_attentions=True).attentions
    rows = 4 if model.config.fusion_type == "factorized" else 9  # fusion tokens proper, or all
    shares = []
    for weights in layers:
        over_image = weights[:, :, :rows, :16].mean(dim=(1, 2))
        shares.append(over_image / over_image.sum(dim=1, keepdim=True))
    if len(shares) == 3:
        shares = [(shares[0] + shares[1]) / 4 + shares[2] / 2]  # each layer halves what came before it
    torch.testing.assert_close(logits, (shares[0] * 16).log().view(2, 4, 4), **CLOSE)
    torch.testing.assert_close(logits.exp().mean(dim=(1, 2)), torch.ones(2))


def test_attention_needs_a_fusion_layer():
    with pytest.raises(ValueError, match='localization_map is "attention", but there are no fusion layers'):
        DeepAVFusionForSoundLocalization(tiny_config(localization_map="attention", fusion_layers="none"))


@pytest.mark.parametrize("case", ["factorized", "dense", "token", "divided_video"])
def test_attention_map_needs_no_eager_model(case):
    """The model keeps its implementation, and returns attention weights only on request."""
    model = make("attention", **CASES[case])
    inputs = make_inputs(model.config)
    with torch.no_grad():
        outputs = model(**inputs)
        assert model.config._attn_implementation == "sdpa"
        model.set_attn_implementation("eager")
        torch.testing.assert_close(outputs.logits, model(**inputs).logits, **CLOSE)
    assert "attentions" not in outputs


def test_fusion_attentions_of_the_encoder_under_any_implementation():
    model = make_model(DeepAVFusionModel)
    inputs = make_inputs(model.config)
    with torch.no_grad():
        outputs = model(**inputs, output_fusion_attentions=True)
        assert "attentions" not in model(**inputs)
        model.set_attn_implementation("eager")
        expected = model(**inputs, output_attentions=True)
        alone = model(**inputs, output_fusion_attentions=True)
    for found in (outputs, alone):
        assert "image_attentions" not in found
        torch.testing.assert_close(found.attentions, expected.attentions, **CLOSE)


@each_map
def test_recorded_states_are_those_of_the_encoder(kind):
    model = make(kind, attn_implementation="eager")
    inputs = make_inputs(model.config)
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True, return_loss=True)
        encoded = model.deepavfusion(**inputs, output_hidden_states=True, output_attentions=True)
    for name in ("hidden_states", "image_hidden_states", "audio_hidden_states", "attentions", "audio_attentions"):
        torch.testing.assert_close(outputs[name], encoded[name], **CLOSE)


@each_map
def test_video_map_is_the_mean_over_frames(kind):
    model = make(kind, num_frames=4)
    inputs = make_inputs(model.config)
    with torch.no_grad():
        flags = {"output_fusion_attentions": kind == "attention"}
        of_patches = model.localizer(model.deepavfusion(**inputs, **flags))
        torch.testing.assert_close(model(**inputs).logits, of_patches.view(2, 2, 4, 4).mean(dim=1))


@each_map
def test_nothing_sounds_without_sound(kind):
    model = make(kind)
    inputs = make_inputs(model.config, batch=3)
    present = torch.tensor([True, False, True])
    inputs["input_features"][1] = float("nan")
    with torch.no_grad():
        mixed = model(**inputs, audio_present=present, image_present=torch.ones(3, dtype=torch.bool)).logits
        silent = model(inputs["pixel_values"]).logits
        expected = model(inputs["pixel_values"][[0, 2]], inputs["input_features"][[0, 2]]).logits
    torch.testing.assert_close(mixed[[0, 2]], expected, **CLOSE)
    assert mixed[1].eq(-100).all()
    assert silent.shape == (3, 4, 4)
    assert silent.eq(-100).all()


def test_needs_the_frame():
    model = make()
    inputs = make_inputs(model.config)
    with pytest.raises(ValueError, match="needs the frame: expected pixel_values for every sample"):
        model(input_features=inputs["input_features"])
    with pytest.raises(ValueError, match="needs the frame"):
        model(**inputs, image_present=torch.tensor([True, False]))


@pytest.mark.parametrize("case", ["factorized", "odd_grid", "joint_video"])
def test_supervised_loss(case):
    """Labels of any resolution, averaged over each patch; of exactly the grid's, as they are."""
    model = make(**CASES[case])
    inputs = make_inputs(model.config)
    rows, columns = model.config.image_grid[-2:]
    cells = torch.rand(2, rows, columns, generator=torch.Generator().manual_seed(0))
    fine = cells.repeat_interleave(6, dim=1).repeat_interleave(4, dim=2)
    with torch.no_grad():
        outputs = model(**inputs, labels=cells)
        torch.testing.assert_close(outputs.loss, binary_cross_entropy_with_logits(outputs.logits, cells))
        torch.testing.assert_close(model(**inputs, labels=fine).loss, outputs.loss)
        whole = model(**inputs, labels=(cells > 0.5).long()).loss
        torch.testing.assert_close(whole, binary_cross_entropy_with_logits(outputs.logits, (cells > 0.5).float()))
        assert "loss" not in model(**inputs, labels=cells, return_loss=False)
        assert "loss" not in model(**inputs)


def test_samples_without_sound_do_not_enter_the_supervised_loss():
    model = make()
    inputs = make_inputs(model.config, batch=3)
    labels = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    kept = [0, 2]
    with torch.no_grad():
        mixed = model(**inputs, labels=labels, audio_present=torch.tensor([True, False, True])).loss
        expected = model(**{name: x[kept] for name, x in inputs.items()}, labels=labels[kept]).loss
        torch.testing.assert_close(mixed, expected)
    silent = model(inputs["pixel_values"], labels=labels).loss
    assert silent == model(**inputs, labels=labels, audio_present=torch.tensor([False] * 3)).loss == 0
    silent.backward()  # a batch without audio does not end a run


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.rand(2, 1, 32, 32),
            r"labels have shape \(2, 1, 32, 32\): expected a map a sample, \(2, height, width\)",
        ),
        (torch.rand(3, 32, 32), r"labels have shape \(3, 32, 32\)"),
        (torch.full((2, 32, 32), 255.0), r"labels lie in 255 .. 255: expected values in 0 .. 1"),
        (torch.full((2, 32, 32), float("nan")), "labels lie in nan"),
    ],
)
def test_wrong_labels_are_named(labels, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        model(**make_inputs(model.config), labels=labels)


def test_pair_scores_by_hand():
    logits = torch.tensor([[[4.0, 0.0], [1.0, -3.0]], [[0.0, 0.0], [0.0, 2.0]]])
    assert pair_scores(logits).tolist() == [4.0, 2.0]  # a quarter of four places
    wide = torch.arange(8.0).view(1, 2, 4)
    assert pair_scores(wide).tolist() == [6.5]
    assert pair_scores(torch.tensor([[[3.0, 1.0]]])).tolist() == [3.0]  # at least one place


@each_map
def test_matching_loss(kind):
    """Own pairs are 1; each frame with the audio of the previous sample is 0; pairs without audio do not count."""
    model = make(kind, localization_loss="matching")
    inputs = make_inputs(model.config, batch=4)
    with torch.no_grad():
        own = pair_scores(model(**inputs).logits)
        other = pair_scores(model(inputs["pixel_values"], inputs["input_features"][[3, 0, 1, 2]]).logits)
        loss = model(**inputs, return_loss=True).loss
        one, zero = torch.ones(4), torch.zeros(4)
        expected = (binary_cross_entropy_with_logits(own, one) + binary_cross_entropy_with_logits(other, zero)) / 2
        torch.testing.assert_close(loss, expected, **CLOSE)

        part = model(**inputs, return_loss=True, audio_present=torch.tensor([True, False, True, True])).loss
        scores, targets = torch.cat([own[[0, 2, 3]], other[[0, 1, 3]]]), torch.cat([one[:3], zero[:3]])
        torch.testing.assert_close(part, binary_cross_entropy_with_logits(scores, targets), **CLOSE)


def test_when_there_is_a_matching_loss():
    inputs = make_inputs(tiny_config())
    labels = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    model = make(localization_loss="matching")
    loss = model(**inputs, return_loss=True).loss
    torch.testing.assert_close(model(**inputs, labels=labels).loss, loss)  # labels are for metrics alone
    assert "loss" not in model(**inputs)
    torch.testing.assert_close(model.train()(**inputs).loss, loss)
    assert "loss" not in model(**inputs, return_loss=False)
    model.config.localization_loss = "supervised"
    torch.testing.assert_close(model(**inputs, return_loss=True).loss, loss)
    assert "loss" not in model(**inputs)
    assert model(**inputs, labels=labels).loss != loss

    model.config.localization_loss = "matching"
    single = {name: x[:1] for name, x in inputs.items()}
    with pytest.raises(ValueError, match="expected at least 2, but got 1"):
        model(**single)
    own = pair_scores(model.eval()(**single).logits)
    alone = model(**single, return_loss=True).loss
    torch.testing.assert_close(alone, binary_cross_entropy_with_logits(own, torch.ones(1)))


@each_map
@pytest.mark.parametrize("loss", ["supervised", "matching"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_reaches_the_encoder(kind, loss, checkpointing):
    model = make(kind, localization_loss=loss).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    inputs = make_inputs(model.config)
    model(**inputs, labels=torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))).loss.backward()
    encoder = model.deepavfusion
    for part in (encoder.image.patch_embed, encoder.audio.patch_embed, encoder.fusion_layers["0"], model.localizer):
        for name, parameter in part.named_parameters():
            if not name.endswith("k_proj.bias"):
                assert parameter.grad.abs().max() > 0, name


def test_learns_where_a_patch_is_lit_by_its_sound():
    """Two squares of two colors, two tones: the tone determines which square sounds."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = DeepAVFusionForSoundLocalization(tiny_config(num_hidden_layers=2)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def scenes(count):
        places = torch.stack([torch.randperm(16, generator=generator)[:2] for _ in range(count)])
        tone = torch.randint(2, (count,), generator=generator)
        grid, rows = torch.zeros(count, 3, 16), torch.arange(count)
        for channel in (0, 1):
            grid[rows, channel, places[:, channel]] = 3.0
        pixels = grid.view(count, 3, 4, 4).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        features = torch.zeros(count, 1, 32, 48)
        features[rows, 0, 8 + 16 * tone] = 3.0
        return pixels, features, places[rows, tone], places[rows, 1 - tone]

    for _ in range(80):
        pixels, features, place, _ = scenes(32)
        labels = nn.functional.one_hot(place, 16).view(-1, 4, 4)
        optimizer.zero_grad()
        model(pixels, features, labels=labels).loss.backward()
        optimizer.step()
    pixels, features, place, other = scenes(64)
    with torch.no_grad():
        right = model.eval()(pixels, features).logits.flatten(1).argmax(dim=1)
        wrong = model(pixels, features.roll(16, dims=2)).logits.flatten(1).argmax(dim=1)
    assert (right == place).float().mean() > 0.95
    assert (wrong == other).float().mean() > 0.95


@pytest.mark.parametrize("kind", ["similarity", "attention"])  # the head: with all models
def test_half_precision_and_compilation_of_the_other_maps(kind):
    torch._dynamo.reset()
    model = make(kind)
    inputs = make_inputs(model.config)
    with torch.no_grad():
        expected = model(**inputs, return_loss=True)
        compiled = torch.compile(model, fullgraph=True, backend="eager")(**inputs, return_loss=True)
        torch.testing.assert_close(compiled.logits, expected.logits, **CLOSE)
        torch.testing.assert_close(compiled.loss, expected.loss, **CLOSE)
        half = model.to(torch.bfloat16)(**inputs, return_loss=True)
    assert half.logits.dtype == torch.bfloat16
    assert half.loss.dtype == torch.float32
    assert (half.logits.float() - expected.logits).norm() < 0.05 * expected.logits.norm()


def test_saved_and_loaded_with_another_map(tmp_path):
    """Only the weights of the map are new; the whole encoder is loaded."""
    source = make("head")
    source.save_pretrained(tmp_path)
    model, report = DeepAVFusionForSoundLocalization.from_pretrained(
        tmp_path, localization_map="similarity", output_loading_info=True
    )
    assert all(name.startswith("localizer.") for name in report["missing_keys"])
    assert math.isclose(model.localizer.logit_scale.exp().item(), 10, rel_tol=1e-5)
    torch.testing.assert_close(model.localizer.image_projection.weight.detach(), torch.eye(32))
    assert torch.equal(model.deepavfusion.fusion_tokens, source.deepavfusion.fusion_tokens)
