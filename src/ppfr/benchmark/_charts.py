"""Charts as inline SVG: text stays text, colours come from the page's style sheet, so they follow light and dark.

Every chart is drawn for a width of 420 units, which a phone shows nearly one to one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 420.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 14.0, 46.0
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis: what it shows, from where to where, which ticks.

    Attributes:
        label: what and in which unit.
        low: value at the left or lower end.
        high: value at the other end.
        ticks: (value, text) of each tick.
        is_log: logarithmic scale.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Share of the axis' length at which `value` lies; values outside lie at the ends."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log10(max(value, self.low)), math.log10(low), math.log10(high)
        return min(1.0, max(0.0, (value - low) / (high - low)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A measured point with its intervals; `series` chooses colour and marker."""

    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float
    series: int
    label: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve; `series` chooses colour and dashes."""

    x: Sequence[float]
    y: Sequence[float]
    series: int
    label: str


def percent_axis(label: str, low: float = 0.0, high: float = 1.0) -> Axis:
    """An axis of shares, ticks in per cent, that begins at or below `low`."""
    span = max(high - low, 1e-9)
    step = next(s for s in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if s >= span / 6 or s == 0.5)
    first = math.floor(low / step + 1e-9) * step
    num = math.ceil((high - first) / step - 1e-9)
    digits = 1 if step < 0.01 else 0
    ticks = [(first + i * step, f"{100 * (first + i * step):.{digits}f}") for i in range(num + 1)]
    return Axis(label=label, low=first, high=first + num * step, ticks=ticks)


def number_axis(label: str, low: float, high: float) -> Axis:
    """A linear axis with round ticks."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= span / 5)
    first = math.floor(low / step + 1e-9) * step
    num = max(1, math.ceil((high - first) / step - 1e-9))
    ticks = [(first + i * step, _short(first + i * step, step)) for i in range(num + 1)]
    return Axis(label=label, low=first, high=first + num * step, ticks=ticks)


def log_axis(label: str, low: float) -> Axis:
    """A logarithmic axis from `low` to 1 with a tick at each power of ten."""
    lowest_power = math.ceil(math.log10(low) - 1e-9)
    ticks = [(10.0**p, _power(p)) for p in range(lowest_power, 1)]
    return Axis(label=label, low=low, high=1.0, ticks=ticks, is_log=True)


def dot_chart(
    dots: Sequence[Dot], *, x: Axis, y: Axis, title: str, description: str, chance_x: float | None = None
) -> str:
    """Points with their intervals in both directions."""
    parts = []
    if chance_x is not None:
        at = _x(x, chance_x)
        parts.append(f'<line class="chance" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="note" x="{at + 5:.1f}" y="{HEIGHT - _BOTTOM - 6:.1f}">guessing</text>')
    for dot in dots:
        at_x, at_y = _x(x, dot.x), _y(y, dot.y)
        parts.append(
            f'<g class="series s{dot.series % 6}"><title>{escape(dot.label)}</title>'
            f"{_interval(_x(x, dot.x_low), at_y, _x(x, dot.x_high), at_y)}"
            f"{_interval(at_x, _y(y, dot.y_low), at_x, _y(y, dot.y_high))}"
            f"{marker(dot.series, at_x, at_y)}</g>"
        )
    return _framed(parts, x=x, y=y, title=title, description=description)


def line_chart(
    lines: Sequence[Line],
    *,
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    chance: Callable[[float], float] | None = None,
) -> str:
    """Curves; `chance`, if given, is drawn as a thin dotted line."""
    parts = []
    if chance is not None:
        xs = [
            x.low * (x.high / x.low) ** (i / 40) if x.is_log else x.low + (x.high - x.low) * i / 40 for i in range(41)
        ]
        shown = [(v, chance(v)) for v in xs if chance(v) >= y.low]
        path = _path([v for v, _ in shown], [c for _, c in shown], x, y)
        parts.append(f'<path class="chance" d="{path}"/>')
    for line in lines:
        parts.append(
            f'<g class="series s{line.series % 6}"><title>{escape(line.label)}</title>'
            f"{_curve(_path(line.x, line.y, x, y), line.series)}</g>"
        )
    return _framed(parts, x=x, y=y, title=title, description=description)


def _interval(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="interval" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _curve(path: str, series: int) -> str:
    dash = _DASHES[series % len(_DASHES)]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="curve" d="{path}"{dashes}/>'


def marker(series: int, x: float, y: float, radius: float = 5.5) -> str:
    """The series' marker: shape as well as colour, so that print and colour-blind readers can tell them apart."""
    r, s = radius, radius + 1
    hollow = f'<circle class="mark hollow" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}"/>'

    def polygon(*offsets: tuple[float, float]) -> str:
        corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in offsets)
        return f'<polygon class="mark" points="{corners}"/>'

    shapes = (
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}"/>',
        f'<rect class="mark" x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:g}" height="{2 * r:g}"/>',
        polygon((0, -s), (s, r), (-s, r)),
        polygon((0, -s - 1), (s + 1, 0), (0, s + 1), (-s - 1, 0)),
        polygon((-s, -r), (s, -r), (0, s)),
        hollow,
    )
    return shapes[series % len(shapes)]


def key(series: int, *, is_line: bool) -> str:
    """The series' sign for a legend, 26 units wide."""
    inner = _curve("M1 8H25", series) if is_line else marker(series, 13, 8, 5)
    return (
        f'<svg class="key" viewBox="0 0 26 16" width="26" height="16" aria-hidden="true">'
        f'<g class="series s{series % 6}">{inner}</g></svg>'
    )


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.place(value) * (HEIGHT - _TOP - _BOTTOM)


def _path(xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis) -> str:
    points = [f"{_x(x, a):.1f} {_y(y, b):.1f}" for a, b in zip(xs, ys, strict=True)]
    return f"M{'L'.join(points)}" if points else ""


def _framed(parts: Sequence[str], *, x: Axis, y: Axis, title: str, description: str) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    frame = [f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    for value, text in x.ticks:
        at = _x(x, value)
        frame.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        frame.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{text}</text>')
    for value, text in y.ticks:
        at = _y(y, value)
        frame.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        frame.append(f'<text class="tick" x="{_LEFT - 7:.1f}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    middle = (_TOP + bottom) / 2
    labels = (
        f'<text class="label" x="{(_LEFT + right) / 2:.1f}" y="{HEIGHT - 8:.1f}" text-anchor="middle">'
        f'{escape(x.label)}</text><text class="label" x="13" y="{middle:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 13 {middle:.1f})">{escape(y.label)}</text>'
    )
    words = f"{escape(title)}. {escape(description)}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{words}">'
        f"{''.join(frame)}{''.join(parts)}{labels}</svg>"
    )


def _short(value: float, step: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k".replace("-", "−")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{digits}f}".replace("-", "−")


def _power(power: int) -> str:
    return {0: "1", -1: "0.1", -2: "0.01"}.get(power, f"10{str(power).translate(_SUPERSCRIPT)}")


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
