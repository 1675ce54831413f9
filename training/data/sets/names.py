"""Names of clips and of their files, as data sets and tools write them, and how files are found by them.

The published name of a YouTube clip is `<id>_<start:06d>`, of its file `<id>_<start:06d>_<end:06d>.mp4`.
"""

import contextlib
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from deepavfusion.inference.jobs.inputs import VIDEO_SUFFIXES, walk_files
from deepavfusion.inference.jobs.progress import counted
from deepavfusion_cli.early.contents import contents, is_video

logger = logging.getLogger(__name__)

_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, (*VIDEO_SUFFIXES, '.wav', '.jpg', '.png')))})$", re.IGNORECASE)
_ID_LENGTH = 11  # of YouTube
_PARTS = re.compile(r"(.{11})_(\d+)_(\d+)")
_TIME = r"(\d+(?:\.\d+)?)"
_WITH_END = re.compile(rf"(.+)_{_TIME}[_-]{_TIME}")
_WITHOUT_END = re.compile(rf"(.+)_{_TIME}")
# Names of parts of a recording. Words have no capitals or digits inside, and ids of 11 characters nearly always.
_PART_OF_VIDEO = re.compile(r"(?=.{0,10}[a-z_-][A-Z\d]|.{0,10}\d)([\w-]{11})_(?:\d{6}|\d+_\d+)", re.ASCII)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def clip_key(name: str) -> str:
    """A clip's name without folder, suffix and end.

    `<id>_<start:06d>` for VGGSound's clips, however they are written (`<id>_000030_000040.mp4`, `<id>_30000_40000`);
    other names are unchanged.
    """
    name = _SUFFIX.sub("", name.strip().replace("\\", "/").rpartition("/")[2])
    parts = _PARTS.fullmatch(name)
    if parts is None:
        return name
    clip, start, end = parts.groups()
    length = int(end) - int(start)
    if 1000 <= length <= 10_000 and start == str(int(start)):  # milliseconds
        return f"{clip}_{int(start) // 1000:06d}"
    return f"{clip}_{start}" if len(start) == len(end) == 6 and 0 < length < 1000 else name


def recording_of(path: str) -> str:
    """The recording that a file is part of: the YouTube id in its name if there is one, else the path itself."""
    part = _PART_OF_VIDEO.match(os.path.splitext(os.path.basename(path))[0])  # as of Path, ten times as fast
    return path if part is None else part[1]


def recordings_of(paths: Sequence[str]) -> list[str]:
    """The recordings that files are part of: as `recording_of`, but links to one file are of one recording."""
    links = linked_files(paths)
    own = map(recording_of, paths)
    return [
        recording_of(links[path]) if path in links and name == path else name
        for path, name in zip(paths, own, strict=True)
    ]


def linked_files(paths: Iterable[str]) -> dict[str, str]:
    """Paths of files that have several names, by symbolic or hard links -> one of them, which stands for the file.

    It is one with a YouTube id if there is any, then the first by name. Folders are listed once more for that, but only
    files that are links, or whose number in the file system another one has, are looked up.
    """
    real: dict[str, str] = {}  # folder -> where it is
    numbers: dict[str, dict[str, int]] = {}  # folder -> names of its files but links -> their numbers
    places = {path: os.path.split(path) for path in paths}
    for folder in dict.fromkeys(folder for folder, _ in places.values()):
        real[folder], numbers[folder] = os.path.realpath(folder), {}
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            numbers[folder] = {entry.name: entry.inode() for entry in entries if not entry.is_symlink()}
    links = [path for path, (folder, name) in places.items() if name not in numbers[folder]]
    files = {path: file for path in links if (file := _file_of(path)) is not None}
    targets, times = {os.path.realpath(path) for path in files}, Counter({file[1]: 1 for file in files.values()})
    times.update(numbers[folder][name] for folder, name in places.values() if name in numbers[folder])
    for path, (folder, name) in places.items():
        number = numbers[folder].get(name)
        if number is not None and (times[number] > 1 or (targets and os.path.join(real[folder], name) in targets)):
            files[path] = _file_of(path)
    same: dict[tuple[int, int], list[str]] = {}
    for path, file in files.items():
        if file is not None:
            same.setdefault(file, []).append(path)
    chosen = [(min(names, key=lambda path: (recording_of(path) == path, path)), names) for names in same.values()]
    return {path: first for first, names in chosen if len(names) > 1 for path in names}


def _file_of(path: str) -> tuple[int, int] | None:
    """Device and number of the file that a path leads to; None without any."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def youtube_id(key: str) -> str:
    """The video of a clip `<id>_<start:06d>`."""
    return key.rpartition("_")[0] or key


def _readings(stem: str) -> Iterator[tuple[int, str, int | None]]:
    """Clips (rank, id, start in s) that a file may be, the likeliest rank first; start is None for the only one."""
    if match := _WITH_END.fullmatch(stem):
        clip, start, end = match[1], float(match[2]), float(match[3])
        if 0 < end - start < 1000:
            yield (0 if len(match[2]) == len(match[3]) == 6 else 1), clip, int(start)
        elif end - start >= 1000:  # milliseconds; no clip lasts a quarter of an hour
            yield 1, clip, int(start) // 1000
            yield 4, clip, int(start)
    if match := _WITHOUT_END.fullmatch(stem):
        yield 2, match[1], int(float(match[2]))
        if float(match[2]) >= 1000:
            yield 5, match[1], int(float(match[2])) // 1000
    yield 6, stem, None


def published_name(key: str) -> str:
    """The published name of a YouTube clip, however it is written (`<id>_30`, `Y<id>_30_40`); others are unchanged."""
    _, clip, start = next(_readings(key))
    clip = clip[1:] if len(clip) == _ID_LENGTH + 1 and clip.startswith("Y") else clip
    return key if start is None or len(clip) != _ID_LENGTH else f"{clip}_{start:06d}"


class ClipFiles:
    """The videos in a folder and below, to be found by id and start.

    The clip of an id from 30 s on may be called `<id>_000030_000040`, as published, or `<id>_30_40`, `<id>_30.0_40.0`,
    `<id>_30000_40000` and `<id>_30000` (milliseconds), `<id>_30`, or, if it is the only one of that id, `<id>`; each
    also with a Y before the id, with any video suffix, and in any folder.

    Args:
        folder: Folder of the clips.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = [path for path in walk_files(folder) if is_video(path.name)]

    def match(self, wanted: Mapping[str, str]) -> tuple[dict[str, Path], int]:
        """Find the files of clips. Every file stands for the one clip that its name suggests most.

        Args:
            wanted: Names `<id>_<start:06d>` -> folder that is preferred if there are several files of a clip.

        Returns:
            Names -> files, of the clips that are found; number of files that are none of the clips.
        """
        keys, starts = {}, Counter()
        for name in wanted:
            clip, _, start = name.rpartition("_")
            keys[clip, int(start) if start.isdecimal() else None] = name
            starts[clip] += 1
        keys |= {(clip, None): name for (clip, _), name in keys.items() if starts[clip] == 1}
        found: dict[str, tuple] = {}
        others = 0
        for path in self.paths:
            readings = list(_readings(path.stem))
            readings += [(rank + 10, clip[1:], start) for rank, clip, start in readings if clip.startswith("Y")]
            meant = min(
                ((rank, keys[clip, start]) for rank, clip, start in readings if (clip, start) in keys), default=None
            )
            if meant is None:
                others += 1
                continue
            rank, name = meant
            order = (path.parent.name != wanted[name], rank, path)
            found[name] = min(order, found.get(name, order))
        return {name: order[-1] for name, order in found.items()}, others

    def example(self) -> str:
        """Describe what is in the folder, for messages about clips that are not."""
        return contents(self.paths or walk_files(self.folder))


def is_inside(root: Path, path: str | Path) -> bool:
    """Whether a path, relative to a folder or absolute, is in that folder; links in the folder count as part of it."""
    if ".." not in Path(path).parts and (root / path).is_relative_to(root):
        return True
    return Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root))


def _loose(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


class ListedFiles:
    """Files of a folder as lists name them: with Windows' separators, other capitals, accents, drives or suffixes.

    Args:
        root: Folder that the paths are relative to.
    """

    def __init__(self, root: Path):
        self.root = root
        self._index: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """The file of a name, or None."""
        plain = name.replace("\\", "/")
        if _DRIVE.match(name):  # a path on another machine, of which the end may be here
            parts = plain.split("/")
            return self._spelled_otherwise("/".join(parts[start:]) for start in range(1, len(parts)))
        for spelled in (name, plain):
            if os.path.isfile(self.root / spelled):
                return self.root / spelled
        return self._spelled_otherwise([plain])

    def _spelled_otherwise(self, candidates: Iterable[str]) -> Path | None:
        if self._index is None:
            self._index = {}
            for path in walk_files(self.root):
                short = path.relative_to(self.root)
                for key in {_loose(short.as_posix()), *([_loose(str(short.with_suffix("")))] * is_video(path.name))}:
                    self._index.setdefault(key, []).append(path)
        for candidate in candidates:
            key = _loose(os.path.normpath(candidate))
            for spelled in (key, _SUFFIX.sub("", key)):
                if len(found := self._index.get(spelled, ())) == 1:  # of several, none is certain
                    return found[0]
        return None


def find_listed(root: Path, names: Sequence[str], source: str | Path, allow_outside: bool) -> list[Path]:
    """Find the files that a list names.

    Args:
        root: Folder that the paths in the list are relative to.
        names: Paths in the list.
        source: The list, for messages.
        allow_outside: Whether files outside of the folder may be read.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: A file is outside of the folder.
    """
    here = [name for name in names if not _DRIVE.match(name)]
    outside = [] if allow_outside else [name for name in here if not is_inside(root, name.replace("\\", "/"))]
    if outside:
        raise ValueError(
            f"{source} names {len(outside)} of {len(names)} files outside of {root}, first: {outside[0]}. Write paths "
            "relative to that folder, or set data.allow_outside=true to read them."
        )
    files = ListedFiles(root)
    found = [files.find(name) for name in counted(names, f"{source}: looking for its files", "file")]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} files in {source} do not exist, first: {root / missing[0]}"
        )
    other = [i for i, name in enumerate(names) if found[i] != root / name.replace("\\", "/")]
    if other:
        first = f"{found[other[0]]} for {names[other[0]]}"
        logger.warning("%s: %d of %d files have other names on disk, first: %s", source, len(other), len(names), first)
    return [path for path in found if path is not None]
