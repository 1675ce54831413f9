"""Checkpoints: whole or absent, the last few kept, and a restored run continues bit for bit."""

import os
import subprocess
import sys

import pytest
import torch

from deepavfusion.inference.files import write_atomically
from deepavfusion.training.runs.checkpoints import (
    CheckpointFolder,
    complete_checkpoints,
    differences,
    gather_state,
    lock_folder,
    own_entries,
    remove_entry,
    restore_state,
)
from deepavfusion.training.runs.optimization import LARS


def trained(steps, kind=torch.optim.AdamW, start=None):
    """A small model after some steps, and its optimiser; `start` is a state to begin from."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    decay = [{"params": [model[0].weight, model[2].weight], "weight_decay": 0.1, "slow_start": True}]
    optimizer = kind([*decay, {"params": [model[0].bias, model[2].bias], "weight_decay": 0.0}], lr=0.01)
    if start is not None:
        restore_state(model, optimizer, start)
    for step in range(*steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("kind", [torch.optim.AdamW, LARS])
def test_a_restored_run_continues_bit_for_bit(tmp_path, kind):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    folder.save(3, gather_state(*trained((0, 3), kind)), {"note": "here"})
    assert folder.read_state(3) == {"step": 3, "note": "here"}
    resumed, _ = trained((3, 6), kind, start=folder.read_tensors(3))
    whole, _ = trained((0, 6), kind)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_group_settings_survive(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(1, gather_state(*trained((0, 1))), {})
    _, optimizer = trained((0, 0), start=folder.read_tensors(1))
    assert [group.get("slow_start", False) for group in optimizer.param_groups] == [True, False]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_the_last_ones_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    assert folder.steps() == []
    tensors = gather_state(*trained((0, 1)))
    for step in (5, 100000000, 10):
        folder.save(step, tensors, {})
    assert folder.steps() == [10, 100000000]


def test_a_crash_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=1)
    tensors = gather_state(*trained((0, 1)))
    folder.save(1, tensors, {})

    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        folder.save(2, tensors, {})
    monkeypatch.undo()
    assert folder.steps() == [1]
    assert torch.equal(folder.read_tensors(1)["model"]["0.weight"], tensors["model"]["0.weight"])
    assert len(list(folder.folder.iterdir())) == 2
    for entry in own_entries(folder.folder):
        if entry not in complete_checkpoints(folder.folder):
            remove_entry(entry)
    assert [entry.name for entry in folder.folder.iterdir()] == ["step-00000001"]
    folder.save(2, tensors, {})
    assert folder.steps() == [2]


def test_small_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "half")
    assert path.read_text() == "new"


def test_differences_name_what_changed():
    old = {"optim": {"epochs": 3.0, "betas": [0.9]}, "seed": 0}
    new = {"optim": {"epochs": 4.0, "betas": [0.9]}, "seed": 0, "model": {"size": "base"}}
    assert differences(old, new) == ["model: None -> {'size': 'base'}", "optim.epochs: 3.0 -> 4.0"]
    assert differences(old, old) == []


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    code = (
        "import sys\nfrom deepavfusion.training.runs.checkpoints import lock_folder\n"
        "try:\n    lock_folder(sys.argv[1])\nexcept BlockingIOError as error:\n    sys.exit(str(error))"
    )

    def other():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)

    lock = lock_folder(tmp_path)
    assert f"in use by another run (process {os.getpid()})" in other().stderr
    lock.close()
    assert other().returncode == 0
