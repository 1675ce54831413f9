"""Results of the demo in words, and as HTML in which all text is escaped."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepavfusion_cli.terminal import percent, printable

from ..media import data_uri, png
from .actions import Thing


def text(value: str) -> str:
    """Text as HTML."""
    return html.escape(printable(value))


def paragraph(value: str, kind: str = "") -> str:
    """A paragraph of text; `kind` is the class that styles it."""
    return f'<p class="demo-text {kind}">{text(value)}</p>'


def label_strips(times: Sequence[float], scores: Mapping[str, Sequence[float]]) -> str:
    """Table of labels by time: a row for each label, a cell for each window, the darker the more probable.

    Args:
        times: Middles of the windows in seconds.
        scores: Probabilities of each label in the windows.
    """
    every = max(1, -(-len(times) // 8))  # a time is written above every such window
    heads = "".join(f'<th scope="col">{f"{time:.1f} s" if k % every == 0 else ""}</th>' for k, time in enumerate(times))
    rows = []
    for label, values in scores.items():
        cells = "".join(
            f'<td style="--p:{value:.3f}" title="{text(label)}, {time:.2f} s">{value:.2f}</td>'
            for time, value in zip(times, values, strict=True)
        )
        rows.append(f'<tr><th scope="row">{text(label)}</th>{cells}</tr>')
    return (
        '<div class="demo-scroll" tabindex="0" role="region" aria-label="Labels over time"><table class="demo-strips">'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def panels(rows: Mapping[str, Sequence[tuple[str, np.ndarray]]]) -> str:
    """Rows of images beside each other.

    Args:
        rows: Title of each row -> captions and images (H, W, 3) uint8.
    """
    parts = []
    for title, images in rows.items():
        figures = "".join(
            f'<figure><img src="{data_uri(png(image), "image/png")}" alt="{text(f"{title}, {caption}")}">'
            f"<figcaption>{text(caption)}</figcaption></figure>"
            for caption, image in images
        )
        parts.append(f'<h3 class="demo-title">{text(title)}</h3><div class="demo-panels">{figures}</div>')
    return "".join(parts)


def verdict(thing: Thing, looked: bool) -> str:
    """What is said of a thing that was clicked."""
    if thing.sounding is None:
        seen = "The model does not see this part of the frame" if looked else "No model finds things"
        return f"{seen}: the square around the click stands for the thing."
    if thing.sounding:
        text = "This sounds." if thing.label is None else f"This sounds: {thing.label}."
    else:
        text = "This is silent: the square around the click stands for the thing."
    return text + ("" if thing.score is None else f" Probability that anything in the frame sounds: {thing.score:.2f}.")


def about_maps(maps: Sequence[Mapping[str, Any]]) -> str:
    """What is said of a film of maps, as a paragraph, in which labels have the colors of the film."""
    if "score" in maps[0]:
        scores = [entry["score"] for entry in maps]
        range_of = f"{min(scores):.2f} to {max(scores):.2f}"
        return paragraph(f"Probability that anything in the frame sounds: {range_of}.", "demo-soft")
    areas: dict[str, float] = {}
    colors: dict[str, str] = {}
    for entry in maps:
        colors |= entry.get("colors", {})
        for label, fraction in entry["labels"].items():
            areas[label] = areas.get(label, 0.0) + fraction / len(maps)
    parts = [
        f'<span class="demo-swatch" style="background: {colors.get(label, "none")}"></span>{text(label)} '
        f"{percent(fraction)}"
        for label, fraction in sorted(areas.items(), key=lambda entry: entry[1], reverse=True)
    ]
    return f'<p class="demo-text demo-soft">Mean fraction of the frame: {", ".join(parts)}.</p>'


__all__ = ["about_maps", "label_strips", "panels", "paragraph", "text", "verdict"]
