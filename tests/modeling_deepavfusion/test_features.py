"""Features for retrieval: pooled streams, one modality at a time or both."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from deepavfusion import DeepAVFusionForSoundLocalization, DeepAVFusionModel

from .cases import CASES, make_inputs, make_model

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def model():
    return make_model(DeepAVFusionModel)


@pytest.mark.parametrize("case", ["factorized", "dense", "token", "no_fusion", "divided_video", "odd_grid"])
@torch.no_grad()
def test_means_of_streams_encoded_alone(case):
    model = make_model(DeepAVFusionModel, **CASES[case])
    inputs = make_inputs(model.config, batch=3)
    image, audio = ({name: x} for name, x in inputs.items())
    expected = {
        "image": (model(**image).image_last_hidden_state, model.get_image_features(**image)),
        "audio": (model(**audio).audio_last_hidden_state, model.get_audio_features(**audio)),
        "fusion of both": (model(**inputs).last_hidden_state, model.get_fusion_features(**inputs)),
        "fusion of image": (model(**image).last_hidden_state, model.get_fusion_features(**image)),
        "fusion of audio": (model(**audio).last_hidden_state, model.get_fusion_features(**audio)),
    }
    for name, (tokens, outputs) in expected.items():
        assert isinstance(outputs, BaseModelOutputWithPooling)
        assert list(outputs) == ["last_hidden_state", "pooler_output"], name
        assert outputs.pooler_output.shape == (3, 32), name
        for found, want in ((outputs.last_hidden_state, tokens), (outputs.pooler_output, tokens.mean(dim=1))):
            torch.testing.assert_close(found, want, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


@torch.no_grad()
def test_what_the_layers_give_on_request(model):
    inputs = make_inputs(model.config)
    flags = {"output_hidden_states": True, "output_attentions": True}
    image, audio = ({name: x} for name, x in inputs.items())
    for function, given, stream in (
        (model.get_image_features, image, "image_"),
        (model.get_audio_features, audio, "audio_"),
        (model.get_fusion_features, inputs, ""),
    ):
        outputs, expected = function(**given, **flags), model(**given, **flags)
        for name in ("hidden_states", "attentions"):
            torch.testing.assert_close(outputs[name], expected[stream + name])
        as_tuple = function(**given, return_dict=False)
        assert isinstance(as_tuple, tuple)
        torch.testing.assert_close(as_tuple, outputs.to_tuple()[:2])


@torch.no_grad()
def test_lengths_of_one(model):
    inputs = make_inputs(model.config, batch=3)
    image, audio = ({name: x} for name, x in inputs.items())
    for function, given in (
        (model.get_image_features, image),
        (model.get_audio_features, audio),
        (model.get_fusion_features, inputs),
    ):
        plain, unit = function(**given).pooler_output, function(**given, normalize=True).pooler_output
        torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))
        assert (plain.norm(dim=1) - 1).abs().max() > 0.01


@torch.no_grad()
def test_samples_that_lack_the_modality_get_zeros(model):
    inputs = make_inputs(model.config, batch=3)
    present = torch.tensor([True, False, True])
    for name, function, key in (
        ("pixel_values", model.get_image_features, "image_present"),
        ("input_features", model.get_audio_features, "audio_present"),
    ):
        expected = function(inputs[name]).pooler_output
        given = inputs[name].clone()
        given[1] = float("nan")
        for normalize in (False, True):
            features = function(given, **{key: present}, normalize=normalize).pooler_output
            assert features[1].eq(0).all()
            assert features.isfinite().all()
        features = function(given, **{key: present}).pooler_output
        torch.testing.assert_close(features[[0, 2]], expected[[0, 2]], **CLOSE)
        with pytest.raises(ValueError, match=f"{key} is torch.int64"):
            function(given, **{key: present.long()})


@torch.no_grad()
def test_fusion_features_of_samples_that_lack_one(model):
    inputs = make_inputs(model.config, batch=2)
    mixed = model.get_fusion_features(**inputs, audio_present=torch.tensor([True, False])).pooler_output
    both, image = model.get_fusion_features(**inputs), model.get_fusion_features(inputs["pixel_values"])
    torch.testing.assert_close(mixed[:1], both.pooler_output[:1], **CLOSE)
    torch.testing.assert_close(mixed[1:], image.pooler_output[1:], **CLOSE)
    with pytest.raises(ValueError, match="Neither pixel_values nor input_features"):
        model.get_fusion_features()


@torch.no_grad()
def test_of_heads_and_of_models_that_return_tuples():
    head = make_model(DeepAVFusionForSoundLocalization)
    inputs = make_inputs(head.config)
    features = head.deepavfusion.get_image_features(inputs["pixel_values"])
    head.config.return_dict = False
    as_tuple = head.deepavfusion.get_image_features(inputs["pixel_values"])
    assert torch.equal(as_tuple[1], features.pooler_output)
    assert head.deepavfusion.get_audio_features(inputs["input_features"])[1].shape == (2, 32)
