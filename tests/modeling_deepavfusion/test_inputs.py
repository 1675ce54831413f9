"""Inputs of the models: missing modalities, kept patches, and invalid inputs."""

import math

import pytest
import torch

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel
from tests.tiny import tiny_config

from .cases import (
    CASES,
    ENCODER_CLASSES,
    MODEL_CLASSES,
    assert_outputs_equal,
    make_inputs,
    make_labels,
    make_model,
    objective,
    optional_modalities,
)

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
ENCODER_FIELDS = ("last_hidden_state", "image_last_hidden_state", "audio_last_hidden_state")
# Four samples: both modalities, the image alone, the audio alone, both.
IMAGE_PRESENT = torch.tensor([True, True, False, True])
AUDIO_PRESENT = torch.tensor([True, False, True, True])

each_class = pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)
each_encoder = pytest.mark.parametrize("model_class", ENCODER_CLASSES, ids=lambda cls: cls.__name__)
each_case = pytest.mark.parametrize("case", CASES)
each_fusion = pytest.mark.parametrize("case", ["factorized", "dense", "token", "no_fusion", "divided_video", "swin"])


def drop(inputs, modality):
    """`inputs` without a modality: neither its values nor its noise."""
    names = {"image": ("pixel_values", "image_noise"), "audio": ("input_features", "audio_noise")}[modality]
    return {name: value for name, value in inputs.items() if name not in names}


def alone(inputs, sample):
    """One sample of a batch, without the modality that it lacks."""
    single = {name: value[sample : sample + 1] for name, value in inputs.items()}
    if not IMAGE_PRESENT[sample]:
        single = drop(single, "image")
    return single if AUDIO_PRESENT[sample] else drop(single, "audio")


def fill_absent(inputs, value):
    """`inputs` with `value` in the place of absent modalities."""
    filled = {name: x.clone() for name, x in inputs.items()}
    filled["pixel_values"][~IMAGE_PRESENT] = value
    filled["input_features"][~AUDIO_PRESENT] = value
    return filled


def gradients(model):
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


@each_encoder
@each_case
@pytest.mark.parametrize("absent", ["image", "audio"])
def test_one_modality_alone(model_class, case, absent):
    model = make_model(model_class, **CASES[case])
    given = "audio" if absent == "image" else "image"
    inputs = drop(make_inputs(model.config, model_class), absent)
    outputs = model(**inputs, output_hidden_states=True)
    for name in outputs:
        if name.startswith(absent) and not name.endswith(("mask", "ids_restore")):
            values = outputs[name] if isinstance(outputs[name], tuple) else (outputs[name],)
            assert all(value.eq(0).all() for value in values), name
    assert len(outputs.hidden_states) == len(outputs[f"{given}_hidden_states"]) == 4
    assert all(value.isfinite().all() for name, value in outputs.items() if not name.endswith("hidden_states"))
    objective(model(**inputs)).backward()
    for name, parameter in model.named_parameters():
        if f"{absent}." in name or f"{absent}_decoder" in name:
            assert parameter.grad is None, name  # that tower did not run


@pytest.mark.parametrize(
    ("model_class", "absent"), [(cls, absent) for cls in MODEL_CLASSES for absent in optional_modalities(cls)]
)
def test_a_batch_without_a_modality_has_the_fields_and_shapes_of_others(model_class, absent):
    """So that batches can be gathered, whatever the data set holds."""
    model = make_model(model_class)
    inputs = make_inputs(model.config, model_class) | make_labels(model.config, model_class)
    flags = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        whole, lacking = model(**inputs, **flags), model(**drop(inputs, absent), **flags)
    assert list(lacking) == list(whole)
    for name, values in whole.items():
        found, values = (x if isinstance(x, tuple) else (x,) for x in (lacking[name], values))
        assert [x.shape for x in found] == [x.shape for x in values], name
        assert [x.dtype for x in found] == [x.dtype for x in values], name


@each_fusion
def test_encoder_treats_samples_of_a_batch_as_if_alone(case):
    model = make_model(DeepAVFusionModel, **CASES[case])
    inputs = fill_absent(make_inputs(model.config, batch=4), float("nan"))
    present = {"image_present": IMAGE_PRESENT, "audio_present": AUDIO_PRESENT}
    with torch.no_grad():
        outputs = model(**inputs, **present)
        for sample in range(4):
            expected = model(**alone(inputs, sample))
            for name in ENCODER_FIELDS:
                row = outputs[name][sample]
                torch.testing.assert_close(row, expected[name][0], **CLOSE, msg=lambda t, n=name: f"{n}: {t}")


@each_fusion
def test_pretraining_treats_samples_of_a_batch_as_if_alone(case):
    model = make_model(DeepAVFusionForPreTraining, **CASES[case])
    inputs = fill_absent(make_inputs(model.config, DeepAVFusionForPreTraining, batch=4), float("nan"))
    outputs = model(**inputs, image_present=IMAGE_PRESENT, audio_present=AUDIO_PRESENT)
    losses = {"image": [], "audio": []}
    for sample in range(4):
        expected = model(**alone(inputs, sample))
        for (name, collected), present in zip(losses.items(), (IMAGE_PRESENT, AUDIO_PRESENT), strict=True):
            if present[sample]:
                collected.append(expected[f"{name}_loss"])
                torch.testing.assert_close(outputs[f"{name}_logits"][sample], expected[f"{name}_logits"][0], **CLOSE)
    for name, collected in losses.items():
        assert len(collected) == 3
        torch.testing.assert_close(outputs[f"{name}_loss"], torch.stack(collected).mean(), **CLOSE)

    outputs.loss.backward()
    together = gradients(model)
    model.zero_grad()
    (torch.stack(losses["image"]).mean() + torch.stack(losses["audio"]).mean()).backward()
    torch.testing.assert_close(together, gradients(model), rtol=1e-3, atol=1e-5)


@each_encoder
@each_fusion
def test_content_of_absent_inputs_changes_nothing(model_class, case):
    model = make_model(model_class, **CASES[case]).train()
    inputs = make_inputs(model.config, model_class, batch=4)
    present = {"image_present": IMAGE_PRESENT, "audio_present": AUDIO_PRESENT}
    results = []
    for value in (0.0, float("nan"), float("inf")):
        model.zero_grad()
        outputs = model(**fill_absent(inputs, value), **present)
        objective(outputs).backward()
        results.append((outputs, gradients(model)))
    assert all(value.isfinite().all() for value in results[0][0].values())
    for outputs, grads in results[1:]:
        assert_outputs_equal(outputs, results[0][0], rtol=0, atol=0)
        torch.testing.assert_close(grads, results[0][1], rtol=0, atol=0)


@each_class
def test_all_marked_present_is_the_default(model_class):
    model = make_model(model_class)
    inputs = make_inputs(model.config, model_class)
    everyone = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        outputs = model(**inputs, image_present=everyone, audio_present=everyone)
        assert_outputs_equal(outputs, model(**inputs), **CLOSE)


@each_encoder
def test_a_sample_needs_a_modality(model_class):
    model = make_model(model_class)
    inputs = make_inputs(model.config, model_class)
    with pytest.raises(ValueError, match="Neither pixel_values nor input_features was given"):
        model()
    nothing = torch.tensor([True, False])
    with pytest.raises(ValueError, match="neither image nor audio"):
        model(**inputs, image_present=nothing, audio_present=nothing)
    with pytest.raises(ValueError, match="neither image nor audio"):
        model(**drop(inputs, "audio"), image_present=nothing)


@each_case
def test_kept_patches_alone_are_seen(case):
    """The values of other patches have no effect, and the order of the kept ones is the order of the output."""
    model = make_model(DeepAVFusionModel, **CASES[case])
    config, inputs = model.config, make_inputs(model.config)
    generator = torch.Generator().manual_seed(1)
    image_ids, audio_ids = (
        torch.rand(2, math.prod(grid), generator=generator).argsort(1)[:, : math.prod(grid) // 2]
        for grid in (config.image_grid, config.audio_grid)
    )
    with torch.no_grad():
        outputs = model(**inputs, image_ids_keep=image_ids, audio_ids_keep=audio_ids)
        reversed_order = model(**inputs, image_ids_keep=image_ids.flip(1), audio_ids_keep=audio_ids.flip(1))
        everything = model(**inputs)
        changed = {}
        for name, grid, ids in (
            ("pixel_values", model.image.patch_embed.patches, image_ids),
            ("input_features", model.audio.patch_embed.patches, audio_ids),
        ):
            patches = grid.patchify(inputs[name], channels_last=True)
            kept = torch.zeros(patches.shape[:2], dtype=torch.bool).scatter_(1, ids, True)
            changed[name] = grid.unpatchify(torch.where(kept[..., None], patches, 7.0))
            assert not torch.equal(changed[name], inputs[name])
        of_changed = model(**changed, image_ids_keep=image_ids, audio_ids_keep=audio_ids)
    assert outputs.image_last_hidden_state.shape == (2, image_ids.shape[1], 32)
    assert outputs.audio_last_hidden_state.shape == (2, audio_ids.shape[1], 32)
    assert_outputs_equal(of_changed, outputs, rtol=0, atol=0)
    for name in ENCODER_FIELDS:
        order = reversed_order[name] if name == "last_hidden_state" else reversed_order[name].flip(1)
        torch.testing.assert_close(order, outputs[name], **CLOSE)
    if config.fusion_layer_indices:
        assert not torch.allclose(outputs.last_hidden_state, everything.last_hidden_state, atol=1e-3)


@each_case
def test_keeping_every_patch_is_keeping_none_back(case):
    model = make_model(DeepAVFusionModel, **CASES[case])
    inputs = make_inputs(model.config)
    image_ids, audio_ids = (
        torch.arange(math.prod(grid)).expand(2, -1) for grid in (model.config.image_grid, model.config.audio_grid)
    )
    results = []
    for ids in ({}, {"image_ids_keep": image_ids, "audio_ids_keep": audio_ids}):
        model.zero_grad()
        outputs = model(**inputs, **ids)
        objective(outputs).backward()
        results.append((outputs, gradients(model)))
    assert_outputs_equal(results[1][0], results[0][0], **CLOSE)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm_patch_loss", [True, False, "patch", "channel", "none"])
def test_losses_per_sample(norm_patch_loss):
    """Their means are the losses of the batch; each is the mean squared error over a sample's hidden patches."""
    model = make_model(DeepAVFusionForPreTraining, norm_patch_loss=norm_patch_loss)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining, batch=3)
    values = {name: inputs[name] for name in ("pixel_values", "input_features")}
    with torch.no_grad():
        outputs = model(**inputs)
        losses = model.losses_per_sample(outputs, **values)
        alone = model.losses_per_sample(outputs, input_features=values["input_features"])
    for modality, targets in (
        ("image", model.patchify_image(values["pixel_values"])),
        ("audio", model.patchify_audio(values["input_features"])),
    ):
        found = losses[f"{modality}_loss"]
        assert found.shape == (3,)
        torch.testing.assert_close(found.mean(), outputs[f"{modality}_loss"], **CLOSE)
        hidden = outputs[f"{modality}_mask"][1].bool()
        target = targets[1][hidden]
        if norm_patch_loss not in (False, "none"):
            channels = 3 if (modality, norm_patch_loss) == ("image", "channel") else 1
            pixels = target.view(len(target), -1, channels)
            pixels = (pixels - pixels.mean(1, keepdim=True)) / (pixels.var(1, keepdim=True) + 1e-6).sqrt()
            target = pixels.view_as(target)
        expected = (outputs[f"{modality}_logits"][1][hidden] - target).square().mean()
        torch.testing.assert_close(found[1], expected, **CLOSE)
    assert list(alone) == ["audio_loss"]
    torch.testing.assert_close(alone["audio_loss"], losses["audio_loss"])


def test_losses_per_sample_leave_out_absent_ones():
    model = make_model(DeepAVFusionForPreTraining)
    inputs = fill_absent(make_inputs(model.config, DeepAVFusionForPreTraining, batch=4), float("nan"))
    present = {"image_present": IMAGE_PRESENT, "audio_present": AUDIO_PRESENT}
    values = {name: inputs[name] for name in ("pixel_values", "input_features")}
    with torch.no_grad():
        outputs = model(**inputs, **present)
        losses = model.losses_per_sample(outputs, **values, **present)
    for modality, mask in (("image", IMAGE_PRESENT), ("audio", AUDIO_PRESENT)):
        found = losses[f"{modality}_loss"]
        assert found[~mask].tolist() == [0.0]
        torch.testing.assert_close(found[mask].mean(), outputs[f"{modality}_loss"], **CLOSE)
    with pytest.raises(ValueError, match=r"image_present is torch.bool of shape \(3,\): expected"):
        model.losses_per_sample(outputs, **values, image_present=IMAGE_PRESENT[:3])


@pytest.mark.parametrize("names", [("image", "audio"), ("image",), ("audio",)])
def test_some_patch_is_visible(names):
    model = make_model(DeepAVFusionForPreTraining)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    for name in {"image", "audio"}.difference(names):
        inputs = drop(inputs, name)
    hidden = {f"num_visible_{name}_patches": 0 for name in names}
    with pytest.raises(ValueError, match="No patch is visible: expected num_visible_image_patches or"):
        model(**inputs, **hidden)


@each_class
def test_batches_without_samples_are_refused(model_class):
    model = make_model(model_class)
    inputs = {key: value[:0] for key, value in make_inputs(model.config).items()}
    with pytest.raises(ValueError, match=r"pixel_values has shape \(0, .*: expected at least one sample"):
        model(**inputs)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"audio_patch_size": 1}, "input_features"),
        ({"audio_patch_size": 1, "norm_patch_loss": "channel"}, "input_features"),
        ({"patch_size": 1, "norm_patch_loss": "channel"}, "pixel_values"),
    ],
)
def test_a_single_value_cannot_be_standardized(options, name):
    sizes = {"image_size": 4, "patch_size": 2, "num_mel_bins": 8, "spectrogram_length": 8, "audio_patch_size": 2}
    with pytest.raises(ValueError, match=f"A single value of {name} cannot be standardized"):
        make_model(DeepAVFusionForPreTraining, **{**sizes, **options})
    make_model(DeepAVFusionForPreTraining, **{**sizes, **options, "norm_patch_loss": "none"})
    make_model(DeepAVFusionModel, **{**sizes, **options})


@pytest.mark.parametrize("decoder", ["plain", "swin"])
@pytest.mark.parametrize("norm_patch_loss", ["patch", "none"])
def test_a_hidden_modality_is_reconstructed_from_the_other_one_alone(decoder, norm_patch_loss):
    types = {"image_decoder_type": decoder, "audio_decoder_type": decoder, "norm_patch_loss": norm_patch_loss}
    model = make_model(DeepAVFusionForPreTraining, **types)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining, batch=3)
    num_image, num_audio = model.config.num_patches
    outputs = model(**inputs, num_visible_image_patches=0, num_visible_audio_patches=num_audio)
    assert outputs.audio_loss is None
    assert bool(outputs.image_mask.all())
    assert not bool(outputs.audio_mask.any())
    torch.testing.assert_close(outputs.loss, outputs.image_loss)
    outputs.loss.backward()
    assert model.deepavfusion.image.patch_embed.projection.weight.grad is None
    assert bool((model.deepavfusion.audio.patch_embed.projection.weight.grad != 0).any())
    # The image itself is never seen, but for its part in the loss.
    other = {**inputs, "pixel_values": torch.randn_like(inputs["pixel_values"])}
    again = model(**other, num_visible_image_patches=0, num_visible_audio_patches=num_audio)
    torch.testing.assert_close(again.image_logits, outputs.image_logits)
    losses = model.losses_per_sample(outputs, pixel_values=inputs["pixel_values"])["image_loss"]
    torch.testing.assert_close(losses.mean(), outputs.image_loss)


def test_numbers_of_visible_patches_are_kept_and_checked():
    model = make_model(DeepAVFusionForPreTraining)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    outputs = model(**inputs, num_visible_image_patches=1, num_visible_audio_patches=3)
    assert (outputs.image_mask == 0).sum(1).tolist() == [1] * len(outputs.image_mask)
    assert (outputs.audio_mask == 0).sum(1).tolist() == [3] * len(outputs.audio_mask)
    # What is kept are the patches of the smallest noise, as with ratios.
    assert torch.equal((outputs.image_mask == 0).int().argmax(1), inputs["image_noise"].argmin(1))
    with pytest.raises(ValueError, match=r"Expected 0 to \d+ visible patches of pixel_values, got 1000"):
        model(**inputs, num_visible_image_patches=1000)
    with pytest.raises(ValueError, match="No patch is visible"):
        model(**inputs, num_visible_image_patches=0, num_visible_audio_patches=0)


@each_case
def test_patchify_and_back(case):
    model = make_model(DeepAVFusionForPreTraining, **CASES[case])
    inputs = make_inputs(model.config)
    for values, there, back in (
        (inputs["pixel_values"], model.patchify_image, model.unpatchify_image),
        (inputs["input_features"], model.patchify_audio, model.unpatchify_audio),
    ):
        assert torch.equal(back(there(values)), values)


def test_patches_are_rows_of_pixels_with_channels_last():
    model = make_model(DeepAVFusionForPreTraining, **CASES["odd_grid"])
    pixels = make_inputs(model.config)["pixel_values"]
    patch = model.patchify_image(pixels)[1, 7]  # of 3 x 5 patches: second row, third column
    assert torch.equal(patch, pixels[1, :, 16:32, 32:48].permute(1, 2, 0).flatten())


def test_frames_of_a_tube_come_first_in_its_patch():
    model = make_model(DeepAVFusionForPreTraining, **CASES["divided_video"])
    pixels = make_inputs(model.config)["pixel_values"]
    patch = model.patchify_image(pixels)[0, 16 + 6]  # of 2 x 4 x 4: second tube, second row, third column
    assert torch.equal(patch, pixels[0, 3:, :, 8:16, 16:24].permute(0, 2, 3, 1).flatten())


def test_noise_decides_what_is_kept():
    model = make_model(DeepAVFusionForPreTraining)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    with torch.no_grad():
        outputs = model(**inputs)
        fixed = {name: x for name, x in inputs.items() if not name.endswith("noise")}
        torch.manual_seed(0)
        drawn = model(**fixed)
        torch.manual_seed(0)
        again = model(**fixed)
        other = model(**fixed)
    smallest = inputs["image_noise"].argsort(1)[:, :4]
    assert outputs.image_mask.gather(1, smallest).eq(0).all()
    assert outputs.image_mask.sum() == 2 * 12
    assert_outputs_equal(again, drawn, rtol=0, atol=0)
    assert not torch.equal(other.image_mask, drawn.image_mask)


def test_predictions_for_visible_patches_are_optional():
    model = make_model(DeepAVFusionForPreTraining)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    with torch.no_grad():
        everything, hidden = model(**inputs), model(**inputs, predict_visible=False)
        no_loss = model(**inputs, return_loss=False)
    torch.testing.assert_close(hidden.loss, everything.loss)
    for name in ("image", "audio"):
        mask = everything[f"{name}_mask"].bool()
        torch.testing.assert_close(hidden[f"{name}_logits"][mask], everything[f"{name}_logits"][mask], **CLOSE)
        assert hidden[f"{name}_logits"][~mask].eq(0).all()
        assert everything[f"{name}_logits"][~mask].ne(0).all()
    assert no_loss.loss is no_loss.image_loss is no_loss.audio_loss is None
    assert torch.equal(no_loss.image_logits, everything.image_logits)


def wrong(name, error, message, **overrides):
    return pytest.param(overrides, error, message, id=name)


WRONG_INPUTS = [
    wrong("size", ValueError, r"pixel_values has shape \(2, 3, 32, 40\): expected \(batch, 3, 32, 32\)",
          pixel_values=torch.zeros(2, 3, 32, 40)),
    wrong("channels", ValueError, r"pixel_values has shape \(2, 1, 32, 32\): expected \(batch, 3, 32, 32\)",
          pixel_values=torch.zeros(2, 1, 32, 32)),
    wrong("no batch axis", ValueError, r"pixel_values has shape \(3, 32, 32\)", pixel_values=torch.zeros(3, 32, 32)),
    wrong("video", ValueError, r"pixel_values has shape \(2, 4, 3, 32, 32\)",
          pixel_values=torch.zeros(2, 4, 3, 32, 32)),
    wrong("bytes", TypeError, "pixel_values has dtype torch.uint8: expected a floating dtype",
          pixel_values=torch.zeros(2, 3, 32, 32, dtype=torch.uint8)),
    wrong("no channel", ValueError, r"input_features has shape \(2, 32, 48\): expected \(batch, 1, 32, 48\)",
          input_features=torch.zeros(2, 32, 48)),
    wrong("transposed", ValueError, r"input_features has shape \(2, 1, 48, 32\): expected \(batch, 1, 32, 48\)",
          input_features=torch.zeros(2, 1, 48, 32)),
    wrong("integers", TypeError, "input_features has dtype torch.int64",
          input_features=torch.zeros(2, 1, 32, 48, dtype=torch.long)),
    wrong("batches", ValueError, "pixel_values has 2 samples and input_features 3",
          input_features=torch.zeros(3, 1, 32, 48)),
    wrong("presence dtype", ValueError, r"image_present is torch.int64 of shape \(2,\): expected torch.bool",
          image_present=torch.tensor([1, 1])),
    wrong("presence shape", ValueError, r"audio_present is torch.bool of shape \(2, 1\)",
          audio_present=torch.ones(2, 1, dtype=torch.bool)),
]  # fmt: skip


@each_class
@pytest.mark.parametrize(("overrides", "error", "message"), WRONG_INPUTS)
def test_wrong_inputs_are_named(model_class, overrides, error, message):
    model = make_model(model_class)
    inputs = {name: x for name, x in make_inputs(model.config, model_class).items() if not name.endswith("noise")}
    with pytest.raises(error, match=message):
        model(**{**inputs, **overrides})


@pytest.mark.parametrize(
    ("name", "ids", "got"),
    [
        ("image_ids_keep", torch.zeros(2, 4), r"torch.float32 of shape \(2, 4\)"),
        ("image_ids_keep", torch.zeros(4, dtype=torch.long), r"shape \(4,\)"),
        ("image_ids_keep", torch.zeros(1, 4, dtype=torch.long), r"shape \(1, 4\)"),
        ("audio_ids_keep", torch.zeros(3, 4, dtype=torch.long), r"shape \(3, 4\)"),
    ],
)
def test_wrong_kept_indices_are_named(name, ids, got):
    model = make_model(DeepAVFusionModel)
    with pytest.raises(ValueError, match=rf"{got}: expected torch.int64 of shape \(2, kept\)"):
        model(**make_inputs(model.config), **{name: ids})


def test_wrong_noise_is_named():
    model = make_model(DeepAVFusionForPreTraining)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining)
    with pytest.raises(ValueError, match=r"noise of pixel_values has shape \(2, 15\): expected \(2, 16\)"):
        model(**{**inputs, "image_noise": torch.rand(2, 15)})


def test_a_frame_is_no_video():
    model = make_model(DeepAVFusionModel, **CASES["joint_video"])
    inputs = make_inputs(model.config)
    with pytest.raises(ValueError, match=r"pixel_values has shape \(2, 3, 32, 32\): expected \(batch, 4, 3, 32, 32\)"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][:, 0]})


def test_a_mask_ratio_must_leave_patches_on_both_sides():
    with pytest.raises(ValueError, match="keeps 0 of the 16 patches of pixel_values"):
        DeepAVFusionForPreTraining(tiny_config(image_mask_ratio=0.95))
    with pytest.raises(ValueError, match="keeps 24 of the 24 patches of input_features"):
        DeepAVFusionForPreTraining(tiny_config(audio_mask_ratio=0.0))
