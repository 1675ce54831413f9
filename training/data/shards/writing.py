"""Preparation of a data set: every clip decoded once, in processes, into shards; interrupted, it goes on."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from deepavfusion.inference.files import write_atomically
from deepavfusion.processors import MediaError

from .audio import AUDIO_FORMATS
from .encoding import EncodedClip
from .members import TarWriter
from .preparation import Preparation, claim
from .stills import FRAME_COLUMNS, EncodedStills

_SAMPLE = 8  # clips that are encoded to estimate the size


def estimate_bytes(preparation: Preparation) -> int:
    """Estimate the size of all shards from a few clips, spread over the data set."""
    sizes = []
    for rows in preparation.rows.values():
        step = max(1, len(rows) * len(preparation.rows) // _SAMPLE)
        for i in range(0, len(rows), step):
            try:
                with closing(preparation.encode(rows[i])) as found:
                    sizes.append(found.size + 3072)
            except MediaError:
                continue
    return 0 if not sizes else round(sum(sizes) / len(sizes) * preparation.num_clips)


def prepare(
    preparation: Preparation, out: str | Path, num_workers: int = 1, part: tuple[int, int] = (0, 1)
) -> Iterator[int]:
    """Write the shards; the same files, whether or not it was interrupted, and with any `num_workers` and parts.

    Args:
        preparation: What to write.
        out: Folder; new, empty, or with an unfinished preparation of the same data.
        num_workers: Number of processes.
        part: (k, n) writes shards k, k + n, k + 2 n ..., so that n machines share the work.

    Yields:
        Numbers of clips that have just been written, or were found written.

    Raises:
        FolderTakenError: The folder holds something else; nothing is written.
    """
    out = Path(out)
    claim(preparation, out)
    pending = []
    for name, split, places in preparation.shards()[part[0] :: part[1]]:
        part = read_part(out, name)
        if part is not None:
            yield len(places)
        else:
            pending.append((name, split, places))
    if num_workers <= 1:
        for name, split, places in pending:
            write_shard(preparation, out, name, split, places)
            yield len(places)
    else:
        # Threads of this process do not exist in forked ones, where torch would wait for them.
        with ProcessPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            jobs = {pool.submit(write_shard, preparation, out, *shard): shard for shard in pending}
            try:
                for job in as_completed(jobs):
                    job.result()
                    yield len(jobs[job][2])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def write_shard(preparation: Preparation, out: Path, name: str, split: str | None, places: Sequence[int]) -> None:
    """Write one shard and its part of the index, each atomically."""
    rows, index, broken = preparation.rows[split], [], []
    shard = f"{name}.tar"
    temporary = out / "shards" / f".{shard}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            tar = TarWriter(file)
            for i in places:
                row = rows[i]
                try:
                    found = preparation.encode(row, str(temporary.parent))
                except MediaError as error:
                    broken += [[name, str(error)] for name in row.get("name", [preparation.name(row["path"])])]
                    continue
                with closing(found):
                    entry: dict[str, Any] = {"row": i, "shard": shard}
                    if isinstance(found, EncodedStills):
                        broken += found.broken
                        if found.clip is None:
                            continue
                        entry |= {column: [row[column][k] for k in found.kept] for column in FRAME_COLUMNS}
                    about = _about(row, rows.features, preparation)
                    suffix = AUDIO_FORMATS[preparation.encoding.audio].suffix
                    index.append(entry | _add_clip(tar, f"{split or 'clips'}-{i:08d}", found, about, suffix))
            tar.close()
            file.flush()
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        os.replace(temporary, out / "shards" / shard)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    write_atomically(_part(out, name), json.dumps({"bytes": size, "index": index, "broken": broken}) + "\n")


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
    """A shard's part of the index, if the shard is whole."""
    path, shard = _part(out, name), out / "shards" / f"{name}.tar"
    if not path.is_file() or not shard.is_file():
        return None
    part = json.loads(path.read_text(encoding="utf-8"))
    return part if shard.stat().st_size == part["bytes"] else None


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder that may not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


__all__ = ["estimate_bytes", "free_bytes", "prepare", "read_part", "write_shard"]
