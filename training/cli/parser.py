"""Parser of the command lines, and of the numbers in them."""

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from .errors import TRACEBACK
from .terminal import printable

FITS = ("crop", "pad", "squash", "tiles")  # as of the processors
PRECISIONS = ("auto", "float32", "bfloat16")
_MOST = 1_000_000  # of batch sizes, windows and other counts


class CommandParser(argparse.ArgumentParser):
    """Parser that answers an option that does not exist with the closest one.

    It lists `--traceback`, which `boundary.command` takes out of the arguments.

    Attributes:
        suggest: Function of a word that is close to no option; returns what else it may stand for, or None.
    """

    suggest: Callable[[str], str | None] = staticmethod(lambda word: None)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._words: list[str] = []
        self.add_argument(TRACEBACK, action="store_true", help="show where an error was raised")

    def parse_known_args(self, args=None, namespace=None):
        self._words = [_with_home(str(word)) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(self._words, namespace)

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            close = difflib.get_close_matches(str(value), map(str, action.choices or ()), 1)
            if close and "did you mean" not in error.message and "maybe you meant" not in error.message:
                error.message += f" (did you mean {close[0]}?)"
            raise

    def _print_message(self, message, file=None):
        # argparse passes over a closed pipe in silence, with exit code 0.
        stream = sys.stderr if file is None else file
        if message and stream is not None:
            stream.write(message)

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with code 2."""
        options = [name for action in self._actions for name in action.option_strings]
        words = [word.partition("=")[0] for word in self._words if word.startswith("-") and len(word) > 2]
        names = {name.lstrip("-"): name for name in options}
        for word in words:
            if word[1:2].isdigit() or any(name.startswith(word) for name in options):
                continue
            sought = word.lstrip("-").replace("_", "-").lower()
            close = next(iter(difflib.get_close_matches(sought, names, 1)), None)
            meant = names[close] if close else self.suggest(sought.replace("-", "_"))
            if os.path.exists(word):
                meant = f"./{word}"
            parts = [] if word in [part.partition("=")[0] for part in message.split()] else [f"{word} does not exist"]
            parts += [f"did you mean {meant}?"] if meant else []
            message += f" ({'; '.join(parts)})" if parts else ""
        super().error(printable(message))


def expand_home(text: str) -> str:
    """Expand a `~` at the start of a path, which a shell does not within a word such as `run.output_dir=~/runs`."""
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def _with_home(word: str) -> str:
    """A word of the command line, such as `--out=~/runs` or `data.path=~/clips`, with its `~` expanded."""
    option, value = re.fullmatch(r"((?:--[\w-]+=|\w+\.\w+=)?)(.*)", word, re.DOTALL).groups()
    return option + expand_home(value)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add `--precision` of the inference commands."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of the model's matrix products; auto is bfloat16 where the device is fast at it (default: auto)",
    )


def whole(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high:,}, got {text[:40]!r}")
        return int(text)

    return parse


positive = whole(1, _MOST)


def part(text: str) -> tuple[int, int]:
    """Parse K/N, part K of N."""
    number, separator, parts = text.partition("/")
    if not (separator and number.isdecimal() and parts.isdecimal() and int(number) < int(parts) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"expected K/N, such as 0/8 to 7/8, got {text!r}")
    return int(number), int(parts)


def rate(text: str) -> float:
    """Parse frames per second."""
    return _within(text, 0.01, 120, "a number of frames per second")


def maps_rate(text: str) -> float:
    """Parse maps per second."""
    return _within(text, 0.01, 10, "a number of maps per second")


def _within(text: str, low: float, high: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected {expected} from {low:g} to {high:g}, got {text!r}")
    return value


def seconds(text: str) -> float:
    """Parse a timestamp in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a timestamp in seconds, got {text!r}")
    return value


def fraction(text: str) -> float:
    """Parse a number in [0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1), got {text!r}")
    return value


__all__ = [
    "FITS",
    "PRECISIONS",
    "CommandParser",
    "add_precision",
    "fraction",
    "maps_rate",
    "part",
    "positive",
    "rate",
    "seconds",
    "whole",
]
