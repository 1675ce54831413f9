"""The page of a folder of results, index.html: films, images, audio players and scores, with links relative to it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from PIL import Image

from deepavfusion_cli.early.outputs import INDEX
from deepavfusion_cli.terminal import percent, printable

from ..files import write_atomically
from ..jobs.inputs import DRAFT_SUFFIX, walk_files
from ..jobs.records import NO_AUDIO, OUTSIDE, RECORDS, has_files, read_record
from .page import render_page

_MEDIA = "'self' file:"  # where the page lies, on a server or on a disk
_TITLES = {
    "localize": "Sound source localization",
    "segment": "Audio-visual segmentation",
    "separate": "Source separation",
    "classify": "Classification",
}


def write_index(out: Path) -> Path | None:
    """Write the page of all results in a folder and below, except for those of which a file is missing.

    Args:
        out: The folder.

    Returns:
        The page; None if there are no results.
    """
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {command: [] for command in RECORDS}
    for path in walk_files(out, lambda folder: folder.name.endswith(DRAFT_SUFFIX)):
        record = read_record(path) if path.name.endswith(tuple(RECORDS.values())) else None
        if record is not None and has_files(path, record):
            found[record["command"]].append((path, record))
    sections = []
    for command, records in found.items():
        if records:
            cards = _labels if command == "classify" else _gallery
            sections.append({"title": _TITLES[command], "blocks": [cards(out, records)]})
    if not sections:
        return None
    total = sum(len(records) for records in found.values())
    lines = [f"{total:,} result{'' if total == 1 else 's'}. Times are in seconds from the start of each file."]
    write_atomically(out / INDEX, render_page(f"Results in {out.resolve().name}", lines, sections, _MEDIA))
    return out / INDEX


def _labels(out: Path, records: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    rows = []
    for path, record in records:
        first, *others = record["labels"]
        rest = ", ".join(f"{entry['label']} {entry['score']:.3f}" for entry in others)
        rows.append([_name(out, path, record), printable(first["label"]), f"{first['score']:.3f}", printable(rest)])
    return _table(_TITLES["classify"], ["file", "label", "score", "next"], rows, tall=len(rows) > 25)


def _table(label: str, columns: list[str], rows: list[list[str]], tall: bool = False) -> dict[str, Any]:
    heads = [(column, Markup(' class="number"') if column in ("score", "area", "time") else "") for column in columns]
    return {"kind": "table", "columns": heads, "rows": rows, "note": None, "label": label, "tall": tall}


def _gallery(out: Path, records: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    cards = [_card(out, *entry) for entry in records]
    return {"kind": "gallery", "cards": cards, "wide": False, "caption": _legend(records)}


def _legend(records: list[tuple[Path, dict[str, Any]]]) -> str | None:
    """What the images and films of a command show, as far as it is not plain; None if all is."""
    images = [image for _, record in records for image in record.get("images", ())]
    lines = []
    if any((record.get("film") or {}).get("maps", [{}])[0].get("score") is not None for _, record in records):
        lines.append("In images, each map has its own range of colors; in films, they fade with the score.")
    if any(image.get("unseen") for image in images):
        lines.append(f"{OUTSIDE[0].upper()}{OUTSIDE[1:]}.")
    return " ".join(lines) or None


def _card(out: Path, path: Path, record: dict[str, Any]) -> dict[str, Any]:
    place = path.parent
    card = {"title": _name(out, path, record), "audio": [], "gain": "", "text": "", "table": None}
    if record["command"] == "separate":
        named = [(_source_name(source), source) for source in record["sources"]]
        films = [(name, source["film"]) for name, source in named if source["film"]]
        card["audio"] = [(name, _link(out, place / source["audio"])) for name, source in named]
        images, poster = [(record["spectrograms"], "spectrograms")], None
        if record["attenuation"] > 1:
            card["gain"] = f"Attenuated by a factor of {record['attenuation']:.2f} to avoid clipping."
    else:
        kind = "heat" if record["command"] == "localize" else "overlay"
        images = [(entry[kind], _caption(entry)) for entry in record["images"]]
        films = [] if record["film"] is None else [(_span(record["film"]), record["film"]["film"])]
        poster = _link(out, place / images[0][0])
        card["table"] = _areas(record)
        card["text"] = "" if record.get("audio", True) else f"{NO_AUDIO[0].upper()}{NO_AUDIO[1:]}."
    card["films"] = [{"label": name, "src": _link(out, place / film), "poster": poster} for name, film in films]
    card["images"] = list(_images(out, place, images))
    return card


def _areas(record: dict[str, Any]) -> dict[str, Any] | None:
    """Table of the fractions of labels; None for results without labels."""
    rows = [
        [_time(entry), _swatch(entry.get("colors", {}).get(label)) + printable(label), percent(fraction)]
        for entry in record["images"]
        for label, fraction in entry.get("labels", {}).items()
    ]
    return _table("Areas of labels", ["time", "label", "area"], rows, tall=len(rows) > 8) if rows else None


def _swatch(color: str | None) -> Markup:
    """A square in the color of a label, if it has one."""
    return Markup("") if color is None else Markup('<span class="swatch" style="background: {}"></span> ').format(color)


def _images(out: Path, place: Path, images: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for name, caption in images:
        with Image.open(place / name) as image:
            width, height = image.size
        link, kind = _link(out, place / name), "chart" if caption == "spectrograms" else "frame"
        size = {"width": width, "height": height}
        yield {"src": link, "href": link, "alt": caption, "caption": caption, "correct": None, "kind": kind, **size}


def _caption(entry: dict[str, Any]) -> str:
    score = "" if entry.get("score") is None else f"score {entry['score']:.2f}"
    time = _time(entry)
    return ", ".join(filter(None, (time and f"{time} s", score))) or "photo"


def _time(entry: dict[str, Any]) -> str:
    return "" if entry["timestamp"] is None else f"{entry['timestamp']:.2f}"


def _span(film: dict[str, Any]) -> str:
    return f"{film['start']:.2f} to {film['end']:.2f} s"


def _source_name(source: dict[str, Any]) -> str:
    frame = source["frame"]
    if frame is None:
        return "separated"
    return f"source at {frame:.2f} s" if isinstance(frame, float) else printable(Path(frame).name)


def _name(out: Path, path: Path, record: dict[str, Any]) -> str:
    """Name of the media file of a record, below the folder of the page."""
    return printable(path.relative_to(out).as_posix().removesuffix(RECORDS[record["command"]]))


def _link(out: Path, path: Path) -> str:
    """Address of a file, relative to the page, whatever its name holds."""
    return quote(os.fsencode(path.relative_to(out).as_posix()))


__all__ = ["INDEX", "write_index"]
