"""Heads: losses, missing modalities, frozen encoders, saving and loading. Localization has a file of its own."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForMaskGeneration,
    AutoModelForSemanticSegmentation,
    AutoModelForVideoClassification,
)

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
)
from deepavfusion.classification_deepavfusion import DeepAVFusionMaskedBatchNorm
from deepavfusion.separation_deepavfusion import separation_target
from deepavfusion.unet_deepavfusion import tap_layers
from tests.tiny import WIDE


def make(cls, **overrides):
    torch.manual_seed(0)
    return cls(DeepAVFusionConfig(**{**WIDE, **overrides})).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.randn(3, 3, 32, 32, generator=generator),
        "input_features": torch.randn(3, 1, 32, 48, generator=generator),
    }


def test_the_main_input_is_what_is_separated_or_seen():
    """transformers counts samples by it, in batches that may lack the others."""
    assert DeepAVFusionForSourceSeparation.main_input_name == "input_features"
    others = (DeepAVFusionModel, DeepAVFusionForPreTraining, DeepAVFusionForSemanticSegmentation)
    assert {cls.main_input_name for cls in others} == {"pixel_values"}


def test_classification_logits_are_the_mean_of_the_streams(inputs):
    model = make(DeepAVFusionForAudioVisualClassification, num_labels=5)
    outputs = model(**inputs, labels=torch.tensor([0, 4, 2]))
    streams = torch.stack([outputs.image_logits, outputs.audio_logits, outputs.fusion_logits])
    torch.testing.assert_close(outputs.logits, streams.mean(dim=0))
    expected = torch.nn.functional.cross_entropy(outputs.logits, torch.tensor([0, 4, 2]))
    torch.testing.assert_close(outputs.loss, expected)


def test_per_stream_loss_is_the_mean_of_three(inputs):
    labels = torch.tensor([0, 4, 2])
    model = make(DeepAVFusionForAudioVisualClassification, num_labels=5, classifier_loss="per_stream")
    outputs = model(**inputs, labels=labels)
    losses = [
        torch.nn.functional.cross_entropy(logits, labels)
        for logits in (outputs.image_logits, outputs.audio_logits, outputs.fusion_logits)
    ]
    torch.testing.assert_close(outputs.loss, sum(losses) / 3)


def test_multi_label_and_soft_labels_differ(inputs):
    labels = torch.softmax(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    model = make(DeepAVFusionForAudioVisualClassification, num_labels=5)
    outputs = model(**inputs, labels=labels)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels)
    torch.testing.assert_close(outputs.loss, binary)
    assert model.config.problem_type == "multi_label_classification"  # so that pipelines give what was trained
    model.config.problem_type = "single_label_classification"
    soft = torch.nn.functional.cross_entropy(outputs.logits, labels)
    torch.testing.assert_close(model(**inputs, labels=labels).loss, soft)
    assert model.config.problem_type == "single_label_classification"
    with pytest.raises(ValueError, match=r"expected integers of shape \(3,\) or floats of shape \(3, 5\)"):
        model(**inputs, labels=torch.zeros(3, 4))


@pytest.mark.parametrize("input_norm", [False, True])
def test_classification_of_samples_that_lack_a_modality(inputs, input_norm):
    """A sample gets the same logits in a mixed batch as alone, whatever its absent modality holds."""
    model = make(DeepAVFusionForAudioVisualClassification, num_labels=5, classifier_input_norm=input_norm)
    image_present = torch.tensor([True, False, True])
    audio_present = torch.tensor([True, True, False])
    inputs["pixel_values"][1] = float("nan")
    mixed = model(**inputs, image_present=image_present, audio_present=audio_present)
    audio_only = model(input_features=inputs["input_features"][1:2])
    image_only = model(pixel_values=inputs["pixel_values"][2:])
    torch.testing.assert_close(mixed.logits[1:2], audio_only.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed.logits[2:], image_only.logits, rtol=1e-4, atol=1e-5)
    assert not audio_only.image_logits.any()
    assert not mixed.image_logits[1].any()
    torch.testing.assert_close(audio_only.logits, (audio_only.audio_logits + audio_only.fusion_logits) / 2)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_batch_statistics_are_of_the_samples_that_are_present(count, training):
    """Of fewer than two there are none: the running ones normalize, and stay."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 8, generator=generator).requires_grad_()
    present = torch.tensor([3, 1, 0, 2]) < count
    norm = DeepAVFusionMaskedBatchNorm(8, eps=1e-6, affine=False).train(training)
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2.0, generator=generator)
    expected = torch.nn.BatchNorm1d(8, eps=1e-6, affine=False).train(training and count >= 2)
    expected.load_state_dict(norm.state_dict())
    wanted = expected(states[present])
    weights = torch.randn(4, 8, generator=generator)
    (wanted_gradient,) = torch.autograd.grad((wanted * weights[present]).sum(), states)

    found = norm(states, present)
    (gradient,) = torch.autograd.grad((found[present] * weights[present]).sum(), states)
    torch.testing.assert_close(found[present], wanted)
    torch.testing.assert_close(gradient, wanted_gradient)
    torch.testing.assert_close(dict(norm.state_dict()), dict(expected.state_dict()))
    assert found.isfinite().all()
    if count == 4:
        torch.testing.assert_close(norm(states), expected(states))


@pytest.mark.parametrize("audio_present", [[False] * 3, [True, False, False], [True, True, False], [True] * 3])
@pytest.mark.parametrize("batch", [3, 1])
def test_a_probe_trains_on_any_number_of_samples_with_sound(inputs, batch, audio_present):
    model = make(DeepAVFusionForAudioVisualClassification, num_labels=5, classifier_input_norm=True).train()
    outputs = model(
        **{name: values[:batch] for name, values in inputs.items()},
        labels=torch.tensor([0, 1, 2])[:batch],
        audio_present=torch.tensor(audio_present)[:batch],
    )
    outputs.loss.backward()
    assert outputs.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(buffer.isfinite().all() for buffer in model.buffers())
    updates = int(model.audio_classifier.norm.num_batches_tracked)
    assert updates == (batch == 3 and sum(audio_present) >= 2)


def test_bias_from_class_frequencies():
    model = make(DeepAVFusionForAudioVisualClassification, num_labels=2)
    model.init_bias_from_frequencies(torch.tensor([0.5, 0.0]))
    expected = torch.tensor([0.0, -6.908755])  # log(0.001 / 1.001)
    for classifier in (model.image_classifier, model.audio_classifier, model.fusion_classifier):
        torch.testing.assert_close(classifier.dense.bias.detach(), expected)
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        model.init_bias_from_frequencies(torch.zeros(3))


def test_frozen_encoder_stays_in_eval_mode(inputs):
    model = make(DeepAVFusionForAudioVisualClassification, num_labels=5, drop_path_rate=0.5, classifier_input_norm=True)
    model.freeze_encoder()
    model.train()
    assert model.training
    assert model.fusion_classifier.norm.training
    assert not any(module.training for module in model.deepavfusion.modules())
    model(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(p.grad is None for p in model.deepavfusion.parameters())
    assert all(p.grad is not None for n, p in model.named_parameters() if "classifier" in n)


def test_separation_targets_by_hand():
    source, mixture = torch.tensor([1.0, 4.0, 0.0]), torch.tensor([2.0, 2.0, 0.0])
    assert separation_target(source, mixture, "binary").tolist() == [0.0, 1.0, 0.0]
    torch.testing.assert_close(separation_target(source, mixture, "ratio"), torch.tensor([1 / 3, 2 / 3, 0.0]))
    assert separation_target(source, mixture, "ideal_ratio").tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("audio_patch_size", [8, 16, 12])
def test_separation(inputs, audio_patch_size):
    model = make(DeepAVFusionForSourceSeparation, audio_patch_size=audio_patch_size, num_mel_bins=48)
    features = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    outputs = model(inputs["pixel_values"][:2], features, labels=features)
    assert outputs.logits.shape == features.shape
    all_of_it = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, torch.ones_like(features))
    torch.testing.assert_close(outputs.loss, all_of_it)  # the source is the mixture: the ideal mask is 1 everywhere

    without_frame = model(input_features=features)
    mixed = model(inputs["pixel_values"][:2], features, image_present=torch.tensor([True, False]))
    torch.testing.assert_close(mixed.logits[1], without_frame.logits[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed.logits[0], outputs.logits[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="needs the mixture"):
        model(pixel_values=inputs["pixel_values"])


@pytest.mark.parametrize("condition", ["image", "fusion", "image_alone"])
def test_separation_is_conditioned_on_the_configured_tokens(inputs, condition):
    model = make(DeepAVFusionForSourceSeparation, separation_condition=condition)
    seen = []
    model.condition_projections[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    outputs = model(**inputs)
    alone = {"pixel_values": inputs["pixel_values"]}
    encoded = model.deepavfusion(**(alone if condition == "image_alone" else inputs), output_hidden_states=True)
    states = encoded.image_hidden_states if condition == "image" else encoded.hidden_states
    torch.testing.assert_close(seen[0], model.condition_norm(states[-1]).mean(dim=1))

    pixels = inputs["pixel_values"].clone()
    pixels[1] = torch.nan  # what an absent frame holds has no effect
    mixed = model(pixels, inputs["input_features"], image_present=torch.tensor([True, False, True]))
    without_frame = model(input_features=inputs["input_features"])
    torch.testing.assert_close(mixed.logits[1], without_frame.logits[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed.logits[0], outputs.logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", ["fusion", "image_alone"])
def test_separation_by_fusion_tokens_needs_fusion_layers(condition):
    with pytest.raises(ValueError, match=f"separation_condition is '{condition}', but there are no fusion layers"):
        make(DeepAVFusionForSourceSeparation, separation_condition=condition, fusion_layers="none")


@pytest.mark.parametrize("scales", [1, 2, 3, 9])
def test_positions_of_a_coarse_separation_mask_predict_the_bins_that_they_cover(inputs, scales):
    model = make(DeepAVFusionForSourceSeparation, separation_scales=scales)  # patches of 8 x 8: three scales at most
    side = 2 ** max(3 - scales, 0)
    with torch.no_grad():
        model.predictor.weight.zero_()
        model.predictor.bias.copy_(torch.arange(side**2))
    outputs = model(**inputs)
    assert outputs.logits.shape == inputs["input_features"].shape
    block = torch.arange(float(side**2)).view(side, side)
    torch.testing.assert_close(outputs.logits[0, 0], block.repeat(32 // side, 48 // side))
    model(**inputs, labels=inputs["input_features"]).loss.backward()
    assert model.predictor.bias.grad.shape == (side**2,)


@pytest.mark.parametrize("width", [16, 48])
def test_a_narrow_segmentation_head_has_the_channels_of_its_width_at_least(inputs, width):
    model = make(DeepAVFusionForSemanticSegmentation, segmentation_width=width)  # hidden size 128
    assert model.unet.widths == [128, 64, max(width, 32)]
    assert (model.head.out_channels, model.predictor.in_channels) == (width, width)
    labels = torch.zeros(inputs["pixel_values"].shape[0], *inputs["pixel_values"].shape[2:], dtype=torch.long)
    outputs = model(**inputs, labels=labels)
    assert outputs.logits.shape[2:] == inputs["pixel_values"].shape[2:]
    outputs.loss.backward()
    with pytest.raises(ValueError, match="hidden_size is 128: expected at least the segmentation_width 256"):
        make(DeepAVFusionForSemanticSegmentation, segmentation_width=256)


@pytest.mark.parametrize("cls", [DeepAVFusionForSourceSeparation, DeepAVFusionForSemanticSegmentation])
def test_group_norm_keeps_the_samples_of_a_training_batch_apart(inputs, cls):
    torch.manual_seed(0)
    together = {}
    for norm in ("batch", "group"):
        model = make(cls, unet_norm=norm).train()
        alone = model(**{name: values[:1] for name, values in inputs.items()}).logits
        together[norm] = torch.allclose(model(**inputs).logits[:1], alone, atol=1e-4)
    assert together == {"batch": False, "group": True}


@pytest.mark.parametrize(("patch_size", "image_size"), [(8, 32), (16, 32), (14, 42)])
def test_segmentation(inputs, patch_size, image_size):
    model = make(DeepAVFusionForSemanticSegmentation, patch_size=patch_size, image_size=image_size, num_labels=3)
    pixels = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, (2, image_size, image_size), generator=torch.Generator().manual_seed(0))
    outputs = model(pixels, inputs["input_features"][:2], labels=labels)
    assert outputs.logits.shape == (2, 3, image_size, image_size)
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, labels))
    silent = model(pixels)
    mixed = model(pixels, inputs["input_features"][:2], audio_present=torch.tensor([True, False]))
    torch.testing.assert_close(mixed.logits[1], silent.logits[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="needs the frame"):
        model(input_features=inputs["input_features"])
    with pytest.raises(ValueError, match="labels have shape"):
        model(pixels, inputs["input_features"][:2], labels=labels[:, :8])


def test_ignored_pixels_do_not_enter_the_segmentation_loss(inputs):
    model = make(DeepAVFusionForSemanticSegmentation, num_labels=3)
    labels = torch.randint(3, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    logits = model(**inputs).logits
    labels[:, :20], labels[:, 20:24] = 255, -100
    expected = torch.nn.functional.cross_entropy(logits[:, :, 24:], labels[:, 24:])
    torch.testing.assert_close(model(**inputs, labels=labels).loss, expected)
    assert model(**inputs, labels=torch.full_like(labels, 255)).loss == 0
    with pytest.raises(ValueError, match=r"labels include 3: expected class indices from 0 to 2, or -100 or 255 for"):
        model(**inputs, labels=labels.clamp(0, 3))


def test_tap_layers_of_the_published_sizes():
    assert tap_layers(12, 5) == [0, 2, 5, 8, 11]
    assert tap_layers(12, 4) == [0, 3, 7, 11]


HEADS = {
    DeepAVFusionForAudioVisualClassification: (AutoModelForVideoClassification, AutoModelForAudioClassification),
    DeepAVFusionForSourceSeparation: (AutoModelForAudioFrameClassification,),
    DeepAVFusionForSemanticSegmentation: (AutoModelForSemanticSegmentation,),
    DeepAVFusionForSoundLocalization: (AutoModelForMaskGeneration,),
}
each_head = pytest.mark.parametrize("cls", HEADS, ids=lambda cls: cls.__name__)


@each_head
def test_saving_training_and_auto_classes(tmp_path, inputs, cls):
    model = make(cls)
    labels = {
        DeepAVFusionForAudioVisualClassification: torch.tensor([0, 1, 1]),
        DeepAVFusionForSourceSeparation: inputs["input_features"] - 1,
        DeepAVFusionForSemanticSegmentation: torch.ones(3, 32, 32, dtype=torch.long),
        DeepAVFusionForSoundLocalization: torch.ones(3, 32, 32),
    }[cls]
    model.train()(**inputs, labels=labels).loss.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    if cls in (DeepAVFusionForAudioVisualClassification, DeepAVFusionForSoundLocalization):
        assert not idle
    else:  # the taps come before the final norms, and nobody reads what the last fusion layer gives
        after_taps = ("image.norm", "audio.norm", "fusion_norm", "fusion_layers.1")
        assert all(name.startswith(tuple(f"deepavfusion.{part}." for part in after_taps)) for name in idle)
    model.eval().save_pretrained(tmp_path)
    expected = model(**inputs).logits
    for auto in HEADS[cls]:
        again = auto.from_pretrained(tmp_path)
        assert type(again) is cls
        torch.testing.assert_close(again(**inputs).logits, expected)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is DeepAVFusionModel
    assert torch.equal(encoder.fusion_tokens, model.deepavfusion.fusion_tokens)


@each_head
def test_starts_from_a_pre_training(tmp_path, cls):
    """The whole encoder is loaded, the decoders are ignored without a warning, and only the head is new."""
    pretrained = make(DeepAVFusionForPreTraining, decoder_num_hidden_layers=1)
    pretrained.save_pretrained(tmp_path)
    model, report = cls.from_pretrained(tmp_path, num_labels=4, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert report["missing_keys"]
    assert not [name for name in report["missing_keys"] if name.startswith("deepavfusion.")]
    for name, value in pretrained.deepavfusion.state_dict().items():
        assert torch.equal(model.deepavfusion.state_dict()[name], value), name
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("cls", [DeepAVFusionForAudioVisualClassification, DeepAVFusionForSemanticSegmentation])
def test_another_number_of_labels(tmp_path, inputs, cls):
    """Refused unless mismatches are allowed; then only the output layer is new."""
    model = make(cls, num_labels=5)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch|ignore_mismatched_sizes"):
        cls.from_pretrained(tmp_path, num_labels=3)
    other, report = cls.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True, output_loading_info=True)
    assert other(**inputs).logits.shape[:2] == (3, 3)
    mismatched = {entry[0] for entry in report["mismatched_keys"]}
    last = {name for name, value in model.state_dict().items() if value.ndim and value.shape[0] == 5}
    assert mismatched == last
    kept = other.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items() if name not in last)


@each_head
def test_inputs_of_another_size(tmp_path, inputs, cls):
    """Positions are recomputed, no head depends on the grid: a checkpoint loads for larger frames and spectrograms."""
    model = make(cls)
    model.save_pretrained(tmp_path)
    larger, report = cls.from_pretrained(tmp_path, image_size=[48, 64], spectrogram_length=96, output_loading_info=True)
    assert not any(report.values()), report
    expected = {
        DeepAVFusionForAudioVisualClassification: (2, 2),
        DeepAVFusionForSourceSeparation: (2, 1, 32, 96),
        DeepAVFusionForSemanticSegmentation: (2, 2, 48, 64),
        DeepAVFusionForSoundLocalization: (2, 6, 8),
    }[cls]
    logits = larger(torch.randn(2, 3, 48, 64), torch.randn(2, 1, 32, 96)).logits
    assert logits.shape == expected
    assert logits.isfinite().all()


@each_head
def test_frozen_encoders_of_all_heads(inputs, cls):
    model = make(cls, drop_path_rate=0.5)
    model.freeze_encoder()
    model.train()
    assert not any(module.training for module in model.deepavfusion.modules())
    model(**inputs).logits.square().mean().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("deepavfusion.")}
