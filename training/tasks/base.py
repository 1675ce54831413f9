"""What the tasks share: a task's model, its evaluation over held-out clips, and what a report shows of it."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from deepavfusion.training.batches import BrokenClips, evaluation_loader, group_size
from deepavfusion.training.data.clips import BrokenClip
from deepavfusion.training.evaluation import model_inputs
from deepavfusion.training.report import Example, Table

_FEW = 30  # clips: below that one clip is more than 3 percentage points


@dataclass
class Evaluation:
    """What one evaluation of a task found.

    Attributes:
        metrics: name -> value; shares lie in 0..1, decibels say so in their name.
        tables: for the report and the terminal.
        num_clips: that were read.
        skipped: path -> why a clip was not.
        left_out: what was read and could not be scored -> how many, such as silent sources.
        examples: of the report, on the main process.
        figures: (title, figure, caption, text for those who do not see it), on the main process.
    """

    task: str
    protocol: str
    metrics: dict[str, float]
    num_clips: int
    tables: list[Table] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    figures: list[tuple[str, Any, str, str]] = field(default_factory=list)

    @property
    def counted(self) -> str:
        """How many clips were read, in words."""
        return f"{self.num_clips} clip{'' if self.num_clips == 1 else 's'}"

    @property
    def remarks(self) -> list[str]:
        """Sentences that belong beside the numbers: what they leave out, and whether they are of too few clips."""
        remarks = [f"Left out: {count} {what}." for what, count in self.left_out.items()]
        if 0 < self.num_clips < _FEW:
            points = 100 / self.num_clips
            remarks.append(f"So few clips say little: one more or less is {points:.0f} percentage points.")
        return remarks


class Task:
    """
    One of the five tasks. An object of it is made for a data set and holds no state between evaluations.

    Args:
        clips: the data set that is evaluated (see `build_dataset`).
        processor: of the model.

    Attributes:
        NAME, MODEL: the task and the class of its model.
        PROTOCOL: what the numbers mean, in a sentence or two.
    """

    NAME: ClassVar[str]
    MODEL: ClassVar[type[PreTrainedModel]]
    PROTOCOL: ClassVar[str]

    def __init__(self, clips, processor):
        self.clips, self.processor = clips, processor

    @property
    def primary(self) -> str:
        """The metric by which checkpoints are chosen; larger is better."""
        raise NotImplementedError

    @classmethod
    def head_config(cls, clips, semantic: bool) -> dict[str, Any]:
        """Fields of the configuration that task and data decide: number and names of the labels, and of which kind.

        The kind is of classifiers alone: a model that starts from one must not keep it.
        """
        return {"problem_type": None}

    @classmethod
    def calibration(cls, metrics: dict[str, float]) -> dict[str, Any]:
        """Fields of the configuration that the selection split's metrics decide, such as a threshold."""
        return {}

    def score(self, model, inputs: dict, batch: dict, full: bool) -> list[dict]:
        """What is kept of each clip of a batch.

        Args:
            inputs: `pixel_values` and `input_features`, on the device.
            batch: the whole batch.
            full: also the controls and the slower scores.
        """
        raise NotImplementedError

    def summarize(self, rows: list[dict], full: bool) -> tuple[dict[str, float], list[Table], dict[str, int]]:
        """Metrics, tables, and what was left out, of all clips' rows in the data set's order."""
        raise NotImplementedError

    def examples(self, model, inputs: dict, batch: dict) -> list[Example]:
        """What the report shows of a batch of clips."""
        raise NotImplementedError

    def figures(self, rows: list[dict]) -> list[tuple[str, Any, str, str]]:
        """Figures of the report over all clips."""
        return []

    def other_sounds(self, inputs: dict, batch: dict) -> torch.Tensor | None:
        """For every clip of a batch the sound of another one, (B, 1, mels, time steps): the control of what a model
        hears. None where the data set has no other clip that can be read."""
        sounds, group = inputs["input_features"], group_size(self.clips)
        if len(sounds) > group:
            return sounds.roll(group, 0)
        taken, total = {index // group for index in batch["index"].tolist()}, len(self.clips)
        for step in range(1, total):
            index = (int(batch["index"][-1]) + step) % total
            if index // group not in taken:
                sample = self.clips.__getitems__([index])[0]
                if not isinstance(sample, BrokenClip):
                    return sample["input_features"][None].to(sounds).expand_as(sounds)
        return None

    def frames(self, pixel_values: torch.Tensor):
        """Normalised frames (B, 3, H, W), or the middle ones of videos, as (B, H, W, 3) uint8 arrays."""
        visual = self.processor.visual_processor
        pixels = pixel_values.detach().float().cpu()
        if pixels.ndim == 5:
            pixels = pixels[:, pixels.shape[1] // 2]
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (visual.image_mean, visual.image_std))
        return (pixels * std + mean).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def evaluate_task(
    task: Task,
    model,
    accelerator,
    *,
    batch_size: int,
    num_workers: int,
    max_broken: float = 0.01,
    full: bool = False,
    examples: int = 0,
) -> Evaluation:
    """Evaluates a model (not wrapped; left in the mode it came in). All processes must call it together.

    Args:
        max_broken: largest share of clips that may be unreadable; more raise `BrokenDataError`.
        full: controls, bounds and slow scores as well.
        examples: how many of the first clips the report shows.
    """
    clips, broken = task.clips, BrokenClips(len(task.clips), max_broken)
    loader = evaluation_loader(
        clips,
        batch_size,
        accelerator.num_processes,
        accelerator.process_index,
        num_workers,
        group=group_size(clips),
    )
    was_training = model.training
    model.eval()
    rows, unreadable, shown = {}, [], []

    try:
        for batch in loader:
            unreadable += batch["broken"]
            if "pixel_values" not in batch:
                continue
            inputs = model_inputs(batch, model.config, accelerator.device)
            with accelerator.autocast():
                scored = task.score(model, inputs, batch, full)
                rows.update(zip(batch["index"].tolist(), scored, strict=True))
                if len(shown) < examples and accelerator.is_main_process:
                    shown += task.examples(model, inputs, batch)[: examples - len(shown)]
    finally:
        model.train(was_training)
    gathered = {}
    for part in gather_object([rows]):
        gathered.update(part)
    broken.add(gather_object(unreadable))
    if not gathered:
        raise ValueError(f"None of the {len(clips)} clips of {clips.card} could be read.")
    ordered = [gathered[index] for index in sorted(gathered)]
    metrics, tables, left_out = task.summarize(ordered, full)
    return Evaluation(
        task=task.NAME,
        protocol=f"{task.PROTOCOL} Data: {clips.card}.",
        metrics=metrics,
        num_clips=len(ordered),
        tables=tables,
        skipped=dict(broken.reasons),
        left_out={name: count for name, count in left_out.items() if count},
        examples=shown,
        figures=task.figures(ordered) if full and accelerator.is_main_process else [],
    )


def percent(value: float | None) -> str:
    """A share as text."""
    return "-" if value is None else f"{100 * value:.1f} %"


def decibels(value: float | None) -> str:
    """A level or ratio in dB as text."""
    return "-" if value is None else f"{value:.2f} dB"


__all__ = ["Evaluation", "Task", "decibels", "evaluate_task", "percent"]
