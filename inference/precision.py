"""Precision of float32 matrix products, the same in all commands so that `evaluate` reproduces a training's numbers."""

import torch


def set_float32_precision() -> None:
    """Let GPUs multiply float32 matrices as TF32, with 10 bits of mantissa, as their convolutions do by default."""
    torch.set_float32_matmul_precision("high")


def float32_precision() -> str:
    """Precision of float32 matrix products, for records: "highest", "high" or "medium"."""
    return torch.get_float32_matmul_precision()


__all__ = ["float32_precision", "set_float32_precision"]
