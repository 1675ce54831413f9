"""Ranges of numbers: declared beside the field that they belong to, checked here with one wording.

Configurations, recipes, annotations and command lines state what each of their numbers may be. No range contains NaN or
infinity.
"""

import dataclasses
import math
from collections.abc import Iterator
from numbers import Real
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds, each inclusive or exclusive.

    Args:
        above: Exclusive lower bound.
        at_least: Inclusive lower bound.
        below: Exclusive upper bound.
        at_most: Inclusive upper bound.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def __contains__(self, value: Any) -> bool:
        """Whether a value is a finite number within the bounds."""
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            return False
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        """Describe the bounds, such as "of at least 0 and below 1"."""
        parts = [
            ("above", self.above),
            ("of at least", self.at_least),
            ("below", self.below),
            ("at most", self.at_most),
        ]
        return " and ".join(f"{words} {_text(limit)}" for words, limit in parts if limit is not None)

    def check(self, name: str, value: Any) -> None:
        """Check a number, or each number of a list.

        Raises:
            ValueError: If one is not within the bounds.
        """
        for entry in value if isinstance(value, (list, tuple)) else [value]:
            if entry not in self:
                raise ValueError(f"{name} is {entry!r}: expected a number {self}.")


# Times in a recording, in seconds.
SECONDS = Range(at_least=0, at_most=1_000_000_000)
# Numbers of clips and the like.
COUNT = Range(at_least=1, at_most=1_000_000_000)


def _text(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def number(default: Any, **bounds: float):
    """Build a dataclass field that holds a number, a list of numbers, or another value that is no number.

    Args:
        default: Default value.
        **bounds: Bounds of the `Range`.
    """
    return dataclasses.field(default=default, metadata={"range": Range(**bounds)})


def field_ranges(cls: type) -> Iterator[tuple[str, Range]]:
    """The fields of a dataclass that state a range, as (name, range)."""
    for field in dataclasses.fields(cls):
        if "range" in field.metadata:
            yield field.name, field.metadata["range"]


def check_fields(instance: Any) -> None:
    """Check all numbers of a dataclass whose fields state a range; None and text are left to other checks.

    Raises:
        ValueError: If one is not within its range.
    """
    for name, limits in field_ranges(type(instance)):
        value = getattr(instance, name)
        if value is not None and not isinstance(value, str):
            limits.check(name, value)


__all__ = ["COUNT", "SECONDS", "Range", "check_fields", "field_ranges", "number"]
