"""Values of recipes and overrides: YAML within limits, types, choices and ranges, checked before anything is built."""

import difflib
import os
import re
from collections.abc import Sequence
from typing import Any

import yaml

from deepavfusion.ranges_deepavfusion import Range

from .errors import EXPECTED
from .options import split_override
from .parser import expand_home
from .recipes import RecipeError

MAX_VALUES = 10_000  # of a file, with what aliases repeat
VALUES_SETTING = "DEEPAVFUSION_MAX_RECIPE_VALUES"  # environment variable with another limit
_CHARACTERS = 100  # per value, of the longest file
_MAX_DEPTH = 50  # of lists and mappings in each other
# Types of values in words.
_FOUND = {
    "NoneType": "nothing",
    "bool": "true or false",
    "dict": "an object",
    "float": "a number",
    "int": "a number",
    "list": "a list",
    "str": "text",
}


class ValuesError(yaml.YAMLError):
    """Raised for YAML that cannot be read, or claims too much.

    Attributes:
        problem: The reason.
    """

    def __init__(self, problem: str):
        super().__init__(problem)
        self.problem = problem


def load_values(text: str) -> Any:
    """Read YAML as plain values.

    Raises:
        yaml.YAMLError: If it is not valid, is nested too deeply, refers to itself, has a key twice or values that do
            not exist, such as dates, or has more values than allowed, which aliases can multiply.
        ValueError: If the setting of the limit is not a positive integer.
    """
    setting = os.environ.get(VALUES_SETTING, "").strip() or str(MAX_VALUES)
    if not setting.isdecimal() or int(setting) < 1:
        raise ValueError(f"Expected {VALUES_SETTING} as a positive number, got {setting[:40]!r}.")
    limit = int(setting)
    too_much = f"has more than {limit} values (set the environment variable {VALUES_SETTING} to allow more)"
    if len(text) > limit * _CHARACTERS:
        raise ValuesError(too_much)
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValuesError(f"is nested too deeply, in more than {_MAX_DEPTH} lists or mappings")
        if number > 2 * limit + 4:  # a start and an end each, and those of stream and document
            raise ValuesError(too_much)
    if _count(yaml.compose(text, Loader=yaml.SafeLoader), {}) > limit:
        raise ValuesError(too_much)
    try:
        return yaml.safe_load(text)
    except (ValueError, OverflowError) as error:
        raise ValuesError(f"has a value that cannot be read: {str(error)[:200]}") from error


def _count(node: yaml.Node | None, counts: dict[int, int | None]) -> int:
    """Number of values of a node with those of its aliases; `counts` holds those of the nodes seen."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = None
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        entries = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        counts[id(node)] = 1 + sum(_count(entry, counts) for entry in entries)
    count = counts[id(node)]
    if count is None:
        raise ValuesError("has a value that contains itself")
    return count


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ValuesError(f"has {key.value} twice, in lines {lines[key.value]} and {line}")
            lines[key.value] = line


def parse_override(override: str, following: str, command: str) -> tuple[str, str, Any]:
    """Parse an override.

    Args:
        override: The word of the command line.
        following: The word after it: the value of what is written as `--option VALUE`.
        command: Command of the recipe.

    Returns:
        Section, name and value of the option.

    Raises:
        RecipeError: For a word of another form, an unknown section, or a value that is not YAML.
    """
    section, name, text = split_override(override, following, command)
    key = f"{section}.{name}"
    try:
        value = load_values(text)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        opening, closing = text[:1], {"[": "]", "{": "}"}.get(text[:1], "")
        sketch = f"{opening}...{closing}" if closing else "..."
        reason = " ".join(str(getattr(error, "problem", error)).split())
        raise RecipeError(
            f"The value in {override!r} is not valid YAML ({reason}): "
            f"quote values that contain spaces: '{key}={sketch}'."
        ) from error
    entries = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)]
    joined = [str(k) for entry in entries for k, v in entry.items() if v is None and re.search(r":\S", str(k))]
    if joined:
        right = joined[0].replace(":", ": ", 1)
        raise RecipeError(f"The value in {override!r} needs a space after the colon: '{right}'.")
    return section, name, value


def convert(value: Any, kinds: str, key: str) -> Any:
    """Convert a value to the type of an option if that is lossless: an int to float, or text such as 1e-4.

    Args:
        value: Value as read from YAML.
        kinds: Types of the option as in `--help`, such as "float or null" or "list of int".
        key: Name for messages, `section.name`.

    Raises:
        RecipeError: If the value has another type.
    """
    allowed = kinds.split(" or ")
    if value is None and "null" in allowed:
        return None
    for kind in allowed:
        entry = kind.removeprefix("list of ")
        if entry != kind:
            if isinstance(value, str) and entry == "str":
                return [value]  # run.trackers=wandb is a list of one
            if isinstance(value, list):
                return [convert(item, entry, key) for item in value]
        elif kind == "float" and not isinstance(value, bool) and isinstance(value, (int, float, str)):
            try:
                return float(value)
            except (ValueError, OverflowError):
                continue
        elif kind == type(value).__name__:
            return expand_home(value) if kind == "str" else value
        elif kind == "str" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else repr(value)
    raise RecipeError(f"{key} is {text}: expected {' or '.join(EXPECTED.get(kind, kind) for kind in allowed)}.")


def kind_of(value: Any) -> str:
    """What a value of YAML or JSON is, in words for messages."""
    return _FOUND.get(type(value).__name__, type(value).__name__)


def as_choice(value: Any, choices: Sequence[str]) -> Any:
    """Turn the Booleans that YAML reads for a bare yes or no back into these words, if they are among the choices."""
    word = {True: "yes", False: "no"}[value] if isinstance(value, bool) else None
    return value if word is None or word not in choices else word


def check_value(value: Any, key: str, choices: Sequence[str], limits: Any) -> None:
    """Raise `RecipeError` for a value that is not among the choices of an option, or not within its range.

    Args:
        value: Value of the option's type; for a list, each entry is checked.
        key: Name for messages, `section.name`.
        choices: Allowed values; empty for any.
        limits: `Range` of numbers, or None for any.
    """
    if value is None:
        return
    for entry in value if isinstance(value, list) else [value]:
        if choices and entry not in choices:
            close = difflib.get_close_matches(str(entry), choices, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise RecipeError(f"{key} is {entry!r}: expected one of {', '.join(choices)}.{hint}")
    if limits is not None and not isinstance(value, str):
        try:
            limits.check(key, value)
        except ValueError as error:
            raise RecipeError(str(error)) from None


def check_override(key: str, value: Any, kinds: str, limits: dict[str, Any]) -> None:
    """Check the value of an override as far as that depends on the option alone.

    Args:
        key: The option, `section.name`.
        value: Value as read from YAML.
        kinds: See `convert`.
        limits: Choices and bounds of the range, as in `options.stored`.

    Raises:
        RecipeError: If the value cannot be that of the option.
    """
    choices, bounds = limits.get("choices", ()), limits.get("range")
    value = convert(as_choice(value, choices), kinds, key)
    check_value(value, key, choices, None if bounds is None else Range(**bounds))


__all__ = ["as_choice", "check_override", "check_value", "convert", "kind_of", "load_values", "parse_override"]
