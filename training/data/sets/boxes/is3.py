"""IS3: synthetic images of two objects, each with the audio of either one and the box around it.

    <root>/IS3_annotation.json, [{"image": ".../<name>.jpg", "audio": ".../<name>.wav", "gt_box": [x1, y1, x2, y2]}]
    <root>/images/<name>.jpg or <root>/visual_frames/<name>.jpg
    <root>/audio_wav/<name>.wav

Boxes are in pixels of a square of 224. A name is `<object>_<object>_<number>_<object that sounds>`: up to the last
part, it is the same for the entries of one image, of which there is a file for each entry. Folders in the annotations
are those of its authors, and are not used. Of the audio, which lasts 10 s, the window in the middle is taken. The
annotations are also called `synthetic3240_bbox.json`.
"""

import json
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deepavfusion.inference.files import reads_file
from deepavfusion.inference.jobs.progress import counted
from deepavfusion_cli.early.data import is3_json

from ...stills import BoxClips, Still
from ...views import Box
from ..tables import read_text
from ..vggsound import report_missing
from .vggss import clean_boxes

_IMAGES = ("images", "visual_frames")
_SIDE = 224


class Entry(NamedTuple):
    """An annotated object that sounds."""

    image: str
    """Name of the image's file."""
    audio: str
    """Name of the audio's file."""
    boxes: tuple[Box, ...]
    """Its box in fractions of the image; empty if it has no area."""

    @property
    def scene(self) -> str:
        """Name of the image, the same for all of its objects."""
        return PurePosixPath(self.image).stem.rpartition("_")[0]

    @property
    def source(self) -> str:
        """What sounds."""
        return PurePosixPath(self.image).stem.rpartition("_")[2]


@reads_file
def read_is3(path: str | Path) -> list[Entry]:
    """Read the annotations of IS3.

    Raises:
        ValueError: Not the json of IS3.
    """
    content = json.loads(read_text(path))
    keys = {"image", "audio", "gt_box"}
    if not isinstance(content, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in content):
        raise ValueError(f'{path}: expected a list of objects with "image", "audio" and "gt_box".')
    entries = []
    for row in content:
        image, audio = (str(row[key]).replace("\\", "/").rpartition("/")[2] for key in ("image", "audio"))
        corners = row["gt_box"] if isinstance(row["gt_box"], list) else [row["gt_box"]]
        try:
            box = [float(value) / _SIDE for value in corners]
        except (TypeError, ValueError):
            raise ValueError(f"{path}, {image}: expected a box of four numbers, got {row['gt_box']!r}.") from None
        entries.append(Entry(image, audio, clean_boxes([box], f"{path}, {image}")))
    return entries


def read_stills(root: str | Path, annotations: str | Path | None = None) -> list[Still]:
    """Read the frames of IS3; those not on disk, or whose box has no area, are left out, and their number is logged.

    Args:
        root: Folder in the module's layout.
        annotations: The json, if it lies elsewhere.

    Raises:
        FileNotFoundError: No annotations, or none of the frames.
    """
    root = Path(root)
    path = is3_json(root, annotations)
    images = next((root / name for name in _IMAGES if (root / name).is_dir()), root / _IMAGES[0])
    entries = [entry for entry in read_is3(path) if entry.boxes]
    visible: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        visible[entry.scene] = (*visible.get(entry.scene, ()), entry.source)
    rows, missing = [], []
    for entry in counted(entries, f"{root}: looking for its files", "frame"):
        image, audio = images / entry.image, root / "audio_wav" / entry.audio
        if image.is_file() and audio.is_file():
            about = {"scene": entry.scene, "source": entry.source, "visible": visible[entry.scene]}
            rows.append(Still(str(image), str(audio), boxes=entry.boxes, **about))
        else:
            missing.append(entry.image)
    report_missing("IS3", len(entries), missing, 0)
    if not rows:
        example = f": expected e.g. {images / missing[0]} and its audio in audio_wav" if missing else ""
        raise FileNotFoundError(f"None of IS3's {len(missing)} frames is in {root}{example}.")
    return rows


def build_is3(request) -> BoxClips:
    """The clips of a `Request`."""
    if request.split != "test":
        raise ValueError(f"Dataset 'is3' has test frames only, no split {request.split!r}.")
    rows, title = read_stills(request.path, request.get("annotations")), "is3, split test"
    return BoxClips(rows, request.processor, request.train, request.seed, request.size, title)


__all__ = ["Entry", "build_is3", "read_is3", "read_stills"]
