"""The folder of a training: which run it holds, where that goes on, and what a new run replaces.

Beside what any command's folder has, it keeps checkpoints and files that are written during training. Only entries with
names of this package are ever removed, one by one, and a finished model is replaced only on request.

    folder = RunFolder("runs/mine", "pretrain", accelerator)     # only reads; refuses a folder that is not ours
    folder.plan(fingerprint, batch)                              # only reads; refuses another run's folder
    folder.claim()                                               # locks it
    folder.begin(recipe.to_yaml())                               # removes what is trained anew
    ...                                                          # folder.checkpoints, folder.work, folder.draft
    folder.publish()
    folder.close()
"""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.folder import FolderError, ResultFolder, differences, existing_parent, files_below

from .checkpoints import checkpoint_step, complete_checkpoints, own_entries, remove_entry
from .logging import MetricsFile
from .optimization import BatchLayout

METRICS_FILE, RECIPE_FILE = "metrics.jsonl", "recipe.yaml"
# Written while a run is at work; all other results are written at its end.
_WORKING_FILES = (METRICS_FILE, RECIPE_FILE, "reconstructions.png", "nearest_neighbours.json")


class RunFolder(ResultFolder):
    """The folder of a training.

    Args:
        path: Folder, which may be absent.
        command: Command that trains, e.g. "pretrain".
        processes: Processes of the run.
        resume: Go on from the last checkpoint of the same run.
        allow_changed: The same, from a run with another fingerprint.
        overwrite: Replace an earlier run's results.

    Attributes:
        finished: After `plan`: whether the folder holds all results of this very run, so that there is nothing to do.
        resume_from: After `plan`: the checkpoint to go on from, or None.
    """

    OVERWRITE = "run.overwrite=true"

    def __init__(
        self,
        path: str | os.PathLike,
        command: str,
        processes: Accelerator | PartialState,
        *,
        resume: bool = True,
        allow_changed: bool = False,
        overwrite: bool = False,
    ):
        super().__init__(path, command, "run.output_dir", overwrite=overwrite, processes=processes)
        self.resume, self.allow_changed = resume, allow_changed
        self.finished, self.resume_from = False, None
        self._published: set[str] = set()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def work(self) -> Path:
        """Where the files are that a run writes while it trains: the draft if an earlier run's are to be kept."""
        return self.draft if self.replaces else self.path

    @property
    def metrics(self) -> MetricsFile:
        return MetricsFile(self.work / METRICS_FILE)

    def plan(self, fingerprint: dict[str, Any], batch: BatchLayout) -> None:
        """Decide between finished, going on and starting, and change nothing.

        Args:
            fingerprint: What decides the results, as JSON values, except the effective batch.
            batch: How clips are dealt out.

        Raises:
            FolderError: If the folder holds another run, or a finished model that is not to be overwritten.
        """
        self._record = {**self._make_record(fingerprint), "batch": dataclasses.asdict(batch)}
        mark = self.mark
        if mark is None:
            return
        changed = self._changes()
        complete = complete_checkpoints(self.checkpoints)
        same_command = mark["command"] == self.command
        if self.resume and complete and same_command and (self.allow_changed or not changed):
            self.resume_from = complete[-1]
        stands = self._holds_results()
        whole = mark["finished"] and all(self._exists(name) for name in mark["files"])
        self.finished = whole and self.resume and not (changed or self.overwrite)
        if stands and not (self.overwrite or self.finished or (self.resume_from is not None and not changed)):
            raise FolderError(self._finished_message(changed))
        if complete and changed and self.resume and not (self.resume_from or self.overwrite):
            raise FolderError(
                f"{self.path} holds a run of another recipe (before -> now):\n  " + "\n  ".join(changed) + "\n"
                f"Name another {self.argument}, start over with run.resume=false, or go on all the same with "
                "run.allow_changed_recipe=true."
            )
        goes_on_before_the_end = self.resume_from is not None and not mark["finished"]
        self.replaces = mark["replaces"] if goes_on_before_the_end else stands

    def _changes(self) -> list[str]:
        """Lines on how this run differs from the one that the mark is of."""
        mark, now = self.mark, self._record
        if mark["command"] != now["command"]:
            return [f"command: {mark['command']} -> {now['command']}"]
        lines = differences(mark["fingerprint"], now["fingerprint"])
        before, after = BatchLayout(**mark["batch"]), BatchLayout(**now["batch"])
        if before.effective != after.effective:
            lines.append(f"effective batch: {before} -> {after}; {after.keeping(before.effective)}")
        return lines

    def _finished_message(self, changed: list[str]) -> str:
        of = " of another recipe (before -> now):\n  " + "\n  ".join(changed) + "\n" if changed else ". "
        text = f"{self.path} holds a finished model{of}Name another {self.argument}, or replace what is there with "
        text += self.OVERWRITE
        if changed:
            text += " (together with run.allow_changed_recipe=true from its last checkpoint)"
        return text + "."

    def report_finished(self) -> None:
        """Complete what a killed process was publishing, and print that there is nothing to do."""
        if self.mark["publishing"] is not None:
            self.claim()
            self.close()
        if self.processes.is_main_process:
            print(
                f"{self.path} holds the finished run of this recipe: nothing to do. {self.OVERWRITE} writes its "
                f"results anew, together with run.resume=false from a new training.",
                flush=True,
            )

    def require_space_for(self, model: torch.nn.Module) -> None:
        """Raise `FolderError` if a first checkpoint, with an AdamW state, and the model do not fit on the disk."""
        sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
        size = sum(2 * number + 2 * number * trained for number, trained in sizes)
        free = shutil.disk_usage(existing_parent(self.path)).free
        if free < size:
            raise FolderError(
                f"{self.argument}={self.path}: a checkpoint and the model need {size / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free there."
            )

    def begin(self, recipe: str) -> None:
        """Remove what a start or a killed process makes void, and mark the folder as this run's.

        Args:
            recipe: The run's recipe, as YAML.
        """
        if self.processes.is_main_process:
            kept = [] if self.resume_from is None else complete_checkpoints(self.checkpoints)
            for entry in own_entries(self.checkpoints):
                if entry not in kept:
                    remove_entry(entry)
            goes_on_in_draft = self.resume_from is not None and self.mark["replaces"]
            # Only now, so that a process that is killed above leaves no other run's checkpoints under this mark.
            self._start(keep_draft=goes_on_in_draft)
            for name in _WORKING_FILES:
                earlier = self.path / name
                if self.resume_from is None and not self.replaces:
                    earlier.unlink(missing_ok=True)
                elif self.resume_from is not None and self.replaces and not goes_on_in_draft and earlier.is_file():
                    shutil.copyfile(earlier, self.draft / name)
            self.metrics.keep_until(-1 if self.resume_from is None else checkpoint_step(self.resume_from))
            write_atomically(self.work / RECIPE_FILE, recipe)
        self.processes.wait_for_everyone()

    def publish(self, finished: bool = True) -> None:
        """Move what is in the draft into the folder by renames. For the main process.

        Args:
            finished: These are all results of the run; files of the run before that are not among them are removed.
        """
        self._published |= set(files_below(self.draft))
        if finished:
            super().publish()
        else:
            self._move_draft()

    def _results(self) -> set[str]:
        working = () if self.replaces else [name for name in _WORKING_FILES if (self.path / name).is_file()]
        return self._published.union(working)

    def _exists(self, name: str) -> bool:
        waiting = self.mark["publishing"] is not None and (self.draft / name).is_file()
        return waiting or (self.path / name).is_file()


__all__ = ["METRICS_FILE", "RECIPE_FILE", "RunFolder"]
