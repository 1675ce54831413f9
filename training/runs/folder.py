"""The folder that a command writes to: whose it is, which run it holds, and how results get into it.

A folder of this package carries a mark, `.deepavfusion-run.json`: the command, everything that decides its results and
the files that it left. Without the mark, nothing in a folder is touched. With it, only entries with names of this
package are ever removed, one by one, and a finished model is replaced only on request: the new one is written into a
draft folder and renamed file by file once it is complete.

    folder = RunFolder("runs/mine", "pretrain", accelerator)     # reads alone; refuses a folder that is not ours
    folder.plan(fingerprint, batch)                              # reads alone; refuses another run's folder
    folder.claim()                                               # locks it
    folder.begin(recipe.to_yaml())                               # removes what is trained anew
    ...                                                          # folder.checkpoints, folder.work, folder.draft
    folder.publish()
    folder.close()

All processes of a run call these together, but `publish`, which is for the main one.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import torch
from accelerate import Accelerator, PartialState

from deepavfusion.inference.files import write_atomically

from ..config.recipe import RecipeError
from .checkpoints import checkpoint_step, complete_checkpoints, folder_owner, lock_folder, own_entries, remove_entry
from .logging import MetricsFile
from .marks import FORMAT, MARK_FILE, RECIPE_FILE, changes, check_writable, existing_parent, files_below, read_mark
from .optimization import BatchLayout

METRICS_FILE = "metrics.jsonl"
_DRAFT = ".draft"
# Written while a run is at work; all other results are written at its end.
_WORKING_FILES = (METRICS_FILE, RECIPE_FILE, "reconstructions.png", "nearest_neighbours.json")
_MODEL_FILE = re.compile(r"config\.json|(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
_IGNORED = f".lock\n{MARK_FILE}\n{_DRAFT}/\ncheckpoints/\ntensorboard/\nwandb/\ndeepavfusion/\nruns/\n"


class RunFolder:
    """The folder of a run or of another command's results.

    Args:
        path: of the folder, which may be absent.
        command: that writes there, e.g. "pretrain".
        processes: those of the run.
        resume: go on from the last checkpoint of the same run.
        allow_changed: the same, of a run with another fingerprint.
        overwrite: replace an earlier run's results.
        arguments: names of the arguments that give the folder and that allow to overwrite, for messages.
        repeatable: the command has no checkpoints; the same command writes its results anew without being asked to.

    Attributes:
        finished: after `plan`: whether the folder holds all results of this very run, so that there is nothing to do.
        resume_from: after `plan`: the checkpoint to go on from, or None.
        replaces: after `plan`: whether an earlier model or report stays usable there until `publish`.

    Raises:
        RecipeError: for a path that cannot be written to, a folder that is not empty and has no mark, or one that
            another process is using.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        command: str,
        processes: Accelerator | PartialState,
        *,
        resume: bool = True,
        allow_changed: bool = False,
        overwrite: bool = False,
        arguments: tuple[str, str] = ("run.output_dir", "run.overwrite=true"),
        repeatable: bool = False,
    ):
        self.path, self.command, self.processes = Path(path), command, processes
        self.resume, self.allow_changed, self.overwrite = resume, allow_changed, overwrite
        (self.argument, self.overwrite_option), self.repeatable = arguments, repeatable
        self.finished, self.resume_from, self.replaces = False, None, False
        self.lock: IO[str] | None = None
        self._published: set[str] = set()
        self.mark = read_mark(self.path, self.argument)
        check_writable(self.path, self.argument)
        if owner := folder_owner(self.path):
            raise RecipeError(owner)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def draft(self) -> Path:
        """Where results are written before `publish` moves them into the folder."""
        return self.path / _DRAFT

    @property
    def work(self) -> Path:
        """Where the files are that a run writes while it trains: the draft if an earlier run's are to be kept."""
        return self.draft if self.replaces else self.path

    @property
    def _working_files(self) -> tuple[str, ...]:
        return () if self.repeatable else _WORKING_FILES

    @property
    def metrics(self) -> MetricsFile:
        return MetricsFile(self.work / METRICS_FILE)

    def plan(self, fingerprint: dict[str, Any], batch: BatchLayout | None = None) -> None:
        """Decides between finished, going on and starting, and changes nothing.

        Args:
            fingerprint: what decides the results, as JSON values, but for the effective batch.
            batch: how clips are dealt out, of a training.

        Raises:
            RecipeError: where the folder holds another run, or a finished model that is not to be overwritten.
        """
        self._record = {
            "format": FORMAT,
            "command": self.command,
            "fingerprint": json.loads(json.dumps(fingerprint)),
            "batch": None if batch is None else dataclasses.asdict(batch),
        }
        mark = self.mark
        if mark is None:
            return
        if self.repeatable and mark["command"] != self.command:
            text = f"{self.argument}={self.path} holds the results of `deepavfusion {mark['command']}`"
            raise RecipeError(f"{text}: name another folder.")
        changed = changes(mark, self._record)
        complete = complete_checkpoints(self.checkpoints)
        same_command = mark["command"] == self.command
        if self.resume and complete and same_command and (self.allow_changed or not changed):
            self.resume_from = complete[-1]
        stands = mark["finished"] or self._has_model()
        whole = mark["finished"] and all(self._exists(name) for name in mark["files"])
        self.finished = whole and self.resume and not (changed or self.overwrite or self.repeatable)
        goes_on = self.resume_from is not None or self.repeatable
        if stands and not (self.overwrite or self.finished or (goes_on and not changed)):
            raise RecipeError(self._finished_message(changed))
        if complete and changed and self.resume and not (self.resume_from or self.overwrite):
            raise RecipeError(
                f"{self.path} holds a run of another recipe (before -> now):\n  " + "\n  ".join(changed) + "\n"
                f"Name another {self.argument}, start over with run.resume=false, or go on all the same with "
                "run.allow_changed_recipe=true."
            )
        goes_on_before_the_end = self.resume_from is not None and not mark["finished"]
        self.replaces = mark["replaces"] if goes_on_before_the_end else stands

    def _finished_message(self, changed: list[str]) -> str:
        what = "results" if self.repeatable else "a finished model"
        of = "" if not changed else " of another recipe (before -> now):\n  " + "\n  ".join(changed)
        text = f"{self.path} holds {what}{of}\n" if changed else f"{self.path} holds {what}. "
        text += f"Name another {self.argument}, or replace what is there with {self.overwrite_option}"
        if changed and not self.repeatable:
            text += " (together with run.allow_changed_recipe=true from its last checkpoint)"
        return text + "."

    def report_finished(self) -> None:
        """Completes what a killed process was publishing, and prints that there is nothing to do."""
        if self.mark["publishing"] is not None:
            self.claim()
            self.close()
        if self.processes.is_main_process:
            print(
                f"{self.path} holds the finished run of this recipe: nothing to do. {self.overwrite_option} writes its "
                f"results anew, together with run.resume=false from a new training.",
                flush=True,
            )

    def require_space_for(self, model: torch.nn.Module) -> None:
        """Raises `RecipeError` where a first checkpoint, with an AdamW state, and the model do not fit on the disk."""
        sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
        size = sum(2 * number + 2 * number * trained for number, trained in sizes)
        free = shutil.disk_usage(existing_parent(self.path)).free
        if free < size:
            raise RecipeError(
                f"{self.argument}={self.path}: a checkpoint and the model need {size / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free there."
            )

    def claim(self) -> None:
        """Makes the folder and takes it for this run alone.

        Raises:
            RecipeError: where another run was faster.
        """
        self.processes.wait_for_everyone()  # all have read before the main process changes anything
        if self.processes.is_main_process:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self.lock = lock_folder(self.path)
            except OSError as error:
                raise RecipeError(f"{self.argument}={self.path} cannot be used: {error}") from error
            if read_mark(self.path, self.argument) != self.mark:
                self.close()
                raise RecipeError(f"{self.argument}={self.path} was changed by another run meanwhile: start again.")
            if self.mark is None:
                self._write_mark(finished=False, replaces=False, files=[], publishing=None)
            elif self.mark["publishing"] is not None:  # a process was killed between the first rename and the last
                self._move_draft()
        self.processes.wait_for_everyone()

    @contextlib.contextmanager
    def claimed(self) -> Generator[None]:
        """`claim`; gives the folder back where the block raises."""
        self.claim()
        try:
            yield
        except BaseException:
            self.close()
            raise

    def begin(self, recipe: str | None = None) -> None:
        """Removes what a start or a killed process makes void, and marks the folder as this run's.

        Args:
            recipe: the run's recipe, as YAML.
        """
        if self.processes.is_main_process:
            kept = [] if self.resume_from is None else complete_checkpoints(self.checkpoints)
            for entry in () if self.repeatable else own_entries(self.checkpoints):
                if entry not in kept:
                    remove_entry(entry)
            goes_on_in_draft = self.resume_from is not None and self.mark["replaces"]
            if self.draft.is_dir() and not goes_on_in_draft:
                shutil.rmtree(self.draft)
            # Only now, so that a process that is killed above leaves no other run's checkpoints under this mark.
            files = [] if self.mark is None else self.mark["files"]
            self._write_mark(finished=False, replaces=self.replaces, files=files, publishing=None, **self._record)
            self.draft.mkdir(exist_ok=True)
            for name in self._working_files:
                earlier = self.path / name
                if self.resume_from is None and not self.replaces:
                    earlier.unlink(missing_ok=True)
                elif self.resume_from is not None and self.replaces and not goes_on_in_draft and earlier.is_file():
                    shutil.copyfile(earlier, self.draft / name)
            if recipe is not None:
                self.metrics.keep_until(-1 if self.resume_from is None else checkpoint_step(self.resume_from))
                write_atomically(self.work / RECIPE_FILE, recipe)
            if not (self.path / ".gitignore").exists():
                write_atomically(self.path / ".gitignore", _IGNORED)
        self.processes.wait_for_everyone()

    def publish(self, finished: bool = True) -> None:
        """Moves what is in the draft into the folder by renames. For the main process.

        Args:
            finished: these are all results of the run; files of the run before that are not among them are removed.
        """
        self._published |= set(files_below(self.draft))
        if finished:
            working = [] if self.replaces else [name for name in self._working_files if (self.path / name).is_file()]
            files = sorted(self._published.union(working))
            stale = sorted(set(self.mark["files"]) - set(files))
            self._write_mark(finished=True, replaces=False, files=files, publishing=stale)
        self._move_draft()

    def _move_draft(self) -> None:
        for name in files_below(self.draft):
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.draft / name, target)
        for name in self.mark["publishing"] or ():
            stale = self.path / name
            stale.unlink(missing_ok=True)
            if stale.parent != self.path and stale.parent.is_dir() and not any(stale.parent.iterdir()):
                stale.parent.rmdir()
        if self.mark["publishing"] is not None:
            shutil.rmtree(self.draft, ignore_errors=True)  # its folders, empty now
            self._write_mark(publishing=None)

    def close(self) -> None:
        """Gives the folder back."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    def _write_mark(self, **entries: Any) -> None:
        self.mark = {**(self.mark or self._record), **entries}
        write_atomically(self.path / MARK_FILE, json.dumps(self.mark, indent=1) + "\n")

    def _exists(self, name: str) -> bool:
        waiting = self.mark["publishing"] is not None and (self.draft / name).is_file()
        return waiting or (self.path / name).is_file()

    def _has_model(self) -> bool:
        return self.path.is_dir() and any(_MODEL_FILE.fullmatch(entry.name) for entry in self.path.iterdir())


__all__ = ["MARK_FILE", "METRICS_FILE", "RECIPE_FILE", "RunFolder"]
