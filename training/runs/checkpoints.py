"""Checkpoints of a run: folders of transformers' Trainer that count only once they are complete.

A checkpoint is a folder `checkpoint-<step>` with model and processor, loadable like any other model,
trainer_state.json, and training_state.pt (weights-only pickle) with the states of optimizer, schedule and gradient
scaler. States are gathered whole and keyed by parameter name, so that a run saved on any number of processes, sharded
or not, resumes on any other. The last file of a checkpoint is `complete`, written once the others are on the disk, so
that a process killed at any time leaves the previous checkpoint intact. Before it, `checksums.json` is written, which
detects checkpoints that were damaged later.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from deepavfusion.inference.files import apply_umask, reading, sync_folder, write_atomically
from deepavfusion_cli.early.runs import CHECKPOINT, COMPLETE, checkpoint_step, complete_checkpoints

CHECKSUMS = "checksums.json"
TRAINING_STATE = "training_state.pt"
INITIAL_MODEL = ".writing-initial-model"  # of a sharded run, while it starts
_REMOVING = re.compile(rf"\.removing-{CHECKPOINT.pattern}")


def own_entries(folder: str | os.PathLike) -> list[Path]:
    """List the checkpoints in a folder, including remains of killed processes, by name; other entries are foreign."""
    folder = Path(folder)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    own = [e for e in entries if CHECKPOINT.fullmatch(e.name) or _REMOVING.fullmatch(e.name) or e.name == INITIAL_MODEL]
    return [entry for entry in own if entry.is_dir() and not entry.is_symlink()]


def checkpoint_path(folder: str | os.PathLike, step: int) -> Path:
    """Path of the checkpoint of an optimizer step."""
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def mark_complete(path: Path) -> None:
    """Write the checksums of a checkpoint, and mark it as complete once all its files are on the disk."""
    files = sorted(path.iterdir())
    apply_umask(files)
    for file in files:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    sync_folder(path)
    checksums = {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in files}
    write_atomically(path / CHECKSUMS, json.dumps(checksums, indent=1) + "\n")
    write_atomically(path / COMPLETE, "")


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def damage(path: Path) -> str | None:
    """What is wrong with a complete checkpoint, by its checksums; None if it is whole.

    Checkpoints of earlier versions, which have no checksums, are taken to be whole.
    """
    listed = path / CHECKSUMS
    try:
        if not listed.exists():
            return None
        checksums = {name: (entry["bytes"], entry["sha256"]) for name, entry in _read_json(listed).items()}
        for name, (size, _) in checksums.items():  # sizes first: no file is read
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size:,} bytes, {size:,} were written"
        changed = (name for name, (_, digest) in checksums.items() if _digest(path / name) != digest)
        name = next(changed, None)
        return None if name is None else f"{name} is not what was written"
    except OSError as error:
        return f"{Path(error.filename or listed).name} cannot be read"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{CHECKSUMS} cannot be read"


def _read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


class Resumable(NamedTuple):
    """The checkpoint from which a run resumes, and those that it passes over."""

    path: Path | None
    """Newest whole checkpoint, or None."""
    damaged: dict[str, str]
    """Name -> reason, of the newer ones, which are damaged."""


def newest_whole(folder: str | os.PathLike) -> Resumable:
    """Find the newest checkpoint in a folder that is whole, together with the best one so far if it is another."""
    damaged: dict[str, str] = {}
    for path in reversed(complete_checkpoints(folder)):
        reason = damage(path) or _damage_of_best(path)
        if reason is None:
            return Resumable(path, damaged)
        damaged[path.name] = reason
    return Resumable(None, damaged)


def _damage_of_best(path: Path) -> str | None:
    """What is wrong with the best checkpoint up to another, which the end of the run needs; None if nothing."""
    state = path / "trainer_state.json"
    best = _read_json(state).get("best_model_checkpoint") if state.is_file() else None
    if best is None or Path(best).name == path.name:
        return None
    best = path.with_name(Path(best).name)
    reason = damage(best) if (best / COMPLETE).is_file() else "it is missing"
    return None if reason is None else f"of the best checkpoint, {best.name}, {reason}"


def remove_entry(path: Path) -> None:
    """Remove a checkpoint, atomically: a process killed meanwhile leaves none that looks complete."""
    if CHECKPOINT.fullmatch(path.name):
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
    file = path / TRAINING_STATE
    with reading(file):
        state = torch.load(file, map_location="cpu", weights_only=True)
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(model, optimizer, optim_state_dict=state["optimizer"], options=options)
    scheduler.load_state_dict(state["scheduler"])
    if scaler is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])


def load_weights(model: torch.nn.Module, path: str | os.PathLike) -> None:
    """Load the weights of a checkpoint into a model, sharded or not."""
    state = {}
    for file in sorted(Path(path).glob("model*.safetensors")):
        with reading(file):
            state.update(load_file(file))
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True))


def bytes_needed(model: torch.nn.Module) -> int:
    """Bytes of a checkpoint with the state of AdamW, and of the model."""
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    return sum(2 * number + 2 * number * trained for number, trained in sizes)


__all__ = [
    "bytes_needed",
    "CHECKSUMS",
    "COMPLETE",
    "INITIAL_MODEL",
    "TRAINING_STATE",
    "Resumable",
    "checkpoint_path",
    "checkpoint_step",
    "complete_checkpoints",
    "damage",
    "gather_training_state",
    "load_weights",
    "mark_complete",
    "newest_whole",
    "own_entries",
    "remove_entry",
    "restore_training_state",
]
