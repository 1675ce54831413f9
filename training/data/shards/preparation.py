"""A data set to prepare: its clips, what is said of them, and the folder that is theirs."""

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from deepavfusion_cli.early.contents import is_video
from deepavfusion_cli.early.data import PREPARATION, FolderTakenError, is_preparation

from ..sets.names import recording_of
from .drafts import writing
from .encoding import EncodedClip, Encoding, encode_clip
from .reading import VERSION, read_json
from .stills import EncodedStills, encode_stills, stills_of

WITHOUT_SPLITS = "clips"  # stands for a split in names and numbers of clips, where there are none
_SHARDS, _MOST_CLIPS = 100, 256  # shards of a data set by default, and clips of each at most


class Shard(NamedTuple):
    """A tar file to write: its name without a suffix, the split of its clips, and their rows."""

    name: str
    split: str | None
    rows: range


@dataclass(frozen=True)
class Preparation:
    """A data set to prepare.

    Attributes:
        rows: Split -> `datasets.Dataset` of `make_rows` or `still_rows`; None stands for clips without splits.
        root: Folder of the data set.
        about: What `dataset.json` repeats, a dictionary of JSON values: `data`, the name of the data set; `kind`,
            `"videos"`, `"masks"` or `"boxes"`; the `tasks` that it supports; the `options` that chose its clips; of
            videos `pairs`, split -> positions of clips to mix, if they are given; of masks `classes`, their names by
            pixel value, or None; of boxes `required_boxes`, the number of them required for consensus.
        encoding: How clips are stored.
        clips_per_shard: Number of clips per tar file; by default a hundredth of all, at least 1 and at most 256.
    """

    rows: dict[str | None, Any]
    root: str
    about: dict[str, Any]
    encoding: Encoding = field(default_factory=Encoding)
    clips_per_shard: int | None = None

    def name(self, path: str) -> str:
        """Name of a file in the prepared data set: its path from the folder above `root`; of others, all of it."""
        return stored_name(path, self.root)

    def path(self, name: str) -> str:
        """The absolute path of a file, given its name."""
        return os.path.join(os.path.dirname(os.path.abspath(self.root)), name)

    def recordings(self, rows: dict[str, list]) -> list[str]:
        """The recording of each of some rows, given as columns: a name, or that of the file."""
        own = rows.get("recording") or [None] * len(rows["path"])
        found = [recording_of(path) if name is None else name for path, name in zip(rows["path"], own, strict=True)]
        return [
            self.name(name) if name == path or _is_file(name) else name  # another one if it is linked
            for path, name in zip(rows["path"], found, strict=True)
        ]

    def encode(self, row: dict, folder: str | None = None, seconds: float = math.inf) -> EncodedClip | EncodedStills:
        """Encode the clip of a row, which is to be closed.

        Args:
            row: The row.
            folder: Folder for what is too large for memory; by default, that of temporary files.
            seconds: Largest length of what is encoded of a clip of which all frames are stored, for an estimate.

        Raises:
            MediaError: It cannot be read.
        """
        if self.about["kind"] == "videos":
            return encode_clip(row["path"], self.encoding, row.get("start"), row.get("end"), folder, seconds)
        classes = self.about.get("classes")
        return encode_stills(stills_of(row, path=self.path), self.encoding, classes and len(classes), folder, seconds)

    def shards(self) -> list[Shard]:
        """All shards."""
        found, size = [], self.shard_size
        for split, rows in self.rows.items():
            for k, first in enumerate(range(0, len(rows), size)):
                found.append(
                    Shard(f"{split or WITHOUT_SPLITS}-{k:06d}", split, range(first, min(first + size, len(rows))))
                )
        return found

    @property
    def shard_size(self) -> int:
        """Number of clips per tar file: few of a small data set, which loses what is being written if it is killed."""
        return self.clips_per_shard or min(max(1, -(-self.num_clips // _SHARDS)), _MOST_CLIPS)

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
                part["recording"] = self.recordings(part)
                part["path"] = [self.name(path) for path in part["path"]]
                found.update(json.dumps(part, sort_keys=True).encode())
        return found.hexdigest()

    def settings(self) -> dict[str, Any]:
        """What the bytes of the shards depend on, beside the rows."""
        encoding = asdict(self.encoding) | {"fps": float(self.encoding.fps)}
        return {"version": VERSION, **encoding, "clips_per_shard": self.shard_size}


def _is_file(recording: str) -> bool:
    """Whether a recording is called by the path of a video."""
    return is_video(os.path.basename(recording)) and os.path.isfile(recording)


def stored_name(path: str, root: str) -> str:
    """See `Preparation.name`: the last two parts, which orders of clips depend on, are those of the file."""
    path, root = os.path.abspath(path), os.path.abspath(root)
    inside = os.path.relpath(path, root)
    return path if inside.startswith("..") else f"{os.path.basename(root)}/{inside}".replace(os.sep, "/")


def claim(preparation: Preparation, out: Path) -> None:
    """Mark a folder as that of a preparation, or check that it is.

    Raises:
        FolderTakenError: The folder holds something else; nothing is written.
    """
    if not is_claimed(preparation, out):
        folders = [out, out / "parts", out / "shards"]
        made = [folder for folder in folders if not folder.exists()]
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            with writing(out / PREPARATION) as file:  # by all of several machines that begin at once
                file.write(_mark_of(preparation).encode())
        except OSError:
            for folder in reversed(made):
                with suppress(OSError):  # another machine uses it
                    folder.rmdir()
            raise
        is_claimed(preparation, out)


def is_claimed(preparation: Preparation, out: Path) -> bool:
    """Whether a folder is that of a preparation, rather than absent or empty; nothing is written.

    Raises:
        FolderTakenError: It holds something else.
        ValueError: The mark of a preparation in it is damaged.
    """
    if not is_preparation(out):
        return False
    expected = _mark_of(preparation)
    if (out / PREPARATION).read_bytes() == expected.encode():
        return True
    settings = _begun_with(out)
    now = json.loads(expected)["settings"]
    changed = [f"{key}={settings.get(key)}, now {now[key]}" for key in now if settings.get(key) != now[key]]
    reason = f"with {'; '.join(changed)}" if changed else "of other clips"
    raise FolderTakenError(f"{out} holds a preparation {reason}; choose another folder, or delete it.")


def begun_shard_size(out: Path) -> int | None:
    """Number of clips per tar file of the preparation that a folder holds, with which it goes on; None without one.

    Raises:
        ValueError: The mark of the preparation is damaged.
    """
    return _begun_with(out).get("clips_per_shard") if (out / PREPARATION).is_file() else None


def _begun_with(out: Path) -> dict[str, Any]:
    advice = f"choose another folder, or delete {out}"
    return read_json(out / PREPARATION, {"settings": dict}, advice)["settings"]


def _mark_of(preparation: Preparation) -> str:
    content = {"settings": preparation.settings(), "data": preparation.about, "rows": preparation.fingerprint}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


__all__ = [
    "WITHOUT_SPLITS",
    "FolderTakenError",
    "Preparation",
    "Shard",
    "begun_shard_size",
    "claim",
    "is_claimed",
    "stored_name",
]
