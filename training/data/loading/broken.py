"""Clips of a split that cannot be read: counted, named, and too many of them an error."""

import math

from deepavfusion_cli.terminal import printable

from ...wording import count, with_path

_FEW_BROKEN = 3  # clips that may be unreadable in splits however small


class BrokenClips:
    """Unreadable clips of a split, each counted once; too many of them end the run.

    Args:
        num_clips: Number of clips in the split.
        max_fraction: Largest fraction of them that may be unreadable; unless it is 0, 3 may be, but at most half.
        reasons: Path -> reason, of unreadable clips that are already known.
        check: Command that finds all of them, or None.
    """

    def __init__(
        self, num_clips: int, max_fraction: float, reasons: dict[str, str] | None = None, check: str | None = None
    ):
        self.num_clips = num_clips
        self.max_fraction = max_fraction
        self.reasons = dict(reasons or {})
        self.check = check
        few = min(_FEW_BROKEN, num_clips // 2) if max_fraction else 0
        self.most = max(math.floor(max_fraction * num_clips), few)

    @classmethod
    def of(cls, clips, max_fraction: float) -> "BrokenClips":
        """Make those of a data set."""
        return cls(len(clips), max_fraction, check=getattr(clips, "check", None))

    def add(self, clips: list[tuple[str, str]]) -> list[str]:
        """Add (path, reason) pairs and return a log line for each new clip, or raise `BrokenDataError`.

        The first clip ever comes with a line about the command that finds all of them.
        """
        known, new = bool(self.reasons), {path: reason for path, reason in clips if path not in self.reasons}
        self.reasons.update(new)
        if len(self.reasons) > self.most:
            listing = "\n".join(printable(f"  {with_path(path, reason)}") for path, reason in self.reasons.items())
            more = f"\nThere may be more: `{self.check}` reads every clip and lists all." if self.check else ""
            raise BrokenDataError(
                f"{len(self.reasons)} of {count(self.num_clips, 'clip')} cannot be read, more than "
                f"data.max_unreadable_fraction = {self.max_fraction:g} allows:\n{listing}{more}"
            )
        lines = [printable(f"skipped, cannot be read: {with_path(path, reason)}") for path, reason in new.items()]
        if lines and not known and self.check:
            text = f"reads every clip and lists all that cannot be read; up to {self.most} may be."
            lines.append(f"`{self.check}` {text}")
        return lines


class BrokenDataError(RuntimeError):
    """Raised if more clips than the recipe allows cannot be read."""

    exit_code = 1  # of commands: failed


__all__ = ["BrokenClips", "BrokenDataError"]
