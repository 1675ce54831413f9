"""Optimizers beside those of PyTorch (LARS, and Muon together with AdamW), and the scheduler of learning rates."""

import math
from collections.abc import Callable

import torch


def _loss(closure: Callable | None):
    """Loss that the closure of an optimizer step computes; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You et al. 2017), for linear probes.

    Parameters of two or more dimensions get weight decay and a step scaled by `trust_coefficient * |p| / |update|`; 1-d
    parameters take plain momentum steps.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        weight_decay: Weight decay.
        momentum: Momentum.
        trust_coefficient: Length of a step relative to that of the parameter.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0, momentum=0.9, trust_coefficient: float = 0.001):
        super().__init__(
            params,
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust_coefficient": trust_coefficient},
        )

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step; returns the loss of `closure`, if given."""
        loss = _loss(closure)
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


class BatchedMuon(torch.optim.Muon):
    """`torch.optim.Muon` that orthogonalizes matrices of one shape together.

    The steps are the same, with less time for the many small matrices of a model like this. Learning rates are adjusted
    as by `adjust_lr_fn="match_rms_adamw"`.
    """

    _TOGETHER = 8  # more need more memory and gain nothing

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step; returns the loss of `closure`, if given."""
        loss = _loss(closure)
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                for start in range(0, len(parameters), self._TOGETHER):
                    self._update(parameters[start : start + self._TOGETHER], group)
        return loss

    def _update(self, parameters: list[torch.Tensor], group: dict) -> None:
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov's
        updates = orthogonalize(torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"])
        # An orthogonal matrix has a root mean square of 1 / sqrt(longer side), a step of AdamW about 0.2.
        rate = group["lr"] * 0.2 * math.sqrt(max(parameters[0].shape))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates.to(parameters[0].dtype).unbind(), alpha=-rate)


def orthogonalize(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Bring singular values of matrices near 1 with Newton-Schulz iterations in bfloat16 (Muon, Jordan et al. 2024).

    Args:
        matrices: Matrices of shape (number, rows, columns).
        coefficients: Coefficients of the odd polynomial of degree 5 that an iteration applies to singular values.
        steps: Number of iterations.
        eps: Smallest norm to divide by.

    Returns:
        Matrices of the same shape in bfloat16.
    """
    linear, cubic, quintic = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    result = (matrices.mT if tall else matrices).bfloat16().contiguous()
    result = result / torch.linalg.vector_norm(result, dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), result, beta=linear)
    return result.mT if tall else result


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups whose key `muon` is True, AdamW for the others, as one optimizer.

    Steps of Muon are scaled to the root mean square of AdamW's (arXiv 2502.16982), so that both take one learning rate
    and one weight decay.

    Args:
        groups: Parameter groups with a key `muon`; those of Muon hold matrices.
        lr: Learning rate.
        betas: Betas of AdamW.
        momentum: Momentum of Muon.
    """

    def __init__(self, groups: list[dict], lr: float, betas: tuple[float, float], momentum: float):
        self._settings = {
            True: (BatchedMuon, {"lr": lr, "momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}),
            False: (torch.optim.AdamW, {"lr": lr, "betas": betas, "fused": True}),
        }
        super().__init__(groups, {"lr": lr})
        self._share()

    def _share(self) -> None:
        """Build an optimizer for each kind of group, on the groups and the state of this one."""
        self._parts = []
        for muon, (kind, settings) in self._settings.items():
            groups = [group for group in self.param_groups if group["muon"] is muon]
            if groups:
                part = kind(groups, **settings)
                part.state = self.state
                self._parts.append(part)

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state, which replaces the groups."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure=None):
        """Take a step; returns the loss of `closure`, if given."""
        loss = _loss(closure)
        for part in self._parts:
            part.step()
        return loss


class StepScheduler(torch.optim.lr_scheduler.LambdaLR):
    """Scheduler whose functions are of places in a schedule (see `Schedule.place`).

    Args:
        optimizer: Optimizer with a learning rate of 1.
        factors: Function of a place for each group.
        place: Function of a step, counted from 0.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        factors: list[Callable[[float], float]],
        place: Callable[[int], float],
    ):
        self._place = place
        super().__init__(optimizer, factors)

    def get_lr(self) -> list[float]:
        """Learning rates of the groups for the next step."""
        place = self._place(self.last_epoch)
        return [base * factor(place) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]

    def state_dict(self) -> dict:
        """State without the schedule, which the recipe determines."""
        return {key: value for key, value in super().state_dict().items() if key != "_place"}


__all__ = ["LARS", "BatchedMuon", "MuonAdamW", "StepScheduler", "orthogonalize"]
