"""The threat model of oracle attacks, and the check of what they are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import MatchOracle, ShapeError, ThreatModel, unit_norms

MIN_OWN_TEMPLATES = 10


def oracle_threat(*, sees: type[MatchOracle], has_public_faces: bool = True) -> ThreatModel:
    """A client of a matcher that presents embeddings of its own making, claims any identity, and sees the answers.

    It knows the scheme, the threshold and the quantisation (Kerckhoffs). It holds no subject's key. It has the network,
    so it can embed faces of its own. It can inject embeddings: an adversary who presents faces to a camera is limited
    to embeddings of some face.

    Args:
        sees: `ScoreOracle` or `DecisionOracle`.
        has_public_faces: it has faces of other people.
    """
    return ThreatModel(
        name="client that asks at will",
        sees=sees,
        knows_secret=False,
        knows_recogniser=True,
        has_public_faces=has_public_faces,
    )


def check_own_templates(oracle: MatchOracle, own_PK: ArrayLike) -> NDArray[np.float64]:
    """The adversary's own templates, if they fit the oracle.

    Raises:
        ShapeError: not (P, K) of the oracle, or fewer than 10 rows.
        RangeError: not finite, or not of norm 1.
    """
    own = np.asarray(own_PK, dtype=np.float64)
    if own.ndim != 2 or len(own) < MIN_OWN_TEMPLATES or own.shape[1] != oracle.dim:
        raise ShapeError(
            f"the adversary's own templates have shape {own.shape}; give (P, {oracle.dim}) with "
            f"P >= {MIN_OWN_TEMPLATES}"
        )
    unit_norms(own, "the adversary's own templates")
    return own
