"""Checkpoints: complete or not counted, and a restored run continues bit for bit."""

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from deepavfusion.inference.files import write_atomically
from deepavfusion.training.runs.checkpoints import (
    COMPLETE,
    TRAINING_STATE,
    checkpoint_step,
    complete_checkpoints,
    gather_training_state,
    load_weights,
    mark_complete,
    own_entries,
    remove_entry,
    restore_training_state,
)
from deepavfusion.training.runs.optimizers import LARS, MuonAdamW


def trained(steps, kind=torch.optim.AdamW, start=None):
    """A small model after some steps, its optimizer and schedule; `start` is a checkpoint to begin from."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    decay = [{"params": [model[0].weight, model[2].weight], "weight_decay": 0.1, "slow_start": True, "muon": True}]
    groups = [*decay, {"params": [model[0].bias, model[2].bias], "weight_decay": 0.0, "muon": False}]
    optimizer = kind(groups, lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.01 / (1 + step))
    if start is not None:
        load_weights(model, start)
        restore_training_state(start, model, optimizer, scheduler)
    for step in range(*steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return model, optimizer, scheduler


def save(path, model, optimizer, scheduler):
    path.mkdir(parents=True)
    save_file(model.state_dict(), path / "model.safetensors")
    torch.save(gather_training_state(model, optimizer, scheduler), path / TRAINING_STATE)
    mark_complete(path)
    return path


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = save(tmp_path / "checkpoint-1", *trained((0, 1)))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o666 & ~umask}


def muon(groups, lr):
    return MuonAdamW(groups, lr, betas=(0.9, 0.95), momentum=0.9)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, LARS, muon])
def test_a_restored_run_continues_bit_for_bit(tmp_path, kind):
    resumed, optimizer, _ = trained((3, 6), kind, start=save(tmp_path / "checkpoint-3", *trained((0, 3), kind)))
    whole, other, _ = trained((0, 6), kind)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in other.param_groups]


def test_group_settings_survive(tmp_path):
    _, optimizer, scheduler = trained((0, 0), start=save(tmp_path / "checkpoint-1", *trained((0, 1))))
    assert [group.get("slow_start", False) for group in optimizer.param_groups] == [True, False]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert scheduler.last_epoch == 1


def test_only_complete_checkpoints_count_and_the_rest_is_known_by_name(tmp_path):
    for step in (10, 9, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 100:
            mark_complete(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-mine").mkdir()
    found = complete_checkpoints(tmp_path)
    assert [path.name for path in found] == ["checkpoint-9", "checkpoint-10"]
    assert checkpoint_step(found[1]) == 10
    assert {path.name for path in own_entries(tmp_path)} == {"checkpoint-9", "checkpoint-10", "checkpoint-100"}
    assert complete_checkpoints(tmp_path / "absent") == []


def test_a_checkpoint_that_is_half_removed_does_not_count(tmp_path, monkeypatch):
    path = save(tmp_path / "checkpoint-1", *trained((0, 1)))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove_entry(path)
    assert complete_checkpoints(tmp_path) == []
    (left,) = own_entries(tmp_path)
    remove_entry(left)
    assert list(tmp_path.iterdir()) == []


def test_the_mark_is_written_when_all_else_is_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint-1"
    path.mkdir()
    (path / "model.safetensors").touch()
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        mark_complete(path)
    assert not (path / COMPLETE).exists()


def test_small_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "half")
    assert path.read_text() == "new"
