"""Order of the training clips and their masks: functions of seed and position only.

Training reads an endless stream of clips, reshuffled every epoch and cut into batches. The clip at a position depends
neither on what was read before nor on the number of processes, so that a run resumes at any batch, and two processes
see the same clips as one process with two accumulated batches. If clips are sampled by weights, an epoch has as many
draws as there are clips.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ..random import Stream, generator


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


__all__ = ["BatchPlace", "ClipOrder", "evaluation_noise", "mask_noise"]
