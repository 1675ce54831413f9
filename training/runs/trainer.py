"""transformers' Trainer for the tasks of this package.

It adds exact resuming and safety: an endless clip order, random numbers that depend on the position only, agreement of
all processes in every step, and checkpoints that count only once they are complete. Any model of the package also
trains with the plain `Trainer`.
"""

import math
import time
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState, PrinterCallback, ProgressCallback

from deepavfusion_cli.terminal import printable

from ..data.loading import BatchPlace, BrokenClips, ClipOrder, on_device, training_loader
from ..data.random import Stream, generator
from ..tasks import MODEL_INPUTS, Evaluation, Task
from ..wording import with_path
from .checkpoints import (
    TRAINING_STATE,
    checkpoint_path,
    complete_checkpoints,
    gather_training_state,
    load_weights,
    mark_complete,
    remove_entry,
    restore_training_state,
)
from .folder import RunFolder
from .logging import LogAverages, ProgressLog
from .optimization import Schedule, build_optimizer, build_scheduler
from .steps import SharedStep, Step, StopRequest, forward_context, measured_dtype


class NonFiniteError(RuntimeError):
    """Raised if the loss or the gradient is NaN or infinite; the message names the clips of the batch."""

    exit_code = 1  # of commands: failed


class AudioVisualTrainer(Trainer):
    """transformers' Trainer with exact resuming, agreement of all processes and safe checkpoints.

    Training raises, on all processes, `NonFiniteError` for a loss or gradient that is NaN or infinite, and
    `BrokenDataError` if more clips than `data.max_unreadable_fraction` cannot be read. On the CPU, this is before the
    update. On an accelerator it is one step later, as a step that reads its own results would wait for the device; but
    nothing is logged, evaluated or saved before its step has been read.

    Args:
        recipe: Recipe of the run.
        task: Task of the model.
        order: Order of the training clips of this process, from the step at which the run resumes.
        schedule: Length and learning rate.
        folder: Folder of checkpoints and figures.
        progress: Log of the run.
        stop: Signals that ask the run to stop.
        evaluation: Task on the held-out clips that are evaluated during training, or None.
        processor: Processor of the model, saved with every checkpoint.
        callbacks: Additional callbacks.
        **kwargs: `model`, `args` (from `training_arguments`) and `train_dataset` of `Trainer`.
    """

    def __init__(
        self,
        recipe,
        task: type[Task],
        *,
        order: ClipOrder,
        schedule: Schedule,
        folder: RunFolder,
        progress: ProgressLog,
        stop: StopRequest,
        evaluation: Task | None,
        processor,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs,
    ):
        self.recipe, self.task, self.order, self.schedule, self.folder = recipe, task, order, schedule, folder
        self.progress, self.stop, self.evaluation, self.processor = progress, stop, evaluation, processor
        fraction = recipe.data.max_unreadable_fraction
        self.broken = BrokenClips.of(kwargs["train_dataset"], fraction)
        self.evaluation_broken = None if evaluation is None else BrokenClips.of(evaluation.clips, fraction)
        self.averages, self.losses = LogAverages(), task.losses(kwargs["model"].config)
        self.current: Step | None = None
        self.shared: SharedStep | None = None  # of the latest step, until it has been read
        self.read: list[SharedStep] = []  # until they are logged
        self.stopping: int | None = None  # a signal on which all processes agree
        self.latest_evaluation: Evaluation | None = None
        super().__init__(
            data_collator=kwargs["train_dataset"].collate,
            eval_dataset=None if evaluation is None else evaluation.clips,
            callbacks=[RunControl(self), progress, *(callbacks or [])],
            **kwargs,
        )
        self.reads_late = self.accelerator.device.type != "cpu"
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        vars(self.model.config).pop("use_cache", None)  # set by Trainer, for language models

    def get_train_dataloader(self) -> DataLoader:
        """Build the loader of the whole run, which transformers takes for a single epoch."""
        return training_loader(self.train_dataset, self.order, self.recipe.data.workers)

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.recipe, self.model)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        if self.lr_scheduler is None:
            self.lr_scheduler = build_scheduler(optimizer or self.optimizer, self.schedule)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        started = time.perf_counter()
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        sums = torch.zeros(len(self.losses) + 1, dtype=measured_dtype(device), device=device)
        self.current = Step(self.state.global_step + 1, started, time.perf_counter() - started, sums)
        return samples

    def _prepare_input(self, data):
        return on_device(data, self.args.device) if torch.is_tensor(data) else super()._prepare_input(data)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        current, config = self.current, self.model.config
        clips = len(inputs["path"]) if "pixel_values" in inputs else 0
        current.broken += inputs["broken"]
        current.paths += inputs["path"]
        if clips:
            given = {name: inputs[name] for name in MODEL_INPUTS if name in inputs}
            place = BatchPlace(self.args.seed, self.state.global_step, current.micro, self.order)
            given = self.task.training_inputs(given, config, place, self.recipe)
            recompiles = self.args.torch_compile and clips < self.args.per_device_train_batch_size
            with forward_context(self.reads_late, recompiles):
                outputs = model(**given)
            loss = outputs.loss
            losses = torch.stack([outputs[name].detach() for name in self.losses]).to(current.sums)
            current.sums += torch.cat([losses, losses.new_ones(1)]) * clips
        else:  # a blank clip without weight, because processes communicate in every pass
            outputs = model(**self.model.dummy_inputs)
            values = outputs.to_tuple() if outputs.loss is None else (outputs.loss,)
            loss = sum(value.sum() for value in values if torch.is_tensor(value) and value.requires_grad) * 0.0
        current.micro += 1
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        self.current.grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return norm

    def agree(self) -> None:
        """Share the measurements of the step with all processes before the update."""
        self.settle()
        self.shared = SharedStep(self.current, self.losses, self.stop.signal, self.accelerator)
        if not self.reads_late:
            self.settle()

    def settle(self) -> None:
        """Read what was shared last, if it was not read; either all processes continue or all raise the same error."""
        shared, self.shared = self.shared, None
        if shared is None:
            return
        shared.read()
        step = shared.step
        if not shared.loss_is_finite:
            self._raise_non_finite("loss", step.number, [] if shared.own_loss_is_finite else step.paths)
        if shared.broken:
            for line in self.broken.add(gather_object(step.broken)):
                self.progress.print(line)
        if not math.isfinite(shared.totals["grad_norm"]) and self.accelerator.scaler is None:
            self._raise_non_finite("gradient", step.number, step.paths)
        if shared.stop:
            self.stopping = self.stop.signal = shared.stop
        self.read.append(shared)

    def _raise_non_finite(self, what: str, step: int, paths: list[str]) -> None:
        names = "\n".join(printable(f"  {path}") for path in gather_object(paths))
        raise NonFiniteError(f"The {what} of step {step} is not finite. The clips of its batch:\n{names}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and "grad_norm" in logs:  # training: means over clips and processes instead
            step = self.state.global_step
            record = self.averages.record(self.losses, self.state.max_steps - step)
            logs = {**record, "learning_rate": self.schedule.learning_rate(self.schedule.place(step - 1))}
        super().log(logs, start_time)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Evaluate the task on its held-out clips. All processes must call this together."""
        started, known = time.perf_counter(), set(self.evaluation_broken.reasons)
        ends = self.state.global_step in (0, self.state.max_steps)
        full = self.task.EVALUATES_FIRST and ends
        found = self.evaluation.evaluate(self.model, self.accelerator, full=full, broken=self.evaluation_broken)
        self.latest_evaluation = found
        for path, reason in self.evaluation_broken.reasons.items():
            if path not in known:
                self.progress.print(f"skipped, cannot be read: {with_path(path, reason)}")
        values = {**found.metrics, "clips": found.num_clips, "seconds": time.perf_counter() - started}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        best = self.state.best_metric
        if best is not None and metrics.get(self.args.metric_for_best_model) == best:
            self.state.best_metric = None  # ties go to the latest checkpoint
        self.log(dict(metrics))
        if found.reconstructions is not None:
            title = f"Held-out clips, epoch {self.state.epoch:.2f} (step {self.state.global_step})"
            self.evaluation.draw_reconstructions(found.reconstructions, self.folder.work, title)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_training_state(self, path: Path) -> None:
        """Add the training state to a checkpoint, mark it as complete, and remove old checkpoints.

        The last `run.keep_checkpoints` complete ones and the best are kept. The removal of transformers is not used,
        because it takes every folder with a similar name for a checkpoint.
        """
        optimizer, scaler = self.optimizer.optimizer, self.accelerator.scaler
        state = gather_training_state(self.model, optimizer, self.lr_scheduler, scaler)
        if self.is_world_process_zero():
            torch.save(state, path / TRAINING_STATE)
            self.processor.save_pretrained(path)
            mark_complete(path)
            best = self.state.best_model_checkpoint
            for old in complete_checkpoints(path.parent)[: -self.recipe.run.keep_checkpoints]:
                if best is None or old.name != Path(best).name:
                    remove_entry(old)
        self.accelerator.wait_for_everyone()

    # Those of Trainer neither read states written by another number of processes nor load sharded models.

    def _load_optimizer_and_scheduler(self, checkpoint):
        if checkpoint is not None:
            optimizer, scaler = self.optimizer.optimizer, self.accelerator.scaler
            restore_training_state(Path(checkpoint), self.model, optimizer, self.lr_scheduler, scaler)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        load_weights(self.model, resume_from_checkpoint)

    def _load_best_model(self):
        load_weights(self.model, self.state.best_model_checkpoint)


class RunControl(TrainerCallback, ExportableState):
    """Callback for the actions around a step, and for the state of the run in checkpoints."""

    def __init__(self, trainer: AudioVisualTrainer):
        self.trainer = trainer

    def state(self) -> dict:
        """Return the state of the run that checkpoints contain in addition to that of transformers."""
        trainer, held_out = self.trainer, self.trainer.evaluation_broken
        kept = {
            "averages": vars(trainer.averages),
            "broken": trainer.broken.reasons,
            "evaluation_broken": {} if held_out is None else held_out.reasons,
        }
        return {"args": {}, "attributes": kept}

    def on_train_begin(self, args, state, control, **kwargs):
        trainer, kept = self.trainer, state.stateful_callbacks[type(self).__name__]["attributes"]
        vars(trainer.averages).update(kept["averages"])
        trainer.broken.reasons = dict(kept["broken"])
        if trainer.evaluation_broken is not None:
            trainer.evaluation_broken.reasons = dict(kept["evaluation_broken"])
        state.compute_steps(args, state.max_steps)  # a checkpoint contains those of its own run

    def on_step_begin(self, args, state, control, **kwargs):
        torch.manual_seed(generator(args.seed, Stream.DROPOUT, state.global_step, args.process_index).initial_seed())

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.agree()

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self.trainer
        trainer.current.seconds = time.perf_counter() - trainer.current.started
        state.epoch = trainer.schedule.epoch(state.global_step)
        last = trainer.stop.complete = state.global_step >= state.max_steps
        control.should_log |= last
        every = trainer.recipe.run.save_epochs
        if every is not None:
            control.should_save |= state.global_step % trainer.schedule.steps(every) == 0
        if control.should_log or control.should_save or control.should_evaluate:
            trainer.settle()
        if trainer.stopping and not last:
            trainer.settle()
            control.should_save = control.should_training_stop = True
        for shared in trainer.read:
            trainer.averages.add(shared.totals, shared.step.seconds)
            trainer.progress.advance(shared.totals["loss"] / max(shared.totals["clips"], 1.0))
        trainer.read.clear()

    def on_save(self, args, state, control, **kwargs):
        self.trainer.save_training_state(checkpoint_path(args.output_dir, state.global_step))


__all__ = ["AudioVisualTrainer", "NonFiniteError", "RunControl"]
