"""Key selection: draws keys until a template resists inversion. Optional; it costs one inversion per candidate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ProtectedTemplate, RangeError, ShapeError, SubjectKey, TemplateMapping, TemplateScheme

Inverter = Callable[[NDArray[np.float32], TemplateMapping], NDArray[np.float64]]
"""(1, K) template values and the mapping of one key -> (1, D) recovered embedding. The caller passes an attack."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SelectedKey:
    """A selected key and the template under it.

    Attributes:
        key: the selected key.
        template: the template of the embedding under this key.
        num_tried: number of keys that were drawn.
        is_below: whether the embedding that the solver recovered from the template is below the inversion threshold.
            False if none of the `max_keys` candidates was; `key` is then the one with the least similar recovered
            embedding.
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
    """Draw keys until the solver does not invert the template under one of them.

    The template under each candidate is inverted with knowledge of the key. The first key is selected for which the
    cosine similarity of recovered and enrolled embedding is below `threshold`, the inversion threshold. This is the
    threshold of the recogniser at a lenient FMR of 20 %, so that the recovered embedding is not accepted even there.

    Privacy:
        The selection makes the key depend slightly on the face. An adversary who knows the rule also knows that this
        solver did not invert the templates, and may use a better one.

    Args:
        scheme: the scheme to enrol in.
        embedding_D: (D,) of L2 norm 1.
        invert: the solver, for example from `ppfr.attacks.MappingInversion`.
        threshold: cosine in [-1, 1], `ppfr.metrics.threshold_at_far` at 0.2 on the recogniser's unprotected scores.
        max_keys: maximum number of candidates.
        new_key: source of candidates, for simulations; None for `scheme.new_key`.

    Raises:
        RangeError: the threshold is not a cosine, or `max_keys` is below 1.
        ShapeError: the solver returned a wrong shape.
        ShapeError, RangeError: `scheme.enrol` rejects the embedding.

    References:
        V. Krivokuca Hahn, J. Maceiras, S. Marcel, arXiv 2605.03857. We know only its abstract and listings of its
        code, which state that keys are selected at the inversion threshold of 20 % FMR. The loop, its stopping rule
        and its fallback are our interpretation.
    """
    if not -1 <= threshold <= 1:
        raise RangeError(
            f"threshold={threshold}; must be a cosine in [-1, 1], for example the recogniser's threshold at FMR 0.2"
        )
    if max_keys < 1:
        raise RangeError(f"max_keys={max_keys}; must be 1 or more")
    best: tuple[float, SubjectKey, ProtectedTemplate] | None = None
    for number in range(1, max_keys + 1):
        key = scheme.new_key() if new_key is None else new_key()
        template = scheme.enrol(embedding_D, key=key)
        recovered = np.asarray(invert(template.values_K[None], scheme.mapping([key])), dtype=np.float64)
        if recovered.shape != (1, scheme.in_dim):
            raise ShapeError(f"the solver returned shape {recovered.shape}; it must return (1, {scheme.in_dim})")
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
