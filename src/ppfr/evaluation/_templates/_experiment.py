"""What an experiment on templates is: schemes side by side on one recogniser's embeddings, and who attacks them.

It stands beside `Experiment`, which is on masked images, and shares its judges, controls, record and report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppfr.core import (
    Ask,
    ImageSet,
    Matcher,
    QueryAttack,
    SubjectKey,
    TemplateAttack,
    TemplateScheme,
    ThreatModel,
)
from ppfr.evaluation._experiment import Judge

if TYPE_CHECKING:
    from ppfr.data import OpenSetProtocol, PairProtocol

DrawKeys = Callable[[int, np.random.Generator], Sequence[SubjectKey]]
"""(number, rng) -> so many keys of the simulated subjects."""

Held = Literal["float32", "int8"]
"""How a matcher holds templates."""

MakeMatcher = Callable[[np.ndarray, Sequence[SubjectKey], Held], Matcher]
"""((M, D) references, M keys, how templates are held) -> a matcher that maps a probe under every identity's own key."""

Reveal = Callable[[np.ndarray, float], Ask]
"""((N, K) templates of the targets, the threshold) -> what the matcher answers to whoever asks."""

DecideSecurely = Callable[["PairProtocol", np.ndarray, np.ndarray, int], Mapping[str, Any]]
"""(protocol, (N, K) enrolled templates, (N, K) probes, seed) -> secure decisions beside plain ones, for the record."""

ChooseKey = Callable[[np.ndarray, float, np.random.Generator], tuple[SubjectKey, int, bool]]
"""((D,) embedding, inversion threshold, rng) -> a key, how many were tried, whether it lies below the threshold."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeySelection:
    """Keys are chosen when a person is enrolled, so that a solver fails on that template.

    Attributes:
        choose: does it for one person.
        fmr: the inversion threshold is the recogniser's at this false match rate.
        in_words: the rule, for the report.
    """

    choose: ChooseKey
    in_words: str
    fmr: float = 0.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateArm:
    """One template protection under test.

    Attributes:
        name: short and unique, as in "mapping-o2".
        label: for tables.
        role: "baseline" (embeddings as they are), "protected", or "control" (templates that say nothing).
        scheme: makes templates.
        draw_keys: keys of simulated subjects from the run's seed; real ones come from the operating system.
        is_keyed: templates depend on the key; False for the controls.
        selection: how keys are chosen, or None for keys as drawn. Choosing costs a solve a candidate, so it is done
            for the victims alone, and such an arm is attacked and nothing else.
        matcher: makes the arm's own 1:N matcher; None for a plain loop over identities, which is slow.
        baseline: name of the arm that recognition is compared with, or None.
    """

    name: str
    label: str
    role: str
    scheme: TemplateScheme
    draw_keys: DrawKeys
    is_keyed: bool = True
    selection: KeySelection | None = None
    matcher: MakeMatcher | None = None
    baseline: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InversionRule:
    """When a control of an inversion counts as passed.

    Attributes:
        least_cosine: a positive control recovers embeddings whose mean cosine to the enrolled ones is at least this
            (lower end of the interval).
        least_share_of_plain: and passes as at least this share of the victims as whom their plain embeddings pass.
        most_times_fmr: a negative control passes as no more of them than this many times the false match rate (lower
            end of the interval).
    """

    least_cosine: float = 0.99
    least_share_of_plain: float = 0.9
    most_times_fmr: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateAttackPlan:
    """One attack on one arm's templates under one threat model.

    Attributes:
        name: short and unique, as in "cosine-known-mapping-o2".
        label: for tables; the same for one solver on all arms.
        arm: name of the arm that is attacked.
        make: makes a fresh attack.
        granted: what this adversary knows. With `knows_secret` it holds the subjects' keys, else it draws its own.
        role: "attack", "positive control" (the baseline: must win) or "negative control" (must sit at chance).
        rule: when a control counts as passed.
    """

    name: str
    label: str
    arm: str
    make: Callable[[], TemplateAttack]
    granted: ThreatModel
    role: str = "attack"
    rule: InversionRule = InversionRule()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueryRule:
    """When a control of an attack by queries counts as passed, at its last budget and the first false match rate.

    Attributes:
        least_cosine: a positive control recovers templates whose mean cosine to the enrolled ones is at least this
            (lower end of the interval).
        most_times_fmr: a negative control passes, against another image, as no more of the victims than this many times
            the false match rate (lower end of the interval), or than an adversary that asks nothing (upper end).
    """

    least_cosine: float = 0.99
    most_times_fmr: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QueryAttackPlan:
    """One attack on one arm's matcher by whoever may ask it, with no key and no template.

    Attributes:
        name: short and unique, as in "exact-scores-unprotected".
        label: for tables.
        arm: name of the arm whose matcher is asked.
        answers: what the matcher answers, in words.
        make: makes a fresh attack.
        reveal: the matcher; its decisions are at the arm's threshold of the first of `fmrs`.
        granted: what this adversary knows; says whether answers are scores or decisions.
        budgets: numbers of queries a person, ascending.
        num_victims: people attacked, of the experiment's victims.
        starts_from: "faces" of other people, or a "photograph" of the person; then only people with three images are
            attacked, of which it is the third.
        role: "attack", "positive control" (answers that say all) or "negative control" (answers that say nothing).
        rule: when a control counts as passed.
    """

    name: str
    label: str
    arm: str
    answers: str
    make: Callable[[], QueryAttack]
    reveal: Reveal
    granted: ThreatModel
    budgets: Sequence[int]
    num_victims: int
    starts_from: Literal["faces", "photograph"] = "faces"
    role: str = "attack"
    rule: QueryRule = QueryRule()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfer:
    """Whether what was recovered passes at another recogniser too: its embeddings are guessed by a linear map.

    Attributes:
        judge: that recogniser.
        public_images: faces that the map is fitted on; shares nobody with the victims.
    """

    judge: Judge
    public_images: ImageSet


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateExperiment:
    """All that a run needs; a variant is `dataclasses.replace`. At least one of `pairs` and `open_set` is there.

    Attributes:
        name: as in "hfcf:mapping".
        title: heading of the report.
        summary: one or two sentences for its head.
        preset: name of the preset, or "".
        command: the command line that runs this.
        seed: root of every draw.
        people: "real" or "synthetic".
        recogniser: plain image -> the embedding that is protected.
        arms: the schemes; baselines before those that are compared with them.
        pairs: 1:1 protocol; unlinkability, renewal and attacks are measured on its people too. None for 1:N alone.
        open_set: 1:N protocol, or None.
        attacks: in the order in which they run; they need `pairs`.
        query_attacks: by whoever may ask an arm's matcher, after `attacks`; they need `pairs` and `public_images`.
        public_images: faces of the adversaries that ask, the first image of each person; shares nobody with `pairs`.
        decide_securely: decides the pairs of every arm but controls under sharing, the key at the client; None leaves
            it out.
        num_victims: people attacked, of those with two images or more.
        transfer: another recogniser, or None.
        num_issues: how often everybody is enrolled anew, each time under fresh keys; 0 leaves out re-issues and
            unlinkability.
        fars: false accept rates of 1:1.
        fmrs: the recogniser's false match rates at whose thresholds a recovered embedding counts as passing.
        fpirs: false positive identification rates of 1:N.
        num_resamples: bootstrap resamples behind each interval.
        batch_size: images embedded at a time; no figure depends on it.
        adds_mirrored: embed each image and its mirror image, and add the embeddings.
    """

    name: str
    title: str
    summary: str = ""
    preset: str = ""
    command: str
    seed: int
    people: str
    recogniser: Judge
    arms: Sequence[TemplateArm]
    pairs: PairProtocol | None = None
    open_set: OpenSetProtocol | None = None
    attacks: Sequence[TemplateAttackPlan] = ()
    query_attacks: Sequence[QueryAttackPlan] = ()
    public_images: ImageSet | None = None
    decide_securely: DecideSecurely | None = None
    num_victims: int = 0
    transfer: Transfer | None = None
    num_issues: int = 5
    fars: Sequence[float] = (1e-2, 1e-3)
    fmrs: Sequence[float] = (1e-3, 1e-4)
    fpirs: Sequence[float] = (1e-2, 1e-3)
    num_resamples: int = 1000
    batch_size: int = 64
    adds_mirrored: bool = False

    def arm(self, name: str) -> TemplateArm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def all_attacks(self) -> list[TemplateAttackPlan | QueryAttackPlan]:
        """Those on templates, then those by queries."""
        return [*self.attacks, *self.query_attacks]
