"""Checkpoints of a run: folders of transformers' Trainer that count once they are complete.

A checkpoint is a folder `checkpoint-<step>`: model and processor, loadable as any model is; trainer_state.json; and
training_state.pt (weights-only pickle) with optimiser, schedule and loss scale. States are gathered whole and keyed by
parameter name: a run saved on some number of processes, with shards or without, resumes on any other. The last file of
a checkpoint is `complete`, written when the others are on the disk, so a process killed at any time leaves the
checkpoint before intact.
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

from deepavfusion.inference.files import sync_folder, write_atomically

COMPLETE = "complete"
TRAINING_STATE = "training_state.pt"
INITIAL_MODEL = ".writing-initial-model"  # of a run with shards, while it starts
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_REMOVING = re.compile(rf"\.removing-{_NAME.pattern}")


def own_entries(folder: str | os.PathLike) -> list[Path]:
    """Checkpoints in a folder and what killed processes left of some, by their names; everything else is foreign."""
    folder = Path(folder)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    own = [e for e in entries if _NAME.fullmatch(e.name) or _REMOVING.fullmatch(e.name) or e.name == INITIAL_MODEL]
    return [entry for entry in own if entry.is_dir() and not entry.is_symlink()]


def checkpoint_path(folder: str | os.PathLike, step: int) -> Path:
    """Where the checkpoint of an optimiser step is."""
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def checkpoint_step(path: Path) -> int:
    """The optimiser step of a checkpoint, by its name."""
    return int(path.name.rpartition("-")[2])


def complete_checkpoints(folder: str | os.PathLike) -> list[Path]:
    """Checkpoints that were written to the end, oldest first."""
    found = [entry for entry in own_entries(folder) if _NAME.fullmatch(entry.name)]
    return sorted((entry for entry in found if (entry / COMPLETE).is_file()), key=checkpoint_step)


def mark_complete(path: Path) -> None:
    """Marks a checkpoint as complete once all its files are on the disk."""
    for file in path.iterdir():
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    sync_folder(path)
    write_atomically(path / COMPLETE, "")


def remove_entry(path: Path) -> None:
    """Removes a checkpoint; a process that is killed meanwhile leaves none that looks complete."""
    if _NAME.fullmatch(path.name):
        path = path.replace(path.with_name(f".removing-{path.name}"))
    shutil.rmtree(path)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def gather_training_state(model, optimizer: torch.optim.Optimizer, scheduler, scaler=None) -> dict[str, Any]:
    """State of optimiser, schedule and loss scale, for `torch.save`. All processes must call it together.

    Args:
        model: The model being optimized, not wrapped. Under FSDP only the main process gets the content.
        optimizer: Its optimizer.
        scheduler: Its learning rate schedule.
        scaler: Its gradient scaler in fp16, else None.
    """
    state = {
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_WHOLE),
        "scheduler": scheduler.state_dict(),
    }
    return state if scaler is None else {**state, "scaler": scaler.state_dict()}


def restore_training_state(path: Path, model, optimizer: torch.optim.Optimizer, scheduler, scaler=None) -> None:
    """Inverse of `gather_training_state`, from a checkpoint; every process reads the whole state."""
    state = torch.load(path / TRAINING_STATE, map_location="cpu", weights_only=True)
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(model, optimizer, optim_state_dict=state["optimizer"], options=options)
    scheduler.load_state_dict(state["scheduler"])
    if scaler is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])


def load_weights(model: torch.nn.Module, path: str | os.PathLike) -> None:
    """Loads the weights of a checkpoint into a model, sharded or not."""
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
