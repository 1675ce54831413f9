"""What of a data set is read, when and by which process, and what could not be read."""

from .broken import BrokenClips, BrokenDataError
from .jobs import run_jobs
from .loaders import (
    DeadWorkerError,
    EpochClips,
    evaluation_loader,
    group_size,
    naming_dead_workers,
    on_device,
    training_loader,
)
from .order import BatchPlace, ClipOrder, evaluation_noise, mask_noise

__all__ = [
    "BatchPlace",
    "BrokenClips",
    "BrokenDataError",
    "ClipOrder",
    "DeadWorkerError",
    "EpochClips",
    "evaluation_loader",
    "evaluation_noise",
    "group_size",
    "mask_noise",
    "naming_dead_workers",
    "on_device",
    "run_jobs",
    "training_loader",
]
