"""Shortcuts with the results of the plain computation: absorbed and grouped projections, streams that are not read."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
)
from deepavfusion import attention_deepavfusion as attention
from deepavfusion import projections_deepavfusion as projections
from deepavfusion import vit_deepavfusion as vit
from deepavfusion.training.experiments.measurement import CountOperations

from ..tiny import WIDE
from .cases import CASES, make_inputs, make_model

# Wide heads and few queries: the aggregation, and dense fusion, absorb their projections.
FEW_QUERIES = {"num_image_aggregation_tokens": 1, "num_audio_aggregation_tokens": 1, "num_fusion_attention_heads": 1}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def absorbed(monkeypatch):
    """Arguments of each use of absorbed projections."""
    calls, function = [], attention._attend_absorbed
    monkeypatch.setattr(attention, "_attend_absorbed", lambda *args: calls.append(args) or function(*args))
    return calls


def noise(config, batch=2):
    """What determines the masks of a batch."""
    torch.manual_seed(0)
    names = ("image_noise", "audio_noise")
    return {name: torch.rand(batch, count) for name, count in zip(names, config.num_patches, strict=True)}


def run(module, query, states, *, plain=False):
    """Output and gradients of an attention module; `plain` asks for weights, which need the plain computation."""
    module.zero_grad()
    query, states = (x.clone().requires_grad_() for x in (query, states))
    output, weights = module(query, states, need_weights=plain)
    output.square().sum().backward()
    assert (weights is not None) == plain
    gradients = {name: x.grad for name, x in module.named_parameters()}
    return output, query.grad, states.grad, gradients


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_absorbed_projections_give_what_plain_ones_give(heads, absorbed):
    torch.manual_seed(0)
    config = make_model(DeepAVFusionModel).config
    module = attention.DeepAVFusionAttention(config, 32, heads).double().train()
    query, states = torch.randn(3, 2, 32).double(), torch.randn(3, 40, 32).double()
    found, expected = run(module, query, states), run(module, query, states, plain=True)
    assert len(absorbed) == 1
    torch.testing.assert_close(found, expected)


def test_shapes_decide():
    linear = nn.Linear(768, 768)
    for queries, states, expected in ((8, 196, True), (8, 49, True), (1, 20, True), (60, 60, False), (16, 8, False)):
        shapes = (torch.empty(1, queries, 768), torch.empty(1, states, 768))
        assert attention._absorbs(*shapes, linear, linear, 12) is expected, (queries, states)


@pytest.mark.parametrize(("amx", "expected"), [(True, [True, True, True, False]), (False, [True] * 4)])
def test_precision_and_gradients_decide_on_cpus_with_amx(amx, expected, monkeypatch):
    monkeypatch.setattr(attention, "_AMX", amx)
    linear, states, found = nn.Linear(768, 768), torch.empty(1, 196, 768), []
    for dtype in (torch.float32, torch.bfloat16):
        for gradients in (False, True):
            query = torch.empty(1, 8, 768, dtype=dtype, requires_grad=gradients)
            found.append(attention._absorbs(query, states, linear, linear, 12))
    assert found == expected


class Adapter(nn.Linear):
    """A layer that does more than its weight says."""

    def forward(self, states):
        return super().forward(states) + 1.0


@pytest.mark.parametrize("change", ["subclass", "hook", "pre-hook", "patched forward", "parametrization", "dropout"])
def test_plain_projections_where_modules_do_more(change, absorbed):
    torch.manual_seed(0)
    config = make_model(DeepAVFusionModel, attention_probs_dropout_prob=0.1 if change == "dropout" else 0.0).config
    module = attention.DeepAVFusionAttention(config, 32, 1).train(change == "dropout")
    query, states = torch.randn(2, 1, 32), torch.randn(2, 40, 32)
    before = module.eval()(query, states)[0]
    assert len(absorbed) == 1
    absorbed.clear()
    module.train(change == "dropout")
    if change == "subclass":
        module.v_proj.__class__ = Adapter
    elif change == "hook":
        module.v_proj.register_forward_hook(lambda module, args, output: output + 1.0)
    elif change == "pre-hook":
        module.v_proj.register_forward_pre_hook(lambda module, args: (args[0] + 1.0,))
    elif change == "patched forward":
        forward = module.v_proj.forward
        module.v_proj.forward = lambda states: forward(states) + 1.0
    elif change == "parametrization":
        parametrizations.weight_norm(module.v_proj)
        module.v_proj.parametrizations.weight.original0.data.mul_(2)
    after = module(query, states)[0]
    assert not absorbed
    assert (after - before).abs().max() > 1e-2


@pytest.mark.parametrize("fusion_type", ["factorized", "dense"])
@torch.no_grad()
def test_encoders_absorb_projections_by_shape(fusion_type, absorbed, monkeypatch):
    sizes = {**FEW_QUERIES, "num_fusion_tokens": 1, "fusion_type": fusion_type}
    model = make_model(DeepAVFusionModel, **sizes)
    inputs = {**make_inputs(model.config, batch=3), "audio_present": torch.tensor([True, False, True])}
    found = model(**inputs)
    assert absorbed
    monkeypatch.setattr(attention, "_absorbs", lambda *args: False)
    torch.testing.assert_close(found.to_tuple(), model(**inputs).to_tuple(), **CLOSE)


@torch.no_grad()
def test_autocast_computes_absorbed_products_in_bfloat16(absorbed):
    torch.manual_seed(0)
    module = attention.DeepAVFusionAttention(make_model(DeepAVFusionModel).config, 32, 1)
    query, states = torch.randn(2, 1, 32), torch.randn(2, 40, 32)
    exact = module(query, states)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = module(query, states)[0]
    assert output.dtype == torch.bfloat16
    assert len(absorbed) == 2
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("queries", [slice(3, None), slice(-4, -1), slice(5)])
def test_rows_that_are_not_requested_are_not_computed(queries, context, grouped, request):
    if grouped:
        request.getfixturevalue("few_kernels")
    torch.manual_seed(0)
    config = make_model(DeepAVFusionModel).config
    layer = vit.DeepAVFusionLayer(config, 32, 2, 64, 1e-6).double()
    patches, tokens = torch.randn(2, 9, 32).double(), torch.randn(2, 4, 32).double() if context else None
    everything, _ = layer(patches, tokens)
    lengths = []
    layer.mlp.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    some, _ = layer(patches, tokens, queries=queries)
    torch.testing.assert_close(some, everything[:, queries])
    assert lengths == [everything[:, queries].shape[1]] != [9]


@pytest.mark.parametrize("case", ["factorized", "token", "no_fusion", "divided_video"])
@torch.no_grad()
def test_streams_that_are_not_read_are_not_computed(case):
    model = make_model(DeepAVFusionModel, **CASES[case])
    inputs = make_inputs(model.config)
    everything, called = model(**inputs), []
    last = str(model.config.num_hidden_layers - 1)
    for name, module in model.named_modules():
        if name.endswith(f"layers.{last}") or name.endswith("norm") and name.count(".") < 2:
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    owners = {"fusion": "fusion_", "image": "image.", "audio": "audio."}
    for streams in (("fusion",), ("image",), ("audio",), ("image", "audio"), ()):
        called.clear()
        outputs = model(**inputs, output_streams=streams)
        for stream, owner in owners.items():
            field = "last_hidden_state" if stream == "fusion" else f"{stream}_last_hidden_state"
            assert any(name.startswith(owner) for name in called) == (stream in streams)
            if stream in streams:
                torch.testing.assert_close(outputs[field], everything[field])
            else:
                assert getattr(outputs, field) is None


def test_unknown_streams():
    model = make_model(DeepAVFusionModel)
    with pytest.raises(ValueError, match=r"output_streams names \['sound'\]: expected some of fusion, image, audio"):
        model(**make_inputs(model.config), output_streams=("sound",))


@pytest.mark.parametrize(
    ("head", "options", "unused"),
    [
        (DeepAVFusionForSourceSeparation, {"separation_condition": "image"}, "fusion_layers"),
        (DeepAVFusionForSourceSeparation, {"separation_condition": "fusion"}, "image.layers"),
        (DeepAVFusionForSemanticSegmentation, {**WIDE, "num_labels": 3}, "fusion_layers"),
        (DeepAVFusionForSoundLocalization, {"localization_map": "similarity"}, "fusion_layers"),
    ],
)
@torch.no_grad()
def test_heads_leave_out_streams_unless_records_are_requested(head, options, unused):
    model = make_model(head, **options)
    inputs, called = make_inputs(model.config), []
    layer = model.deepavfusion.get_submodule(f"{unused}.{model.config.num_hidden_layers - 1}")
    layer.register_forward_hook(lambda *_: called.append(unused))
    logits = model(**inputs).logits
    assert not called
    outputs = model(**inputs, output_hidden_states=True)
    assert called
    torch.testing.assert_close(outputs.logits, logits)
    assert len(outputs.hidden_states) == len(outputs.image_hidden_states) == model.config.num_hidden_layers + 1


@pytest.mark.parametrize("case", ["factorized", "swin", "cross"])
def test_training_need_not_assemble_logits(case):
    model = make_model(DeepAVFusionForPreTraining, **CASES[case]).train()
    inputs = {**make_inputs(model.config), **noise(model.config)}
    for visible in ({}, {"num_visible_image_patches": 0}):
        expected, found = model(**inputs, **visible), model(**inputs, **visible, return_logits=False)
        torch.testing.assert_close(found.loss, expected.loss)
        assert found.image_logits is found.audio_logits is None
        assert expected.image_logits is not None


@pytest.mark.parametrize(
    ("dtype", "keys", "implementation", "amx", "backward", "expected"),
    [
        (torch.bfloat16, 16, "sdpa", False, False, "eager"),
        (torch.bfloat16, 16, "sdpa", True, False, "sdpa"),
        (torch.bfloat16, 16, "sdpa", True, True, "eager"),
        (torch.bfloat16, 400, "sdpa", False, False, "sdpa"),
        (torch.float32, 16, "sdpa", False, False, "sdpa"),
        (torch.float32, 16, "eager", True, False, "eager"),
    ],
)
def test_the_kernel_follows_precision_and_length(dtype, keys, implementation, amx, backward, expected, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(attention, "_AMX", amx)
    used = []
    kernels = {"sdpa": attention.ALL_ATTENTION_FUNCTIONS["sdpa"], "eager": attention.eager_attention_forward}

    def get_interface(name, default):
        used.append(name)
        return kernels[name]

    monkeypatch.setattr(attention, "ALL_ATTENTION_FUNCTIONS", SimpleNamespace(get_interface=get_interface))
    module = attention.DeepAVFusionAttention(make_model(DeepAVFusionModel).config, 32, 2).to(dtype)
    module.config._attn_implementation = implementation
    states = torch.randn(2, keys, 32, dtype=dtype)
    with torch.set_grad_enabled(backward):
        output, weights = module(states, states)
    assert used == [expected]
    assert (weights is None) == (implementation == "sdpa")
    exact, _ = module.float()(states.float(), states.float(), need_weights=True)
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.02)


@pytest.fixture
def few_kernels(monkeypatch):
    """As on accelerators: nothing absorbed, projections grouped, sdpa for any length; counts the grouped copies."""
    for module in (attention, projections):
        monkeypatch.setattr(module, "prefers_few_kernels", lambda states: True)
    monkeypatch.setattr(attention, "_EAGER_KEYS", 0)
    copies, apply = [], projections._Copies.apply
    monkeypatch.setattr(projections._Copies, "apply", lambda *args: copies.append(args) or apply(*args))
    return copies


def train_step(model, bfloat16=False):
    """Loss and gradients of a pre-training step."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = model(**make_inputs(model.config), **noise(model.config), return_logits=False).loss
    loss.backward()
    return loss.detach(), {name: x.grad for name, x in model.named_parameters() if x.requires_grad}


@pytest.mark.parametrize("case", ["factorized", "dense", "token", "cross", "divided_video"])
def test_grouped_projections_give_what_single_ones_give(case, few_kernels, monkeypatch):
    model = make_model(DeepAVFusionForPreTraining, **CASES[case]).double().train()
    found = train_step(model)
    assert few_kernels
    monkeypatch.setattr(projections, "prefers_few_kernels", lambda states: False)
    few_kernels.clear()
    torch.testing.assert_close(found, train_step(model))
    assert not few_kernels


def test_grouped_projections_under_autocast(few_kernels, monkeypatch):
    """Weights are cast once, as autocast does, and so are gradients, which are those of the float32 weights."""
    model = make_model(DeepAVFusionForPreTraining).train()
    loss, gradients = train_step(model, bfloat16=True)
    assert {args[0] for args in few_kernels} == {torch.bfloat16}
    monkeypatch.setattr(projections, "prefers_few_kernels", lambda states: False)
    expected_loss, expected = train_step(model, bfloat16=True)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-2, atol=1e-3)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        if name.endswith("k_proj.bias"):  # cancels in the softmax: its gradient is rounding
            continue
        error = (gradient - expected[name]).norm() / expected[name].norm().clamp(min=1e-4)
        assert error < 0.05, (name, error)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_weights_of_an_absent_modality_have_no_gradient(bfloat16, few_kernels, monkeypatch):
    """With zeros in its stead, an optimizer would decay them."""
    model = make_model(DeepAVFusionModel).train()
    pixel_values = make_inputs(model.config)["pixel_values"]

    def trained():
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            model(pixel_values=pixel_values).last_hidden_state.float().sum().backward()
        return {name for name, parameter in model.named_parameters() if parameter.grad is not None}

    found = trained()
    assert few_kernels
    assert not any("audio" in name for name in found)
    monkeypatch.setattr(projections, "prefers_few_kernels", lambda states: False)
    assert trained() == found


def test_grouped_projections_of_frozen_and_checkpointed_layers(few_kernels, monkeypatch):
    model = make_model(DeepAVFusionForPreTraining).double().train()
    model.deepavfusion.image.layers[0].attention.k_proj.requires_grad_(False)
    model.deepavfusion.audio.requires_grad_(False)
    found = train_step(model)
    model.activation_checkpointing_enable()
    torch.testing.assert_close(found, train_step(model))
    monkeypatch.setattr(projections, "prefers_few_kernels", lambda states: False)
    torch.testing.assert_close(found, train_step(model))


def test_gradients_of_grouped_projections_add_up(few_kernels):
    model = make_model(DeepAVFusionForPreTraining).double().train()
    once = {name: gradient.clone() for name, gradient in train_step(model)[1].items()}
    model(**make_inputs(model.config), **noise(model.config)).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name], msg=name)


def test_single_projections_where_modules_do_more_or_nothing_is_trained(few_kernels):
    states = torch.randn(2, 5, 8)
    linears = nn.Linear(8, 8), nn.Linear(8, 4, bias=False)

    def grouped():
        few_kernels.clear()
        (projection,) = projections.group_projections(states, linears)
        torch.testing.assert_close(list(projection(states)), [linear(states) for linear in linears])
        return bool(few_kernels)

    assert grouped()
    with torch.no_grad():
        assert not grouped()
    hook = linears[1].register_forward_hook(lambda module, args, output: output + 1.0)
    assert not grouped()
    hook.remove()
    assert grouped()
    linears[0].__class__ = Adapter
    assert not grouped()


def test_compiled_models_do_without_grouped_projections(few_kernels):
    torch.compiler.reset()
    model = make_model(DeepAVFusionForPreTraining).train()
    expected, _ = train_step(model)
    assert few_kernels
    few_kernels.clear()
    model.forward = torch.compile(model.forward, backend="eager")
    torch.testing.assert_close(train_step(model)[0], expected, **CLOSE)
    assert not few_kernels


@pytest.mark.parametrize(("bfloat16", "most"), [(False, 2550), (True, 3100)])
def test_operations_of_a_pretraining_step_at_base_depth(bfloat16, most, few_kernels):
    """Their number bounds the speed of small batches on accelerators, without compilation."""
    # Keys as wide as values: on CPUs, sdpa decomposes attention whose widths differ; on NVIDIA GPUs, a kernel takes it.
    sizes = {"hidden_size": 32, "intermediate_size": 32, "decoder_hidden_size": 32, "fusion_attention_ratio": 1.0}
    heads = {"num_attention_heads": 4, "num_fusion_attention_heads": 4, "decoder_num_attention_heads": 4}
    config = DeepAVFusionConfig.from_size("base", **sizes, **heads)
    model = DeepAVFusionForPreTraining._from_config(config, attn_implementation="sdpa").train()
    inputs = {name: torch.zeros(2, *shape) for name, shape in config.input_shapes.items()}
    with CountOperations() as operations:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model(**inputs, return_logits=False).loss
        loss.backward()
    assert 0.9 * most < operations.count <= most
