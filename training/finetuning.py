"""What fine-tuning, probing and evaluating share: data, model, task and result folder of a recipe."""

import datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from deepavfusion.processors import DeepAVFusionProcessor

from .arguments import COMPUTATION
from .checkpointing import write_atomically
from .data import FileClips, build_dataset
from .data.dense import DenseClips
from .finetune_arguments import FinetuneArguments
from .folders import RECIPE_FILE, claim_folder, require_same_recipe
from .model_card import package_versions
from .precision import float32_precision
from .recipe import RecipeError
from .report import Report, Table
from .results import device_name
from .tasks import TASKS, Evaluation, evaluate_task
from .tracking import quiet_library

# Fields of the configuration that a recipe may set for an encoder that exists; the others are the encoder's own.
_FREE_OF_SHAPE = {
    "attention_probs_dropout_prob",
    "classifier_input_norm",
    "classifier_loss",
    "drop_path_rate",
    "hidden_dropout_prob",
    "localization_loss",
    "localization_map",
    "localization_threshold",
    "semantic_loss_ignore_index",
    "separation_mask",
    "separation_weighted_loss",
}


def build_clips(recipe: FinetuneArguments, config, split: str, train: bool):
    """The recipe's data of a split for its task; a data set without it, or a setting it has not, is a `RecipeError`."""
    source = recipe.data.source()
    if split == recipe.data.selection_split and not train and recipe.data.selection_size is not None:
        source["eval_size"] = recipe.data.selection_size
    task = "recognition" if recipe.task.name == "retrieval" else recipe.task.name
    options = {"semantic": recipe.task.semantic} if task == "segmentation" else {}
    supervised = recipe.model.config.get("localization_loss", config.localization_loss) == "supervised"
    if task == "localization" and train:
        # Matching takes every frame for the source of the sound that it comes with.
        options["foreign_sounds"] = supervised
    try:
        clips = build_dataset(source, config, split, train=train, seed=recipe.run.seed, task=task, **options)
    except (OSError, ValueError) as error:
        raise RecipeError(f"The recipe's data cannot be used: {error}") from error
    if task == "localization" and train and supervised and not getattr(clips, "annotated", True):
        raise RecipeError(
            f"The frames to train on have no boxes ({clips.card}): expected annotations of them, or "
            "model.localization_loss=matching, which needs none."
        )
    return clips


def task_processor(recipe: FinetuneArguments, config) -> DeepAVFusionProcessor:
    """The processor of a task's model: dense predictions see the whole short side, as published."""
    dense = recipe.task.name in ("segmentation", "localization")
    return DeepAVFusionProcessor.from_config(config, **({"crop_pct": 1.0} if dense else {}))


def build_task_model(recipe: FinetuneArguments, clips):
    """The task's model for these clips: from `model.init_from` (any model of the package) or from random weights."""
    task, given = TASKS[recipe.task.name], recipe.model
    if given.init_image or given.init_audio:
        raise RecipeError(
            "model.init_image and model.init_audio start a pre-training: give model.init_from, "
            "a folder or Hub name of a pre-trained model."
        )
    try:
        head = task.head_config(clips, recipe.task.semantic)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    set_seed(recipe.run.seed)
    if given.init_from is None:
        model = task.MODEL(_configured(given.build_config(), head))
    else:
        model = _earlier_model(task, given, head)
    if recipe.task.freeze_encoder:
        model.freeze_encoder()
    given.set_computation(model)
    return model


def _configured(config, head: dict[str, Any]):
    for name, value in head.items():
        setattr(config, name, value)
    return config


def _earlier_model(task, given, head: dict[str, Any]):
    from deepavfusion import DeepAVFusionConfig

    origin = given.init_from
    try:
        config = DeepAVFusionConfig.from_pretrained(origin)
        for name, value in given.config.items():
            if name in _FREE_OF_SHAPE:
                setattr(config, name, value)
        config = type(config)(**_configured(config, head).to_dict())  # checks that the fields fit together
        with quiet_library():
            model, info = task.MODEL.from_pretrained(
                origin, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except Exception as error:  # the strict configuration raises classes of its own
        raise RecipeError(f"model.init_from={origin} cannot be used: {error}") from error
    encoder = "" if task.NAME == "retrieval" else "deepavfusion."
    absent = sorted(name for name in info["missing_keys"] if name.startswith(encoder))
    other = sorted(f"{entry[0]}" for entry in info["mismatched_keys"] if entry[0].startswith(encoder))
    if absent or other:
        raise RecipeError(
            f"model.init_from={origin} does not give the encoder that the recipe asks for. "
            f"Missing: {', '.join(absent) or 'nothing'}. Of another shape: {', '.join(other) or 'nothing'}."
        )
    return model


def open_folder(recipe: FinetuneArguments, accelerator: Accelerator):
    """Takes the result folder of a training run.

    Returns:
        the lock, to be closed when the run ends; None on other processes than the main one.

    Raises:
        RecipeError: for a folder that holds something else, another recipe's run, or a run at work.
    """
    folder = Path(recipe.run.output_dir)
    lock = claim_folder(folder, accelerator)
    earlier = folder / RECIPE_FILE
    if earlier.is_file() and (folder / "checkpoints").is_dir() and recipe.run.resume:
        require_same_recipe(folder, _decisive(_read(earlier)), _decisive(recipe.to_dict()), recipe.run)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_atomically(earlier, recipe.to_yaml())
        write_atomically(folder / ".gitignore", ".lock\ncheckpoints/\ndeepavfusion/\nruns/\n")
    accelerator.wait_for_everyone()
    return lock


def _read(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _decisive(sections: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's weights."""
    return {
        "task": sections.get("task"),
        "model": {k: v for k, v in sections["model"].items() if k not in COMPUTATION},
        "data": {k: v for k, v in sections["data"].items() if k not in ("cache_dir", "num_workers", "max_broken")},
        "optim": sections["optim"],
        "run": {key: sections["run"][key] for key in ("seed", "eval_epochs", "best")},
    }


def evaluate_finally(recipe: FinetuneArguments, clips, processor, model, accelerator: Accelerator) -> Evaluation:
    """The full evaluation on the test split: controls, bounds, examples, and recognition also over several windows."""
    options = {
        "batch_size": recipe.optim.batch_size,
        "num_workers": recipe.data.num_workers,
        "max_broken": recipe.data.max_broken,
    }
    task = TASKS[recipe.task.name]
    evaluation = evaluate_task(
        task(clips, processor), model, accelerator, **options, full=True, examples=recipe.run.examples
    )
    windows = recipe.task.dense_windows
    if task.NAME == "recognition" and windows > 1 and isinstance(clips, FileClips):
        options["batch_size"] = max(1, options["batch_size"] // windows)
        dense = evaluate_task(task(DenseClips(clips, windows), processor), model, accelerator, **options, full=True)
        evaluation.metrics.update({f"dense_{name}": value for name, value in dense.metrics.items()})
        table = dense.tables[0]
        evaluation.tables.append(Table(f"Mean over {windows} windows of each clip", table.columns, table.rows))
    return evaluation


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    title: str,
    model_name: str,
    split: str,
    device: torch.device,
    notes: list[str] | None = None,
) -> dict[str, Any]:
    """Writes evaluation.json and report.html into a folder; returns the JSON's content."""
    content = {
        "task": evaluation.task,
        "date": datetime.date.today().isoformat(),
        "model": model_name,
        "split": split,
        "protocol": evaluation.protocol,
        "metrics": evaluation.metrics,
        "num_clips": evaluation.num_clips,
        "skipped": len(evaluation.skipped),
        "skipped_clips": evaluation.skipped,
        "left_out": evaluation.left_out,
        "device": device_name(device),
        "float32_matmul_precision": float32_precision(),
        "versions": package_versions(),
    }
    summary = [f"{evaluation.counted} of the split {split}, model {model_name}.", *(notes or [])]
    summary += evaluation.remarks
    report = Report(folder, title, summary, evaluation.tables, content)
    for name, figure, caption, alt in evaluation.figures:
        report.add_figure(name, figure, caption, alt=alt)
    if evaluation.examples:
        report.add_gallery("Examples", evaluation.examples, "The first held-out clips, not chosen.")
    report.write()
    return content


__all__ = [
    "build_clips",
    "build_task_model",
    "evaluate_finally",
    "open_folder",
    "task_processor",
    "write_report",
]
