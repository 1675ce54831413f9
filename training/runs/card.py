"""Model cards (README.md) of pre-trained and fine-tuned models, from `templates/card.md.jinja`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from deepavfusion.inference.files import write_atomically

from ..config.arguments import PretrainArguments
from ..config.finetune_arguments import FinetuneArguments
from ..report.tables import markdown_table
from ..tasks import Evaluation
from .logging import duration

TEMPLATE = Path(__file__).parent / "templates" / "card.md.jinja"
PIPELINES = {
    "recognition": "audio-visual-classification",
    "separation": "audio-visual-source-separation",
    "segmentation": "audio-visual-segmentation",
    "localization": "sound-source-localization",
}
_HUB_TASKS = {
    "recognition": "video-classification",
    "separation": "audio-to-audio",
    "segmentation": "image-segmentation",
    "localization": "image-segmentation",
}
_LIMITS = {
    "recognition": "The model always predicts one of the classes of its training data, whatever the clip.",
    "separation": "The model extracts the sound of what the frame shows; it cannot separate two sources in one frame.",
    "segmentation": "The mask covers a single frame; sources outside it are not represented.",
    "localization": "The map has one value per patch of the frame, so small sources are localized coarsely.",
}
_PRETRAINING_PROTOCOL = (
    "One frame and one audio window per clip, no augmentation. Losses: mean squared error of masked patches, with the "
    "same masks at every evaluation. Nearest neighbour: each stream's mean over tokens, unmasked, L2-normalised, leave "
    "one out; `all` adds the three cosine similarities."
)
_METRICS = {"accuracy": "1-NN accuracy", "map": "1-NN mAP", "auc": "1-NN AUC"}


def write_card(
    folder: Path,
    content: dict[str, Any],
    recipe: PretrainArguments | FinetuneArguments,
    evaluation: Evaluation | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write README.md, with the evaluation results in its metadata, into a model's folder.

    Args:
        folder: Folder of the model, whose name becomes the title.
        content: Content of results.json after pre-training, of evaluation.json after fine-tuning.
        recipe: Arguments of the run.
        evaluation: Evaluation of a fine-tuned model on the test split; None for a pre-trained model.
        notes: Sentences about the training.
    """
    name = folder.resolve().name
    describe = _pretrained if evaluation is None else _finetuned
    fields, metadata, results = describe(content, recipe, evaluation)
    synthetic = ["The data are synthetic scenes; the model does not transfer to real videos."]
    data = ModelCardData(
        model_name=name if results else None,
        license=recipe.run.license,
        library_name="transformers",
        eval_results=results or None,
        **metadata,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        pretrained=evaluation is None,
        date=content["date"],
        versions=content["versions"],
        notes=notes,
        recipe=recipe.to_yaml(public=True).strip(),
        **{**fields, "limits": fields["limits"] + (synthetic if recipe.data.name == "scenes" else [])},
    )
    write_atomically(folder / "README.md", str(card) + "\n")


def _pretrained(results: dict[str, Any], recipe: PretrainArguments, _) -> tuple[dict, dict, list[EvalResult]]:
    data, run, scores = results["data"], results["run"], results["after"]["probe"] or {}
    evaluations = [
        EvalResult(
            task_type="feature-extraction",
            task_name="Leave-one-out nearest neighbour",
            dataset_type=data["name"],
            dataset_name=data["description"],
            dataset_split=data["eval_split"],
            metric_type=metric,
            metric_name=f"{_METRICS[metric]}, {stream} stream",
            metric_value=round(value, 4),
        )
        for stream, values in scores.items()
        for metric, value in values.items()
    ]
    metadata = {
        "pipeline_tag": "feature-extraction",
        "tags": ["deepavfusion", "audio-visual", "masked-autoencoder", "pre-training", "video", "audio", "custom_code"],
        "metrics": sorted({evaluation.metric_type for evaluation in evaluations}) or None,
    }
    limits = [
        "Pre-trained only: the streams are meant for fine-tuning, probing and retrieval; there is no classifier.",
        "Both modalities were always present in training.",
        f"Trained on {run['clips_seen']:,} clips of: {data['description']}. Do not expect it to generalize far beyond.",
    ]
    if run["skipped"]:
        limits.append(f"{len(run['skipped'])} clips could not be read and were skipped; `results.json` lists them.")
    fields = {
        "details": _details(results),
        "protocol": f"{data['eval_clips']:,} clips of the {data['eval_split']} split. {_PRETRAINING_PROTOCOL}",
        "tables": _pretraining_tables(results),
        "probed": bool(scores),
        "norm_patch_loss": results["model"]["norm_patch_loss"],
        "limits": limits,
    }
    return fields, metadata, evaluations


def _details(results: dict[str, Any]) -> str:
    model, data, run = results["model"], results["data"], results["run"]
    millions = [f"{model[key] / 1e6:.1f} M" for key in ("parameters", "encoder_parameters")]
    sizes = [str(model[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")]
    rows = [
        ["parameters", f"{millions[0]}, of which encoder {millions[1]}"],
        ["width, depth, heads", ", ".join(sizes)],
        ["fusion", f"{model['fusion_type']}, layers: {model['fusion_layers']}, tokens: {model['fusion_tokens']}"],
        ["frame", f"{model['frame']} pixels, {model['image_patches']} patches"],
        ["audio", f"log-mel, {model['spectrogram']}, {model['audio_patches']} patches"],
        ["initial weights", results["initial_weights"]],
        ["training data", data["description"]],
        ["clips seen", f"{run['clips_seen']:,} in {run['steps']:,} steps of {run['effective_batch']}"],
        ["time", f"{duration(run['seconds'])} ({run['samples_per_second']:.3g} clips per second), {run['device']}"],
        ["precision", run["mixed_precision"] if run["mixed_precision"] != "no" else "float32"],
    ]
    return markdown_table(["", ""], rows)


def _pretraining_tables(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    losses = [
        [label, f"{results['before'][key]:.4f}", f"{results['after'][key]:.4f}"]
        for key, label in (("loss", "sum"), ("image_loss", "image"), ("audio_loss", "audio"))
    ]
    tables = [("", markdown_table(["loss", "before training", "after"], losses), "")]
    scores = score_table(results)
    if scores:
        tables.append(("", markdown_table(scores[0], scores[1:]), ""))
    if scores and results.get("ceilings"):
        metrics = list(next(iter(results["ceilings"].values())))
        rows = [
            [modality, *(f"{100 * s[metric]:.1f} %" for metric in metrics)]
            for modality, s in results["ceilings"].items()
        ]
        note = "Upper bounds: classes pair a shape with a timbre, so one modality alone leaves them ambiguous."
        tables.append(("", markdown_table(["best possible from", *metrics], rows), note))
    return tables


def score_table(results: dict[str, Any]) -> list[list[str]]:
    """Rows of the nearest-neighbour table, header first: stream, metric, before and after training, chance, in percent.

    Args:
        results: Content of results.json.

    Returns:
        The rows; none for data without labels.
    """
    before, after = results["before"]["probe"], results["after"]["probe"]
    if after is None:
        return []
    first = "untrained" if results["initial_weights"] == "random" else "before training"
    rows = [["stream", "metric", first, "trained", "chance"]]
    for stream, scores in after.items():
        for metric, value in scores.items():
            values = (before[stream][metric], value, results["chance"][metric])
            rows.append([stream, _METRICS[metric], *(f"{100 * value:.1f} %" for value in values)])
    return rows


def _finetuned(
    content: dict[str, Any], recipe: FinetuneArguments, evaluation: Evaluation
) -> tuple[dict, dict, list[EvalResult]]:
    task = recipe.task.name
    results = [
        EvalResult(
            task_type=_HUB_TASKS[task],
            task_name=PIPELINES[task],
            dataset_type=recipe.data.name,
            dataset_name=recipe.data.name,
            dataset_split=content["split"],
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for metric, value in evaluation.metrics.items()
    ]
    metadata = {
        "pipeline_tag": _HUB_TASKS[task],
        "tags": ["deepavfusion", "audio-visual", PIPELINES[task], "video", "audio", "custom_code"],
    }
    titled = len(evaluation.tables) > 1
    read = (
        f"{evaluation.counted} of the {content['split']} split; {len(evaluation.skipped)} could not be read and were "
        "skipped."
    )
    fields = {
        "task": task,
        "pipeline": PIPELINES[task],
        "hub_task": _HUB_TASKS[task],
        "protocol": content["protocol"],
        "tables": [
            (table.title if titled else "", markdown_table(table.columns, table.rows), table.note)
            for table in evaluation.tables
        ],
        "remarks": " ".join([read, *evaluation.remarks]),
        "limits": [_LIMITS[task], f"Trained on {recipe.data.name}; do not expect it to generalize far beyond."],
    }
    return fields, metadata, results


__all__ = ["PIPELINES", "score_table", "write_card"]
