"""Evaluation of a model on held-out clips, on any number of processes."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import gather_object

from deepavfusion.inference.jobs.progress import with_progress

from ..data.loading import BrokenClips, evaluation_loader, group_size, naming_dead_workers
from ..report.report import Example, ExampleImage, Table
from ..wording import count

MODEL_INPUTS = ("pixel_values", "input_features", "labels", "image_present", "audio_present")
ABOUT = ("label_names", "multi_label", "ceilings")  # attributes of data sets that metrics depend on
_FEW = 30  # clips, below which a single one changes an accuracy by more than 3 percentage points


@dataclass
class Evaluation:
    """Result of one evaluation of a task.

    Attributes:
        task: Name of the task.
        protocol: What the metrics mean, and the data.
        data: Description of the data.
        metrics: Name -> value; fractions are in 0..1, names of values in dB say so.
        num_clips: Number of clips that were read.
        num_scored: Number of `units` that the metrics are averages over; by default that of the clips.
        units: What these are, in the plural.
        tables: Tables for the report and the terminal.
        skipped: Path -> reason, of unreadable clips.
        left_out: Kind -> count, of clips that were read but could not be scored, such as silent sources.
        examples: Examples for the report, on the main process.
        details: Tables for the report alone, on the main process.
        figures: (title, figure, caption, alternative text), on the main process.
        reconstructions: Reconstructions of the first clips, on the main process.
        predictions: Rows of all clips of a full evaluation, from which `Task.rederive` computes the metrics: "clips",
            and others by task.
        names: Name of each clip, from the folder that all are in, on the main process.
        about: What that needs to know of the data, as JSON values.
        remarks: Sentences on what was evaluated otherwise than the recipe says.
    """

    task: str
    protocol: str
    metrics: dict[str, float]
    num_clips: int
    data: str = ""
    num_scored: int | None = None
    units: str = "clips"
    tables: list[Table] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    details: list[Table] = field(default_factory=list)
    figures: list[tuple[str, Any, str, str]] = field(default_factory=list)
    reconstructions: Any = None
    predictions: dict[str, list] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def clip_count(self) -> str:
        """Number of clips as text, such as "1 clip"."""
        return count(self.num_clips, "clip")

    @property
    def notes(self) -> list[str]:
        """Caveats of the metrics: clips that were left out, small numbers of clips, frames or mixtures, and remarks."""
        notes = [f"Left out: {what} ({number})." for what, number in self.left_out.items()]
        scored = self.num_clips if self.num_scored is None else self.num_scored
        if 0 < scored < _FEW:
            notes.append(f"Few {self.units} ({scored}): the metrics are uncertain.")
        return notes + self.remarks


@contextlib.contextmanager
def whole_parameters(model):
    """Gather all parameters on every process under FSDP, so that forward passes do not communicate.

    Processes may then run different numbers of forward passes, and call submodules.
    """
    sharded = [module for module in model.modules() if hasattr(module, "unshard")]
    if sharded:
        model(**model.dummy_inputs)  # FSDP takes the module that is called first for the root
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
def score_clips(
    clips,
    score: Callable[[dict[str, torch.Tensor], dict[str, Any]], list],
    model,
    accelerator,
    *,
    batch_size: int,
    num_workers: int,
    broken: BrokenClips,
    title: str | None = None,
) -> list:
    """Score every clip of a data set, on all processes together.

    Args:
        clips: Data set.
        score: Function of the model's inputs, on the device, and the whole batch, which returns a row for each clip.
        model: Model, which must not be wrapped; it is in eval mode meanwhile.
        accelerator: Accelerator with device, precision and processes.
        batch_size: Clips per batch and process.
        num_workers: Data loading workers per process.
        broken: Unreadable clips found earlier, to which those of `clips` are added.
        title: What the progress is called; by default as the data set says.

    Returns:
        The rows of all readable clips, in the order of the data set.

    Raises:
        ValueError: If no clip could be read.
    """
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
    rows, unreadable = {}, []
    try:
        with whole_parameters(model), naming_dead_workers():
            for batch in with_progress(loader, title or clips.reading, "batch", plural="batches"):
                unreadable += batch["broken"]
                if "pixel_values" not in batch:
                    continue
                inputs = {name: batch[name].to(accelerator.device, non_blocking=True) for name in MODEL_INPUTS[:2]}
                with accelerator.autocast():
                    rows.update(zip(batch["index"].tolist(), score(inputs, batch), strict=True))
    finally:
        model.train(was_training)
    gathered = {}
    for part in gather_object([rows]):
        gathered.update(part)
    broken.add(gather_object(unreadable))
    if not gathered:
        raise ValueError(f"None of the clips could be read ({clips.card}).")
    return [gathered[index] for index in sorted(gathered)]


def relative_names(names: list[str]) -> list[str]:
    """Names of clips without the folder that all of them are in, which says more of a machine than of the clips.

    Args:
        names: Paths, those of a mixture with " + " in between, or other names, which stay as they are.
    """
    paths = [path for name in names for path in name.split(" + ")]
    if not all(map(os.path.isabs, paths)) or not paths:
        return names
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [" + ".join(os.path.relpath(path, root) for path in name.split(" + ")) for name in names]


def with_media(examples: list[Example], clips, items: list[int]) -> list[Example]:
    """Add the whole frame and the audio to the examples of items of a data set, unless they have audio.

    Args:
        examples: Examples, one for each of the first items, or with audio of their own.
        clips: Data set.
        items: Items of the data set.
    """
    found = []
    for example, item in zip(examples, items, strict=False):
        media = None if example.audio else clips.media(item)
        if media is not None:
            whole = [] if media.frame is None else [ExampleImage(media.frame, "whole frame")]
            audio = [("audio", media.waveform, media.sampling_rate)]
            example = replace(example, images=[*whole, *example.images], audio=audio)
        found.append(example)
    return found


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
    """Evaluate a model, which must not be wrapped; its mode is restored. All processes must call this together.

    Args:
        task: Task of the data set.
        model: Model to evaluate.
        accelerator: Accelerator with device, precision and processes.
        batch_size: Clips per batch and process.
        num_workers: Data loading workers per process.
        max_unreadable_fraction: Maximum fraction of unreadable clips, above which `BrokenDataError` is raised.
        full: Whether to include controls, bounds and slow metrics.
        examples: Number of examples in the report.
        broken: Unreadable clips found earlier, to which those of this evaluation are added.

    Raises:
        ValueError: If no clip could be read.
    """
    clips = task.clips
    broken = BrokenClips.of(clips, max_unreadable_fraction) if broken is None else broken
    shown, reconstructions, named = [], [], {}

    def score(inputs, batch):
        rows = task.score(model, inputs, batch, full)
        named.update(zip(batch["index"].tolist(), batch["path"], strict=True))
        if accelerator.is_main_process:
            if len(shown) < examples:
                found = task.examples(model, inputs, batch)[: examples - len(shown)]
                shown.extend(with_media(found, clips, batch["index"].tolist()))
            if not reconstructions:
                reconstructions.append(task.reconstructions(model, inputs, batch))
        return rows

    settings = {"batch_size": batch_size, "num_workers": num_workers, "broken": broken}
    rows = score_clips(clips, score, model, accelerator, **settings)
    for part in gather_object([named]):
        named.update(part)
    metrics, tables, left_out = task.summarize(rows, full)
    if accelerator.is_main_process and not shown:
        shown = task.ranked_examples(rows, range(min(examples, len(rows))))
    return Evaluation(
        task=task.NAME,
        protocol=f"{task.PROTOCOL} Data: {clips.card}.",
        metrics=metrics,
        num_clips=len(rows),
        data=clips.card,
        num_scored=task.num_scored(rows),
        units=task.UNITS,
        tables=tables,
        skipped=dict(broken.reasons),
        left_out={name: count for name, count in left_out.items() if count},
        examples=shown,
        details=task.details(rows) if full and accelerator.is_main_process else [],
        figures=task.figures(rows) if full and accelerator.is_main_process else [],
        reconstructions=reconstructions[0] if reconstructions else None,
        predictions={"clips": rows} if full and accelerator.is_main_process else {},
        names=relative_names([named[index] for index in sorted(named)]) if accelerator.is_main_process else [],
        about={name: getattr(clips, name, None) for name in ABOUT},
    )


def check_classes(clips, least: int = 1) -> None:
    """Raise `ValueError` if clips have no classes, or fewer than `least` of which each clip has one."""
    if clips.label_names is None:
        raise ValueError(
            f"recognition needs classes, but these clips have none ({clips.card}). Put them into one subfolder per "
            "class, or name their classes in a list (data.annotations)."
        )
    if len(clips.label_names) < least and not clips.multi_label:
        raise ValueError(
            f"recognition needs at least {least} classes, but all clips are of one, {clips.label_names[0]!r} "
            f"({clips.card}): add clips of others."
        )


__all__ = [
    "ABOUT",
    "MODEL_INPUTS",
    "Evaluation",
    "check_classes",
    "evaluate_task",
    "score_clips",
    "whole_parameters",
    "with_media",
]
