"""
MUSIC and MUSIC-21: people who play one instrument (solo) or two (duet).

    <root>/clips_360p_segm/<instruments>/<id>.*.mp4      or   <root>/clips/<instruments>/<id>.*.mp4
    <root>/anno/music_solo.csv                            or   MUSIC_solo_videos.json      11 instruments
    <root>/anno/music21_solo.csv                          or   MUSIC21_solo_videos.json    21 instruments
    <root>/anno/music21_duet.csv                          or   MUSIC_duet_videos.json

A video may be cut into several files; all its parts have its name up to the first dot. The folder is the list's class
with blanks as underscores (`saxophone_acoustic_guitar`). A csv has a header and then id, class and what else there is;
a json is `{"videos": {class: [id]}}`. Lists may also lie in the root or in `annotations`.

The published split: of the sorted ids of the solos every (n // 130)-th is for evaluation, and every (n // 85)-th duet
is set aside. Here n counts the ids listed, not those on disk, so that it is the same wherever some videos are gone.
"""

import os
from pathlib import Path
from typing import NamedTuple

from .folder import is_video, make_rows
from .lists import Listed, read_list
from .vggsound import report_missing

SUBSETS = {"solo": ("solo",), "solo21": ("solo21",), "music": ("solo", "duet")}
_LISTS = {
    "solo": ("music_solo.csv", "MUSIC_solo_videos.json"),
    "solo21": ("music21_solo.csv", "MUSIC21_solo_videos.json"),
    "duet": ("music21_duet.csv", "MUSIC_duet_videos.json"),
}
_EVALUATION_SOLOS, _ASIDE_DUETS = 130, 85
_ID_LENGTH = 11


class MusicSplit(NamedTuple):
    """Ids of the videos; no id is in two of the sets."""

    train: set[str]
    test: set[str]
    aside: set[str]
    """Duets that the published split uses neither for training nor for evaluation."""


def published_split(solos: set[str], duets: set[str]) -> MusicSplit:
    """
    The published split of videos by their ids. Of lists too short for it (under 260 solos, 170 duets) every second.
    """
    test = set(sorted(solos)[:: max(len(solos) // _EVALUATION_SOLOS, 2)])
    duets = duets - solos
    aside = set(sorted(duets)[:: max(len(duets) // _ASIDE_DUETS, 2)])
    return MusicSplit((solos | duets) - test - aside, test, aside)


def _read_videos(root: Path, kind: str) -> list[Listed]:
    folders = [folder for folder in (root / "anno", root / "annotations", root) if folder.is_dir()]
    for name in _LISTS[kind]:
        for folder in folders:
            if (folder / name).is_file():
                entries = read_list(folder / name)
                # Copies of the csv differ in their headers, but no header is as long as a YouTube id.
                return entries[len(entries[0].key) != _ID_LENGTH :]
    raise FileNotFoundError(f"MUSIC's list {' or '.join(_LISTS[kind])} is not in {root / 'anno'}, nor in {root}")


def _class_of(entry: Listed) -> str:
    """A list's class; columns behind it, separated by commas, are not part of it."""
    if entry.label is None:
        raise ValueError(f"MUSIC's video {entry.key} has no class: expected id, class")
    return entry.label.split(",")[0].strip().replace(" ", "_")


def instruments_of(name: str, known: set[str]) -> list[str]:
    """
    The two instruments of a duet's class (`saxophone_acoustic_guitar`), of which at least one is among the known.

    Raises:
        ValueError: The name does not fall into two parts, one of them known.
    """
    words = name.split("_")
    splits = [("_".join(words[:i]), "_".join(words[i:])) for i in range(1, len(words))]
    best = max(splits, key=lambda pair: sum(part in known for part in pair), default=None)
    if best is None or not known & set(best):
        raise ValueError(f"{name!r} is no duet: expected two instruments, of {', '.join(sorted(known))}")
    return list(best)


def _index(clips: Path) -> dict[str, list[str]]:
    """Files by `<folder>/<id>`."""
    found: dict[str, list[str]] = {}
    for entry in sorted(os.scandir(clips), key=lambda e: e.name):
        if entry.is_dir():
            for file in sorted(os.scandir(entry.path), key=lambda e: e.name):
                if is_video(file.name):
                    found.setdefault(f"{entry.name}/{file.name.split('.')[0]}", []).append(file.path)
    return found


def video_of(path: str) -> str:
    """The id of the video that a file is part of."""
    return Path(path).name.split(".")[0]


def read_music(root: str | Path, subset: str = "solo", split: str | None = None):
    """
    MUSIC's clips as a `datasets.Dataset` with the columns `path`, `label`, `start`, `end` (None: a file is a clip) and
    `split`. With duets a label is a list of instruments; else it is the instrument.

    Videos that are listed and not on disk are left out, counted, and said in the log.

    Args:
        root: Folder in the module's layout.
        subset: `"solo"`, `"solo21"` or `"music"` (solos and duets).
        split: `"train"` or `"test"`; None keeps both.

    Raises:
        FileNotFoundError: No lists, no clips, or none of the clips listed.
    """
    root = Path(root)
    if subset not in SUBSETS:
        raise ValueError(f"subset must be one of {', '.join(SUBSETS)}, got {subset!r}")
    if split not in (None, "train", "test"):
        raise ValueError(f"MUSIC has the splits train and test, not {split!r}")
    lists = {kind: _read_videos(root, kind) for kind in SUBSETS[subset]}
    clips = next((root / name for name in ("clips_360p_segm", "clips") if (root / name).is_dir()), None)
    if clips is None:
        raise FileNotFoundError(f"MUSIC's clips are neither at {root / 'clips_360p_segm'} nor at {root / 'clips'}")
    ids = {kind: {entry.key for entry in entries} for kind, entries in lists.items()}
    duets = ids.pop("duet", set())
    published = published_split(set().union(*ids.values()), duets)
    instruments = {_class_of(entry) for kind, entries in lists.items() if kind != "duet" for entry in entries}
    on_disk, rows, missing = _index(clips), [], []
    for kind, entries in lists.items():
        for entry in dict.fromkeys(entries):
            part = "test" if entry.key in published.test else "train" if entry.key in published.train else None
            if part is None or (split is not None and part != split):
                continue
            folder = _class_of(entry)
            heard = instruments_of(folder, instruments) if kind == "duet" else [folder]
            files = on_disk.get(f"{folder}/{entry.key}", [])
            if not files:
                missing.append(f"{folder}/{entry.key}")
            label = heard if duets else heard[0]
            rows += [{"path": file, "label": label, "split": part} for file in files]
            instruments.update(heard)
    report_missing(f"MUSIC {subset}", len({video_of(row["path"]) for row in rows}) + len(missing), missing, 0)
    if not rows:
        example = f": expected e.g. {missing[0]}.mp4" if missing else ""
        raise FileNotFoundError(f"none of MUSIC's {len(missing)} listed videos is in {clips}{example}")
    return make_rows(rows, sorted(instruments))
