"""VGGSound-Music: VGGSound's clips of instruments, with lists for separation.

    <root>/clips/playing_<instrument>/<id>_<start:06d>_<end:06d>.mp4     VGGSound's own layout
    <root>/annotations/vggmusic_train.txt       <id>_<start:06d>,<instrument>; no header
    <root>/annotations/vggmusic_eval_ss.csv     source_1,source_2,class_1,class_2,sep_type; header
    <root>/annotations/vggsound.csv             optional: which clips are VGGSound's test clips

The training list abbreviates two instruments: violin is the class "violin, fiddle", and steel_guitar the class "steel
guitar, slide guitar". It contains 1,221 clips of VGGSound's test split, among them clips of the pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deepavfusion.inference.files import reads_file
from deepavfusion_cli.early.data import PAIR_LIST, TRAIN_LIST, vggsound_music_list

from .folder import make_rows
from .lists import read_list
from .names import ClipFiles, clip_key, youtube_id
from .tables import read_records
from .vggsound import class_folder, find_test_keys, report_missing

_FULL_NAMES = {"violin": "violin__fiddle", "steel_guitar": "steel_guitar__slide_guitar"}
_PAIR_COLUMNS = ("source_1", "source_2", "class_1", "class_2")


class Pair(NamedTuple):
    """Two clips to mix: their keys `<id>_<start:06d>`, instruments, and "Easy" or "Hard" (one instrument twice)."""

    keys: tuple[str, str]
    instruments: tuple[str, str]
    kind: str | None


def instrument_name(name: str) -> str:
    """An instrument as in the class folders, after `playing_`: `violin` and `violin,_fiddle` -> `violin__fiddle`."""
    name = class_folder(name.strip())
    return _FULL_NAMES.get(name, name)


@reads_file
def read_pairs(path: str | Path) -> list[Pair]:
    """Read a csv of pairs with the columns source_1, source_2, class_1, class_2 and optionally sep_type.

    Raises:
        ValueError: Columns or values are missing.
    """
    columns, rows = read_records(path)
    if not set(_PAIR_COLUMNS) <= set(columns):
        raise ValueError(
            f"{path}: expected the columns {', '.join(_PAIR_COLUMNS)}, got {', '.join(columns) or 'none'}."
        )
    pairs = []
    for line, row in rows:
        if not all(row.get(column) for column in _PAIR_COLUMNS):
            raise ValueError(f"{path}, line {line}: expected two clips and their classes, got {list(row.values())}.")
        keys = clip_key(row["source_1"]), clip_key(row["source_2"])
        pairs.append(
            Pair(keys, (instrument_name(row["class_1"]), instrument_name(row["class_2"])), row.get("sep_type"))
        )
    if not pairs:
        raise ValueError(f"Expected pairs of clips in {path}, found none.")
    return pairs


def read_instruments(path: str | Path) -> dict[str, str]:
    """Read the instruments of a training list, by key.

    Raises:
        ValueError: A clip has no instrument.
    """
    entries = read_list(path)
    bare = [entry.key for entry in entries if entry.label is None]
    if bare:
        raise ValueError(
            f"{path}: expected <id>_<start>,<instrument>, but {len(bare)} clips have no instrument, first: {bare[0]}."
        )
    return {entry.key: instrument_name(entry.label) for entry in entries}


def read_test_keys(root: Path, annotations: str | None, test_list: str | None, required: bool) -> set[str]:
    """Read the keys of the clips of the pairs and of VGGSound's test split, as far as their lists are found.

    Args:
        root: Folder in the module's layout.
        annotations: VGGSound's csv, if it lies elsewhere.
        test_list: The csv of pairs, if it lies elsewhere.
        required: Whether one of the two must be found.

    Raises:
        FileNotFoundError: A list that was given does not exist, or none is found and one is required.
    """
    tests = find_test_keys(root, annotations)
    try:
        pairs = vggsound_music_list(root, test_list, PAIR_LIST)
    except FileNotFoundError:
        if test_list or (required and not tests):
            raise
        return tests
    return tests | {key for pair in read_pairs(pairs) for key in pair.keys}


def _find_clips(root: Path, instruments: Mapping[str, str]) -> tuple[dict[str, Path], ClipFiles]:
    """Files of clips, given their instruments by key, and the files that there are."""
    clips = root / "clips" if (root / "clips").is_dir() else root
    if not clips.is_dir():
        raise FileNotFoundError(f"Expected a folder of clips at {clips}, found none.")
    files = ClipFiles(clips)
    return files.match({key: f"playing_{instrument}" for key, instrument in instruments.items()})[0], files


def read_training_clips(root: str | Path, train_list: str | Path | None = None):
    """Read the training list as a dataset of `make_rows`; labels are instruments.

    Listed clips that are not on disk are left out, and their number is logged.

    Args:
        root: Folder in the module's layout.
        train_list: The list, if it lies elsewhere.

    Raises:
        FileNotFoundError: No list, no clips, or none of the listed clips.
    """
    root = Path(root)
    instruments = read_instruments(vggsound_music_list(root, train_list, TRAIN_LIST))
    on_disk, files = _find_clips(root, instruments)
    missing = [key for key in instruments if key not in on_disk]
    report_missing("VGGSound-Music, train", len(instruments), missing, 0)
    rows = [
        {"path": on_disk[key], "label": instrument, "split": "train", "clip": key, "recording": youtube_id(key)}
        for key, instrument in instruments.items()
        if key in on_disk
    ]
    if not rows:
        raise FileNotFoundError(
            f"None of VGGSound-Music's {len(missing)} clips is in {root}: expected e.g. {missing[0]}, "
            f"{files.example()}."
        )
    return make_rows(rows, sorted(set(instruments.values())))


def read_evaluation_pairs(root: str | Path, test_list: str | Path | None = None, label_names: list[str] | None = None):
    """Read the clips of the pairs as a dataset of `make_rows`, and the pairs as positions in it.

    Pairs of which a clip is not on disk are left out, and their number is logged.

    Args:
        root: Folder in the module's layout.
        test_list: The csv of pairs, if it lies elsewhere.
        label_names: All instruments; None takes those of the pairs.

    Raises:
        FileNotFoundError: No list, no clips, or none of the pairs.
    """
    root = Path(root)
    pairs = read_pairs(vggsound_music_list(root, test_list, PAIR_LIST))
    on_disk, files = _find_clips(
        root, {key: name for pair in pairs for key, name in zip(pair.keys, pair.instruments, strict=True)}
    )
    whole = [pair for pair in pairs if all(key in on_disk for key in pair.keys)]
    missing = [" + ".join(pair.keys) for pair in pairs if not all(key in on_disk for key in pair.keys)]
    report_missing("VGGSound-Music, pairs", len(pairs), missing, 0)
    if not whole:
        raise FileNotFoundError(
            f"None of VGGSound-Music's {len(pairs)} pairs is in {root}: expected e.g. {missing[0]}, {files.example()}."
        )
    labels = {key: name for pair in whole for key, name in zip(pair.keys, pair.instruments, strict=True)}
    rows = [
        {"path": on_disk[key], "label": label, "split": "test", "clip": key, "recording": youtube_id(key)}
        for key, label in labels.items()
    ]
    return make_rows(rows, label_names), place_pairs(whole, list(labels))


def place_pairs(pairs: Iterable[Pair], keys: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of pairs in a list of keys, of those of which both clips are in it."""
    place = {key: i for i, key in enumerate(keys)}
    return [(place[a], place[b]) for a, b in (pair.keys for pair in pairs) if a in place and b in place]
