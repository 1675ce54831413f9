"""Jobs in processes, none of which outlives the process that waits for them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

import torch

from deepavfusion_cli.errors import ended_process
from deepavfusion_cli.terminal import printable

from .loaders import DeadWorkerError, leave_signals_to_parent

_STOPS = {signal.SIGINT, signal.SIGTERM}
_do: Callable[..., Any]
_notes: torch.Tensor


def run_jobs(
    do: Callable[..., Any], jobs: Mapping[str, Sequence[Any]], num_workers: int, advice: str, kind: str
) -> Iterator[str]:
    """Run jobs in processes. If this process stops waiting for them, for whatever reason, they are killed at once.

    Args:
        do: Function of the arguments of a job.
        jobs: Name of each job -> its arguments.
        num_workers: Number of processes.
        advice: What to do if a process ends.
        kind: What the names are of, such as "shard".

    Yields:
        Names of jobs that are done, as they are.

    Raises:
        DeadWorkerError: A process ended; the message names its job.
    """
    if not jobs:
        return
    others = set(multiprocessing.active_children())
    notes = torch.zeros(len(jobs), dtype=torch.long).share_memory_()  # process that runs each job
    pool = ProcessPoolExecutor(min(num_workers, len(jobs)), initializer=_begin, initargs=(do, notes))
    workers: set[multiprocessing.process.BaseProcess] = set()
    done = False
    try:
        # Processes inherit what is blocked: signals find none of them before it ignores them.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            names = {pool.submit(_run, k, *jobs[name]): name for k, name in enumerate(jobs)}
            workers = set(multiprocessing.active_children()) - others
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for job in as_completed(names):
            job.result()
            yield names[job]
        done = True
    except BrokenProcessPool as error:
        ended = connection.wait([worker.sentinel for worker in workers], timeout=0)
        dead = [worker for worker in workers if worker.sentinel in ended]
        _kill(workers)
        pool.shutdown()  # a thread of it may be about to learn their exit codes
        processes = {worker.pid for worker in dead}
        held = [name for name, process in zip(jobs, notes.tolist(), strict=True) if process in processes]
        code = next((worker.exitcode for worker in dead if worker.exitcode), 0)
        how = f"killed by signal: {signal.strsignal(-code)}" if code < 0 else "exited unexpectedly"
        raise DeadWorkerError(ended_process(how, [*map(printable, held)], advice, kind)) from error
    finally:
        if not done:
            _kill(workers)
        pool.shutdown()


def _kill(workers: Collection[multiprocessing.process.BaseProcess]) -> None:
    for worker in workers:
        worker.kill()  # they ignore other signals


def _begin(do: Callable[..., Any], notes: torch.Tensor) -> None:
    """Start a worker."""
    global _do, _notes
    _do, _notes = do, notes
    leave_signals_to_parent(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process as soon as its parent has, of which the queue of jobs does not tell."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(number: int, *arguments: Any) -> None:
    _notes[number] = os.getpid()
    _do(*arguments)
    _notes[number] = 0


__all__ = ["run_jobs"]
