"""Base class of the tasks: how their models are trained, scored and reported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from deepavfusion.processors import DeepAVFusionProcessor

from ..data import build_dataset
from ..data.clips import following_audio
from ..data.loading import BatchPlace, BrokenClips, group_size
from ..report.charts import finetuning_curves
from ..report.report import Example, Table
from .evaluation import Evaluation, evaluate_task


class Task:
    """How models of a task are trained and evaluated.

    Class methods describe training. An instance evaluates models on one data set and keeps no state in between.

    Args:
        clips: Data set to evaluate on (see `build_dataset`).
        processor: Processor of the model.
        recipe: Recipe of the run; `score` and `evaluate_task` work without it.

    Attributes:
        NAME: Name of the task.
        MODEL: Class of its models.
        PROTOCOL: What the metrics mean, in a few sentences.
        ENCODER: Prefix of the encoder's weights in the model.
        NEXT: Commands for a trained model, without the name of the program, with placeholders {folder} and {clip}.
        UNITS: What the metrics are averages over, in the plural.
        SELECTS: Whether the best checkpoint on `data.selection_split` can be selected. Otherwise `data.eval_split` is
            evaluated during training, and the last checkpoint is kept.
        EVALUATES_FIRST: Whether to evaluate before the first step.
    """

    NAME: ClassVar[str]
    MODEL: ClassVar[type[PreTrainedModel]]
    PROTOCOL: ClassVar[str]
    ENCODER: ClassVar[str] = "deepavfusion."
    NEXT: ClassVar[tuple[str, ...]] = ()
    UNITS: ClassVar[str] = "clips"
    SELECTS: ClassVar[bool] = True
    EVALUATES_FIRST: ClassVar[bool] = False

    def __init__(self, clips, processor, recipe=None):
        self.clips, self.processor, self.recipe = clips, processor, recipe

    # Training

    @classmethod
    def data_options(cls, recipe, config, train: bool) -> dict[str, Any]:
        """Task-specific arguments of `build_dataset`; `config` is that of the encoder."""
        return {}

    @classmethod
    def build_clips(cls, recipe, config, split: str, train: bool, size: int | None = None):
        """Build the recipe's data set for a split.

        Args:
            recipe: Recipe of the run.
            config: Model configuration, which determines the sizes of frames and spectrograms.
            split: Name of the split.
            train: Whether clips are augmented and drawn at random, as for training.
            size: Maximum number of clips; by default the recipe's `data.train_size` or `data.eval_size`.

        Raises:
            OSError: If files of the data set are missing.
            ValueError: If the data set has no clips for the task, or an option is invalid.
        """
        source = recipe.data.source()
        if size is not None:
            source["train_size" if split == "train" else "eval_size"] = size
        options = {"seed": recipe.run.seed, "task": recipe.task.data_task, **cls.data_options(recipe, config, train)}
        return build_dataset(source, config, split, train=train, **options)

    @classmethod
    def build_processor(cls, config) -> DeepAVFusionProcessor:
        """Build the processor of the task's model."""
        return DeepAVFusionProcessor.from_model(cls.MODEL, config)

    @classmethod
    def head_config(cls, clips, recipe) -> dict[str, Any]:
        """Configuration fields that depend on task and data: the labels and the problem type.

        `problem_type` is reset to None unless the task is classification, in case the initial model was a classifier.

        Raises:
            ValueError: If the clips lack the required annotations.
        """
        return {"problem_type": None}

    @classmethod
    def prepare_model(cls, model, clips, recipe) -> None:
        """Set initial weights other than random ones and `model.init_from`, and freeze the encoder on request."""
        if recipe.task.freeze_encoder:
            model.freeze_encoder()

    @classmethod
    def sampling_weights(cls, clips, recipe) -> torch.Tensor | None:
        """Sampling weights (N,) of the training clips; None draws each clip once per epoch."""
        return None

    @classmethod
    def training_notes(cls, clips, held_out=None, recipe=None) -> list[str]:
        """Notes on the training clips, and on those that are held out, for the start of a run."""
        return []

    @classmethod
    def check_split(cls, clips, held_out) -> None:
        """Raise `ValueError` if what is learned from the training clips cannot be tested on those held out."""

    @classmethod
    def training_inputs(cls, inputs: dict[str, torch.Tensor], config, place: BatchPlace, recipe) -> dict:
        """Arguments of the model's forward pass for a training batch.

        Args:
            inputs: The `MODEL_INPUTS` that the batch has, on the device.
            config: Configuration of the model.
            place: Position of the batch in the run, from which random numbers are seeded.
            recipe: Recipe of the run.
        """
        return inputs

    @classmethod
    def losses(cls, config) -> tuple[str, ...]:
        """List the fields of the model output that are logged during training, `loss` first."""
        return ("loss",)

    @classmethod
    def depends_on_batch(cls, recipe, config) -> bool:
        """Whether a clip's loss depends on the rest of its micro-batch, so that clips must not be regrouped."""
        return False

    @classmethod
    def calibration(cls, metrics: dict[str, float]) -> dict[str, Any]:
        """Configuration fields chosen by the metrics on the selection split, such as a threshold."""
        return {}

    # Evaluation

    @classmethod
    def match_clips(cls, clips, config) -> tuple[Any, list[str], dict[str, int]]:
        """Clips with the classes of a trained model, notes on classes of only one of them, and what is left out.

        Args:
            clips: Data set of the evaluation.
            config: Configuration of the model.

        Raises:
            ValueError: None of the classes are those of the model.
        """
        return clips, [], {}

    @property
    def primary(self) -> str | None:
        """Metric that selects the best checkpoint, higher is better; None keeps the last checkpoint."""
        raise NotImplementedError

    @property
    def logged_metrics(self) -> tuple[str, ...]:
        """Metrics shown in the log line of an evaluation, if present."""
        return (self.primary,)

    @property
    def num_examples(self) -> int:
        """Number of examples in the report of a full evaluation."""
        return self.recipe.run.num_examples

    def check_model(self, model) -> None:
        """Raise `ValueError`, with what "it" has and what the data, if a trained model does not fit the data set."""

    def score(self, model, inputs: dict, batch: dict, full: bool) -> list[dict]:
        """Score each clip of a batch.

        Args:
            model: Model to evaluate.
            inputs: `pixel_values` and `input_features`, on the device.
            batch: The whole batch.
            full: Whether to include controls and slow metrics.

        Returns:
            A row of scores per clip, the input of `summarize`.
        """
        raise NotImplementedError

    def num_scored(self, rows: list[dict]) -> int:
        """Number of `UNITS` among the rows of all clips."""
        return len(rows)

    def summarize(self, rows: list[dict], full: bool) -> tuple[dict[str, float], list[Table], dict[str, int]]:
        """Aggregate the rows of all clips, in the data set's order, to metrics, tables and counts of left-out clips."""
        raise NotImplementedError

    def rescore(self, row: dict) -> dict[str, Any]:
        """Scores of a row of a full evaluation, from the predictions in it; empty if the row holds only scores."""
        return {}

    def taken_as_stored(self, tables: dict[str, list]) -> dict[str, str]:
        """Scores of clips that `rescore` does not derive, from `Evaluation.predictions`: what they are -> why."""
        return {}

    def rederive(self, tables: dict[str, list], about: dict[str, Any]) -> tuple[dict[str, float], dict[str, int]]:
        """Metrics and counts of left-out clips, from `Evaluation.predictions` and `Evaluation.about`."""
        metrics, _, left_out = self.summarize(tables["clips"], True)
        return metrics, left_out

    def examples(self, model, inputs: dict, batch: dict) -> list[Example]:
        """Examples of a batch for the report."""
        return []

    def ranked_examples(self, rows: list[dict], places: Sequence[int]) -> list[Example]:
        """Examples that depend on the rows of all clips, for some of the rows; shown where `examples` has none."""
        return []

    def details(self, rows: list[dict]) -> list[Table]:
        """Tables of the report over all clips that are too long for a terminal."""
        return []

    def figures(self, rows: list[dict]) -> list[tuple[str, Any, str, str]]:
        """Figures of the report over all clips: (title, figure, caption, alternative text)."""
        return []

    def reconstructions(self, model, inputs: dict, batch: dict) -> Any:
        """Reconstructions of the first batch of an evaluation, for `draw_reconstructions`; None without any."""
        return None

    def draw_reconstructions(self, reconstructions: Any, folder: Path, title: str) -> None:
        """Write an image of the reconstructions into a folder."""

    def add_training(self, evaluation: Evaluation, metrics, folder: Path, name: str) -> dict[str, Any]:
        """Add the course of training to the final evaluation of a run.

        Args:
            evaluation: The final evaluation, whose tables may be changed.
            metrics: `MetricsFile` of the run.
            folder: Folder for figures.
            name: Name of the model.

        Returns:
            Additional entries of evaluation.json.
        """
        if train := metrics.read("train"):
            evaluations, metric = metrics.read("evaluation"), self.primary or self.logged_metrics[0]
            finetuning_curves(train, evaluations, metric, folder / "training_curves.png", name)
        return {}

    def evaluate(self, model, accelerator, full: bool, broken: BrokenClips | None = None) -> Evaluation:
        """Evaluate a model with the recipe's settings; see `evaluate_task`.

        Args:
            model: Model to evaluate, not wrapped.
            accelerator: Accelerator of the run.
            full: Whether to include controls, bounds and examples, as at the end of a run.
            broken: Unreadable clips found earlier.
        """
        recipe = self.recipe
        return evaluate_task(
            self,
            model,
            accelerator,
            batch_size=recipe.optim.batch_size,
            num_workers=recipe.data.workers,
            max_unreadable_fraction=recipe.data.max_unreadable_fraction,
            full=full,
            examples=self.num_examples if full else 0,
            broken=broken,
        )

    def mismatched_audio(self, inputs: dict, batch: dict) -> torch.Tensor | None:
        """Audio features (B, 1, mels, time steps) of another clip for every clip of a batch, for a control.

        They are those of the next clip of the data set that is readable, however the clips are divided into batches.
        None if there is no other.
        """
        features, indices = inputs["input_features"], batch["index"].tolist()
        known = dict(zip(indices, features, strict=True))
        others = [following_audio(self.clips, index, group_size(self.clips), known) for index in indices]
        return None if any(other is None for other in others) else torch.stack([x.to(features) for x in others])

    def frames(self, pixel_values: torch.Tensor):
        """Convert normalized frames (B, 3, H, W), or the middle frames of videos, to (B, H, W, 3) uint8 arrays."""
        pixels = pixel_values.detach().float().cpu()
        if pixels.ndim == 5:
            pixels = pixels[:, pixels.shape[1] // 2]
        return self.processor.visual_processor.denormalize(pixels).mul(255).round().byte().permute(0, 2, 3, 1).numpy()


__all__ = ["Task"]
