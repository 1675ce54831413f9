"""AudioSet: clips of YouTube videos with several labels each.

    <root>/clips/<id[:2]>/<id>_<start:06d>_<end:06d>.mp4
    <root>/class_labels_indices.csv                                 527 classes; or in <root>/annotations
    <root>/{balanced_train,unbalanced_train,eval}_segments.csv      or in <root>/annotations

Copies of the segment files differ: with and without header, comment lines that start with #, blanks after commas,
quoted labels or not. All are read.
"""

from pathlib import Path

from deepavfusion.inference.files import reads_file
from deepavfusion_cli.early.data import (
    AUDIOSET_LABELS,
    AUDIOSET_TEST,
    AUDIOSET_TRAINING,
    audioset_file,
    audioset_segments,
)

from .annotations import read_times
from .folder import make_rows
from .names import ClipFiles
from .tables import read_records, read_table
from .vggsound import clip_name, report_missing, without_repeats

SUBSETS = (*AUDIOSET_TRAINING, AUDIOSET_TEST)


@reads_file
def read_class_labels(path: str | Path) -> dict[str, str]:
    """Machine ids (`/m/09x0r`) to display names, in the order of the classes."""
    columns, records = read_records(path)
    rows = [row for _, row in records]
    if not rows or not {"index", "mid", "display_name"} <= set(columns):
        raise ValueError(f"{path}: expected the columns index, mid and display_name.")
    if wrong := [row["index"] for row in rows if not (row["index"] or "").strip().isdecimal()]:
        raise ValueError(f"{path}: expected a whole number as index, got {wrong[0]!r}.")
    return {row["mid"]: row["display_name"] for row in sorted(rows, key=lambda row: int(row["index"]))}


@reads_file
def read_segments(path: str | Path) -> list[dict]:
    """Read a segment file as dictionaries of `id`, `start`, `end` (float seconds) and `mids` (list).

    Raises:
        ValueError: A line that is neither comment, header nor segment, or has times out of range.
    """
    segments = []
    for _, fields in read_table(path, comment="#"):
        if fields[0].strip().upper() == "YTID":
            continue
        if len(fields) < 3:
            raise ValueError(f"{path}: expected id, start, end, labels, got {fields}.")
        try:
            times = read_times({"start": fields[1], "end": fields[2]}, f"segment {fields[0]}")
        except ValueError as error:
            raise ValueError(f"{path}: expected id, start, end, labels, got {fields}: {error}") from None
        mids = [mid.strip().strip('"') for field in fields[3:] for mid in field.split(",")]
        segments.append({"id": fields[0], **times, "mids": [mid for mid in mids if mid]})
    return without_repeats(path, segments)


def read_audioset(root: str | Path, subsets: tuple[str, ...] = AUDIOSET_TRAINING):
    """Read AudioSet as a dataset of `make_rows`; a label is a list of classes, `split` the subset.

    Annotated clips that are not on disk are left out, and their number is logged.

    Args:
        root: Folder in the module's layout; without `clips`, clips are anywhere in it.
        subsets: Any of `SUBSETS`.

    Raises:
        FileNotFoundError: No annotations, or none of the clips.
    """
    root = Path(root)
    if not subsets or set(subsets) - set(SUBSETS):
        raise ValueError(f"Expected subsets of {', '.join(SUBSETS)}, got {subsets}.")
    names = read_class_labels(audioset_file(root, AUDIOSET_LABELS))
    clips = root / "clips" if (root / "clips").is_dir() else root
    segments = {subset: read_segments(audioset_file(root, audioset_segments(subset))) for subset in subsets}
    files = ClipFiles(clips)
    found, _ = files.match({clip_name(row): row["id"][:2] for rows in segments.values() for row in rows})
    rows, missing = [], []
    for subset, segment in ((name, segment) for name, listed in segments.items() for segment in listed):
        name = clip_name(segment)
        if name not in found:
            missing.append(f"{segment['id'][:2]}/{name}")
            continue
        labels = [names.get(mid) for mid in segment["mids"]]
        if None in labels:
            raise ValueError(f"Segment {segment['id']} has the unknown label {segment['mids'][labels.index(None)]}.")
        own = {"label": labels, "split": subset, "clip": name, "recording": segment["id"]}
        rows.append({"path": found[name], **own})
    report_missing("AudioSet " + ", ".join(subsets), len(rows) + len(missing), missing, 0)
    if not rows:
        raise FileNotFoundError(
            f"None of AudioSet's {len(missing)} annotated clips is in {clips}: expected e.g. {missing[0]}_*.mp4, "
            f"{files.example()}."
            if missing
            else f"AudioSet's segment files list no clips: {', '.join(subsets)}."
        )
    return make_rows(rows, list(names.values()))
