"""Options of recipes: their types, descriptions and limits, and checks of their values."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepavfusion.ranges_deepavfusion import Range
from deepavfusion_cli import values
from deepavfusion_cli.recipes import RecipeError, unknown

_BOUNDS = {field.name for field in dataclasses.fields(Range)}


@dataclass(frozen=True)
class Option:
    """Option of a recipe, `section.name`.

    Args:
        name: Name within its section.
        type: Annotation of the field: plain types, lists of them, and unions with None.
        default: Default value.
        help: Description for `--help`.
        commands: Commands that the option applies to; empty for all.
        tasks: Tasks that it applies to; empty for all.
        data_sets: Data sets that it applies to; empty for all.
        choices: Allowed values, or allowed entries of a list; empty for any.
        range: Range of a number, or of the numbers of a list; every option that holds numbers has one.
        local: Whether the value is a path of this machine.
        by_data_set: Data set -> description of its values, if they differ between data sets.
    """

    name: str
    type: Any
    default: Any
    help: str
    commands: Sequence[str] = ()
    tasks: Sequence[str] = ()
    data_sets: Sequence[str] = ()
    choices: Sequence[str] = ()
    range: Range | None = None
    local: bool = False
    by_data_set: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """Command, task and data set of a recipe; None stands for any."""

    command: str | None = None
    task: str | None = None
    data_set: str | None = None

    def mismatch(self, option: Option) -> str | None:
        """Part of the scope that the option does not apply to, such as "dataset 'folder'"; None if it applies."""
        for title, name, allowed in (
            ("command", self.command, option.commands),
            ("task", self.task, option.tasks),
            ("dataset", self.data_set, option.data_sets),
        ):
            if name is not None and allowed and name not in allowed:
                return f"{title} {name!r}"
        return None


def option(default: Any, help: str, **limits):
    """Build a dataclass field that describes an `Option`.

    Args:
        default: Default value; lists are copied for every object.
        help: Description for `--help`.
        **limits: Other attributes of the `Option`; its range as the bounds of a `Range`.
    """
    bounds = {name: limits.pop(name) for name in _BOUNDS & limits.keys()}
    if bounds:
        limits["range"] = Range(**bounds)
    metadata = {"help": help, **limits}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def field_options(cls: type) -> tuple[Option, ...]:
    """The options among the fields of a section's dataclass, in order."""
    hints, found = typing.get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        if "help" in field.metadata:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            found.append(Option(field.name, hints[field.name], default, **field.metadata))
    return tuple(found)


def convert(value: Any, option: Option, key: str) -> Any:
    """Convert a value to the type of an option if that is lossless, see `deepavfusion_cli.values.convert`.

    Args:
        value: Value as read from YAML.
        option: The option.
        key: Name for messages, `section.name`.

    Raises:
        RecipeError: If the value has another type.
    """
    return values.convert(values.as_choice(value, option.choices), type_name(option.type), key)


def check_value(value: Any, option: Option, key: str) -> None:
    """Raise `RecipeError` for a value that is not among the option's choices or not within its range."""
    values.check_value(value, key, option.choices, option.range)


def type_name(hint: Any) -> str:
    """Name a type as in recipes, such as "int or null"."""
    names = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) in (list, tuple):
            entries = [entry for entry in typing.get_args(kind) if entry is not Ellipsis]
            name = f"list of {' or '.join(entry.__name__ for entry in entries)}"
        else:
            name = "null" if kind is type(None) else kind.__name__
        if name not in names:
            names.append(name)
    return " or ".join(names)


def _alternatives(hint: Any) -> tuple:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


__all__ = [
    "Option",
    "RecipeError",
    "Scope",
    "check_value",
    "convert",
    "field_options",
    "option",
    "type_name",
    "unknown",
]
