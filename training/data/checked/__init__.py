"""Data sets that were checked: what was found of each clip, and the list of the usable ones that training reads."""

from .classes import class_notes, notable_classes
from .inspection import Finding, inspect_clips
from .listing import Listing, check_command, digest, read_listing, write_listing
from .stills import still_rows

__all__ = [
    "Finding",
    "Listing",
    "check_command",
    "class_notes",
    "digest",
    "inspect_clips",
    "notable_classes",
    "read_listing",
    "still_rows",
    "write_listing",
]
