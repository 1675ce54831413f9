"""What a task is: how it is trained, how a model of it is scored, and what a report shows of that."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from deepavfusion.processors import DeepAVFusionProcessor

from ..data import build_dataset
from ..data.clips import BrokenClip
from ..data.loading import BatchPlace, BrokenClips, group_size
from ..report.report import Example, Table
from .evaluation import Evaluation, evaluate_task


class Task:
    """
    What is learned and how it is scored. The class says how a run of it is trained; an object is made for the data set
    that is evaluated and holds no state between evaluations.

    Args:
        clips: the data set that is evaluated (see `build_dataset`).
        processor: processor of the model.
        recipe: settings of the run; `score` and `evaluate_task` need none.

    Attributes:
        NAME, MODEL: the task and the class of its model.
        PROTOCOL: what the numbers mean, in a sentence or two.
        ENCODER: beginning of the names of the encoder's weights in the model.
        NEXT: commands for a trained model, with {folder} for where it is.
        LOSSES: fields of the model's output that are logged while it is trained.
        SELECTS: whether a run ends with the best checkpoint on `data.selection_split`, if asked to. Otherwise
            `data.eval_split` is evaluated while training, and the last one is kept.
        EVALUATES_FIRST: whether there is an evaluation before the first step.
    """

    NAME: ClassVar[str]
    MODEL: ClassVar[type[PreTrainedModel]]
    PROTOCOL: ClassVar[str]
    ENCODER: ClassVar[str] = "deepavfusion."
    NEXT: ClassVar[tuple[str, ...]] = ()
    LOSSES: ClassVar[tuple[str, ...]] = ("loss",)
    SELECTS: ClassVar[bool] = True
    EVALUATES_FIRST: ClassVar[bool] = False

    def __init__(self, clips, processor, recipe=None):
        self.clips, self.processor, self.recipe = clips, processor, recipe

    # How a run of it is trained.

    @classmethod
    def data_options(cls, recipe, config, train: bool) -> dict[str, Any]:
        """Arguments of `build_dataset` that the task decides. `config` is that of the encoder."""
        return {}

    @classmethod
    def build_clips(cls, recipe, config, split: str, train: bool, size: int | None = None):
        """The recipe's data of a split.

        Args:
            config: configuration that says how large frames and spectrograms are.
            size: how many held-out clips at most; None is the recipe's `data.eval_size`.

        Raises:
            ValueError, OSError: a data set that cannot be found or has no clips for the task, or a setting that it
                does not have.
        """
        source = recipe.data.source()
        if size is not None:
            source["eval_size"] = size
        options = cls.data_options(recipe, config, train)
        name, seed = recipe.task.data_task, recipe.run.seed
        return build_dataset(source, config, split, train=train, seed=seed, task=name, **options)

    @classmethod
    def build_processor(cls, config) -> DeepAVFusionProcessor:
        """The processor of the task's model."""
        return DeepAVFusionProcessor.from_model(cls.MODEL, config)

    @classmethod
    def head_config(cls, clips, recipe) -> dict[str, Any]:
        """Fields of the configuration that task and data decide: number and names of the labels, and of which kind.

        The kind is of classifiers alone: a model that starts from one must not keep it.

        Raises:
            ValueError: clips without what the task learns.
        """
        return {"problem_type": None}

    @classmethod
    def prepare_model(cls, model, clips, recipe) -> None:
        """Sets the weights that training starts from, where they are neither random nor an earlier model's."""
        if recipe.task.freeze_encoder:
            model.freeze_encoder()

    @classmethod
    def sampling_weights(cls, clips, recipe) -> torch.Tensor | None:
        """(N,) how often training clips are drawn, relative to each other; None draws each once an epoch."""
        return None

    @classmethod
    def training_inputs(cls, inputs: dict[str, torch.Tensor], config, place: BatchPlace, recipe) -> dict:
        """Arguments of the model's forward pass for a training batch.

        Args:
            inputs: those of `MODEL_INPUTS` that the batch has, on the device.
            place: which batch it is, for random numbers.
        """
        return inputs

    @classmethod
    def depends_on_batch(cls, recipe, config) -> bool:
        """Whether a clip's loss depends on the others of its micro-batch, which are then not to be dealt out anew."""
        return False

    @classmethod
    def calibration(cls, metrics: dict[str, float]) -> dict[str, Any]:
        """Fields of the configuration that the selection split's metrics decide, such as a threshold."""
        return {}

    # How a model of it is scored.

    @property
    def primary(self) -> str | None:
        """The metric by which checkpoints are chosen, larger being better; None keeps the last."""
        raise NotImplementedError

    @property
    def headline(self) -> tuple[str, ...]:
        """The metrics that a log line of an evaluation shows, of those that there are."""
        return (self.primary,)

    def check_model(self, model) -> None:
        """Raises `ValueError` where a trained model does not fit the data set."""

    def score(self, model, inputs: dict, batch: dict, full: bool) -> list[dict]:
        """What is kept of each clip of a batch.

        Args:
            inputs: `pixel_values` and `input_features`, on the device.
            batch: the whole batch.
            full: also the controls and the slower scores.
        """
        raise NotImplementedError

    def summarize(self, rows: list[dict], full: bool) -> tuple[dict[str, float], list[Table], dict[str, int]]:
        """Metrics, tables, and what was left out, of all clips' rows in the data set's order."""
        raise NotImplementedError

    def examples(self, model, inputs: dict, batch: dict) -> list[Example]:
        """What the report shows of a batch of clips."""
        return []

    def figures(self, rows: list[dict]) -> list[tuple[str, Any, str, str]]:
        """Figures of the report over all clips."""
        return []

    def pictures(self, model, inputs: dict, batch: dict) -> Any:
        """What `draw` draws of the first batch, at every evaluation; None for nothing."""
        return None

    def draw(self, pictures: Any, folder: Path, title: str) -> None:
        """Draws `pictures` into a folder."""

    def add_training(self, evaluation: Evaluation, metrics, folder: Path, name: str) -> dict[str, Any]:
        """Adds to the evaluation that ends a run what the run's records show.

        Args:
            metrics: the run's `MetricsFile`.
            folder: where to draw, if anything.
            name: of the model.

        Returns:
            what evaluation.json holds of it.
        """
        return {}

    def evaluate(self, model, accelerator, full: bool, broken: BrokenClips | None = None) -> Evaluation:
        """Evaluates a model by the settings of the recipe; see `evaluate_task`.

        Args:
            full: with controls, bounds and examples, as at the end of a run; else what training needs to know.
            broken: unreadable clips that are known.
        """
        recipe = self.recipe
        return evaluate_task(
            self,
            model,
            accelerator,
            batch_size=recipe.optim.batch_size,
            num_workers=recipe.data.num_workers,
            max_unreadable_fraction=recipe.data.max_unreadable_fraction,
            full=full,
            examples=recipe.run.num_examples if full else 0,
            broken=broken,
        )

    def other_sounds(self, inputs: dict, batch: dict) -> torch.Tensor | None:
        """For every clip of a batch the sound of another one, (B, 1, mels, time steps): the control of what a model
        hears. None where the data set has no other clip that can be read."""
        sounds, group = inputs["input_features"], group_size(self.clips)
        if len(sounds) > group:
            return sounds.roll(group, 0)
        taken, total = {index // group for index in batch["index"].tolist()}, len(self.clips)
        for step in range(1, total):
            index = (int(batch["index"][-1]) + step) % total
            if index // group not in taken:
                sample = self.clips.__getitems__([index])[0]
                if not isinstance(sample, BrokenClip):
                    return sample["input_features"][None].to(sounds).expand_as(sounds)
        return None

    def frames(self, pixel_values: torch.Tensor):
        """Normalised frames (B, 3, H, W), or the middle ones of videos, as (B, H, W, 3) uint8 arrays."""
        visual = self.processor.visual_processor
        pixels = pixel_values.detach().float().cpu()
        if pixels.ndim == 5:
            pixels = pixels[:, pixels.shape[1] // 2]
        return visual.denormalize(pixels).mul(255).round().byte().permute(0, 2, 3, 1).numpy()


def percent(value: float | None) -> str:
    """A share as text."""
    return "-" if value is None else f"{100 * value:.1f} %"


def decibels(value: float | None) -> str:
    """A level or ratio in dB as text."""
    return "-" if value is None else f"{value:.2f} dB"


__all__ = ["Task", "decibels", "percent"]
