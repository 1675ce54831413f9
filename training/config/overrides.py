"""Overrides of recipe options on the command line: `section.key=value`, whose values are YAML."""

import re
from typing import Any

import yaml

from .options import RecipeError, unknown
from .sections import ALIASES, SECTIONS, closest_option
from .values import load_values


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
    key, separator, text = override.partition("=")
    section, dot, name = key.partition(".")
    sought = (name or section).lstrip("-").replace("-", "_")
    closest = closest_option(section, sought, command)
    if not separator or not dot or not name:
        if override.startswith("--") and not separator and "=" not in following:
            text = following
        example = "An example is optim.epochs=10."
        if closest:
            valid = f"{closest}={text or '...'}"
            example = f"Use {valid}." if sought in ALIASES else f"Did you mean {valid}?"
        raise RecipeError(f"Argument {override!r}: expected section.key=value. {example}")
    if section not in SECTIONS:
        raise unknown(f"section {section!r} in {override!r}", section, "sections", SECTIONS, closest)
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


__all__ = ["parse_override"]
