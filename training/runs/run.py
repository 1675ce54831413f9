"""Training runs from recipes: data, model, trainer and result folder."""

import contextlib
from collections.abc import Callable
from signal import SIGINT, Signals

from accelerate import PartialState

from deepavfusion.inference.common import quiet_library
from deepavfusion.inference.precision import computing, set_threads
from deepavfusion_cli.boundary import Terminated
from deepavfusion_cli.early.runs import BatchLayout
from deepavfusion_cli.errors import cause

from ..config.recipe import Recipe, RecipeError
from ..data.files import share_files
from ..data.identity import contents_of, training_clips
from ..data.loading import ClipOrder, group_size, naming_dead_workers
from ..data.scenes.cache import cache_notes
from ..tasks import TASKS
from ..wording import count, metric_title
from .arguments import on_cpu, settle_compile, settle_precision, training_arguments
from .card import model_license, write_card
from .checkpoints import checkpoint_step
from .folder import RunFolder, fingerprint
from .logging import ProgressLog, tracker_callbacks
from .models import build_model, encoder_config, shard
from .optimization import Schedule
from .records import evaluation_record, summary, training_record, training_summary, write_report
from .steps import StopRequest
from .trainer import AudioVisualTrainer


class Run:
    """A training run, which is built before anything is written.

    Args:
        recipe: Recipe of the run.

    Attributes:
        finished: Whether the folder holds all results of this run, so that there is nothing to do and no trainer.
        predictions: Predictions made before the training, to be stored with those of the final evaluation.

    Raises:
        RecipeError: For unusable settings, data or models.
        FolderError: For an unusable folder.
    """

    def __init__(self, recipe: Recipe):
        self.recipe, self.task, self.stop = recipe, TASKS[recipe.task.name], StopRequest()
        self.predictions: dict[str, list] = {}
        self._check()
        set_threads(recipe.data.workers)
        self.processes = PartialState(cpu=on_cpu(recipe))
        if recipe.optim.fsdp and self.processes.num_processes == 1:
            raise RecipeError("optim.fsdp=true needs several processes, but there is only one: use accelerate launch.")
        run = recipe.run
        self.folder = RunFolder(
            run.output_dir,
            recipe.command,
            self.processes,
            resume=run.resume,
            allow_changed=run.allow_changed_recipe,
            overwrite=run.overwrite,
        )
        config, optim = encoder_config(recipe), recipe.optim
        self.batch = BatchLayout(optim.batch_size, optim.gradient_accumulation, self.processes.num_processes)
        self.folder.plan(fingerprint(self.task, recipe, config), self.batch)
        self._build_data(config)
        self.folder.compare(self._contents())
        self.finished = self.folder.finished
        if not self.finished:
            self._build_trainer()

    def _check(self) -> None:
        self.recipe.check_data_path()
        settle_precision(self.recipe)
        settle_compile(self.recipe)
        try:
            self.trackers = tracker_callbacks(self.recipe.run.trackers)
        except ValueError as error:
            raise RecipeError(str(error)) from error

    def _build_data(self, config) -> None:
        recipe, task, data = self.recipe, self.task, self.recipe.data
        processor = task.build_processor(config)
        try:
            with self.processes.main_process_first():  # so that caches are prepared once
                self.train_clips = task.build_clips(recipe, config, "train", train=True)
                self.final = task(task.build_clips(recipe, config, data.eval_split, train=False), processor, recipe)
                self.evaluation, self.selects_on_reported = None if task.SELECTS else self.final, False
                if task.SELECTS and recipe.run.keep_best:
                    held_out = (data.selection_split, False, data.selection_size)
                    self.evaluation = task(task.build_clips(recipe, config, *held_out), processor, recipe)
                    self.selects_on_reported = share_files(self.evaluation.clips, self.final.clips)
                    self.evaluation.clips.reading = f"selection on the {data.selection_split} split"
                self.final.clips.reading = f"evaluation on the {data.eval_split} split"
            task.check_split(self.train_clips, self.final.clips)
        except (OSError, ValueError) as error:
            raise RecipeError(f"The recipe's data cannot be used: {cause(error)}") from error
        if not len(self.train_clips):
            raise RecipeError(f"The training split of data.name={recipe.data.name} holds no clips.")
        self.schedule = Schedule(recipe.optim, len(self.train_clips), self.batch.effective)

    def _contents(self) -> dict[str, dict]:
        splits = {"training clips": self.train_clips, "held-out clips": self.final.clips}
        splits |= {} if self.evaluation in (None, self.final) else {"clips to select on": self.evaluation.clips}
        return {name: contents_of(clips, self.recipe.command != "pretrain") for name, clips in splits.items()}

    def _build_trainer(self) -> None:
        recipe, task, evaluation = self.recipe, self.task, self.evaluation
        model = build_model(task, recipe, self.train_clips)
        metric = None if evaluation is None else evaluation.primary
        resume_from = self.folder.resume_from
        arguments = training_arguments(
            recipe,
            self.schedule,
            self.folder.checkpoints,
            evaluates=evaluation is not None,
            metric=metric,
            evaluates_first=task.EVALUATES_FIRST and resume_from is None,
        )
        order = self._order(0 if resume_from is None else checkpoint_step(resume_from))
        self.folder.require_space_for(model)
        on_main = self.processes.is_main_process
        with self.folder.claimed():
            self.folder.begin(recipe.to_yaml(), training_clips(self.train_clips) if on_main else None)
            if recipe.optim.fsdp:
                model = shard(model, recipe, self.folder)
            recipe.model.set_computation(model)
            headline = () if evaluation is None else evaluation.logged_metrics
            self.progress = ProgressLog(self.folder.metrics, on_main, recipe.command, headline)
            self.trainer = AudioVisualTrainer(
                recipe,
                task,
                model=model,
                args=arguments,
                train_dataset=self.train_clips,
                order=order,
                schedule=self.schedule,
                folder=self.folder,
                progress=self.progress,
                stop=self.stop,
                evaluation=evaluation,
                processor=self.final.processor,
                callbacks=self.trackers,
            )

    def _order(self, start_step: int) -> ClipOrder:
        batch, clips = self.batch, self.train_clips
        try:
            return ClipOrder(
                len(clips),
                batch.batch_size,
                batch.gradient_accumulation,
                batch.processes,
                self.processes.process_index,
                self.recipe.run.seed,
                start_step=start_step,
                end_step=self.schedule.total_steps,
                weights=self.task.sampling_weights(clips, self.recipe),
                group=group_size(clips),
            )
        except ValueError as error:
            raise RecipeError(f"optim.batch_size={batch.batch_size} cannot be used: {error}") from error

    def introduce(self) -> None:
        """Print what is trained, on which data and for how long."""
        recipe, model = self.recipe, self.trainer.model
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        steps = count(self.schedule.total_steps, "step")
        self.progress.print(
            f"{recipe.name}: {self.task.NAME}, {parameters / 1e6:.2f} M trained parameters, "
            f"from {recipe.model.init_from or 'random weights'}; {self.train_clips.card}; "
            f"{steps} of {count(self.batch.effective, 'clip')}, lr {self.schedule.peak:.2e}, "
            f"{self.batch.processes} x {self.trainer.accelerator.device.type}, {computing(recipe.data.workers)}"
        )
        held_out = f"held out: {count(len(self.final.clips), 'clip')} of data.eval_split={recipe.data.eval_split}"
        if self.evaluation not in (None, self.final):
            held_out += (
                f"; the best checkpoint is selected on {count(len(self.evaluation.clips), 'clip')} of "
                f"data.selection_split={recipe.data.selection_split} (data.selection_size limits their number)"
            )
            if self.selects_on_reported:
                held_out += "; WARNING: these are among the former, whose metrics will be too good"
        elif self.evaluation is None:
            reason = "as run.keep_best=false, run.eval_epochs only says how often checkpoints are saved"
            held_out += f", evaluated once, at the end: {reason}"
        task_notes = self.task.training_notes(self.train_clips, self.final.clips, recipe)
        kept = cache_notes(
            [self.train_clips, *(task.clips for task in (self.final, self.evaluation) if task is not None)]
        )
        for note in (*self.schedule.notes(), held_out, *task_notes, *kept, *self.folder.notes()):
            self.progress.print(note)

    def train(self) -> int:
        """Train to the end; returns 0, or the number of the signal that ended the training early."""
        checkpoint = self.folder.resume_from
        with self.stop, quiet_library(), naming_dead_workers():
            self.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        stopped = self.trainer.state.global_step < self.trainer.args.max_steps
        return (self.stop.signal or 0) if stopped else 0

    def finish(self, after: Callable[["Run"], str] | None = None) -> None:
        """Evaluate on `data.eval_split` and write the result folder. All processes must call this together.

        Args:
            after: See `run`.
        """
        recipe, trainer, draft, name = self.recipe, self.trainer, self.folder.draft, self.folder.path.resolve().name
        self._calibrate()
        with quiet_library():  # before the evaluation, so that the model survives a failed one
            trainer.model.save_pretrained(draft, is_main_process=self.processes.is_main_process)
        if self.processes.is_main_process:
            self.final.processor.save_pretrained(draft)
            self.folder.holds_model = True
            if not self.folder.replaces:
                self.folder.publish(finished=False)
        evaluation = trainer.latest_evaluation if self.evaluation is self.final else None
        if evaluation is None:
            evaluation = self.final.evaluate(trainer.model, trainer.accelerator, full=True)
        if self.processes.is_main_process:
            notes = self._notes()
            record = evaluation_record(evaluation, recipe, name, trainer.accelerator.device)
            record |= self.final.add_training(evaluation, self.folder.metrics, draft, name)
            record |= training_record(trainer)
            evaluation.predictions |= self.predictions
            write_report(draft, evaluation, record, f"{self.task.NAME.capitalize()}: {name}", notes, self.folder.work)
            line = None if after is None else after(self)  # which may leave an example for the card
            write_card(draft, name, record, evaluation, recipe, notes)
            self.folder.publish()
            lines = ["", *notes, summary(evaluation, self.folder.path)]
            lines.append(training_summary(record, self.folder.path, self.task.NEXT, model_license(recipe)))
            self.progress.print("\n".join([*lines, *([f"\n{line}"] if line else [])]))
        self.processes.wait_for_everyone()

    def _calibrate(self) -> None:
        """Set the fields of the configuration that the best checkpoint's scores on the selection split determine."""
        state, metric = self.trainer.state, self.trainer.args.metric_for_best_model
        for record in state.log_history:
            if record["step"] == state.best_global_step and metric in record:
                metrics = {name.removeprefix("eval_"): value for name, value in record.items()}
                for name, value in self.task.calibration(metrics).items():
                    setattr(self.trainer.model.config, name, value)

    def _notes(self) -> list[str]:
        """Sentences about the length of the training and the selected checkpoint."""
        state, recipe = self.trainer.state, self.recipe
        origin = "a pre-trained model" if recipe.model.init_from else "random weights"
        notes = [f"Trained for {count(state.global_step, 'step')} from {origin}."]
        if state.best_global_step:
            metric = metric_title(self.trainer.args.metric_for_best_model.removeprefix("eval_"))
            clips = count(len(self.evaluation.clips), "clip")
            also = ", clips of the evaluation, whose metrics are therefore too good" if self.selects_on_reported else ""
            notes.append(
                f"Selected the checkpoint of step {state.best_global_step}, the best on the "
                f"{recipe.data.selection_split} split ({metric} {state.best_metric:.4g} on {clips}{also})."
            )
        return notes

    def _stopped(self, number: int) -> str:
        cause = "Ctrl-C (SIGINT)" if number == SIGINT else Signals(number).name
        stopped = f"stopped by {cause} after step {self.trainer.state.global_step}; checkpoint saved"
        return f"{stopped}; run {_again(self.recipe)} to resume"

    def run(self, before: Callable[["Run"], None] | None = None, after: Callable[["Run"], str] | None = None) -> int:
        """Train, evaluate, write the results and release the folder.

        Args:
            before: Called before the training.
            after: Called on the main process at the end, to write more results; returns a line to print.

        Returns:
            Exit code of the command.
        """
        if self.finished:
            self.folder.report_finished()
            return 0
        with self.folder.running(self.trainer.model), contextlib.closing(self.progress):
            self.introduce()
            if before is not None:
                before(self)
            ended_by = self.train()
            if ended_by:
                self.progress.print(self._stopped(ended_by))
                return 128 + ended_by
            try:
                self.finish(after)
            except (KeyboardInterrupt, Terminated):
                self.progress.print(f"the training is complete; run {_again(self.recipe)} to evaluate it")
                raise
        return 0


def _again(recipe: Recipe) -> str:
    """The command that goes on with an interrupted run."""
    return "the same command" if recipe.run.resume else "the same command with run.resume=true"


__all__ = ["Run"]
