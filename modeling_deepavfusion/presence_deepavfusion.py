"""Samples that lack a modality: their inputs have no effect and their outputs do not count."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_UNREAD = ContextVar("unread", default=False)


def reads_values() -> bool:
    """Whether checks may read the values of tensors, for which the host waits for an accelerator."""
    return not (torch.compiler.is_compiling() or _UNREAD.get())


@contextmanager
def without_reading_values() -> Generator[None]:
    """Leave out checks that read values of inputs, which are known to be right: nothing waits for an accelerator."""
    token = _UNREAD.set(True)
    try:
        yield
    finally:
        _UNREAD.reset(token)


def check_present(name: str, present: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor | None:
    """Check a presence mask and move it to the device of the inputs.

    Args:
        name: "image" or "audio".
        present: (B,) bool, or None if all samples have the modality.
        values: `pixel_values` or `input_features`, (B, ...).

    Raises:
        ValueError: If the mask has the wrong dtype or shape.
    """
    if present is None:
        return None
    if present.dtype != torch.bool or tuple(present.shape) != (values.shape[0],):
        raise ValueError(
            f"{name}_present is {present.dtype} of shape {tuple(present.shape)}: expected torch.bool of shape "
            f"({values.shape[0]},)."
        )
    return present.to(values.device)


def require_any(pixel_values: torch.Tensor | None, input_features: torch.Tensor | None) -> None:
    """Check that a batch has a modality.

    Raises:
        ValueError: If it has neither.
    """
    if pixel_values is None and input_features is None:
        raise ValueError("Neither pixel_values nor input_features was given: expected at least one of them.")


def require_modality(needs: str, name: str, values: torch.Tensor | None, present: torch.Tensor | None) -> None:
    """Check that every sample has the modality that a task requires.

    Args:
        needs: Beginning of the error message, such as "Segmentation needs the frame".
        name: "image" or "audio".
        values: `pixel_values` or `input_features`, or None.
        present: (B,) bool, or None if all samples have it.

    Raises:
        ValueError: If a sample lacks it.
    """
    everywhere = values is not None
    if everywhere and present is not None:
        present = check_present(name, present, values)
        everywhere = not reads_values() or bool(present.all())
    if not everywhere:
        field = {"image": "pixel_values", "audio": "input_features"}[name]
        raise ValueError(f"{needs}: expected {field} for every sample.")


def blank_absent(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Replace inputs (B, ...) of absent samples with zeros, whatever they contain (even NaN)."""
    return values if present is None else values.masked_fill(~present.view(-1, *(1,) * (values.ndim - 1)), 0.0)


def keep_present(states: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Replace states (B, n, D) of absent samples with zeros."""
    if present is None:
        return states
    return torch.where(present.to(states.device)[:, None, None], states, torch.zeros_like(states))


def mean_of_present(losses: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Mean of losses (B,) over the samples that are present; 0 if none is."""
    if present is None:
        return losses.mean()
    present = present.to(losses.device)
    return losses.masked_fill(~present, 0.0).sum() / present.sum().clamp(min=1)


__all__ = [
    "blank_absent",
    "check_present",
    "keep_present",
    "mean_of_present",
    "reads_values",
    "require_any",
    "require_modality",
    "without_reading_values",
]
