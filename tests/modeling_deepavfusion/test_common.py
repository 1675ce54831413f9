"""Requirements on every public model, over every variant of the configuration."""

import math
import os
import stat

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import PreTrainedModel, Trainer, TrainingArguments

from deepavfusion import (
    DeepAVFusionForPreTraining,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
    outputs_deepavfusion,
)
from deepavfusion.modeling_deepavfusion import MARK_FILE
from tests.tiny import tiny_config

from .cases import (
    CASES,
    ENCODER_CLASSES,
    MODEL_CLASSES,
    assert_outputs_equal,
    idle_parameters,
    make_inputs,
    make_labels,
    make_model,
    model_cases,
    objective,
    optional_modalities,
)

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

each_class = pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)
each_case = pytest.mark.parametrize("case", CASES)
each_model = pytest.mark.parametrize(("model_class", "case"), model_cases())


def training_inputs(model):
    """Inputs, and labels if the model needs them."""
    return make_inputs(model.config, type(model)) | make_labels(model.config, type(model))


def gradients(model):
    idle = idle_parameters(model)
    return {name: p.grad.clone() for name, p in model.named_parameters() if name not in idle}


@each_case
def test_encoder_shapes(case):
    config = tiny_config(**CASES[case])
    outputs = DeepAVFusionModel(config).eval()(**make_inputs(config, batch=3), output_hidden_states=True)
    num_image, num_audio = math.prod(config.image_grid), math.prod(config.audio_grid)
    expected = {"": 9, "image_": num_image, "audio_": num_audio}
    for name, tokens in expected.items():
        assert outputs[f"{name}last_hidden_state"].shape == (3, tokens, 32)
        recorded = outputs[f"{name}hidden_states"]
        assert [tuple(state.shape) for state in recorded] == [(3, tokens, 32)] * (config.num_hidden_layers + 1)
    assert "attentions" not in outputs


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("align", "jepa")])
def test_pretraining_shapes(case):
    config = tiny_config(**CASES[case])
    outputs = DeepAVFusionForPreTraining(config)(**make_inputs(config, DeepAVFusionForPreTraining, batch=3))
    frames = config.tubelet_size if config.num_frames > 1 else 1
    sides = {
        "image": (math.prod(config.image_grid), frames * config.patch_size**2 * 3, config.image_mask_ratio),
        "audio": (math.prod(config.audio_grid), config.audio_patch_size**2, config.audio_mask_ratio),
    }
    for name, (patches, values, ratio) in sides.items():
        assert outputs[f"{name}_logits"].shape == (3, patches, values)
        assert outputs[f"{name}_loss"].shape == ()
        mask = outputs[f"{name}_mask"]
        assert mask.shape == (3, patches)
        assert mask.unique().tolist() == [0, 1]
        assert (mask == 0).sum(dim=1).tolist() == [int(patches * (1 - ratio))] * 3
        assert outputs[f"{name}_ids_restore"].sort(dim=1).values.tolist() == [list(range(patches))] * 3
    assert outputs.loss == outputs.image_loss + outputs.audio_loss


@each_model
def test_backward_reaches_every_parameter(model_class, case):
    model = make_model(model_class, **CASES[case]).train()
    objective(model(**training_inputs(model))).backward()
    idle = idle_parameters(model)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in idle), name
        if name in idle:
            continue
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("k_proj.bias"):  # shifts all scores alike: its gradient is zero but for rounding
            assert parameter.grad.abs().max() > 0, name


@each_model
def test_saved_and_loaded(model_class, case, tmp_path):
    model = make_model(model_class, **CASES[case])
    model.save_pretrained(tmp_path)
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert not loaded.training
    for (name, value), (other_name, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(value, other), name
    for name, buffer in model.named_buffers():  # not stored
        assert torch.equal(buffer, loaded.get_buffer(name)), name
    inputs = make_inputs(model.config, model_class)
    with torch.no_grad():
        # Not bit by bit: a product of another alignment in memory may round another way.
        assert_outputs_equal(loaded(**inputs), model(**inputs), rtol=1e-6, atol=1e-6)


@each_class
def test_tuple_and_dictionary(model_class):
    model = make_model(model_class)
    inputs = make_inputs(model.config, model_class)
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
        as_tuple = model(**inputs, output_hidden_states=True, return_dict=False)
        model.config.return_dict = False
        by_config = model(**inputs, output_hidden_states=True)
    assert isinstance(as_tuple, tuple)
    assert isinstance(by_config, tuple)
    assert len(as_tuple) == len(by_config) == len(outputs.to_tuple())
    for value, other, want in zip(as_tuple, by_config, outputs.to_tuple(), strict=True):
        torch.testing.assert_close(value, want, **EXACT)
        torch.testing.assert_close(other, want, **EXACT)


@each_class
def test_hidden_states_by_configuration(model_class):
    model = make_model(model_class, output_hidden_states=True)
    inputs = make_inputs(model.config, model_class)
    with torch.no_grad():
        outputs, without = model(**inputs), model(**inputs, output_hidden_states=False)
    assert len(outputs.hidden_states) == len(outputs.image_hidden_states) == len(outputs.audio_hidden_states) == 4
    assert "hidden_states" not in without


def test_hidden_states_lead_to_the_output():
    model = make_model(DeepAVFusionModel)
    with torch.no_grad():
        outputs = model(**make_inputs(model.config), output_hidden_states=True)
        normed = {
            "last_hidden_state": model.fusion_norm(outputs.hidden_states[-1]),
            "image_last_hidden_state": model.image.norm(outputs.image_hidden_states[-1]),
            "audio_last_hidden_state": model.audio.norm(outputs.audio_hidden_states[-1]),
        }
    assert torch.equal(outputs.hidden_states[0], model.fusion_tokens.expand(2, -1, -1))
    for name, value in normed.items():
        assert torch.equal(value, outputs[name]), name


@pytest.mark.parametrize(("model_class", "case"), model_cases([case for case in CASES if case != "divided_video"]))
def test_attentions(model_class, case):
    model = make_model(model_class, attn_implementation="eager", **CASES[case])
    with torch.no_grad():
        outputs = model(**make_inputs(model.config, model_class), output_attentions=True)
    config = model.config
    num_image, num_audio = math.prod(config.image_grid), math.prod(config.audio_grid)
    if model_class is DeepAVFusionForPreTraining:  # the encoder sees what was kept
        num_image, num_audio = (int((mask[0] == 0).sum()) for mask in (outputs.image_mask, outputs.audio_mask))
    for name, tokens in (("image", num_image), ("audio", num_audio)):
        weights = outputs[f"{name}_attentions"]
        assert len(weights) == config.num_hidden_layers
        for index, layer in enumerate(weights):
            context = 9 if index in config.fusion_layer_indices else 0
            assert layer.shape == (2, config.num_attention_heads, tokens, context + tokens)
            torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))
    if not config.fusion_layer_indices:
        assert "attentions" not in outputs
        return
    assert len(outputs.attentions) == len(config.fusion_layer_indices)
    for layer in outputs.attentions:
        assert layer.shape == (2, config.num_fusion_attention_heads, 9, num_image + num_audio)
        over_image, over_audio = (side.sum(-1) for side in layer.split([num_image, num_audio], dim=-1))
        ones = torch.ones_like(over_image)
        if config.fusion_type == "token":  # one softmax over both
            torch.testing.assert_close(over_image + over_audio, ones)
        else:  # a softmax a side; in factorized fusion aggregation tokens see one side alone
            sees = torch.ones(2, 9)
            if config.fusion_type == "factorized":
                sees[0, 7:], sees[1, 4:7] = 0, 0
            torch.testing.assert_close(over_image, ones * sees[0])
            torch.testing.assert_close(over_audio, ones * sees[1])


def test_attentions_of_divided_video_stay_within_a_frame():
    model = make_model(DeepAVFusionModel, attn_implementation="eager", **CASES["divided_video"])
    inputs = make_inputs(model.config)
    ids = torch.arange(32).expand(2, -1)
    with torch.no_grad():
        by_frame = model(**inputs, output_attentions=True).image_attentions
        over_all = model(**inputs, image_ids_keep=ids, output_attentions=True).image_attentions
    for index, (frames, masked) in enumerate(zip(by_frame, over_all, strict=True)):
        context = 9 if index in (0, 2) else 0
        assert frames.shape == (2 * 2, 2, 16, context + 16)  # (batch * frames, heads, places, ...)
        assert masked.shape == (2, 2, 32, context + 32)
        torch.testing.assert_close(masked.sum(-1), torch.ones(2, 2, 32))
        patches = masked[..., context:].view(2, 2, 2, 16, 2, 16)
        assert patches[:, :, 0, :, 1].eq(0).all()
        assert patches[:, :, 1, :, 0].eq(0).all()
        assert patches[:, :, 0, :, 0].gt(0).all()


@each_class
def test_attentions_are_computed_under_any_implementation(model_class, monkeypatch):
    """With a warning, since eager attention takes more memory."""
    model = make_model(model_class)
    inputs, warned = make_inputs(model.config, model_class), []
    monkeypatch.setattr(outputs_deepavfusion.logger, "warning_once", warned.append)
    with torch.no_grad():
        plain = model(**inputs)
        assert warned == []
        outputs = model(**inputs, output_attentions=True)
        (message,) = set(warned)
        assert "'sdpa' attention does not compute" in message
        warned.clear()
        model.set_attn_implementation("eager")
        expected = model(**inputs, output_attentions=True)
    assert warned == []
    assert {"attentions", "image_attentions", "audio_attentions"} <= {*outputs} - {*plain}
    assert_outputs_equal(outputs, expected, **CLOSE)


@each_model
def test_eager_equals_sdpa(model_class, case):
    """In float64, since the norms of the U-Nets amplify the rounding in which CPUs differ."""
    model = make_model(model_class, **CASES[case]).double()
    inputs = {name: x.double() if x.is_floating_point() else x for name, x in training_inputs(model).items()}
    results = []
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert model.config._attn_implementation == implementation
        model.zero_grad()
        outputs = model(**inputs)
        objective(outputs).backward()
        results.append((outputs, gradients(model)))
    (outputs, found), (expected, expected_gradients) = results
    assert_outputs_equal(outputs, expected, **CLOSE)
    torch.testing.assert_close(found, expected_gradients, **CLOSE)


@each_model
def test_activation_checkpointing_equals_plain(model_class, case):
    model = make_model(model_class, **CASES[case]).train()
    inputs = training_inputs(model)
    calls, idle = [], idle_parameters(model)
    for name, layer in model.named_modules():
        if any(parameter.startswith(f"{name}.layernorm") for parameter in idle):
            continue  # no gradient comes from it, so the backward pass has no need of it
        if getattr(layer, "gradient_checkpointing", None) is not None:
            first = next(layer.children())  # a norm: hooks of the layer itself see no recomputation
            first.register_forward_pre_hook(lambda module, *_: calls.append(module))
    results, counts = [], []
    for enable in (False, True):
        if enable:
            model.activation_checkpointing_enable()
        calls.clear()
        model.zero_grad()
        loss = objective(model(**inputs))
        loss.backward()
        counts.append(len(calls))
        results.append((loss, gradients(model)))
    # Each layer ran again in the backward pass.
    assert counts[1] == 2 * counts[0] > 0, counts
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


@each_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision(model_class, case, dtype):
    model = make_model(model_class, **CASES[case])
    inputs = make_inputs(model.config, model_class)
    with torch.no_grad():
        expected = model(**inputs)
        model.to(dtype)
        outputs = model(**{name: x if "noise" in name else x.to(dtype) for name, x in inputs.items()})
        from_float = model(**inputs)  # inputs are cast to the weights' dtype
    tolerance = 0.05 if dtype == torch.bfloat16 else 0.01
    for name, want in expected.items():
        for value in (outputs[name], from_float[name]):
            assert value.isfinite().all(), name
            if value.is_floating_point() and "mask" not in name:
                assert value.dtype == (torch.float32 if name.endswith("loss") else dtype), name
            error = (value.float() - want.float()).norm() / want.float().norm().clamp(min=1e-6)
            assert error < tolerance, (name, error)


@each_model
def test_autocast_training_step(model_class, case):
    model = make_model(model_class, **CASES[case]).train()
    inputs, idle = training_inputs(model), idle_parameters(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(model(**inputs))
        optimizer.zero_grad()
        loss.backward()
        trained = [p for name, p in model.named_parameters() if name not in idle]
        assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trained)
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    with torch.no_grad():
        plain = objective(model(**inputs))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert abs(objective(model(**inputs)) - plain) < 0.02 * plain


@pytest.mark.parametrize(
    ("model_class", "case"), model_cases(["factorized", "divided_video", "swin_video"], head_cases=["factorized"])
)
def test_compiles_without_graph_breaks(model_class, case):
    torch._dynamo.reset()
    model = make_model(model_class, **CASES[case])
    inputs = make_inputs(model.config, model_class)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_outputs_equal(compiled(**inputs), model(**inputs), **CLOSE)
        if case == "factorized":
            lacking, other = (*optional_modalities(model_class), "audio")[:2]
            inputs |= {f"{lacking}_present": torch.tensor([True, False])}
            if other != lacking:
                inputs |= {f"{other}_present": torch.tensor([True, True])}
            assert_outputs_equal(compiled(**inputs), model(**inputs), **CLOSE)


@pytest.mark.parametrize(
    "model_class",
    [
        cls if cls in (*ENCODER_CLASSES, DeepAVFusionForSourceSeparation) else pytest.param(cls, marks=pytest.mark.slow)
        for cls in MODEL_CLASSES
    ],
)
def test_compiles_once_for_batches_of_any_size(model_class):
    torch._dynamo.reset()
    model, counter = make_model(model_class), CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        for batch in (2, 3, 5):
            inputs = make_inputs(model.config, model_class, batch, seed=batch)
            assert_outputs_equal(compiled(**inputs), model(**inputs), **CLOSE)
    assert counter.frame_count == 1


@each_class
def test_exports_a_program_for_batches_of_any_size(model_class):
    model = make_model(model_class)
    lacking = optional_modalities(model_class)
    present = {f"{name}_present": torch.tensor([True] * 3) for name in lacking}
    inputs = make_inputs(model.config, model_class, batch=3) | present
    shapes = {name: {0: torch.export.Dim("batch")} for name in inputs}
    program = torch.export.export(model, (), inputs, dynamic_shapes=shapes).module()
    with torch.no_grad():
        for batch in (1, 4):
            inputs = make_inputs(model.config, model_class, batch, seed=batch)
            for place, name in enumerate(lacking):
                inputs[f"{name}_present"] = torch.arange(batch) % 2 != place
            assert_outputs_equal(program(**inputs), model(**inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", [*ENCODER_CLASSES, DeepAVFusionForSoundLocalization])
def test_compiled_equals_plain(model_class):
    torch._dynamo.reset()
    model = make_model(model_class).train()
    inputs = training_inputs(model)
    results = []
    for function in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        loss = objective(function(**inputs))
        loss.backward()
        results.append((loss, gradients(model)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)


def test_no_model_is_saved_under_the_card_of_another(tmp_path):
    model = DeepAVFusionModel(tiny_config())
    model.save_pretrained(tmp_path)
    (tmp_path / MARK_FILE).write_text("{}")
    model.save_pretrained(tmp_path)  # of a converted model there is no card
    (tmp_path / "README.md").write_text("of another model")
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(ValueError, match=f"{tmp_path} holds the model of a training run.*name another folder"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before


OWN_CARD = "---\nlicense: mit\ntags:\n- deepavfusion\n- video\n---\n# A\n"
OTHER_CARD = "---\ntags:\n- x\n---\n- deepavfusion\n---\n"


@pytest.mark.parametrize("save", ["model", "trainer"])
def test_the_card_of_an_earlier_model_is_kept_under_another_name(tmp_path, save):
    """By its own metadata, in folders that no command has marked."""

    def saved(seed):
        model = make_model(DeepAVFusionModel, seed=seed)
        if save == "model":
            model.save_pretrained(tmp_path)
        else:
            Trainer(model, TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)).save_model()
        return {path.name: path.read_text() for path in tmp_path.glob("*.md")}

    (tmp_path / "README.md").write_text(OWN_CARD)
    assert saved(0) == {"README.md": OWN_CARD}  # written before the first model
    assert saved(0) == {"README.md": OWN_CARD}  # the same model again
    assert saved(1) == {"README.earlier.md": OWN_CARD}
    (tmp_path / "README.md").write_text(OWN_CARD + "of the second")
    assert saved(2) == {"README.earlier.md": OWN_CARD, "README.earlier-2.md": OWN_CARD + "of the second"}
    (tmp_path / "README.md").write_text(OTHER_CARD)
    assert saved(3)["README.md"] == OTHER_CARD


def test_the_card_is_set_aside_although_saving_fails(tmp_path, monkeypatch):
    make_model(DeepAVFusionModel).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(OWN_CARD)

    def fail(*_):
        (tmp_path / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        make_model(DeepAVFusionModel).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.md")] == ["README.earlier.md"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_saved_files_have_the_permissions_of_new_ones(tmp_path, umask):
    earlier = os.umask(umask)
    try:
        DeepAVFusionModel(tiny_config()).save_pretrained(tmp_path / "out", max_shard_size="20KB")
    finally:
        os.umask(earlier)
    files = list((tmp_path / "out").iterdir())
    assert len([file for file in files if file.suffix == ".safetensors"]) > 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~umask}
