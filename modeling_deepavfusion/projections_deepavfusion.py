"""Linear maps: those of the same tokens as one product where the number of kernels matters, on accelerators."""

from collections.abc import Sequence

import torch
from torch import nn


class _Copies(torch.autograd.Function):
    """Copies of tensors in a dtype, those of a group concatenated along the first dimension, in one operation."""

    @staticmethod
    def forward(dtype: torch.dtype, sizes: tuple[int, ...], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        copies, parts, groups = [], [], iter(tensors)
        for size in sizes:
            group = [next(groups) for _ in range(size)]
            rows = [tensor.shape[0] for tensor in group]
            copies.append(group[0].new_empty((sum(rows), *group[0].shape[1:]), dtype=dtype))
            parts += copies[-1].split(rows)
        torch._foreach_copy_(parts, list(tensors))
        return tuple(copies)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.sizes, *tensors = inputs
        ctx.dtype, ctx.rows = tensors[0].dtype, [tensor.shape[0] for tensor in tensors]
        ctx.set_materialize_grads(False)  # weights that were not used have no gradient

    @staticmethod
    def backward(ctx, *gradients):
        results, rows = [], iter(ctx.rows)
        for size, gradient in zip(ctx.sizes, gradients, strict=True):
            lengths = [next(rows) for _ in range(size)]
            results += [None] * size if gradient is None else gradient.split(lengths)
        parts = [part for part in results if part is not None]
        if parts and parts[0].dtype != ctx.dtype:
            copies = [torch.empty_like(part, dtype=ctx.dtype) for part in parts]
            torch._foreach_copy_(copies, parts)
            remaining = iter(copies)
            results = [None if part is None else next(remaining) for part in results]
        return None, None, *results


class Projection:
    """Linear maps of the same tokens, as one product if their concatenated weights are given.

    Args:
        linears: The maps.
        weight: (sum of output widths, input width), or None to compute each map on its own.
        bias: (sum of output widths), or None.
    """

    def __init__(
        self, linears: Sequence[nn.Module], weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
    ):
        self.linears, self._weight, self._bias = linears, weight, bias

    def __call__(self, states: torch.Tensor, tokens: Sequence[slice | None] | None = None) -> Sequence[torch.Tensor]:
        """Map (..., D) to (..., output width) by each linear map; of (B, n, D), each may map some of the tokens alone.

        A single product maps all tokens by all maps, and leaves out what is not asked for afterwards.
        """
        chosen = [None] * len(self.linears) if tokens is None else tokens
        if self._weight is None:
            return [linear(_select(states, own)) for linear, own in zip(self.linears, chosen, strict=True)]
        output = nn.functional.linear(states, self._weight, self._bias)
        if len(self.linears) == 1:
            return [_select(output, *chosen)]
        parts = output.split([linear.out_features for linear in self.linears], dim=-1)
        return [_select(part, own) for part, own in zip(parts, chosen, strict=True)]

    @property
    def is_single(self) -> bool:
        """Whether the maps are a single product."""
        return self._weight is not None


def _select(states: torch.Tensor, tokens: slice | None) -> torch.Tensor:
    return states if tokens is None else states[:, tokens]


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype in which to multiply a tensor where few kernels are preferred: that of autocast, or its own.

    Autocast leaves float64 alone.
    """
    if torch.compiler.is_compiling() or not prefers_few_kernels(tensor) or tensor.dtype == torch.float64:
        return tensor.dtype
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def prefers_few_kernels(states: torch.Tensor) -> bool:
    """Whether larger and fewer kernels are faster: on accelerators, where a small one costs as much to launch.

    Meta tensors, on which arithmetic is counted, stand for those of CPUs.
    """
    return states.device.type not in ("cpu", "meta")


def is_plain(linear: nn.Module) -> bool:
    """Whether a module does no more than multiply by its weight: no adapter, quantization, hook or offloading."""
    return (
        type(linear) is nn.Linear
        and type(linear.weight) in (torch.Tensor, nn.Parameter)
        and "forward" not in vars(linear)
        and not (linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks)
    )


def group_projections(states: torch.Tensor, *groups: Sequence[nn.Module]) -> list[Projection]:
    """Prepare the linear maps of a module.

    In training on accelerators, the maps of a group, all of the same tokens, become one product. The weights of all
    groups are then copied in one operation, in the dtype of autocast, which would otherwise cast them one by one.
    Compiled models, whose kernels are generated, do without, as do modules that do more than multiply.

    Args:
        states: Some of the tokens, which tell the device.
        *groups: Linear maps, those of the same tokens in a group.

    Returns:
        A projection for each group.
    """
    projections = [Projection(group) for group in groups]
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and prefers_few_kernels(states)):
        return projections
    linears = [linear for group in groups for linear in group]
    if not all(map(is_plain, linears)) or len({linear.weight.dtype for linear in linears}) > 1:
        return projections
    dtype = product_dtype(linears[0].weight)
    casts = dtype != linears[0].weight.dtype
    chosen = [index for index, group in enumerate(groups) if casts or len(group) > 1]
    if not chosen:
        return projections
    parameters = {index: _parameters(groups[index]) for index in chosen}
    parts = [part for both in parameters.values() for part in both if part]
    copies = iter(_Copies.apply(dtype, tuple(map(len, parts)), *(tensor for part in parts for tensor in part)))
    for index, (_, biases) in parameters.items():
        projections[index] = Projection(groups[index], next(copies), next(copies) if biases else None)
    return projections


def _parameters(group: Sequence[nn.Module]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Weights and biases of linear maps, no biases if none has one; zeros take the place of a missing one."""
    weights = [linear.weight for linear in group]
    if all(linear.bias is None for linear in group):
        return weights, []
    return weights, [
        linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in group
    ]


__all__ = ["Projection", "group_projections", "is_plain", "prefers_few_kernels", "product_dtype"]
