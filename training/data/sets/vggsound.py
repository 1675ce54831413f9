"""
VGGSound as published: `clips/<class>/<id>_<start:06d>_<end:06d>.mp4` and `annotations/vggsound.csv`.

The folder of a class is its label with each of space ( ) and , replaced by _ ("child speech, kid speaking" lies in
`child_speech__kid_speaking`). The annotation file has no header: id, start, label, split; a label is quoted where it
contains a comma; line ends may be CRLF.
"""

import csv
import logging
import os
from pathlib import Path

from .folder import is_video, make_rows

logger = logging.getLogger(__name__)

_TO_UNDERSCORE = str.maketrans(" (),", "____")


def class_folder(label: str) -> str:
    """The folder in which clips of a label lie."""
    return label.translate(_TO_UNDERSCORE)


def read_vggsound_csv(path: str | Path) -> list[dict]:
    """
    The annotations as dictionaries of `id`, `start` (int seconds), `label` and `split`.

    Raises:
        ValueError: A line does not have four fields, or its start is no whole number.
    """
    rows = []
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != 4 or not fields[1].strip().isdigit():
                raise ValueError(f"{path}, line {reader.line_num}: expected id,start,label,split, got {fields}")
            rows.append({"id": fields[0], "start": int(fields[1]), "label": fields[2], "split": fields[3].strip()})
    return rows


def read_test_keys(path: str | Path) -> set[str]:
    """`<id>_<start:06d>` of the clips that the annotations put into the test split."""
    return {f"{row['id']}_{row['start']:06d}" for row in read_vggsound_csv(path) if row["split"] == "test"}


def index_clips(folder: Path) -> dict[str, Path]:
    """Video files two levels down by `<folder>/<id>_<start:06d>`: one listing a folder, not one look-up a clip."""
    found = {}
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir():
            for file in sorted(os.scandir(entry.path), key=lambda e: e.name):
                stem = Path(file.name).stem.rsplit("_", 1)[0]
                if is_video(file.name):
                    found.setdefault(f"{entry.name}/{stem}", Path(file.path))
    return found


def report_missing(what: str, annotated: int, missing: list[str], extra: int) -> None:
    """Say how many annotated clips are not on disk, and how many on disk are not annotated."""
    if missing:
        logger.warning("%s: %d of %d annotated clips are missing, first: %s", what, len(missing), annotated, missing[0])
    if extra:
        logger.warning("%s: %d clips on disk are not annotated", what, extra)


def read_vggsound(root: str | Path, split: str | None = None, annotations: str | Path | None = None):
    """
    VGGSound's clips as a `datasets.Dataset` with the columns `path`, `label` (classes: all of the annotation file,
    sorted), `start`, `end` (None: a file holds its clip alone) and `split`.

    Args:
        root: Folder that holds `clips/` (or the class folders themselves) and `annotations/vggsound.csv`.
        split: `"train"` or `"test"`; None keeps both.
        annotations: The csv file, if it lies elsewhere.

    Clips that are annotated and not on disk are left out, counted, and said in the log.

    Raises:
        FileNotFoundError: No annotations, no clips, or none of the clips annotated.
    """
    root = Path(root)
    annotations = Path(annotations) if annotations is not None else root / "annotations" / "vggsound.csv"
    if not annotations.is_file():
        raise FileNotFoundError(f"VGGSound's annotations are not at {annotations}")
    clips = root / "clips" if (root / "clips").is_dir() else root
    table = read_vggsound_csv(annotations)
    names = sorted({row["label"] for row in table})
    if split not in (None, "train", "test"):
        raise ValueError(f"VGGSound has the splits train and test, not {split!r}")
    on_disk = index_clips(clips)
    rows, missing, annotated = [], [], set()
    for row in table:
        key = f"{class_folder(row['label'])}/{row['id']}_{row['start']:06d}"
        annotated.add(key)
        if split is not None and row["split"] != split:
            continue
        if key in on_disk:
            rows.append({"path": on_disk[key], "label": row["label"], "split": row["split"]})
        else:
            missing.append(key)
    report_missing("VGGSound", len(rows) + len(missing), missing, len(on_disk.keys() - annotated))
    if not rows:
        which = "annotated clips" if split is None else f"clips annotated as {split}"
        example = f": expected e.g. {missing[0]}_*.mp4" if missing else ""
        raise FileNotFoundError(f"none of VGGSound's {len(missing)} {which} is in {clips}{example}")
    return make_rows(rows, names)
