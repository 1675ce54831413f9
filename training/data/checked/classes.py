"""What the classes of a data set are made of: their recordings, and the folders that they are named after."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ...wording import count, listing
from ..clips import ClipDataset
from ..files import FileClips

_NAMED = 5  # classes that are named in a sentence


def notable_classes(
    splits: Iterable[tuple[ClipDataset, Sequence[int]]], root: str | Path | None
) -> tuple[list[str], dict[str, list[str]]]:
    """Classes with a single recording, and classes of which clips of one split lie in several folders.

    Args:
        splits: Clips of all splits, and those of them that count, by number.
        root: Folder of the data set, if classes are named after folders in it; None if not.

    Returns:
        The classes with a single recording in all splits, as far as recordings are known; and, of classes in several
        folders, these, as paths from the root.
    """
    recordings: dict[str, set[str]] = {}
    several: dict[str, set[str]] = {}
    for clips, usable in splits:
        if not isinstance(clips, FileClips) or clips.label_names is None:
            continue
        known = clips.rows["recording"][:] if "recording" in clips.rows.column_names else None
        labels, paths = clips.classes(), clips.rows["path"][:]
        folders: dict[str, set[str]] = {}
        pairs = [(i, clips.label_names[label]) for i in usable for label in labels[i]]
        for i, name in pairs:
            if known is not None:
                recordings.setdefault(name, set()).add(known[i])
            if root is not None:
                folders.setdefault(name, set()).add(os.path.relpath(os.path.dirname(paths[i]), root))
        for name, found in folders.items():
            if len(found) > 1:
                several.setdefault(name, set()).update(found)
    single = sorted(name for name, found in recordings.items() if len(found) == 1)
    return single, {name: sorted(found) for name, found in sorted(several.items())}


def class_notes(single: list[str], folders: Mapping[str, list[str]]) -> Iterator[str]:
    """What is to be known of the classes.

    Args:
        single: Classes with a single recording.
        folders: Folders of each class that lies in several ones.
    """
    if single:
        number = count(len(single), "class", "classes")
        yield f"with one recording: {number}, which cannot be in both training and test: {listing(single, _NAMED)}"
    if folders:
        number = count(len(folders), "class", "classes")
        names = [f"{name} ({listing(places, _NAMED)})" for name, places in folders.items()]
        yield f"in several folders of one name: {number}, whose clips are taken together: {listing(names, _NAMED)}"


__all__ = ["class_notes", "notable_classes"]
