"""The files that data sets on disk cannot do without: annotations and lists, and where they are expected.

Whether they are there is known before torch is imported; what is in them is read later.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepavfusion.inference.jobs.inputs import walk_files

from ..paths import FolderError, InputError, no_data, no_data_path, similar, unusable
from .contents import annotation_files, check_videos, contents

SUBSETS = {"audioset": "all", "music": "solo", "avsbench": "s4"}  # by default
AUDIOSET_LABELS = "class_labels_indices.csv"
AUDIOSET_TEST, AUDIOSET_TRAINING = "eval", ("balanced_train", "unbalanced_train")
AUDIOSET_SUBSETS = {"balanced": AUDIOSET_TRAINING[:1], "unbalanced": AUDIOSET_TRAINING[1:], "all": AUDIOSET_TRAINING}
MUSIC_SUBSETS = {"solo": ("solo",), "solo21": ("solo21",), "music": ("solo", "duet")}
MUSIC_LISTS = {
    "solo": ("music_solo.csv", "MUSIC_solo_videos.json"),
    "solo21": ("music21_solo.csv", "MUSIC21_solo_videos.json"),
    "duet": ("music21_duet.csv", "MUSIC_duet_videos.json"),
}
TRAIN_LIST, PAIR_LIST = "vggmusic_train.txt", "vggmusic_eval_ss.csv"
IS3_ANNOTATIONS = ("IS3_annotation.json", "synthetic3240_bbox.json")
SHARDS = "dataset.json"
AVSBENCH_SUBSETS = {"s4": ("v1s",), "ms3": ("v1m",), "avss": ("v1s", "v1m", "v2")}
_METADATA = "metadata.csv"  # of AVSBench; its older release has folders
_OBJECT_FOLDERS = {"s4": ("Single-source/s4_data", "s4_data"), "ms3": ("Multi-sources/ms3_data", "ms3_data")}
_PARTS = {"audioset": AUDIOSET_SUBSETS, "music": MUSIC_SUBSETS, "avsbench": AVSBENCH_SUBSETS}
PREPARATION = Path("parts", "preparation.json")  # in the folder of a data set that is being prepared, or was
# Options of `data` that name a file, or, of `things`, a folder.
_FILES = ("annotations", "train_list", "test_list", "checked_list")


class FolderTakenError(FolderError):
    """Raised for a folder that holds something else than a preparation that wants to write there."""


def vggsound_csv(root: Path, given: str | Path | None = None) -> Path:
    """The csv that was given, or that in the root, or else in its folder annotations.

    Raises:
        FileNotFoundError: The file does not exist, as of all functions here.
    """
    candidates = [root / "vggsound.csv", root / "annotations" / "vggsound.csv"] if given is None else [Path(given)]
    advice = "put vggsound.csv there, or give data.annotations=FILE"
    return _first(candidates, f"Expected VGGSound's annotations at {candidates[-1]}, found none: {advice}.")


def audioset_file(root: Path, name: str) -> Path:
    """A file of AudioSet in the root or its folder annotations."""
    places = [root / name, root / "annotations" / name]
    return _first(places, f"Expected AudioSet's {name} in {root} or {root / 'annotations'}, found none.")


def audioset_segments(subset: str) -> str:
    """Name of the segment file of a part of AudioSet."""
    return f"{subset}_segments.csv"


def music_list(root: Path, kind: str) -> Path:
    """A list of MUSIC, "solo", "solo21" or "duet", in the root or its folder anno or annotations."""
    names, folders = MUSIC_LISTS[kind], (root / "anno", root / "annotations", root)
    expected = f"Expected MUSIC's list {' or '.join(names)} in {root / 'anno'} or {root}, found none."
    return _first([folder / name for name in names for folder in folders], expected)


def vggsound_music_list(root: Path, given: str | Path | None, name: str) -> Path:
    """The list that was given, or `name` in the root or its folder annotations or metadata."""
    candidates = [root / folder / name for folder in ("annotations", "metadata", "")]
    candidates = candidates if given is None else [Path(given)]
    return _first(candidates, f"Expected the list {name} at {candidates[0]}, found none.")


def vggss_json(root: Path, given: str | Path | None = None) -> Path:
    """The json that was given, or vggss.json in the root or its folder annotations."""
    candidates = [root / "annotations" / "vggss.json", root / "vggss.json"] if given is None else [Path(given)]
    return _first(candidates, f"Expected VGG-SS's annotations at {candidates[0]}, found none.")


def flickr_folder(root: Path) -> Path:
    """The folder of Flickr-SoundNet's annotations."""
    folder = root / "Annotations"
    return _first([folder], f"Expected Flickr-SoundNet's annotations at {folder}, found none.", Path.is_dir)


def is3_json(root: Path, given: str | Path | None = None) -> Path:
    """The json that was given, or that of IS3 in the root."""
    candidates = [root / name for name in IS3_ANNOTATIONS] if given is None else [Path(given)]

    def expected() -> str:
        return f"Expected IS3's annotations at {candidates[0]}; {contents(walk_files(root), 'json')}."

    return _first(candidates, expected)


def avsbench_folder(root: Path, subset: str) -> Path:
    """The folder of AVSBench: that of its metadata.csv, or else, of the older release, that of its gt_masks."""
    places = [root / folder for folder in _OBJECT_FOLDERS.get(subset, ())] + [root]
    older = [place for place in places if subset in _OBJECT_FOLDERS and (place / "gt_masks").is_dir()]
    if (root / _METADATA).is_file() or older:
        return root if (root / _METADATA).is_file() else older[0]
    below = [path.parent for name in (_METADATA, "gt_masks") for path in sorted(root.glob(f"*/{name}"))]
    found = f"set data.path={below[0]}" if below else contents(walk_files(root), "masks")
    raise FileNotFoundError(
        f"Expected AVSBench {subset} at {root}: {_METADATA} and {', '.join(AVSBENCH_SUBSETS[subset])}"
        + (f", or {_OBJECT_FOLDERS[subset][0]}/gt_masks" if subset in _OBJECT_FOLDERS else "")
        + f"; {found}."
    )


def avsbench_names(root: Path) -> Path | None:
    """The names of AVSBench's classes beside its metadata.csv; None for the older release, which has neither."""
    if not (root / _METADATA).is_file():
        return None
    file = root / "label2idx.json"
    return _first([file], f"Expected the names of AVSBench's classes at {file}, found none.")


def missing_shards(root: str) -> str:
    """Sentence that says that there is no prepared data set in a folder, or none that is finished."""
    unfinished = Path(root, "parts").is_dir()
    hint = "`deepavfusion data prepare` makes one"
    if unfinished:
        hint = "its preparation is not finished: wait for it, or run the same `deepavfusion data prepare` again"
    return f"Expected a prepared data set with {SHARDS} at {root}; {hint}."


def _shards_file(root: Path) -> Path:
    return _first([root / SHARDS], lambda: missing_shards(str(root)))


def _first(
    candidates: Iterable[Path], expected: str | Callable[[], str], exists: Callable[[Path], bool] = Path.is_file
) -> Path:
    for path in candidates:
        if exists(path):
            return path
    raise FileNotFoundError(expected if isinstance(expected, str) else expected())


def check_data_folder(name: str, path: str | None) -> None:
    """Raise `InputError` if the folder of a data set on disk is not named, or does not exist."""
    if reason := no_data_path(name, path):
        raise InputError(reason)
    if path is not None and "://" not in path and (reason := no_data(path)):
        raise InputError(unusable(f"data.path={path}", reason))


def check_data_files(name: str, options: Mapping[str, Any], splits: Sequence[str] = (), prefix: str = "") -> None:
    """Check that the files are there that a data set on disk cannot do without.

    Args:
        name: Name of the data set.
        options: Section `data` of a recipe; of a path that is an address, nothing is known yet.
        splits: Splits that are read, of "train" and "test"; files of other splits may be absent.
        prefix: Start of the message for a file that is missing in the folder.

    Raises:
        InputError: If one is missing; the message names it.
    """
    if name != "shards":  # which knows the contents of its lists
        _check_given(options)
    if options.get("checked_list") is not None or "://" in options["path"]:
        return
    try:
        _find_all(name, Path(options["path"]), options, splits)
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{prefix}{error}") from error


def check_subset(name: str, subset: str | None) -> None:
    """Raise `InputError` for a part, `data.subset`, that a data set of several parts does not have."""
    if name in _PARTS and subset not in _PARTS[name]:
        raise InputError(f"data.subset of {name} must be one of {', '.join(_PARTS[name])}, got {subset!r}.")


def check_preparation(name: str, options: Mapping[str, Any]) -> None:
    """Raise `InputError` for a data set, or an option of one, that cannot be prepared."""
    if name == "shards":
        raise InputError(f"{options['path']} is named as a prepared data set; only others can be prepared.")
    if options.get("validation_fraction") is not None:
        raise InputError("All clips are prepared: give data.validation_fraction to the training, which holds them out.")


def is_preparation(out: Path) -> bool:
    """Whether a folder is that of a preparation, whichever, rather than absent or empty.

    Raises:
        FolderTakenError: It holds something else.
    """
    if (out / PREPARATION).is_file():
        return True
    if out.exists() and not (out.is_dir() and _is_empty(out)):
        raise FolderTakenError(f"{out} exists and is not a preparation; choose a new or empty folder.")
    return False


def _is_empty(out: Path) -> bool:
    """Whether a folder holds nothing but what a preparation that begins makes first."""
    if not all(entry.is_dir() and entry.name in ("parts", "shards") for entry in out.iterdir()):
        return False
    return all(file.suffix == ".tmp" or file.name == PREPARATION.name for file in out.glob("*/*"))


def check_things(path: str | None) -> None:
    """Raise `InputError` if the folder of things, `data.things`, is given and does not exist."""
    if path is not None and (reason := no_data(path)):
        raise InputError(unusable(f"data.things={path}", reason))


def _check_given(options: Mapping[str, Any]) -> None:
    for option in _FILES:
        file = options.get(option)
        if file is not None and "://" not in file and not os.path.isfile(file):
            found = os.path.isdir(file)
            what = "that is a folder, not a file" if found else f"there is no such file{similar(Path(file), False)}"
            raise InputError(unusable(f"data.{option}={file}", what))


def _find_all(name: str, root: Path, options: Mapping[str, Any], splits: Sequence[str]) -> None:
    subset = options.get("subset") or SUBSETS.get(name, "")
    check_subset(name, subset)
    if name == "folder":
        if options.get("annotations") is None and not annotation_files(root):
            check_videos(root)
    elif name == "vggsound":
        vggsound_csv(root, options.get("annotations"))
    elif name == "audioset":
        audioset_file(root, AUDIOSET_LABELS)
        parts = AUDIOSET_SUBSETS[subset] if "train" in splits else ()
        for part in (*parts, *([AUDIOSET_TEST] if "test" in splits else [])):
            audioset_file(root, audioset_segments(part))
    elif name == "music":
        for kind in MUSIC_SUBSETS[subset]:
            music_list(root, kind)
    elif name == "vggsound_music":
        for split, option, file in (("train", "train_list", TRAIN_LIST), ("test", "test_list", PAIR_LIST)):
            if split in splits:
                vggsound_music_list(root, options.get(option), file)
    elif name == "avsbench":
        avsbench_folder(root, subset)
        avsbench_names(root)
    elif name == "vggss":
        vggss_json(root, options.get("annotations"))
    elif name == "flickr_soundnet":
        flickr_folder(root)
    elif name == "is3":
        is3_json(root, options.get("annotations"))
    elif name == "shards":
        _shards_file(root)


__all__ = [
    "AUDIOSET_LABELS",
    "AUDIOSET_SUBSETS",
    "AUDIOSET_TEST",
    "AVSBENCH_SUBSETS",
    "AUDIOSET_TRAINING",
    "IS3_ANNOTATIONS",
    "PREPARATION",
    "FolderTakenError",
    "MUSIC_LISTS",
    "MUSIC_SUBSETS",
    "PAIR_LIST",
    "SHARDS",
    "SUBSETS",
    "TRAIN_LIST",
    "audioset_file",
    "audioset_segments",
    "avsbench_folder",
    "avsbench_names",
    "check_data_files",
    "check_data_folder",
    "check_preparation",
    "check_subset",
    "check_things",
    "flickr_folder",
    "is3_json",
    "is_preparation",
    "missing_shards",
    "music_list",
    "vggsound_csv",
    "vggsound_music_list",
    "vggss_json",
]
