"""VGG-SS: boxes around sounding objects in clips of VGGSound's test split, at 5.0 s.

    <root>/annotations/vggss.json or <root>/vggss.json, [{"file": "<id>_<start>", "bbox": [[x1, y1, x2, y2]], ...}]
    <root>/frames/<id>_<start>.jpg and <root>/audio/<id>_<start>.wav, whose middle is the frame's timestamp
    or VGGSound's clips: <root>/clips/<class>/<id>_<start:06d>_<end:06d>.mp4, of which the frame at 5.0 s is taken

Boxes are in fractions of the frame's width and height. Some exceed it, one by -2.88e16, and 18 are degenerate: boxes
are clipped to the frame, and those without area left out. A frame with degenerate boxes only is left out, since it is
not a negative. The consensus map is the union of the boxes. Published code stretches frames to squares; here a model
sees the center crop of a frame, as everywhere, and boxes are cropped with it.

Published training lists (`vggss_144k.txt`, `vggss_10k.txt`, `vggss_heard.txt`) name VGGSound's clips without boxes;
vggss_144k contains 11,163 clips of VGGSound's test split.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from deepavfusion.inference.files import reads_file
from deepavfusion.inference.jobs.progress import counted

from ...frames import Still
from ...views import Box
from ..lists import ImageAudioPair
from ..names import ClipFiles, clip_key
from ..tables import read_text
from ..vggsound import report_missing

logger = logging.getLogger(__name__)

TIMESTAMP = 5.0


def clean_boxes(boxes: Iterable[Iterable[float]], name: str) -> tuple[Box, ...]:
    """Clip boxes to 0..1 and leave out those without area.

    Raises:
        ValueError: A box is not four finite numbers.
    """
    clean = []
    for box in boxes if isinstance(boxes, (list, tuple)) else [boxes]:
        try:
            corners = [float(value) for value in box]
        except (TypeError, ValueError):
            raise ValueError(f"{name}: expected a box x1, y1, x2, y2 of finite numbers, got {box!r}.") from None
        if len(corners) != 4 or not all(math.isfinite(value) for value in corners):
            raise ValueError(f"{name}: expected a box x1, y1, x2, y2 of finite numbers, got {corners}.")
        left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in corners)
        if right > left and bottom > top:
            clean.append((left, top, right, bottom))
    return tuple(clean)


@reads_file
def read_vggss(path: str | Path) -> dict[str, tuple[Box, ...] | None]:
    """Read the boxes of VGG-SS, by clip.

    Returns:
        Boxes of `clean_boxes`, or None where an annotation has boxes and all of them are degenerate.

    Raises:
        ValueError: Not the json of VGG-SS.
    """
    content = json.loads(read_text(path))
    rows = content if isinstance(content, list) else [None]
    if not all(isinstance(row, dict) and {"file", "bbox"} <= row.keys() for row in rows):
        raise ValueError(f'{path}: expected a list of objects with "file" and "bbox".')
    boxes = {}
    degenerate = 0
    for row in content:
        clean = clean_boxes(row["bbox"], f"{path}, {row['file']}")
        degenerate += len(row["bbox"]) - len(clean)
        boxes[clip_key(row["file"])] = clean if clean or not row["bbox"] else None
    if degenerate:
        unusable = sum(value is None for value in boxes.values())
        logger.warning("%s: %d boxes have no area; %d frames have no other boxes", path, degenerate, unusable)
    return boxes


@reads_file
def read_classes(path: str | Path) -> dict[str, str]:
    """Read the classes of VGG-SS's clips, as far as they are given; see `read_vggss`."""
    return {clip_key(row["file"]): row["class"] for row in json.loads(read_text(path)) if row.get("class")}


def locator(
    root: Path, timestamp: float | None, keys: Iterable[str]
) -> Callable[[str, str], tuple[str, str, float | None] | None]:
    """Make a function that finds files: keys of image and audio -> (image, audio, timestamp), or None if missing.

    The files are in the folders `frames` and `audio`; without a folder `frames`, both are VGGSound's clips, in the
    folder `clips` or anywhere below the root.

    Args:
        root: Folder of the data set.
        timestamp: Timestamp of the frame in a clip, in seconds; None for data sets without clips.
        keys: Keys of all frames and audio.

    Raises:
        FileNotFoundError: There are neither frames nor clips.
    """
    frames, audio, clips = root / "frames", root / "audio", root / "clips"
    if frames.is_dir():

        def find_files(image: str, sound: str):
            pair = frames / f"{image}.jpg", audio / f"{sound}.wav"
            return (str(pair[0]), str(pair[1]), None) if pair[0].is_file() and pair[1].is_file() else None

        return find_files
    files = ClipFiles(clips if timestamp is not None and clips.is_dir() else root)
    if timestamp is None or not files.paths:
        expected = f"{frames} and audio at {audio}" + ("" if timestamp is None else f", or clips at {clips}")
        raise FileNotFoundError(f"Expected frames of the data set at {expected}; {files.example()}.")
    on_disk = files.match(dict.fromkeys(keys, ""))[0]

    def find_clips(image: str, sound: str):
        both = on_disk.get(image), on_disk.get(sound)
        return (str(both[0]), str(both[1]), timestamp) if None not in both else None

    return find_clips


def make_stills(
    what: str,
    pairs: Sequence[ImageAudioPair],
    find: Callable[[str, str], tuple[str, str, float | None] | None],
    boxes: dict[str, tuple[Box, ...] | None] | None,
    sources: Mapping[str, str] | None = None,
    recordings: Mapping[str, str] | None = None,
) -> list[Still]:
    """Make rows of frames, their audio and their boxes.

    Pairs that are not on disk, or without usable annotation, are left out, and their number is logged.

    Args:
        what: Name of the data set in the log.
        pairs: Keys of frames and audio.
        find: Function of `locator`.
        boxes: Boxes by the frame's key; None leaves all rows without annotation.
        sources: What sounds, by key, as far as it is known.
        recordings: The recording that a frame is part of, by its key; by default, it is not known.

    Raises:
        FileNotFoundError: None of them is on disk.
        ValueError: A frame has no annotation.
    """
    rows, missing, unusable = [], [], 0
    for pair in counted(pairs, f"{what}: looking for its files", "frame"):
        if boxes is not None and not pair.negative and pair.image not in boxes:
            raise ValueError(f"{what}: {pair.image} has no annotation.")
        inside = None if boxes is None else () if pair.negative else boxes[pair.image]
        if boxes is not None and inside is None:
            unusable += 1
            continue
        found = find(pair.image, pair.audio)
        if found is None:
            missing.append(pair.image if pair.image == pair.audio else f"{pair.image} with {pair.audio}")
            continue
        name = f"{found[0]} with {found[1]}" if pair.image != pair.audio else found[0]
        shown, heard = ((sources or {}).get(key, "") for key in (pair.image, pair.audio))
        about = {"source": heard, "visible": (shown,), "recording": (recordings or {}).get(pair.image, "")}
        rows.append(Still(*found, boxes=inside, name=name, **about))
    report_missing(what, len(pairs), missing, 0)
    if unusable:
        logger.warning("%s: %d frames are left out: all of their boxes are without area", what, unusable)
    if not rows:
        example = f", e.g. {missing[0]}" if missing else ""
        raise FileNotFoundError(f"{what}: none of the {len(pairs)} pairs of image and audio is on disk{example}.")
    return rows
