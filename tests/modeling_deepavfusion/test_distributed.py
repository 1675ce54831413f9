"""Sharding over processes: declarations for transformers and accelerate, and FSDP2 on two processes."""

import os
import re
import socket
import subprocess
import sys

import pytest
import torch

from deepavfusion import DeepAVFusionForPreTraining

from .cases import (
    CASES,
    HEAD_CASES,
    MODEL_CLASSES,
    PRETRAINING_CASES,
    assert_outputs_equal,
    make_inputs,
    make_model,
    model_cases,
)

each_class = pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)
each_model = pytest.mark.parametrize(("model_class", "case"), model_cases())


def layer_names(model):
    """Names of the layers of towers, fusion stream and decoders."""
    return {name for name, module in model.named_modules() if re.fullmatch(r".*layers\.\d+", name)}


@pytest.mark.parametrize(("model_class", "case"), model_cases([*HEAD_CASES, "swin", *PRETRAINING_CASES]))
def test_sharding_plan_names_every_layer(model_class, case):
    model = make_model(model_class, **CASES[case])
    by_rule = {rule: set() for rule in model.fsdp_plan}
    for name, _ in model.named_modules():
        rule = re.sub(r"\.\d+(?=\.|$)", ".*", name)
        if rule in by_rule:
            by_rule[rule].add(name)
    assert all(by_rule.values()), by_rule
    assert set.union(*by_rule.values()) == layer_names(model)


@each_model
def test_no_split_modules_are_in_the_model(model_class, case):
    model = make_model(model_class, **CASES[case])
    named = set(model._no_split_modules)
    assert named == {type(model.get_submodule(name)).__name__ for name in layer_names(model)}


@each_class
def test_device_map_splits_between_layers(model_class):
    accelerate = pytest.importorskip("accelerate")
    model = make_model(model_class)
    layer = model.get_submodule(sorted(layer_names(model))[0])
    largest = 4 * sum(p.numel() for p in layer.parameters())
    total = 4 * sum(p.numel() for p in model.parameters())
    device_map = accelerate.infer_auto_device_map(
        model,
        max_memory={0: total // 2 + 2 * largest, "cpu": 2 * total},
        no_split_module_classes=list(model._no_split_modules),
    )
    assert set(device_map.values()) == {0, "cpu"}
    for name in layer_names(model):
        assert not [entry for entry in device_map if entry.startswith(f"{name}.")], name


@each_model
def test_weights_may_be_offloaded(model_class, case):
    """Each module's weights are brought in when that module is called, so no module may use another's directly."""
    accelerate = pytest.importorskip("accelerate")
    model = make_model(model_class, **CASES[case])
    inputs = make_inputs(model.config, model_class)
    with torch.no_grad():
        expected = model(**inputs)
        accelerate.cpu_offload(model, torch.device("cpu"), offload_buffers=True)
        assert {p.device.type for p in model.parameters()} == {"meta"}
        # Up to rounding: weights that are not at hand are not absorbed.
        assert_outputs_equal(model(**inputs), expected, rtol=1e-4, atol=1e-4)


WORKER = """
import sys
import torch
import torch.distributed as dist
from transformers.distributed import DistributedConfig
from deepavfusion import DeepAVFusionForPreTraining

folder = sys.argv[1]
model = DeepAVFusionForPreTraining.from_pretrained(folder, distributed_config=DistributedConfig(fsdp_size=2)).train()
rank = dist.get_rank()
sharded = sum(type(p).__name__ == "DTensor" or hasattr(p, "to_local") for p in model.parameters())
assert sharded == len(list(model.parameters())), sharded
local = sum(p.to_local().numel() for p in model.parameters())
whole = sum(p.numel() for p in model.parameters())
assert 0.4 * whole < local < 0.6 * whole, (local, whole)
inputs = {k: v.chunk(2)[rank] for k, v in torch.load(folder + "/inputs.pt", weights_only=True).items()}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
for step in range(2):
    loss = model(**inputs).loss
    optimizer.zero_grad()
    loss.backward()
    if step == 0:
        gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    optimizer.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    losses.append(total / 2)
if rank == 0:
    torch.save({"losses": torch.stack(losses), "gradients": gradients}, folder + "/result.pt")
dist.barrier()
dist.destroy_process_group()
"""


def run_on_two_processes(script: str, *arguments: str):
    """Run Python source in two connected processes; raise with their output if one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {
            **os.environ,
            **{name: str(value) for name, value in place.items()},
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [sys.executable, "-c", script, *arguments]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)


def test_fsdp2_on_two_processes_equals_one(tmp_path):
    model = make_model(DeepAVFusionForPreTraining).train()
    model.save_pretrained(tmp_path)
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining, batch=4)
    torch.save(inputs, tmp_path / "inputs.pt")
    run_on_two_processes(WORKER, str(tmp_path))
    result = torch.load(tmp_path / "result.pt", weights_only=True)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(2):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(result["losses"], torch.stack(losses), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result["gradients"], gradients, rtol=1e-4, atol=1e-5)
