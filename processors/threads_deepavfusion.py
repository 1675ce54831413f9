"""Threads of torch in processes that were forked from one that has used them."""

import os

import torch

_process = os.getpid()


def use_one_thread_after_fork() -> None:
    """Let torch compute in one thread if this process was forked since the import, as workers of `DataLoader` do.

    A forked process lacks the threads of its parent, but waits for them. Called first by each processor, because
    `datasets.map` with several processes forks. Only the first call in a process has an effect.
    """
    global _process
    if os.getpid() != _process:
        _process = os.getpid()
        torch.set_num_threads(1)


__all__ = ["use_one_thread_after_fork"]
