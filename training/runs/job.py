"""A pre-training run: everything that its loop uses, and what it does at a log line, an evaluation and a checkpoint."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from accelerate import Accelerator
from torch.utils.data import DataLoader

from deepavfusion import DeepAVFusionConfig
from deepavfusion.processors import DeepAVFusionProcessor

from ..config.recipe import Recipe, RecipeError
from ..data import build_dataset
from ..data.loading import BrokenClips, ClipOrder, evaluation_loader, training_loader
from ..report.figures import draw_reconstructions
from ..tasks.pretraining import evaluate
from .checkpoints import CheckpointFolder, gather_state, restore_state
from .logging import MetricsFile, Reporter, evaluation_line, training_line
from .preparation import Schedule, build_accelerator, build_model, build_optimizer, fingerprint, open_output_folder


@dataclass
class Job:
    """State of a run. `step` optimiser steps are done; `module` is the model without any wrapper around it."""

    args: Recipe
    accelerator: Accelerator
    checkpoints: CheckpointFolder
    metrics: MetricsFile
    schedule: Schedule
    order: ClipOrder
    train_clips: Any
    eval_clips: Any
    processor: DeepAVFusionProcessor
    module: Any
    model: Any
    optimizer: Any
    broken: BrokenClips
    eval_broken: BrokenClips
    lock: IO[str] | None
    reporter: Reporter
    step: int = 0
    clips: int = 0
    seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)

    @property
    def config(self) -> DeepAVFusionConfig:
        return self.module.config

    @property
    def folder(self) -> Path:
        return Path(self.args.run.output_dir)

    @classmethod
    def open(cls, args: Recipe) -> "Job":
        """Builds a run, and takes it to its last checkpoint where there is one."""
        accelerator = build_accelerator(args)
        effective = args.optim.batch_size * args.optim.gradient_accumulation * accelerator.num_processes
        checkpoints, metrics, step, lock = open_output_folder(args, accelerator, fingerprint(args, effective))
        module = build_model(args, accelerator)
        source, seed = args.data.source(), args.run.seed
        try:
            with accelerator.main_process_first():  # prepares caches once
                train_clips = build_dataset(source, module.config, "train", train=True, seed=seed)
                eval_clips = build_dataset(source, module.config, args.data.eval_split, train=False, seed=seed)
        except (OSError, ValueError) as error:
            raise RecipeError(f"The recipe's data cannot be used: {error}") from error
        schedule = Schedule(args, len(train_clips), effective)
        optimizer = build_optimizer(args, module)
        tensors = checkpoints.read_tensors(step) if step else None
        if tensors is not None:
            restore_state(module, optimizer, tensors)
        order = ClipOrder(
            len(train_clips),
            args.optim.batch_size,
            args.optim.gradient_accumulation,
            accelerator.num_processes,
            accelerator.process_index,
            seed,
            start_step=step,
            end_step=schedule.total_steps,
        )
        job = cls(
            args=args,
            accelerator=accelerator,
            checkpoints=checkpoints,
            metrics=metrics,
            schedule=schedule,
            order=order,
            train_clips=train_clips,
            eval_clips=eval_clips,
            processor=DeepAVFusionProcessor.from_config(module.config),
            module=module,
            model=module if args.optim.fsdp else accelerator.prepare_model(module),
            optimizer=accelerator.prepare_optimizer(optimizer),
            broken=BrokenClips(len(train_clips), args.data.max_unreadable_fraction),
            eval_broken=BrokenClips(len(eval_clips), args.data.max_unreadable_fraction),
            lock=lock,
            reporter=Reporter(accelerator.is_main_process, schedule.total_steps, step),
        )
        if tensors is not None:
            job._restore(checkpoints.read_state(step), tensors.get("scaler"))
        if args.run.trackers:
            accelerator.init_trackers("deepavfusion", config=_flat(args))
        job._introduce()
        return job

    def _restore(self, state: dict[str, Any], scaler: dict[str, Any] | None) -> None:
        self.step, self.clips, self.seconds = state["step"], state["clips"], state["seconds"]
        self.window = state["window"]
        self.broken.reasons = state["broken"]
        self.eval_broken.reasons = state["eval_broken"]
        if self.accelerator.scaler is not None and scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)

    def _introduce(self) -> None:
        parameters = sum(p.numel() for p in self.module.parameters() if p.requires_grad)
        self.reporter.print(
            f"{self.args.name}: {parameters / 1e6:.1f} M parameters, {len(self.train_clips)} clips "
            f"({self.train_clips.card}), {self.schedule.total_steps} steps of {self.schedule.effective_batch}, "
            f"lr {self.schedule.lr:.2e}, {self.accelerator.num_processes} x {self.accelerator.device.type}"
        )
        if self.step:
            self.reporter.print(f"resumed after step {self.step} from {self.checkpoints.path(self.step)}")

    def training_loader(self) -> DataLoader:
        """This process's micro-batches from the current step to the last."""
        return training_loader(self.train_clips, self.order, self.args.data.num_workers)

    def log(self, record: dict[str, Any]) -> None:
        """Writes a training record to the metrics and trackers, and its line to the terminal."""
        self._record(record)
        self.reporter.print(training_line(record, self.schedule.total_steps))

    def evaluate(self, step: int) -> None:
        """Evaluates on the held-out clips, records it and redraws the picture of reconstructions."""
        started = time.perf_counter()
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        pictures = getattr(self.processor, "image_processor", None) or self.processor.video_processor
        found, lines = evaluate(
            self.module,
            evaluation_loader(
                self.eval_clips, self.args.optim.batch_size, processes, process, self.args.data.num_workers
            ),
            self.accelerator,
            self.args.run.seed,
            self.eval_broken,
            self.args.run.num_reconstructions,
            (list(pictures.image_mean), list(pictures.image_std)),
        )
        for line in lines:
            self.reporter.print(line)
        record = {
            "step": step,
            "kind": "evaluation",
            "epoch": self.schedule.epoch(step),
            **found.losses,
            "clips": found.num_clips,
            "probe": found.probe,
            "chance": found.chance,
            "seconds": time.perf_counter() - started,
        }
        self._record(record)
        self.reporter.print(evaluation_line(record, self.schedule.total_steps))
        if found.pictures is not None:
            title = f"Held-out clips, epoch {record['epoch']:.2f} (step {step})"
            draw_reconstructions(found.pictures, found.picture_names, self.folder / "reconstructions.png", title)

    def _record(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.metrics.append(record)
        if self.args.run.trackers:
            values = {k: v for k, v in record.items() if k not in ("step", "kind", "chance", "probe")}
            for stream, scores in (record.get("probe") or {}).items():
                values.update({f"probe/{stream}_{metric}": score for metric, score in scores.items()})
            prefix = "train" if record["kind"] == "train" else "eval"
            self.accelerator.log({f"{prefix}/{k}": v for k, v in values.items()}, step=record["step"])

    def save(self, window: dict[str, float]) -> None:
        """Writes a checkpoint of the current step. All processes must call it together."""
        tensors = gather_state(self.module, self.optimizer.optimizer)
        if self.accelerator.scaler is not None:
            tensors["scaler"] = self.accelerator.scaler.state_dict()
        state = {
            "fingerprint": fingerprint(self.args, self.schedule.effective_batch),
            "clips": self.clips,
            "seconds": self.seconds,
            "window": window,
            "broken": self.broken.reasons,
            "eval_broken": self.eval_broken.reasons,
        }
        if self.accelerator.is_main_process:
            self.checkpoints.save(self.step, tensors, state)
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Ends bar, trackers and, where there are several processes, their group."""
        self.reporter.close()
        self.accelerator.end_training()
        if self.lock is not None:
            self.lock.close()


def _flat(recipe: Recipe) -> dict[str, str]:
    """The options of a recipe as trackers take them: `section.key` and the value as text."""
    sections = recipe.to_dict()
    del sections["command"]
    return {f"{section}.{key}": str(value) for section, entries in sections.items() for key, value in entries.items()}


__all__ = ["Job"]
