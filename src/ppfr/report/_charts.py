"""Charts as inline SVG, drawn with matplotlib. Text remains text, and colours follow the theme of the page.

Every chart is 420 units wide, which a phone shows at nearly its full size. Shares are drawn in %.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal
from matplotlib.ticker import EngFormatter, MaxNLocator

from ppfr.report._number_labels import place_numbers

_NAMES = ("ink", "soft", "rule", "card", "s0", "s1", "s2", "s3", "s4", "s5")  # custom properties of the style sheet
_COLOURS = {name: f"#fe00{index:02x}" for index, name in enumerate(_NAMES)}  # placeholders for them in matplotlib
_MARKERS = "os^Dvo"
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (2, 1)), (0, (0.5, 1)))
_KEY = 'class="key" width="26" height="16" aria-hidden="true"'
_CHANCE: dict[str, Any] = {"color": _COLOURS["soft"], "linewidth": 1.2, "linestyle": (0, (2.5, 3.3)), "zorder": 1}
_STYLE: dict[str, Any] = {
    "axes.autolimit_mode": "round_numbers",
    "axes.axisbelow": True,
    "axes.edgecolor": _COLOURS["soft"],
    "axes.grid": True,
    "axes.labelcolor": _COLOURS["ink"],
    "axes.labelpad": 7,
    "axes.labelsize": 12,
    "axes.linewidth": 1,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.xmargin": 0,
    "axes.ymargin": 0,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.frameon": False,
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "grid.color": _COLOURS["rule"],
    "grid.linewidth": 1,
    "lines.linewidth": 2.2,
    "svg.fonttype": "none",
    "text.color": _COLOURS["soft"],
    "xtick.bottom": False,
    "xtick.labelcolor": _COLOURS["soft"],
    "xtick.major.pad": 5,
    "ytick.labelcolor": _COLOURS["soft"],
    "ytick.left": False,
    "ytick.major.pad": 5,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A point with intervals, as shares. `series` selects colour and marker; `number` is printed next to the point."""

    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float
    series: int
    label: str
    number: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve. `series` selects colour and dashes."""

    x: Sequence[float]
    y: Sequence[float]
    series: int
    label: str


def trade_off_chart(dots: Sequence[Dot], *, x_label: str, title: str, description: str, chance: float | None) -> str:
    """Accuracy against leakage, with intervals in both directions. `chance` is the leakage at the chance level."""
    with style.context(["default", _STYLE]):
        axes = _axes(x_label, "Accuracy, %", (0, 98), (100, 100))
        is_crowded = any(dot.number for dot in dots)
        for dot in dots:
            sign: dict[str, Any] = {"color": _colour(dot.series), "gid": _gid(dot.label)}
            cross = {**sign, "linewidth": 1.1 if is_crowded else 1.8, "alpha": 0.45 if is_crowded else 0.75}
            axes.hlines(100 * dot.y, 100 * dot.x_low, 100 * dot.x_high, **cross)
            axes.vlines(100 * dot.x, 100 * dot.y_low, 100 * dot.y_high, **cross)
            axes.plot([100 * dot.x], [100 * dot.y], **sign, **_mark(dot.series))
        words = []
        if chance is not None:
            axes.axvline(100 * chance, **_CHANCE)
            words = [axes.annotate("chance", (100 * chance, axes.get_ylim()[0]), (5, 6), textcoords="offset points")]
        places = [(dot.number, 100 * dot.x, 100 * dot.y) for dot in dots if dot.number]
        place_numbers(axes, places, colours=_COLOURS, avoiding=words)
        return _chart(axes, title, description)


def roc_chart(lines: Sequence[Line], *, low: float, title: str, description: str, min_tar: float = 0.9) -> str:
    """True accept rates over false accept rates from `low` to 1. A thin dotted line shows the chance level.

    The axis includes the true accept rate `min_tar`, so that several charts can have the same axis.
    """
    with style.context(["default", _STYLE]):
        axes = _axes("False accept rate", "True accept rate, %", (low, 100 * min_tar), (1, 100))
        axes.set_xscale("log")
        axes.set_xlim(low, 1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        for line in lines:
            axes.plot(line.x, 100 * np.asarray(line.y), gid=_gid(line.label), **_stroke(line.series))
        chance = np.geomspace(max(low, axes.get_ylim()[0] / 100), 1, 40)
        axes.plot(chance, 100 * chance, **_CHANCE)
        return _chart(axes, title, description)


def queries_chart(lines: Sequence[Line], *, title: str, description: str) -> str:
    """Shares over numbers of queries. Each of the few numbers has a marker."""
    with style.context(["default", _STYLE]):
        axes = _axes("Queries per subject", "Impersonation success rate, %", (lines[0].x[0], 0), (lines[0].x[-1], 100))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.minorticks_off()
        for line in lines:
            share = 100 * np.asarray(line.y)
            axes.plot(line.x, share, gid=_gid(line.label), **_stroke(line.series))
            axes.plot(line.x, share, gid=_gid(line.label), **{**_mark(line.series), "markersize": 6})
        return _chart(axes, title, description)


def loss_chart(line: Line, *, title: str, description: str) -> str:
    """Loss over steps."""
    with style.context(["default", _STYLE]):
        axes = _axes("Step", "Loss", (0, line.y[0]))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.plot(line.x, line.y, gid=_gid(line.label), **_stroke(line.series))
        return _chart(axes, title, description)


def shares_chart(bands: Sequence[Line], *, title: str, description: str) -> str:
    """Stacked shares over the run, the first at the bottom. Each `y` has one share per part of the run."""
    with style.context(["default", _STYLE]):
        axes = _axes("Part of the training done, %", "Share of batches, %", (0, 0), (100, 100))
        num = len(bands[0].y)
        edges = np.repeat(np.linspace(0, 100, num + 1), 2)[1:-1]
        below = np.zeros(num)
        for band in bands:
            above = below + 100 * np.asarray(band.y)
            outline = [*np.repeat(below, 2), *np.repeat(above, 2)[::-1]]
            face: dict[str, Any] = {
                "facecolor": _colour(band.series),
                "edgecolor": _COLOURS["card"],
                "linewidth": 0.8,
                "alpha": 0.85,
            }
            axes.fill([*edges, *edges[::-1]], outline, gid=_gid(band.label), **face)
            if above[-1] - below[-1] >= 5:  # a thinner band has no room for its name
                middle = (100, (above[-1] + below[-1]) / 2)
                axes.annotate(
                    band.label, middle, (5, 0), textcoords="offset points", va="center", color=_COLOURS["ink"]
                )
            below = above
        return _chart(axes, title, description)


def colour_of(series: int) -> int:
    """Colour of a series, 0 to 5. Colour 0 is reserved for the first series; the others repeat colours 1 to 5."""
    return 0 if series == 0 else 1 + (series - 1) % 5


@functools.cache
def area_key(series: int) -> str:
    """The legend key of a stacked area."""
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(26 / 72, 16 / 72))
        figure.add_artist(Rectangle((0.2, 0.15), 0.6, 0.7, facecolor=_colour(series), edgecolor="none", alpha=0.85))
        return _inline(figure, _KEY)


@functools.cache
def key(series: int, *, is_line: bool) -> str:
    """The legend key of a series, 26 units wide."""
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(26 / 72, 16 / 72))
        sign = Line2D([0.04, 0.96], [0.5, 0.5], **_stroke(series)) if is_line else Line2D([0.5], [0.5], **_mark(series))
        figure.add_artist(sign)
        return _inline(figure, _KEY)


def _axes(x_label: str, y_label: str, *shown: tuple[float, float]) -> Axes:
    axes = Figure(figsize=(420 / 72, 300 / 72), layout="constrained").subplots()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.locator_params(nbins=6, steps=[1, 2, 5, 10])
    axes.ticklabel_format(useOffset=False)
    axes.patch.set_visible(False)
    axes.update_datalim(shown)
    return axes


def _colour(series: int) -> str:
    return _COLOURS[f"s{colour_of(series)}"]


def _shape(series: int) -> int:
    """Marker and dashes: they change each time a colour is repeated."""
    return (colour_of(series) + max(0, series - 1) // 5) % 6


def _stroke(series: int) -> dict[str, Any]:
    return {"color": _colour(series), "linestyle": _LINES[_shape(series)]}


def _mark(series: int) -> dict[str, Any]:
    """Shape and colour, so that series can be distinguished in print and by colour-blind readers."""
    colour, card, is_hollow = _colour(series), _COLOURS["card"], _shape(series) == 5
    return {
        "linestyle": "none",
        "marker": _MARKERS[_shape(series)],
        "markersize": 11,
        "markerfacecolor": card if is_hollow else colour,
        "markeredgecolor": colour if is_hollow else card,
        "markeredgewidth": 2 if is_hollow else 1,
        "path_effects": [Normal()],  # makes matplotlib draw the marker in place instead of as a reference to an id
    }


def _gid(label: str) -> str:
    return f"title:{label}"


def _chart(axes: Axes, title: str, description: str) -> str:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return _inline(figure, f'class="chart" role="img" aria-label="{escape(title)}. {escape(description)}"')


def _inline(figure: Figure, attributes: str) -> str:
    """The figure as an `svg` element with the colours of the page. It has no ids, which would collide on the page."""
    for artist in figure.findobj():
        artist.set_clip_on(False)  # clips are references to ids; the limits of the axes include everything drawn
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    body = file.getvalue().partition("</defs>")[2]  # the head has a style sheet that would apply to the whole page
    body = re.sub(r"""<g id=(["'])title:([^>]*)\1>""", r"<g><title>\2</title>", body)
    body = re.sub(r"<g id=[^>]*?(/?)>", r"<g\1>", body)
    body = re.sub(r"#fe00([0-9a-f]{2})", lambda found: f"var(--{_NAMES[int(found[1], 16)]})", body)
    width, height = 72 * figure.get_size_inches()
    return f'<svg {attributes} viewBox="0 0 {width:g} {height:g}">{body.strip()}'
