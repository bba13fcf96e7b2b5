"""A slow, obvious way from decisions to a template: points on the boundary by bisection, each a linear equation.

Suffixes: K template values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def template_from_boundary(
    accepts: Callable[[np.ndarray], bool], accepted_K: np.ndarray, threshold: float, *, num_bits: int, seed: int
) -> tuple[np.ndarray, int]:
    """Template of norm 1 and number of queries: K great circles from an accepted probe, each halved so often.

    On the boundary the score is the threshold, so that B x = threshold * 1 for K points B.
    """
    rng, num_asked, points = np.random.default_rng(seed), 0, []
    for _ in range(len(accepted_K)):
        across_K = rng.standard_normal(len(accepted_K))
        across_K -= (across_K @ accepted_K) * accepted_K
        across_K /= np.linalg.norm(across_K)
        inside, outside = 0.0, np.pi  # the opposite of an accepted probe is refused where thresholds are positive
        for _ in range(num_bits):
            angle = (inside + outside) / 2
            num_asked += 1
            if accepts(np.cos(angle) * accepted_K + np.sin(angle) * across_K):
                inside = angle
            else:
                outside = angle
        points.append(np.cos(inside) * accepted_K + np.sin(inside) * across_K)
    found_K = np.linalg.lstsq(np.array(points), np.full(len(points), threshold), rcond=None)[0]
    return found_K / np.linalg.norm(found_K), num_asked
