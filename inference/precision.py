"""How commands compute: the precision of matrix products, and the number of threads.

The precision is the same in all commands so that `evaluate` reproduces a training's numbers.
"""

import warnings

import torch

from deepavfusion_cli.environment import threads_beside


def set_float32_precision() -> None:
    """Let GPUs multiply float32 matrices as TF32, with 10 bits of mantissa, as their convolutions do by default."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings", UserWarning)  # of torch 2.9 alone
        torch.set_float32_matmul_precision("high")


def float32_precision() -> str:
    """Precision of float32 matrix products, for records: "highest", "high" or "medium"."""
    return torch.get_float32_matmul_precision()


def fast_bfloat16(device_type: str) -> bool:
    """Whether a device multiplies bfloat16 matrices faster than float32 ones.

    Args:
        device_type: "cpu", which needs AVX-512 BF16 or AMX, or "cuda", which needs compute capability 8.0. Others are
            not known, and the answer is False.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_threads(workers: int = 0) -> None:
    """Compute on the physical cores that processes which read data leave, unless OMP_NUM_THREADS says otherwise.

    Args:
        workers: Number of such processes.
    """
    threads = threads_beside(workers)
    if threads is not None:
        torch.set_num_threads(threads)


def computing(workers: int) -> str:
    """Threads and workers of a run, for the terminal: "2 threads, 1 worker"."""
    numbers = ((torch.get_num_threads(), "thread"), (workers, "worker"))
    return ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in numbers)


__all__ = ["computing", "fast_bfloat16", "float32_precision", "set_float32_precision", "set_threads"]
