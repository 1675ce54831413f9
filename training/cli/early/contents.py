"""What lies in a folder in which a data set is sought: its videos, or what is there instead, and what to do with it."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepavfusion.inference.jobs.inputs import VIDEO_SUFFIXES, has_suffix, other_media, walk_files

ANNOTATION_SUFFIXES = (".csv", ".tsv", ".jsonl")
# Archives, also in parts: clips.zip, clips.tar.gz, clips.tar.gz.aa, clips.tar.part01.
_ARCHIVE = re.compile(r"\.(tar|tgz|zip|7z|rar)(\.(?:gz|bz2|xz|zst))?([._-]?(?:part)?[a-z]{0,2}\d*)$", re.IGNORECASE)


def is_video(name: str) -> bool:
    """Whether a file name has the suffix of a video and is not hidden."""
    return has_suffix(name, VIDEO_SUFFIXES)


def annotation_files(root: Path) -> list[Path]:
    """The files in a folder of videos that may say what is in them."""
    return sorted(path for path in root.iterdir() if _is_annotation_file(path))


def _is_annotation_file(path: Path) -> bool:
    return path.suffix.lower() in ANNOTATION_SUFFIXES and not path.name.startswith(".") and path.is_file()


def check_videos(root: Path, paths: Iterable[Path] | None = None) -> None:
    """Raise `ValueError` if there is no video in a folder and those below.

    Args:
        root: The folder.
        paths: The files in it and below, if they are known.
    """
    if not any(is_video(path.name) for path in (walk_files(root) if paths is None else paths)):
        found = contents(walk_files(root) if paths is None else paths)
        raise ValueError(
            f"Expected files ending in {', '.join(VIDEO_SUFFIXES)} in {root} or in a folder per class, {found}."
        )


def contents(paths: Iterable[Path], sought: str = "videos") -> str:
    """Describe the files of a folder that lacks what a data set needs, and what to do with them: the end of a sentence.

    Args:
        paths: The files.
        sought: What is needed.
    """
    paths = list(paths)
    videos = [path for path in paths if is_video(path.name)]
    if videos and sought == "videos":
        return f"found {_count(videos, 'video')}, e.g. {videos[0].name}"
    archives = [path for path in paths if _ARCHIVE.search(path.name)]
    if archives:
        return f"found no {sought} but {_count(archives, 'archive')}: unpack with `{_unpacking(archives[0])}`"
    others = other_media(paths, VIDEO_SUFFIXES)
    if sought != "videos" or not others:
        return f"found no {sought}"
    if " and " in others:
        hint = "make a clip of each pair with `ffmpeg -loop 1 -i IMAGE.jpg -i AUDIO.wav -shortest CLIP.mp4`"
        return f"found no videos but {others}: {hint}"
    return f"found no videos but {others}: clips hold both images and audio"


def _unpacking(archive: Path) -> str:
    """The command that unpacks an archive and those like it."""
    match = _ARCHIVE.search(archive.name)
    kind, compression, part = match.groups(default="") if match else ("", "", "")
    if kind.lower() not in ("tar", "tgz"):
        command = f"{'unzip' if kind.lower() == 'zip' and not part else '7z x'} {archive.name}"
    elif part:
        zipped = "z" if kind == "tgz" or "gz" in compression else ""
        command = f"cat {archive.name.removesuffix(part)}* | tar -x{zipped}"
    else:
        command = f"for file in *.{kind}{compression}; do tar -xf $file; done"
    return f"cd {archive.parent} && {command}"


def _count(items: Sequence, noun: str) -> str:
    return f"{len(items):,} {noun}{'' if len(items) == 1 else 's'}"


__all__ = ["ANNOTATION_SUFFIXES", "annotation_files", "check_videos", "contents", "is_video"]
