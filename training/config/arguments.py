"""Arguments of a pre-training run: the sections `model`, `data`, `optim` and `run` of its recipe.

Keys of `model` that are not fields of [`ModelArguments`] are fields of `DeepAVFusionConfig`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from deepavfusion import DeepAVFusionConfig

from .recipe import RecipeArguments, RecipeError, load_recipe

# Keys of `model` that change how a model computes, not what.
COMPUTATION = ("gradient_checkpointing", "attn_implementation")


@dataclass
class ModelArguments:
    """Which model. Any other key of the section is a field of `DeepAVFusionConfig` and is kept in `config`."""

    size: str | None = None
    """small, base, large or huge; None for the configuration's own defaults (base)."""
    init_from: str | None = None
    """Folder or Hub name of a model of this package to start from; its configuration then holds."""
    init_image: str | None = None
    """Unimodal checkpoint for the image tower: MAE file, or folder or Hub name of a ViTMAE model."""
    init_audio: str | None = None
    """Unimodal checkpoint for the audio tower: AudioMAE file."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    attn_implementation: str | None = None
    """How attention is computed: eager, sdpa, flash_attention_2 ...; None is transformers' choice (sdpa)."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of `DeepAVFusionConfig` that the recipe sets."""

    def build_config(self) -> DeepAVFusionConfig:
        try:
            if self.size is not None:
                return DeepAVFusionConfig.from_size(self.size, **self.config)
            return DeepAVFusionConfig(**self.config)
        except Exception as error:  # the strict dataclass raises classes of its own
            raise RecipeError(f"The recipe's model section does not give a configuration: {error}") from error

    def set_attention(self, model) -> None:
        """Gives a model the attention implementation of these arguments."""
        if self.attn_implementation is not None:
            try:
                model.set_attn_implementation(self.attn_implementation)
            except (ImportError, ValueError) as error:
                raise RecipeError(f"model.attn_implementation={self.attn_implementation}: {error}") from error

    def set_computation(self, model) -> None:
        """How a model trains, whatever it learns: its attention and its activations."""
        self.set_attention(model)
        if self.gradient_checkpointing:
            model.activation_checkpointing_enable()


@dataclass
class DataArguments:
    """Which data, and how clips are read. Keys left at None are the data set's own defaults."""

    name: str = "scenes"
    """scenes (built in), folder, vggsound or audioset."""
    path: str | None = None
    """Root folder of the clips; scenes have none."""
    train_size: int | None = None
    """How many training clips; None is all of a data set on disk."""
    eval_size: int | None = None
    """How many held-out clips."""
    cache_dir: str | None = None
    """Where prepared samples are kept; None prepares them anew."""
    annotations: str | None = None
    """Annotation file; of a folder a csv or jsonl with columns file, label, start, end."""
    validation_share: float | None = None
    """Share of the training clips held out for validation, by a hash of their names, where none are published."""
    subset: str | None = None
    """audioset: balanced, unbalanced or all; music: solo, solo21 or music; avsbench: s4, ms3 or avss."""
    train_list: str | None = None
    """Data sets with published lists: file that names the training clips."""
    test_list: str | None = None
    """The same for the test clips, or the pairs of test clips."""
    drop_overlap: bool | None = None
    """Leave out training clips that are test clips, too."""
    difficulty: str | None = None
    """scenes: easy, standard or hard."""
    min_objects: int | None = None
    """scenes: fewest objects in sight."""
    max_objects: int | None = None
    """scenes: most objects in sight."""
    max_sounding: int | None = None
    """scenes: most objects that sound; 1 gives every clip one class."""
    noise: float | None = None
    """scenes: level of the noise."""
    motion: bool | None = None
    """scenes: whether objects move."""
    scene_seed: int | None = None
    """scenes: seed of the scenes themselves."""
    eval_split: str = "test"
    """Held-out split that is evaluated on: validation or test."""
    num_workers: int = 2
    """Processes that read clips, per training process; 0 reads in the training process."""
    max_broken: float = 0.01
    """Share of a split's clips; the run stops and lists the unreadable ones when they are more."""

    def source(self) -> dict[str, Any]:
        """What `build_dataset` is given: everything that was set but how the trainer uses it."""
        own = self._trainer_keys()
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in own and v is not None}

    def _trainer_keys(self) -> tuple[str, ...]:
        return ("eval_split", "num_workers", "max_broken")


@dataclass
class OptimArguments:
    """Optimiser, schedule, precision."""

    base_lr: float = 1.5e-4
    """Learning rate of a batch of 256; the real one is base_lr * effective batch / 256."""
    min_lr: float = 0.0
    """Where the cosine ends."""
    epochs: float = 200.0
    """Passes over the training clips."""
    warmup_epochs: float = 40.0
    """Linear warm-up."""
    tower_warmup_epochs: float | None = None
    """Slow start of towers that come from unimodal checkpoints; None is half the epochs, 0 is none."""
    batch_size: int = 64
    """Clips per device and micro-batch."""
    gradient_accumulation: int = 1
    """Micro-batches per optimiser step."""
    weight_decay: float = 0.05
    """On parameters of two or more dimensions."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's."""
    clip_grad_norm: float | None = None
    """Largest norm of the gradient; None does not clip."""
    mixed_precision: str = "no"
    """no, bf16 or fp16."""
    fsdp: bool = False
    """Shard parameters over the processes (FSDP2, the configuration's plan) instead of replicating them."""


@dataclass
class RunArguments:
    """Output, evaluation, logging."""

    output_dir: str | None = None
    """Result folder; None is runs/<recipe>."""
    seed: int = 0
    """Of initial weights, order of the clips, augmentations and masks."""
    log_steps: int = 20
    """Optimiser steps between two log lines."""
    eval_epochs: float = 10.0
    """Epochs between two evaluations; there is always one before the first step and one after the last."""
    save_epochs: float = 1.0
    """Epochs between two checkpoints."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints stay."""
    picture_samples: int = 6
    """Clips in the picture of reconstructions."""
    trackers: list[str] = field(default_factory=list)
    """tensorboard, wandb."""
    cpu: bool = False
    """Train on the CPU even where there is an accelerator."""
    compile: bool = False
    """torch.compile the model."""
    resume: bool = True
    """Go on from the last checkpoint in the output folder, if there is one; false removes them and starts over."""
    overwrite: bool = False
    """Replace the finished model that an earlier run left in the output folder; it stays until the new one is whole."""
    allow_changed_recipe: bool = False
    """Go on even though the recipe differs from the checkpoint's."""
    demo: bool = False
    """At the end write one built-in scene as mp4 into the output folder and embed it with the saved model."""
    license: str = "apache-2.0"
    """Licence of the weights, for the model card."""


@dataclass
class PretrainArguments(RecipeArguments):
    """Arguments of a pre-training run."""

    SECTIONS: ClassVar[dict[str, type]] = {
        "model": ModelArguments,
        "data": DataArguments,
        "optim": OptimArguments,
        "run": RunArguments,
    }
    COMMAND: ClassVar[str] = "pretrain"
    # Of the heads: a pre-training model has none.
    FIXED_CONFIG: ClassVar[frozenset[str]] = RecipeArguments.FIXED_CONFIG | {
        "classifier_loss",
        "classifier_input_norm",
        "separation_mask",
        "separation_weighted_loss",
        "localization_map",
        "localization_loss",
        "localization_threshold",
    }

    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    optim: OptimArguments = field(default_factory=OptimArguments)
    run: RunArguments = field(default_factory=RunArguments)

    def _check(self) -> None:
        self.check_training()
        self.check_choices({"data.name": (self.data.name, ("scenes", "folder", "vggsound", "audioset"))})
        self.check_positive({"run.save_epochs": self.run.save_epochs, "run.picture_samples": self.run.picture_samples})
        if self.model.init_from and (self.model.init_image or self.model.init_audio):
            raise RecipeError(
                "model.init_from and model.init_image / init_audio exclude each other: give one or the other."
            )


def load_arguments(recipe: str, overrides: list[str] | tuple[str, ...] = ()) -> PretrainArguments:
    """Arguments of a pre-training run from its recipe; see `load_recipe`."""
    return load_recipe(PretrainArguments, recipe, overrides)


__all__ = [
    "COMPUTATION",
    "DataArguments",
    "ModelArguments",
    "OptimArguments",
    "PretrainArguments",
    "RunArguments",
    "load_arguments",
]
