"""Checks of weights before a model computes with them: real floating-point numbers, all finite."""

from collections.abc import Iterable, Mapping

import torch
from safetensors import safe_open

from .formats_deepavfusion import checkpoint_fault

_INTEGERS = ("num_batches_tracked",)  # last parts of the names of weights that are integers
_VARIANCES = ("running_var",)  # of those that are not negative
_FLOATING = ("F", "BF")  # starts of the names of floating-point types in safetensors files


def check_weights(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Check the values and types of weights; those on the meta device are left out.

    Args:
        tensors: Names -> weights.
        source: What holds them, at the beginning of the error message.

    Raises:
        ValueError: If weights are NaN or infinite, complex, integers (except for counts of batches), or negative
            variances; the message names the first of them.
    """
    check_weight_types({name: _type_name(tensor.dtype) for name, tensor in tensors.items()}, source)
    with torch.no_grad():
        wrong = [name for name, tensor in tensors.items() if not _is_finite(name, tensor)]
    if wrong:
        raise ValueError(f"{source} holds weights that are NaN, infinite or negative variances: {_listed(wrong)}.")


def check_weight_types(types: Mapping[str, str], source: str) -> None:
    """Check the types of weights as safetensors files name them ("F32", "I64", "C64"), or torch ("float32").

    Raises:
        ValueError: As in [`check_weights`].
    """
    wrong = []
    for name, kind in types.items():
        last, upper = name.rpartition(".")[2], kind.upper()
        fits = upper.startswith(("I", "U")) if last in _INTEGERS else upper.startswith(_FLOATING)
        if not fits:
            wrong.append(f"{name} ({kind})")
    if wrong:
        raise ValueError(f"{source} holds weights that are no floating-point numbers: {_listed(wrong)}.")


def check_stored_types(files: Iterable[str]) -> None:
    """Check the types of the weights in files, .safetensors or torch's, of which no weights are read.

    transformers converts all weights to floating point in loading, after which their types are gone.

    Raises:
        ValueError: As in [`check_weights`], or a file is something else.
    """
    for path in map(str, files):
        if fault := checkpoint_fault(path):
            raise ValueError(f"{path}: {fault}.")
        if path.endswith(".safetensors"):
            with safe_open(path, framework="pt") as file:
                types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        else:
            stored = torch.load(path, map_location="meta", weights_only=True)
            types = {name: _type_name(value.dtype) for name, value in stored.items() if torch.is_tensor(value)}
        check_weight_types(types, path)


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_finite(name: str, tensor: torch.Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    values = tensor.float() if tensor.element_size() == 1 else tensor  # 8-bit types have few operations
    if name.endswith(_VARIANCES) and bool((values < 0).any()):
        return False
    # The sum of finite numbers rarely overflows, and is ten times faster than asking each of them.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


__all__ = ["check_stored_types", "check_weight_types", "check_weights"]
