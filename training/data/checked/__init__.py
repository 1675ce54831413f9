"""Data sets that were checked: what was found of each clip, and the list of the usable ones that training reads."""

from .inspection import Finding, inspect_clips
from .listing import Listing, check_command, digest, read_listing, write_listing
from .stills import still_rows

__all__ = [
    "Finding",
    "Listing",
    "check_command",
    "digest",
    "inspect_clips",
    "read_listing",
    "still_rows",
    "write_listing",
]
