"""Records and reports of evaluated models: evaluation.json, report.html, and the summary on the terminal."""

import datetime
import importlib.metadata
import platform
import shlex
from pathlib import Path
from typing import Any

import torch

from deepavfusion.card_deepavfusion import architecture
from deepavfusion.inference.jobs.progress import duration
from deepavfusion.inference.precision import float32_precision
from deepavfusion.inference.publishing.latency import device_name, forward_time
from deepavfusion_cli.environment import own_command
from deepavfusion_cli.paths import EVALUATION_FILE

from ..config.model import ORIGINS, public_origin
from ..report.predictions import FOLDER, write_table
from ..report.report import Report
from ..report.tables import aligned
from ..tasks import Evaluation
from ..wording import count

_PACKAGES = ("deepavfusion", "torch", "torchaudio", "transformers", "accelerate", "safetensors", "numpy", "av")


def evaluation_record(evaluation: Evaluation, recipe, model_name: str, device: torch.device) -> dict[str, Any]:
    """Build the content of evaluation.json for an evaluation on the recipe's `data.eval_split`."""
    return {
        "task": evaluation.task,
        "recipe": recipe.name,
        "date": datetime.date.today().isoformat(),
        "model": model_name,
        "split": recipe.data.eval_split,
        "evaluated_data": evaluation.data,
        "protocol": evaluation.protocol,
        "metrics": evaluation.metrics,
        "num_clips": evaluation.num_clips,
        "skipped": len(evaluation.skipped),
        "skipped_clips": evaluation.skipped,
        "left_out": evaluation.left_out,
        "notes": evaluation.remarks,
        "device": device_name(device),
        "mixed_precision": recipe.optim.mixed_precision,
        "float32_matmul_precision": float32_precision(),
        "versions": package_versions(),
    }


def training_record(trainer) -> dict[str, Any]:
    """Build the entries of evaluation.json on the run: training, training data and model."""
    recipe, averages, clips, model = trainer.recipe, trainer.averages, trainer.train_dataset, trainer.model
    accelerator = trainer.accelerator
    held_out = {} if trainer.evaluation_broken is None else trainer.evaluation_broken.reasons
    return {
        "training": {
            "initial_weights": initial_weights(recipe.model),
            "steps": trainer.state.global_step,
            "effective_batch": trainer.schedule.effective_batch,
            "clips_seen": averages.clips,
            "seconds": averages.seconds,
            "samples_per_second": averages.clips / max(averages.seconds, 1e-9),
            "data_wait_fraction": averages.waited / max(averages.seconds, 1e-9),
            "device": f"{accelerator.num_processes} x {device_name(accelerator.device)}",
            "mixed_precision": recipe.optim.mixed_precision,
            "forward": None if recipe.optim.fsdp else forward_time(model, accelerator.device),
            "skipped_clips": {**trainer.broken.reasons, **held_out},
        },
        "data": {"name": recipe.data.name, "description": clips.card, "train_clips": len(clips)},
        "architecture": architecture(model),
    }


def initial_weights(model) -> str:
    """What a run starts from, by the section `model` of its recipe, without paths that may be private."""
    origins = (getattr(model, name) for name in ORIGINS)
    return ", ".join(public_origin(origin) for origin in origins if origin) or "random"


# Figures that a run leaves in its folder: file -> title and alternative text.
_FIGURES = {
    "reconstructions.png": ("Reconstructions", "Held-out clips, what is visible of them, and what the model predicts"),
    "training_curves.png": ("Training", "Losses and scores over the course of the training"),
}


def write_report(
    folder: Path,
    evaluation: Evaluation,
    record: dict[str, Any],
    title: str,
    notes: list[str] | None = None,
    work: Path | None = None,
) -> None:
    """Write evaluation.json, with the content of `record`, report.html and the predictions into a folder.

    Figures that a run left in that folder, or in its folder `work`, are shown.
    """
    lines = [f"{evaluation.clip_count} of the {record['split']} split, model {record['model']}.", *(notes or [])]
    report = Report(folder, title, lines + evaluation.notes, evaluation.tables, record)
    for table in evaluation.details:
        report.add_table(table.title, table.columns, table.rows, table.note)
    for name, figure, caption, alt in evaluation.figures:
        report.add_figure(name, figure, caption, alt=alt)
    for name, (heading, alt) in _FIGURES.items():
        if name == "reconstructions.png" and evaluation.examples:
            continue  # which show the same clips, with sound
        found = [path / name for path in (folder, work) if path is not None and (path / name).is_file()]
        if found:
            report.add_figure(heading, found[0], alt=alt)
    if evaluation.examples:
        report.add_gallery("Examples", evaluation.examples, "The first held-out clips, not chosen.")
    report.write()
    about = {"protocol": evaluation.protocol, "data": evaluation.about}
    for name, rows in evaluation.predictions.items():
        names = evaluation.names if len(evaluation.names) == len(rows) and name == "clips" else None
        write_table(folder / FOLDER / f"{name}.parquet", rows, about, names)


_EXPLAINED = "rows and measures are explained in docs/evaluation.md of the package's repository"


def summary(evaluation: Evaluation, folder: Path) -> str:
    """Format an evaluation for the terminal."""
    parts = [f"\n{evaluation.clip_count}"]
    for table in evaluation.tables:
        parts += [f"\n{table.title}:"] if len(evaluation.tables) > 1 else []
        parts.append(aligned([table.columns, *table.rows]))
        parts += [table.note] if table.note else []
    parts += evaluation.notes
    if evaluation.skipped:
        parts.append(f"clips that could not be read: {len(evaluation.skipped)} (listed in {EVALUATION_FILE})")
    return "\n".join([*parts, f"\nreport  {folder / 'report.html'}\nnumbers {folder / EVALUATION_FILE}", _EXPLAINED])


def training_summary(record: dict[str, Any], folder: Path, commands: tuple[str, ...], license: str | None) -> str:
    """Format a finished run for the terminal, without its evaluation.

    Args:
        record: Content of evaluation.json.
        folder: Folder of the run.
        commands: Suggestions for the next step.
        license: License that the card of the model states.
    """
    training = record["training"]
    parts = [
        f"trained on {count(training['clips_seen'], 'clip')} (repeats counted) in {duration(training['seconds'])} "
        f"({training['samples_per_second']:.3g} clips per second)"
    ]
    if training["skipped_clips"]:
        parts.append(f"clips that could not be read: {len(training['skipped_clips'])} (listed in {EVALUATION_FILE})")
    parts += [f"model   {folder} (a ready-to-push Hub repository)", f"card    {folder / 'README.md'}"]
    if (folder / "checkpoints").is_dir():
        parts.append(f"state   {folder / 'checkpoints'} (of the training; may be deleted)")
    images = [folder / name for name in _FIGURES if (folder / name).is_file()]
    parts += [f"image   {path}" for path in images]
    scene = folder / "scene" / "clip.mp4"
    clip = scene if scene.is_file() else "CLIP.mp4"
    following = (*commands, f"push {{folder}} ORG/NAME{'' if license else ' --license LICENSE'} --dry-run")
    lines = (
        f"  {own_command()} {command.format(folder=shlex.quote(str(folder)), clip=shlex.quote(str(clip)))}"
        for command in following
    )
    return "\n".join([*parts, "\nnext:", *lines])


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on; "absent" for packages not installed."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


__all__ = [
    "evaluation_record",
    "initial_weights",
    "package_versions",
    "summary",
    "training_record",
    "training_summary",
    "write_report",
]
