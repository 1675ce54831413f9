"""Overrides of recipe options on the command line: `section.key=value`, whose values are YAML."""

import re
from typing import Any

import yaml

from deepavfusion_cli.options import split_override
from deepavfusion_cli.recipes import RecipeError

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


__all__ = ["parse_override"]
