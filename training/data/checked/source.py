"""The splits of a list of usable clips, for `build_dataset`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..sets import vggsound_music as music
from ..sets.folder import divide
from ..shards.source import choose_split
from .listing import read_listing


def read_checked(path: str, options: Mapping[str, Any], split: str, fraction: float | None):
    """Read the rows of a split from a list of usable clips.

    Args:
        path: The list.
        options: Section `data` of a recipe.
        split: `"train"`, `"validation"` or `"test"`.
        fraction: Fraction of the clips to hold out.

    Returns:
        The rows; a note for their card; the group of each row; positions of pairs to mix, or None; and whether they are
        the clips of training, of which the split has still to be taken.

    Raises:
        FileNotFoundError: There is no such list.
        ValueError: See `read_listing`; also if there are no clips of the split.
    """
    listing, root = read_listing(path, options), str(options["path"])
    if options["name"] == "folder":
        rows, note = divide(listing.rows, split, fraction, root)
        return rows, note, rows["recording"][:], None, False
    note = listing.notes.get("test" if split == "test" else "train", "")
    rows, divided_by, divided = choose_split(listing.rows, split, fraction, root)
    note, groups = ", ".join(filter(None, (note, divided_by))), rows["recording"][:]
    if options["name"] == "vggsound_music" and split == "test":
        listed = music.read_pairs(music.find_list(Path(root), options.get("test_list"), music.PAIR_LIST))
        return rows, note, None, music.place_pairs(listed, rows["clip"][:]), False
    return rows, note, groups, None, divided


__all__ = ["read_checked"]
