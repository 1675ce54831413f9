"""Tables as Markdown, and the text of their cells."""

import math
import re
from collections.abc import Sequence
from typing import Any

from deepavfusion.card_deepavfusion import escape_markdown
from deepavfusion_cli.terminal import printable

_NUMBER = re.compile(r"[-+\u2212]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d+)?(\s*(±\s*[\d.]+\s*)?(%|dB|Hz|kHz|s|ms|MB|×)?)")
_MISSING = ("–", "-", "∞", "−∞")


def format_cell(value: Any) -> str:
    """Format a table cell: floats to four significant digits, None and NaN as a dash.

    Raises:
        TypeError: For anything but text, a scalar or None.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # scalars of numpy and torch
        value = value.item()
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, str):
        return value
    raise TypeError(f"Expected text, a number or None in a table cell, got {type(value).__name__}: {value!r}.")


def format_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Format all cells of a table.

    Raises:
        ValueError: If there are no columns, or a row has another number of cells.
    """
    lengths = sorted({len(row) for row in rows} - {len(columns)})
    if lengths or not columns:
        raise ValueError(f"Expected {len(columns)} cells ({', '.join(columns)}) in every row, got rows of {lengths}.")
    return [[format_cell(value) for value in row] for row in rows]


def numeric_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns of formatted rows contain numbers only, with or without a unit, and are to be right-aligned."""
    return [
        any(text not in _MISSING for text in column)
        and all(text in _MISSING or _NUMBER.fullmatch(text) is not None for text in column)
        for column in zip(*rows)
    ]


def markdown_text(text: str) -> str:
    """Text that stays text in Markdown, whatever it contains: labels and names of files make no markup, on one line."""
    return escape_markdown(printable(" ".join(text.split())))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Render a Markdown table, with numeric columns right-aligned.

    Args:
        columns: Headings.
        rows: Cells of each row: text, numbers or None.

    Raises:
        ValueError: If there are no columns, or a row has another number of cells.
    """
    texts = format_rows(columns, rows)
    numeric = numeric_columns(texts) or [False] * len(columns)
    return markup_table(*([*map(markdown_text, cells)] for cells in (columns, *texts)), numeric=numeric)


def markup_table(columns: Sequence[str], *rows: Sequence[str], numeric: Sequence[bool] = ()) -> str:
    """Render a Markdown table of cells that are Markdown already.

    Args:
        columns: Headings.
        rows: Cells of each row, as many as there are headings.
        numeric: Which columns are right-aligned; none by default.
    """
    rule = "|" + "|".join("---:" if number else "---" for number in numeric or [False] * len(columns)) + "|"
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


__all__ = ["format_cell", "format_rows", "markdown_table", "markdown_text", "markup_table", "numeric_columns"]
