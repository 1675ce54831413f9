"""What a run says while it runs: metrics.jsonl, one aligned line, a progress bar, and trackers by name."""

import datetime
import importlib.util
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepavfusion.inference.files import write_atomically

TRACKER_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}


class MetricsFile:
    """metrics.jsonl: one JSON object a line, with "step" and "kind" ("train", "evaluation").

    A resumed run removes what a killed one wrote after its last checkpoint, so every step stands there once.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Records, of one kind or of all. A last line that a killed process left half written is no record."""
        if not self.path.exists():
            return []
        records = []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line)) if line else None
            except json.JSONDecodeError as error:
                if number < len(lines):
                    raise ValueError(f"{self.path}, line {number}, is not JSON: {line[:80]!r}") from error
        return [record for record in records if kind is None or record["kind"] == kind]

    def keep_until(self, step: int) -> None:
        """Removes the records of later steps; -1 removes all."""
        records = [record for record in self.read() if record["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(record) + "\n" for record in records))

    def append(self, record: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def check_trackers(names: list[str]) -> None:
    """Raises `ImportError` for a tracker whose package is missing, before the run starts."""
    for name in names:
        packages = TRACKER_PACKAGES[name]
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ImportError(f"run.trackers names {name}, but the package {packages[0]} is not installed.")


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def training_line(record: dict[str, Any], total_steps: int) -> str:
    """One aligned line of a training record."""
    width = len(str(total_steps))
    return (
        f"step {record['step']:>{width}}/{total_steps}  epoch {record['epoch']:7.2f}  loss {record['loss']:.4f}  "
        f"image {record['image_loss']:.4f}  audio {record['audio_loss']:.4f}  lr {record['lr']:.2e}  "
        f"grad {record['grad_norm']:8.3f}  {record['samples_per_second']:8.1f} samples/s  eta {duration(record['eta'])}"
    )


def evaluation_line(record: dict[str, Any], total_steps: int) -> str:
    """One line of an evaluation record: held-out losses, then the nearest-neighbour score of every stream."""
    width = len(str(total_steps))
    line = (
        f"eval {record['step']:>{width}}/{total_steps}  epoch {record['epoch']:7.2f}  loss {record['loss']:.4f}  "
        f"image {record['image_loss']:.4f}  audio {record['audio_loss']:.4f}"
    )
    for name, scores in (record.get("probe") or {}).items():
        metric, value = next(iter(scores.items()))
        line += f"  {name} {100 * value:.1f} %"
        if metric != "accuracy":
            line += f" ({metric})"
    return line


class Reporter:
    """Prints on the main process, above the progress bar, which shows only on a terminal."""

    def __init__(self, main: bool, total_steps: int, step: int, name: str = "pretrain"):
        self.main = main
        self.total_steps = total_steps
        self.bar = tqdm(
            total=total_steps,
            initial=step,
            disable=None if main else True,
            dynamic_ncols=True,
            unit="step",
            desc=name,
        )

    def print(self, text: str) -> None:
        if self.main:
            tqdm.write(text)

    def advance(self, loss: float | None = None) -> None:
        if loss is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()


__all__ = [
    "MetricsFile",
    "Reporter",
    "check_trackers",
    "duration",
    "evaluation_line",
    "training_line",
]
