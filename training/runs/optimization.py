"""Parameter groups, learning-rate schedule and LARS: the optimisation of the published recipes (paper, section 4).

An optimiser's groups carry two keys of their own: `lr_scale` (layer-wise decay) and `slow_start` (a tower that starts
from unimodal weights). `set_learning_rates` reads them at every optimiser step, so there is no scheduler state to
save.
"""

import math
import re

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


def set_learning_rates(optimizer: torch.optim.Optimizer, lr: float, slow_factor: float = 1.0) -> None:
    """Gives every group `lr`, times its `lr_scale`, times `slow_factor` where it is marked for the slow start."""
    for group in optimizer.param_groups:
        factor = slow_factor if group.get("slow_start", False) else 1.0
        group["lr"] = lr * group.get("lr_scale", 1.0) * factor


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
            parameter_norm, update_norm = parameter.norm(), update.norm()
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
    "layer_index",
    "learning_rate",
    "parameter_groups",
    "scaled_learning_rate",
    "set_learning_rates",
    "slow_start_factor",
    "tower_of",
]
