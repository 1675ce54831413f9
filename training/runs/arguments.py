"""Arguments of transformers' Trainer from a recipe."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from deepavfusion.inference.precision import fast_bfloat16

from ..config.recipe import RecipeError
from .optimization import Schedule

_BACKEND = "inductor"  # of torch.compile


def on_cpu(recipe) -> bool:
    """Whether the run of a recipe uses the CPU, by choice or because there is no accelerator."""
    return recipe.run.cpu or not torch.accelerator.is_available()


def settle_compile(recipe) -> None:
    """Replace `run.compile=auto` of a recipe by what suits the device."""
    if recipe.run.compile == "auto":
        recipe.run.compile = "yes" if torch.cuda.is_available() and not on_cpu(recipe) else "no"


def settle_precision(recipe) -> None:
    """Replace the precision "auto" of a recipe by that of the device, so that the run and its records name it.

    Raises:
        RecipeError: For fp16 on the CPU, which has no loss scaling: accelerate would use float32.
    """
    if recipe.optim.mixed_precision == "auto":
        device_type = "cpu" if on_cpu(recipe) else "cuda" if torch.cuda.is_available() else "other"
        recipe.optim.mixed_precision = "bf16" if fast_bfloat16(device_type) else "no"
    if recipe.optim.mixed_precision == "fp16" and on_cpu(recipe):
        raise RecipeError("optim.mixed_precision=fp16 needs an accelerator, this run is on the CPU: use bf16 or no.")


def training_arguments(
    recipe, schedule: Schedule, folder: Path, evaluates: bool, metric: str | None, evaluates_first: bool
) -> TrainingArguments:
    """Build the arguments of transformers' Trainer.

    Args:
        recipe: Recipe of the run.
        schedule: Length of the run, in optimizer steps.
        folder: Folder of the checkpoints.
        evaluates: Whether held-out clips are evaluated during training.
        metric: Metric that selects the best checkpoint, larger being better; None keeps the last.
        evaluates_first: Whether held-out clips are also evaluated before the first step.
    """
    run, optim, every = recipe.run, recipe.optim, schedule.steps(recipe.run.eval_epochs)
    arguments = TrainingArguments(
        output_dir=str(folder),
        run_name=recipe.name,
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.gradient_accumulation,
        max_steps=schedule.total_steps,
        max_grad_norm=optim.clip_grad_norm or 0.0,
        bf16=optim.mixed_precision == "bf16",
        fp16=optim.mixed_precision == "fp16",
        use_cpu=on_cpu(recipe),  # set even if there is nothing else, or bf16 is refused
        seed=run.seed,
        logging_steps=run.log_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        eval_on_start=evaluates_first,
        save_strategy="steps",
        save_steps=every,
        save_only_model=True,  # the trainer saves the other states itself
        ignore_data_skip=True,  # the clip order starts at the step to resume from
        load_best_model_at_end=metric is not None,
        metric_for_best_model=None if metric is None else f"eval_{metric}",
        greater_is_better=None if metric is None else True,
        remove_unused_columns=False,
        torch_compile=run.compile == "yes",
        torch_compile_backend=_BACKEND if run.compile == "yes" else None,
        report_to="none",  # trackers are callbacks, so that a missing one is found before the run
        disable_tqdm=None,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one GPU per process; Trainer would split the batch over all
    return arguments


__all__ = ["on_cpu", "settle_compile", "settle_precision", "training_arguments"]
