"""Parameter groups and learning-rate schedule, as in the published recipes (paper, section 4).

Parameter groups have two additional keys, which the scheduler reads: `lr_scale` (layer-wise decay) and `slow_start` (a
tower that starts from unimodal weights).
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..wording import count
from .optimizers import LARS, MuonAdamW, StepScheduler

_REACHED = 0.9  # of the peak of the learning rate; a run that reaches less says so

_LAYER = re.compile(r"(?:image|audio)\.layers\.(\d+)\.|fusion_layers\.(\d+)\.")


def layer_index(name: str, num_hidden_layers: int) -> int:
    """Depth of a parameter for layer-wise learning-rate decay.

    Args:
        name: Name of the parameter in the encoder or in a model built on it.
        num_hidden_layers: Number of layers of the encoder.

    Returns:
        0 for patch embeddings and fusion tokens, k + 1 for layer k of towers and fusion, and `num_hidden_layers` + 1
        for everything else (final norms, heads, decoders).
    """
    name = name.removeprefix("deepavfusion.")
    if name == "fusion_tokens" or name.startswith(("image.patch_embed.", "audio.patch_embed.")):
        return 0
    match = _LAYER.match(name)
    if match is None:
        return num_hidden_layers + 1
    return int(match[1] or match[2]) + 1


def tower_of(name: str) -> str | None:
    """Tower that a parameter belongs to, "image" or "audio"; None for all others."""
    tower = name.removeprefix("deepavfusion.").partition(".")[0]
    return tower if tower in ("image", "audio") else None


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    layer_decay: float | None = None,
    slow_towers: tuple[str, ...] = (),
    muon: bool = False,
) -> list[dict]:
    """Group the trainable parameters of a model for an optimizer.

    Args:
        model: Model of this package, not wrapped for distribution, because the names determine the groups.
        weight_decay: Weight decay of parameters with two or more dimensions; biases and other 1-d parameters get 0.
        layer_decay: Factor per layer on the learning rate, `layer_decay ** (last - layer)`; None for 1 everywhere.
        slow_towers: Towers ("image", "audio") whose parameters are marked for the slow start.
        muon: Whether the matrices of transformer layers are groups of their own, whose key `muon` is True.

    Returns:
        Groups with keys `params`, `names`, `weight_decay`, `lr_scale`, `slow_start` and `muon`, in a fixed order.
    """
    depth = model.config.num_hidden_layers
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim <= 1 or name.endswith(".bias") else weight_decay
        scale = 1.0 if layer_decay is None else layer_decay ** (depth + 1 - layer_index(name, depth))
        slow = tower_of(name) in slow_towers
        matrix = muon and parameter.ndim == 2 and "layers." in name
        values = {"weight_decay": decay, "lr_scale": scale, "slow_start": slow, "muon": matrix}
        group = groups.setdefault((scale, decay, slow, matrix), {"params": [], "names": [], **values})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def scaled_learning_rate(base_lr: float, effective_batch: int) -> float:
    """Scale the learning rate to the effective batch: `base_lr * effective_batch / 256`."""
    return base_lr * effective_batch / 256


def learning_rate(epoch: float, lr: float, epochs: float, warmup_epochs: float, min_lr: float = 0.0) -> float:
    """Learning rate after linear warm-up from 0 to `lr`, then half a cosine down to `min_lr`.

    Args:
        epoch: Fractional epoch: samples seen divided by samples in the training set.
        lr: Peak learning rate.
        epochs: Length of the run.
        warmup_epochs: Length of the warm-up.
        min_lr: Learning rate at the end.
    """
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = min((epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-12), 1.0)
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def slow_start_factor(epoch: float, slow_start_epochs: float) -> float:
    """Factor on the learning rate of towers with unimodal weights, which rises from 0 to 1 as half a cosine."""
    if epoch >= slow_start_epochs:
        return 1.0
    return 0.5 - 0.5 * math.cos(math.pi * epoch / slow_start_epochs)


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a run in optimizer steps.

    Args:
        optim: Section `optim` of the recipe.
        num_clips: Number of training clips.
        effective_batch: Clips per optimizer step, over all processes and micro-batches.
    """

    optim: Any
    num_clips: int
    effective_batch: int

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps of the run."""
        return self.steps(self.optim.epochs)

    @property
    def peak(self) -> float:
        """Learning rate after the warm-up."""
        return scaled_learning_rate(self.optim.base_lr, self.effective_batch)

    def steps(self, epochs: float) -> int:
        """Number of optimizer steps in a number of epochs, at least 1."""
        return max(1, math.ceil(epochs * self.num_clips / self.effective_batch - 1e-9))

    def epoch(self, step: float) -> float:
        """Number of passes over the training clips after a number of optimizer steps."""
        return step * self.effective_batch / self.num_clips

    def place(self, step: int) -> float:
        """Place in the schedule, in steps, at which an optimizer step (from 0) takes its learning rate.

        It is the start of the step, as published. At the start of a warm-up, however, the rate is 0, so the first step
        takes that of its middle, or of the middle of a run shorter than a step.
        """
        if step or not self.optim.warmup:
            return step
        return 0.5 * min(1.0, self.optim.epochs * self.num_clips / self.effective_batch)

    def learning_rate(self, place: float) -> float:
        """Learning rate at a place of the schedule, in steps."""
        optim = self.optim
        return learning_rate(self.epoch(place), self.peak, optim.epochs, optim.warmup, optim.min_lr)

    def slow_start(self, place: float) -> float:
        """Factor on the learning rate of towers that start slowly, at a place of the schedule, in steps."""
        given = self.optim.tower_warmup_epochs
        place = max(place, 0.5)  # the first step takes the factor of its middle, for that of its start is 0
        return slow_start_factor(self.epoch(place), self.optim.epochs / 2 if given is None else given)

    @property
    def highest(self) -> float:
        """Highest learning rate of any step: less than `peak` if the steps are too few to meet it."""
        end = self.optim.warmup * self.num_clips / self.effective_batch
        near = {min(max(step, 0), self.total_steps - 1) for step in (math.floor(end), math.ceil(end))}
        return max(self.learning_rate(self.place(step)) for step in near)

    def notes(self) -> list[str]:
        """Notes on runs that are too short for their settings, for the start of a run."""
        steps, notes = count(self.total_steps, "step"), []
        if self.effective_batch > self.num_clips:
            notes.append(
                f"The effective batch is larger than the training set: {steps} of "
                f"{count(self.effective_batch, 'clip')} from {self.num_clips} make "
                f"{count(self.epoch(self.total_steps), 'epoch')}."
            )
        for name in ("warmup_epochs", "tower_warmup_epochs"):
            value, epochs = getattr(self.optim, name), self.optim.epochs
            if value is not None and value >= epochs:
                notes.append(
                    f"optim.{name}={value:g} is not shorter than optim.epochs={epochs:g}: the learning rate does not "
                    "reach its peak."
                )
        if self.highest < _REACHED * self.peak:
            notes.append(
                f"In {steps}, the learning rate reaches only {self.highest:.2e} of its peak {self.peak:.2e}: increase "
                "optim.epochs, or reduce the warm-up or the batch size."
            )
        return notes


def slow_towers(recipe) -> tuple[str, ...]:
    """Towers that start from unimodal weights, and therefore slowly."""
    if recipe.optim.tower_warmup_epochs == 0:
        return ()
    origins = {"image": recipe.model.init_image, "audio": recipe.model.init_audio}
    return tuple(tower for tower, origin in origins.items() if origin is not None)


def build_optimizer(recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe; `build_scheduler` sets the learning rates of its groups.

    Args:
        recipe: Recipe of the run.
        model: Model of this package, not wrapped for distribution.
    """
    optim = recipe.optim
    muon = optim.optimizer == "muon"
    groups = parameter_groups(model, optim.weight_decay, optim.layer_decay, slow_towers(recipe), muon)
    for group in groups:
        group.pop("names")
    if optim.optimizer == "lars":
        return LARS(groups, lr=1.0, weight_decay=optim.weight_decay, momentum=optim.momentum)
    if muon:
        return MuonAdamW(groups, lr=1.0, betas=tuple(optim.betas), momentum=optim.momentum)
    fused = None if optim.fsdp else True  # one kernel per group instead of a dozen per tensor
    return torch.optim.AdamW(groups, lr=1.0, betas=tuple(optim.betas), fused=fused)


def build_scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule) -> StepScheduler:
    """Build the scheduler, which multiplies the learning rate of the schedule with the factors of each group.

    Args:
        optimizer: Optimizer with a learning rate of 1 and the groups of `parameter_groups`.
        schedule: Length and learning rate of the run.
    """

    def factor(group: dict):
        scale, slow = group.get("lr_scale", 1.0), group.get("slow_start", False)
        return lambda place: schedule.learning_rate(place) * scale * (schedule.slow_start(place) if slow else 1.0)

    return StepScheduler(optimizer, [factor(group) for group in optimizer.param_groups], schedule.place)


__all__ = [
    "Schedule",
    "build_optimizer",
    "build_scheduler",
    "layer_index",
    "learning_rate",
    "parameter_groups",
    "scaled_learning_rate",
    "slow_start_factor",
    "slow_towers",
    "tower_of",
]
