"""Progress of phases that may take long: a bar with the remaining time on a terminal, plain lines elsewhere."""

import datetime
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_LINE_SECONDS = 30.0  # between lines where there is no terminal
Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def say(text: str) -> None:
    """Print lines to standard output at once, above all progress bars."""
    tqdm.write(text)
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print lines to standard error, above all progress bars."""
    tqdm.write(text, file=sys.stderr)


class Progress:
    """Progress of one phase, on standard error.

    On a terminal, a bar with the elapsed and the remaining time is drawn at once, and removed at the end. Elsewhere,
    phases that take more than half a minute print a line about every half minute.

    Args:
        title: Name of the phase.
        total: Amount of work.
        unit: What is counted, in the singular; "s" for seconds of a recording.
        done: Amount that an earlier process has done.
        shown: False shows nothing, as on all processes but the main one.
    """

    def __init__(self, title: str, total: float, unit: str, *, done: float = 0, shown: bool = True):
        self.title, self.total, self.unit, self.first, self.done, self.shown = title, total, unit, done, done, shown
        self.started = self.said = time.monotonic()
        self.bar = None
        if shown and sys.stderr.isatty():
            counted, speed = ("{postfix[0]}", "") if unit == "s" else ("{n_fmt}/{total_fmt}", ", {rate_fmt}")
            self.bar = tqdm(
                desc=title,
                total=total,
                initial=done,
                unit=unit,
                leave=False,
                dynamic_ncols=True,
                postfix=[self._amount()],
                bar_format="{desc}: {percentage:3.0f}%|{bar}| " + counted + " [{elapsed}<{remaining}" + speed + "]",
                file=sys.stderr,
            )

    def __enter__(self) -> "Progress":
        """Return the progress itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self.close()

    def update(self, amount: float = 1) -> None:
        """Add an amount of work that is done."""
        self.done += amount
        if self.bar is not None:
            self.bar.postfix = [self._amount()]
            self.bar.update(amount)
        elif self.shown and time.monotonic() - self.said >= _LINE_SECONDS:
            self.said = time.monotonic()
            complain(self.line())

    def reach(self, done: float) -> None:
        """Say how much is done in total."""
        self.update(done - self.done)

    def line(self) -> str:
        """The state in a line, such as "separate duet: 0:20:00 of 1:00:00 (33 %), eta 0:04:10"."""
        elapsed, worked = time.monotonic() - self.started, self.done - self.first
        remaining = duration(elapsed * max(self.total - self.done, 0) / worked) if worked > 0 else "unknown"
        return f"{self.title}: {self._amount()} ({self.done / max(self.total, 1e-9):.0%}), eta {remaining}"

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()

    def _amount(self) -> str:
        if self.unit == "s":
            return f"{duration(self.done)} of {duration(self.total)}"
        return f"{self.done:,} of {self.total:,} {self.unit}s"


def with_progress(items: Iterable[Item], title: str, unit: str, *, shown: bool = True) -> Iterator[Item]:
    """Yield items that have a length, showing the progress through them until they end."""
    with Progress(title, len(items), unit, shown=shown) as progress:  # ty: ignore[invalid-argument-type]
        for item in items:
            yield item
            progress.update()


__all__ = ["Progress", "complain", "duration", "say", "with_progress"]
