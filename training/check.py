"""Check a data set: read every clip as training does, and name those that cannot be read.

    deepavfusion data check folder VIDEOS
    deepavfusion data check vggsound VGGSOUND data.annotations=vggsound.csv --num-workers 8

Options of the data set are given as in recipes; data.path=PATH may stand for PATH. Exit codes: 0 all clips can be read;
1 some cannot; 2 for an unusable data set.
"""

import sys
from collections.abc import Iterator

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.jobs.progress import plain_output, with_progress
from deepavfusion_cli.boundary import command
from deepavfusion_cli.errors import BAD_INPUT, FAILED
from deepavfusion_cli.preflight import parse_data
from deepavfusion_cli.terminal import say

from .data.build import SPLITS, build_dataset
from .data.clips import ClipDataset
from .data.loading import evaluation_loader
from .data.sets.folder import WHOLE, WHOLE_FOLDER
from .data.shards import read_about
from .data.sources import DATA_SETS
from .wording import count, with_path

_BATCH = 8


def splits_of(options: dict, repeated: bool = False) -> Iterator[tuple[str, ClipDataset | Exception]]:
    """The splits of a data set with all their clips, or why they cannot be used.

    Args:
        options: Section `data` of a recipe.
        repeated: Whether to yield splits whose clips are all in earlier ones.
    """
    seen: set[str] = set()
    name, every = options["name"], {"temporal_jitter": False}  # every frame of a clip is an item
    if name == "folder":
        every["validation_fraction"] = WHOLE
    for split in SPLITS:
        train = split == "train"  # only then clips may lack boxes
        try:
            tasks = DATA_SETS[name].tasks
            if name == "shards":
                tasks = read_about(options["path"], options.get("cache_dir"))["tasks"]
            clips = build_dataset(options | every, DeepAVFusionConfig(), split, train=train, seed=0, task=tasks[0])
        except (OSError, ValueError) as error:
            yield split, error
            continue
        paths = {clips.describe(i) for i in range(len(clips))}
        if repeated or not paths <= seen:
            yield split, clips
        seen |= paths


def described(clips: ClipDataset, split: str) -> str:
    """Description of the clips of a split, in which a folder that has no splits is called that."""
    return clips.card.replace(f", split {split}, {WHOLE_FOLDER}: ", " without given splits: ")


def unreadable(clips: ClipDataset, num_workers: int) -> Iterator[tuple[str, str]]:
    """Read all clips and yield (path, reason) of those that cannot be read.

    Args:
        clips: Data set.
        num_workers: Worker processes; 0 reads in this process.
    """
    loader = evaluation_loader(clips, _BATCH, 1, 0, num_workers)
    for batch in with_progress(loader, "clips read", "batch", plural="batches"):
        yield from batch["broken"]


@command("deepavfusion data check")
def main(argv: list[str]) -> int:
    """Run the command; returns the exit code (see the module's docstring)."""
    given, options = parse_data(argv)
    plain_output()
    options = {**options, "name": given.name, "path": given.path}
    splits = list(splits_of(options))
    usable = [clips for _, clips in splits if isinstance(clips, ClipDataset)]
    if not usable:
        say(f"deepavfusion data check: {splits[-1][1]}", stream=sys.stderr)
        return BAD_INPUT
    total = broken = 0
    for split, clips in splits:
        if not isinstance(clips, ClipDataset):
            if split != "validation" and given.name != "folder":
                say(f"split {split} is not checked: {clips}")
            continue
        say(described(clips, split))
        total += len(clips)
        for path, reason in unreadable(clips, given.num_workers):
            broken += 1
            say(f"cannot be read: {with_path(path, reason)}")
    say(f"{count(total, 'clip')} checked: {f'{broken:,} cannot be read' if broken else 'all can be read'}")
    return FAILED if broken else 0


if __name__ == "__main__":
    sys.exit(main())
