"""Section `data` of a recipe."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from deepavfusion.ranges_deepavfusion import COUNT, field_ranges
from deepavfusion_cli.environment import workers_beside

from ..data import data_sets
from ..data.scenes import ScenesConfig
from .commands import FINETUNING, TRAINING
from .options import option

_SCENES = dict(field_ranges(ScenesConfig))


@dataclass
class DataArguments:
    """Data set, splits, reading. Null stands for the default of the data set."""

    name: str = option("scenes", "Data set; scenes are built in.", choices=data_sets())
    path: str | None = option(None, "Root folder of the data set.", local=True)
    train_size: int | None = option(None, "Maximum number of training clips.", range=COUNT, commands=TRAINING)
    eval_size: int | None = option(None, "Maximum number of held-out clips.", range=COUNT)
    cache_dir: str | None = option(
        None,
        "Folder of generated scenes, where null generates them again in every run; of downloaded shards, where null is "
        "~/.cache/deepavfusion/shards.",
        local=True,
    )
    cache_gb: float | None = option(
        None,
        "Largest size of the folder of downloaded shards, in GB; those that were opened longest ago are removed first. "
        "null keeps all.",
        above=0,
        at_most=1_000_000,
    )
    augment: bool | None = option(
        None,
        "Whether training scenes are cropped, flipped and changed in volume (true), which blurs the links of coupling.",
        commands=TRAINING,
    )
    annotations: str | None = option(
        None, "Annotation file; of a folder, a csv or jsonl with columns file, label, start, end.", local=True
    )
    allow_outside: bool | None = option(None, "Read files outside of the folder that its annotation file names.")
    validation_fraction: float | None = option(
        None, "Fraction of the training clips held out for validation, by a hash of their names.", above=0, below=1
    )
    subset: str | None = option(
        None,
        "Part of the data set.",
        by_data_set={
            "audioset": "balanced, unbalanced or all",
            "music": "solo, solo21 or music",
            "avsbench": "s4, ms3 or avss",
        },
    )
    train_list: str | None = option(None, "File that names the training clips.", local=True)
    test_list: str | None = option(None, "File that names the test clips, or the pairs of test clips.", local=True)
    checked_list: str | None = option(
        None,
        "List of usable clips that `deepavfusion data check --out` wrote: training starts without searching the "
        "folder of the data set.",
        local=True,
    )
    drop_overlap: bool | None = option(None, "Leave out training clips that are also test clips.")
    difficulty: str | None = option(None, "Difficulty of the scenes.", choices=("easy", "standard", "hard"))
    min_objects: int | None = option(None, "Minimum number of objects in the image.", range=_SCENES["min_objects"])
    max_objects: int | None = option(None, "Maximum number of objects in the image.", range=_SCENES["max_objects"])
    max_sounding: int | None = option(
        None, "Maximum number of objects that sound; 1 gives every clip a single class.", range=_SCENES["max_sounding"]
    )
    noise: float | None = option(None, "Level of the noise.", range=_SCENES["noise"])
    motion: bool | None = option(None, "Whether objects move.")
    coupling: float | None = option(None, "How closely sounds follow size, place and color.", range=_SCENES["coupling"])
    things: str | None = option(None, "Folder of things (NAME.png with NAME.wav) to make scenes of.", local=True)
    scene_seed: int | None = option(None, "Seed of the scenes.", range=_SCENES["seed"])
    temporal_jitter: bool | None = option(
        None,
        "Whether training draws a window of each clip, and a frame in it, in every epoch (true, as published), or "
        "takes those in the middle.",
        commands=TRAINING,
    )
    windows_per_clip: int | None = option(
        None, "Windows of each training clip in an epoch; null for 1.", range=COUNT, commands=TRAINING
    )
    seconds_per_window: float | None = option(
        None,
        "Instead of windows_per_clip: one window in an epoch for every so many seconds of a training clip.",
        above=0,
        at_most=1_000_000,
        commands=TRAINING,
    )
    eval_split: str = option("test", "Held-out split of the reported metrics.", choices=("validation", "test"))
    selection_split: str = option(
        "validation",
        "Split on which the best checkpoint is selected.",
        choices=("train", "validation", "test"),
        commands=FINETUNING,
    )
    selection_size: int | None = option(
        None,
        "Maximum number of clips of that split; null for eval_size.",
        range=COUNT,
        commands=FINETUNING,
    )
    num_workers: int | None = option(
        None,
        "Worker processes that read clips, per training process; 0 reads in the training process; null for as many as "
        "the training leaves cores, 1 to 16.",
        at_least=0,
        at_most=256,
    )
    max_unreadable_fraction: float = option(
        0.01,
        "Stop, and list the unreadable clips, if more than this fraction of a split cannot be read; unless it is 0, 3 "
        "clips may be in any case, but at most half of them.",
        at_least=0,
        at_most=1,
    )

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return workers_beside() if self.num_workers is None else self.num_workers

    def source(self) -> dict[str, Any]:
        """Return the `data_cfg` of `build_dataset`: all options that are set, except those on splits and reading."""
        reading = ("eval_split", "selection_split", "selection_size", "num_workers", "max_unreadable_fraction")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in reading and v is not None}


__all__ = ["DataArguments"]
