"""YAML that a recipe or override holds, within limits that are checked before anything is built."""

import os
from typing import Any

import yaml

MAX_VALUES = 10_000  # of a file, with what aliases repeat
VALUES_SETTING = "DEEPAVFUSION_MAX_RECIPE_VALUES"  # environment variable with another limit
_CHARACTERS = 100  # per value, of the longest file
_MAX_DEPTH = 50  # of lists and mappings in each other


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
        yaml.YAMLError: If it is not valid, is nested too deeply, refers to itself, has values that do not exist, such
            as dates, or has more values than allowed, which aliases can multiply.
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
        entries = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        counts[id(node)] = 1 + sum(_count(entry, counts) for entry in entries)
    count = counts[id(node)]
    if count is None:
        raise ValuesError("has a value that contains itself")
    return count


__all__ = ["load_values"]
