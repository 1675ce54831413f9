"""Order of the training clips, their masks, and the loaders: functions of seed and position only.

Training reads an endless stream of clips, reshuffled every epoch and cut into batches. The clip at a position depends
neither on what was read before nor on the number of processes, so that a run resumes at any batch, and two processes
see the same clips as one process with two accumulated batches. If clips are sampled by weights, an epoch has as many
draws as there are clips.
"""

import math
import signal
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from deepavfusion_cli.terminal import printable

from ..wording import count, with_path
from .random import Stream, generator

_FEW_BROKEN = 3  # clips that may be unreadable in splits however small


class ClipOrder:
    """Batch sampler over the endless stream, which yields a list of (epoch, clip) per micro-batch of this process.

    Optimizer step s covers positions [s * effective, (s + 1) * effective); in its micro-batch m, process r reads
    `batch_size` of them, starting at m * processes * batch_size + r * batch_size.

    The length of the sampler is always that of the whole run, `end_step` * `accumulation`, although it starts at
    `start_step`: a trainer that resumes counts steps from the start of the run.

    Args:
        num_clips: Number of training clips.
        batch_size: Clips per process and micro-batch.
        accumulation: Micro-batches per optimizer step.
        processes: Number of processes.
        process: Index of this process.
        seed: Seed of the shuffles.
        start_step: First optimizer step to yield.
        end_step: End of the optimizer steps to yield, exclusive.
        weights: Relative sampling weights (num_clips,); None shuffles instead.
        group: Number of neighboring clips that stay together in one batch.

    Raises:
        ValueError: If a batch or the training set does not consist of whole groups, or groups are given weights.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        accumulation: int,
        processes: int,
        process: int,
        seed: int,
        start_step: int,
        end_step: int,
        weights: torch.Tensor | None = None,
        group: int = 1,
    ):
        if batch_size % group or num_clips % group:
            raise ValueError(
                f"This data set consists of groups of {group} clips that stay in one batch: expected a multiple of "
                f"{group} as the batch size, got {batch_size} (of {num_clips} clips)."
            )
        if weights is not None and group > 1:
            raise ValueError(f"Clips in groups of {group} cannot be sampled by weights.")
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.processes = processes
        self.process = process
        self.seed = seed
        self.start_step = start_step
        self.end_step = end_step
        self.weights = weights
        self.group = group
        self._epochs: dict[int, torch.Tensor] = {}

    @property
    def effective_batch(self) -> int:
        """Number of clips per optimizer step."""
        return self.batch_size * self.accumulation * self.processes

    def __len__(self) -> int:
        return self.end_step * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start_step, self.end_step):
            for micro in range(self.accumulation):
                first = step * self.effective_batch + (micro * self.processes + self.process) * self.batch_size
                yield [self.clip_at(position) for position in range(first, first + self.batch_size)]

    def clip_at(self, position: int) -> tuple[int, int]:
        """Epoch and index of the clip at a position of the stream."""
        epoch, place = divmod(position, self.num_clips)
        if epoch not in self._epochs:
            self._epochs = {e: order for e, order in self._epochs.items() if e >= epoch - 1}
            self._epochs[epoch] = self._order(epoch)
        return epoch, int(self._epochs[epoch][place])

    def _order(self, epoch: int) -> torch.Tensor:
        if self.weights is not None:
            draws = generator(self.seed, Stream.BALANCED_ORDER, epoch)
            return torch.multinomial(self.weights.double(), self.num_clips, replacement=True, generator=draws)
        draws = generator(self.seed, Stream.ORDER, epoch)
        groups = torch.randperm(self.num_clips // self.group, generator=draws)
        return (groups[:, None] * self.group + torch.arange(self.group)).flatten()


class BatchPlace(NamedTuple):
    """Position of a micro-batch in a run, from which its random numbers are seeded."""

    seed: int
    step: int
    micro: int
    order: ClipOrder

    def generator(self, stream: Stream) -> torch.Generator:
        """Seed a generator for this micro-batch of this process."""
        return generator(self.seed, stream, self.step, self.order.process, self.micro)


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


def mask_noise(
    seed: int, step: int, micro: int, order: ClipOrder, num_patches: tuple[int, int]
) -> tuple[torch.Tensor, ...]:
    """Draw the uniform noise that determines the masks of a micro-batch.

    Args:
        seed: Seed of the run.
        step: Optimizer step.
        micro: Micro-batch of the step.
        order: Order of the clips.
        num_patches: Numbers of image and audio patches.

    Returns:
        Noise (batch_size, patches) for image and audio.
    """
    draws = generator(seed, Stream.MASKS, step)
    first = (micro * order.processes + order.process) * order.batch_size
    noise = (torch.rand(order.effective_batch, patches, generator=draws) for patches in num_patches)
    return tuple(part[first : first + order.batch_size] for part in noise)


def evaluation_noise(seed: int, clips: torch.Tensor, num_patches: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the uniform noise that determines the masks of held-out clips, the same at every evaluation.

    Args:
        seed: Seed of the run.
        clips: Indices (B,) of the clips.
        num_patches: Numbers of image and audio patches.

    Returns:
        Noise (B, patches) for image and audio.
    """
    rows = []
    for clip in clips.tolist():
        draws = generator(seed, Stream.EVALUATION_MASKS, clip)
        rows.append([torch.rand(patches, generator=draws) for patches in num_patches])
    return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


def training_loader(clips, order: ClipOrder, num_workers: int) -> DataLoader:
    """Build the loader of the training batches, in the given order."""
    return DataLoader(
        EpochClips(clips),
        batch_sampler=order,
        collate_fn=clips.collate,
        num_workers=num_workers,
        worker_init_fn=leave_signals_to_parent,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if num_workers else None,
    )


def group_size(clips) -> int:
    """Number of neighboring clips of a data set that stay together in one batch."""
    return 2 if getattr(clips, "in_pairs", False) else 1


def evaluation_loader(
    clips, batch_size: int, processes: int, process: int, num_workers: int, group: int = 1
) -> DataLoader:
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
    batches = -(-len(clips) // (batch_size * processes))
    mine = [i for i in range(len(clips)) if i // group % processes == process]
    lists = [mine[i * batch_size : (i + 1) * batch_size] for i in range(batches)]
    return DataLoader(
        clips,
        batch_sampler=[rows or mine[:group] or list(range(group)) for rows in lists],
        collate_fn=clips.collate,
        num_workers=num_workers,
        worker_init_fn=leave_signals_to_parent,
        pin_memory=torch.cuda.is_available(),
    )


def leave_signals_to_parent(worker: int) -> None:
    """Ignore signals to the process group in a worker, which must live until the training process has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


class BrokenClips:
    """Unreadable clips of a split, each counted once; too many of them end the run.

    Args:
        num_clips: Number of clips in the split.
        max_fraction: Largest fraction of them that may be unreadable; unless it is 0, 3 may be, but at most half.
        reasons: Path -> reason, of unreadable clips that are already known.
        check: Command that finds all of them, or None.
    """

    def __init__(
        self, num_clips: int, max_fraction: float, reasons: dict[str, str] | None = None, check: str | None = None
    ):
        self.num_clips = num_clips
        self.max_fraction = max_fraction
        self.reasons = dict(reasons or {})
        self.check = check
        few = min(_FEW_BROKEN, num_clips // 2) if max_fraction else 0
        self.most = max(math.floor(max_fraction * num_clips), few)

    @classmethod
    def of(cls, clips, max_fraction: float) -> "BrokenClips":
        """Make those of a data set."""
        return cls(len(clips), max_fraction, check=getattr(clips, "check", None))

    def add(self, clips: list[tuple[str, str]]) -> list[str]:
        """Add (path, reason) pairs and return a log line for each new clip, or raise `BrokenDataError`.

        The first clip ever comes with a line about the command that finds all of them.
        """
        known, new = bool(self.reasons), {path: reason for path, reason in clips if path not in self.reasons}
        self.reasons.update(new)
        if len(self.reasons) > self.most:
            listing = "\n".join(printable(f"  {with_path(path, reason)}") for path, reason in self.reasons.items())
            more = f"\nThere may be more: `{self.check}` reads every clip and lists all." if self.check else ""
            raise BrokenDataError(
                f"{len(self.reasons)} of {count(self.num_clips, 'clip')} cannot be read, more than "
                f"data.max_unreadable_fraction = {self.max_fraction:g} allows:\n{listing}{more}"
            )
        lines = [printable(f"skipped, cannot be read: {with_path(path, reason)}") for path, reason in new.items()]
        if lines and not known and self.check:
            text = f"reads every clip and lists all that cannot be read; up to {self.most} may be."
            lines.append(f"`{self.check}` {text}")
        return lines


class BrokenDataError(RuntimeError):
    """Raised if more clips than the recipe allows cannot be read."""

    exit_code = 1  # of commands: failed


__all__ = [
    "BatchPlace",
    "BrokenClips",
    "BrokenDataError",
    "ClipOrder",
    "EpochClips",
    "evaluation_loader",
    "evaluation_noise",
    "group_size",
    "leave_signals_to_parent",
    "mask_noise",
    "training_loader",
]
