"""HTML pages from one template, which needs no network: style and script are inline, and all else is forbidden."""

import base64
import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from deepavfusion_cli.early.outputs import GENERATOR
from deepavfusion_cli.terminal import printable

_TEMPLATES = Path(__file__).parent / "templates"


def render_page(title: str, lines: Sequence[str], sections: Sequence[dict[str, Any]], media: str = "data:") -> str:
    """Render a page.

    Args:
        title: Title of the page.
        lines: Paragraphs below it.
        sections: `title` and `blocks` of each section. A block has a `kind` and what the macro of that name in
            page.html.jinja needs. Text is escaped.
        media: Sources of images, audio and films that the page may load, as of a content security policy.
    """
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.jinja").render(
        title=printable(title),
        lines=lines,
        sections=sections,
        footer=f"Written by deepavfusion on {datetime.datetime.now().astimezone():%Y-%m-%d, %H:%M %Z}.",
        generator=GENERATOR,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src {media}; media-src {media}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )


__all__ = ["render_page"]
