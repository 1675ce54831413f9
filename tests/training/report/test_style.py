"""The style of figures does not depend on the process."""

import io

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

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
