"""Prepare a data set for training: decode every clip once, and store frames and audio in shards with an index.

    deepavfusion data prepare folder VIDEOS PREPARED
    deepavfusion data prepare vggsound VGGSOUND PREPARED --num-workers 8 --audio pcm
    deepavfusion pretrain vggsound_base data.name=shards data.path=PREPARED

An interrupted preparation goes on when the same command is run again. With --part K/N, several machines share the work.
Exit codes: 0 all clips are stored; 1 some could not be read, and are left out; 2 for an unusable data set or folder, or
a split whose clips an option names and that is unusable.
"""

import os
import sys
from contextlib import closing
from functools import partial

from deepavfusion.inference.jobs.progress import Progress, plain_output
from deepavfusion_cli.boundary import command
from deepavfusion_cli.early.data import check_preparation
from deepavfusion_cli.errors import BAD_INPUT, FAILED, outcome
from deepavfusion_cli.preflight import parse_data
from deepavfusion_cli.terminal import say

from .check import asks_for, splits_of
from .data.files import FileClips
from .data.shards import (
    Encoding,
    Preparation,
    begun_shard_size,
    changed_sources,
    chosen_options,
    estimate_bytes,
    finish,
    free_bytes,
    is_claimed,
    is_finished,
    list_digests,
    pending_shards,
    prepare,
    still_rows,
)
from .data.shards.preparation import stored_name
from .data.sources import DATA_SETS, with_defaults
from .data.stills import BoxClips, MaskClips, StillClips
from .suggestions import next_commands
from .wording import count, with_path

_GB = 1e9
_VIDEO_SIDE = 360  # short side of H.264 in pixels, as of the published training's videos


def preparation_of(options: dict, encoding: Encoding, clips_per_shard: int | None = None) -> Preparation:
    """What is prepared of a data set: all clips of all splits, each once.

    Args:
        options: Section `data` of a recipe.
        encoding: How clips are stored.
        clips_per_shard: Number of clips per tar file; see `Preparation`.

    Raises:
        OSError: A file of the data set is missing or cannot be read.
        ValueError: The data set has no clips, or is prepared already; or a split whose clips an option names cannot be
            used.
    """
    name, root = options["name"], str(options["path"])
    check_preparation(name, options)
    rows, reasons = {}, {}
    given = chosen_options(with_defaults(options))
    about: dict = {"data": name, "tasks": list(DATA_SETS[name].tasks), "options": given}
    for split, clips in splits_of(options):
        if isinstance(clips, FileClips):
            whole = name == "folder" and set(clips.rows["split"]) == {None}
            rows[None if whole else split] = clips.rows
            about["kind"] = "videos"
            if clips.pairs is not None:
                about.setdefault("pairs", {})[split] = [list(pair) for pair in clips.pairs]
        elif isinstance(clips, StillClips):
            rows[split] = still_rows(clips.rows, os.path.abspath, partial(stored_name, root=root))
            if isinstance(clips, MaskClips):
                about |= {"kind": "masks", "classes": clips.mask_classes}
            elif isinstance(clips, BoxClips):
                about |= {"kind": "boxes", "required_boxes": clips.required_boxes}
        elif isinstance(clips, Exception):
            if asks_for(options, split):
                raise clips
            reasons[split] = clips
    if not rows:
        raise [*reasons.values()][-1]
    for split, reason in reasons.items():
        if split != "validation" and name != "folder":
            say(f"split {split} is not prepared: {outcome(reason)[1]}", stream=sys.stderr)
    if digests := list_digests(options):
        about["digests"] = digests
    return Preparation(rows, root, about, encoding, clips_per_shard)


def encoding_of(given) -> Encoding:
    """How the arguments of the command say that clips are stored."""
    numbers = {"fps": given.fps, "short_side": given.short_side, "quality": given.quality}
    if given.keep_video:
        numbers = {"short_side": given.short_side or _VIDEO_SIDE}
    numbers = {name: value for name, value in numbers.items() if value is not None}
    return Encoding(audio=given.audio, video="h264" if given.keep_video else "jpeg", **numbers)


@command("deepavfusion data prepare")
def main(argv: list[str]) -> int:
    """Run the command; returns the exit code (see the module's docstring)."""
    given, options = parse_data(argv)
    plain_output()
    preparation = preparation_of(
        {"name": given.name, "path": given.path, **options},
        encoding_of(given),
        given.clips_per_shard or begun_shard_size(given.out),
    )
    begun = is_claimed(preparation, given.out)
    (number, parts), shards = given.part, preparation.shards()[given.part[0] :: given.part[1]]
    changed = changed_sources(preparation, given.out, shards)
    pending = pending_shards(preparation, given.out, given.part, changed)
    if changed:
        files = sorted({file for some in changed.values() for file in some})
        what = f"{count(len(files), 'file')} changed after being stored, first: {files[0]}"
        say(f"{what}; written again: {count(len(changed), 'shard')}")
    if given.check_space and pending and not has_space(preparation, given, begun):
        return BAD_INPUT
    total, left = (sum(len(shard.rows) for shard in some) for some in (shards, pending))
    if 0 < left < total:
        say(f"{total - left:,} of {count(total, 'clip')} are there already; the others follow")
    with (
        Progress("clips stored", total, "clip", done=total - left) as progress,
        closing(prepare(preparation, given.out, given.num_workers, pending)) as written,
    ):
        for clips in written:
            progress.update(clips)
    if parts > 1:
        there = "" if pending else " was there already, nothing is left to do"
        say(f"part {number} of {parts}{there}: {count(len(shards), 'shard')} in {given.out}")
        say("\nWhen all parts are there, the same command without --part writes their index.", kept="\n")
        return 0
    whole = not pending and is_finished(given.out)
    prepared = finish(preparation, given.out)
    for path, reason in prepared.broken:
        say(f"left out: {with_path(path, reason)}")
    left_out = f"; {len(prepared.broken):,} could not be read" if prepared.broken else ""
    done, stored = count(prepared.clips, "clip"), f"in {given.out}, {prepared.bytes / _GB:,.2f} GB{left_out}"
    if whole:
        done = f"everything was there already, nothing is left to do: {done} in {count(len(shards), 'shard')}"
    say(f"{done} {'' if whole else 'stored '}{stored}")
    if lines := next_commands(preparation, given.out):
        model = ", with a model in place of MODEL" if any(line.endswith((" MODEL", "=MODEL")) for line in lines) else ""
        say(f"\nnext{model}:", kept="\n")
        for line in lines:
            say(f"  {line}")
    return FAILED if prepared.broken else 0


def has_space(preparation: Preparation, given, begun: bool) -> bool:
    """Whether the disk has space for all shards, as estimated; says so, and what to do if not.

    Args:
        preparation: What is to be written.
        given: Arguments of the command.
        begun: Whether the folder holds a part of it.
    """
    need, free = estimate_bytes(preparation), free_bytes(given.out)
    have = sum(path.stat().st_size for path in (given.out / "shards").glob("*.tar"))
    clips, place = count(preparation.num_clips, "clip"), f"in {given.out}, where {free / _GB:,.2f} GB are free"
    say(f"{clips}: about {need / _GB:,.2f} GB {place}")
    if need - have <= free:
        return True
    smaller = "--short-side" if given.keep_video else "--fps, --short-side or --quality"
    # What was begun holds on to its settings.
    advice = "free space there" if begun else f"choose another folder, or a lower {smaller}"
    say(f"deepavfusion data prepare: the disk is too small; {advice}", stream=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
