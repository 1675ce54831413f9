"""Published lists of clips, and the overlap of training lists with test sets.

Lists are text with a name per line, csv with or without header, tsv, or json; with LF or CRLF; the name alone or
followed by the class, which may contain commas without quotes (`violin,_fiddle`). Names may have a suffix; those of
VGGSound's clips are `<id>_<start:06d>`, optionally with an end, or with both in milliseconds.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from deepavfusion.inference.files import reads_file

from .names import clip_key
from .tables import read_table, read_text

logger = logging.getLogger(__name__)

_HEADER = {"id", "file", "filename", "name", "video", "vid", "video_id", "ytid", "youtube_id", "source_1"}


class Listed(NamedTuple):
    """An entry of a list."""

    key: str
    """The clip's name as `clip_key` writes it."""
    label: str | None
    """Its class, if the list has classes."""


class ImageAudioPair(NamedTuple):
    """An entry of a list for sound localization: keys of a frame and of the audio that goes with it."""

    image: str
    audio: str
    negative: bool
    """Whether the list marks the pair as one in which no visible object makes the sound."""


def _table(path: Path) -> list[list[str]]:
    return [fields for _, fields in read_table(path, ",\t") if fields[0].strip()]


@reads_file
def read_list(path: str | Path) -> list[Listed]:
    """Read a list of clips.

    The list is a table whose first column names clips (of pairs: the first clip), a json list of objects with `file`
    and `class`, or `{"videos": {class: [name]}}`.

    Raises:
        ValueError: No entries, or json of another form.
    """
    path = Path(path)
    if path.suffix == ".json":
        content = json.loads(read_text(path))
        if isinstance(content, dict) and isinstance(content.get("videos"), dict):
            found = [(name, label) for label, names in content["videos"].items() for name in names]
        elif isinstance(content, list) and all(isinstance(row, dict) and "file" in row for row in content):
            found = [(row["file"], row.get("class")) for row in content]
        else:
            raise ValueError(f'{path}: expected a list of objects with "file", or {{"videos": {{class: [name]}}}}.')
    else:
        rows = _table(path)
        found = [(fields[0], ",".join(fields[1:]) or None) for fields in rows[_has_header(rows) :]]
    if not found:
        raise ValueError(f"Expected names of clips in {path}, found none.")
    return [Listed(clip_key(name), label) for name, label in found]


def _has_header(rows: list[list[str]]) -> bool:
    return bool(rows) and rows[0][0].strip().lower() in _HEADER


@reads_file
def read_test_pairs(path: str | Path) -> list[ImageAudioPair]:
    """Read the test list of a sound-localization set.

    Either the entries of `read_list`, each frame with its own audio, or a table with the columns video, audio and
    label, where the label `non-sounding` marks negatives.
    """
    path = Path(path)
    rows = [] if path.suffix == ".json" else _table(path)
    if not rows or [field.strip().lower() for field in rows[0][:2]] != ["video", "audio"]:
        return [ImageAudioPair(entry.key, entry.key, False) for entry in read_list(path)]
    pairs = []
    for number, fields in enumerate(rows[1:], start=2):
        if len(fields) < 2:
            raise ValueError(f"{path}, row {number}: expected video, audio and label, got {fields}.")
        negative = len(fields) > 2 and fields[2].strip().lower() == "non-sounding"
        pairs.append(ImageAudioPair(clip_key(fields[0]), clip_key(fields[1]), negative))
    if not pairs:
        raise ValueError(f"Expected names of clips in {path}, found none.")
    return pairs


def report_overlap(what: str, train: Sequence[str], test: Iterable[str], drop: bool) -> tuple[list[int], str]:
    """Find training clips that are test clips, and log how many there are.

    Args:
        what: Name of the data set.
        train: Keys of the training clips (see `clip_key`).
        test: Keys of the test clips.
        drop: Whether to leave out those in both.

    Returns:
        Positions of the training clips to use, and a note on the overlap, empty if there is none.
    """
    test = set(test)
    common = [i for i, key in enumerate(train) if key in test]
    if not common:
        return list(range(len(train))), ""
    note = f"{len(common)} of {len(train)} training clips are test clips, {'left out' if drop else 'kept'}"
    hint = "" if drop else "; data.drop_overlap=true leaves them out"
    logger.warning("%s: %s (first: %s)%s", what, note, train[common[0]], hint)
    if not drop:
        return list(range(len(train))), note
    out = set(common)
    return [i for i in range(len(train)) if i not in out], note
