"""Checkpoints that exist whole or not at all, and the state that makes a resumed run the same run.

A checkpoint is a folder `step-<n>` with model.safetensors, optimizer.pt (weights-only pickle) and state.json. It is
written beside its final name, flushed to the disk and renamed, so a process killed at any moment leaves the one
before intact. States are gathered whole and keyed by parameter name: a run saved on some number of processes loads on
any other.
"""

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from deepavfusion.inference.files import sync_folder

_NAME = re.compile(r"step-(\d{8,})")


def lock_folder(folder: str | os.PathLike) -> IO[str]:
    """Takes a folder for this process until the returned file is closed or the process dies, however it dies.

    Raises:
        BlockingIOError: where another process has it; the message names the process.
    """
    path = Path(folder) / ".lock"
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (open for as long as the lock is held)
    try:
        # A record lock: unlike flock's, processes that read data do not inherit it and hold it beyond a kill.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = path.read_text(encoding="utf-8").strip()
        file.close()
        raise BlockingIOError(f"{folder} is in use by another run (process {owner}).") from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def folder_owner(folder: str | os.PathLike) -> str | None:
    """Who has locked a folder, as text; None where nobody has. Writes nothing."""
    path = Path(folder) / ".lock"
    if not path.is_file():
        return None
    with open(path, "r+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return f"{folder} is in use by another run (process {file.read().strip()})."
    return None


class CheckpointFolder:
    """The last `keep` checkpoints of a run. Saving is for the main process; loading for all.

    Args:
        folder: where the checkpoints are, e.g. runs/scenes_tiny/checkpoints.
        keep: how many of the last ones stay.
    """

    def __init__(self, folder: str | os.PathLike, keep: int):
        self.folder = Path(folder)
        self.keep = keep

    def steps(self) -> list[int]:
        """Optimiser steps of the complete checkpoints, ascending."""
        return [checkpoint_step(path) for path in complete_checkpoints(self.folder) if path.name.startswith("step-")]

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, tensors: dict[str, Any], state: dict[str, Any]) -> Path:
        """Writes one checkpoint and removes the oldest beyond `keep`.

        Args:
            tensors: "model" -> tensors by name, "optimizer" -> its state, as `gather_state` gives them, and anything
                else that `torch.load(weights_only=True)` reads.
            state: what goes into state.json.
        """
        target = self.path(step)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            temporary = self.folder / f".writing-{target.name}-{os.getpid()}"
            temporary.mkdir()
            tensors = dict(tensors)
            save_file({k: v.contiguous() for k, v in tensors.pop("model").items()}, temporary / "model.safetensors")
            torch.save(tensors, temporary / "optimizer.pt")
            (temporary / "state.json").write_text(json.dumps({"step": step, **state}, indent=1), encoding="utf-8")
            for file in temporary.iterdir():
                with open(file, "rb+") as opened:
                    os.fsync(opened.fileno())
            sync_folder(temporary)
            os.replace(temporary, target)
            sync_folder(self.folder)
        for old in self.steps()[: -self.keep]:
            remove_entry(self.path(old))
        return target

    def read_state(self, step: int) -> dict[str, Any]:
        return json.loads((self.path(step) / "state.json").read_text(encoding="utf-8"))

    def read_tensors(self, step: int) -> dict[str, Any]:
        """What `save` was given as `tensors`, on the CPU."""
        others = torch.load(self.path(step) / "optimizer.pt", map_location="cpu", weights_only=True)
        return {"model": load_file(self.path(step) / "model.safetensors"), **others}


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def gather_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Whole model and optimiser states on the CPU, keyed by parameter name. All processes must call it together.

    Under FSDP only the main process gets the content.
    """
    model_state, optimizer_state = get_state_dict(model, optimizer, options=_WHOLE)
    return {"model": model_state, "optimizer": optimizer_state}


def restore_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Any]) -> None:
    """Inverse of `gather_state`; every process passes the whole states."""
    set_state_dict(
        model,
        optimizer,
        model_state_dict=tensors["model"],
        optim_state_dict=tensors["optimizer"],
        options=StateDictOptions(full_state_dict=True),
    )


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines "key: old -> new" for every entry in which two nested dictionaries differ."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


__all__ = ["CheckpointFolder", "differences", "gather_state", "lock_folder", "restore_state"]
