"""Arguments of fine-tuning, probing and evaluation: a recipe's sections `task`, `model`, `data`, `optim` and `run`.

Keys of `model` that are not fields of [`ModelArguments`] are fields of `DeepAVFusionConfig`, those of the heads
included.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from .arguments import DataArguments, ModelArguments, RunArguments
from .recipe import RecipeArguments, RecipeError, load_recipe

TASKS = ("recognition", "separation", "segmentation", "localization", "retrieval")
OPTIMIZERS = ("adamw", "lars")


@dataclass
class TaskArguments:
    """What is learned, and from what."""

    name: str = "recognition"
    """recognition, separation, segmentation, localization, or retrieval (evaluated only)."""
    freeze_encoder: bool = False
    """Train the heads alone on the features of an encoder that stays as it is (linear probe)."""
    semantic: bool = False
    """segmentation: name the classes; else only tell what sounds from what does not."""
    mixup: float = 0.0
    """recognition: mixup's alpha, for frames and sounds of a pair alike; 0 is none."""
    label_smoothing: float = 0.0
    """recognition with one label a clip: how much of the label is spread over all classes."""
    drop_modality: float = 0.0
    """Share of training clips whose frame or sound (as often one as the other) is withheld."""
    class_balanced: bool = False
    """recognition: draw clips of rare classes as often as those of frequent ones."""
    init_bias: bool = True
    """recognition: start the heads' biases from the classes' frequencies."""
    dense_windows: int = 10
    """recognition, at the end: windows spread over a clip whose logits are averaged; 0 leaves it out."""


@dataclass
class TaskDataArguments(DataArguments):
    """Which data; `eval_split` is what the final numbers are taken on."""

    selection_split: str = "validation"
    """Split on which the best checkpoint is chosen."""
    selection_size: int | None = None
    """How many clips of it; None is `eval_size`."""

    def _trainer_keys(self) -> tuple[str, ...]:
        return (*super()._trainer_keys(), "selection_split", "selection_size")


@dataclass
class TaskOptimArguments:
    """Optimiser, schedule, precision."""

    optimizer: str = "adamw"
    """adamw or lars."""
    base_lr: float = 3e-4
    """Learning rate of a batch of 256; the real one is base_lr * effective batch / 256."""
    min_lr: float = 0.0
    """Where the cosine ends."""
    epochs: float = 100.0
    """Passes over the training clips."""
    warmup_epochs: float = 20.0
    """Linear warm-up."""
    batch_size: int = 32
    """Clips per device and micro-batch."""
    gradient_accumulation: int = 1
    """Micro-batches per optimiser step."""
    weight_decay: float = 0.05
    """On parameters of two or more dimensions."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """AdamW's."""
    momentum: float = 0.9
    """LARS's."""
    layer_decay: float | None = None
    """Factor a layer on the learning rate, from the heads down; None is none."""
    clip_grad_norm: float | None = None
    """Largest norm of the gradient; None does not clip."""
    mixed_precision: str = "no"
    """no, bf16 or fp16."""


@dataclass
class TaskRunArguments(RunArguments):
    """Output, evaluation, logging. A checkpoint is written after every evaluation."""

    eval_epochs: float = 5.0
    """Epochs between two evaluations on the selection split; there is always one after the last."""
    examples: int = 12
    """Clips that the report shows."""
    best: bool = True
    """End with the checkpoint that scored best on the selection split rather than with the last."""


@dataclass
class FinetuneArguments(RecipeArguments):
    """Arguments of a fine-tuning run."""

    SECTIONS: ClassVar[dict[str, type]] = {
        "task": TaskArguments,
        "model": ModelArguments,
        "data": TaskDataArguments,
        "optim": TaskOptimArguments,
        "run": TaskRunArguments,
    }
    COMMAND: ClassVar[str] = "finetune"

    task: TaskArguments = field(default_factory=TaskArguments)
    model: ModelArguments = field(default_factory=ModelArguments)
    data: TaskDataArguments = field(default_factory=TaskDataArguments)
    optim: TaskOptimArguments = field(default_factory=TaskOptimArguments)
    run: TaskRunArguments = field(default_factory=TaskRunArguments)

    def _check(self) -> None:
        self.check_training()
        self.check_choices(
            {
                "task.name": (self.task.name, TASKS),
                "data.selection_split": (self.data.selection_split, ("train", "validation", "test")),
                "optim.optimizer": (self.optim.optimizer, OPTIMIZERS),
            }
        )
        self._check_task()

    def _check_task(self) -> None:
        task = self.task
        if not 0 <= task.label_smoothing < 1:
            raise RecipeError(f"task.label_smoothing is {task.label_smoothing}: expected at least 0 and below 1.")
        if not 0 <= task.drop_modality < 1:
            raise RecipeError(f"task.drop_modality is {task.drop_modality}: expected at least 0 and below 1.")
        if task.drop_modality and task.name != "recognition":
            raise RecipeError(f"task.drop_modality belongs to recognition, but task.name is {task.name}.")
        if task.mixup < 0 or task.dense_windows < 0:
            raise RecipeError("task.mixup and task.dense_windows must not be negative.")
        allowed = {
            "semantic": ("segmentation",),
            "mixup": ("recognition",),
            "label_smoothing": ("recognition",),
            "class_balanced": ("recognition",),
        }
        for name, tasks in allowed.items():
            if getattr(task, name) and task.name not in tasks:
                raise RecipeError(f"task.{name} belongs to {' and '.join(tasks)}, but task.name is {task.name}.")


def load_finetune_arguments(recipe: str, overrides: list[str] | tuple[str, ...] = ()) -> FinetuneArguments:
    """Arguments of a fine-tuning run from its recipe; see `load_recipe`."""
    return load_recipe(FinetuneArguments, recipe, overrides)


__all__ = [
    "FinetuneArguments",
    "TaskArguments",
    "TaskDataArguments",
    "TaskOptimArguments",
    "TaskRunArguments",
    "load_finetune_arguments",
]
