"""Preparation of a data set: every clip decoded once, in processes, into shards; interrupted, it goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from deepavfusion.inference.jobs.progress import announced, with_progress
from deepavfusion.processors import MediaError
from deepavfusion_cli.errors import DATA_ADVICE

from ..loading import run_jobs
from .audio import AUDIO_FORMATS
from .drafts import remove_dead_drafts, writing
from .encoding import EncodedClip
from .members import TarWriter
from .preparation import WITHOUT_SPLITS, Preparation, Shard, claim
from .reading import ABOUT, read_json
from .stills import FRAME_COLUMNS, EncodedStills

_SAMPLE = 8  # clips that are encoded to estimate the size, rounded up for each split
_SAMPLE_SECONDS = 30.0  # of each


def estimate_bytes(preparation: Preparation) -> int:
    """Estimate the size of all shards from the first seconds of a few clips, spread over the data set."""
    chosen = []
    for rows in preparation.rows.values():
        step = max(1, len(rows) * len(preparation.rows) // _SAMPLE)
        chosen += [(rows, i) for i in range(0, len(rows), step)]
    sizes = []
    for rows, i in with_progress(chosen, "size estimated", "clip"):
        try:
            with closing(preparation.encode(rows[i], seconds=_SAMPLE_SECONDS)) as found:
                sizes.append(found.size + 3072)
        except MediaError:
            continue
    return 0 if not sizes else round(sum(sizes) / len(sizes) * preparation.num_clips)


def pending_shards(
    preparation: Preparation,
    out: str | Path,
    part: tuple[int, int] = (0, 1),
    changed: Collection[str] | None = None,
) -> list[Shard]:
    """The shards of a preparation that are not in its folder, not whole, or of files that have changed since.

    Args:
        preparation: What is prepared.
        out: Its folder.
        part: (k, n) stands for shards k, k + n, k + 2 n ..., so that n machines share the work.
        changed: Names of shards of changed files, if they are known: those of `changed_sources`.

    Raises:
        ValueError: The part of the index of a shard is damaged.
    """
    shards = preparation.shards()[part[0] :: part[1]]
    changed = changed_sources(preparation, out, shards) if changed is None else changed
    return [shard for shard in shards if shard.name in changed or read_part(Path(out), shard.name) is None]


def changed_sources(preparation: Preparation, out: str | Path, shards: Sequence[Shard]) -> dict[str, list[str]]:
    """Shards that are there -> the files that are no longer those that they were written from.

    A file whose size and time of modification are the same has not changed; one of the same size and another time, such
    as a copy, is compared by its content. What earlier versions wrote is taken to be up to date.

    Args:
        preparation: What is prepared.
        out: Its folder.
        shards: Some of its shards.

    Raises:
        ValueError: The part of the index of a shard is damaged.
    """
    found = {}
    with announced("comparing files with what is stored of them"):
        for shard in shards:
            part = read_part(Path(out), shard.name)
            sources = {} if part is None else part.get("sources", {})
            stored = {preparation.path(name): state for name, state in sources.items()}
            if changed := [path for path, state in stored.items() if not _is_same(path, state)]:
                found[shard.name] = changed
    return found


def _state(path: str) -> list | None:
    """Size, time of modification in ns and digest of a file; None of one that cannot be read."""
    try:
        about = os.stat(path)
        return [about.st_size, about.st_mtime_ns, _digest(path, about.st_size, about.st_mtime_ns)]
    except OSError:
        return None


@lru_cache(maxsize=1024)  # of a recording with many clips, or audio with many frames
def _digest(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_same(path: str, stored: list | None) -> bool:
    try:
        about = os.stat(path)
    except OSError:
        return stored is None
    size, modified, content = stored or (None, None, None)
    if about.st_size != size:
        return False
    return about.st_mtime_ns == modified or (_state(path) or [None])[-1] == content


def prepare(
    preparation: Preparation, out: str | Path, num_workers: int = 1, shards: Sequence[Shard] | None = None
) -> Iterator[int]:
    """Write shards; the same files, whether or not it was interrupted, and with any `num_workers` and parts.

    Args:
        preparation: What to write.
        out: Folder; new, empty, or with an unfinished preparation of the same data.
        num_workers: Number of processes.
        shards: Those of `pending_shards`, which are all by default.

    Yields:
        Numbers of clips that have been written, or could not be read, since the last one. A shard appears once all of
        its clips have been written.

    Raises:
        FolderTakenError: The folder holds something else; nothing is written.
        DeadWorkerError: A process ended; the message names the shard that it held.
    """
    out = Path(out)
    claim(preparation, out)
    _remove_dead_drafts(out)
    pending = {shard.name: shard for shard in (pending_shards(preparation, out) if shards is None else shards)}
    if pending:  # until its index is that of all shards, the data set is not whole
        (out / ABOUT).unlink(missing_ok=True)
    write = partial(write_shard, preparation, out)
    if num_workers <= 1:
        for shard in pending.values():
            yield from write(*shard)
        return
    advice = f"{DATA_ADVICE}. The same command goes on where this one ended"
    try:
        with closing(run_jobs(write, pending, num_workers, advice, "shard")) as done:
            yield from done
    except BaseException:
        _remove_dead_drafts(out)  # of processes that were killed
        raise


def _remove_dead_drafts(out: Path) -> None:
    for folder in (out, out / "parts", out / "shards"):
        remove_dead_drafts(folder)


def write_shard(
    preparation: Preparation, out: Path, name: str, split: str | None, places: Sequence[int]
) -> Iterator[int]:
    """Write one shard and its part of the index, each atomically; yields 1 after each clip."""
    index, broken, sources = [], [], {}
    with writing(out / "shards" / f"{name}.tar") as file:
        tar = TarWriter(file)
        for i in places:
            row = preparation.rows[split][i]
            own = {name: _state(preparation.path(name)) for name in _source_names(preparation, row)}
            sources |= own
            entry, unreadable = _write_clip(preparation, out, tar, f"{name}.tar", split, i)
            broken += unreadable
            if entry is not None:
                state = own[preparation.name(row["path"])]
                index.append(entry | {"bytes": None if state is None else state[0]})
            yield 1
        tar.close()
        size = file.tell()
    with writing(_part(out, name)) as file:
        file.write((json.dumps({"bytes": size, "index": index, "broken": broken, "sources": sources}) + "\n").encode())


def _source_names(preparation: Preparation, row: dict) -> list[str]:
    """Names of the files that a clip is made of."""
    frames = [name for column in ("image", "mask") for name in row.get(column) or () if name is not None]
    return list(dict.fromkeys([preparation.name(row["path"]), *frames]))


def _write_clip(
    preparation: Preparation, out: Path, tar: TarWriter, shard: str, split: str | None, i: int
) -> tuple[dict[str, Any] | None, list]:
    """Write a clip; returns its entry of the index, if there is one, and (name, reason) of what cannot be read."""
    rows, broken = preparation.rows[split], []
    row = rows[i]
    try:
        found = preparation.encode(row, str(out / "shards"))
    except MediaError as error:
        return None, [[name, str(error)] for name in row.get("name", [preparation.name(row["path"])])]
    with closing(found):
        entry: dict[str, Any] = {"row": i, "shard": shard}
        if isinstance(found, EncodedStills):
            broken += found.broken
            if found.clip is None:
                return None, broken
            entry |= {column: [row[column][k] for k in found.kept] for column in FRAME_COLUMNS}
        about = _about(row, rows.features, preparation)
        suffix = AUDIO_FORMATS[preparation.encoding.audio].suffix
        return entry | _add_clip(tar, f"{split or WITHOUT_SPLITS}-{i:08d}", found, about, suffix), broken


def _about(row: dict, features, preparation: Preparation) -> dict[str, Any]:
    """What the annotations say of a clip; the same fields for all clips of a split."""
    (recording,) = preparation.recordings({"path": [row["path"]], "recording": [row.get("recording")]})
    about = {"source": preparation.name(row["path"]), "recording": recording}
    about |= {key: row[key] for key in ("clip", "image", "boxes") if key in row}
    if "label" in row:
        feature, label = features["label"], row["label"]
        several = isinstance(label, list)
        names = [(feature.feature if several else feature).int2str(c) for c in (label if several else [label])]
        about["label"] = names if several else names[0]
    return about


def _add_clip(
    tar: TarWriter, key: str, found: EncodedClip | EncodedStills, about: dict, audio_suffix: str
) -> dict[str, Any]:
    """Add the members of a clip; returns their places."""
    stills = found if isinstance(found, EncodedStills) else None
    clip = found if stills is None else stills.clip
    images, places = clip.image_span or (None, None), clip.video_places
    about |= {"frame_times": places.times, "audio_start": clip.audio_span[0], "audio_end": clip.audio_span[1]}
    tar.add(f"{key}.json", json.dumps(about).encode())
    video = tar.add(f"{key}.{clip.video_suffix}", clip.video)
    audio = tar.add(f"{key}.{audio_suffix}", clip.audio)
    entry = {
        "video_offset": video.offset + places.offset,
        "frame_ends": places.ends,
        "frame_times": places.times,
        "image_start": images[0],
        "image_end": images[1],
        "audio_offset": audio.offset + clip.audio_places.offset,
        "audio_ends": clip.audio_places.ends,
        "audio_start": clip.audio_span[0],
        "audio_end": clip.audio_span[1],
    }
    if stills is None:
        return entry
    if stills.mask_places is None:
        return entry | {"mask_offset": None, "mask_ends": []}
    masks = tar.add(f"{key}.masks.mov", stills.masks)
    return entry | {"mask_offset": masks.offset + stills.mask_places.offset, "mask_ends": stills.mask_places.ends}


def _part(out: Path, name: str) -> Path:
    return out / "parts" / f"{name}.json"


def read_part(out: Path, name: str) -> dict | None:
    """A shard's part of the index, if the shard is whole.

    Raises:
        ValueError: The part is damaged.
    """
    path, shard = _part(out, name), out / "shards" / f"{name}.tar"
    if not path.is_file() or not shard.is_file():
        return None
    advice = "delete it, and the same `deepavfusion data prepare` writes its shard again"
    part = read_json(path, {"bytes": int, "index": list, "broken": list}, advice)
    return part if shard.stat().st_size == part["bytes"] else None


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder that may not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


__all__ = ["changed_sources", "estimate_bytes", "free_bytes", "pending_shards", "prepare", "read_part", "write_shard"]
