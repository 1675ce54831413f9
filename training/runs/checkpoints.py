"""Checkpoints of a run: folders of transformers' Trainer that count only once they are complete.

A checkpoint is a folder `checkpoint-<step>` with model and processor, loadable like any other model,
trainer_state.json, and training_state.pt (weights-only pickle) with the states of optimizer, schedule and gradient
scaler. States are gathered whole and keyed by parameter name, so that a run saved on any number of processes, sharded
or not, resumes on any other. The last file of a checkpoint is `complete`, written once the others are on the disk, so
that a process killed at any time leaves the previous checkpoint intact.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from deepavfusion.inference.files import apply_umask, sync_folder, write_atomically

COMPLETE = "complete"
TRAINING_STATE = "training_state.pt"
INITIAL_MODEL = ".writing-initial-model"  # of a sharded run, while it starts
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_REMOVING = re.compile(rf"\.removing-{_NAME.pattern}")


def own_entries(folder: str | os.PathLike) -> list[Path]:
    """List the checkpoints in a folder, including remains of killed processes, by name; other entries are foreign."""
    folder = Path(folder)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    own = [e for e in entries if _NAME.fullmatch(e.name) or _REMOVING.fullmatch(e.name) or e.name == INITIAL_MODEL]
    return [entry for entry in own if entry.is_dir() and not entry.is_symlink()]


def checkpoint_path(folder: str | os.PathLike, step: int) -> Path:
    """Path of the checkpoint of an optimizer step."""
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def checkpoint_step(path: Path) -> int:
    """Optimizer step of a checkpoint, by its name."""
    return int(path.name.rpartition("-")[2])


def complete_checkpoints(folder: str | os.PathLike) -> list[Path]:
    """List the complete checkpoints in a folder, oldest first."""
    found = [entry for entry in own_entries(folder) if _NAME.fullmatch(entry.name)]
    return sorted((entry for entry in found if (entry / COMPLETE).is_file()), key=checkpoint_step)


def mark_complete(path: Path) -> None:
    """Mark a checkpoint as complete once all its files are on the disk."""
    files = list(path.iterdir())
    apply_umask(files)
    for file in files:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    sync_folder(path)
    write_atomically(path / COMPLETE, "")


def remove_entry(path: Path) -> None:
    """Remove a checkpoint, atomically: a process killed meanwhile leaves none that looks complete."""
    if _NAME.fullmatch(path.name):
        path = path.replace(path.with_name(f".removing-{path.name}"))
    shutil.rmtree(path)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def gather_training_state(model, optimizer: torch.optim.Optimizer, scheduler, scaler=None) -> dict[str, Any]:
    """Gather the states of optimizer, schedule and gradient scaler for `torch.save`. All processes must call this.

    Args:
        model: Model being trained, not wrapped.
        optimizer: Optimizer of the model.
        scheduler: Learning-rate schedule.
        scaler: Gradient scaler in fp16, else None.

    Returns:
        State by name; under FSDP, empty except on the main process.
    """
    state = {
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_WHOLE),
        "scheduler": scheduler.state_dict(),
    }
    return state if scaler is None else {**state, "scaler": scaler.state_dict()}


def restore_training_state(path: Path, model, optimizer: torch.optim.Optimizer, scheduler, scaler=None) -> None:
    """Restore the state of `gather_training_state` from a checkpoint; every process reads all of it.

    Args:
        path: Folder of the checkpoint.
        model: Model to train, not wrapped.
        optimizer: Optimizer of the model.
        scheduler: Learning-rate schedule.
        scaler: Gradient scaler in fp16, else None.
    """
    state = torch.load(path / TRAINING_STATE, map_location="cpu", weights_only=True)
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(model, optimizer, optim_state_dict=state["optimizer"], options=options)
    scheduler.load_state_dict(state["scheduler"])
    if scaler is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])


def load_weights(model: torch.nn.Module, path: str | os.PathLike) -> None:
    """Load the weights of a checkpoint into a model, sharded or not."""
    state = {}
    for file in sorted(Path(path).glob("model*.safetensors")):
        state.update(load_file(file))
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True))


__all__ = [
    "COMPLETE",
    "INITIAL_MODEL",
    "TRAINING_STATE",
    "checkpoint_path",
    "checkpoint_step",
    "complete_checkpoints",
    "gather_training_state",
    "load_weights",
    "mark_complete",
    "own_entries",
    "remove_entry",
    "restore_training_state",
]
