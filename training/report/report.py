"""The report of an evaluation: evaluation.json, images, audio, and one self-contained HTML page of them all.

    table = Table("Scores", ["", "SDR"], rows)
    report = Report(folder, "Separation, scenes", ["500 mixtures of two."], [table], evaluation)
    report.add_figure("Spectrograms", log_mels({"mixture": mixture, "estimate": estimate}), alt="...")
    report.write()

report.html opens in a browser without network access or other files. What it shows of examples is compressed, so that
a page of a dozen of them stays below 3 MB; images/ and audio/ hold them without loss.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from deepavfusion.inference.files import plain, to_json, write_atomically
from deepavfusion.inference.films.encoding import compressed_audio
from deepavfusion.inference.media import as_frame, as_waveform, data_uri, png, png_size, wav, webp
from deepavfusion.inference.pages.page import render_page
from deepavfusion_cli.paths import EVALUATION_FILE

from .style import DPI, figure_png
from .tables import Table, format_cell, format_rows, numeric_columns

_MIN_SIDE = 224  # CSS pixels that smaller frames are enlarged to
_MAX_SIDE = 1280  # pixels that the longer side of larger frames of examples is reduced to on the page
_LONG = 25  # rows beyond which a table gets a scroll bar
_OWN_FILE = re.compile(r"\d{3}-[a-z0-9-]+\.(png|wav)")


@dataclass
class ExampleImage:
    """An image of an example.

    Attributes:
        image: Frame (H, W, 3) uint8 or matplotlib figure.
        caption: Text below it.
        alt: Alternative text; by default the titles of example and image.
        correct: Marks a prediction as correct or wrong, by text and border; None leaves it unmarked.
    """

    image: Any
    caption: str
    alt: str | None = None
    correct: bool | None = None


@dataclass
class Example:
    """A card of a gallery: images in a row, audio players below, and a line of text.

    Attributes:
        title: Title of the card.
        images: The images.
        audio: (name, waveform (N,) of floats, sampling rate in Hz) of each player.
        text: Text at the bottom.
    """

    title: str
    images: Sequence[ExampleImage]
    audio: Sequence[tuple[str, Any, int]] = ()
    text: str = ""


class Report:
    """Collects the results of an evaluation and writes them into a folder.

    Sections appear in the order in which they are added; consecutive additions with the same title share a section.

    Args:
        folder: Output folder, created if absent. `images/` and `audio/` in it belong to the report.
        title: Title of the page.
        summary_lines: What was evaluated and the outcome, a sentence or two each.
        metrics: Tables at the top of the page.
        evaluation: Content of evaluation.json. Its entries "protocol" (text, lines or name -> value) and "skipped" (a
            count, or name -> count) are shown below the metrics, and all of it at the end of the page.
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
            raise TypeError(f"Expected a list of lines, got one string: {summary_lines!r}.")
        self.folder = Path(folder)
        self.title = title
        self.summary_lines = list(summary_lines)
        self.evaluation = None if evaluation is None else plain(evaluation)
        self._sections: list[dict[str, Any]] = []
        self._files: dict[str, bytes] = {}
        for table in metrics:
            self.add_table(table.title, table.columns, table.rows, table.note)
        if self.evaluation is not None:
            self._add_protocol()

    def add_table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str | None = None
    ) -> None:
        """Add a table; see `Table`. A click on a heading sorts by that column."""
        texts = format_rows(columns, rows)
        attributes = [Markup(' class="number"') if number else "" for number in numeric_columns(texts)]
        heads = list(zip(columns, attributes or [""] * len(columns)))
        self._add(title, "table", columns=heads, rows=texts, note=note, label=title, tall=len(texts) > _LONG)

    def add_text(self, title: str, lines: Sequence[str]) -> None:
        """Add paragraphs."""
        self._add(title, "text", lines=lines)

    def add_figure(self, title: str, image: Any, caption: str | None = None, *, alt: str) -> None:
        """Add a matplotlib figure, the file of one (PNG), or a frame (H, W, 3) uint8, with alternative text."""
        self._add(title, "figure", image=self._image(image, title, alt, compressed=True), caption=caption)

    def add_gallery(self, title: str, examples: Sequence[Example], caption: str | None = None) -> None:
        """Add a card for each example."""
        cards, wide = [], False
        for example in examples:
            images = []
            for item in example.images:
                alt = item.alt or f"{example.title}: {item.caption}"
                image = self._image(item.image, f"{example.title} {item.caption}", alt, compressed=True)
                images.append({**image, "caption": item.caption, "correct": item.correct})
            wide |= len(images) > 4 or any(image["kind"] == "chart" for image in images)
            audio, gain = self._audio(example.audio, example.title)
            card = {"title": example.title, "films": [], "images": images, "audio": audio, "gain": gain}
            cards.append({**card, "text": example.text, "table": None})
        self._add(title, "gallery", cards=cards, wide=wide, caption=caption)

    def write(self) -> Path:
        """Write images, audio, report.html and then evaluation.json, each file atomically.

        Images and audio of an earlier report in the folder are removed.

        Returns:
            Path of report.html.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            write_atomically(self.folder / name, content)
        path = self.folder / "report.html"
        write_atomically(path, self._page())
        if self.evaluation is not None:
            write_atomically(self.folder / EVALUATION_FILE, to_json(self.evaluation))
        for subfolder in ("images", "audio"):
            for old in sorted((self.folder / subfolder).glob("*")):
                if _OWN_FILE.fullmatch(old.name) and f"{subfolder}/{old.name}" not in self._files:
                    old.unlink()
        return path

    def _page(self) -> str:
        sections = list(self._sections)
        if self.evaluation is not None:
            listing = {"kind": "listing", "label": EVALUATION_FILE, "text": to_json(self.evaluation)}
            sections.append({"title": "All numbers", "blocks": [listing]})
        return render_page(self.title, self.summary_lines, sections)

    def _add(self, title: str, kind: str, **fields) -> None:
        if not self._sections or self._sections[-1]["title"] != title:
            self._sections.append({"title": title, "blocks": []})
        self._sections[-1]["blocks"].append({"kind": kind, **fields})

    def _add_protocol(self) -> None:
        protocol, skipped = self.evaluation.get("protocol"), self.evaluation.get("skipped")
        if isinstance(protocol, Mapping):
            self.add_table("Protocol", ["setting", "value"], [[key, _line(item)] for key, item in protocol.items()])
        elif protocol:
            self.add_text("Protocol", [protocol] if isinstance(protocol, str) else protocol)
        if isinstance(skipped, Mapping) and skipped:
            rows = [[key, _line(item)] for key, item in skipped.items()]
            self.add_table("Skipped samples", ["reason", "samples"], rows)
        elif skipped is not None:
            self.add_text("Skipped samples", ["None." if not skipped else f"{_line(skipped)}."])

    def _image(self, image: Any, name: str, alt: str, compressed: bool = False) -> dict[str, Any]:
        """Attributes of an <img>, which is also written as a file; the page may show it compressed."""
        if not alt.strip():
            raise ValueError(f"Expected alternative text for the image of {name!r}, got none.")
        if isinstance(image, (Figure, Path)):
            content = image.read_bytes() if isinstance(image, Path) else figure_png(image)
            kind, scale = "chart", 96 / DPI
        else:
            scale = max(1, -(-_MIN_SIDE // max(as_frame(image).shape[:2])))
            content, kind = png(image), "frame pixels" if scale > 1 else "frame"
        self._keep("images", name, "png", content)
        width, height = (round(scale * side) for side in png_size(content))
        # Enlarged pixels are sharp, and small.
        lossy = compressed and kind != "frame pixels"
        if lossy:
            source = data_uri(webp(content, None if kind == "chart" else _MAX_SIDE), "image/webp")
        else:
            source = data_uri(content, "image/png")
        return {"src": source, "alt": alt, "width": width, "height": height, "kind": kind}

    def _audio(self, audio: Sequence[tuple[str, Any, int]], title: str) -> tuple[list[tuple[str, str]], str]:
        """Name and data URI of each player, and a note if all were attenuated by the same gain to avoid clipping."""
        waveforms = [as_waveform(waveform) for _, waveform, _ in audio]
        peak = max([1.0, *(float(np.abs(waveform).max()) for waveform in waveforms)])
        players = []
        for (name, _, rate), waveform in zip(audio, waveforms):
            self._keep("audio", f"{title} {name}", "wav", wav(waveform / peak, rate))
            players.append((name, data_uri(compressed_audio(waveform / np.float32(peak), rate), "audio/mp4")))
        return players, f"Attenuated by {20 * np.log10(peak):.1f} dB to avoid clipping." if peak > 1 else ""

    def _keep(self, subfolder: str, name: str, suffix: str, content: bytes) -> None:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "untitled"
        number = 1 + sum(other.startswith(f"{subfolder}/") for other in self._files)
        self._files[f"{subfolder}/{number:03d}-{slug}.{suffix}"] = content


def _line(value: Any) -> str:
    """A JSON value on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_line(item)}" for key, item in value.items())
    return ", ".join(map(_line, value)) if isinstance(value, list) else format_cell(value)


__all__ = ["Example", "ExampleImage", "Report", "Table"]
