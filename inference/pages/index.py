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
from ..jobs.inputs import AUDIO_SUFFIXES, DRAFT_SUFFIX, IMAGE_SUFFIXES, has_suffix, walk_files
from ..jobs.records import NO_AUDIO, OUTSIDE
from ..jobs.works import RECORDS, has_files, read_record
from .page import render_page

_MEDIA = "'self' file:"  # where the page lies, on a server or on a disk
_MOST_PLAYERS = 100  # of classified files, all of which a browser opens
_PHOTO = 176  # pixels of the width of a photo, as in page.css
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
            blocks = [_labels(out, records)] if command == "classify" else []
            if command != "classify" or len(records) <= _MOST_PLAYERS:
                blocks.append(_gallery(out, records))
            sections.append({"title": _TITLES[command], "blocks": blocks})
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
        name, source = _file_name(out, path, record), _source_link(out, record)
        file = name if source is None else Markup('<a href="{}">{}</a>').format(source, name)
        rows.append([file, printable(first["label"]), f"{first['score']:.3f}", printable(rest)])
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
    name = (_file_name if record["command"] == "classify" else _name)(out, path, record)
    card = {"title": name, "films": [], "images": [], "audio": [], "gain": "", "text": "", "table": None}
    fill = {"separate": _add_sources, "classify": _add_media}.get(record["command"], _add_maps)
    fill(card, out, path.parent, record)
    return card


def _add_maps(card: dict[str, Any], out: Path, place: Path, record: dict[str, Any]) -> None:
    kind = "heat" if record["command"] == "localize" else "overlay"
    images = [(entry[kind], _caption(entry)) for entry in record["images"]]
    if record["film"] is not None:
        src, poster = (_link(out, place / name) for name in (record["film"]["film"], images[0][0]))
        card["films"] = [{"label": _span(record["film"]), "src": src, "poster": poster}]
    card["images"], card["table"] = list(_images(out, place, images)), _areas(record)
    card["text"] = "" if record.get("audio", True) else f"{NO_AUDIO[0].upper()}{NO_AUDIO[1:]}."


def _add_sources(card: dict[str, Any], out: Path, place: Path, record: dict[str, Any]) -> None:
    named = [(_source_name(source), source) for source in record["sources"]]
    card["films"] = [_film(name, _link(out, place / source["film"])) for name, source in named if source["film"]]
    mixture = _source_link(out, record)
    card["audio"] = [] if mixture is None else [("mixture", mixture)]
    card["audio"] += [(name, _link(out, place / source["audio"])) for name, source in named]
    card["images"] = list(_images(out, place, [(record["spectrograms"], "spectrograms")]))
    if record["attenuation"] > 1:
        card["gain"] = f"Attenuated by a factor of {record['attenuation']:.2f} to avoid clipping."


def _add_media(card: dict[str, Any], out: Path, place: Path, record: dict[str, Any]) -> None:
    """Show the media file itself, if it is there, and its most likely label."""
    first, source, name = record["labels"][0], _source_link(out, record), Path(record["file"]).name
    best = f"{printable(first['label'])} {first['score']:.3f}"
    if source is None:
        card["text"] = best
    elif has_suffix(name, IMAGE_SUFFIXES):
        size = {"width": _PHOTO, "height": _PHOTO}  # until it is loaded
        about = {"src": source, "href": source, "alt": name, "caption": best, "correct": None, "kind": "frame"}
        card["images"] = [about | size]
    elif has_suffix(name, AUDIO_SUFFIXES):
        card["audio"] = [(best, source)]
    else:
        card["films"] = [_film(best, source)]


def _film(label: str, src: str) -> dict[str, Any]:
    """A film without an image to show before it is played: its first frame is shown."""
    return {"label": label, "src": f"{src}#t=0.01", "poster": None}


def _source_link(out: Path, record: dict[str, Any]) -> str | None:
    """Address of the media file of a record, relative to the page; None if it is not there."""
    path = Path(record["file"])
    if not path.is_file():
        return None
    place = os.path.relpath(path.parent.resolve() / path.name, out.resolve())
    return quote(os.fsencode(place))


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


def _file_name(out: Path, path: Path, record: dict[str, Any]) -> str:
    """Name of the media file of a record with its suffix."""
    return _name(out, path, record) + printable(Path(record["file"]).suffix)


def _link(out: Path, path: Path) -> str:
    """Address of a file, relative to the page, whatever its name holds."""
    return quote(os.fsencode(path.relative_to(out).as_posix()))


__all__ = ["INDEX", "write_index"]
