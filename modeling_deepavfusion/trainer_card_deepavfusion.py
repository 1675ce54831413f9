"""The model card that a plain `Trainer` writes of a model of this package, in `push_to_hub` and `create_model_card`.

transformers has no interface for it: its `Trainer` writes what `TrainingSummary.from_trainer(trainer).to_model_card()`
returns, which leaves description, intended uses and data as "More information needed". Importing the package lets
`from_trainer` return a summary with another card for models of this package; those of all others stay as they are.
"""

import functools
import importlib.metadata
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult
from transformers.modelcard import TrainingSummary

from .card_deepavfusion import escape_markdown, model_card
from .modeling_deepavfusion import DeepAVFusionPreTrainedModel
from .tasks_deepavfusion import ENCODER, HEADS

_NOT_METRICS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
_PACKAGES = ("deepavfusion", "torch", "torchaudio", "transformers", "accelerate", "safetensors", "numpy", "av")


@dataclass
class DeepAVFusionTrainingSummary(TrainingSummary):
    """Summary of a `Trainer` whose card describes the model, its training and its last evaluation.

    Attributes:
        trainer: The trainer.
    """

    trainer: Any = None

    def to_model_card(self) -> str:
        """Text of the card."""
        trainer, model = self.trainer, self.trainer.model
        evaluated = last_evaluation(trainer.state.log_history)
        metadata = {
            "language": _listed(self.language),
            "license": self.license,
            "base_model": self.finetuned_from or None,
            "datasets": _listed(self.dataset_tags),
            "tags": _listed(self.tags),
        }
        results = self._results(evaluated)
        if results:
            metadata |= {"model_name": self.model_name, "eval_results": results}
        card = model_card(
            model,
            self.model_name,
            trainer.hub_model_id or self.model_name,
            metadata={name: value for name, value in metadata.items() if value},
            details=self._details(),
            limits=[] if self.dataset else ["The training data are not described here."],
            sections=[("Results", self._evaluation(evaluated)), ("Training", self._training())],
        )
        return str(card)

    def _results(self, evaluated: dict[str, float]) -> list[EvalResult]:
        """Results for the metadata; none for evaluations on a data set without a name."""
        task, names = HEADS.get(type(self.trainer.model).__name__, ENCODER), _listed(self.dataset)
        if not names:
            return []
        kinds = _listed(self.dataset_tags) or names
        details = (self.dataset_metadata or [{}])[0]
        return [
            EvalResult(
                task_type=task.hub_task,
                task_name=task.pipeline or "feature extraction",
                dataset_type=kinds[0],
                dataset_name=names[0],
                dataset_config=details.get("config"),
                dataset_split=details.get("split"),
                metric_type=metric,
                metric_name=metric.replace("_", " "),
                metric_value=round(value, 4),
            )
            for metric, value in evaluated.items()
        ]

    def _details(self) -> list[list[str]]:
        state, args = self.trainer.state, self.trainer.args
        data = ", ".join(_listed(self.dataset)) or "not described"
        return [
            ["initial weights", self.finetuned_from or Path(self.trainer.model.config.name_or_path).name or "random"],
            ["training data", f"{data}{_size(self.trainer.train_dataset)}"],
            ["training", f"{state.global_step:,} steps of {args.train_batch_size * _accumulated(args)} samples"],
            ["precision", "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"],
        ]

    def _evaluation(self, evaluated: dict[str, float]) -> str:
        if not evaluated:
            return "The model was not evaluated."
        names = {name: escape_markdown(name.replace("_", " ")) for name in evaluated}
        rows = [f"| {names[name]} | {value:.4g} |" for name, value in evaluated.items()]
        data = f"On the evaluation set{_size(self.trainer.eval_dataset)}, after training:"
        if self.trainer.state.best_model_checkpoint and self.trainer.args.load_best_model_at_end:
            data = f"{data[:-1]} (the best checkpoint is selected on the same set):"
        return "\n".join([data, "", "| metric | value |", "|---|---:|", *rows])

    def _training(self) -> str:
        settings = yaml.safe_dump(self.hyperparameters or {}, sort_keys=False, allow_unicode=True).strip()
        versions = {"python": platform.python_version()}
        for name in _PACKAGES:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        used = ", ".join(f"{name} {version}" for name, version in versions.items())
        return f"Trained with the `Trainer` of transformers.\n\n```yaml\n{settings}\n```\n\nVersions: {used}."


def last_evaluation(log_history: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of the last evaluation in the log of a `Trainer`, without their prefix; empty if there was none."""
    for entry in reversed(log_history):
        found = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        metrics = {name: value for name, value in found.items() if name not in _NOT_METRICS}
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        if numbers:
            return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    return {}


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _accumulated(args: Any) -> int:
    return args.gradient_accumulation_steps * args.world_size


def _size(dataset: Any) -> str:
    try:
        return f" ({len(dataset):,} samples)"
    except TypeError:  # none, or a stream
        return ""


def register_trainer_card() -> None:
    """Let `TrainingSummary.from_trainer` return a `DeepAVFusionTrainingSummary` for models of this package."""
    original = TrainingSummary.from_trainer.__func__

    @functools.wraps(original)
    def from_trainer(cls: type, trainer: Any, *args: Any, **kwargs: Any) -> TrainingSummary:
        if not isinstance(trainer.model, DeepAVFusionPreTrainedModel):
            return original(cls, trainer, *args, **kwargs)
        summary = original(DeepAVFusionTrainingSummary, trainer, *args, **kwargs)
        summary.trainer = trainer
        return summary

    TrainingSummary.from_trainer = classmethod(from_trainer)


__all__ = ["DeepAVFusionTrainingSummary", "last_evaluation", "register_trainer_card"]
