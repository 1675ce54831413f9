"""README.md of a fine-tuned model's folder, which is a Hub repository as it stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from deepavfusion.inference.files import write_atomically

from ..config.recipe import Recipe
from ..report.tables import markdown_table
from ..tasks import Evaluation

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
    "recognition": "The labels are those of the training data; a clip of anything else gets one of them all the same.",
    "separation": "It keeps what the frame shows. Two sources in one frame cannot be told apart by it.",
    "segmentation": "The map is of one frame; what sounds out of sight has no place on it.",
    "localization": "The map has one value a patch of the frame, so small sources are found coarsely.",
}


def write_task_card(
    folder: Path,
    content: dict[str, Any],
    evaluation: Evaluation,
    recipe: Recipe,
    model,
    notes: Sequence[str] = (),
) -> None:
    """Writes README.md.

    Args:
        content: of evaluation.json.
        evaluation: on the held-out split.
        model: that was evaluated.
        notes: sentences on the training.
    """
    name, task = folder.resolve().name, recipe.task.name
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
    metadata = ModelCardData(
        model_name=name,
        license=recipe.run.license,
        library_name="transformers",
        pipeline_tag=_HUB_TASKS[task],
        tags=["deepavfusion", "audio-visual", PIPELINES[task], "video", "audio", "custom_code"],
        eval_results=results,
    )
    parts = [
        f"# {name}",
        "An audio-visual transformer with early fusion (DeepAVFusion; Mo & Morgado, CVPR 2024, "
        f"[arXiv 2312.01017](https://arxiv.org/abs/2312.01017)), fine-tuned for {task}.",
        "## Use",
        _usage(task, name),
        "## Results",
        content["protocol"],
    ]
    for table in evaluation.tables:
        parts += [f"### {table.title}"] if len(evaluation.tables) > 1 else []
        parts.append(markdown_table(table.columns, table.rows))
        parts += [table.note] if table.note else []
    read = (
        f"{evaluation.counted} of the split {content['split']}; {len(evaluation.skipped)} could not be read "
        "and were skipped."
    )
    shown = "`evaluation.json` has all numbers, `report.html` shows and plays examples."
    parts.append(" ".join([read, *evaluation.remarks, shown]))
    parts += [
        "## Training",
        " ".join([f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters.", *notes, "The recipe:"]),
        f"```yaml\n{recipe.to_yaml(public=True).strip()}\n```",
        "## Limits",
        f"- {_LIMITS[task]}\n- Trained on {recipe.data.name}: expect little beyond what resembles it."
        + (
            "\n- The data are synthetic scenes; this is no model of real videos."
            if recipe.data.name == "scenes"
            else ""
        ),
    ]
    write_atomically(folder / "README.md", f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _usage(task: str, name: str) -> str:
    return (
        "```python\nfrom transformers import pipeline\n\n"
        f'pipe = pipeline("{PIPELINES[task]}", model="{name}", trust_remote_code=True)\n'
        'print(pipe("clip.mp4"))\n```\n\n'
        "`model` is this repository's name on the Hub, or its folder; `pip install deepavfusion` makes "
        "`trust_remote_code` unnecessary after `import deepavfusion`. The Hub's tag of this repository, "
        f"{_HUB_TASKS[task]}, is the nearest that there is: its stock pipeline would give the model one of frame and "
        "sound alone."
    )


__all__ = ["PIPELINES", "write_task_card"]
