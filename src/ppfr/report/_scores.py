"""AdaMixUp's measures and scores of the protections that a record holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ppfr.metrics import HybridScore, PrivacyMeasures, hybrid_scores
from ppfr.report._findings import Part, arms_of, protocol_names, sees_mixed

MASKED_WEIGHT, RECOVERED_WEIGHT = 0.4, 0.6
GAN, LINKAGE = "conditional-gan", "identity-linkage"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measure with its interval, if the record has one, and the number of images or comparisons that it rests on."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, or the value twice."""
        return (
            self.value if self.low is None else self.low,
            self.value if self.high is None else self.high,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoredArm:
    """A protection with its measures S1 to S5 and its scores.

    Attributes:
        total_ends: what the total (mean) comes to with all measures at the lower, and at the upper ends of their
            intervals, while the smallest and the largest of the normalisation set stay where they are.
        judge: name of the recogniser behind S2 and S4.
    """

    arm: Part
    measures: Sequence[Measured]
    score: HybridScore
    total_ends: tuple[float, float]
    judge: str
    is_mixed: bool


def scored_arms(record: Part) -> list[ScoredArm]:
    """Every protection that has all five measures, in the order of the record; none if fewer than two have."""
    found = {arm["name"]: measured for arm in arms_of(record, "protected") if (measured := _measures(record, arm))}
    if len(found) < 2:
        return []
    scores = hybrid_scores(
        {name: _values([m.value for m in measures]) for name, (_, measures) in found.items()},
        masked_weight=MASKED_WEIGHT,
        recovered_weight=RECOVERED_WEIGHT,
    )
    arms = {arm["name"]: arm for arm in record["arms"]}
    spans = _spans([measures for _, measures in found.values()])
    return [
        ScoredArm(
            arm=arms[name],
            measures=measures,
            score=scores[name],
            total_ends=(_total(measures, spans, end=0), _total(measures, spans, end=1)),
            judge=attack["judge"],
            is_mixed=sees_mixed(attack),
        )
        for name, (attack, measures) in found.items()
    ]


def chosen_attack(record: Part, arm: Part, method: str) -> Part | None:
    """The judged attack of a method on an arm: with the secret known if there is such a one, else the only one."""
    found = [
        a
        for a in record["attacks"]
        if a["arm"] == arm["name"] and a["method"] == method and a["role"] == "attack" and a["outcome"] is not None
    ]
    with_secret = [a for a in found if a["secret"] == "known"]  # noqa: S105 (a word of the record)
    if with_secret:
        return with_secret[0]
    return found[0] if len(found) == 1 else None


def _measures(record: Part, arm: Part) -> tuple[Part, list[Measured]] | None:
    attack, utility = chosen_attack(record, arm, GAN), _accuracy_ratio(record, arm)
    recovery = None if attack is None else attack["outcome"]["recovery"]
    if attack is None or utility is None or recovery is None or recovery.get("masked") is None:
        return None
    shown, recovered = recovery["masked"], recovery["recovered"]
    if shown["lpips"] is None or recovered["lpips"] is None:
        return None
    return attack, [
        _as_is(shown["lpips"]),
        _one_less(shown["identity_cosine"]),
        _as_is(recovered["lpips"]),
        _one_less(recovered["identity_cosine"]),
        utility,
    ]


def _accuracy_ratio(record: Part, arm: Part) -> Measured | None:
    """S5; its interval is that of the paired gap, over the baseline's accuracy as measured."""
    first = next(iter(protocol_names(record)), None)
    found = _protocol(arm, first)
    baseline = next((_protocol(a, first) for a in record["arms"] if a["name"] == arm["baseline"]), None)
    if found is None or baseline is None or baseline["accuracy"]["value"] <= 0:
        return None
    below, gap = baseline["accuracy"]["value"], found["gap_to_baseline"]
    return Measured(
        value=found["accuracy"]["value"] / below,
        low=None if gap is None else 1 + gap["low"] / below,
        high=None if gap is None else 1 + gap["high"] / below,
        n=found["accuracy"]["n"],
    )


def _protocol(arm: Part, name: str | None) -> Part | None:
    return next((p for p in arm["protocols"] if p["name"] == name and p["accuracy"] is not None), None)


def _as_is(estimate: Part) -> Measured:
    return Measured(value=estimate["value"], low=estimate["low"], high=estimate["high"], n=estimate["n"])


def _one_less(estimate: Part) -> Measured:
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
