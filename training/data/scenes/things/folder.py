"""The files of a folder of things."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepavfusion.inference.jobs.progress import with_progress

_IMAGE, _SOUNDS = ".png", (".wav", ".ogg", ".flac")
_PAIRS = "pairs of NAME.png and NAME.wav, NAME.ogg or NAME.flac"
_IGNORED = {"", ".txt", ".md", ".svg", ".dat"}
_SPOKEN = re.compile("(_desc)?(_[a-z]{2}(_[A-Za-z]{2})?)?")  # what follows the name of the thing
_MAX_FAULTS = 5  # named in an error


@dataclass(frozen=True)
class ThingFolder:
    """The things in a folder, sorted by name.

    Attributes:
        path: The folder.
        digest: Hash of the names and the contents of all images and sounds.
        names: Name of each thing.
        images: Image file of each thing.
        sounds: Sound file of each thing.
    """

    path: str
    digest: str
    names: tuple[str, ...] = field(compare=False)
    images: tuple[str, ...] = field(compare=False)
    sounds: tuple[str, ...] = field(compare=False)

    @classmethod
    def read(cls, path: str | Path) -> "ThingFolder":
        """List the things of a folder and its subfolders, without decoding them.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If a file is no part of a thing, a name occurs twice, or there are fewer than two things.
        """
        root = Path(path)
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: expected a folder of {_PAIRS}, found none.")
        things, faults = _pair(root)
        if faults:
            raise ValueError(
                f"{root}: expected {_PAIRS} in the same folder, with unique names, but found {_some(faults)}."
            )
        if len(things) < 2:
            raise ValueError(f"{root}: expected at least 2 {_PAIRS}, found {len(things)}.")
        names = tuple(sorted(things))
        images, sounds = zip(*(things[name] for name in names))
        digest = hashlib.sha256()
        for name, *files in zip(names, images, sounds):
            digest.update(repr(name).encode())
            for file in files:
                with open(file, "rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
        return cls(str(root), digest.hexdigest(), names, images, sounds)


def _pair(root: Path) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Name -> (image, sound) of all things, and the files that are no part of one, each with the reason."""
    things, faults = {}, []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        paths = [Path(folder, file) for file in sorted(files) if not file.startswith(".")]
        paths = [path for path in paths if path.suffix.lower() not in _IGNORED]
        drawn = {path.stem for path in paths if path.suffix.lower() == _IMAGE}
        groups = defaultdict(list)
        for path in paths:
            if path.suffix.lower() not in (_IMAGE, *_SOUNDS):
                faults.append(f"{path.relative_to(root)} (neither png, wav, ogg nor flac)")
            elif path.stem in drawn or not _is_spoken(path.stem, drawn):
                groups[path.stem].append(path)
        for name, group in groups.items():
            images = [path for path in group if path.suffix.lower() == _IMAGE]
            sounds = [path for path in group if path.suffix.lower() != _IMAGE]
            if not sounds:
                reason = "without sound"
            elif not images:
                reason = "without image"
            elif len(group) > 2:
                reason = "with several images or sounds"
            elif name in things:
                reason = f"a second {name}"
            else:
                things[name] = str(images[0]), str(sounds[0])
                continue
            faults.append(f"{group[0].relative_to(root)} ({reason})")
    return things, faults


def _is_spoken(stem: str, drawn: set[str]) -> bool:
    """Whether a sound is a description, or a translation of the sound, of a thing with an image."""
    splits = (i for i, letter in enumerate(stem) if letter == "_")
    return any(stem[:i] in drawn and _SPOKEN.fullmatch(stem[i:]) for i in splits)


def _some(faults: list[str], separator: str = ", ") -> str:
    """The first faults in one line, and the number of the others."""
    more = f" and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
    return separator.join(faults[:_MAX_FAULTS]) + more


def load_all(paths: Sequence[str], load: Callable) -> tuple:
    """Load all files.

    Raises:
        ValueError: If `load` raises it for any of them; names the first of those.
    """
    loaded, faults = [], []
    for path in with_progress(paths, "things", "file"):
        try:
            loaded.append(load(path))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError(_some(faults, "; ") + ".")
    return tuple(loaded)


__all__ = ["ThingFolder", "load_all"]
