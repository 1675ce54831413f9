"""Frozen weights, as below adapters: gradients reach what is trained, and batch norms stay as they are."""

import copy

import pytest
import torch
from torch import nn

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
)
from deepavfusion.unet_deepavfusion import DeepAVFusionDoubleConv

from .cases import MODEL_CLASSES, make_inputs, make_labels, make_model, objective

UNET_CLASSES = [DeepAVFusionForSourceSeparation, DeepAVFusionForSemanticSegmentation]

each_class = pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)
each_unet = pytest.mark.parametrize("model_class", UNET_CLASSES, ids=lambda cls: cls.__name__)


def training_inputs(model):
    return make_inputs(model.config, type(model)) | make_labels(model.config, type(model))


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers() if "running" in name or "batches" in name}


@each_class
@pytest.mark.parametrize("stream", ["image", "audio", "fusion"])
def test_reentrant_checkpoints_of_a_frozen_model_pass_gradients_on(model_class, stream):
    """What trains inside a checkpointed layer gets none if the layer's inputs need none: adapters would stay zero."""
    model = make_model(model_class).train()
    model.requires_grad_(False)
    encoder = model.base_model
    layers = encoder.fusion_layers["0"] if stream == "fusion" else getattr(encoder, stream).layers[0]
    trained = layers.mlp.fc1.weight.requires_grad_(True)
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    objective(model(**training_inputs(model))).backward()
    assert trained.grad.abs().max() > 0
    model.disable_input_require_grads()
    assert not any(module._forward_hooks for module in model.input_embeddings())


@each_class
def test_input_embeddings(model_class):
    model = make_model(model_class)
    encoder = model.base_model
    assert model.get_input_embeddings() is encoder.image.patch_embed.projection
    assert model.input_embeddings()[1:] == (encoder.audio.patch_embed.projection, encoder.fusion_embed)
    replacement = copy.deepcopy(model.get_input_embeddings())
    model.set_input_embeddings(replacement)
    assert model.get_input_embeddings() is replacement


@each_unet
def test_frozen_batch_norms_keep_their_statistics_and_use_them(model_class):
    model = make_model(model_class)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    before, inputs = statistics(model), make_inputs(model.config, model_class)
    assert before
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(model.train()(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(statistics(model), before, rtol=0, atol=0)
    model.requires_grad_(True)
    model(**inputs)
    assert all(not torch.equal(value, before[name]) for name, value in statistics(model).items())


def test_a_frozen_classifier_keeps_the_statistics_of_its_norm():
    model = make_model(DeepAVFusionForAudioVisualClassification, classifier_input_norm=True).train()
    inputs, before = training_inputs(model), statistics(model)
    model.audio_classifier.requires_grad_(False)
    model(**inputs)
    changed = {name.split(".")[0] for name, value in statistics(model).items() if not torch.equal(value, before[name])}
    assert changed == {"image_classifier", "fusion_classifier"}


@each_unet
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_batch_norms_count_a_batch_once(model_class, reentrant):
    model = make_model(model_class).train()
    inputs, twin = training_inputs(model), copy.deepcopy(model)
    twin.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert all(m.gradient_checkpointing for m in twin.modules() if isinstance(m, DeepAVFusionDoubleConv))
    for each in (model, twin):
        each(**inputs).loss.backward()
    torch.testing.assert_close(statistics(twin), statistics(model))
    (count,) = {int(value) for name, value in statistics(twin).items() if "batches" in name}
    assert count == 1


@pytest.mark.slow  # half a minute of compilation
def test_flex_attention_equals_sdpa():
    model = make_model(DeepAVFusionModel, num_hidden_layers=1)
    inputs = make_inputs(model.config, batch=1)
    with torch.no_grad():
        expected = model(**inputs)
        model.set_attn_implementation("flex_attention")
        outputs = model(**inputs)
    torch.testing.assert_close(outputs.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-4)
