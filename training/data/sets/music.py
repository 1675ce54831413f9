"""MUSIC and MUSIC-21: videos of solos and duets.

    <root>/clips_360p_segm/<instruments>/<id>.*.mp4      or   <root>/clips/<instruments>/<id>.*.mp4
    <root>/anno/music_solo.csv                            or   MUSIC_solo_videos.json      11 instruments
    <root>/anno/music21_solo.csv                          or   MUSIC21_solo_videos.json    21 instruments
    <root>/anno/music21_duet.csv                          or   MUSIC_duet_videos.json

A video may be cut into several files, which share its name up to the first dot. The folder is the list's class with
blanks as underscores (`saxophone_acoustic_guitar`); files in no such folder are found by their id. A csv has a header,
and columns that begin with id and class; a json is `{"videos": {class: [id]}}`. Lists may also lie in the root or in
`annotations`.

The published split: of the sorted ids of the solos every (n // 130)-th is for evaluation, and every (n // 85)-th duet
is set aside. Here n counts the ids listed, not those on disk, so that it is the same wherever some videos are gone.
"""

import re
from pathlib import Path
from typing import NamedTuple

from deepavfusion.inference.jobs.inputs import walk_files
from deepavfusion_cli.early.contents import contents, is_video
from deepavfusion_cli.early.data import MUSIC_SUBSETS, check_subset, music_list

from .folder import make_rows
from .lists import Listed, read_list
from .vggsound import report_missing

_EVALUATION_SOLOS, _ASIDE_DUETS = 130, 85
_ID_LENGTH = 11
_IN_BRACKETS = re.compile(r"\[([\w-]{11})\]$", re.ASCII)  # as yt-dlp names files by default


class MusicSplit(NamedTuple):
    """Ids of the videos; no id is in two of the sets."""

    train: set[str]
    test: set[str]
    aside: set[str]
    """Duets that the published split uses neither for training nor for evaluation."""


def published_split(solos: set[str], duets: set[str]) -> MusicSplit:
    """The published split of videos by their ids.

    Of lists too short for it (under 260 solos, 170 duets), every second video.
    """
    test = set(sorted(solos)[:: max(len(solos) // _EVALUATION_SOLOS, 2)])
    duets = duets - solos
    aside = set(sorted(duets)[:: max(len(duets) // _ASIDE_DUETS, 2)])
    return MusicSplit((solos | duets) - test - aside, test, aside)


def _read_videos(root: Path, kind: str) -> list[Listed]:
    entries = read_list(music_list(root, kind))
    return entries[_is_header(entries[0]) :]


def _is_header(entry: Listed) -> bool:
    """Whether a line names columns: copies of the csv differ in their headers, of which some are as long as an id."""
    return len(entry.key) != _ID_LENGTH or entry.key.lower().startswith(("youtube_", "video_"))


def _class_of(entry: Listed) -> str:
    """A list's class, without further columns."""
    if entry.label is None:
        raise ValueError(f"MUSIC's video {entry.key} has no class: expected id, class.")
    return entry.label.split(",")[0].strip().replace(" ", "_")


def instruments_of(name: str, known: set[str]) -> list[str]:
    """Split a duet's class (`saxophone_acoustic_guitar`) into two instruments, at least one of them known.

    Raises:
        ValueError: There is no such split.
    """
    words = name.split("_")
    splits = [("_".join(words[:i]), "_".join(words[i:])) for i in range(1, len(words))]
    best = max(splits, key=lambda pair: sum(part in known for part in pair), default=None)
    if best is None or not known & set(best):
        raise ValueError(f"Expected a duet of two instruments of {', '.join(sorted(known))}, got {name!r}.")
    return list(best)


def _index(clips: Path, classes: set[str]) -> tuple[dict[str, list[str]], list[Path]]:
    """Files by `<class>/<id>`, or by `<id>` where no folder above them is called as a class; and all files."""
    found: dict[str, list[str]] = {}
    files = list(walk_files(clips))
    for path in files:
        if is_video(path.name):
            own = classes.intersection(path.relative_to(clips).parts[:-1])
            found.setdefault("/".join([*own, video_of(str(path))]), []).append(str(path))
    return found, files


def video_of(path: str) -> str:
    """The id of the video that a file is part of: its name up to the first dot, or what is in brackets at its end."""
    in_brackets = _IN_BRACKETS.search(Path(path).stem)
    return in_brackets[1] if in_brackets else Path(path).name.split(".")[0]


def read_music(root: str | Path, subset: str = "solo", split: str | None = None):
    """Read MUSIC as a dataset of `make_rows`; a label is an instrument, or a list of instruments if there are duets.

    Listed videos that are not on disk are left out, and their number is logged.

    Args:
        root: Folder in the module's layout.
        subset: `"solo"`, `"solo21"` or `"music"` (solos and duets).
        split: `"train"` or `"test"`; None keeps both.

    Raises:
        FileNotFoundError: No lists, no clips, or none of the listed clips.
    """
    root = Path(root)
    check_subset("music", subset)
    if split not in (None, "train", "test"):
        raise ValueError(f"Expected the split train or test of MUSIC, got {split!r}.")
    lists = {kind: _read_videos(root, kind) for kind in MUSIC_SUBSETS[subset]}
    clips = next((root / name for name in ("clips_360p_segm", "clips") if (root / name).is_dir()), root)
    ids = {kind: {entry.key for entry in entries} for kind, entries in lists.items()}
    duets = ids.pop("duet", set())
    published = published_split(set().union(*ids.values()), duets)
    instruments = {_class_of(entry) for kind, entries in lists.items() if kind != "duet" for entry in entries}
    classes = {_class_of(entry) for entries in lists.values() for entry in entries}
    (on_disk, paths), rows, missing = _index(clips, classes), [], []
    for kind, entries in lists.items():
        for entry in dict.fromkeys(entries):
            part = "test" if entry.key in published.test else "train" if entry.key in published.train else None
            if part is None or (split is not None and part != split):
                continue
            folder = _class_of(entry)
            played = instruments_of(folder, instruments) if kind == "duet" else [folder]
            files = on_disk.get(f"{folder}/{entry.key}") or on_disk.get(entry.key, [])
            if not files:
                missing.append(f"{folder}/{entry.key}")
            label = played if duets else played[0]
            rows += [{"path": file, "label": label, "split": part, "recording": entry.key} for file in files]
            instruments.update(played)
    report_missing(f"MUSIC {subset}", len({video_of(row["path"]) for row in rows}) + len(missing), missing, 0)
    if not rows:
        example = f": expected e.g. {missing[0]}.mp4" if missing else ""
        raise FileNotFoundError(
            f"None of MUSIC's {len(missing)} listed videos is in {clips}{example}, {contents(paths)}."
        )
    return make_rows(rows, sorted(instruments))
