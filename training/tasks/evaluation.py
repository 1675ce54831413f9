"""One evaluation of a model over held-out clips, on any number of processes."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object

from ..data.loading import BrokenClips, evaluation_loader, group_size
from ..report.report import Example, Table

MODEL_INPUTS = ("pixel_values", "input_features", "labels", "image_present", "audio_present")
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
        pictures: what the task draws of the first clips, on the main process.
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
    pictures: Any = None

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


def model_inputs(batch: dict[str, Any], config, device: torch.device) -> dict[str, torch.Tensor]:
    """Frames and sounds of a batch on the device; one blank clip where no clip of it could be read.

    The blank one keeps processes together: their forward passes exchange data, so each must make as many.
    """
    if "pixel_values" in batch:
        return {name: batch[name].to(device, non_blocking=True) for name in MODEL_INPUTS[:2]}
    return {name: torch.zeros(1, *shape, device=device) for name, shape in config.input_shapes.items()}


@contextlib.contextmanager
def whole_parameters(model):
    """Under FSDP, every parameter whole on every process: forward passes then exchange no data.

    Processes may so make different numbers of them, and call parts of the model.
    """
    sharded = [module for module in model.modules() if hasattr(module, "unshard")]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


@torch.no_grad()
def evaluate_task(
    task,
    model,
    accelerator,
    *,
    batch_size: int,
    num_workers: int,
    max_unreadable_fraction: float = 0.01,
    full: bool = False,
    examples: int = 0,
    broken: BrokenClips | None = None,
) -> Evaluation:
    """Evaluates a model (not wrapped; left in the mode it came in). All processes must call it together.

    Args:
        task: a `Task` of the clips.
        max_unreadable_fraction: largest fraction of clips that may be unreadable; more raise `BrokenDataError`.
        full: controls, bounds and slow scores as well.
        examples: how many of the first clips the report shows.
        broken: unreadable clips that are known, to which those of this evaluation are added.
    """
    clips = task.clips
    broken = BrokenClips(len(clips), max_unreadable_fraction) if broken is None else broken
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
    rows, unreadable, shown, pictures = {}, [], [], None
    try:
        with whole_parameters(model):
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
                    if pictures is None and accelerator.is_main_process:
                        pictures = task.pictures(model, inputs, batch)
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
        pictures=pictures,
    )


__all__ = ["MODEL_INPUTS", "Evaluation", "evaluate_task", "model_inputs", "whole_parameters"]
