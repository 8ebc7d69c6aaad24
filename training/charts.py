"""Charts as SVG text, drawn with the page's own colours so that they are right by day and by night.

Knows numbers and labels; knows nothing of training. Colours are CSS classes of `training.report`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from training.evaluation.intervals import Figure

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 18, 40
HALF_LABEL = 26
"""Room for half of a label that stands under the right end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve: points in order of x, and a CSS class for its colour."""

    points: tuple[tuple[float, float], ...]
    style: str = "new"
    dots: bool = False


def lines(curves: Sequence[Line], *, title: str, x_label: str, marks: Sequence[tuple[float, str]] = ()) -> str:
    """Curves over one pair of axes. `marks` are horizontal lines with a word on them."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    xs = [x for x, _ in points]
    ys = [y for _, y in points] + [y for y, _ in marks]
    x_ticks, y_ticks = ticks(min(0.0, *xs), max(xs)), ticks(min(ys), max(ys))
    low_x, high_x = min(x_ticks[0], min(xs)), max(xs)
    low_y, high_y = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1)
        up = (y - low_y) / ((high_y - low_y) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in y_ticks:
        _, down = at(low_x, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in x_ticks:
        if x <= high_x:
            across, _ = at(x, low_y)
            place = f'x="{across:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle"'
            parts.append(f'<text class="tick" {place}>{number(x)}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    for y, word in marks:
        _, down = at(low_x, y)
        parts.append(f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{WIDTH - RIGHT}" y="{down - 5:.1f}" text-anchor="end">{escape(word)}</text>'
        )
    for curve in curves:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve.points))
        parts.append(f'<polyline class="line {curve.style}" points="{path}"/>')
        if curve.dots:
            for point in curve.points:
                x, y = at(*point)
                parts.append(f'<circle class="dot {curve.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
    return "".join(parts) + "</svg>"


def whiskers(rows: Sequence[tuple[str, Figure]], *, title: str, shares: bool = False) -> str:
    """Figures with their intervals, one above the other on one axis; the row's name is its CSS class."""
    if not rows:
        return ""
    row = 26
    height = len(rows) * row + 26
    low = min(figure.low for _, figure in rows)
    high = max(figure.high for _, figure in rows)
    steps = ticks(low, high, wanted=4)
    low, high = min(low, steps[0]), max(high, steps[-1])

    def at(value: float) -> float:
        return LEFT + 14 + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - 14 - HALF_LABEL)

    def share_or_number(value: float) -> str:
        return f"{number(100 * value)} %" if shares else number(value)

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    for step in steps:
        x = at(step)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 20}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 4}" text-anchor="middle">{share_or_number(step)}</text>'
        )
    for index, (name, figure) in enumerate(rows):
        y = index * row + 18
        parts.append(f'<text class="label" x="{LEFT + 2}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<line class="whisker {name}" x1="{at(figure.low):.1f}" x2="{at(figure.high):.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<circle class="dot {name}" cx="{at(figure.value):.1f}" cy="{y}" r="5.5"/>')
    return "".join(parts) + "</svg>"


def ticks(low: float, high: float, *, wanted: int = 5) -> list[float]:
    """Round numbers around [low, high], about `wanted` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        high = low + (abs(low) or 1.0) * 0.1 if math.isfinite(low) else 1.0
        low = low if math.isfinite(low) else 0.0
    raw = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """As short as it can be said."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"
