"""Fine-tuning for a task, with transformers' Trainer (paper, sections 4.2 to 4.4).

    CPU or one device:  deepavfusion finetune scenes_recognition
                        python -m deepavfusion.training.finetune folder_recognition data.path=videos
    many devices:       accelerate launch -m deepavfusion.training.finetune vggsound_finetune data.path=/data/vggsound

RECIPE is the name of a recipe of the package or the path of one; `section.key=value` arguments change it. The best
checkpoint on the selection split is evaluated on the test split; the result folder is a Hub repository as it stands,
with evaluation.json and report.html. A run whose folder holds a checkpoint goes on from it.

Exit codes: 0 done; 143 after SIGTERM and 130 after SIGINT (Ctrl-C), with a checkpoint of the last whole step written;
2 for a recipe that cannot be used; 1 for everything else (a loss that is not finite, too many unreadable clips).
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .batches import BrokenDataError, group_size
from .data.balance import class_balanced_weights, label_frequencies
from .finetune_arguments import FinetuneArguments, load_finetune_arguments
from .finetuning import (
    build_clips,
    build_task_model,
    evaluate_finally,
    open_folder,
    task_processor,
    write_report,
)
from .folders import check_origin
from .precision import set_float32_precision
from .recipe import RecipeError, recipe_names
from .stopping import StopRequest
from .task_card import write_task_card
from .tasks import TASKS, Evaluation, evaluate_task
from .tracking import MetricsFile, Reporter, quiet_library
from .trainer import (
    AudioVisualTrainer,
    CompleteCheckpoint,
    EpochOrder,
    NonFiniteError,
    complete_checkpoints,
    on_cpu,
    remove_incomplete_checkpoints,
    training_arguments,
)


class Progress(TrainerCallback):
    """metrics.jsonl, one line a log, and a progress bar. Of an evaluation the line shows `metric` alone."""

    def __init__(self, metrics: MetricsFile, main: bool, metric: str | None):
        self.metrics, self.main, self.metric, self.reporter = metrics, main, metric, None

    def on_train_begin(self, args, state, control, **kwargs):
        if self.main:
            self.metrics.keep_until(state.global_step if state.global_step else -1)
        self.reporter = Reporter(self.main, state.max_steps, state.global_step, "finetune")

    def on_step_end(self, args, state, control, **kwargs):
        self.reporter.advance()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not self.main or logs is None or "train_runtime" in logs:
            return
        evaluated = any(name.startswith("eval_") for name in logs)
        record = {"step": state.global_step, "kind": "evaluation" if evaluated else "train"}
        record |= {name.removeprefix("eval_"): value for name, value in logs.items()}
        self.metrics.append(record)
        self.reporter.print(progress_line(record, state.max_steps, self.metric if evaluated else None))

    def on_train_end(self, args, state, control, **kwargs):
        self.reporter.close()


def progress_line(record: dict[str, Any], total_steps: int, metric: str | None = None) -> str:
    """One aligned line of a record of training or of an evaluation; `metric` is the only one that it shows."""
    width = len(str(total_steps))
    word = "step" if record["kind"] == "train" else "eval"
    shown = record if metric is None else {metric: record[metric]}
    values = {key: value for key, value in shown.items() if key not in ("step", "kind", "epoch")}
    numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, (int, float)))
    return f"{word} {record['step']:>{width}}/{total_steps}  epoch {record.get('epoch', 0):7.2f}  {numbers}"


class FlowControl(TrainerCallback):
    """Evaluates and saves after the last step, and saves and stops where a signal asks for it."""

    def __init__(self, stop: StopRequest, evaluates: bool, state: PartialState):
        self.stop, self.evaluates, self.state = stop, evaluates, state

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_evaluate |= self.evaluates
            control.should_log = control.should_save = True
        elif self.stop.agreed(self.state):
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True


class FinetuningRun:
    """One run: data, model, trainer. `resume_from` is the checkpoint that it goes on from, or None."""

    def __init__(self, recipe: FinetuneArguments, stop: StopRequest):
        self.recipe, self.folder, self.stop = recipe, Path(recipe.run.output_dir), stop
        if recipe.task.name == "retrieval":
            raise RecipeError("task.name=retrieval is evaluated, not trained: use `deepavfusion evaluate`.")
        if recipe.optim.mixed_precision == "fp16" and on_cpu(recipe):  # loss scaling is not made for CPUs
            raise RecipeError(
                "optim.mixed_precision=fp16 needs an accelerator, this run is on the CPU: use bf16 or no."
            )
        self.state = PartialState(cpu=recipe.run.cpu)
        self.lock = open_folder(recipe, self.state)
        self.checkpoints = self.folder / "checkpoints"
        if self.state.is_main_process and self.checkpoints.is_dir():
            remove_incomplete_checkpoints(self.checkpoints) if recipe.run.resume else shutil.rmtree(self.checkpoints)
        self.state.wait_for_everyone()
        complete = complete_checkpoints(self.checkpoints) if recipe.run.resume else []
        self.resume_from = complete[-1] if complete else None
        self._build()

    def _build(self) -> None:
        recipe, task = self.recipe, TASKS[self.recipe.task.name]
        shape = self._encoder_config()
        with self.state.main_process_first():  # prepares caches once
            self.train_clips = build_clips(recipe, shape, "train", train=True)
            selects = recipe.run.best
            self.selection = build_clips(recipe, shape, recipe.data.selection_split, train=False) if selects else None
            self.test_clips = build_clips(recipe, shape, recipe.data.eval_split, train=False)
        self.model = build_task_model(recipe, self.train_clips)
        self.processor = task_processor(recipe, self.model.config)
        weights = None
        if recipe.task.name == "recognition":
            if recipe.task.init_bias:
                self.model.init_bias_from_frequencies(label_frequencies(self.train_clips))
            if recipe.task.class_balanced:
                weights = class_balanced_weights(self.train_clips)
        selection_task = None if self.selection is None else task(self.selection, self.processor)
        metric = None if selection_task is None else selection_task.primary
        size, group = len(self.train_clips), group_size(self.train_clips)
        try:
            order = EpochOrder(size, recipe.optim.batch_size, self.state.num_processes, 0, 0, group=group)
        except ValueError as error:
            raise RecipeError(f"optim.batch_size={recipe.optim.batch_size} cannot be used: {error}") from error
        steps = max(1, -(-len(order) // recipe.optim.gradient_accumulation))
        self.trainer = AudioVisualTrainer(
            recipe,
            model=self.model,
            args=training_arguments(recipe, steps, metric),
            train_dataset=self.train_clips,
            eval_dataset=self.selection,
            evaluator=None if selection_task is None else self._select(selection_task),
            weights=weights,
            callbacks=[
                Progress(MetricsFile(self.folder / "metrics.jsonl"), self.state.is_main_process, metric),
                FlowControl(self.stop, metric is not None, self.state),
                CompleteCheckpoint(self.processor),
            ],
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.trainer.remove_callback(callback)

    def _encoder_config(self):
        """The configuration that says how large frames and spectrograms are."""
        from deepavfusion import DeepAVFusionConfig

        origin = self.recipe.model.init_from
        if origin is None:
            return self.recipe.model.build_config()
        check_origin(origin, "model.init_from")
        try:
            return DeepAVFusionConfig.from_pretrained(origin)
        except (OSError, ValueError) as error:
            raise RecipeError(f"model.init_from={origin} cannot be used: {error}") from error

    def _select(self, task):
        """The quick evaluation during training: the metric by which the best checkpoint is chosen, and its like."""

        def evaluator(model) -> dict[str, float]:
            return evaluate_task(
                task,
                model,
                self.trainer.accelerator,
                batch_size=self.recipe.optim.batch_size,
                num_workers=self.recipe.data.num_workers,
                max_broken=self.recipe.data.max_broken,
            ).metrics

        return evaluator

    def introduce(self) -> None:
        recipe, trained = self.recipe, [p for p in self.model.parameters() if p.requires_grad]
        self.say(
            f"{recipe.recipe}: {recipe.task.name}, {sum(p.numel() for p in trained) / 1e6:.2f} M trained parameters, "
            f"from {recipe.model.init_from or 'random weights'}, {len(self.train_clips)} clips "
            f"({self.train_clips.card}), {self.trainer.args.max_steps} steps"
        )
        if self.resume_from is not None:
            self.say(f"resumed from {self.resume_from}")
        if recipe.optim.warmup_epochs >= recipe.optim.epochs:
            self.say(
                f"optim.warmup_epochs={recipe.optim.warmup_epochs:g} is as long as optim.epochs="
                f"{recipe.optim.epochs:g} or longer: the learning rate does not reach its peak."
            )

    def say(self, text: str) -> None:
        if self.state.is_main_process:
            print(text, flush=True)

    def train(self) -> int:
        """Trains to the end. Returns 0, or the number of the signal that ended it early."""
        with self.stop:
            with quiet_library():
                self.trainer.train(resume_from_checkpoint=None if self.resume_from is None else str(self.resume_from))
            stopped = self.trainer.state.global_step < self.trainer.args.max_steps
            return (self.stop.signal or 0) if stopped else 0

    def finish(self) -> None:
        """Writes the result folder and evaluates on the test split. All processes must call it together."""
        recipe = self.recipe
        self._calibrate()
        if self.state.is_main_process:  # before the evaluation: whatever becomes of that, the model is there
            with quiet_library():
                self.model.save_pretrained(self.folder)
            self.processor.save_pretrained(self.folder)
        evaluation = evaluate_finally(recipe, self.test_clips, self.processor, self.model, self.trainer.accelerator)
        if self.state.is_main_process:
            notes = self._notes()
            content = write_report(
                self.folder,
                evaluation,
                title=f"{recipe.task.name.capitalize()}: {self.folder.resolve().name}",
                model_name=self.folder.resolve().name,
                split=recipe.data.eval_split,
                device=self.trainer.accelerator.device,
                notes=notes,
            )
            write_task_card(self.folder, content, evaluation, recipe, self.model, notes)
            self.say("\n".join(["", *notes, summary(evaluation, self.folder)]))
        self.state.wait_for_everyone()

    def _calibrate(self) -> None:
        """Takes over what the evaluation of the best checkpoint on the selection split decides."""
        state, metric = self.trainer.state, self.trainer.args.metric_for_best_model
        for record in state.log_history:
            if record["step"] == state.best_global_step and metric in record:
                metrics = {name.removeprefix("eval_"): value for name, value in record.items()}
                for name, value in TASKS[self.recipe.task.name].calibration(metrics).items():
                    setattr(self.model.config, name, value)

    def _notes(self) -> list[str]:
        """How long was trained, and which checkpoint was taken."""
        state, recipe = self.trainer.state, self.recipe
        origin = "a pre-trained model" if recipe.model.init_from else "random weights"
        notes = [f"Trained for {state.global_step} steps from {origin}."]
        if state.best_global_step:
            metric = self.trainer.args.metric_for_best_model.removeprefix("eval_")
            notes.append(
                f"The checkpoint of step {state.best_global_step} is the one kept: the last of the best on the split "
                f"{recipe.data.selection_split} ({metric} {state.best_metric:.4g} on {len(self.selection)} clips)."
            )
        return notes

    def run(self, before: Callable[["FinetuningRun"], None] | None = None) -> int:
        """Introduces, trains, finishes, and gives the folder back; the exit code of the command.

        Args:
            before: what else to do with the model before it is trained.
        """
        try:
            self.introduce()
            if before is not None:
                before(self)
            ended_by = self.train()
            if ended_by:
                step = self.trainer.state.global_step
                self.say(f"stopped by signal {ended_by} after step {step}; the same command goes on")
                return 128 + ended_by
            self.finish()
        finally:
            if self.lock is not None:
                self.lock.close()
        return 0


def summary(evaluation: Evaluation, folder: Path) -> str:
    """What the terminal shows of an evaluation."""
    from .model_card import aligned

    parts = [f"\n{evaluation.counted}"]
    for table in evaluation.tables:
        parts += [f"\n{table.title}:"] if len(evaluation.tables) > 1 else []
        parts.append(aligned([[str(cell) for cell in row] for row in (table.columns, *table.rows)]))
        parts += [table.note] if table.note else []
    parts += evaluation.remarks
    if evaluation.skipped:
        parts.append(f"skipped, cannot be read: {len(evaluation.skipped)} (evaluation.json names them)")
    return "\n".join([*parts, f"\nreport  {folder / 'report.html'}\nnumbers {folder / 'evaluation.json'}"])


def run(recipe: FinetuneArguments) -> int:
    """Trains and evaluates; the exit code of the command."""
    return FinetuningRun(recipe, StopRequest()).run()


def guarded(command: str, action) -> int:
    """Runs an action of a command; errors that a user can mend become one message and an exit code."""
    set_float32_precision()
    try:
        return action()
    except (RecipeError, ImportError) as error:
        print(f"deepavfusion {command}: {error}", file=sys.stderr)
        return 2
    except (NonFiniteError, BrokenDataError) as error:
        print(f"deepavfusion {command}: {error}", file=sys.stderr)
        return 1


def print_help(command: str, text: str) -> None:
    names = ", ".join(recipe_names(FinetuneArguments))
    print(f"usage: deepavfusion {command} RECIPE [section.key=value ...]\n\nrecipes: {names}\n")
    print(text)


def main(argv: list[str] | None = None) -> int:
    """Fine-tunes from a recipe and leaves a Hub folder. Returns the exit code (see the module's docstring)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print_help("finetune", __doc__)
        return 0 if argv else 2
    return guarded("finetune", lambda: run(load_finetune_arguments(argv[0], argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
