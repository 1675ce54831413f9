"""Text files of annotations, in whatever encoding and with whatever delimiter they were saved."""

import contextlib
import csv
import io
import logging
from collections.abc import Generator
from contextvars import ContextVar
from pathlib import Path

logger = logging.getLogger(__name__)
_READ: ContextVar[set[Path] | None] = ContextVar("annotation files", default=None)


@contextlib.contextmanager
def collecting_reads() -> Generator[set[Path]]:
    """Collect the paths of the annotation files that are read."""
    collected: set[Path] = set()
    token = _READ.set(collected)
    try:
        yield collected
    finally:
        _READ.reset(token)


def note_read(path: str | Path) -> None:
    """Note that an annotation file is read."""
    if (collected := _READ.get()) is not None:
        collected.add(Path(path))


def read_text(path: str | Path) -> str:
    """Read a text file: UTF-8, UTF-16, or, which is logged, Windows-1252.

    Raises:
        ValueError: The file is not text, such as a spreadsheet of Excel.
    """
    note_read(path)
    data = Path(path).read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in data[:2]:  # without a byte-order mark; the first character is a plain letter or quote
        encodings = ["utf-16-be" if data[:1] == b"\0" else "utf-16-le"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings if not data.startswith(b"PK\x03\x04") else ():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == "cp1252":
            logger.warning("%s is not UTF-8 and is read as Windows-1252: save it as UTF-8 if names look wrong", path)
        return text
    raise ValueError(f'{path} is not a text file: expected UTF-8, such as a csv of Excel\'s "CSV UTF-8".')


def read_table(path: str | Path, delimiters: str = ",", comment: str | None = None) -> list[tuple[int, list[str]]]:
    """Read the rows of a table as (line number, fields), without empty ones.

    Args:
        path: File with a row per line, fields quoted where they contain delimiters.
        delimiters: Possible delimiters: the last one that occurs in the first line is that of the file.
        comment: Start of lines to leave out.

    Raises:
        ValueError: The file is not text, or a quote has no end.
    """
    text = read_text(path)
    if comment is not None:
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(comment))
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = next((mark for mark in reversed(delimiters) if mark in first), delimiters[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((reader.line_num, fields))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not a table ({error}): is a quote missing?") from error
    return rows


def read_records(path: str | Path, delimiters: str = ",") -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a table with a header as columns and (line number, row by column); see `read_table`.

    Raises:
        ValueError: Also if a row has more fields than the header.
    """
    rows = read_table(path, delimiters)
    columns = [name.strip() for name in rows[0][1]] if rows else []
    for line, fields in rows[1:]:
        if beyond := [field for field in fields[len(columns) :] if field.strip()]:
            raise ValueError(
                f"{path}, line {line}: expected at most {len(columns)} fields, as in the header, got {len(fields)}, "
                f"among them {beyond[0]!r}: are quotes missing around a field with a comma?"
            )
    return columns, [(line, dict(zip(columns, fields, strict=False))) for line, fields in rows[1:]]
