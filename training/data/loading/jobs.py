"""Jobs in processes, none of which outlives the process that waits for them."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

import torch

from deepavfusion_cli.errors import ended_process
from deepavfusion_cli.terminal import printable

from .loaders import DeadWorkerError, leave_signals_to_parent

_STOPS = {signal.SIGINT, signal.SIGTERM}
_COUNT_SECONDS = 0.5  # between counts of the steps of jobs that are not done
_do: Callable[..., Iterable]
_notes: torch.Tensor
_steps: torch.Tensor


def run_jobs(
    do: Callable[..., Iterable], jobs: Mapping[str, Sequence[Any]], num_workers: int, advice: str, kind: str
) -> Iterator[int]:
    """Run jobs in processes. If this process stops waiting for them, for whatever reason, they are killed at once.

    Args:
        do: Function of the arguments of a job, which yields after each of its steps.
        jobs: Name of each job -> its arguments.
        num_workers: Number of processes.
        advice: What to do if a process ends.
        kind: What the names are of, such as "shard".

    Yields:
        Numbers of steps that have been done since the last one, in jobs that are done or not.

    Raises:
        DeadWorkerError: A process ended; the message names its job.
    """
    if not jobs:
        return
    others = set(multiprocessing.active_children())
    # Process that runs each job, and the number of its steps that are done.
    notes, steps = (torch.zeros(len(jobs), dtype=torch.long).share_memory_() for _ in range(2))
    pool = ProcessPoolExecutor(min(num_workers, len(jobs)), initializer=_begin, initargs=(do, notes, steps))
    workers: set[multiprocessing.process.BaseProcess] = set()
    ready: queue.SimpleQueue[Future] = queue.SimpleQueue()
    done = False
    try:
        # Processes inherit what is blocked: signals find none of them before it ignores them.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            for k, arguments in enumerate(jobs.values()):
                pool.submit(_run, k, *arguments).add_done_callback(ready.put)
            workers = set(multiprocessing.active_children()) - others
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        left, counted = len(jobs), 0
        while left:
            try:
                ready.get(timeout=_COUNT_SECONDS).result()
                left -= 1
            except queue.Empty:
                pass
            total = int(steps.sum())
            if total > counted:
                yield total - counted
            counted = total
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


def _begin(do: Callable[..., Iterable], notes: torch.Tensor, steps: torch.Tensor) -> None:
    """Start a worker."""
    global _do, _notes, _steps
    _do, _notes, _steps = do, notes, steps
    leave_signals_to_parent(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process as soon as its parent has, of which the queue of jobs does not tell."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(number: int, *arguments: Any) -> None:
    _notes[number] = os.getpid()
    for _ in _do(*arguments):
        _steps[number] += 1
    _notes[number] = 0


__all__ = ["run_jobs"]
