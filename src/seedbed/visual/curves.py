"""Line charts as SVG text: no library, no script, readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 48
# Okabe & Ito's palette: told apart by people who see colours differently, and on both backgrounds.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("none", "7 4", "2 4")
"""The seventh line has the first one's colour again, and dashes."""
CHARACTER, LEGEND_LINE = 7, 16
"""Width of a character of the legend, amply, and height of its lines."""
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.grid{stroke:#8884}.title{font-size:14px;font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
)


def line_chart(series: Mapping[str, Points], *, title: str, x_label: str, y_label: str) -> str:
    """A chart of named lines. Points that are not finite are left out; ValueError when none is left.

    The legend takes as many lines as it needs, and the chart grows by them.
    """
    lines = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()}
    everything = [point for points in lines.values() for point in points]
    if not everything:
        raise ValueError("there is nothing to draw")
    xs, ys = zip(*everything, strict=True)
    entries = _legend(list(lines))
    grown = entries[-1].y - entries[0].y
    top, bottom = TOP + grown, HEIGHT + grown - BOTTOM
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), bottom - up * (bottom - top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + grown}" role="img"'
        f' aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{_number(tick)}</text>')
    middle = (top + bottom) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT + grown - 8}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    for index, (points, entry) in enumerate(zip(lines.values(), entries, strict=True)):
        dashes, colour = divmod(index, len(COLOURS))
        ends = points * 2 if len(points) == 1 else points  # a round dot
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in ends))
        style = f'fill="none" stroke="{COLOURS[colour]}" stroke-width="2" stroke-linecap="round"'
        style += f' stroke-dasharray="{DASHES[dashes % len(DASHES)]}"'
        parts.append(f'<polyline points="{path}" {style}/>')
        parts.append(f'<path d="M{entry.x},{entry.y - 4}h24" {style}/>')
        parts.append(f'<text class="legend" x="{entry.x + 30}" y="{entry.y}">{escape(entry.name)}</text>')
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Entry:
    """A name in the legend, and where its line of colour begins."""

    name: str
    x: int
    y: int


def _legend(names: Sequence[str]) -> list[_Entry]:
    """The names side by side, as many to a line as there is room for; one that no line can hold is cut."""
    entries: list[_Entry] = []
    x, y = LEFT, 36
    longest = (WIDTH - RIGHT - LEFT - 30) // CHARACTER
    for name in names:
        shown = name if len(name) <= longest else name[: longest - 1] + "…"
        needed = 30 + CHARACTER * len(shown)
        if x > LEFT and x + needed > WIDTH - RIGHT:
            x, y = LEFT, y + LEGEND_LINE
        entries.append(_Entry(shown, x, y))
        x += needed + 18
    return entries


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose the range."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * index for index in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.6g}"
