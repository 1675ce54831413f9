"""Time, memory and arithmetic of a machine, as the benchmarks measure them."""

import gc
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_product_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product here: the best of several."""
    side = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        synchronise(device)
        start = time.perf_counter()
        left @ right
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _resident_set() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def resident_growth(call: Callable[[], None]) -> int:
    """Bytes by which a call's peak exceeds what was resident before it. Means something in a fresh process alone."""
    gc.collect()
    before = _resident_set()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak that VmHWM reports
    call()
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    return peak - before


def _send(connection, function, arguments):
    connection.send(function(*arguments))


def in_fresh_process(function: Callable, *arguments):
    """What a function of a module gives in a process of its own; RuntimeError where that fails."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sender, function, arguments))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise RuntimeError(f"A measurement in a process of its own failed with exit code {child.exitcode}.")
    return receiver.recv()


def _processor_name() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.machine()


def describe_machine(device: str, threads: int) -> dict:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor_name(),
        "threads": threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


__all__ = ["describe_machine", "in_fresh_process", "matrix_product_peak", "resident_growth", "synchronise"]
