"""The splits of a list of usable clips, for `build_dataset`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deepavfusion_cli.early.data import PAIR_LIST, vggsound_music_list

from ..frames import Still, Stills
from ..sets import vggsound_music as music
from ..sets.folder import divide
from ..sets.groups import arrow_column, group
from ..shards.source import choose_split, stills_of_split
from .listing import read_listing
from .stills import stills_of


def read_checked(path: str, options: Mapping[str, Any], split: str, fraction: float | None):
    """Read the rows of a split from a list of usable clips.

    Args:
        path: The list.
        options: Section `data` of a recipe.
        split: `"train"`, `"validation"` or `"test"`.
        fraction: Fraction of the clips to hold out.

    Returns:
        The rows; a note for their card; their `Groups`; positions of pairs to mix, or None; and whether they are
        the clips of training, of which the split has still to be taken.

    Raises:
        FileNotFoundError: There is no such list.
        ValueError: See `read_listing`; also if there are no clips of the split.
    """
    listing, root = read_listing(path, options), str(options["path"])
    if options["name"] == "folder":
        rows, note = divide(listing.rows, split, fraction, root)
        return rows, note, group(arrow_column(rows, "recording")), None, False
    note = listing.notes.get("test" if split == "test" else "train", "")
    rows, divided_by, divided = choose_split(listing.rows, split, fraction, root)
    note, groups = ", ".join(filter(None, (note, divided_by))), rows["recording"][:]
    if options["name"] == "vggsound_music" and split == "test":
        listed = music.read_pairs(vggsound_music_list(Path(root), options.get("test_list"), PAIR_LIST))
        return rows, note, None, music.place_pairs(listed, rows["clip"][:]), False
    return rows, note, groups, None, divided


def read_checked_stills(
    path: str, options: Mapping[str, Any], split: str, held_out: Callable[[Any, bool], Any]
) -> tuple[Stills, str, list[str] | None]:
    """Read the frames of a split, with masks or boxes, from a list of usable clips.

    Args:
        path: The list.
        options: Section `data` of a recipe.
        split: `"train"`, `"validation"` or `"test"`.
        held_out: Function from the groups of clips, and whether the validation split is taken out of them, to the
            positions of the split's clips.

    Returns:
        The frames; a note for their card; and the names of the masks' values, if they have any.

    Raises:
        FileNotFoundError: There is no such list.
        ValueError: See `read_listing`; also if there are no frames of the split.
    """
    listing = read_listing(path, options)
    stills: dict[str, list[Still]] = {}
    for name, still in zip(listing.rows["split"][:], stills_of(listing.rows), strict=True):
        stills.setdefault(name, []).append(still)
    tables = {name: Stills(rows) for name, rows in stills.items()}
    found, source = stills_of_split(tables, split, options["name"] != "avsbench", held_out, str(options["path"]))
    return found, listing.notes.get(source, ""), listing.classes


__all__ = ["read_checked", "read_checked_stills"]
