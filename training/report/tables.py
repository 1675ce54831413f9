"""Tables of reports: as text for a terminal, and in the files of the documentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.publishing.tables import (
    format_cell,
    format_rows,
    markdown_table,
    markdown_text,
    numeric_columns,
)
from deepavfusion_cli.terminal import printable


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
