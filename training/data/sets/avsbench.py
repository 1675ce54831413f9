"""AVSBench: frames with masks of sounding objects, one per second.

    <root>/metadata.csv       vid, uid, s_min, s_sec, a_obj, split (train, val, test), label (v1s, v1m, v2)
    <root>/label2idx.json     71 names -> 1 .. 71; a mask's pixel value is the index - 1; 0 is the background
    <root>/{v1s,v1m,v2}/<uid>/{frames/N.jpg, labels_semantic/N.png, labels_rgb/N.png, audio.wav}     N from 0

S4 is v1s, MS3 is v1m, AVSS is all of it. The older release of objects:

    <root>/Single-source/s4_data/gt_masks/<split>/<class>/<video>/<video>_N.png                       N from 1
                                 visual_frames/<split>/<class>/<video>/<video>_N.png
                                 audio_wav/<split>/<class>/<video>.wav
    <root>/Multi-sources/ms3_data/gt_masks/<split>/<video>/<video>_N.png
                                  visual_frames/<video>/<video>.mp4_N.png
                                  audio_wav/<split>/<video>.wav

Every frame with a mask is a row: of S4's training videos only the first. Its audio is the window around the middle of
its second, shifted to lie within the recording.
"""

import json
import os
from pathlib import Path

from deepavfusion.inference.files import reads_file
from deepavfusion.inference.jobs.progress import counted
from deepavfusion_cli.early.data import AVSBENCH_SUBSETS, avsbench_folder, avsbench_names, check_subset

from ..frames import Still
from .annotations import split_name
from .lists import read_list
from .names import is_inside
from .tables import read_records, read_text
from .vggsound import report_missing

SPLITS = {"train": "train", "validation": "val", "test": "test"}
_COLUMNS = ("uid", "split", "label")


@reads_file
def read_label_names(path: str | Path) -> list[str]:
    """Read a `label2idx.json` as names by pixel value.

    Raises:
        ValueError: The indices are not 1 .. n.
    """
    indices = json.loads(read_text(path))
    names = sorted(indices, key=indices.get)
    if [indices[name] for name in names] != list(range(1, len(names) + 1)):
        raise ValueError(f"{path}: expected names with the indices 1 to {len(names)}, got {sorted(indices.values())}.")
    return names


@reads_file
def read_metadata(path: str | Path) -> list[dict]:
    """Read the videos of a `metadata.csv` as dictionaries of its columns; `a_obj` is a list of names.

    Raises:
        ValueError: The columns uid, split or label are missing.
    """
    columns, records = read_records(path)
    if not set(_COLUMNS) <= set(columns):
        raise ValueError(f"{path}: expected the columns {', '.join(_COLUMNS)}, got {', '.join(columns) or 'none'}.")
    return [
        {
            **row,
            "a_obj": (row.get("a_obj") or "").split("_"),
            "split": SPLITS.get(split_name(row["split"]), row["split"]),
        }
        for _, row in records
    ]


def _masks(folder: Path) -> list[tuple[int, str]]:
    """(N, file name) of the masks in a folder, in order; N is the number at the end of the name."""
    found = []
    if folder.is_dir():
        for entry in os.scandir(folder):
            number = Path(entry.name).stem.rpartition("_")[2]
            if entry.name.endswith(".png") and not entry.name.startswith(".") and number.isdigit():
                found.append((int(number), entry.name))
    return sorted(found)


def read_avsbench(
    root: str | Path, subset: str, split: str, frames: str | Path | None = None
) -> tuple[list[Still], list[str] | None]:
    """Read the annotated frames of a split, from either layout, and the names of the classes by pixel value.

    Videos or frames that are not on disk are left out, and their number is logged.

    Args:
        root: Folder in one of the module's layouts.
        subset: `"s4"`, `"ms3"` or `"avss"`.
        split: `"train"`, `"validation"` or `"test"`.
        frames: List of the frames `<video>_N` to read; for the older release only.

    Returns:
        Rows with masks; names, or None for the older release, whose masks have no classes.

    Raises:
        FileNotFoundError: Neither layout is found, or none of its masks.
    """
    root = Path(root)
    check_subset("avsbench", subset)
    if split not in SPLITS:
        raise ValueError(f"Expected a split of {', '.join(SPLITS)}, got {split!r}.")
    place, names = avsbench_folder(root, subset), avsbench_names(root)
    if names is not None:
        if frames is not None:
            raise ValueError(f"Lists of frames require the older release of AVSBench, but {root} has metadata.csv.")
        return _read_semantic(root, subset, SPLITS[split]), read_label_names(names)
    return _read_objects(place, subset, SPLITS[split], frames), None


def _read_semantic(root: Path, subset: str, split: str) -> list[Still]:
    labels = AVSBENCH_SUBSETS[subset]
    videos = [v for v in read_metadata(root / "metadata.csv") if v["split"] == split and v["label"] in labels]
    rows, missing = [], []
    for video in counted(videos, f"{root}: listing the masks", "video"):
        folder = root / video["label"] / video["uid"]
        if not is_inside(root, folder):
            raise ValueError(f"{root / 'metadata.csv'} names a video outside of {root}: {video['uid']}.")
        masks = _masks(folder / "labels_semantic")
        if not masks:
            missing.append(f"{video['label']}/{video['uid']}")
        for number, name in masks:
            image = str(folder / "frames" / f"{number}.jpg")
            mask = str(folder / "labels_semantic" / name)
            rows.append(Still(image, str(folder / "audio.wav"), number + 0.5, mask))
    report_missing(f"AVSBench {subset}, {split}, videos with masks", len(videos), missing, 0)
    if not rows:
        example = (
            f": expected e.g. {missing[0]}/labels_semantic/0.png" if missing else ": metadata.csv does not list it"
        )
        raise FileNotFoundError(f"Found no masks of AVSBench {subset}, split {split}, in {root}{example}.")
    return rows


def _read_objects(root: Path, subset: str, split: str, listed: str | Path | None) -> list[Still]:
    selected = None if listed is None else {entry.key for entry in read_list(listed)}
    top = root / "gt_masks" / split
    folders = [folder for folder in sorted(top.glob("*/*" if subset == "s4" else "*")) if folder.is_dir()]
    rows, missing, taken = [], [], set()
    for folder in counted(folders, f"{root}: listing the masks", "video"):
        inner = folder.relative_to(top)  # [<class>/]<video>
        for number, name in _masks(folder):
            key = f"{folder.name}_{number}"
            if selected is not None and key not in selected:
                continue
            taken.add(key)
            candidates = [
                root / "visual_frames" / place / f"{folder.name}{suffix}_{number}.png"
                for place in (Path(split) / inner, inner)
                for suffix in ("", ".mp4")
            ]
            image = next((path for path in candidates if path.is_file()), None)
            audio = root / "audio_wav" / split / inner.parent / f"{folder.name}.wav"
            if image is None:
                missing.append(str(candidates[0]))
            else:
                rows.append(Still(str(image), str(audio), number - 0.5, str(folder / name)))
    if selected is not None:
        missing += sorted(selected - taken)
    report_missing(f"AVSBench {subset}, {split}, frames", len(rows) + len(missing), missing, 0)
    if not rows:
        raise FileNotFoundError(f"Found no frames of AVSBench {subset} with masks in {top}.")
    return rows
