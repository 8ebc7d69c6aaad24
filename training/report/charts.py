"""Charts as inline SVG, in the page's own colours so that they are right by day and by night.

matplotlib draws in stand-in colours, which become the style sheet's variables. Knows numbers and labels; knows nothing
of training.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from training.evaluation.intervals import Figure

VARIABLES = ("ink", "soft", "line", "base", "current", "new")
"""Colour variables of the style sheet."""
_COLOURS = {name: f"#0{number}0{number}0{number}" for number, name in enumerate(VARIABLES, 1)}
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "person2", "font.size": 9, "axes.axisbelow": True}
_WIDTH = 5.0
"""Inches of 72 points; the page scales it to its column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve: points in order of x, and which of `VARIABLES` colours it."""

    points: tuple[tuple[float, float], ...]
    colour: str = "new"
    dots: bool = False


def lines(curves: Sequence[Curve], *, title: str, x_label: str, marks: Sequence[tuple[float, str]] = ()) -> Markup:
    """Curves over one pair of axes. `marks` are labelled horizontal lines."""
    if not any(curve.points for curve in curves):
        return Markup()
    with mpl.rc_context(_STYLE):
        canvas, axes = _axes(2.5)
        for curve in curves:
            xs, ys = zip(*curve.points, strict=True)
            axes.plot(
                xs, ys, color=_COLOURS[curve.colour], linewidth=1.6, marker="o" if curve.dots else "", markersize=4
            )
        for y, word in marks:
            axes.axhline(y, color=_COLOURS["soft"], linewidth=0.8, linestyle=(0, (4, 4)))
            axes.annotate(
                word,
                (1, y),
                (0, 3),
                ("axes fraction", "data"),
                "offset points",
                ha="right",
                color=_COLOURS["soft"],
                fontsize=8,
            )
        axes.set_xlim(left=0)
        axes.set_xlabel(x_label, loc="right", color=_COLOURS["soft"])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", color=_COLOURS["line"], linewidth=0.8)
        return _svg(canvas, title)


def whiskers(rows: Sequence[tuple[str, Figure]], *, title: str, shares: bool = False) -> Markup:
    """Figures with their intervals, one above the other on one axis; a row's name is also its colour."""
    if not rows:
        return Markup()
    with mpl.rc_context(_STYLE):
        canvas, axes = _axes(0.5 + 0.27 * len(rows))
        for place, (name, figure) in enumerate(rows):
            colour = _COLOURS.get(name, _COLOURS["soft"])
            axes.plot((figure.low, figure.high), (place, place), color=colour, linewidth=3, alpha=0.55)
            axes.plot(figure.value, place, color=colour, marker="o", markersize=7)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows], color=_COLOURS["ink"])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if shares:
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.grid(axis="x", color=_COLOURS["line"], linewidth=0.8)
        return _svg(canvas, title)


def _axes(height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(_WIDTH, height), layout="constrained")
    axes = canvas.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=_COLOURS["soft"])
    return canvas, axes


def _svg(canvas: Canvas, title: str) -> Markup:
    """The drawing without what only a standalone file needs: declarations, fixed size, ids."""
    out = io.StringIO()
    canvas.savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"| id="[\w.]+_\d+"|font-family: [^;"]*; ?', "", text).replace(
        "xlink:href", "href"
    )
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    for name, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))  # noqa: S704 - our own drawing
