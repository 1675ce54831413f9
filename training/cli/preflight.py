"""Checks of a command line before torch is imported: what is wrong with it is answered at once.

Commands repeat these checks themselves, as they can also be called from Python.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from .arguments import PARSERS
from .errors import BAD_INPUT
from .paths import FolderError, check_output_file, check_writable, missing_folder, unusable
from .recipes import ACCEPTED, SUFFIXES, check_recipe

HELP = frozenset({"-h", "--help"})
_SHOWN = 3  # names of files in a message
_NULL = ("", "~", "null", "Null", "NULL")  # of YAML


class InputError(ValueError):
    """Raised for an input that is not there; the message names it."""

    exit_code = BAD_INPUT


def check(command: str, words: Sequence[str]) -> None:
    """Check the command line of a command as far as that is possible without importing it.

    Args:
        command: Name of the command.
        words: Its arguments.

    Raises:
        SystemExit: After `--help`, or for an option that does not exist.
        ValueError: For a file, a folder, a model or a recipe that cannot be used.
    """
    if command in PARSERS:
        parse(command, words)
    elif command in ACCEPTED and not HELP & set(words):
        _check_recipe_command(command, words)


def _check_recipe_command(command: str, words: Sequence[str]) -> None:
    flags = _flags(words)[0] if command == "evaluate" else argparse.Namespace(model=None, out=None)
    given = recipe_words(words) if command == "evaluate" else list(words)
    first = next(iter(given), "")
    # Options that come first are answered by what knows all options.
    if first.endswith(SUFFIXES) or (first and not first.startswith("-") and "=" not in first):
        check_recipe(command, first)
    overrides = dict(word.split("=", 1) for word in given[1:] if "=" in word)
    for argument, origin in (("--model", flags.model), ("model.init_from", overrides.get("model.init_from"))):
        if origin not in (None, *_NULL) and (reason := missing_folder(origin)):
            raise InputError(unusable(f"{argument}={origin}", reason))
    for argument, out in (("--out", flags.out), ("run.output_dir", overrides.get("run.output_dir"))):
        if out not in (None, *_NULL):
            check_writable(Path(out), argument)


def parse(command: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of an inference command, and check the paths in it.

    Raises:
        SystemExit: After `--help`, or for an option that does not exist.
        FolderError: For an output that cannot be written.
        InputError: If there is no such model, or none of the input files.
    """
    given = PARSERS[command]().parse_args(words)
    if command == "convert":
        _check_conversion(given)
        return given
    output = getattr(given, "output", None)
    if output is not None and (len(given.files) > 1 or Path(given.files[0]).is_dir()):
        what = "a folder" if len(given.files) == 1 else len(given.files)
        raise InputError(f"--output takes one input file, got {what}; use --out.")
    if output is not None:
        check_output_file(output, "--output")
    if getattr(given, "out", None) is not None:
        check_writable(given.out, "--out")
    if reason := missing_folder(given.model):
        raise InputError(unusable(given.model, reason))
    if not any(map(os.path.lexists, given.files)):
        one = len(given.files) == 1
        names = ", ".join(given.files[:_SHOWN]) + ("" if len(given.files) <= _SHOWN else ", ...")
        found = "there is no such file" if one else "there are no such files"
        raise InputError(f"{names}: expected {'a media file' if one else 'media files'}, but {found}.")
    for item in getattr(given, "frame", None) or ():
        if isinstance(item, str) and not os.path.exists(item):
            expected = "expected a timestamp in seconds, an image or a video"
            raise InputError(f"--frame {item}: {expected}, but there is no such file.")
    return given


def _check_conversion(given: argparse.Namespace) -> None:
    if not given.checkpoint.is_file():
        what = "is a folder" if given.checkpoint.is_dir() else "does not exist"
        raise InputError(f"the file {given.checkpoint} {what}.")
    if given.output.exists() and not given.output.is_dir():
        raise FolderError(f"output={given.output} is a file: expected a folder, or nothing.")
    check_writable(given.output, "output")
    if given.config and (reason := missing_folder(given.config)):
        raise InputError(unusable(f"--config {given.config}", reason))


def recipe_words(words: Sequence[str]) -> list[str]:
    """Recipe and overrides of a command line of `evaluate`, which may lack the other arguments."""
    return [word for word in _flags(words)[1] if not word.startswith("-")]


def _flags(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The paths among the options of `evaluate`, and all other words."""
    flags = argparse.ArgumentParser(add_help=False)
    for name in ("--model", "--out"):
        flags.add_argument(name, nargs="?")
    return flags.parse_known_args(words)


__all__ = ["HELP", "InputError", "check", "parse", "recipe_words"]
