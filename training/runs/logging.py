"""Logging of a run: metrics.jsonl, aligned lines on the terminal, progress, and experiment trackers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.folder import FolderError
from deepavfusion.inference.jobs.progress import Progress
from deepavfusion_cli.environment import core_seconds
from deepavfusion_cli.terminal import percent, say

from ..wording import metric_title

_DOMINATES = 0.4  # of the time; beside two busy programs on two cores, two threads wait for half of it
_MIN_SECONDS = 5.0  # of computing and waiting, before a fraction of them is trusted


class MetricsFile:
    """metrics.jsonl: one JSON object per line, with "step" and "kind" ("train", "evaluation").

    A resumed run removes what a killed one wrote after its last checkpoint, so that every step is logged once.

    Args:
        path: Path of the file, which may be absent.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Read the records of one kind, or all; an incomplete last line, left by a killed process, is dropped.

        Raises:
            FolderError: If another line is not a record.
        """
        if not self.path.exists():
            return []
        records = []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, start=1):
            try:
                records += [_checked(json.loads(line))] if line else []
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                if number < len(lines):
                    raise FolderError(
                        f"{self.path}, line {number}, is not JSON with a step and a kind: {line[:80]!r}. Correct or "
                        "remove that line, or start over with run.resume=false."
                    ) from error
        return [record for record in records if kind is None or record["kind"] == kind]

    def keep_until(self, step: int) -> None:
        """Remove the records of later steps; -1 removes all."""
        records = [record for record in self.read() if record["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(record) + "\n" for record in records))

    def append(self, record: dict[str, Any]) -> None:
        """Append a record."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _checked(record: Any) -> dict[str, Any]:
    if not isinstance(record["kind"], str) or not isinstance(record["step"], int):
        raise TypeError
    return record


def tracker_callbacks(names: list[str]) -> list[TrainerCallback]:
    """Build the callbacks of experiment trackers.

    Args:
        names: Names of trackers as transformers knows them.

    Raises:
        ValueError: For an unknown tracker, or one whose package is missing.
    """
    callbacks = []
    for name in names:
        try:
            callbacks += [kind() for kind in get_reporting_integration_callbacks([name])]
        except (RuntimeError, ValueError, ImportError) as error:
            raise ValueError(f"run.trackers={name} cannot be used: {error}") from error
    return callbacks


class LogAverages:
    """Sums since the last log line and over the whole run, which checkpoints contain so that resumed runs log the same.

    Attributes:
        sums: Sums since the last log line, by name.
        clips: Number of clips seen so far.
        seconds: Duration of the training so far.
        waited: Seconds of it spent waiting for clips.
    """

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.clips, self.seconds, self.waited = 0, 0.0, 0.0

    def add(self, totals: dict[str, float], seconds: float) -> None:
        """Add an optimizer step.

        Args:
            totals: Losses times clips, "clips", "grad_norm" and "wait", the seconds spent waiting for clips.
            seconds: Duration of the step.
        """
        for key, value in {**totals, "seconds": seconds, "steps": 1.0}.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.clips += int(totals["clips"])
        self.seconds += seconds
        self.waited += totals["wait"]

    def record(self, losses: Sequence[str], remaining_steps: int) -> dict[str, float]:
        """Return the means since the last record, and reset the sums.

        Args:
            losses: Names of the losses.
            remaining_steps: Number of steps until the end of the run, for its "eta" in seconds.
        """
        sums, self.sums = self.sums, {}
        clips = max(sums["clips"], 1.0)
        return {
            **{name: sums[name] / clips for name in losses},
            "grad_norm": sums["grad_norm"] / sums["steps"],
            "samples_per_second": sums["clips"] / sums["seconds"],
            "data_wait_fraction": sums["wait"] / sums["seconds"],
            "eta": remaining_steps * sums["seconds"] / sums["steps"],
        }


def training_line(record: dict[str, Any], total_steps: int) -> str:
    """Format a training record as an aligned line."""
    losses = "  ".join(f"{metric_title(name)} {value:.4f}" for name, value in record.items() if name.endswith("loss"))
    return (
        f"step {record['step']:>{len(str(total_steps))}}/{total_steps}  epoch {record['epoch']:7.2f}  {losses}  "
        f"lr {record['learning_rate']:.2e}  grad {record['grad_norm']:8.3f}  "
        f"{record['samples_per_second']:8.1f} samples/s"
    )


def evaluation_line(record: dict[str, Any], total_steps: int, shown: Sequence[str]) -> str:
    """Format an evaluation record as a line, with those metrics of `shown` that it has."""
    metrics = "  ".join(f"{metric_title(name)} {record[name]:.4f}" for name in shown if name in record)
    return f"eval {record['step']:>{len(str(total_steps))}}/{total_steps}  epoch {record['epoch']:7.2f}  {metrics}"


class WaitingNotes:
    """Advice, given once, to a run that spends its time waiting: for the data, or for cores that others use."""

    def __init__(self):
        self.measured = core_seconds()
        self.given: set[str] = set()

    def add(self, data_wait_fraction: float) -> list[str]:
        """Return the advice that a log line gives occasion to.

        Args:
            data_wait_fraction: Fraction of the time since the last log line that was spent waiting for clips.
        """
        notes = {}
        fraction = self._core_wait_fraction()
        if fraction >= _DOMINATES:
            notes["cores"] = f"this run waits {percent(fraction, 0)} of its time for a core that other programs use" + (
                ": fewer threads may be faster (OMP_NUM_THREADS=1)" if torch.get_num_threads() > 1 else ""
            )
        elif data_wait_fraction >= _DOMINATES:
            notes["data"] = (
                f"this run waits {percent(data_wait_fraction, 0)} of the time for its clips: more data.num_workers "
                "read them faster, where there are cores for them"
            )
        new = [text for key, text in notes.items() if key not in self.given]
        self.given |= notes.keys()
        return new

    def _core_wait_fraction(self) -> float:
        """Fraction of the time since the last call in which threads could not compute for want of a core."""
        now, before = core_seconds(), self.measured
        if now is None or before is None:
            return 0.0
        ran, waited = (max(0.0, new - old) for new, old in zip(now, before))  # threads that ended take theirs along
        if ran + waited < _MIN_SECONDS:
            return 0.0
        self.measured = now
        return waited / (ran + waited)


class ProgressLog(TrainerCallback):
    """Callback that writes metrics.jsonl, a line per record, and the progress between them, on the main process only.

    Args:
        metrics: Records of the run.
        main: Whether this is the main process.
        name: Name for the progress: a bar on a terminal, elsewhere a line where there was none for half a minute.
        headline: Metrics in the line of an evaluation.
    """

    def __init__(self, metrics: MetricsFile, main: bool, name: str, headline: Sequence[str] = ()):
        self.metrics, self.main, self.name, self.headline = metrics, main, name, headline
        self.progress: Progress | None = None
        self.waiting, self.stepping = WaitingNotes(), False

    def print(self, text: str) -> None:
        """Print lines, above the bar if there is one."""
        if self.main:
            say(text, kept="\n")
            if self.progress is not None:
                self.progress.mark_reported()

    def advance(self, loss: float) -> None:
        """Take note of a step."""
        self.progress.update(note=f"loss {loss:.4f}")

    def close(self) -> None:
        """Close the bar."""
        if self.progress is not None:
            self.progress.close()

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(self.name, state.max_steps, "step", done=state.global_step, shown=self.main)

    def on_step_begin(self, args, state, control, **kwargs):
        if not self.stepping:  # steps do not take as long as what came before them, such as an evaluation
            self.stepping = True
            self.progress.start_again()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not self.main or logs is None or "train_runtime" in logs:
            return
        evaluated = any(name.startswith("eval_") for name in logs)
        values = {name.removeprefix("eval_"): value for name, value in logs.items() if name != "epoch"}
        kind = "evaluation" if evaluated else "train"
        record = {"step": state.global_step, "kind": kind, "epoch": logs["epoch"], **values}
        self.metrics.append(record)
        line = evaluation_line(record, state.max_steps, self.headline) if evaluated else None
        self.print(line or training_line(record, state.max_steps))
        for note in () if evaluated else self.waiting.add(values.get("data_wait_fraction", 0.0)):
            self.print(note)

    def on_train_end(self, args, state, control, **kwargs):
        self.close()


__all__ = [
    "LogAverages",
    "MetricsFile",
    "ProgressLog",
    "WaitingNotes",
    "evaluation_line",
    "tracker_callbacks",
    "training_line",
]
