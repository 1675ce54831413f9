"""Whether a training run starts, resumes or is finished, by what its folder holds: decided without torch."""

import dataclasses
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..paths import FolderError
from ..terminal import printable
from .marks import DRAFT, differences, holds_results, make_record, open_folder
from .recipes import warmup

ARGUMENT, OVERWRITE = "run.output_dir", "run.overwrite=true"
COMPLETE = "complete"  # last file of a checkpoint
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
COMPUTATION = ("gradient_checkpointing", "attn_implementation")  # of `model`: how it computes, but not its results
_READING = {"cache_dir", "cache_gb", "num_workers", "max_unreadable_fraction"}  # of `data`
_BATCH = {"batch_size", "gradient_accumulation", "fsdp"}  # of `optim`
_SELECTION = ("eval_epochs", "keep_best")  # of `run`
_ALLOWED = "run.allow_changed_recipe=true"
_CLASSES = "data: classes"  # start of the line on other classes
_FEW = 10  # classes that are named
# Environment variables by which launchers say that a command has several processes.
_PROCESSES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class BatchLayout:
    """Division of an optimizer step's clips into batches; only their total number affects the results of a run."""

    batch_size: int
    gradient_accumulation: int
    processes: int

    @property
    def effective(self) -> int:
        """Number of clips per optimizer step."""
        return self.batch_size * self.gradient_accumulation * self.processes

    def __str__(self) -> str:
        return (
            f"{self.effective} = optim.batch_size={self.batch_size} x optim.gradient_accumulation="
            f"{self.gradient_accumulation} x {self.processes} process{'es' if self.processes > 1 else ''}"
        )

    def keeping(self, effective: int) -> str:
        """Settings with which as many processes have a given effective batch, or a condition on their number."""
        for key, rest in (
            ("gradient_accumulation", self.batch_size * self.processes),
            ("batch_size", self.gradient_accumulation * self.processes),
        ):
            if effective % rest == 0:
                return f"optim.{key}={effective // rest} keeps it"
        if effective % self.processes == 0:
            return f"optim.batch_size={effective // self.processes} optim.gradient_accumulation=1 keeps it"
        return f"a number of processes that divides {effective} can keep it"


class RunPlan(NamedTuple):
    """What a run does in its folder."""

    finished: bool
    """Whether the folder holds all results of this very run, so that there is nothing to do."""
    resumes: bool
    """Whether it resumes from a checkpoint."""
    stands: bool
    """Whether the folder holds a model, or the results of a finished command."""


def decisive(sections: dict[str, dict[str, Any]], on_batch: bool, selects: bool) -> dict[str, Any]:
    """The settings of a recipe that determine the weights of a run, except the effective batch.

    Args:
        sections: Sections of the recipe.
        on_batch: Whether the loss of the run depends on which clips are in a batch together.
        selects: Whether the best checkpoint is selected.
    """
    optim = {k: v for k, v in sections["optim"].items() if k not in _BATCH}
    optim |= {"warmup_epochs": warmup(sections["optim"]), "warmup_fraction": None}
    if on_batch:
        optim["batch_size"] = sections["optim"]["batch_size"]
    seed = ("seed", *_SELECTION) if selects else ("seed",)
    return {
        "task": sections["task"],
        "model": {k: v for k, v in sections["model"].items() if k not in COMPUTATION},
        "data": {k: v for k, v in sections["data"].items() if k not in _READING},
        "optim": optim,
        "run": {k: v for k, v in sections["run"].items() if k in seed},
    }


def run_record(command: str, fingerprint: dict[str, Any], batch: BatchLayout) -> dict[str, Any]:
    """The entries of a mark that name a run and everything that determines its results."""
    return {**make_record(command, fingerprint), "batch": dataclasses.asdict(batch)}


def plan_run(
    path: Path,
    mark: dict[str, Any],
    record: dict[str, Any],
    *,
    resume: bool = True,
    allow_changed: bool = False,
    overwrite: bool = False,
) -> RunPlan:
    """Decide whether a run starts, resumes or does nothing, without changing anything.

    Args:
        path: Folder of the run.
        mark: Its mark.
        record: What `run_record` returns for this run.
        resume: Value of `run.resume`.
        allow_changed: Value of `run.allow_changed_recipe`.
        overwrite: Value of `run.overwrite`.

    Raises:
        FolderError: If the folder holds another run, or a finished model that is not to be overwritten.
    """
    changed, stands = _changes(mark, record), holds_results(path, mark)
    whole = mark["finished"] and all(_exists(path, mark, name) for name in mark["files"])
    finished = whole and resume and not (changed or overwrite)
    complete = complete_checkpoints(path / "checkpoints")
    same_command = mark["command"] == record["command"]
    other_classes = any(line.startswith(_CLASSES) for line in changed)  # the weights are of classes by their numbers
    goes_on = not changed or (allow_changed and not other_classes)
    resumes = bool(resume and complete and same_command and goes_on and not finished)
    if stands and not (overwrite or finished or (resumes and not changed)):
        raise FolderError(_finished_message(path, changed))
    if complete and changed and resume and not (resumes or overwrite):
        others = f"Name another {ARGUMENT}, start over with run.resume=false, or resume it anyway with {_ALLOWED}."
        if other_classes:
            others = f"Name another {ARGUMENT}, or start over with run.resume=false."
        raise FolderError(
            f"{path} holds a run of {_another(changed)} (before -> now):\n  " + "\n  ".join(changed) + f"\n{others}"
        )
    return RunPlan(finished, resumes, stands)


def check_run(command: str, sections: dict[str, dict[str, Any]], path: Path) -> None:
    """Check that a run may be started or resumed in its folder, as far as that is known before torch is imported.

    Args:
        command: Command of the recipe.
        sections: What `recipes.settings` returns for the recipe.
        path: Folder of the run.

    Raises:
        FolderError: As `open_folder` and `plan_run`.
    """
    mark, run, optim = open_folder(path, ARGUMENT), sections["run"], sections["optim"]
    if mark is None or any(os.environ.get(name, "1") != "1" for name in _PROCESSES):
        return
    before, selection = (mark["fingerprint"].get(section) for section in ("optim", "run"))
    if not (isinstance(before, dict) and isinstance(selection, dict)):
        before, selection = {}, {}  # of another command
    if optim["mixed_precision"] == "auto":  # the device decides
        sections = {**sections, "optim": {**optim, "mixed_precision": before.get("mixed_precision")}}
    on_batch, selects = "batch_size" in before, _SELECTION[-1] in selection  # as the task and its objective say
    plan_run(
        path,
        mark,
        run_record(
            command,
            decisive(sections, on_batch, selects),
            BatchLayout(optim["batch_size"], optim["gradient_accumulation"], 1),
        ),
        resume=run["resume"],
        allow_changed=run["allow_changed_recipe"],
        overwrite=run["overwrite"],
    )


def complete_checkpoints(folder: str | os.PathLike) -> list[Path]:
    """List the complete checkpoints in a folder, oldest first."""
    folder = Path(folder)
    found = [entry for entry in folder.iterdir() if CHECKPOINT.fullmatch(entry.name)] if folder.is_dir() else []
    whole = [entry for entry in found if not entry.is_symlink() and (entry / COMPLETE).is_file()]
    return sorted(whole, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """Optimizer step of a checkpoint, by its name."""
    return int(path.name.rpartition("-")[2])


def _changes(mark: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describe how a run differs from that of a mark, one line per difference."""
    if mark["command"] != now["command"]:
        return [f"command: {mark['command']} -> {now['command']}"]
    lines = differences(_following(mark["fingerprint"], now["fingerprint"]), now["fingerprint"])
    lines += content_changes(mark.get("contents"), now.get("contents"))
    before, after = BatchLayout(**mark["batch"]), BatchLayout(**now["batch"])
    if before.effective != after.effective:
        lines.append(f"effective batch: {before} -> {after}; {after.keeping(before.effective)}")
    return lines


def content_changes(before: Any, now: Any) -> list[str]:
    """Lines on the clips in which two runs differ, as far as those of both are known.

    Args:
        before: Name of a split -> what `data.identity.contents_of` returned for it, in the mark of an earlier run; None
            in one of an earlier version.
        now: That of this run; None before its data set is built.
    """
    lines: dict[str, None] = {}  # of which the classes are the same in several splits
    for name in [name for name in before or () if name in (now or ())]:
        was, found = before[name], now[name]
        if was == found:
            continue
        if was["items"] != found["items"]:
            lines[f"data: {was['items']:,} -> {found['items']:,} {name}"] = None
        if was["classes"] != found["classes"]:
            lines[f"{_CLASSES} {_classes(was)} -> {_classes(found)}"] = None
        elif was["items"] == found["items"]:
            lines[f"data: other {name}, or in another order"] = None
    return list(lines)


def _classes(contents: dict[str, Any]) -> str:
    names = contents["classes"] or ["none"]
    return ", ".join(map(printable, names)) if len(names) <= _FEW else f"{len(names)}, {printable(names[0])} ..."


def _following(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint of an earlier run, with the present warm-up where it is the same part of the epochs."""
    optim, after = before.get("optim"), now.get("optim")
    try:
        same = math.isclose(optim["warmup_epochs"] / optim["epochs"], after["warmup_epochs"] / after["epochs"])
    except (KeyError, TypeError, ZeroDivisionError):  # of something else, or damaged
        return before
    return {**before, "optim": {**optim, "warmup_epochs": after["warmup_epochs"]}} if same else before


def _exists(path: Path, mark: dict[str, Any], name: str) -> bool:
    waiting = mark["publishing"] is not None and (path / DRAFT / name).is_file()
    return waiting or (path / name).is_file()


def _another(changed: list[str]) -> str:
    return "other data" if all(line.startswith("data: ") for line in changed) else "another recipe"


def _finished_message(path: Path, changed: list[str]) -> str:
    of = f" of {_another(changed)} (before -> now):\n  " + "\n  ".join(changed) + "\n" if changed else ". "
    if not changed:
        return f"{path} holds a finished model{of}Name another {ARGUMENT}, or replace what is there with {OVERWRITE}."
    anew = f"{path} holds a finished model{of}Name another {ARGUMENT}, or train anew in its place with {OVERWRITE}"
    if any(line.startswith(_CLASSES) for line in changed):
        return f"{anew}."
    return f"{anew}, or go on from its last checkpoint with {OVERWRITE} {_ALLOWED}."


__all__ = [
    "ARGUMENT",
    "CHECKPOINT",
    "COMPLETE",
    "COMPUTATION",
    "OVERWRITE",
    "BatchLayout",
    "RunPlan",
    "check_run",
    "checkpoint_step",
    "complete_checkpoints",
    "content_changes",
    "decisive",
    "plan_run",
    "run_record",
]
