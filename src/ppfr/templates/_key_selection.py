"""Choosing keys whose templates resist inversion: costs a solve a candidate, so it is optional."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ProtectedTemplate, RangeError, ShapeError, SubjectKey, TemplateMapping, TemplateScheme

Inverter = Callable[[NDArray[np.float32], TemplateMapping], NDArray[np.float64]]
"""(1, K) template values and the mapping of one key -> (1, D) recovered embedding; an attack, handed in."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SelectedKey:
    """A key, the template made under it, and how the choice went.

    Attributes:
        key: the chosen key.
        template: the embedding's template under it.
        num_tried: how many keys were drawn.
        is_below: what the solver recovered from the template lies below the inversion threshold. False where
            `max_keys` were tried in vain; then `key` is the one whose template gave the least similar embedding.
    """

    key: SubjectKey
    template: ProtectedTemplate
    num_tried: int
    is_below: bool

    def __repr__(self) -> str:
        return f"SelectedKey(num_tried={self.num_tried}, is_below={self.is_below}, key=<redacted>)"


def select_key(
    scheme: TemplateScheme,
    embedding_D: NDArray[np.float32],
    *,
    invert: Inverter,
    threshold: float,
    max_keys: int = 10,
    new_key: Callable[[], SubjectKey] | None = None,
) -> SelectedKey:
    """Draw keys until the template under one resists the solver.

    Each candidate's template is inverted with the key known. The first one is kept whose recovered embedding has a
    cosine to the enrolled one below `threshold`, the inversion threshold: that of the recogniser at a lenient FMR of
    20 %, so that what is recovered would not even pass there.

    The choice makes keys of one person depend on the face a little: an adversary who knows the rule learns that the
    templates he finds are ones that this solver did not invert, and may bring a better solver.

    Args:
        scheme: the scheme to enrol in.
        embedding_D: (D,) of L2 norm 1.
        invert: the solver, as `ppfr.attacks.MappingInversion` gives one.
        threshold: cosine in [-1, 1], `ppfr.metrics.threshold_at_far` at 0.2 of the recogniser's plain scores.
        max_keys: candidates to try before the best of them is taken.
        new_key: where candidates come from, for simulations; None for `scheme.new_key`.

    Raises:
        RangeError: a threshold that is no cosine, or fewer than one key.
        ShapeError: the solver gave something other than one embedding.
        ShapeError, RangeError: an embedding that `scheme.enrol` refuses.

    References:
        V. Krivokuca Hahn, J. Maceiras, S. Marcel, arXiv 2605.03857, known to us from its abstract and from listings of
        its code: that keys are selected at the inversion threshold of 20 % FMR. The loop here, its stop and its
        fallback are our reading.
    """
    if not -1 <= threshold <= 1:
        raise RangeError(f"threshold={threshold} is no cosine; give the recogniser's threshold at an FMR of 0.2")
    if max_keys < 1:
        raise RangeError(f"max_keys={max_keys}; try at least one")
    best: tuple[float, SubjectKey, ProtectedTemplate] | None = None
    for number in range(1, max_keys + 1):
        key = scheme.new_key() if new_key is None else new_key()
        template = scheme.enrol(embedding_D, key=key)
        recovered = np.asarray(invert(template.values_K[None], scheme.mapping([key])), dtype=np.float64)
        if recovered.shape != (1, scheme.in_dim):
            raise ShapeError(f"the solver gave shape {recovered.shape}; it must give (1, {scheme.in_dim})")
        cosine = _cosine(recovered[0], np.asarray(embedding_D, dtype=np.float64))
        if best is None or cosine < best[0]:
            best = cosine, key, template
        if cosine < threshold:
            return SelectedKey(key=key, template=template, num_tried=number, is_below=True)
    assert best is not None  # at least one key was tried
    return SelectedKey(key=best[1], template=best[2], num_tried=max_keys, is_below=False)


def _cosine(a_D: NDArray[np.float64], b_D: NDArray[np.float64]) -> float:
    length = float(np.linalg.norm(a_D) * np.linalg.norm(b_D))
    return float(a_D @ b_D) / length if length > 0 and np.isfinite(length) else 0.0
