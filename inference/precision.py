"""Precision of float32 matrix products: one for all commands, so that `evaluate` repeats the numbers of a training."""

import torch


def set_float32_precision() -> None:
    """Let GPUs multiply float32 matrices as TF32, with 10 bits of mantissa, as their convolutions do by default."""
    torch.set_float32_matmul_precision("high")


def float32_precision() -> str:
    """What matrix products are computed with, for the record: "highest", "high" or "medium"."""
    return torch.get_float32_matmul_precision()


__all__ = ["float32_precision", "set_float32_precision"]
