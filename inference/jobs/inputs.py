"""The files that a command is given, also as folders, and names for what is written about them."""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from deepavfusion_cli.paths import InputError

from .progress import Count

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg"),
    *(".mpeg", ".m4v", ".flv", ".wmv", ".3gp", ".ogv", ".mts", ".m2ts"),
)
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".hif", ".avif")
# A recording that is being separated has such a folder beside its results.
DRAFT_SUFFIX = ".unfinished"


def folder_suffixes(command: str, given: argparse.Namespace) -> tuple[str, ...]:
    """Endings of the files that a folder stands for: those of videos, where a command needs images, or of all media.

    Args:
        command: Name of the command.
        given: Its arguments.
    """
    needs_images = command in ("localize", "segment", "export") or (command == "separate" and given.frame is None)
    return VIDEO_SUFFIXES if needs_images else (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)


def holds_media(item: str, suffixes: Sequence[str], out: Path | None = None) -> bool:
    """Whether a file or folder that is given stands for a file at least, as far as it can be read.

    The arguments are those of `find_files`.
    """
    if not os.path.isdir(item):
        return True
    try:
        return any(has_suffix(path.name, suffixes) for path in _files_below(Path(item), out))
    except OSError:
        return False


def find_files(
    given: Sequence[str], suffixes: Sequence[str], out: Path | None = None
) -> tuple[list[tuple[str, str]], list[InputError], list[str]]:
    """List the files to process, and names for their results.

    Args:
        given: Files, and folders, which stand for the files with one of `suffixes` in them and in their subfolders,
            except for hidden ones.
        suffixes: Endings of names in lower case.
        out: Folder of the results, which is left out where it lies inside of a given folder.

    Returns:
        Pairs of a file and a name, unique among them: the file's name without suffix, with its subfolder if it was
        found in a folder; an error for each folder without such files; and a note on each whose other media files are
        left out.
    """
    files, names, errors, notes = [], [], [], []
    for item in given:
        if not os.path.isdir(item):
            files.append(item)
            names.append(Path(item).stem or "file")
            continue
        try:
            below = list(_files_below(Path(item), out))
        except OSError as error:
            errors.append(
                InputError(f"{item}: expected a folder of media files, but {error.filename}: {error.strerror}.")
            )
            continue
        found = [path for path in below if has_suffix(path.name, suffixes)]
        left_out = other_media(below, suffixes)
        files += [str(path) for path in found]
        names += [path.relative_to(item).with_suffix("").as_posix() for path in found]
        if not found:
            others = f" besides {left_out}; name these one by one" if left_out else ""
            expected = f"expected files ending in {', '.join(suffixes)}"
            errors.append(InputError(f"{item}: {expected}, but there are none{others}."))
        elif left_out:
            kinds = "videos" if suffixes == VIDEO_SUFFIXES else "videos and audio files"
            notes.append(f"{item}: {left_out} left out: a folder stands for its {kinds}; name others one by one")
    once: dict[str, tuple[str, str]] = {}
    for file, name in zip(files, names, strict=True):  # a file of a folder may be named beside that folder
        once.setdefault(os.path.abspath(file), (file, name))
    files, names = [file for file, _ in once.values()], numbered([name for _, name in once.values()])
    return list(zip(files, names, strict=True)), errors, notes


def other_media(paths: Iterable[Path], suffixes: Sequence[str]) -> str:
    """Number of images and of audio files among paths that have none of the suffixes, in words; empty without any."""
    others = [path.name for path in paths if not has_suffix(path.name, suffixes)]
    numbers = {
        kind: sum(has_suffix(name, known) for name in others)
        for kind, known in (("image", IMAGE_SUFFIXES), ("audio file", AUDIO_SUFFIXES))
    }
    return " and ".join(f"{number:,} {kind}{'' if number == 1 else 's'}" for kind, number in numbers.items() if number)


def _files_below(root: Path, out: Path | None) -> Iterator[Path]:
    written = None if out is None else out.resolve()

    def fail(error: OSError) -> None:
        raise error  # by default, folders that cannot be read are skipped

    def left_out(folder: Path) -> bool:
        return folder.name.endswith(DRAFT_SUFFIX) or folder.resolve() == written

    return walk_files(root, left_out, fail)


def walk_files(
    root: Path,
    left_out: Callable[[Path], bool] = lambda folder: False,
    onerror: Callable[[OSError], object] | None = None,
) -> Iterator[Path]:
    """The files of a folder and the folders below, in order; each folder once, hidden ones never.

    Args:
        root: The folder.
        left_out: Function of a folder below that says whether it is left out.
        onerror: Function of the error of a folder that cannot be read; by default, it is skipped.
    """
    seen, waiting = set(), [root]
    with Count(f"{root}: listing its files", "entry", "entries") as count:
        while waiting:
            folder = waiting.pop()
            real = os.path.realpath(folder)
            if real in seen:  # a link may lead back to a parent
                continue
            seen.add(real)
            names: list[str] = []
            folders: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        (folders if _is_folder(entry) else names).append(entry.name)
                        count.add()
            except OSError as error:
                if onerror is not None:
                    onerror(error)
                continue
            yield from (Path(folder, name) for name in sorted(names))
            below = [Path(folder, name) for name in sorted(folders, reverse=True) if not name.startswith(".")]
            waiting += [path for path in below if not left_out(path)]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file name has one of the suffixes, which are in lower case, and is not hidden."""
    return name.lower().endswith(tuple(suffixes)) and not name.startswith(".")


def numbered(names: Iterable[str]) -> list[str]:
    """The names, numbered where they would collide."""
    result, seen = [], set()
    for stem in names:
        name, number = stem, 2
        while name in seen:
            name, number = f"{stem}_{number}", number + 1
        seen.add(name)
        result.append(name)
    return result


def timestamp_names(name: str, timestamps: Sequence[float | None]) -> list[str]:
    """Prefixes of the output files of each timestamp (s) of a file; an image file has None."""
    return numbered(name if timestamp is None else f"{name}_at_{timestamp:.2f}s" for timestamp in timestamps)


def timestamp_note(timestamp: float | None) -> dict[str, str]:
    """Text chunks of a png file: the timestamp (s) of what it shows; none for an image file."""
    return {} if timestamp is None else {"timestamp": f"{timestamp:.6f}"}


__all__ = [
    "AUDIO_SUFFIXES",
    "DRAFT_SUFFIX",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "find_files",
    "folder_suffixes",
    "has_suffix",
    "holds_media",
    "numbered",
    "other_media",
    "timestamp_names",
    "timestamp_note",
    "walk_files",
]
