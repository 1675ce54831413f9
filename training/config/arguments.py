"""Sections of a recipe: `task`, `model`, `data`, `optim` and `run`.

Keys of `model` that are not fields of [`ModelArguments`] are fields of `DeepAVFusionConfig`.
"""

from dataclasses import dataclass

from deepavfusion.ranges_deepavfusion import COUNT
from deepavfusion_cli.early.recipes import warmup

from .commands import FINETUNING, TASKS, TRAINING
from .data import DataArguments
from .options import option

# Limits of options that apply to training for recognition only.
_RECOGNITION = {"tasks": ("recognition",), "commands": FINETUNING}


@dataclass
class TaskArguments:
    """Task and its training."""

    name: str = option("recognition", "Task to train or evaluate.", choices=TASKS)
    freeze_encoder: bool = option(
        False, "Train only the heads, on the features of a frozen encoder (linear probe).", commands=FINETUNING
    )
    masks: list[dict] = option(
        [],
        "Visible patches, drawn in every step: entries such as {weight: 1, audio: 1}, with a number of visible image "
        "or audio patches; the ratios of the model where there is none.",
        tasks=("pretraining",),
    )
    probe_labels: list[int] = option(
        [],
        "Numbers of labels of the training split on which linear probes are fitted before and after training.",
        range=COUNT,
        tasks=("pretraining",),
    )
    semantic: bool = option(
        False, "Segment each class; by default only what sounds from what does not.", tasks=("segmentation",)
    )
    mixup: float = option(
        0.0,
        "Mixup's alpha, for image and audio of a pair alike; 0 turns mixup off.",
        at_least=0,
        at_most=100,
        **_RECOGNITION,
    )
    label_smoothing: float = option(
        0.0,
        "Fraction of the label that is spread over all classes, for data with one label per clip.",
        at_least=0,
        below=1,
        **_RECOGNITION,
    )
    modality_dropout: float = option(
        0.0,
        "Fraction of training clips whose image or audio (each equally often) is dropped.",
        at_least=0,
        below=1,
        **_RECOGNITION,
    )
    class_balanced: bool = option(
        False, "Sample clips of rare classes as often as those of frequent ones.", **_RECOGNITION
    )
    init_bias: bool = option(True, "Initialize the biases of the heads from the class frequencies.", **_RECOGNITION)
    dense_windows: int = option(
        10,
        "In the final evaluation, windows spread over each clip whose logits are averaged; 0 turns it off.",
        at_least=0,
        at_most=1000,
        tasks=("recognition",),
    )

    negative_audio: bool = option(
        False,
        "In full evaluations, also localize with silence, white noise and the audio of what a frame does not show.",
        tasks=("localization",),
    )

    @property
    def data_task(self) -> str:
        """Task of the samples of `build_dataset`: pre-training and retrieval use those of recognition."""
        return "recognition" if self.name in ("pretraining", "retrieval") else self.name


@dataclass
class OptimArguments:
    """Optimizer, schedule, precision."""

    optimizer: str = option(
        "adamw",
        "Optimizer; muon is Muon for the matrices of transformer layers and AdamW for the rest.",
        choices=("adamw", "muon", "lars"),
        commands=TRAINING,
    )
    base_lr: float = option(
        3e-4,
        "Learning rate for a batch of 256; the peak learning rate is base_lr * effective batch / 256.",
        above=0,
        at_most=1000,
        commands=TRAINING,
    )
    min_lr: float = option(
        0.0, "Learning rate at the end of the cosine schedule.", at_least=0, at_most=1000, commands=TRAINING
    )
    epochs: float = option(100.0, "Passes over the training clips.", above=0, at_most=1_000_000, commands=TRAINING)
    warmup_fraction: float | None = option(
        None,
        "Fraction of the epochs with linear warm-up; null for 0.2, or for warmup_epochs.",
        at_least=0,
        below=1,
        commands=TRAINING,
    )
    warmup_epochs: float | None = option(
        None,
        "Epochs of linear warm-up, instead of warmup_fraction; those of a recipe follow an override of its epochs.",
        at_least=0,
        at_most=1_000_000,
        commands=TRAINING,
    )
    tower_warmup_epochs: float | None = option(
        None,
        "Epochs of slower training for towers initialized from unimodal checkpoints; null for half the epochs.",
        at_least=0,
        at_most=1_000_000,
        commands=("pretrain",),
    )
    batch_size: int = option(32, "Clips per device and micro-batch.", above=0, at_most=65536)
    gradient_accumulation: int = option(
        1, "Micro-batches per optimizer step.", above=0, at_most=65536, commands=TRAINING
    )
    weight_decay: float = option(
        0.05, "Weight decay of parameters with two or more dimensions.", at_least=0, at_most=100, commands=TRAINING
    )
    betas: list[float] = option([0.9, 0.999], "Betas of AdamW.", at_least=0, below=1, commands=TRAINING)
    momentum: float = option(0.9, "Momentum of LARS and Muon.", at_least=0, below=1, commands=TRAINING)
    layer_decay: float | None = option(
        None,
        "Factor per layer on the learning rate, from the heads down; null for the same rate in all layers.",
        above=0,
        at_most=1,
        commands=FINETUNING,
    )
    clip_grad_norm: float | None = option(
        None, "Maximum gradient norm; null turns clipping off.", above=0, at_most=1_000_000, commands=TRAINING
    )
    mixed_precision: str = option(
        "auto",
        "Mixed precision; auto is bf16 where the device is fast at it (CPUs with AVX-512 BF16 or AMX, GPUs from "
        "compute capability 8.0), else no. Losses, statistics of norms and spectrograms are in float32.",
        choices=("auto", "no", "bf16", "fp16"),
    )
    fsdp: bool = option(
        False, "Shard parameters over the processes (FSDP2) instead of replicating them.", commands=TRAINING
    )

    @property
    def warmup(self) -> float:
        """Length of the warm-up in epochs."""
        return warmup(vars(self))


@dataclass
class RunArguments:
    """Output, evaluation, logging."""

    output_dir: str | None = option(None, "Result folder; null for runs/RECIPE.", commands=TRAINING, local=True)
    seed: int = option(0, "Seed of initial weights, clip order, augmentations and masks.", at_least=0, below=1 << 32)
    log_steps: int = option(
        20, "Optimizer steps between two log lines.", above=0, at_most=1_000_000_000, commands=TRAINING
    )
    eval_epochs: float = option(
        5.0,
        "Epochs between two evaluations, each with a checkpoint; the last step is always evaluated. With "
        "run.keep_best=false, fine-tuning and probes are evaluated once, at the end, and this is of checkpoints alone.",
        above=0,
        at_most=1_000_000,
        commands=TRAINING,
    )
    save_epochs: float | None = option(
        None,
        "Epochs between two checkpoints, besides those every run.eval_epochs; null for these alone.",
        above=0,
        at_most=1_000_000,
        commands=TRAINING,
    )
    keep_checkpoints: int = option(
        2, "Number of latest checkpoints to keep.", above=0, at_most=1_000_000, commands=TRAINING
    )
    keep_best: bool = option(
        True,
        "End with the checkpoint that scores best on data.selection_split instead of the last one.",
        commands=FINETUNING,
    )
    num_examples: int = option(
        12, "Clips shown in the report.", at_least=0, at_most=1000, commands=("finetune", "probe", "evaluate")
    )
    num_reconstructions: int = option(
        6, "Clips whose reconstructions are shown.", above=0, at_most=1000, commands=("pretrain",)
    )
    trackers: list[str] = option([], "Trackers of transformers: tensorboard, wandb, trackio ...", commands=TRAINING)
    cpu: bool = option(False, "Run on the CPU even if there is an accelerator.")
    compile: str = option(
        "no",
        "Compile the model with torch.compile; auto does so on NVIDIA GPUs.",
        choices=("auto", "yes", "no"),
        commands=TRAINING,
    )
    resume: bool = option(
        True,
        "Resume from the last checkpoint in output_dir, if there is one; false removes it and starts over.",
        commands=TRAINING,
    )
    overwrite: bool = option(
        False, "Replace the finished model in output_dir; it stays until the new one is complete.", commands=TRAINING
    )
    allow_changed_recipe: bool = option(
        False, "Resume even if the recipe differs from that of the checkpoint.", commands=TRAINING
    )
    demo: bool = option(
        False,
        "At the end, write a built-in scene as mp4 into the result folder and embed it with the saved model.",
        commands=("pretrain",),
    )
    license: str | None = option(
        None,
        "License of the weights, for the model card, e.g. apache-2.0; null for none, but for apache-2.0 where the "
        "built-in scenes alone were trained on.",
        commands=TRAINING,
    )


__all__ = ["DataArguments", "OptimArguments", "RunArguments", "TaskArguments"]
