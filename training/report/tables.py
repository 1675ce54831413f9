"""Tables as Markdown, as text for a terminal, and as cells for the report page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepavfusion.card_deepavfusion import escape_markdown
from deepavfusion.inference.files import write_atomically
from deepavfusion_cli.terminal import printable

_NUMBER = re.compile(r"[-+\u2212]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d+)?(\s*(±\s*[\d.]+\s*)?(%|dB|Hz|kHz|s|ms|MB|×)?)")
_MISSING = ("–", "-", "∞", "−∞")


@dataclass
class Table:
    """A titled table.

    Attributes:
        title: Title, which need not be unique.
        columns: Headings.
        rows: Cells of each row: text, numbers or None. The first one names the row.
        note: Text below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str | None = None


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

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(markdown_text, cells))} |"

    texts = format_rows(columns, rows)
    numeric = numeric_columns(texts) or [False] * len(columns)
    rule = "|" + "|".join("---:" if number else "---" for number in numeric) + "|"
    return "\n".join([line(columns), rule, *map(line, texts)])


def aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Render rows as text with aligned columns, for a terminal."""
    texts = [[printable(format_cell(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in texts)


def replace_between(path: str | Path, marker: str, text: str) -> bool:
    """Replace the text between `<!-- marker:begin -->` and `<!-- marker:end -->` of a UTF-8 file, atomically.

    Line endings stay those of the file.

    Args:
        path: The file.
        marker: Name in the two comments.
        text: New text between them.

    Returns:
        Whether the file changed.

    Raises:
        ValueError: If a marker is missing, is not unique, or the two are in the wrong order.
    """
    path = Path(path)
    with open(path, encoding="utf-8", newline="") as file:
        old = file.read()
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    for comment in (begin, end):
        if old.count(comment) != 1:
            raise ValueError(f"Expected {comment} once in {path}, found it {old.count(comment)} times.")
        if comment in text:
            raise ValueError(f"Expected a replacement without {comment}: it could not be replaced again.")
    start, stop = old.index(begin) + len(begin), old.index(end)
    if start > stop:
        raise ValueError(f"Expected {begin} before {end} in {path}, found them in reverse order.")
    newline = "\r\n" if "\r\n" in old else "\n"
    inside = f"\n\n{text.strip()}\n\n".replace("\r\n", "\n").replace("\n", newline)
    new = old[:start] + inside + old[stop:]
    if new != old:
        write_atomically(path, new)
    return new != old


__all__ = [
    "Table",
    "aligned",
    "format_cell",
    "format_rows",
    "markdown_table",
    "markdown_text",
    "numeric_columns",
    "replace_between",
]
