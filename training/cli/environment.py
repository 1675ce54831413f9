"""Cores and threads of a command: how many there are, and how threads wait for each other."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

# Threads that spin while they wait for others take the cores that these need: beside two busy processes on two cores,
# training was ten times slower. Read once, when torch loads its OpenMP library: libgomp's name, and that of Intel's.
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
_NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_MOST_WORKERS = 16


def wait_passively() -> None:
    """Let the threads of this process and its children sleep while they wait, unless the environment says otherwise.

    It has an effect only before torch is imported.
    """
    for name, value in PASSIVE_WAITING.items():
        os.environ.setdefault(name, value)


def module_run_by_python() -> str | None:
    """Name of the module that `python -m` is about to run, while Python is still locating it; else None."""
    if sys.argv[:1] != ["-m"]:
        return None
    # `-m NAME` or `-mNAME`, followed by the arguments, which sys.argv holds as well.
    return sys.orig_argv[-len(sys.argv)].removeprefix("-m")


def usable_cores() -> int:
    """Number of physical cores that this process may use, by its affinity and by the quota of its control group."""
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {_read(siblings.format(number)) or str(number) for number in processors}
    quota = _quota()
    return max(1, len(cores) if quota is None else min(len(cores), round(quota)))


def threads_beside(workers: int, environment: Mapping[str, str] | None = None) -> int | None:
    """Number of threads that compute beside `workers` processes that read data; None if the environment names one.

    A process computes on the cores that its workers leave, at least on half of them: workers are not always busy. The
    processes of one machine share its cores.

    Args:
        workers: Number of worker processes.
        environment: Environment variables; by default those of this process.
    """
    environment = os.environ if environment is None else environment
    if any(environment.get(name) for name in _NUMBERS):
        return None
    cores = _own_cores(environment)
    return max(1, cores // 2, cores - workers)


def workers_beside(environment: Mapping[str, str] | None = None) -> int:
    """Number of processes that read data beside one that computes: one for each other core of its own, 1 to 16.

    Args:
        environment: Environment variables; by default those of this process.
    """
    cores = _own_cores(os.environ if environment is None else environment)
    return min(max(1, cores - 1), _MOST_WORKERS)


def _own_cores(environment: Mapping[str, str]) -> int:
    """Number of cores of each process of a command that runs several on this machine."""
    processes = environment.get("LOCAL_WORLD_SIZE", "")
    return max(1, usable_cores() // (max(1, int(processes)) if processes.isdecimal() else 1))


def own_command() -> str:
    """How the command of this environment is called from the current folder, for suggestions in the terminal."""
    if shutil.which("deepavfusion"):
        return "deepavfusion"
    beside = Path(sys.executable).with_name("deepavfusion")
    return os.path.relpath(beside) if beside.is_file() else "deepavfusion"


def core_seconds() -> tuple[float, float] | None:
    """Seconds that the threads of this process have computed, and have waited for a core; None if unknown."""
    ran = waited = 0
    for entry in Path("/proc/self/task").glob("*/schedstat"):
        numbers = _read(entry).split()
        if len(numbers) >= 2:
            ran, waited = ran + int(numbers[0]), waited + int(numbers[1])
    return (ran / 1e9, waited / 1e9) if ran + waited else None


def _quota() -> float | None:
    """Cores' worth of time that the control group of this process may use; None if there is no limit."""
    own = [line.rpartition(":")[2] for line in _read("/proc/self/cgroup").splitlines()]
    limits = []
    for group in {"", *own}:
        quota, _, period = _read(f"/sys/fs/cgroup/{group}/cpu.max").partition(" ")
        if not quota:  # version 1
            folder = f"/sys/fs/cgroup/cpu/{group}"
            quota, period = _read(f"{folder}/cpu.cfs_quota_us"), _read(f"{folder}/cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _read(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


__all__ = [
    "PASSIVE_WAITING",
    "core_seconds",
    "module_run_by_python",
    "own_command",
    "threads_beside",
    "usable_cores",
    "wait_passively",
    "workers_beside",
]
