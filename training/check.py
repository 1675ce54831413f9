"""Check a data set: read every clip as training does, and name those that cannot be read.

    deepavfusion data check folder VIDEOS
    deepavfusion data check vggsound VGGSOUND data.annotations=vggsound.csv --num-workers 8
    deepavfusion data check vggsound VGGSOUND --out vggsound.parquet
    deepavfusion pretrain vggsound_base data.path=VGGSOUND data.checked_list=vggsound.parquet

Options of the data set are given as in recipes; data.path=PATH may stand for PATH. Exit codes: 0 all clips can be read;
1 some cannot; 2 for an unusable data set, or a split whose clips an option names and that is unusable.
"""

import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.files import to_json, write_files
from deepavfusion.inference.jobs.progress import Progress, plain_output
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion_cli.boundary import command
from deepavfusion_cli.errors import BAD_INPUT, FAILED, outcome
from deepavfusion_cli.preflight import parse_data
from deepavfusion_cli.terminal import say

from .data.build import SPLITS, build_dataset
from .data.checked import Finding, class_notes, inspect_clips, notable_classes, still_rows, write_listing
from .data.clips import ClipDataset
from .data.files import FileClips
from .data.loading import naming_dead_workers
from .data.sets.folder import WHOLE, WHOLE_FOLDER
from .data.sets.tables import collecting_reads
from .data.sets.vggsound import Missing, collecting_missing
from .data.shards import read_about
from .data.sources import DATA_SETS, with_defaults
from .data.stills import MaskClips, StillClips
from .wording import count, listing, with_path

_NAMED_BY = {"train": "train_list", "test": "test_list"}  # options that name the clips of a split
_FEW_CLASSES = 12  # whose numbers of clips are shown one by one


def splits_of(options: dict) -> Iterator[tuple[str, ClipDataset | Exception]]:
    """The splits of a data set with all their clips, or why they cannot be used.

    Args:
        options: Section `data` of a recipe.

    Raises:
        OSError: The machine fails, such as by an error of a disk.
    """
    name, every = options["name"], {}
    if "temporal_jitter" in DATA_SETS[name].options:
        every["temporal_jitter"] = False  # every frame of a clip is an item
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
            if isinstance(error, OSError) and outcome(error)[0] == FAILED:
                raise  # a failure of the machine says nothing about the split
            yield split, error
            continue
        yield split, clips


def asks_for(options: dict, split: str) -> bool:
    """Whether an option names the clips of a split, so that it is an error if that split cannot be used."""
    return split in _NAMED_BY and options.get(_NAMED_BY[split]) is not None


@dataclass
class Split:
    """A split of a data set, and what was found of its clips."""

    name: str
    clips: ClipDataset
    missing: Missing
    findings: list[Finding]

    @property
    def key(self) -> str | None:
        """Its name, or None for a folder without given splits."""
        return None if WHOLE_FOLDER in self.clips.card else self.name

    @property
    def unusable(self) -> list[Finding]:
        """Findings of the clips that cannot be read."""
        return [finding for finding in self.findings if finding.reason is not None]

    @property
    def short(self) -> list[Finding]:
        """Findings of clips that can be read and are shorter than a window."""
        seconds = DeepAVFusionProcessor.from_config(DeepAVFusionConfig()).feature_extractor.seconds
        usable = (finding for finding in self.findings if finding.reason is None)
        return [finding for finding in usable if finding.seconds is not None and finding.seconds < seconds - 0.1]

    def classes(self) -> dict[str, int]:
        """Number of usable clips of each class."""
        names = self.clips.label_names
        if names is None or not isinstance(self.clips, FileClips):
            return {}
        labels = self.clips.classes()
        numbers = Counter(k for finding in self.findings if finding.reason is None for k in labels[finding.index])
        return {name: numbers[k] for k, name in enumerate(names)}

    def recordings(self) -> list[str]:
        """Recording of each clip, as far as it is known."""
        rows = self.clips.rows if isinstance(self.clips, FileClips) else None
        return rows["recording"][:] if rows is not None and "recording" in rows.column_names else []

    @property
    def usable(self) -> list[int]:
        """The clips that can be read, by number."""
        return [finding.index for finding in self.findings if finding.reason is None]

    def report(self) -> dict[str, Any]:
        """All that was found."""
        return {
            "found": len(self.findings),
            "annotated": self.missing.annotated or None,
            "missing": self.missing.names,
            "not_annotated": self.missing.extra,
            "unreadable": [[finding.path, finding.reason] for finding in self.unusable],
            "without_audio": [finding.path for finding in self.findings if finding.lacks == "audio"],
            "without_images": [finding.path for finding in self.findings if finding.lacks == "images"],
            "shorter_than_window": [[finding.path, finding.seconds] for finding in self.short],
            "clips_per_class": self.classes(),
        }


def described(clips: ClipDataset, split: str) -> str:
    """Description of the clips of a split, in which a folder that has no splits is called that."""
    return clips.card.replace(f", split {split}, {WHOLE_FOLDER}: ", " without given splits: ")


def annotation_notes(missing: Missing, first: bool) -> Iterator[str]:
    """What the annotations name and the disk does not hold, and, with the first split, the reverse."""
    if missing.names:
        total = count(missing.annotated, "annotated clip")
        yield f"missing: {len(missing.names):,} of {total}, first: {missing.names[0]}"
    if missing.extra and first:
        yield f"not annotated: {count(missing.extra, 'clip')} on disk"


def clip_notes(split: Split) -> Iterator[str]:
    """What was found of the clips of a split."""
    for finding in split.unusable:
        yield f"cannot be read: {with_path(finding.path, finding.reason or '')}"
    if split.short:
        first = split.short[0]
        yield f"shorter than a window: {count(len(split.short), 'clip')}, first: {first.path} ({first.seconds:.2f} s)"
    numbers = split.classes()
    if 1 < len(numbers) <= _FEW_CLASSES:
        yield "clips per class: " + "; ".join(f"{name} {number:,}" for name, number in numbers.items())
    elif numbers:
        fewest = sorted(numbers, key=lambda name: (numbers[name], name))
        few = ", ".join(f"{name} ({numbers[name]:,})" for name in fewest[:3])
        middle = statistics.median(numbers.values())
        ends = f"{numbers[fewest[0]]:,} to {numbers[fewest[-1]]:,}"
        yield f"clips per class: {ends}, median {middle:,.0f}; fewest: {few}"
        if empty := [name for name in fewest if not numbers[name]]:
            yield f"without clips: {count(len(empty), 'class', 'classes')}: {listing(empty)}"


def overlap(splits: list[Split]) -> list[str]:
    """Recordings of training clips that are also recordings of test clips."""
    by_name = {split.name: set(split.recordings()) for split in splits if split.key is not None}
    return sorted(by_name.get("train", set()) & by_name.get("test", set()))


def places_of(clips: ClipDataset) -> list[tuple]:
    """What each item of a data set is read from: items for which it is the same are read alike."""
    names = [clips.describe(i) for i in range(len(clips))]
    rows = clips.rows if isinstance(clips, FileClips) else None
    parts = [] if rows is None else [rows[name][:] for name in ("start", "end") if name in rows.column_names]
    return list(zip(names, *parts, strict=True))


def read_splits(options: dict, num_workers: int, decode: bool) -> tuple[list[Split], list[Split], dict[str, Exception]]:
    """Inspect all clips and print what is found.

    Args:
        options: Section `data` of a recipe.
        num_workers: See `inspect_clips`.
        decode: See `inspect_clips`.

    Returns:
        The splits; those of which all clips are in earlier ones, too; and why splits cannot be used.
    """
    found, repeated, failed = [], [], {}
    known: dict[tuple, Finding] = {}
    with collecting_missing() as reports, naming_dead_workers():
        for name, clips in splits_of(options):
            missing = reports[-1] if reports else Missing(0, [], 0)
            reports.clear()
            if not isinstance(clips, ClipDataset):
                failed[name] = clips
                continue
            split = Split(name, clips, missing, [])
            places = places_of(clips)
            again = known.keys() >= set(places)
            if not again or split.key is not None:
                say(described(clips, name))
                for note in annotation_notes(missing, first=not found):
                    say(note)
            if again:
                split.findings += [known[place]._replace(index=i) for i, place in enumerate(places)]
                repeated.append(split)
                if split.key is not None:
                    say("all of these clips are above, too")
                continue
            found.append(split)
            with Progress("clips read", len(clips), "clip") as progress:
                for findings in inspect_clips(clips, num_workers, decode):
                    split.findings += findings
                    progress.update(len(findings))
            known |= {places[finding.index]: finding for finding in split.findings}
            for note in clip_notes(split):
                say(note)
    return found, repeated, failed


def write_list(path: Path, options: dict, splits: list[Split], files: set[Path], started: float) -> None:
    """Write the list of the usable clips, and print what to do with it."""
    rows, classes = {}, None
    for split in splits:
        clips = split.clips
        rows[split.key] = (
            still_rows(clips.rows) if isinstance(clips, StillClips) else clips.annotations(),
            split.findings,
        )
        classes = clips.mask_classes if isinstance(clips, MaskClips) else None
    notes = {split.name: split.clips.card.partition(":")[0].partition(f"split {split.name}, ")[2] for split in splits}
    number = write_listing(path, with_defaults(options), rows, sorted(files), started, notes, classes)
    option = shlex.quote(f"data.checked_list={path}")
    say(f"list of {count(number, 'usable clip')} written to {path}; train with {option}")


@command("deepavfusion data check")
def main(argv: list[str]) -> int:
    """Run the command; returns the exit code (see the module's docstring)."""
    given, options = parse_data(argv)
    plain_output()
    options = {k: v for k, v in options.items() if k != "validation_fraction"}  # its clips are training clips
    options |= {"name": given.name, "path": given.path}
    started = time.time()
    with collecting_reads() as files:
        splits, repeated, failed = read_splits(options, given.num_workers, given.decode)
    if not splits:
        raise [*failed.values()][-1]
    for name, error in failed.items():
        if name != "validation" and given.name != "folder":
            say(f"split {name} is not checked: {outcome(error)[1]}")
    asked = any(asks_for(options, name) for name in failed)
    common = overlap([*splits, *repeated])
    if common:
        say(f"overlap: {count(len(common), 'recording')} of the test split also in training, first: {common[0]}")
    named = given.name == "folder" and not files  # classes by their folders
    usable = [(split.clips, split.usable) for split in (*splits, *repeated)]
    single, folders = notable_classes(usable, given.path if named else None)
    for note in class_notes(single, folders):
        say(note)
    if given.report is not None:
        report = {split.key or "clips": split.report() for split in [*repeated, *splits]}
        report = {name: report[name] for name in (*SPLITS, "clips") if name in report}
        content = {"data": options, "splits": report, "recordings_in_training_and_test": common}
        content |= {"classes_with_one_recording": single, "classes_in_several_folders": folders}
        write_files({given.report: to_json(content).encode("utf-8", "surrogateescape")}, overwrite=True)
        say(f"report written to {given.report}")
    total, broken = (sum(len(part) for part in parts) for parts in zip(*((s.findings, s.unusable) for s in splits)))
    if given.out is not None and broken < total:
        write_list(given.out, options, [*splits, *repeated], files, started)
    kinds = Counter(finding.lacks for split in splits for finding in split.unusable if finding.lacks)
    detail = ", ".join(f"{number:,} without {kind}" for kind, number in kinds.items())
    readable = "all can be read" if given.decode else "the headers of all can be read"
    found = f"{broken:,} cannot be read{f' ({detail})' if detail else ''}" if broken else readable
    say(f"{count(total, 'clip')} checked: {found}")
    return BAD_INPUT if asked else FAILED if broken else 0


if __name__ == "__main__":
    sys.exit(main())
