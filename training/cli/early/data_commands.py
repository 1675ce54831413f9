"""Command lines of `deepavfusion data`, checked before torch is imported."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arguments import DATA_ACTIONS, data_parser
from ..options import type_and_limits
from ..paths import InputError, check_output_file, check_writable, no_data, sentence
from ..values import check_override, parse_override
from .data import check_data_files, check_preparation, is_preparation
from .outputs import check_absent
from .recipes import check_applies

_COMMAND = "finetune"  # of which the options of all data sets are known


def parse_data(words: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Parse the command line of `deepavfusion data check` or `prepare`.

    Returns:
        The arguments, with `out` of `prepare`, and the options of the data set besides its path.

    Raises:
        SystemExit: After `--help`, or for an option that does not exist.
        InputError: For a word of another form, or a folder that does not exist.
        RecipeError: For an option that no data set has, or a value that it cannot have.
    """
    action = words[0] if words and words[0] in DATA_ACTIONS else None
    given = data_parser(action).parse_intermixed_args(words)
    out = "OUT " if action == "prepare" else ""
    usage = f"deepavfusion data {action} {given.name} PATH {out}[data.key=value ...]"
    paths: list[str] = []
    outs: list[str] = []
    options: dict[str, Any] = {}
    # As of recipes, the folder may be given as data.path=PATH, in any place.
    for place, word in enumerate([*filter(None, [given.path]), *given.options]):
        key, separator, value = word.partition("=")
        section, dot, name = key.rpartition(".")
        if place == 0 and not (separator and section == "data"):
            paths.append(word)
        elif action == "prepare" and not (separator and section == "data"):
            outs.append(word)
        elif not separator or section not in ("data", ""):
            why = f"; {section}.{name} is no option of a data set" if separator and dot else ""
            raise InputError(f"{word}: expected data.key=value{why}. Usage: {usage}")
        elif name == "path":
            paths.append(value)
        else:
            _, _, options[name] = parse_override(f"data.{name}={value}", "", _COMMAND)
            check_override(f"data.{name}", options[name], *type_and_limits("data", name, _COMMAND))
            check_applies("data", name, options[name], _COMMAND, {"data_sets": given.name})
    if len(set(paths)) != 1:
        found = f"several, {' and '.join(paths)}" if paths else "none"
        raise InputError(f"expected the folder of data set {given.name}, got {found}. Usage: {usage}")
    given.path = paths[0]
    if not given.path.strip():
        raise InputError(f"expected the folder of data set {given.name}, got an empty path. Usage: {usage}")
    if action == "prepare":
        if len(outs) != 1:
            raise InputError(f"expected one folder to write, got {' and '.join(outs) or 'none'}. Usage: {usage}")
        given.out = Path(outs[0])
        check_writable(given.out, "OUT")
        is_preparation(given.out)
        if given.keep_video and (given.fps, given.quality) != (None, None):
            raise InputError("--keep-video: expected no --fps and no --quality, which are those of JPEG files.")
    if action == "check":
        for argument in (name for name in ("out", "report") if getattr(given, name) is not None):
            check_output_file(getattr(given, argument), f"--{argument}")
            check_absent([getattr(given, argument)], given.overwrite)
        makes = type_and_limits("data", "checked_list", _COMMAND)[1]["data_sets"]
        if given.out is not None and given.name not in makes:
            raise InputError(f"--out is for {', '.join(makes)}, not {given.name}.")
    expected = f"expected the data set {given.name} at {given.path}"
    if "://" not in given.path and (reason := no_data(given.path)):
        raise InputError(sentence(f"{expected}, but {reason}"))
    if action == "prepare":
        check_preparation(given.name, {"path": given.path, **options})
    check_data_files(given.name, {"path": given.path, **options})
    return given, options


__all__ = ["parse_data"]
