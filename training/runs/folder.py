"""Result folder of a training run: whether to start, resume or do nothing, and what a new run replaces.

In addition to the results of any command, it contains checkpoints and files that are written during training. Only
entries with names of this package are ever removed, one by one, and a finished model is replaced only on request.

    folder = RunFolder("runs/mine", "pretrain", accelerator)     # read-only; refuses foreign folders
    folder.plan(fingerprint, batch)                              # read-only; refuses the folder of another run
    folder.compare(contents)                                     # read-only; refuses that of a run on other clips
    folder.claim()                                               # lock it
    folder.begin(recipe.to_yaml())                               # remove what is trained again
    ...                                                          # folder.checkpoints, folder.work, folder.draft
    folder.publish()
    folder.close()
"""

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState

from deepavfusion.inference.files import apply_umask, require_space, saving, write_atomically
from deepavfusion.inference.folder import FolderError, ResultFolder, files_below
from deepavfusion_cli.early.runs import (
    ARGUMENT,
    OVERWRITE,
    BatchLayout,
    content_changes,
    decisive,
    plan_run,
    run_record,
)
from deepavfusion_cli.terminal import say

from ..config.recipe import Recipe
from ..data.identity import TrainingClips
from ..data.identity.clips import FILE as TRAINING_CLIPS
from ..report.predictions import NEIGHBORS
from ..tasks import Task
from .checkpoints import (
    COMPLETE,
    Resumable,
    bytes_needed,
    checkpoint_step,
    complete_checkpoints,
    newest_whole,
    own_entries,
    remove_entry,
)
from .logging import MetricsFile

METRICS_FILE, RECIPE_FILE = "metrics.jsonl", "recipe.yaml"
# Written during training; all other results are written at the end.
_WORKING_FILES = (METRICS_FILE, RECIPE_FILE, TRAINING_CLIPS, "reconstructions.png", f"{NEIGHBORS}.json")


def fingerprint(task: type[Task], recipe: Recipe, config) -> dict[str, Any]:
    """Collect everything that determines the weights of a run except the effective batch; a run resumes only if equal.

    Args:
        task: Task of the run.
        recipe: Recipe of the run.
        config: Configuration of the encoder.
    """
    return decisive(recipe.to_dict(), task.depends_on_batch(recipe, config), task.SELECTS)


class RunFolder(ResultFolder):
    """Result folder of a training run.

    Args:
        path: Folder, which may be absent.
        command: Command that trains, e.g. "pretrain".
        processes: Processes of the run.
        resume: Resume from the last checkpoint of the same run.
        allow_changed: Resume even from a checkpoint of a run with another fingerprint.
        overwrite: Replace the results of an earlier run.

    Attributes:
        finished: Set by `plan`: whether the folder holds all results of this very run, so that there is nothing to do.
        resume_from: Set by `plan`: checkpoint to resume from, the newest one that is whole, or None.
        holds_model: Whether the draft holds the trained model, which stays even if what follows fails.
        damaged: Set by `plan`: name -> reason, of newer checkpoints, which are damaged and trained again.
    """

    OVERWRITE = OVERWRITE

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
        super().__init__(path, command, ARGUMENT, overwrite=overwrite, processes=processes)
        self.resume, self.allow_changed = resume, allow_changed
        self.finished, self.resume_from = False, None
        self.damaged: dict[str, str] = {}
        self.holds_model = False
        self._published: set[str] = set()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def work(self) -> Path:
        """Folder of the files written during training: the draft if those of an earlier run are to be kept."""
        return self.draft if self.replaces else self.path

    @property
    def metrics(self) -> MetricsFile:
        """Records of the run."""
        return MetricsFile(self.work / METRICS_FILE)

    def plan(self, fingerprint: dict[str, Any], batch: BatchLayout) -> None:
        """Decide whether to start, resume or do nothing, without changing anything.

        Args:
            fingerprint: Everything that determines the results except the effective batch, as JSON values.
            batch: Layout of the batches.

        Raises:
            FolderError: If the folder holds another run, or a finished model that is not to be overwritten.
        """
        self._record = run_record(self.command, fingerprint, batch)
        self._decide()

    def compare(self, contents: dict[str, Any]) -> None:
        """Decide anew if the clips of the run are not those of the run in the folder, without changing anything.

        Args:
            contents: Name of a split -> what `contents_of` returns for it.

        Raises:
            FolderError: As `plan`.
        """
        self._record["contents"] = contents
        if self.mark is not None and content_changes(self.mark.get("contents"), contents):
            self._decide()

    def _decide(self) -> None:
        mark, self.resume_from = self.mark, None
        if mark is None:
            return
        options = {"resume": self.resume, "allow_changed": self.allow_changed, "overwrite": self.overwrite}
        self.finished, resumes, stands = plan_run(self.path, mark, self._record, **options)
        if resumes:
            self._resume(newest_whole(self.checkpoints))
        self.replaces = mark["replaces"] if resumes and not mark["finished"] else stands

    def _resume(self, found: Resumable) -> None:
        self.resume_from, self.damaged = found
        if found.path is None:
            listing = "".join(f"\n  {name}: {reason}" for name, reason in found.damaged.items())
            raise FolderError(
                f"{self.path} holds no whole checkpoint to resume from:{listing}\n"
                "Copy whole ones there, or start over with run.resume=false."
            )

    def notes(self) -> list[str]:
        """Lines on the checkpoint from which the run resumes, and on newer ones that are damaged."""
        if self.resume_from is None:
            return []
        lines = [f"{name} is damaged ({reason}): passed over" for name, reason in self.damaged.items()]
        return [*lines, f"resumed after step {checkpoint_step(self.resume_from)} from {self.resume_from}"]

    def report_finished(self) -> None:
        """Complete the publishing of a killed process, and print that there is nothing to do."""
        if self.mark["publishing"] is not None:
            self.claim()
            self.close()
        if self.processes.is_main_process:
            say(
                f"{self.path} holds the finished run of this recipe: nothing to do. To write its results again, add "
                f"{self.OVERWRITE}; to train again from the start, add run.resume=false as well."
            )

    def require_space_for(self, model: torch.nn.Module) -> None:
        """Raise `DiskFullError` if a checkpoint with the state of AdamW and the model do not fit on the disk."""
        require_space(self.path, bytes_needed(model), f"{self.argument}={self.path}")

    @contextlib.contextmanager
    def running(self, model: torch.nn.Module) -> Generator[None]:
        """Release the folder at the end of a run; if it fails, also remove what it has half written.

        Raises:
            DiskFullError: For what libraries raise if the disk is full.
        """
        try:
            with saving(self.path, bytes_needed(model)):
                yield
        except BaseException:
            self.discard()
            raise
        finally:
            self.close()

    def discard(self) -> None:
        """Remove half-written checkpoints and results; the run resumes from the last checkpoint."""
        if self.lock is None or self.mark is None or self.mark["publishing"] is not None:
            return
        for entry in own_entries(self.checkpoints):
            if not (entry / COMPLETE).is_file():
                with contextlib.suppress(OSError):
                    remove_entry(entry)
        if self.holds_model:
            return
        kept = _WORKING_FILES if self.work == self.draft else ()
        for name in files_below(self.draft):
            if name not in kept:
                (self.draft / name).unlink(missing_ok=True)
        if not kept:
            shutil.rmtree(self.draft, ignore_errors=True)

    def begin(self, recipe: str, clips: TrainingClips | None = None) -> None:
        """Remove what a new start or a killed process has made invalid, and mark the folder as that of this run.

        Args:
            recipe: Recipe of the run, as YAML.
            clips: Clips that it trains on, on the main process. Those of the run that it resumes stay among them.
        """
        if self.processes.is_main_process:
            whole = [entry for entry in complete_checkpoints(self.checkpoints) if entry.name not in self.damaged]
            kept = [] if self.resume_from is None else whole
            for entry in own_entries(self.checkpoints):
                if entry not in kept:
                    remove_entry(entry)
            resumes_in_draft = self.resume_from is not None and self.mark["replaces"]
            # Last, so that a process killed above leaves no checkpoints of another run under this marker.
            self._start(keep_draft=resumes_in_draft)
            for name in _WORKING_FILES:
                earlier = self.path / name
                if self.resume_from is None and not self.replaces:
                    earlier.unlink(missing_ok=True)
                elif self.resume_from is not None and self.replaces and not resumes_in_draft and earlier.is_file():
                    shutil.copyfile(earlier, self.draft / name)
            self.metrics.keep_until(-1 if self.resume_from is None else checkpoint_step(self.resume_from))
            write_atomically(self.work / RECIPE_FILE, recipe)
            if clips is not None:
                file = self.work / TRAINING_CLIPS
                if self.resume_from is not None:
                    with contextlib.suppress(OSError, ValueError):  # of an earlier version, or damaged
                        clips |= TrainingClips.read(file)
                write_atomically(file, clips.to_bytes())
        self.processes.wait_for_everyone()

    def publish(self, finished: bool = True) -> None:
        """Move the files of the draft into the folder by renames. For the main process.

        Args:
            finished: Whether these are all results of the run; other files of an earlier run are then removed.
        """
        apply_umask(self.draft / name for name in files_below(self.draft))
        self._published |= set(files_below(self.draft))
        if finished:
            super().publish()
        else:
            self._move_draft()

    def _withdraw(self) -> None:
        for name in _WORKING_FILES:
            (self.path / name).unlink(missing_ok=True)
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()
        super()._withdraw()

    def _results(self) -> set[str]:
        working = () if self.replaces else [name for name in _WORKING_FILES if (self.path / name).is_file()]
        return self._published.union(working)


__all__ = ["METRICS_FILE", "RECIPE_FILE", "RunFolder", "fingerprint"]
