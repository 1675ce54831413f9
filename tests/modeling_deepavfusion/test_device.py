"""Models on a stand-in for an accelerator: nothing is left on the CPU, nothing needs float64, and numbers stay."""

import copy

import pytest
import torch

from deepavfusion import DeepAVFusionForPreTraining
from tests.fake_device import fake_device

from .cases import CASES, make_inputs, make_labels, make_model, model_cases, objective, optional_modalities

RULES = [
    (lambda there: there + torch.ones(2), "expected all tensors on one device"),
    (lambda there: torch.ones(2)[there > 0], "indices on"),
    (lambda there: torch.rand(2, generator=torch.Generator(), device=there.device), "expected a generator on"),
    (lambda there: there.numpy(), "numpy"),
]


@pytest.mark.parametrize("device_type", ["cuda", "mps"])
def test_the_stand_in_refuses_what_the_device_does(device_type):
    with fake_device(device_type) as device:
        there = torch.ones(2).to(device_type)
        assert there.device == device
        for break_rule, message in RULES:
            with pytest.raises((RuntimeError, TypeError), match=message):
                break_rule(there)
        assert (there + torch.tensor(1.0)).cpu().tolist() == [2.0, 2.0]  # single numbers are no tensors there
    if device_type == "mps":
        with fake_device("mps"), pytest.raises(TypeError, match="float64"):
            torch.ones(2).to("mps").double()


def step(model, inputs):
    """Loss, output and gradients of a training step, on the CPU."""
    outputs = model(**inputs)
    loss = objective(outputs)
    loss.backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach().cpu(), {k: v.detach().cpu() for k, v in outputs.items() if torch.is_tensor(v)}, gradients


@pytest.mark.parametrize(
    ("model_class", "case"),
    model_cases(["factorized", "dense", "divided_video", "swin"], head_cases=["factorized"]),
)
def test_training_step(model_class, case):
    """Masks of presence may stay on the CPU. MPS refuses all that CUDA does, and float64."""
    model = make_model(model_class, **CASES[case], classifier_input_norm=True).train()
    there = copy.deepcopy(model)
    inputs = {**make_inputs(model.config, model_class, 3), **make_labels(model.config, model_class, 3)}
    present = {f"{name}_present": torch.tensor([True, False, True]) for name in optional_modalities(model_class)[:1]}
    expected = step(model, {**inputs, **present})
    with fake_device("mps") as device:
        inputs = {name: values.to(device) for name, values in inputs.items()}
        found = step(there.to(device), {**inputs, **present})
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_masks_are_drawn_on_the_device():
    model = make_model(DeepAVFusionForPreTraining)
    inputs = {k: v for k, v in make_inputs(model.config).items() if not k.endswith("noise")}
    with fake_device("cuda") as device:
        outputs = model.to(device)(**{name: values.to(device) for name, values in inputs.items()})
        assert outputs.image_mask.device == outputs.loss.device == device
