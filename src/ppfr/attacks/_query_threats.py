"""The threat model of attacks that do nothing but ask a matcher."""

from __future__ import annotations

from ppfr.core import MatchInterface, ShapeError, ThreatModel, ThreatModelError


def queries_threat(*, sees: str, has_public_faces: bool = True) -> ThreatModel:
    """A client of the matcher who presents embeddings of its own making, claims any identity, and sees the answers.

    It knows scheme, threshold and quantisation (Kerckhoffs), holds no subject's key, and has the network, so that it can
    embed faces of its own. It can inject embeddings: presenting faces to a camera, it could reach only those that some
    face has.

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


def check_interface(interface: MatchInterface, threat: ThreatModel, dim: int, *, attack: str) -> None:
    """Refuse an interface that tells something else than the threat model says, or is for other templates.

    Raises:
        ThreatModelError: scores in place of decisions, or decisions in place of scores.
        ShapeError: templates of another length than the adversary's own.
    """
    if interface.reveals != threat.sees:
        raise ThreatModelError(
            f"{attack} was given an interface that reveals {interface.reveals}; its threat model grants {threat.sees}"
        )
    if interface.dim != dim:
        raise ShapeError(f"the interface takes probes of {interface.dim} values, the adversary's own have {dim}")
