"""The style of figures does not depend on the process."""

import io

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from deepavfusion.training.report import style
from deepavfusion.training.report.style import figure_png, own_style


def test_figures_are_independent_of_the_process_style():
    def draw():
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([0, 1])
        return figure_png(figure)

    def styled():
        return own_style(draw)()

    ordinary = styled()
    with matplotlib.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        dark = styled()
        assert dict(matplotlib.rcParams) == before
    assert dark == ordinary
    pixels = np.asarray(Image.open(io.BytesIO(ordinary)).convert("RGB"))
    assert (pixels[0, 0] == 255).all()


def test_names_in_other_scripts_raise_no_warnings(recwarn):
    """Where no font has them, they are boxes."""
    figure = own_style(Figure)()
    figure.subplots().set_title("\u65e5\u672c \U0001f600")
    assert figure_png(figure).startswith(b"\x89PNG")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_fonts_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(style.font_manager, "get_font_names", lambda: ["Noto Sans CJK JP", "DejaVu Sans", "Other"])
    style._fonts.cache_clear()
    assert style._fonts() == ["DejaVu Sans", "Noto Sans CJK JP"]
    style._fonts.cache_clear()
