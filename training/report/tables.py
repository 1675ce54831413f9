"""Results as Markdown tables, put where they belong in a text.

    python -m deepavfusion.training.report.tables README.md results/*.json

A results file is JSON: {"task": name, "rows": [{column: value}]}, and if wanted "columns" (which, and in which order),
"formats" (column -> Python's format, such as ".1%" or ".2f") and "note" (a line below the table). The tables replace
what stands between `<!-- results:begin -->` and `<!-- results:end -->`: a number in a text never drifts from its file.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepavfusion.inference.files import write_atomically


def format_value(value: Any, form: str | None = None) -> str:
    """A cell as text: floats to four significant digits or by `form`, a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if form is None:
            form = "," if isinstance(value, int) else ".4g"
        return format(value, form).replace("%", " %")
    if isinstance(value, str):
        return value
    raise TypeError(f"Expected text, a number or None in a table, got {type(value).__name__}: {value!r}.")


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], formats: Sequence[str | None] | None = None
) -> str:
    """A Markdown table. Columns that hold numbers alone are set to the right.

    Args:
        columns: headings.
        rows: cells: text, numbers or None.
        formats: of each column, Python's format of its numbers, or None.
    """
    formats = [None] * len(columns) if formats is None else list(formats)
    if not columns or len(formats) != len(columns):
        raise ValueError(f"Expected headings and a format (or None) for each, got {list(columns)} and {formats}.")
    lengths = sorted({len(row) for row in rows} - {len(columns)})
    if lengths:
        raise ValueError(f"Expected {len(columns)} cells in every row ({', '.join(columns)}), got {lengths}.")

    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells) + " |"
        )

    def numeric(index: int) -> bool:
        values = [row[index] for row in rows if row[index] is not None]
        return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)

    rule = "|" + "|".join("---:" if numeric(i) else "---" for i in range(len(columns))) + "|"
    body = [line([format_value(value, form) for value, form in zip(row, formats)]) for row in rows]
    return "\n".join([line(columns), rule, *body])


def aligned(rows: list[list[str]]) -> str:
    """Rows as text in aligned columns, for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def replace_between(path: str | Path, marker: str, text: str) -> bool:
    """Replaces what stands between `<!-- marker:begin -->` and `<!-- marker:end -->` of a UTF-8 file, atomically.

    The same text again changes nothing. Line ends stay those of the file. Returns whether the file changed.

    Raises:
        ValueError: a marker is missing, stands there twice, or the two are in the wrong order.
    """
    path = Path(path)
    with open(path, encoding="utf-8", newline="") as file:
        old = file.read()
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    for line in (begin, end):
        if old.count(line) != 1:
            raise ValueError(f"Expected {line} once in {path}, found it {old.count(line)} times.")
        if line in text:
            raise ValueError(f"Expected a text without {line}, for it could not be replaced again.")
    start, stop = old.index(begin) + len(begin), old.index(end)
    if start > stop:
        raise ValueError(f"Expected {begin} before {end} in {path}, got them in the other order.")
    newline = "\r\n" if "\r\n" in old else "\n"
    inside = f"\n\n{text.strip()}\n\n".replace("\r\n", "\n").replace("\n", newline)
    new = old[:start] + inside + old[stop:]
    if new != old:
        write_atomically(path, new)
    return new != old


def render(results: dict[str, Any]) -> str:
    """The content of a results file as Markdown: the task's name, its table, its note."""
    missing = [key for key in ("task", "rows") if key not in results]
    if missing or not isinstance(results["rows"], list) or not all(isinstance(row, dict) for row in results["rows"]):
        raise ValueError(f"Expected {{'task': name, 'rows': [{{column: value}}]}}, got the keys {sorted(results)}.")
    rows, columns = results["rows"], results.get("columns")
    if columns is None:
        columns = list(dict.fromkeys(column for row in rows for column in row))
    formats = results.get("formats", {})
    unknown = [column for column in [*columns, *formats] if not any(column in row for row in rows)]
    if unknown or not columns:
        raise ValueError(f"Expected columns that occur in the rows of {results['task']!r}, got {unknown or 'none'}.")
    cells = [[row.get(column) for column in columns] for row in rows]
    parts = [f"**{results['task']}**", markdown_table(columns, cells, [formats.get(column) for column in columns])]
    return "\n\n".join(parts + ([results["note"]] if results.get("note") else []))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deepavfusion.training.report.tables", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("text", type=Path, help="file with the two markers, such as README.md")
    parser.add_argument("results", type=Path, nargs="+", help="results files, in the order in which they are to stand")
    parser.add_argument("--marker", default="results", help="name of the markers (default: %(default)s)")
    options = parser.parse_args(arguments)
    tables = []
    for path in options.results:
        try:
            tables.append(render(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError as error:  # not JSON, or not of this form
            raise ValueError(f"{path}: {error}") from error
    changed = replace_between(options.text, options.marker, "\n\n".join(tables))
    print(f"{options.text}: tables of {len(tables)} files, {'changed' if changed else 'as it was'}")
    return 0


__all__ = ["aligned", "format_value", "main", "markdown_table", "render", "replace_between"]

if __name__ == "__main__":
    sys.exit(main())
