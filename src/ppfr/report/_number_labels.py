"""Number labels of points in a crowded chart, so that points of similar colours can be distinguished."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

_SIZE_PT, _MARKER_PT, _HEIGHT_PT = 11.5, 7.0, 12.0
_DISTANCES_PT, _NUM_DIRECTIONS = (13.0, 20.0, 28.0, 37.0, 47.0), 16


def place_numbers(
    axes: Axes,
    points: Sequence[tuple[str, float, float]],
    *,
    colours: Mapping[str, str],
    avoiding: Sequence[Text] = (),
) -> None:
    """Write each number as close to its point as space allows. A thin line connects distant numbers to their points.

    Args:
        axes: axes on which everything else is drawn. Their limits must not change afterwards.
        points: (number, x, y) in the units of the axes.
        colours: colours named "ink", "soft" and "card".
        avoiding: texts that must not be covered.
    """
    if not points:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout decides where the points are
    scale = 72 / figure.dpi
    at_N2 = axes.transData.transform([(x, y) for _, x, y in points]) * scale
    frame = axes.get_window_extent()
    corners = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]]) * scale
    taken: list[tuple[float, float, float]] = []  # x, y, half the width
    for words in avoiding:
        box = words.get_window_extent()
        taken.append(((box.x0 + box.x1) / 2 * scale, (box.y0 + box.y1) / 2 * scale, box.width / 2 * scale))
    # Start with the most crowded points, which have the fewest free places.
    crowd_N = (np.linalg.norm(at_N2[:, None] - at_N2[None], axis=-1) < 3 * _MARKER_PT).sum(axis=1)
    for row in np.argsort(-crowd_N, kind="stable").tolist():
        number, x, y = points[row]
        half = 3.8 * len(number)
        shift = min(_shifts(), key=lambda s: _cost(at_N2[row] + s, half, at_N2, taken, corners) + 0.02 * math.hypot(*s))
        taken.append((*(at_N2[row] + shift).tolist(), half))
        axes.annotate(
            number,
            (x, y),
            tuple(shift),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_SIZE_PT,
            color=colours["ink"],
            arrowprops={"arrowstyle": "-", "color": colours["soft"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
            if math.hypot(*shift) > _DISTANCES_PT[0]
            else None,
            bbox={"boxstyle": "round,pad=0.08", "facecolor": colours["card"], "edgecolor": "none", "alpha": 0.8},
        )


def _shifts() -> list[np.ndarray]:
    turns = [2 * math.pi * i / _NUM_DIRECTIONS + math.pi / 4 for i in range(_NUM_DIRECTIONS)]
    return [np.array([d * math.cos(a), d * math.sin(a)]) for d in _DISTANCES_PT for a in turns]


def _cost(
    at: np.ndarray, half: float, points_N2: np.ndarray, taken: Sequence[tuple[float, float, float]], frame: np.ndarray
) -> float:
    """Penalty for covering other numbers or points, and for leaving the frame."""
    cost = 0.0
    for x, y, other in taken:
        if abs(at[0] - x) < half + other + 1 and abs(at[1] - y) < _HEIGHT_PT:
            cost += 6
    near_N2 = np.abs(points_N2 - at)
    cost += 4 * int(((near_N2[:, 0] < half + _MARKER_PT - 1) & (near_N2[:, 1] < _HEIGHT_PT / 2 + _MARKER_PT - 2)).sum())
    inside = np.minimum(at - frame[0], frame[1] - at) - (half, _HEIGHT_PT / 2)
    return cost + 20 * int((inside < 0).any())
