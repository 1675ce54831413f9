"""Parameter groups, learning-rate schedule and LARS: the optimisation of the published recipes (paper, section 4).

An optimiser's groups carry two keys of their own, which the scheduler reads: `lr_scale` (layer-wise decay) and
`slow_start` (a tower that starts from unimodal weights).
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_LAYER = re.compile(r"(?:image|audio)\.layers\.(\d+)\.|fusion_layers\.(\d+)\.")


def layer_index(name: str, num_hidden_layers: int) -> int:
    """Depth of a parameter, for layer-wise learning-rate decay.

    Patch embeddings and fusion tokens are 0, towers' and fusion layers k are k + 1, everything else (final norms,
    heads, decoders) is `num_hidden_layers` + 1. `name` is a parameter's name in the encoder or in any model built on
    it.
    """
    name = name.removeprefix("deepavfusion.")
    if name == "fusion_tokens" or name.startswith(("image.patch_embed.", "audio.patch_embed.")):
        return 0
    match = _LAYER.match(name)
    if match is None:
        return num_hidden_layers + 1
    return int(match[1] or match[2]) + 1


def tower_of(name: str) -> str | None:
    """Which unimodal tower, "image" or "audio", a parameter belongs to; None for all others."""
    tower = name.removeprefix("deepavfusion.").partition(".")[0]
    return tower if tower in ("image", "audio") else None


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float | None = None, slow_towers: tuple[str, ...] = ()
) -> list[dict]:
    """Trainable parameters of a model, grouped for an optimiser.

    Args:
        model: a model of this package (not wrapped for distribution: names tell the groups).
        weight_decay: for parameters of two or more dimensions; biases, norms and other 1-d parameters get 0.
        layer_decay: factor a layer on the learning rate: `layer_decay ** (last - layer)`. None is 1 everywhere.
        slow_towers: towers ("image", "audio") whose parameters are marked for the slow start.

    Returns:
        Groups with keys `params`, `names`, `weight_decay`, `lr_scale` and `slow_start`, in a fixed order.
    """
    depth = model.config.num_hidden_layers
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim <= 1 or name.endswith(".bias") else weight_decay
        scale = 1.0 if layer_decay is None else layer_decay ** (depth + 1 - layer_index(name, depth))
        slow = tower_of(name) in slow_towers
        group = groups.setdefault(
            (scale, decay, slow),
            {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale, "slow_start": slow},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def scaled_learning_rate(base_lr: float, effective_batch: int) -> float:
    """Learning rate for a batch over all devices and accumulated steps: `base_lr * effective_batch / 256`."""
    return base_lr * effective_batch / 256


def learning_rate(epoch: float, lr: float, epochs: float, warmup_epochs: float, min_lr: float = 0.0) -> float:
    """Linear warm-up from 0 to `lr` over `warmup_epochs`, then half a cosine down to `min_lr` at `epochs`.

    `epoch` is fractional: samples seen over samples in the training set.
    """
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = min((epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-12), 1.0)
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def slow_start_factor(epoch: float, slow_start_epochs: float) -> float:
    """Extra factor for towers that start from unimodal weights: rises from 0 to 1 as half a cosine."""
    if epoch >= slow_start_epochs:
        return 1.0
    return 0.5 - 0.5 * math.cos(math.pi * epoch / slow_start_epochs)


@dataclass(frozen=True)
class BatchLayout:
    """How the clips of an optimiser step are dealt out. Their number decides a run's results, the split does not."""

    batch_size: int
    gradient_accumulation: int
    processes: int

    @property
    def effective(self) -> int:
        return self.batch_size * self.gradient_accumulation * self.processes

    def __str__(self) -> str:
        return (
            f"{self.effective} = optim.batch_size={self.batch_size} x optim.gradient_accumulation="
            f"{self.gradient_accumulation} x {self.processes} process{'es' if self.processes > 1 else ''}"
        )

    def keeping(self, effective: int) -> str:
        """Settings that give this effective batch on as many processes, or on how many it is possible."""
        for key, rest in (
            ("gradient_accumulation", self.batch_size * self.processes),
            ("batch_size", self.gradient_accumulation * self.processes),
        ):
            if effective % rest == 0:
                return f"optim.{key}={effective // rest} keeps it"
        if effective % self.processes == 0:
            return f"optim.batch_size={effective // self.processes} optim.gradient_accumulation=1 keeps it"
        return f"a number of processes that divides {effective} can keep it"


@dataclass(frozen=True)
class Schedule:
    """A run's length and learning rate in optimiser steps.

    Args:
        optim: the recipe's section.
        num_clips: clips in the training set.
        effective_batch: clips per optimiser step, over all processes and accumulated micro-batches.
    """

    optim: Any
    num_clips: int
    effective_batch: int

    @property
    def total_steps(self) -> int:
        return self.steps(self.optim.epochs)

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return scaled_learning_rate(self.optim.base_lr, self.effective_batch)

    def steps(self, epochs: float) -> int:
        """Optimiser steps in so many epochs, at least 1."""
        return max(1, math.ceil(epochs * self.num_clips / self.effective_batch - 1e-9))

    def epoch(self, step: int) -> float:
        """Passes over the training clips that `step` optimiser steps make."""
        return step * self.effective_batch / self.num_clips

    def learning_rate(self, step: int) -> float:
        """Learning rate of an optimiser step, the first being 0."""
        optim = self.optim
        return learning_rate(self.epoch(step), self.peak, optim.epochs, optim.warmup_epochs, optim.min_lr)

    def slow_start(self, step: int) -> float:
        """Factor on the learning rate of towers that start slowly."""
        given = self.optim.tower_warmup_epochs
        return slow_start_factor(self.epoch(step), self.optim.epochs / 2 if given is None else given)


def slow_towers(recipe) -> tuple[str, ...]:
    """Towers that start from unimodal weights, and thus slowly."""
    if recipe.optim.tower_warmup_epochs == 0:
        return ()
    origins = {"image": recipe.model.init_image, "audio": recipe.model.init_audio}
    return tuple(tower for tower, origin in origins.items() if origin is not None)


def build_optimizer(recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser over its parameter groups; `build_scheduler` sets their learning rates.

    Args:
        recipe: Settings of the run.
        model: A model of this package, not wrapped for distribution.
    """
    optim = recipe.optim
    groups = parameter_groups(model, optim.weight_decay, optim.layer_decay, slow_towers(recipe))
    for group in groups:
        group.pop("names")
    if optim.optimizer == "lars":
        return LARS(groups, lr=1.0, weight_decay=optim.weight_decay, momentum=optim.momentum)
    fused = None if optim.fsdp else True  # one kernel a group instead of a dozen a tensor
    return torch.optim.AdamW(groups, lr=1.0, betas=tuple(optim.betas), fused=fused)


def build_scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule) -> torch.optim.lr_scheduler.LambdaLR:
    """Sets every group's learning rate before each step: the schedule's, times the group's own factors.

    Args:
        optimizer: Optimizer with a learning rate of 1 and the groups of `parameter_groups`.
        schedule: Length and learning rate of the run.
    """

    def of(group: dict):
        scale, slow = group.get("lr_scale", 1.0), group.get("slow_start", False)
        return lambda step: schedule.learning_rate(step) * scale * (schedule.slow_start(step) if slow else 1.0)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, [of(group) for group in optimizer.param_groups])


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You et al. 2017), for linear probes.

    Parameters of two or more dimensions get weight decay and a step scaled by `trust_coefficient * |p| / |update|`; 1-d
    parameters take plain momentum steps.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0, momentum=0.9, trust_coefficient: float = 0.001):
        super().__init__(
            params,
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust_coefficient": trust_coefficient},
        )

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict) -> None:
        update = parameter.grad
        if parameter.ndim > 1:
            update = update.add(parameter, alpha=group["weight_decay"])
            parameter_norm, update_norm = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(update)
            trust = group["trust_coefficient"] * parameter_norm / update_norm
            usable = (parameter_norm > 0) & (update_norm > 0)
            update = update * torch.where(usable, trust, torch.ones_like(trust))
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
        parameter.add_(momentum, alpha=-group["lr"])


__all__ = [
    "LARS",
    "BatchLayout",
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
