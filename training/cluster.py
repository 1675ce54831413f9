"""Prepare a data set on many machines: steps for the executors of datatrove, which the extra `cluster` installs.

    from datatrove.executor import SlurmPipelineExecutor
    from deepavfusion.training.cluster import WriteIndex, WriteShards

    data = {"name": "vggsound", "path": "VGGSOUND", "out": "PREPARED"}
    slurm = {"partition": "cpu", "time": "4:00:00", "mem_per_cpu_gb": 4}
    shards = SlurmPipelineExecutor([WriteShards(**data)], tasks=64, logging_dir="LOGS/shards", **slurm)
    index = SlurmPipelineExecutor([WriteIndex(**data)], tasks=1, logging_dir="LOGS/index", depends=shards, **slurm)
    index.run()

The folders must be those of a file system that all machines share. A step is a function of (data, rank, world_size), as
any executor calls it; this module does not import datatrove.
"""

import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .data.shards import Encoding, Preparation, begun_shard_size, finish, pending_shards, prepare
from .prepare import preparation_of
from .wording import count, with_path

logger = logging.getLogger(__name__)


@dataclass
class _Step:
    """A step of the preparation of a data set.

    Attributes:
        name: Name of the data set, as `data.name` in recipes.
        path: Its folder.
        out: Folder of the prepared data set; new, empty, or with an unfinished preparation of the same data.
        options: Other options that choose clips, as in section `data` of recipes.
        encoding: How clips are stored.
        clips_per_shard: Number of clips per tar file; by default that of the folder, or see `Preparation`.
    """

    name: str
    path: str
    out: str
    options: dict[str, Any] = field(default_factory=dict)
    encoding: Encoding = field(default_factory=Encoding)
    clips_per_shard: int | None = None

    def preparation(self) -> Preparation:
        """What is prepared, the same in all tasks."""
        options = {"name": self.name, "path": self.path, **self.options}
        return preparation_of(options, self.encoding, self.clips_per_shard or begun_shard_size(Path(self.out)))


class WriteShards(_Step):
    """Writes the shards of a task: every `world_size`-th one that is not there yet."""

    def __call__(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        """Run the task `rank` of `world_size`.

        Raises:
            FolderTakenError: The folder holds something else.
            ValueError: The data set has no clips.
        """
        torch.set_num_threads(1)  # a task has one processor
        preparation = self.preparation()
        shards = pending_shards(preparation, self.out, (rank, world_size))
        deque(prepare(preparation, self.out, 1, shards), maxlen=0)


class WriteIndex(_Step):
    """Writes the index when all shards are there, and names the clips that could not be read; a single task."""

    def __call__(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        """Run the task.

        Raises:
            FileNotFoundError: A shard is missing.
            ValueError: There are several tasks.
        """
        if world_size != 1:
            raise ValueError(f"The index is written by one task: expected tasks=1, got {world_size}.")
        outcome = finish(self.preparation(), self.out)
        for path, reason in outcome.broken:
            logger.warning("left out: %s", with_path(path, reason))
        logger.info("%s stored in %s", count(outcome.clips, "clip"), self.out)


__all__ = ["WriteIndex", "WriteShards"]
