"""
Flickr-SoundNet: boxes that several people drew around what sounds.

    <root>/frames/<id>.jpg   <root>/audio/<id>.wav   <root>/Annotations/<id>.xml

An xml holds root > field > bbox, and a bbox, after a first child, xmin, ymin, xmax and ymax in a picture of 256 x 256.
The consensus map is min(number of boxes / 2, 1): a place is certain where two people agree. A file without boxes says
that nothing in sight sounds.

Published lists: `flickr_test.csv` (250 ids and a number, or a class), `flickr_test_plus_silent.csv` (video, audio,
label: frames with sounds of other clips, `non-sounding`), `flickr_10k.txt` and `flickr_144k.txt` (training without
boxes), `flickr_sup_train.txt` (training with boxes).
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ..views import Box
from .vggss import clean_boxes

NEEDED = 2
_SIDE = 256


def read_boxes(path: str | Path) -> tuple[Box, ...] | None:
    """
    The boxes of an annotation file, (x1, y1, x2, y2) in shares of the picture; None where it has some and none has an
    area.

    Raises:
        ValueError: Not such a file.
    """
    try:
        root = ElementTree.parse(path).getroot()
        found = [[float(child.text) / _SIDE for child in list(box)[1:]] for box in root.findall("./*/bbox")]
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected xml with root > field > bbox of xmin, ymin, xmax, ymax: {error}") from error
    clean = clean_boxes(found, str(path))
    return clean if clean or not found else None


def read_annotations(root: str | Path, keys: list[str] | None = None) -> dict[str, tuple[Box, ...] | None]:
    """
    Ids to boxes, of the folder `Annotations`.

    Args:
        root: Folder in the module's layout.
        keys: Which ids, as far as they are annotated; None is all.

    Raises:
        FileNotFoundError: No annotations.
    """
    folder = Path(root) / "Annotations"
    if not folder.is_dir():
        raise FileNotFoundError(f"Flickr-SoundNet's annotations are not at {folder}")
    there = {path.stem: path for path in sorted(folder.glob("*.xml"))}
    return {key: read_boxes(there[key]) for key in (there if keys is None else keys) if key in there}
