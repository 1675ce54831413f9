"""Progress of phases that may take long: a bar with the remaining time on a terminal, plain lines elsewhere."""

import contextlib
import datetime
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from deepavfusion_cli.terminal import percent, printable, say

_LINE_SECONDS = 30.0  # between lines where there is no terminal
_SHORT_SECONDS = 1.5  # of phases that are not worth a line
Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def plain_output() -> None:
    """Turn off the progress bars of the libraries unless standard error is a terminal, which alone can redraw them."""
    if not sys.stderr.isatty():
        from transformers.utils import logging  # here: what only lists files does without it

        logging.disable_progress_bar()  # and that of huggingface_hub
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when datasets is imported


def _is_main() -> bool:
    """Whether this is the first process of a command, which alone shows progress."""
    return multiprocessing.parent_process() is None and int(os.environ.get("RANK", 0)) == 0


class Progress:
    """Progress of one phase, on standard error.

    On a terminal, a bar with the elapsed and the remaining time is drawn at once, and removed at the end. Elsewhere,
    phases that take more than half a minute print a line about every half minute. Loading workers show nothing, nor do
    processes other than the first.

    Args:
        title: Name of the phase.
        total: Amount of work.
        unit: What is counted, in the singular; "s" for seconds of a recording.
        plural: Plural of the unit; by default with an s.
        done: Amount that an earlier process has done.
        shown: False shows nothing.
    """

    def __init__(
        self, title: str, total: float, unit: str, *, plural: str | None = None, done: float = 0, shown: bool = True
    ):
        self.title, self.total, self.unit, self.first, self.done = title, total, unit, done, done
        self.plural = plural or f"{unit}s"
        self.shown = shown and _is_main()
        self.started = self.said = time.monotonic()
        self.bar = None
        if self.shown and sys.stderr.isatty():
            counted, time_left = "{n_fmt}/{total_fmt}", "{elapsed}<{remaining}, {rate_fmt}"
            if unit == "s":
                counted, time_left = "{postfix[0]}", "{elapsed}<{remaining}"
            self.bar = tqdm(
                desc=printable(title),
                total=total,
                initial=done,
                unit=unit,
                leave=False,
                dynamic_ncols=True,
                postfix=[self._amount(), ""],
                bar_format=f"{{desc}}: {{percentage:3.0f}}%|{{bar}}| {counted} [{time_left}]{{postfix[1]}}",
                file=sys.stderr,
            )

    def __enter__(self) -> "Progress":
        """Return the progress itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self.close()

    def update(self, amount: float = 1, note: str = "") -> None:
        """Add an amount of work that is done.

        Args:
            amount: The amount.
            note: What else to show, such as "loss 0.5".
        """
        self.done += amount
        note = note and f", {note}"
        if self.bar is not None:
            self.bar.postfix = [self._amount(), note]
            self.bar.update(amount)
        elif self.shown and time.monotonic() - self.said >= _LINE_SECONDS:
            self.mark_reported()
            say(self.line() + note, stream=sys.stderr)

    def mark_reported(self) -> None:
        """Count half a minute to the next line from now, because another line has just reported the progress."""
        self.said = time.monotonic()

    def start_again(self) -> None:
        """Measure the remaining time from now on: what has passed was no work of this progress."""
        self.started = time.monotonic()
        if self.bar is not None:
            self.bar.unpause()

    def reach(self, done: float) -> None:
        """Say how much is done in total."""
        self.update(done - self.done)

    def line(self) -> str:
        """The state in a line, such as "separate duet: 0:20:00 of 1:00:00 (33 %), eta 0:04:10"."""
        elapsed, worked = time.monotonic() - self.started, self.done - self.first
        remaining = duration(elapsed * max(self.total - self.done, 0) / worked) if worked > 0 else "unknown"
        return f"{self.title}: {self._amount()} ({percent(self.done / max(self.total, 1e-9), 0)}), eta {remaining}"

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()

    def _amount(self) -> str:
        if self.unit == "s":
            return f"{duration(self.done)} of {duration(self.total)}"
        return f"{self.done:,} of {self.total:,} {self.unit if self.total == 1 else self.plural}"


class Count:
    """Progress of a phase that is short unless there is much to do, such as the listing of files. A context manager.

    Nothing is shown in the first 1.5 seconds. Then, on a terminal, a line counts until the end; elsewhere a line is
    printed at once and about every half minute. Processes other than the first show nothing.

    Args:
        title: Name of the phase.
        unit: What is counted, in the singular.
        plural: Plural of the unit; by default with an s.
        total: Number of all, if it is known.
    """

    def __init__(self, title: str, unit: str, plural: str | None = None, total: int | None = None):
        of = "" if total is None else f" of {total:,}"
        self.title, self.rest, self.count, self.bar = title, f"{of} {plural or f'{unit}s'}", 0, None
        self._following = time.monotonic() + _SHORT_SECONDS if _is_main() else math.inf

    def __enter__(self) -> "Count":
        """Return the count itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line."""
        if self.bar is not None:
            self.bar.close()

    def add(self) -> None:
        """Count one more."""
        self.count += 1
        if self.bar is not None:
            self.bar.update()
        elif time.monotonic() >= self._following:
            self._following = time.monotonic() + _LINE_SECONDS
            if sys.stderr.isatty():
                shape = f"{{desc}}: {{n_fmt}}{self.rest} [{{elapsed}}]"
                self.bar = tqdm(
                    desc=printable(self.title), initial=self.count, leave=False, bar_format=shape, file=sys.stderr
                )
            else:
                say(f"{self.title}: {self.count:,}{self.rest} so far", stream=sys.stderr)


def counted(items: Iterable[Item], title: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield items, and show a `Count` of those that are done; the total is that of the collection, or is given."""
    with Count(title, unit, total=len(items) if isinstance(items, Collection) else total) as count:
        for item in items:
            yield item
            count.add()


@contextlib.contextmanager
def announced(text: str) -> Generator[None]:
    """Print a line, in the first process, if the block takes more than 1.5 seconds, whatever it does."""
    timer = threading.Timer(_SHORT_SECONDS, say, [f"{text} ..."], {"stream": sys.stderr})
    timer.daemon = True
    if _is_main():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def with_progress(items: Collection[Item] | Any, title: str, unit: str, plural: str | None = None) -> Iterator[Item]:
    """Yield items, showing the progress through them until they end."""
    with Progress(title, len(items), unit, plural=plural) as progress:
        for item in items:
            yield item
            progress.update()


__all__ = ["Count", "Progress", "announced", "counted", "duration", "plain_output", "with_progress"]
