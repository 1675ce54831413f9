"""Text for the terminal: one line stays one line, and no name reaches the terminal as a control sequence."""

import contextlib
import json
import re
import sys
import threading
from collections.abc import Generator
from typing import Any, TextIO

# Control characters, which move the cursor or recolor what is there; marks that reverse the direction of text; line
# separators; halves of characters, which no encoding writes (names of files that are not UTF-8 hold them).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, kept: str = "") -> str:
    r"""Escape control characters, as in "\u001b" for that which starts a control sequence.

    Args:
        text: Any text, such as a label or the name of a file.
        kept: Characters that are not escaped, for text whose line breaks are meant.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in kept else f"\\u{ord(found[0]):04x}", text)


def say(text: str, kept: str = "", stream: TextIO | None = None) -> None:
    """Print a line, escaped by `printable`; characters that the terminal cannot show are escaped as well.

    Progress bars are drawn again below the line.

    Args:
        text: The line.
        kept: See `printable`.
        stream: Where to print; by default standard output.
    """
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with _above_bars(stream):
        print(printable(text, kept).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


@contextlib.contextmanager
def say_again(text: str, seconds: float = 30.0) -> Generator[None]:
    """Print a line to standard error, and until the block ends again and again with the time that has passed.

    Args:
        text: The line.
        seconds: Time between two lines.
    """
    ended = threading.Event()

    def wait() -> None:
        passed = 0.0
        while not ended.wait(seconds):
            passed += seconds
            say(f"{text} {passed:g} s", stream=sys.stderr)

    say(text, stream=sys.stderr)
    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _above_bars(stream: TextIO) -> contextlib.AbstractContextManager:
    """Remove the progress bars that were drawn, if any, while something is printed."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if not getattr(bars, "_instances", None):
        return contextlib.nullcontext()
    return bars.external_write_mode(file=stream)


@contextlib.contextmanager
def printable_messages() -> Generator[None]:
    """Escape control characters in what `logging` and `warnings` print.

    Messages of this package are single lines; of others, line breaks and tabs are kept.
    """
    import logging
    import warnings

    make_record, format_warning = logging.getLogRecordFactory(), warnings.formatwarning

    def make_printable(*args, **kwargs) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        message = record.getMessage

        def get_message() -> str:
            return printable(message(), "" if record.name.partition(".")[0] == "deepavfusion" else "\n\t")

        record.getMessage = get_message
        return record

    def format_printable(*args, **kwargs) -> str:
        return printable(format_warning(*args, **kwargs), "\n\t")

    logging.setLogRecordFactory(make_printable)
    warnings.formatwarning = format_printable
    try:
        yield
    finally:
        logging.setLogRecordFactory(make_record)
        warnings.formatwarning = format_warning


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction as a percentage, None as "-"."""
    return "-" if value is None else f"{round(100 * value, digits) + 0.0:.{digits}f} %"  # no minus before zero


def say_json(value: Any) -> None:
    """Print a JSON value on one line, in which control characters are escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    say(json.dumps(value, ensure_ascii=not encoding.lower().startswith("utf")))


__all__ = ["percent", "printable", "printable_messages", "say", "say_again", "say_json"]
