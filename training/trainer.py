"""transformers' Trainer for this package's tasks: reproducible order, layer-wise decay, mixup, whole checkpoints.

Any model of the package also trains with the plain `Trainer`; this one adds what the published recipes need.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .batches import BrokenClips, EpochClips, generator_for, group_size, leave_signals_to_parent
from .checkpointing import write_atomically
from .finetune_arguments import FinetuneArguments
from .mixup import mixup, soft_labels
from .optimization import LARS, learning_rate, parameter_groups, scaled_learning_rate

MODEL_INPUTS = ("pixel_values", "input_features", "labels", "image_present", "audio_present")
COMPLETE = "complete"  # a file of this name is the last thing written into a checkpoint
_MIXUP_STREAM, _BALANCED_STREAM, _DROP_STREAM = 4, 5, 6


class EpochOrder:
    """Batch sampler of an epoch's clips for one process: lists of (epoch, clip), a function of seed and epoch alone.

    Clips are shuffled, or drawn with replacement by `weights`; batches are dealt out to the processes in turn, and an
    incomplete last round is left out. Fewer clips than a round wrap around.

    Args:
        num_clips: in the training set.
        batch_size: clips per process and batch.
        processes, process: how many train, and which one this is.
        seed: of the order.
        weights: (num_clips,) how often clips are drawn, relative to each other; None shuffles.
        group: so many neighbouring clips stay together, in one batch.

    Raises:
        ValueError: where a batch, or the training set, does not hold whole groups.
    """

    def __init__(
        self, num_clips: int, batch_size: int, processes: int, process: int, seed: int, weights=None, group: int = 1
    ):
        if batch_size % group or num_clips % group:
            raise ValueError(
                f"This data set comes in groups of {group} clips that belong into one batch: expected a batch size "
                f"that is a multiple of it, got {batch_size} (of {num_clips} clips)."
            )
        self.num_clips, self.batch_size, self.seed, self.weights = num_clips, batch_size, seed, weights
        self.group = group
        self.processes, self.process = processes, process
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.num_clips // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self.weights is None:
            groups = torch.randperm(self.num_clips // self.group, generator=generator_for(self.seed, self.epoch))
            order = (groups[:, None] * self.group + torch.arange(self.group)).flatten()
        else:
            generator = generator_for(self.seed, _BALANCED_STREAM, self.epoch)
            order = torch.multinomial(self.weights.double(), self.num_clips, replacement=True, generator=generator)
        clips = order.tolist()
        for batch in range(len(self)):
            first = (batch * self.processes + self.process) * self.batch_size
            yield [(self.epoch, clips[place % self.num_clips]) for place in range(first, first + self.batch_size)]


class EpochLoader(DataLoader):
    """A loader whose batch sampler is told the epoch."""

    batch_sampler: EpochOrder

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class NonFiniteError(RuntimeError):
    """The loss is NaN or infinite; the message names the clips of the batch."""


class CompleteCheckpoint(TrainerCallback):
    """Puts the processor beside a checkpoint's model, so that it is loaded as any model is, then marks it complete."""

    def __init__(self, processor):
        self.processor = processor

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            path = checkpoint_path(args.output_dir, state.global_step)
            self.processor.save_pretrained(path)
            write_atomically(path / COMPLETE, "")


def checkpoint_path(folder: str | Path, step: int) -> Path:
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def complete_checkpoints(folder: str | Path) -> list[Path]:
    """Checkpoints that were written to the end, oldest first."""
    found = [entry for entry in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (entry / COMPLETE).is_file()]
    return sorted(found, key=lambda entry: int(entry.name.rpartition("-")[2]))


def remove_incomplete_checkpoints(folder: str | Path) -> None:
    """Removes what a killed process was writing."""
    for entry in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if not (entry / COMPLETE).is_file():
            shutil.rmtree(entry)


class AudioVisualTrainer(Trainer):
    """
    Args:
        recipe: arguments of the run; optimiser, schedule, mixup and sampling follow them.
        model: a model of this package with a task's head.
        args: `training_arguments(recipe, ...)`, or any of that kind.
        train_dataset: `Clips` (see `build_dataset`).
        evaluator: called with the model, gives metrics by name; runs where the plain Trainer scores
            `eval_dataset`.
        weights: (N,) how often training clips are drawn; None draws each once an epoch.

    Raises, while training:
        NonFiniteError: the loss is NaN or infinite.
        BrokenDataError: more clips than `data.max_broken` cannot be read.
    """

    def __init__(
        self,
        recipe: FinetuneArguments,
        *,
        evaluator: Callable[[Any], dict[str, float]] | None = None,
        weights: torch.Tensor | None = None,
        **kwargs,
    ):
        self.recipe, self.evaluator, self.weights = recipe, evaluator, weights
        super().__init__(data_collator=kwargs["train_dataset"].collate, **kwargs)
        self.mixed_step, self.micro = -1, 0
        self.broken = BrokenClips(len(self.train_dataset), recipe.data.max_broken)

    @property
    def steps_per_epoch(self) -> int:
        batches = len(self._order())
        return max(1, math.ceil(batches / self.args.gradient_accumulation_steps))

    def _order(self) -> EpochOrder:
        return EpochOrder(
            len(self.train_dataset),
            self.args.per_device_train_batch_size,
            self.args.world_size,
            self.args.process_index,
            self.recipe.run.seed,
            self.weights,
            group_size(self.train_dataset),
        )

    def get_train_dataloader(self) -> DataLoader:
        workers = self.args.dataloader_num_workers
        return EpochLoader(
            EpochClips(self.train_dataset),
            batch_sampler=self._order(),
            collate_fn=self.data_collator,
            num_workers=workers,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )

    def create_optimizer(self, model=None):
        optim = self.recipe.optim
        if self.optimizer is None:
            groups = parameter_groups(self.model, optim.weight_decay, optim.layer_decay)
            effective = optim.batch_size * optim.gradient_accumulation * self.args.world_size
            lr = scaled_learning_rate(optim.base_lr, effective)
            for group in groups:
                group.pop("names")
                group["lr"] = lr * group["lr_scale"]
            if optim.optimizer == "lars":
                self.optimizer = LARS(groups, lr=lr, weight_decay=optim.weight_decay, momentum=optim.momentum)
            else:
                self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=tuple(optim.betas), fused=True)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        if self.lr_scheduler is None:
            optim, steps = self.recipe.optim, self.steps_per_epoch
            floor = optim.min_lr / optim.base_lr if optim.base_lr else 0.0

            def factor(step: int) -> float:
                return learning_rate(step / steps, 1.0, optim.epochs, optim.warmup_epochs, floor)

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        for line in self.broken.add(inputs["broken"]):
            self.log_line(line)
        given = {name: inputs[name] for name in MODEL_INPUTS if name in inputs}
        if "pixel_values" not in given:  # no clip of the batch could be read
            return sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad) * 0.0
        if self.recipe.task.name == "recognition":
            given = self._soften(given)
        outputs = model(**given)
        if not bool(torch.isfinite(outputs.loss)):
            names = "\n".join(f"  {path}" for path in inputs["path"])
            raise NonFiniteError(
                f"The loss of step {self.state.global_step + 1} is not finite. The clips of its batch:\n{names}"
            )
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _soften(self, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Label smoothing, mixup and withheld modalities, as the recipe has them."""
        task, step = self.recipe.task, self.state.global_step
        self.micro = self.micro + 1 if self.mixed_step == step else 0  # which of the step's accumulated batches
        self.mixed_step = step
        position = (step, self.args.process_index, self.micro)
        if (task.mixup or task.label_smoothing) and not given["labels"].is_floating_point():
            labels = soft_labels(given["labels"], self.model.config.num_labels, task.label_smoothing)
            given = {**given, "labels": labels}
        if task.mixup:
            given = mixup(given, task.mixup, generator_for(self.recipe.run.seed, _MIXUP_STREAM, *position))
        if task.drop_modality:
            generator = generator_for(self.recipe.run.seed, _DROP_STREAM, *position)
            draws = torch.rand(len(given["labels"]), generator=generator).to(given["labels"].device)
            given["image_present"] = draws >= task.drop_modality / 2
            given["audio_present"] = (draws < task.drop_modality / 2) | (draws >= task.drop_modality)
        return given

    def log_line(self, text: str) -> None:
        """A line on the main process's terminal, above the progress bar."""
        if self.is_world_process_zero():
            print(text, flush=True)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Runs the evaluator; metrics by name, with the prefix. All processes must call it together."""
        if self.evaluator is None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.evaluator(self.model).items()}
        if (
            self.state.best_metric is not None
            and metrics.get(self.args.metric_for_best_model) == self.state.best_metric
        ):
            self.state.best_metric = None  # of equals the last is the best: it was trained the longest
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def on_cpu(recipe: FinetuneArguments) -> bool:
    """Whether a recipe's run uses the CPU, by choice or for want of an accelerator."""
    return recipe.run.cpu or not torch.accelerator.is_available()


def training_arguments(recipe: FinetuneArguments, steps_per_epoch: int, metric: str | None) -> TrainingArguments:
    """The Trainer's own arguments for a recipe.

    Args:
        steps_per_epoch: optimiser steps.
        metric: name of the evaluator's metric by which the best checkpoint is chosen, larger being better; None keeps
            the last.
    """
    run, optim = recipe.run, recipe.optim
    every = max(1, round(run.eval_epochs * steps_per_epoch))
    return TrainingArguments(
        output_dir=str(Path(run.output_dir) / "checkpoints"),
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.gradient_accumulation,
        max_steps=max(1, math.ceil(optim.epochs * steps_per_epoch - 1e-9)),
        max_grad_norm=optim.clip_grad_norm or 0.0,
        bf16=optim.mixed_precision == "bf16",
        fp16=optim.mixed_precision == "fp16",
        use_cpu=on_cpu(recipe),  # said also where there is nothing else, or bf16 would be refused
        seed=run.seed,
        logging_steps=run.log_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if metric else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        # One more, for the best: the last but one must stay until the last is whole.
        save_total_limit=max(run.keep_checkpoints, 2) + (metric is not None),
        load_best_model_at_end=metric is not None,
        metric_for_best_model=None if metric is None else f"eval_{metric}",
        greater_is_better=None if metric is None else True,
        dataloader_num_workers=recipe.data.num_workers,
        remove_unused_columns=False,
        report_to=run.trackers or "none",
        torch_compile=run.compile,
        disable_tqdm=None,
    )


__all__ = [
    "AudioVisualTrainer",
    "CompleteCheckpoint",
    "EpochLoader",
    "EpochOrder",
    "NonFiniteError",
    "checkpoint_path",
    "complete_checkpoints",
    "on_cpu",
    "remove_incomplete_checkpoints",
    "training_arguments",
]
