"""Style of all figures, independent of the process's matplotlib settings, and figures as PNG."""

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

DPI = 144  # 1.5 pixels per CSS pixel of the page, so that text is sharp on high-density displays
# Distinguishable under the common forms of color blindness (Okabe and Ito).
COLORS = {"fusion": "#0072B2", "image": "#E69F00", "audio": "#009E73", "all": "#CC79A7", "total": "#333333"}
MARKED = {"marker": "o", "markersize": 4}  # points of a line
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
# Of these, those that are installed draw what the first lacks, such as names of classes in Chinese.
_FONTS = (
    "DejaVu Sans",
    *(f"Noto Sans{script}" for script in (" CJK SC", " CJK JP", " Arabic", " Hebrew", " Devanagari", " Thai", "")),
    *("Arial Unicode MS", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Malgun Gothic"),
)
_STYLE = {
    "font.size": 10,
    "text.color": "#1d2126",
    "axes.labelcolor": "#3c444c",
    "axes.edgecolor": "#9aa3ac",
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.linewidth": 0.8,
    "xtick.color": "#5a6470",
    "ytick.color": "#5a6470",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@functools.cache
def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


def own_style(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run `function` with matplotlib's defaults and the report's style, whatever the process has set.

    Needed for saving as well as for building a figure: matplotlib creates some artists only when drawing.
    """

    @functools.wraps(function)
    def styled(*args, **kwargs):
        defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
        with matplotlib.rc_context({**defaults, **_STYLE, "font.family": _fonts()}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # drawn as a box
            return function(*args, **kwargs)

    return styled


@own_style
def figure_png(figure: Figure) -> bytes:
    """PNG of a matplotlib figure, on white, at `DPI`, without margins."""
    file = io.BytesIO()
    figure.savefig(
        file,
        format="png",
        dpi=DPI,
        bbox_inches="tight",
        pad_inches=0.06,
        facecolor="white",
        metadata={"Software": None},
    )
    return file.getvalue()


def chart_axes(axes, title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels and grid of a chart."""
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color="#e4e7ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def markers(points: Sequence[Any]) -> dict[str, Any]:
    """Style of a line: its points are marked if they are few, as a single one has no line."""
    return MARKED if len(points) < 30 else {}


def note_absence(axes) -> None:
    """Say in a chart that there is nothing to draw."""
    axes.text(0.5, 0.5, "no scores", ha="center", va="center", transform=axes.transAxes, color="0.4")


def shorten(name: str, length: int = 24) -> str:
    """The name, or its beginning and an ellipsis if it is longer than `length`."""
    return name if len(name) <= length else name[: length - 1] + "…"


__all__ = [
    "COLORS",
    "CYCLE",
    "DPI",
    "MARKED",
    "chart_axes",
    "figure_png",
    "markers",
    "note_absence",
    "own_style",
    "shorten",
]
