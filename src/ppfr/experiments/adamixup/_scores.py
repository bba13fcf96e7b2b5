"""Measures and scores of the AdaMixUp paper for the protected systems of a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ppfr.experiments.adamixup._hybrid_scores import HybridScore, PrivacyMeasures, hybrid_scores
from ppfr.report import Entry, RecordView, sees_mixed

MASKED_WEIGHT, RECOVERED_WEIGHT = 0.4, 0.6
TOTAL_SCORE, PRIVACY_SCORE, ACCURACY_SCORE = "total score", "privacy score", "accuracy score"
GAN, LINKAGE = "conditional-gan", "identity-linkage"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measure with its interval, if the record has one, and its number of images or comparisons."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; without an interval, the value twice."""
        return (
            self.value if self.low is None else self.low,
            self.value if self.high is None else self.high,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSystem:
    """A protected system with its measures S1 to S5 and its scores.

    Attributes:
        system: its entry in the record.
        measures: S1 to S5.
        score: its scores among the compared systems.
        total_ends: the total (mean) with all measures at the lower ends, and at the upper ends, of their intervals. The
            smallest and the largest value of the normalisation set are kept.
        recogniser: name of the evaluation recogniser of S2 and S4.
        is_mixed: whether S1 to S4 are of mixed training images.
    """

    system: Entry
    measures: Sequence[Measured]
    score: HybridScore
    total_ends: tuple[float, float]
    recogniser: str
    is_mixed: bool


def scored_systems(view: RecordView) -> list[ScoredSystem]:
    """Protected systems with all five measures, in the order of the record; empty if there are fewer than two."""
    found = {s["name"]: measured for s in view.protected if (measured := _measures(view, s)) is not None}
    if len(found) < 2:
        return []
    scores = hybrid_scores(
        {name: _values([m.value for m in measures]) for name, (_, measures) in found.items()},
        masked_weight=MASKED_WEIGHT,
        recovered_weight=RECOVERED_WEIGHT,
    )
    spans = _spans([measures for _, measures in found.values()])
    return [
        ScoredSystem(
            system=view.system(name),
            measures=measures,
            score=scores[name],
            total_ends=(_total(measures, spans, end=0), _total(measures, spans, end=1)),
            recogniser=attack["recogniser"],
            is_mixed=sees_mixed(attack),
        )
        for name, (attack, measures) in found.items()
    ]


def chosen_attack(view: RecordView, kind: str, system: Entry, method: str) -> tuple[Entry, Entry] | None:
    """(attack, row) of an attack method on a system: the attack that knows the secret, or the only one."""
    found = [
        (attack, row)
        for attack, row in view.outcomes(kind, system["name"])
        if attack["method"] == method and attack["role"] == "attack"
    ]
    with_secret = [pair for pair in found if pair[0]["secret"] == "known"]  # noqa: S105 (a word of the record)
    if with_secret:
        return with_secret[0]
    return found[0] if len(found) == 1 else None


def _measures(view: RecordView, system: Entry) -> tuple[Entry, list[Measured]] | None:
    chosen, utility = chosen_attack(view, "image_recovery", system, GAN), _accuracy_ratio(view, system)
    if chosen is None or utility is None or chosen[1]["masked"] is None:
        return None
    attack, row = chosen
    shown, recovered = row["masked"], row["recovered"]
    if shown["lpips"] is None or recovered["lpips"] is None:
        return None
    return attack, [
        _as_is(shown["lpips"]),
        _one_less(shown["identity_cosine"]),
        _as_is(recovered["lpips"]),
        _one_less(recovered["identity_cosine"]),
        utility,
    ]


def _accuracy_ratio(view: RecordView, system: Entry) -> Measured | None:
    """S5. Its interval is that of the paired gap, divided by the measured accuracy of the baseline."""
    if not view.protocols() or system["baseline"] is None:
        return None
    protocol = view.protocols()[0]
    found, baseline = (view.verification(name, *protocol) for name in (system["name"], system["baseline"]))
    if found is None or baseline is None or found["accuracy"] is None or baseline["accuracy"] is None:
        return None
    below, gap = baseline["accuracy"]["value"], view.gap(system["name"], *protocol)
    if below <= 0:
        return None
    return Measured(
        value=found["accuracy"]["value"] / below,
        low=None if gap is None else 1 + gap["low"] / below,
        high=None if gap is None else 1 + gap["high"] / below,
        n=found["accuracy"]["n"],
    )


def _as_is(estimate: Entry) -> Measured:
    return Measured(value=estimate["value"], low=estimate["low"], high=estimate["high"], n=estimate["n"])


def _one_less(estimate: Entry) -> Measured:
    return Measured(value=1 - estimate["value"], low=1 - estimate["high"], high=1 - estimate["low"], n=estimate["n"])


def _values(values: Sequence[float]) -> PrivacyMeasures:
    s1, s2, s3, s4, s5 = values
    return PrivacyMeasures(s1=s1, s2=s2, s3=s3, s4=s4, s5=s5)


def _fused(values: Sequence[float]) -> Mapping[str, float]:
    s1, s2, s3, s4, s5 = values
    return {"pp": MASKED_WEIGHT * (s1 + s2) + RECOVERED_WEIGHT * (s3 + s4), "cls": s5}


def _spans(measures: Sequence[Sequence[Measured]]) -> Mapping[str, tuple[float, float]]:
    fused = [_fused([m.value for m in row]) for row in measures]
    return {kind: (min(f[kind] for f in fused), max(f[kind] for f in fused)) for kind in ("pp", "cls")}


def _total(measures: Sequence[Measured], spans: Mapping[str, tuple[float, float]], *, end: int) -> float:
    at = _fused([m.ends[end] for m in measures])
    placed = [
        1.0 if high - low <= 1e-9 * max(abs(low), abs(high)) else 0.5 + 0.5 * (at[kind] - low) / (high - low)
        for kind, (low, high) in spans.items()
    ]
    return sum(placed) / len(placed)
