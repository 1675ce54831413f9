"""
VGG-SS: boxes around what sounds in clips of VGGSound's test split, at 5.0 s.

    <root>/annotations/vggss.json or <root>/vggss.json, [{"file": "<id>_<start>", "bbox": [[x1, y1, x2, y2]], ...}]
    <root>/frames/<id>_<start>.jpg and <root>/audio/<id>_<start>.wav, whose middle is the frame's moment
    or VGGSound's clips: <root>/clips/<class>/<id>_<start:06d>_<end:06d>.mp4, of which the frame at 5.0 s is taken

Boxes are shares of the frame's width and height. Some leave it, one by -2.88e16, and 18 are degenerate: boxes are
clipped to the frame, and those without area left out. A frame all of whose boxes are degenerate is left out: it is no
negative. The consensus map is the union of the boxes. Published code stretches frames to squares; here a model sees the
middle of a frame, as everywhere, and what of a box lies beyond is cut off.

Published training lists (`vggss_144k.txt`, `vggss_10k.txt`, `vggss_heard.txt`) name VGGSound's clips without boxes;
vggss_144k holds 11,163 clips of VGGSound's test split.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from ..stills import Still
from ..views import Box
from .lists import FrameAndSound, clip_key
from .vggsound import index_clips, report_missing

logger = logging.getLogger(__name__)

MOMENT = 5.0


def clean_boxes(boxes: Iterable[Iterable[float]], name: str) -> tuple[Box, ...]:
    """
    Boxes clipped to 0..1, without those that have no area.

    Raises:
        ValueError: A box is not four finite numbers.
    """
    clean = []
    for box in boxes:
        corners = [float(value) for value in box]
        if len(corners) != 4 or not all(math.isfinite(value) for value in corners):
            raise ValueError(f"{name}: expected a box as x1, y1, x2, y2, got {corners}")
        left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in corners)
        if right > left and bottom > top:
            clean.append((left, top, right, bottom))
    return tuple(clean)


def read_vggss(path: str | Path) -> dict[str, tuple[Box, ...] | None]:
    """
    Clips to their boxes, clean; None where the annotation has boxes and all of them are degenerate.

    Raises:
        ValueError: Not the json of VGG-SS.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    rows = content if isinstance(content, list) else [None]
    if not all(isinstance(row, dict) and {"file", "bbox"} <= row.keys() for row in rows):
        raise ValueError(f'{path}: expected a list of objects with "file" and "bbox"')
    boxes = {}
    degenerate = 0
    for row in content:
        clean = clean_boxes(row["bbox"], f"{path}, {row['file']}")
        degenerate += len(row["bbox"]) - len(clean)
        boxes[clip_key(row["file"])] = clean if clean or not row["bbox"] else None
    if degenerate:
        unusable = sum(value is None for value in boxes.values())
        logger.warning("%s: %d boxes have no area; %d frames have no other", path, degenerate, unusable)
    return boxes


def find_annotations(root: Path, given: str | Path | None) -> Path:
    """The json that was given, or vggss.json in the root or its folder annotations.

    Raises:
        FileNotFoundError: There is none.
    """
    candidates = [root / "annotations" / "vggss.json", root / "vggss.json"] if given is None else [Path(given)]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f"VGG-SS's annotations are not at {candidates[0]}")


def locator(root: Path, moment: float | None) -> Callable[[str, str], tuple[str, str, float | None] | None]:
    """
    What finds a frame and a sound: function of their keys -> (picture, sound, time), or None where they are missing.

    Frames and sounds lie in `frames` and `audio`; where there is no folder `frames`, both come from VGGSound's clips.

    Args:
        root: Folder of the data set.
        moment: Of the frame in a clip, in seconds; None where there are no clips but frames and sounds alone.

    Raises:
        FileNotFoundError: There are neither frames nor clips.
    """
    frames, sounds, clips = root / "frames", root / "audio", root / "clips"
    if frames.is_dir():

        def find_files(picture: str, sound: str):
            pair = frames / f"{picture}.jpg", sounds / f"{sound}.wav"
            return (str(pair[0]), str(pair[1]), None) if pair[0].is_file() and pair[1].is_file() else None

        return find_files
    if moment is None or not clips.is_dir():
        expected = frames if moment is None else f"{frames} or {clips}"
        raise FileNotFoundError(f"no frames of the data set at {root}: expected {expected}")
    on_disk = {key.partition("/")[2]: str(path) for key, path in index_clips(clips).items()}

    def find_clips(picture: str, sound: str):
        both = on_disk.get(picture), on_disk.get(sound)
        return (*both, moment) if None not in both else None

    return find_clips


def stills(
    what: str,
    pairs: Iterable[FrameAndSound],
    find: Callable[[str, str], tuple[str, str, float | None] | None],
    boxes: dict[str, tuple[Box, ...] | None] | None,
) -> list[Still]:
    """
    Frames, their sounds and their boxes. What is not on disk, or has no usable annotation, is left out, counted, and
    said in the log.

    Args:
        what: How the log calls them.
        pairs: Which frames and sounds.
        find: See `locator`.
        boxes: By the frame's key; None leaves all rows without annotation.

    Raises:
        FileNotFoundError: None of them is on disk.
        ValueError: A frame has no annotation.
    """
    rows, missing, unusable, count = [], [], 0, 0
    for pair in pairs:
        count += 1
        if boxes is not None and not pair.negative and pair.picture not in boxes:
            raise ValueError(f"{what}: {pair.picture} has no annotation")
        inside = None if boxes is None else () if pair.negative else boxes[pair.picture]
        if boxes is not None and inside is None:
            unusable += 1
            continue
        found = find(pair.picture, pair.sound)
        if found is None:
            missing.append(pair.picture if pair.picture == pair.sound else f"{pair.picture} with {pair.sound}")
            continue
        name = f"{found[0]} with {found[1]}" if pair.picture != pair.sound else found[0]
        rows.append(Still(*found, boxes=inside, name=name))
    report_missing(what, count, missing, 0)
    if unusable:
        logger.warning("%s: %d frames are left out: none of their boxes has an area", what, unusable)
    if not rows:
        example = f", e.g. {missing[0]}" if missing else ""
        raise FileNotFoundError(f"{what}: none of the {count} frames and sounds is on disk{example}")
    return rows
