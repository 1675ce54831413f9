"""Flickr-SoundNet: boxes around sounding objects by several annotators.

    <root>/frames/<id>.jpg   <root>/audio/<id>.wav   <root>/Annotations/<id>.xml

An xml holds root > field > bbox, and a bbox, after a first child, xmin, ymin, xmax and ymax in an image of 256 x 256.
The consensus map is min(number of boxes / 2, 1): two annotators must agree. A file without boxes marks a frame without
a visible sounding object.

Published lists: `flickr_test.csv` (250 ids and a number, or a class), `flickr_test_plus_silent.csv` (video, audio,
label: frames with the audio of other clips, `non-sounding`), `flickr_10k.txt` and `flickr_144k.txt` (training without
boxes), `flickr_sup_train.txt` (training with boxes).
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from deepavfusion.inference.jobs.progress import counted
from deepavfusion_cli.early.data import flickr_folder

from ...views import Box
from ..tables import note_read
from .vggss import clean_boxes

REQUIRED_BOXES = 2
_SIDE = 256


def read_boxes(path: str | Path) -> tuple[Box, ...] | None:
    """Read the boxes of an annotation file, (x1, y1, x2, y2) in fractions of the image.

    Returns:
        The boxes, or None if there are boxes and all of them are degenerate.

    Raises:
        ValueError: Not an annotation file of Flickr-SoundNet.
    """
    note_read(path)
    try:
        root = ElementTree.parse(path).getroot()
        found = [[float(child.text) / _SIDE for child in list(box)[1:]] for box in root.findall("./*/bbox")]
    except (ElementTree.ParseError, TypeError, ValueError, LookupError) as error:  # LookupError: an encoding
        raise ValueError(f"{path}: expected xml with root > field > bbox of xmin, ymin, xmax, ymax: {error}") from error
    clean = clean_boxes(found, str(path))
    return clean if clean or not found else None


def read_annotations(root: str | Path, keys: list[str] | None = None) -> dict[str, tuple[Box, ...] | None]:
    """Read the boxes of the folder `Annotations`, by id.

    Args:
        root: Folder in the module's layout.
        keys: Ids to read, as far as they are annotated; None reads all.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    folder = flickr_folder(Path(root))
    files = {path.stem: path for path in sorted(folder.glob("*.xml"))}
    chosen = [key for key in (files if keys is None else keys) if key in files]
    return {key: read_boxes(files[key]) for key in counted(chosen, f"{folder}: reading the boxes", "file")}
