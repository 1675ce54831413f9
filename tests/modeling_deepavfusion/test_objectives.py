"""Objectives of pre-training beyond reconstruction: what they measure, what they leave out, and that they train."""

import math

import pytest
import torch
from scipy.integrate import quad

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionModel,
    export_original_state_dict,
)
from deepavfusion.objectives_deepavfusion import DeepAVFusionAlignment, DeepAVFusionJointEmbedding, sigreg
from tests.tiny import tiny_config

from .cases import CASES, make_inputs, make_model

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
LOSSES = {
    "align": ("image_loss", "audio_loss", "alignment_loss"),
    "jepa": ("invariance_loss", "sigreg_loss"),
}

each_objective = pytest.mark.parametrize("objective", LOSSES)


def make(objective, **overrides):
    return make_model(DeepAVFusionForPreTraining, **{**CASES[objective], **overrides})


def inputs_of(model, batch=4):
    return make_inputs(model.config, DeepAVFusionForPreTraining, batch=batch)


# InfoNCE


def test_alignment_is_cross_entropy_in_both_directions():
    generator = torch.Generator().manual_seed(0)
    image, audio = torch.randn(5, 8, generator=generator), torch.randn(5, 8, generator=generator)
    found = DeepAVFusionAlignment()(image, audio)
    cosines = torch.stack([torch.cosine_similarity(row[None], audio) for row in image])
    targets = torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(cosines / 0.07, targets)
        + torch.nn.functional.cross_entropy(cosines.T / 0.07, targets)
    ) / 2
    torch.testing.assert_close(found, expected)


def test_samples_without_both_modalities_are_left_out_of_the_alignment():
    generator = torch.Generator().manual_seed(0)
    image, audio = (torch.randn(5, 8, generator=generator, requires_grad=True) for _ in range(2))
    alignment, present = DeepAVFusionAlignment(), torch.tensor([True, False, True, True, False])
    found = alignment(image, audio, present)
    torch.testing.assert_close(found, alignment(image[present], audio[present]))
    found.backward()
    assert image.grad[~present].eq(0).all()
    assert image.grad[present].abs().sum(1).gt(0).all()


@pytest.mark.parametrize("present", [[True, False, False], [False, False, False]])
def test_fewer_than_two_pairs_have_no_alignment_loss_and_no_gradient(present):
    image, audio = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    alignment = DeepAVFusionAlignment()
    loss = alignment(image, audio, torch.tensor(present))
    loss.backward()
    assert loss == 0
    for gradient in (image.grad, audio.grad, alignment.logit_scale.grad):
        assert gradient.eq(0).all()


def test_the_temperature_has_a_limit():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(5, 8, generator=generator)
    audio = image + torch.randn(5, 8, generator=generator)
    alignment, targets = DeepAVFusionAlignment(), torch.arange(5)
    cosines = torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(audio).T
    for given, used in ((50.0, 50.0), (1000.0, 100.0)):
        with torch.no_grad():
            alignment.logit_scale.fill_(math.log(given))
            found = alignment(image, audio)
        expected = sum(torch.nn.functional.cross_entropy(used * scores, targets) for scores in (cosines, cosines.T))
        torch.testing.assert_close(found, expected / 2)


# SIGReg


def reference_sigreg(values):
    """Epps-Pulley statistic of values (n,), by numerical integration."""

    def integrand(t):
        function = torch.exp(1j * t * values.double()).mean().item()
        return abs(function - math.exp(-(t**2) / 2)) ** 2 * math.exp(-(t**2) / 2)

    return len(values) * quad(integrand, -3, 3)[0]


def test_sigreg_is_the_epps_pulley_statistic_of_each_projection():
    generator = torch.Generator().manual_seed(0)
    samples, directions = torch.rand(2, 50, 3, generator=generator), torch.randn(3, 4, generator=generator)
    found = sigreg(samples, directions)
    units = directions / directions.norm(dim=0)
    expected = [reference_sigreg(values @ unit) for values in samples for unit in units.T]
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=0.02)


def test_sigreg_tells_gaussian_samples_from_others():
    """Its expected value for N(0, I) is the integral of (1 - exp(-t^2)) exp(-t^2 / 2), for any number of samples."""
    gaussian = quad(lambda t: (1 - math.exp(-(t**2))) * math.exp(-(t**2) / 2), -3, 3)[0]
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, 64, generator=generator)
    for count in (16, 256, 4096):
        samples = torch.randn(32, count, 2, generator=generator)
        assert sigreg(samples, directions).item() == pytest.approx(gaussian, rel=0.2)
    others = {
        "collapsed": torch.ones(1, 4096, 2),
        "wide": 2 * torch.randn(1, 4096, 2, generator=generator),
        "uniform": (torch.rand(1, 4096, 2, generator=generator) - 0.5) * 12**0.5,  # of variance 1
        "a line": torch.randn(1, 4096, 1, generator=generator).expand(-1, -1, 2),
    }
    for name, samples in others.items():
        assert sigreg(samples, directions) > 5 * gaussian, name


def test_sigreg_pushes_collapsed_samples_apart():
    generator = torch.Generator().manual_seed(0)
    samples = (0.01 * torch.randn(1, 64, 4, generator=generator)).requires_grad_()
    optimizer = torch.optim.SGD([samples], lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        sigreg(samples, torch.randn(4, 64, generator=generator)).backward()
        optimizer.step()
    covariance = torch.cov(samples[0].detach().T)
    torch.testing.assert_close(covariance, torch.eye(4), rtol=0, atol=0.35)


def test_missing_views_do_not_count():
    generator = torch.Generator().manual_seed(0)
    head = DeepAVFusionJointEmbedding(tiny_config())
    views, directions = torch.randn(3, 6, 32, generator=generator), torch.randn(128, 8, generator=generator)
    present = torch.ones(3, 6, dtype=torch.bool)
    present[1, 4:] = present[2, :1] = False
    with torch.no_grad():
        found = head(views, present, directions)
        changed = head(torch.where(present[..., None], views, 9.0), present, directions)
        whole = head(views, None, directions)
        projected = head.projection(head.activation_fn(head.norm(head.dense(views))))
    torch.testing.assert_close(found, changed)
    torch.testing.assert_close(head(views, torch.ones_like(present), directions), whole)
    assert not torch.allclose(found[0], whole[0])
    distances = []
    for sample in range(6):
        there = projected[present[:, sample], sample]
        distances += [(row - there.mean(0)).square().mean() for row in there]
    torch.testing.assert_close(found[0], torch.stack(distances).mean())
    per_view = [sigreg(projected[k : k + 1, present[k]], directions) for k in range(3)]
    torch.testing.assert_close(found[1], torch.stack(per_view).mean())


# Models


@each_objective
def test_losses_add_up_as_weighted(objective):
    model = make(objective, alignment_weight=0.3, sigreg_weight=0.2)
    with torch.no_grad():
        outputs = model(**inputs_of(model))
        without = model(**inputs_of(model), return_loss=False)
    assert tuple(name for name in outputs if name.endswith("_loss")) == LOSSES[objective]
    if objective == "align":
        expected = outputs.image_loss + outputs.audio_loss + 0.3 * outputs.alignment_loss
    else:
        expected = 0.8 * outputs.invariance_loss + 0.2 * outputs.sigreg_loss
        assert outputs.image_logits is outputs.audio_logits is None
    torch.testing.assert_close(outputs.loss, expected)
    assert not [name for name in without if name.endswith("loss")]


def test_alignment_compares_features_of_one_modality():
    model = make("align")
    inputs = inputs_of(model)
    with torch.no_grad():
        found = model(**inputs).alignment_loss
        image = model.deepavfusion.get_image_features(inputs["pixel_values"], normalize=True).pooler_output
        audio = model.deepavfusion.get_audio_features(inputs["input_features"], normalize=True).pooler_output
        logits = model.alignment.logit_scale.exp() * image @ audio.T
    targets = torch.arange(4)
    expected = sum(torch.nn.functional.cross_entropy(scores, targets) for scores in (logits, logits.T)) / 2
    torch.testing.assert_close(found, expected, **CLOSE)


def test_alignment_leaves_reconstruction_as_it_is():
    """The weights of both have the same names and the same reconstruction losses."""
    model = make("align")
    plain = DeepAVFusionForPreTraining(tiny_config()).eval()
    unexpected = plain.load_state_dict(model.state_dict(), strict=False).unexpected_keys
    assert unexpected == ["alignment.logit_scale"]
    with torch.no_grad():
        outputs, expected = model(**inputs_of(model)), plain(**inputs_of(plain))
    torch.testing.assert_close(outputs.image_loss + outputs.audio_loss, expected.loss)


def test_views_are_both_modalities_masked_and_each_alone():
    model = make("jepa")
    inputs = inputs_of(model)
    encoder, values = model.deepavfusion, (inputs["pixel_values"], inputs["input_features"])
    with torch.no_grad():
        outputs = model(**inputs)
        kept = [inputs[f"{name}_noise"].argsort(1)[:, : int((1 - ratio) * n)] for name, ratio, n in
                (("image", 0.75, 16), ("audio", 0.8, 24))]  # fmt: skip
        both = encoder(*values, image_ids_keep=kept[0], audio_ids_keep=kept[1]).last_hidden_state.mean(1)
        alone = (encoder.get_fusion_features(values[0]), encoder.get_fusion_features(input_features=values[1]))
        views = torch.stack([both, *(features.pooler_output for features in alone)])
        expected = model.joint_embedding(views, None, inputs["directions"])
    torch.testing.assert_close((outputs.invariance_loss, outputs.sigreg_loss), expected, **CLOSE)


@each_objective
def test_views_of_one_modality_may_be_masked(objective):
    """Then hidden patches have no effect on the loss, and otherwise they have."""
    name = {"align": "alignment_loss", "jepa": "invariance_loss"}[objective]
    for masked in (True, False):
        model = make(objective, pretraining_masked_views=masked)
        inputs = inputs_of(model)
        with torch.no_grad():
            outputs = model(**inputs)
            patches = model.patchify_image(inputs["pixel_values"]) + outputs.image_mask[..., None]
            changed = model(**{**inputs, "pixel_values": model.unpatchify_image(patches)})
        assert torch.allclose(changed[name], outputs[name], **CLOSE) == masked


@each_objective
@pytest.mark.parametrize("masked", [True, False])
def test_a_modality_may_be_hidden_altogether(objective, masked):
    model = make(objective, pretraining_masked_views=masked).train()
    outputs = model(**inputs_of(model), num_visible_image_patches=0)
    outputs.loss.backward()
    assert all(outputs[name].isfinite() for name in LOSSES[objective])
    assert model.deepavfusion.image.patch_embed.projection.weight.grad.abs().sum() > 0


@each_objective
def test_samples_that_lack_a_modality_have_no_effect_on_the_others(objective):
    model = make(objective)
    inputs = inputs_of(model)
    present = {"image_present": torch.tensor([True, True, False, True])}
    inputs["pixel_values"][2] = float("nan")
    outputs = model(**inputs, **present)
    outputs.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if objective == "align":
        pairs = {name: values[present["image_present"]] for name, values in inputs.items()}
        torch.testing.assert_close(outputs.alignment_loss, model(**pairs).alignment_loss, **CLOSE)


@each_objective
def test_a_batch_without_audio_has_losses(objective):
    model = make(objective)
    inputs = {name: values for name, values in inputs_of(model).items() if "audio" not in name}
    del inputs["input_features"]
    outputs = model(**inputs)
    outputs.loss.backward()
    if objective == "align":
        assert outputs.alignment_loss == 0
        assert model.alignment.logit_scale.grad.eq(0).all()
    else:
        assert outputs.invariance_loss > 0


@each_objective
def test_the_encoder_of_a_saved_model_loads_without_complaint(objective, tmp_path):
    model = make(objective)
    model.save_pretrained(tmp_path)
    encoder, report = DeepAVFusionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    for name, value in model.deepavfusion.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value), name
    _, report = DeepAVFusionForAudioVisualClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"]


def test_a_new_alignment_starts_at_its_temperature(tmp_path):
    make_model(DeepAVFusionForPreTraining).save_pretrained(tmp_path)
    model = DeepAVFusionForPreTraining.from_pretrained(tmp_path, pretraining_objective="align")
    assert model.alignment.logit_scale.exp().item() == pytest.approx(1 / 0.07)


@each_objective
def test_losses_fall(objective):
    """Eight pairs of a brightness and a loudness are learned: matched, or embedded together and yet apart."""
    torch.manual_seed(0)
    model = DeepAVFusionForPreTraining(tiny_config(pretraining_objective=objective, alignment_weight=1.0)).train()
    levels = torch.linspace(-2, 2, 8)
    inputs = {
        "pixel_values": levels[:, None, None, None] + 0.1 * torch.randn(8, 3, 32, 32),
        "input_features": levels[:, None, None, None] + 0.1 * torch.randn(8, 1, 32, 48),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    records = []
    for _ in range(80):
        outputs = model(**inputs)
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        records.append({name: outputs[name].item() for name in LOSSES[objective]})
    means = [{name: sum(r[name] for r in part) / 10 for name in part[0]} for part in (records[:10], records[-10:])]
    if objective == "align":
        assert means[1]["alignment_loss"] < 0.5 * means[0]["alignment_loss"]
        assert means[1]["image_loss"] < means[0]["image_loss"]
    else:
        assert means[1]["sigreg_loss"] < 0.7 * means[0]["sigreg_loss"]
        encoder = model.eval().deepavfusion
        with torch.no_grad():
            image = encoder.get_fusion_features(inputs["pixel_values"]).pooler_output
            audio = encoder.get_fusion_features(input_features=inputs["input_features"]).pooler_output
        assert torch.cdist(image, audio).argmin(1).tolist() == list(range(8))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pretraining_objective": "contrast"}, "expected one of 'reconstruction', 'align', 'jepa'"),
        ({"pretraining_objective": "jepa", "fusion_layers": "none"}, "there are no fusion layers"),
        ({"alignment_weight": -0.1}, "alignment_weight is -0.1: expected a number of at least 0"),
        ({"sigreg_weight": 1.0}, r"sigreg_weight is 1.0: expected a number of at least 0 and below 1"),
        (
            {"decoder_prediction_fraction": 0.0},
            r"decoder_prediction_fraction is 0.0: expected a number above 0 and at most 1",
        ),
    ],
)
def test_wrong_configurations_are_named(overrides, message):
    with pytest.raises(Exception, match=message):
        DeepAVFusionConfig(**overrides)


def test_jepa_has_no_reconstruction_losses():
    model = make("jepa")
    assert not [name for name in model.state_dict() if "_decoder" in name]
    with torch.no_grad():
        outputs = model(**inputs_of(model))
    with pytest.raises(ValueError, match="no reconstruction losses"):
        model.losses_per_sample(outputs)


@pytest.mark.parametrize("case", ["cross", "align", "jepa"])
def test_only_published_forms_are_exported(case):
    model = make_model(DeepAVFusionForPreTraining, **CASES[case])
    with pytest.raises(TypeError, match="has no published form"):
        export_original_state_dict(model)
    export_original_state_dict(model.deepavfusion)
