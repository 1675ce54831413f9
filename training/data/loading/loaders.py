"""Loaders of clips, in processes that note what they hold, so that the death of one names its clips."""

import os
import re
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from deepavfusion_cli.errors import RUN_ADVICE, dead_worker
from deepavfusion_cli.terminal import printable

from .order import ClipOrder


class EpochClips(Dataset):
    """Training set indexed by (epoch, clip), for augmentations that differ between epochs.

    Args:
        clips: Map-style dataset with `set_epoch`.
    """

    def __init__(self, clips):
        self.clips = clips

    def __getitems__(self, keys: list[tuple[int, int]]) -> list:
        samples = {}
        for epoch in sorted({epoch for epoch, _ in keys}):
            chosen = [key for key in keys if key[0] == epoch]
            self.clips.set_epoch(epoch)
            samples.update(zip(chosen, self.clips.__getitems__([clip for _, clip in chosen]), strict=True))
        return [samples[key] for key in keys]


class DeadWorkerError(RuntimeError):
    """Raised if a process that reads clips ended; the message names the clips that it held."""

    exit_code = 1  # of commands: failed


class NotedClips(Dataset):
    """Clips that are noted, by the worker that reads them, in memory that it shares with its parent.

    Args:
        clips: Map-style dataset of batches, by clips or (epoch, clip).
        num_workers: Number of workers.
        batch_size: Largest number of clips in a batch.
    """

    def __init__(self, clips, num_workers: int, batch_size: int):
        self.clips = clips
        # Of each worker: its process, the number of clips in its latest batch, and these clips.
        self.notes = torch.zeros(num_workers, 2 + batch_size, dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitems__(self, keys: list) -> list:
        worker = get_worker_info()
        if worker is not None:
            held = [key[1] if isinstance(key, tuple) else key for key in keys]
            self.notes[worker.id, : 2 + len(held)] = torch.tensor([os.getpid(), len(held), *held])
        return self.clips.__getitems__(keys)

    def held_by(self, processes: set[int]) -> list[int]:
        """Clips in the latest batches of processes."""
        rows = [row for row in self.notes.tolist() if row[0] in processes]
        return [clip for row in rows for clip in row[2 : 2 + row[1]]]


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the host to a device without waiting for what the device still computes."""
    if device.type == "cuda" and values.device.type == "cpu" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


_LOADERS: "weakref.WeakSet[ClipLoader]" = weakref.WeakSet()


class ClipLoader(DataLoader):
    """DataLoader of clips, of which the death of a worker raises `DeadWorkerError`; see also `naming_dead_workers`.

    Args:
        batches: Map-style dataset of batches.
        clips: The data set, which collates and describes its clips.
        advice: What to do if a worker dies.
        **options: `batch_sampler`, `num_workers` and `prefetch_factor` of `DataLoader`.
    """

    def __init__(self, batches, clips, *, batch_sampler: Any, num_workers: int, advice: str = RUN_ADVICE, **options):
        self.noted, self.advice, self._batches = None, advice, lambda: None
        if num_workers:
            size = getattr(batch_sampler, "batch_size", None) or max(map(len, batch_sampler), default=0)
            batches = self.noted = NotedClips(batches, num_workers, size)
        self.clips = clips
        super().__init__(
            batches,
            batch_sampler=batch_sampler,
            collate_fn=clips.collate,
            num_workers=num_workers,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
        _LOADERS.add(self)

    def __iter__(self) -> Iterator[Any]:
        with naming_dead_workers():  # the first may die while others are started
            batches = super().__iter__()
        self._batches = weakref.ref(batches)
        return _named(batches)

    def stop(self) -> None:
        """End the workers: they ignore SIGTERM, so that a process that is left with some would wait for them."""
        if (batches := self._batches()) is not None:
            batches._shutdown_workers()  # ty: ignore[missing-attribute]


def _named(batches: Iterator[Any]) -> Iterator[Any]:
    with naming_dead_workers():
        yield from batches


@contextmanager
def naming_dead_workers():
    """Turn torch's error of a dead worker, which it raises wherever its parent is, into one that names the clips.

    Raises:
        DeadWorkerError: A worker of a `ClipLoader` ended.
    """
    try:
        yield
    except RuntimeError as error:
        held, advice = [], RUN_ADVICE
        if found := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error)):
            processes = set(map(int, found[1].split(", ")))
            for loader in [loader for loader in _LOADERS if loader.noted is not None]:
                if found := loader.noted.held_by(processes):
                    held += [printable(loader.clips.describe(clip)) for clip in found]
                    advice = loader.advice
                    loader.stop()
        if held:
            raise DeadWorkerError(dead_worker(error, held, advice)) from error
        raise


def training_loader(clips, order: ClipOrder, num_workers: int) -> "ClipLoader":
    """Build the loader of the training batches, in the given order."""
    return ClipLoader(
        EpochClips(clips),
        clips,
        batch_sampler=order,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
    )


def group_size(clips) -> int:
    """Number of neighboring clips of a data set that stay together in one batch."""
    return 2 if getattr(clips, "in_pairs", False) else 1


def evaluation_loader(
    clips, batch_size: int, processes: int, process: int, num_workers: int, group: int = 1
) -> "ClipLoader":
    """Build the loader of held-out clips: every `processes`-th one, in order, with equally many batches per process.

    Args:
        clips: Held-out clips.
        batch_size: Clips per batch.
        processes: Number of processes.
        process: Index of this process.
        num_workers: Number of worker processes.
        group: Number of neighboring clips that stay together; batches consist of whole groups.
    """
    batch_size = max(batch_size // group, 1) * group
    number = -(-len(clips) // (batch_size * processes))
    mine = [i for i in range(len(clips)) if i // group % processes == process]
    lists = [mine[i * batch_size : (i + 1) * batch_size] for i in range(number)]
    batches = [rows or mine[:group] or list(range(group)) for rows in lists]
    return ClipLoader(clips, clips, batch_sampler=batches, num_workers=num_workers)


def leave_signals_to_parent(worker: int) -> None:
    """Ignore signals to the process group in a worker, which must live until the training process has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


__all__ = [
    "ClipLoader",
    "DeadWorkerError",
    "EpochClips",
    "evaluation_loader",
    "group_size",
    "leave_signals_to_parent",
    "naming_dead_workers",
    "training_loader",
]
