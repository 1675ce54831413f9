"""VGGSound: clips of YouTube videos with one label each.

    <root>/clips/<class>/<id>_<start:06d>_<end:06d>.mp4
    <root>/annotations/vggsound.csv                         id, start, label, split; no header

The folder of a class is its label with each of space ( ) and , replaced by _ ("child speech, kid speaking" becomes
`child_speech__kid_speaking`). Labels with a comma are quoted; line ends may be CRLF.
"""

import csv
import logging
import os
from pathlib import Path

from .folder import is_video, make_rows

logger = logging.getLogger(__name__)

_TO_UNDERSCORE = str.maketrans(" (),", "____")


def class_folder(label: str) -> str:
    """The folder of a label's clips."""
    return label.translate(_TO_UNDERSCORE)


def read_vggsound_csv(path: str | Path) -> list[dict]:
    """Read the annotations as dictionaries of `id`, `start` (int seconds), `label` and `split`.

    Raises:
        ValueError: A line does not have four fields, or its start is not a whole number.
    """
    rows = []
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != 4 or not fields[1].strip().isdecimal():
                raise ValueError(f"{path}, line {reader.line_num}: expected id,start,label,split, got {fields}.")
            rows.append({"id": fields[0], "start": int(fields[1]), "label": fields[2], "split": fields[3].strip()})
    return rows


def read_test_keys(path: str | Path) -> set[str]:
    """Read the keys `<id>_<start:06d>` of the test split."""
    return {f"{row['id']}_{row['start']:06d}" for row in read_vggsound_csv(path) if row["split"] == "test"}


def index_clips(folder: Path) -> dict[str, Path]:
    """Video files two levels down, by `<folder>/<id>_<start:06d>`."""
    found = {}  # one listing per folder is faster than a look-up per clip
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir():
            for file in sorted(os.scandir(entry.path), key=lambda e: e.name):
                stem = Path(file.name).stem.rsplit("_", 1)[0]
                if is_video(file.name):
                    found.setdefault(f"{entry.name}/{stem}", Path(file.path))
    return found


def report_missing(what: str, annotated: int, missing: list[str], extra: int) -> None:
    """Log the number of annotated clips that are missing on disk, and of clips on disk without annotation."""
    if missing:
        logger.warning("%s: %d of %d annotated clips are missing, first: %s", what, len(missing), annotated, missing[0])
    if extra:
        logger.warning("%s: %d clips on disk are not annotated", what, extra)


def read_vggsound(root: str | Path, split: str | None = None, annotations: str | Path | None = None):
    """Read VGGSound as a dataset of `make_rows`; the classes are all labels of the annotation file, sorted.

    Annotated clips that are not on disk are left out, and their number is logged.

    Args:
        root: Folder in the module's layout; without `clips`, the class folders lie in it.
        split: `"train"` or `"test"`; None keeps both.
        annotations: The csv file, if it lies elsewhere.

    Raises:
        FileNotFoundError: No annotations, no clips, or none of the annotated clips.
    """
    root = Path(root)
    annotations = Path(annotations) if annotations is not None else root / "annotations" / "vggsound.csv"
    if not annotations.is_file():
        raise FileNotFoundError(f"Expected VGGSound's annotations at {annotations}, found none.")
    clips = root / "clips" if (root / "clips").is_dir() else root
    table = read_vggsound_csv(annotations)
    names = sorted({row["label"] for row in table})
    if split not in (None, "train", "test"):
        raise ValueError(f"Expected the split train or test of VGGSound, got {split!r}.")
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
        raise FileNotFoundError(f"None of VGGSound's {len(missing)} {which} is in {clips}{example}.")
    return make_rows(rows, names)
