"""peft: adapters of every head train, with and without checkpoints, and come back as they were saved."""

import copy

import pytest
import torch

from deepavfusion import DeepAVFusionModel
from tests.modeling_deepavfusion.cases import (
    MODEL_CLASSES,
    assert_outputs_equal,
    idle_parameters,
    make_inputs,
    make_labels,
    make_model,
    objective,
)

pytestmark = pytest.mark.ecosystem

TARGETS = ["q_proj", "v_proj"]


def adapter_of(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS))


@pytest.mark.parametrize("checkpoints", [None, True, False], ids=["plain", "reentrant", "not_reentrant"])
@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)
def test_adapters_train_and_come_back(model_class, checkpoints, tmp_path):
    """In float64, since the norms of the U-Nets amplify rounding."""
    from peft import PeftModel

    model = make_model(model_class).double()
    base, idle = copy.deepcopy(model), idle_parameters(model)
    adapted = adapter_of(model).train()
    if checkpoints is not None:
        model.activation_checkpointing_enable({"use_reentrant": checkpoints})
        adapted.enable_input_require_grads()
    inputs = make_inputs(model.config, model_class) | make_labels(model.config, model_class)
    inputs = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(2):  # in the first step one half of each pair is zero, and the other has no gradient
        objective(adapted(**inputs)).backward()
        optimizer.step()
        optimizer.zero_grad()
    prefixes = tuple({name.rpartition(".attention.")[0] for name in idle if ".attention." in name})
    for name, parameter in trained.items():
        own = name.removeprefix("base_model.model.")
        assert torch.equal(parameter, before[name]) == bool(prefixes and own.startswith(prefixes)), name

    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        outputs = loaded(**inputs)
        assert_outputs_equal(outputs, adapted.eval()(**inputs), rtol=1e-6, atol=1e-8)
        with loaded.disable_adapter():
            assert not torch.allclose(objective(loaded(**inputs)), objective(outputs))


def test_adapters_of_transformers_own_interface(tmp_path):
    """`add_adapter` and `load_adapter`, without a wrapper."""
    from peft import LoraConfig

    model = make_model(DeepAVFusionModel)
    fresh, inputs = copy.deepcopy(model), make_inputs(model.config)
    model.add_adapter(LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False))
    model.save_pretrained(tmp_path)
    fresh.load_adapter(str(tmp_path))
    with torch.no_grad():
        assert_outputs_equal(fresh.eval()(**inputs), model.eval()(**inputs), rtol=1e-5, atol=1e-6)
