"""Model cards (README.md) of pre-trained and fine-tuned models, from `templates/card.md.jinja`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from deepavfusion.card_deepavfusion import (
    CITATION,
    ENCODER,
    TASKS,
    architecture_rows,
    card_tags,
    introduction,
    usage,
)
from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.jobs.progress import duration

from ..report.tables import markdown_table, markdown_text
from ..tasks import Evaluation
from ..tasks.pretraining_tables import nested_scores
from ..wording import count, metric_title

EVAL_RESULTS = ".eval_results"  # folder of results as the Hub reads them
CARD_DIGITS = 4  # of metrics in the card's metadata
# Data set -> its id on the Hub; others, which the Hub does not have, are named after this package.
_HUB_DATA = {"vggsound": "mteb/VGGSound", "audioset": "agkphysics/AudioSet"}
TEMPLATE = Path(__file__).parent / "templates" / "card.md.jinja"
_UPPER_BOUNDS = {"audio": "audio", "image": "image", "both": "both", "chance": "neither"}


def write_card(
    folder: Path, name: str, record: dict[str, Any], evaluation: Evaluation, recipe, notes: Sequence[str] = ()
) -> None:
    """Write README.md, with the evaluation results in its metadata and in .eval_results, into a model's folder.

    Args:
        folder: Folder of the model.
        name: Name of the model.
        record: Content of evaluation.json.
        evaluation: Evaluation of the model on the test split.
        recipe: Recipe of the run.
        notes: Sentences about the training.
    """
    task = TASKS[record["task"]]
    pretrained = task is ENCODER
    metrics = _neighbor_scores(record["metrics"]) if pretrained else list(record["metrics"].items())
    objective = record["architecture"]["pretraining_objective"]
    data = ModelCardData(
        model_name=name if metrics else None,
        license=recipe.run.license,
        library_name="transformers",
        pipeline_tag=task.hub_task,
        tags=card_tags(task, objective),
        metrics=sorted({name.partition("_")[2] for name, _ in metrics}) if pretrained and metrics else None,
        eval_results=[
            EvalResult(
                task_type=task.hub_task,
                task_name=task.pipeline or "Leave-one-out nearest neighbor",
                dataset_type=record["data"]["name"],
                dataset_name=evaluation.data,
                dataset_split=record["split"],
                metric_type=name.partition("_")[2] if pretrained else name,
                metric_name=metric_title(name),
                metric_value=round(value, CARD_DIGITS),
            )
            for name, value in metrics
        ]
        or None,
    )
    read = f"{evaluation.clip_count} of the {record['split']} split; {len(evaluation.skipped)} could not be read."
    text = recipe.to_yaml(public=True).strip()
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=markdown_text(name),
        introduction=introduction(task, objective),
        usage=usage(task, objective, _location(recipe, name)),
        pretrained=pretrained,
        objective=objective,
        norm_patch_loss=record["architecture"]["norm_patch_loss"],
        details=_details(record),
        protocol=record["protocol"],
        tables=_tables(record, evaluation),
        remarks=" ".join([read, *evaluation.notes]),
        limits=_limits(record),
        command=recipe.command,
        date=record["date"],
        notes=notes,
        recipe=text,
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0)),
        versions=record["versions"],
        citation=CITATION,
    )
    write_atomically(folder / "README.md", str(card) + "\n")
    if metrics:
        write_eval_results(folder, record, [name for name, _ in metrics], evaluation)


def write_eval_results(folder: Path, record: dict[str, Any], names: Sequence[str], evaluation: Evaluation) -> None:
    """Write metrics as `.eval_results/DATA.yaml`, which the Hub reads besides the card.

    Args:
        folder: Folder of the model.
        record: Content of evaluation.json.
        names: Metrics.
        evaluation: Evaluation of the model.
    """
    data = record["data"]["name"]
    entries = [
        EvalResultEntry(
            dataset_id=_HUB_DATA.get(data, f"deepavfusion/{data}"),
            task_id=f"{record['task']}/{name}",
            value=record["metrics"][name],
            date=record["date"],
            notes=f"{evaluation.clip_count} of the {record['split']} split. {evaluation.data or data}",
        )
        for name in names
    ]
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    (folder / EVAL_RESULTS).mkdir(exist_ok=True)
    write_atomically(folder / EVAL_RESULTS / f"{data}.yaml", text)


def _neighbor_scores(metrics: dict[str, float]) -> list[tuple[str, float]]:
    """Name and value of each nearest-neighbor score of a pre-trained model."""
    scores = nested_scores(metrics) or {}
    return [
        (f"{stream}_{metric}", value)
        for stream, values in scores.items()
        if stream != "chance"
        for metric, value in values.items()
    ]


def _location(recipe, name: str) -> str:
    """Path of the model's folder from where the run was started; absolute paths, which may be private, are cut."""
    path = Path(recipe.run.output_dir)
    return f"path/to/{name}" if path.is_absolute() else path.as_posix()


def _details(record: dict[str, Any]) -> str:
    training = record["training"]
    speed = f"{duration(training['seconds'])} ({training['samples_per_second']:.3g} clips per second)"
    steps = count(training["steps"], "step")
    rows = [
        *architecture_rows(record["architecture"]),
        ["initial weights", training["initial_weights"]],
        ["training data", record["data"]["description"]],
        ["clips seen", f"{training['clips_seen']:,} (repeats counted), in {steps} of {training['effective_batch']}"],
        ["time", f"{speed}, {training['device']}"],
        ["precision", training["mixed_precision"] if training["mixed_precision"] != "no" else "float32"],
    ]
    return markdown_table(["", ""], rows)


def _tables(record: dict[str, Any], evaluation: Evaluation) -> list[tuple[str, str, str | None]]:
    """Title (only if there are several), Markdown and note of each table."""
    several = len(evaluation.tables) > 1
    tables = [
        (table.title if several else "", markdown_table(table.columns, table.rows), table.note)
        for table in evaluation.tables
    ]
    if record.get("ceilings"):
        metrics = list(next(iter(record["ceilings"].values())))
        rows = [
            [_UPPER_BOUNDS[modality], *(f"{100 * scores[metric]:.1f} %" for metric in metrics)]
            for modality, scores in record["ceilings"].items()
        ]
        note = "Classes pair a shape with a timbre, so one modality alone leaves them ambiguous."
        tables.append(("Upper bounds", markdown_table(["upper bound with", *map(metric_title, metrics)], rows), note))
    return tables


def _limits(record: dict[str, Any]) -> list[str]:
    training, data = record["training"], record["data"]
    limits = [TASKS[record["task"]].limit]
    if record["task"] == "pretraining":
        limits.append("Both modalities were always present in training.")
    limits.append(f"Trained on {markdown_text(data['description'])}. Do not expect it to generalize far beyond.")
    if data["name"] == "scenes":
        limits.append("The data are synthetic scenes; the model does not transfer to real videos.")
    if training["skipped_clips"]:
        limits.append(f"Clips that could not be read: {len(training['skipped_clips'])}, listed in `evaluation.json`.")
    return limits


__all__ = ["write_card"]
