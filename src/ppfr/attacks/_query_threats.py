"""The threat model of attacks that do nothing but ask a matcher."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import MatchInterface, RangeError, ShapeError, ThreatModel, ThreatModelError


def queries_threat(*, sees: str, has_public_faces: bool = True) -> ThreatModel:
    """A client of the matcher who presents embeddings of its own making, claims any identity, and sees the answers.

    It knows scheme, threshold and quantisation (Kerckhoffs), holds no subject's key, and has the network, so that it
    can embed faces of its own. It can inject embeddings: presenting faces to a camera, it could reach only those that
    some face has.

    Args:
        sees: "scores" or "decisions".
        has_public_faces: it has faces of other people.
    """
    return ThreatModel(
        name="client that asks at will",
        sees=sees,
        knows_secret=False,
        knows_recogniser=True,
        has_public_faces=has_public_faces,
    )


def check_queries(
    interface: MatchInterface, own_PK: ArrayLike, threat: ThreatModel, *, attack: str
) -> NDArray[np.float64]:
    """The adversary's own templates, once they are found to belong to an interface that its threat model grants.

    Raises:
        ThreatModelError: scores in place of decisions, or decisions in place of scores.
        ShapeError: not (P, K) of the interface, or fewer than 10 rows.
        RangeError: not finite, or not of norm 1.
    """
    if interface.reveals != threat.sees:
        raise ThreatModelError(
            f"{attack} was given an interface that reveals {interface.reveals}; its threat model grants {threat.sees}"
        )
    own = np.asarray(own_PK, dtype=np.float64)
    if own.ndim != 2 or len(own) < 10 or own.shape[1] != interface.dim:
        raise ShapeError(
            f"the adversary's own templates have shape {own.shape}; give (P, {interface.dim}) with P >= 10"
        )
    return unit_templates(own, what="the adversary's own templates")


def unit_templates(rows_NK: NDArray[np.float64], *, what: str) -> NDArray[np.float64]:
    """The rows, if they are finite and of norm 1.

    Raises:
        RangeError: they are not.
    """
    if not np.isfinite(rows_NK).all() or np.abs(np.linalg.norm(rows_NK, axis=1) - 1).max() > 1e-3:
        raise RangeError(f"{what} are not finite, or not of norm 1; divide each by its norm")
    return rows_NK
