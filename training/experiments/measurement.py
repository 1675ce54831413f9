"""Time, memory and arithmetic of a machine, as measured by the benchmarks."""

import ctypes
import gc
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_product_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, the best of eight."""
    side = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


class CountOperations(TorchDispatchMode):
    """Context that counts operations that compute or copy, of which each launches a kernel at least on a GPU.

    Attributes:
        count: Their number so far.
    """

    _NONE = ("aten::_unsafe_view", "aten::lift_fresh", "aten::detach", "aten::empty", "aten::new_empty")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not (function.is_view or function._schema.name.startswith(self._NONE))
        return function(*args, **(kwargs or {}))


def resident_set() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def resident_growth(call: Callable[[], None]) -> int:
    """Growth of the resident set during a call, in bytes; meaningful only in a fresh process."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # or the call would reuse what was freed before it
        trim(0)
    before = resident_set()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak that VmHWM reports
    call()
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    return peak - before


def in_fresh_process(function: Callable, *arguments):
    """Call a module-level function in a new process, and raise what it raises."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _processor_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(names, platform.machine())


def describe_machine(device: str, threads: int) -> dict:
    """Device, threads and versions, for records."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor_name(),
        "threads": threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


__all__ = [
    "CountOperations",
    "describe_machine",
    "in_fresh_process",
    "matrix_product_peak",
    "resident_growth",
    "resident_set",
    "synchronize",
]
