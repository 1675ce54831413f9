"""Features for retrieval: pooled streams, one modality at a time or both."""

import pytest
import torch

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
    for name, (tokens, features) in expected.items():
        assert features.shape == (3, 32), name
        torch.testing.assert_close(features, tokens.mean(dim=1), **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


@torch.no_grad()
def test_lengths_of_one(model):
    inputs = make_inputs(model.config, batch=3)
    image, audio = ({name: x} for name, x in inputs.items())
    for function, given in (
        (model.get_image_features, image),
        (model.get_audio_features, audio),
        (model.get_fusion_features, inputs),
    ):
        plain, unit = function(**given), function(**given, normalize=True)
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
        expected = function(inputs[name])
        given = inputs[name].clone()
        given[1] = float("nan")
        for normalize in (False, True):
            features = function(given, **{key: present}, normalize=normalize)
            assert features[1].eq(0).all()
            assert features.isfinite().all()
        torch.testing.assert_close(function(given, **{key: present})[[0, 2]], expected[[0, 2]], **CLOSE)
        with pytest.raises(ValueError, match=f"{key} is torch.int64"):
            function(given, **{key: present.long()})


@torch.no_grad()
def test_fusion_features_of_samples_that_lack_one(model):
    inputs = make_inputs(model.config, batch=2)
    mixed = model.get_fusion_features(**inputs, audio_present=torch.tensor([True, False]))
    torch.testing.assert_close(mixed[:1], model.get_fusion_features(**inputs)[:1], **CLOSE)
    torch.testing.assert_close(mixed[1:], model.get_fusion_features(inputs["pixel_values"])[1:], **CLOSE)
    with pytest.raises(ValueError, match="Neither pixel_values nor input_features"):
        model.get_fusion_features()


@torch.no_grad()
def test_of_heads_and_of_models_that_return_tuples():
    head = make_model(DeepAVFusionForSoundLocalization)
    inputs = make_inputs(head.config)
    features = head.deepavfusion.get_image_features(inputs["pixel_values"])
    head.config.return_dict = False
    assert torch.equal(head.deepavfusion.get_image_features(inputs["pixel_values"]), features)
    assert head.deepavfusion.get_audio_features(inputs["input_features"]).shape == (2, 32)
