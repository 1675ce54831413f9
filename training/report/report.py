"""The report of an evaluation: evaluation.json, pictures, sounds, and one page that holds it all.

    table = Table("Scores", ["", "SDR"], rows)
    report = Report(folder, "Separation, scenes", ["500 mixtures of two."], [table], evaluation)
    report.add_figure("Spectrograms", log_mels({"mixture": mixture, "separated": found}), "Loudest tenth.", alt="...")
    report.add_sounds("Listen", [("mixture", waveform, 16000)])
    report.write()

report.html opens by a double click, from a disk or an archive, with no network and no other file beside it.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.media import DPI, as_frame, as_waveform, plain, png, to_json, wav

from . import page
from .charts import MAX_CLASSES, confused_pairs, confusion_matrix

_SMALL = 224  # pixels of the page: what a smaller frame is enlarged to
_OWN_FILE = re.compile(r"\d{3}-[a-z0-9-]+\.(png|wav)")


@dataclass
class Table:
    """A table: `columns` are headings, `rows` lists of cells (text, numbers or None); the first cell names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str | None = None


@dataclass
class Picture:
    """A picture of an example: a frame (H, W, 3) uint8 or a matplotlib figure.

    `correct` marks it as right or wrong, in words and by its border; None leaves it unmarked.
    """

    picture: Any
    label: str
    alt: str | None = None
    correct: bool | None = None


@dataclass
class Example:
    """A card of a gallery: pictures in a row, sounds (name, waveform (N,), rate in Hz) below, and a line of text."""

    title: str
    pictures: Sequence[Picture]
    sounds: Sequence[tuple[str, Any, int]] = ()
    text: str = ""


class Report:
    """Collects what an evaluation has to show; `write` puts it into a folder.

    Sections stand in the order in which they were added; what follows under the same title joins the section before.

    Args:
        folder: where to write; made if absent. `pictures/` and `sounds/` in it belong to the report.
        title: of the page.
        summary_lines: what was evaluated and what came out, a sentence or two each.
        metrics: tables at the top of the page.
        evaluation: content of evaluation.json. Of its entries, "protocol" (text, lines or name -> value) is shown
            right after the metrics, "skipped" (a count, or name -> count) beside it, all of it at the end of the page.
    """

    def __init__(
        self,
        folder: str | Path,
        title: str,
        summary_lines: Sequence[str] = (),
        metrics: Sequence[Table] = (),
        evaluation: Mapping[str, Any] | None = None,
    ):
        if isinstance(summary_lines, str):
            raise TypeError(f"Expected a list of lines, got one text: {summary_lines!r}.")
        self.folder = Path(folder)
        self.title = title
        self.summary_lines = list(summary_lines)
        self.evaluation = None if evaluation is None else plain(evaluation)
        self._sections: list[tuple[str, str]] = []
        self._files: dict[str, bytes] = {}
        for table in metrics:
            self.add_table(table.title, table.columns, table.rows, table.note)
        if self.evaluation is not None:
            self._add_protocol()

    def add_table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str | None = None
    ) -> None:
        """Adds a table; see `Table`. Its columns sort at a press of their headings."""
        self._add(title, page.table(columns, rows, title) + page.note(note))

    def add_text(self, title: str, lines: Sequence[str]) -> None:
        """Adds paragraphs."""
        self._add(title, "".join(f"<p>{page.escape(line)}</p>" for line in lines))

    def add_figure(self, title: str, picture: Any, caption: str | None = None, *, alt: str) -> None:
        """Adds a matplotlib figure or a frame (H, W, 3) uint8. `alt`: what it shows, for those who cannot see it."""
        content, kind = self._picture(picture, title, alt)
        self._add(title, page.figure(content, caption, kind))

    def add_sounds(self, title: str, sounds: Sequence[tuple[str, Any, int]], caption: str | None = None) -> None:
        """Adds players; sounds: (name, waveform (N,) of floats, rate in Hz).

        Sounds that stand together are compared, so where one exceeds full scale all are turned down alike.
        """
        self._add(title, self._sounds(sounds, title) + page.note(caption))

    def add_gallery(self, title: str, examples: Sequence[Example], caption: str | None = None) -> None:
        """Adds a card for every example."""
        cards, wide = [], False
        for example in examples:
            parts = [f"<h3>{page.escape(example.title)}</h3>"]
            strip = []
            for picture in example.pictures:
                alt = picture.alt or f"{example.title}: {picture.label}"
                content, kind = self._picture(picture.picture, f"{example.title} {picture.label}", alt)
                label = picture.label
                if picture.correct is not None:
                    label = f"{'✓ right' if picture.correct else '✗ wrong'} · {label}"
                    kind += " right" if picture.correct else " wrong"
                strip.append(page.figure(content, label, kind))
            wide |= len(strip) > 4 or any(isinstance(picture.picture, Figure) for picture in example.pictures)
            if strip:
                parts.append(f'<div class="strip">{"".join(strip)}</div>')
            if example.sounds:
                parts.append(self._sounds(example.sounds, example.title))
            parts.append(page.note(example.text))
            cards.append(f'<article class="card">{"".join(parts)}</article>')
        kind = "cards wide" if wide else "cards"
        self._add(title, f'<div class="{kind}">{"".join(cards)}</div>{page.note(caption)}')

    def add_confusion(self, title: str, counts: Any, names: Sequence[str], caption: str | None = None) -> None:
        """Adds the confusions of counts (C, C), rows the truth: a matrix up to `MAX_CLASSES`, else its worst pairs."""
        columns, rows = confused_pairs(counts, names)
        if len(names) <= MAX_CLASSES:
            worst = f" Most confused: {rows[0][0]} taken for {rows[0][1]}." if rows else " No class is confused."
            alt = f"Confusion matrix of {len(names)} classes, rows the true class, each row its shares.{worst}"
            self.add_figure(title, confusion_matrix(counts, names), caption, alt=alt)
        elif rows:
            self.add_table(title, columns, rows, caption)
        else:
            self.add_text(title, [f"None of the {len(names)} classes is confused with another."])

    def write(self) -> Path:
        """Writes pictures, sounds, report.html and then evaluation.json, each whole or not at all.

        Pictures and sounds that an earlier report left in the folder are removed. Returns the path of report.html.
        """
        for subfolder in ("pictures", "sounds"):
            if any(name.startswith(f"{subfolder}/") for name in self._files):
                (self.folder / subfolder).mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            write_atomically(self.folder / name, content)
        path = self.folder / "report.html"
        write_atomically(path, self._page())
        if self.evaluation is not None:
            write_atomically(self.folder / "evaluation.json", to_json(self.evaluation))
        for subfolder in ("pictures", "sounds"):
            for old in sorted((self.folder / subfolder).glob("*")):
                if _OWN_FILE.fullmatch(old.name) and f"{subfolder}/{old.name}" not in self._files:
                    old.unlink()
        return path

    def _page(self) -> str:
        sections = [(f"section-{i}", title, body) for i, (title, body) in enumerate(self._sections, start=1)]
        if self.evaluation is not None:
            body = page.details("evaluation.json", page.listing(to_json(self.evaluation), "evaluation.json"))
            sections.append((f"section-{len(sections) + 1}", "All numbers", body))
        footer = f"Written by deepavfusion on {datetime.datetime.now().astimezone():%Y-%m-%d, %H:%M %Z}."
        return page.page(self.title, self.summary_lines, sections, footer)

    def _add(self, title: str, body: str) -> None:
        if self._sections and self._sections[-1][0] == title:
            body = self._sections.pop()[1] + f'\n<div class="next">{body}</div>'
        self._sections.append((title, body))

    def _add_protocol(self) -> None:
        protocol, skipped = self.evaluation.get("protocol"), self.evaluation.get("skipped")
        if isinstance(protocol, Mapping):
            self.add_table(
                "Protocol", ["what", "how it was measured"], [[key, _line(item)] for key, item in protocol.items()]
            )
        elif protocol:
            self.add_text("Protocol", [protocol] if isinstance(protocol, str) else protocol)
        if isinstance(skipped, Mapping) and skipped:
            self.add_table("Skipped samples", ["why", "samples"], [[key, _line(item)] for key, item in skipped.items()])
        elif skipped is not None:
            self.add_text("Skipped samples", ["None." if not skipped else f"{_line(skipped)}."])

    def _picture(self, picture: Any, name: str, alt: str) -> tuple[str, str]:
        """HTML of a picture, which is also kept as a file, and its class."""
        if not alt.strip():
            raise ValueError(f"Expected words that say what the picture under {name!r} shows, got none.")
        content = png(picture)
        self._keep("pictures", name, "png", content)
        if isinstance(picture, Figure):
            return page.image(content, alt, scale=96 / DPI), "chart"
        enlarged = max(1, -(-_SMALL // max(as_frame(picture).shape[:2])))
        return page.image(content, alt, scale=enlarged), "frame pixels" if enlarged > 1 else "frame"

    def _sounds(self, sounds: Sequence[tuple[str, Any, int]], title: str) -> str:
        waveforms = [as_waveform(waveform) for _, waveform, _ in sounds]
        if not waveforms:
            raise ValueError(f"Expected at least one sound under {title!r}, got none.")
        peak = max(1.0, *(float(np.abs(waveform).max()) for waveform in waveforms))
        files = []
        for (name, _, rate), waveform in zip(sounds, waveforms):
            content = wav(waveform / peak, rate)
            self._keep("sounds", f"{title} {name}", "wav", content)
            files.append((name, content))
        quieter = f"Turned down by {20 * np.log10(peak):.1f} dB: a sample exceeded full scale." if peak > 1 else None
        return page.sounds(files) + page.note(quieter)

    def _keep(self, subfolder: str, name: str, suffix: str, content: bytes) -> None:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "untitled"
        number = 1 + sum(other.startswith(f"{subfolder}/") for other in self._files)
        self._files[f"{subfolder}/{number:03d}-{slug}.{suffix}"] = content


def _line(value: Any) -> str:
    """A JSON value in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_line(item)}" for key, item in value.items())
    return ", ".join(_line(item) for item in value) if isinstance(value, list) else page.cell_text(value)


__all__ = ["Example", "Picture", "Report", "Table"]
