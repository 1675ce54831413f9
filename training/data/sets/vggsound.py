"""VGGSound: clips of YouTube videos with one label each.

    <root>/clips/<class>/<id>_<start:06d>_<end:06d>.mp4
    <root>/annotations/vggsound.csv or <root>/vggsound.csv  id, start, label, split; no header

The folder of a class is its label with each of space ( ) and , replaced by _ ("child speech, kid speaking" becomes
`child_speech__kid_speaking`). Labels with a comma are quoted; line ends may be CRLF. Clips with other names or in other
folders are found by id and start (see `ClipFiles`).
"""

import contextlib
import logging
import re
from collections.abc import Generator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from deepavfusion.inference.files import reads_file
from deepavfusion_cli.early.data import vggsound_csv

from .annotations import split_name
from .folder import make_rows
from .names import ClipFiles
from .tables import read_table

logger = logging.getLogger(__name__)

_TO_UNDERSCORE = str.maketrans(" (),", "____")


class Missing(NamedTuple):
    """Annotated clips of a split that are not on disk, and clips on disk that are not annotated."""

    annotated: int
    """Number of annotated clips, with those that are missing."""
    names: list[str]
    """Names of those that are missing."""
    extra: int
    """Number of clips that are not annotated."""


_COLLECTED: ContextVar[list[Missing] | None] = ContextVar("missing clips", default=None)


def class_folder(label: str) -> str:
    """The folder of a label's clips."""
    return label.translate(_TO_UNDERSCORE)


@reads_file
def read_vggsound_csv(path: str | Path) -> list[dict]:
    """Read the annotations as dictionaries of `id`, `start` (int seconds), `label` and `split`.

    Of a clip that is named twice, which is logged, the first line is used.

    Raises:
        ValueError: A line does not have four fields, or its start is not a whole number.
    """
    rows = []
    for line, fields in read_table(path):
        fields = [field.strip() for field in fields]
        if line == 1 and fields[1:2] and not fields[1][:1].isdigit() and len(fields) == 4:
            continue  # a header
        whole = len(fields) == 4 and re.fullmatch(r"(\d{1,9})(?:\.0*)?", fields[1])
        if not whole:
            raise ValueError(f"{path}, line {line}: expected id,start,label,split, got {fields}.")
        rows.append({"id": fields[0], "start": int(whole[1]), "label": fields[2], "split": split_name(fields[3])})
    return without_repeats(path, rows)


def without_repeats(path: str | Path, rows: list[dict]) -> list[dict]:
    """The rows of an annotation file without those of clips that an earlier row names, which are logged."""
    first: dict[str, dict] = {}
    again = [row for row in rows if first.setdefault(clip_name(row), row) is not row]
    if again:
        others = [row for row in again if row != first[clip_name(row)]]
        name = clip_name((others or again)[0])
        about = f", {len(others)} of them with something else, first: " if others else ", first: "
        logger.warning("%s: %d lines name a clip again and are not used%s%s", path, len(again), about, name)
    return list(first.values())


def clip_name(row: dict) -> str:
    """The published name `<id>_<start:06d>` of an annotated clip."""
    return f"{row['id']}_{int(row['start']):06d}"


def read_test_keys(path: str | Path) -> set[str]:
    """Read the keys `<id>_<start:06d>` of the test split."""
    return {clip_name(row) for row in read_vggsound_csv(path) if row["split"] == "test"}


def find_test_keys(root: Path, given: str | Path | None = None) -> set[str]:
    """Read the keys of the test split from the csv that was given, or from that of the data set if there is one."""
    try:
        return read_test_keys(vggsound_csv(root, given))
    except FileNotFoundError:
        if given is not None:
            raise
        return set()


@contextlib.contextmanager
def collecting_missing() -> Generator[list[Missing]]:
    """Collect what `report_missing` is given instead of logging it."""
    collected: list[Missing] = []
    token = _COLLECTED.set(collected)
    try:
        yield collected
    finally:
        _COLLECTED.reset(token)


def report_missing(what: str, annotated: int, missing: list[str], extra: int) -> None:
    """Log the number of annotated clips that are missing on disk, and of clips on disk without annotation."""
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(Missing(annotated, missing, extra))
        return
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
    annotations = vggsound_csv(root, annotations)
    clips = root / "clips" if (root / "clips").is_dir() else root
    table = read_vggsound_csv(annotations)
    names = sorted({row["label"] for row in table})
    if split not in (None, "train", "test"):
        raise ValueError(f"Expected the split train or test of VGGSound, got {split!r}.")
    files = ClipFiles(clips)
    found, extra = files.match({clip_name(row): class_folder(row["label"]) for row in table})
    rows, missing = [], []
    for row in table:
        name = clip_name(row)
        if split is not None and row["split"] != split:
            continue
        if name in found:
            own = {"label": row["label"], "split": row["split"], "clip": name, "recording": row["id"]}
            rows.append({"path": found[name], **own})
        else:
            missing.append(f"{class_folder(row['label'])}/{name}")
    report_missing("VGGSound", len(rows) + len(missing), missing, extra)
    if not rows:
        which = "annotated clips" if split is None else f"clips annotated as {split}"
        example = f": expected e.g. {missing[0]}_*.mp4" if missing else ""
        raise FileNotFoundError(f"None of VGGSound's {len(missing)} {which} is in {clips}{example}, {files.example()}.")
    return make_rows(rows, names)
