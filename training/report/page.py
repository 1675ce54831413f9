"""HTML of a report: style, the few lines of script, and every piece of the page as text. All words are escaped here.

The page needs nothing but itself, and its content security policy forbids it anything else: pictures and sounds are
data URIs, style is inline, and the one script runs by its hash. Without the script the page reads the same.
"""

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from deepavfusion.inference.media import data_uri, png_size

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --paper: #fff; --ink: #1d2126; --soft: #5a6470; --line: #dfe3e7;
  --link: #0a5fa8; --good: #0b7a55; --bad: #b3470b; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --paper: #1d2125; --ink: #e6e9ec; --soft: #a3adb8;
  --line: #353c43; --link: #7ab8f0; --good: #4cc79a; --bad: #f09a62; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, nav, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .8rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
p { margin: 0 0 .6rem; max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 3px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--paper); padding: .4rem .8rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; margin: 1.2rem 0 0; padding: .7rem 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); font-size: .9rem; }
section { margin: 2.4rem 0; }
.note, figcaption, .text { color: var(--soft); font-size: .9rem; }
.note, figcaption { margin: .6rem 0 0; max-width: 46rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.next { margin-top: 1.6rem; }
.tall { max-height: 32rem; overflow-y: auto; width: fit-content; padding-right: 1rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); font-weight: 400;
  vertical-align: baseline; }
th:last-child, td:last-child { padding-right: .4rem; }
thead th { font-weight: 600; color: var(--soft); white-space: nowrap; position: sticky; top: 0;
  background: var(--ground); }
.number { text-align: right; white-space: nowrap; }
thead button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
thead button:hover { color: var(--ink); text-decoration: underline; }
thead [aria-sort=ascending] button::after { content: " \\2191"; }
thead [aria-sort=descending] button::after { content: " \\2193"; }
figure { margin: 0; }
img { max-width: 100%; height: auto; display: block; }
.plate { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .8rem; display: inline-block;
  max-width: 100%; }
.frame img { border-radius: 4px; }
.pixels img { image-rendering: pixelated; }
.cards { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.wide { grid-template-columns: 1fr; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; min-width: 0; }
.strip { display: flex; flex-wrap: wrap; gap: .7rem; align-items: flex-start; }
.strip figure { flex: 0 1 auto; min-width: 0; max-width: 100%; }
.strip figcaption { margin: .25rem 0 0; font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; }
.strip .frame { flex: 1 1 5.5rem; max-width: 11rem; }
.strip .frame img { width: 100%; }
.wide .strip .frame { flex: 0 1 min(10.5rem, 30%); }
.strip .chart { flex: 1 1 30rem; }
.right img { box-shadow: 0 0 0 3px var(--good); } .right figcaption { color: var(--good); }
.wrong img { box-shadow: 0 0 0 3px var(--bad); } .wrong figcaption { color: var(--bad); }
.sounds { list-style: none; margin: .8rem 0 0; padding: 0; display: grid; gap: .5rem 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); }
.sounds span { display: block; font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
audio { width: 100%; height: 2.4rem; display: block; }
details { border-top: 1px solid var(--line); padding: .7rem 0; }
summary { cursor: pointer; font-weight: 600; }
details > .scroll { margin-top: .7rem; }
pre { font: .85rem/1.5 ui-monospace, "Cascadia Code", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 0; }
footer { color: var(--soft); font-size: .85rem; padding-bottom: 3rem; }
@media print { nav, .skip, audio { display: none; } section, .card { break-inside: avoid; }
  .tall { max-height: none; } }
"""

# Columns sort at a press of their heading, numbers as numbers; starting one sound stops the others.
_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const up = head.ariaSort ? head.ariaSort === "descending" : !numeric;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => row.cells[column].textContent.trim();
      const number = row => parseFloat(key(row).replaceAll(",", "").replace("\\u2212", "-"));
      const rows = [...body.rows].sort((a, b) => {
        if (!numeric) return (up ? 1 : -1) * key(a).localeCompare(key(b), undefined, { numeric: true });
        const x = number(a), y = number(b);
        return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : (up ? 1 : -1) * (x - y);
      });
      body.append(...rows);
    });
  });
}
document.addEventListener("play", event => {
  for (const sound of document.querySelectorAll("audio")) if (sound !== event.target) sound.pause();
}, true);
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode("utf-8")).digest()).decode("ascii")
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
)
_NUMBER = re.compile(r"[-+\u2212]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d+)?(\s*(±\s*[\d.]+\s*)?(%|dB|Hz|kHz|s|ms|MB|×)?)")
_TALL = 25  # rows beyond which a table scrolls in itself


def cell_text(value: Any) -> str:
    """A table cell as text: floats to four significant digits, None and NaN as a dash."""
    if value is None:
        return "–"
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], label: str) -> str:
    """A table whose first cells name the rows; columns that hold numbers alone stand to the right."""
    texts = [[cell_text(value) for value in row] for row in rows]
    for row in texts:
        if len(row) != len(columns):
            raise ValueError(f"Expected {len(columns)} cells ({', '.join(columns)}) in a row of {label!r}, got {row}.")
    numeric = [
        any(row[i] != "–" for row in texts)
        and all(row[i] in ("–", "∞", "−∞") or _NUMBER.fullmatch(row[i]) for row in texts)
        for i in range(len(columns))
    ]
    kinds = [' class="number"' if number else "" for number in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' if name else "<td></td>" for name, kind in zip(columns, kinds)
    )
    body = []
    for row in texts:
        cells = [f'<th scope="row"{kinds[0]}>{escape(row[0])}</th>']
        cells += [f"<td{kind}>{escape(text)}</td>" for text, kind in zip(row[1:], kinds[1:])]
        body.append(f"<tr>{''.join(cells)}</tr>")
    tall = " tall" if len(rows) > _TALL else ""
    return (
        f'<div class="scroll{tall}" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(body)}\n</tbody></table></div>"
    )


def image(content: bytes, alt: str, scale: float = 1.0) -> str:
    """An <img> of a PNG; `scale`: pixels of the page per pixel of the picture."""
    width, height = (round(scale * side) for side in png_size(content))
    return f'<img src="{data_uri(content, "image/png")}" alt="{escape(alt)}" width="{width}" height="{height}">'


def figure(content: str, caption: str | None, kind: str) -> str:
    """A <figure> of an <img>, with its classes: "chart" (drawn on white, so on a white plate) or "frame"."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    if "chart" in kind.split():
        content = f'<div class="plate">{content}</div>'
    return f'<figure class="{kind}">{content}{words}</figure>'


def sounds(items: Sequence[tuple[str, bytes]]) -> str:
    """A list of players; items: (name, WAV file)."""
    players = "".join(
        f"<li><span>{escape(name)}</span>"
        f'<audio controls preload="metadata" aria-label="{escape(name)}" '
        f'src="{data_uri(content, "audio/wav")}"></audio></li>'
        for name, content in items
    )
    return f'<ul class="sounds">{players}</ul>'


def note(text: str | None) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def section(identifier: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{identifier}"><h2 id="{identifier}">{escape(title)}</h2>\n{body}\n</section>'


def details(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def listing(text: str, label: str) -> str:
    """Text as it is, in a region that scrolls."""
    region = f'class="scroll tall" tabindex="0" role="region" aria-label="{escape(label)}"'
    return f"<div {region}><pre>{escape(text)}</pre></div>"


def page(title: str, lines: Sequence[str], sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """The whole document; sections: (identifier, title, HTML)."""
    links = "".join(f'<li><a href="#{identifier}">{escape(name)}</a></li>' for identifier, name, _ in sections)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>',
        '<a class="skip" href="#content">To the content</a>',
        f"<header><h1>{escape(title)}</h1>\n" + "\n".join(f"<p>{escape(line)}</p>" for line in lines) + "</header>",
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else "",
        '<main id="content" tabindex="-1">',
        *(section(*parts) for parts in sections),
        f"</main>\n<footer><p>{escape(footer)}</p></footer>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


__all__ = ["cell_text", "details", "escape", "figure", "image", "listing", "note", "page", "section", "sounds", "table"]
