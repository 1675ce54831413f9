"""Preparation of a data set: every clip decoded once, in processes, into shards; interrupted, it goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from deepavfusion.inference.files import write_atomically
from deepavfusion.processors import MediaError

from .audio import AUDIO_FORMATS
from .encoding import EncodedClip, Encoding, encode_clip
from .members import TarWriter
from .reading import VERSION
from .video import VIDEO_FORMATS

_SAMPLE = 8  # clips that are encoded to estimate the size


class FolderTakenError(ValueError):
    """The folder holds something else than this preparation."""


@dataclass(frozen=True)
class Preparation:
    """A data set to prepare.

    Attributes:
        rows: Split -> `datasets.Dataset` of `make_rows`; None stands for clips without splits.
        root: Folder that the names of the clips are relative to.
        about: Description of the data set, which `dataset.json` repeats: a dictionary of JSON values.
        encoding: How clips are stored.
        clips_per_shard: Number of clips per tar file.
    """

    rows: dict[str | None, Any]
    root: str
    about: dict[str, Any]
    encoding: Encoding = field(default_factory=Encoding)
    clips_per_shard: int = 256

    def name(self, path: str) -> str:
        """Name of a file in the prepared data set: its path below `root`, or, outside of that, all of it."""
        inside = os.path.relpath(path, self.root)
        return path if inside.startswith("..") else inside.replace(os.sep, "/")

    def shards(self) -> list[tuple[str, str | None, range]]:
        """Name, split and rows of each shard."""
        found = []
        for split, rows in self.rows.items():
            for k, first in enumerate(range(0, len(rows), self.clips_per_shard)):
                name = f"{split or 'clips'}-{k:06d}"
                found.append((name, split, range(first, min(first + self.clips_per_shard, len(rows)))))
        return found

    @property
    def num_clips(self) -> int:
        """Number of clips of all splits."""
        return sum(map(len, self.rows.values()))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the rows, which shards must agree with."""
        found = hashlib.sha256()
        for split, rows in self.rows.items():
            found.update(f"{split} {len(rows)}".encode())
            for start in range(0, len(rows), 10_000):
                part = rows[start : start + 10_000]
                part["path"] = [self.name(path) for path in part["path"]]
                found.update(json.dumps(part, sort_keys=True).encode())
        return found.hexdigest()

    def settings(self) -> dict[str, Any]:
        """What the bytes of the shards depend on, beside the rows."""
        return {"version": VERSION, **asdict(self.encoding), "clips_per_shard": self.clips_per_shard}


def estimate_bytes(preparation: Preparation) -> int:
    """Estimate the size of all shards from a few clips, spread over the data set."""
    sizes = []
    for rows in preparation.rows.values():
        step = max(1, len(rows) * len(preparation.rows) // _SAMPLE)
        for i in range(0, len(rows), step):
            row = rows[i]
            try:
                with closing(encode_clip(row["path"], preparation.encoding, row.get("start"), row.get("end"))) as clip:
                    sizes.append(clip.size + 3072)
            except MediaError:
                continue
    return 0 if not sizes else round(sum(sizes) / len(sizes) * preparation.num_clips)


def prepare(preparation: Preparation, out: str | Path, num_workers: int = 1) -> Iterator[int]:
    """Write the shards and the index; the same files, whether or not it was interrupted, and with any `num_workers`.

    Args:
        preparation: What to write.
        out: Folder; new, empty, or with an unfinished preparation of the same data.
        num_workers: Number of processes.

    Yields:
        Numbers of clips that have just been written, or were found written.

    Raises:
        FolderTakenError: The folder holds something else; nothing is written.
    """
    out = Path(out)
    claim(preparation, out)
    shards = preparation.shards()
    pending = []
    for name, split, places in shards:
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


def claim(preparation: Preparation, out: Path) -> None:
    """Mark a folder as that of a preparation, or check that it is."""
    mark = out / "parts" / "preparation.json"
    content = {"settings": preparation.settings(), "data": preparation.about, "rows": preparation.fingerprint}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    if mark.is_file():
        found = mark.read_text(encoding="utf-8")
        if found != text:
            earlier = json.loads(found)
            changed = [
                f"{key}={earlier['settings'].get(key)}, now {value}"
                for key, value in content["settings"].items()
                if earlier["settings"].get(key) != value
            ]
            reason = f"with {'; '.join(changed)}" if changed else "of other clips"
            raise FolderTakenError(f"{out} holds a preparation {reason}; choose another folder, or delete it.")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FolderTakenError(f"{out} exists and is not a preparation; choose a new or empty folder.")
    (out / "parts").mkdir(parents=True)
    (out / "shards").mkdir()
    write_atomically(mark, text)


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
                    entry = _add_clip(
                        tar, f"{split or 'clips'}-{i:08d}", row, rows.features, preparation, temporary.parent
                    )
                except MediaError as error:
                    broken.append([preparation.name(row["path"]), str(error)])
                    continue
                index.append({"row": i, "shard": shard, **entry})
            tar.close()
            file.flush()
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        os.replace(temporary, out / "shards" / shard)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    write_atomically(_part(out, name), json.dumps({"bytes": size, "index": index, "broken": broken}) + "\n")


def _add_clip(tar: TarWriter, key: str, row: dict, features, preparation: Preparation, folder: Path) -> dict[str, Any]:
    encoding = preparation.encoding
    with closing(encode_clip(row["path"], encoding, row.get("start"), row.get("end"), str(folder))) as clip:
        tar.add(f"{key}.json", json.dumps(_about_clip(row, features, clip, preparation)).encode())
        video = tar.add(f"{key}.{VIDEO_FORMATS[encoding.video].suffix}", clip.video)
        audio = tar.add(f"{key}.{AUDIO_FORMATS[encoding.audio].suffix}", clip.audio)
    return {
        "video_offset": video.offset + clip.video_places.offset,
        "frame_ends": clip.video_places.ends,
        "frame_times": clip.video_places.times,
        "image_start": clip.image_span[0],
        "image_end": clip.image_span[1],
        "audio_offset": audio.offset + clip.audio_places.offset,
        "audio_ends": clip.audio_places.ends,
        "audio_start": clip.audio_span[0],
        "audio_end": clip.audio_span[1],
    }


def _about_clip(row: dict, features, clip: EncodedClip, preparation: Preparation) -> dict[str, Any]:
    """What the JSON member of a clip says."""
    about = {
        "source": preparation.name(row["path"]),
        **{k: row[k] for k in ("start", "end", "recording", "clip") if row.get(k) is not None},
    }
    if "label" in row:
        feature, label = features["label"], row["label"]
        several = isinstance(label, list)
        names = [(feature.feature if several else feature).int2str(c) for c in (label if several else [label])]
        about["label"] = names if several else names[0]
    return about | {"frame_times": clip.video_places.times, "audio_start": clip.audio_span[0]}


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


__all__ = [
    "FolderTakenError",
    "Preparation",
    "claim",
    "estimate_bytes",
    "free_bytes",
    "prepare",
    "read_part",
    "write_shard",
]
