"""Losses by the other modality, and oracles."""

import pytest
import torch

from deepavfusion import DeepAVFusionForPreTraining
from deepavfusion.training.data import build_dataset
from deepavfusion.training.tasks.reconstruction import (
    bound_errors,
    cross_modal_losses,
    cross_modal_table,
    few_patches,
    hidden_bounds,
    links_table,
    mean_losses,
    oracle_losses,
)
from tests.modeling_deepavfusion.cases import make_inputs, make_model


@pytest.fixture
def model():
    return make_model(DeepAVFusionForPreTraining, norm_patch_loss="none").eval()


@pytest.fixture
def inputs(model):
    return make_inputs(model.config, DeepAVFusionForPreTraining, batch=4)


@torch.no_grad()
def cross_modal(model, inputs):
    values = {name: inputs[name] for name in ("pixel_values", "input_features")}
    noise = {name: inputs[name] for name in ("image_noise", "audio_noise")}
    return cross_modal_losses(model, values, noise), values, noise


def test_few_patches_are_a_fraction_but_at_least_one():
    assert few_patches((64, 48)) == (3, 1)
    assert few_patches((196, 96)) == (10, 2)
    assert few_patches((4, 4)) == (1, 1)


def test_losses_are_those_of_the_forward_passes_they_name(model, inputs):
    rows, values, noise = cross_modal(model, inputs)
    num_image, num_audio = model.config.num_patches
    with torch.no_grad():
        whole = model(**values, **noise)
        alone = model(input_features=values["input_features"], audio_noise=noise["audio_noise"])
        shuffled = {"pixel_values": values["pixel_values"].roll(1, 0), "input_features": values["input_features"]}
        hidden = model(**shuffled, **noise, num_visible_audio_patches=0, num_visible_image_patches=num_image)
        few = model(**values, **noise, num_visible_image_patches=1, num_visible_audio_patches=num_audio)

    def mean(name):
        return sum(row[name] for row in rows) / len(rows)

    assert mean("image_loss_recipe_true") == pytest.approx(float(whole.image_loss), rel=1e-5)
    assert mean("audio_loss_recipe_none") == pytest.approx(float(alone.audio_loss), rel=1e-5)
    assert mean("audio_loss_hidden_shuffled") == pytest.approx(float(hidden.audio_loss), rel=1e-5)
    assert mean("image_loss_few_true") == pytest.approx(float(few.image_loss), rel=1e-5)
    assert "image_loss_hidden_none" not in rows[0]


def test_a_model_that_ignores_the_other_modality_saves_nothing():
    model = make_model(DeepAVFusionForPreTraining, fusion_layers="none").eval()
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining, batch=3)
    means = mean_losses(cross_modal(model, inputs)[0])
    for modality in ("image", "audio"):
        assert means[f"{modality}_saved_few"] == pytest.approx(0, abs=1e-6)


def test_the_table_shows_all_losses_and_what_was_saved():
    losses = {"true": 0.9, "shuffled": 1.2, "none": 1.0}
    rows = [
        {
            f"{modality}_loss_{masks}_{kind}": value + k
            for modality in ("image", "audio")
            for masks in ("recipe", "few", "hidden")
            for kind, value in losses.items()
            if (masks, kind) != ("hidden", "none")
        }
        for k in (-0.1, 0.1)
    ]
    means = mean_losses(rows)
    assert means["audio_saved_few"] == pytest.approx(0.25)
    table = cross_modal_table(means)
    assert table.rows[1] == ["image", "few", "0.9000", "1.2000", "1.0000", "25.0 %"]
    assert table.rows[2][4] == "-"
    assert cross_modal_table({"image_loss": 1.0}) is None
    assert mean_losses([]) == {}


def scenes(model, **options):
    options = {"name": "scenes", "difficulty": "easy", "max_objects": 1, "max_sounding": 1, "eval_size": 48, **options}
    return build_dataset(options, model.config, "test", train=False, seed=0)


def test_bounds_fall_with_the_coupling_and_come_from_the_scenes_alone():
    model = make_model(DeepAVFusionForPreTraining, norm_patch_loss="none", image_size=32)
    found = {coupling: hidden_bounds(bound_errors(model, scenes(model, coupling=coupling))) for coupling in (0.0, 0.97)}
    for modality in ("image", "audio"):
        free, linked = (found[coupling][f"{modality}_bound_saved"] for coupling in (0.0, 0.97))
        assert -0.1 < free < 0.25
        assert linked > free + 0.1
        saved = 1 - found[0.97][f"{modality}_bound_true"] / found[0.97][f"{modality}_bound_none"]
        assert linked == pytest.approx(saved)
    # As good as the variance around the mean of each value, which a model that knows nothing can predict.
    samples = scenes(model, coupling=0.97).__getitems__(range(48))
    values = torch.stack([sample["input_features"] for sample in samples])
    assert found[0.97]["audio_bound_none"] == pytest.approx(float(values.var(0).mean()), rel=1e-4)
    assert hidden_bounds(bound_errors(model, scenes(model, max_objects=2))) == {}
    assert bound_errors(model, [1, 2, 3]) == []


def test_the_strengths_of_links_are_shown_where_there_are_any():
    model = make_model(DeepAVFusionForPreTraining, image_size=32)
    table = links_table(scenes(model, coupling=0.97))
    assert ["lightness - pitch", "2.04", "6.5 %"] in [list(row) for row in table.rows]
    assert links_table(scenes(model)) is None
    assert links_table([]) is None


def test_the_table_shows_the_best_possible_loss():
    model = make_model(DeepAVFusionForPreTraining, norm_patch_loss="none").eval()
    means = mean_losses(cross_modal(model, make_inputs(model.config, DeepAVFusionForPreTraining, batch=2))[0])
    bounds = {"image_bound_true": 0.5, "image_bound_none": 1.0, "image_bound_saved": 0.5}
    table = cross_modal_table(means | bounds)
    assert ["image", "none: best possible losses", "0.5000", "-", "1.0000", "-"] in table.rows


@pytest.mark.parametrize("norm_patch_loss", ["none", "channel", True])
def test_oracles_know_one_color_a_patch_and_one_value_a_row(norm_patch_loss):
    model = make_model(DeepAVFusionForPreTraining, norm_patch_loss=norm_patch_loss).eval()
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining, batch=2)
    side, mel = model.config.patch_size, model.config.audio_patch_size
    values = {name: inputs[name].clone() for name in ("pixel_values", "input_features")}
    with torch.no_grad():
        outputs = model(**values)
        found = oracle_losses(model, outputs, values)
        assert min(found["image_oracle_loss"]) > 0.1
        assert min(found["audio_oracle_loss"]) > 0.1
        if norm_patch_loss == "none":
            pixels = values["pixel_values"].unfold(2, side, side).unfold(3, side, side)  # (B, 3, rows, columns, ...)
            variance = pixels.var(dim=(-2, -1), correction=0).mean(1).flatten(1)
            hidden = outputs.image_mask.bool()
            assert found["image_oracle_loss"][1] == pytest.approx(float(variance[1][hidden[1]].mean()), rel=1e-4)
        # Inputs of one color a patch and one value a row of it leave nothing to know.
        coarse = values["pixel_values"][:, :, ::side, ::side]
        values["pixel_values"] = coarse.repeat_interleave(side, 2).repeat_interleave(side, 3)
        values["input_features"] = values["input_features"][..., ::mel].repeat_interleave(mel, 3)
        flat = oracle_losses(model, outputs, values)
        assert max(flat["image_oracle_loss"] + flat["audio_oracle_loss"]) < 1e-6
