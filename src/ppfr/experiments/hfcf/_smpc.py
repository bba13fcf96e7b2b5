"""Third part of HFCF: decisions under secret sharing compared with plain ones, and attacks on oracles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from ppfr.assets import data_root
from ppfr.attacks import DecisionRecovery, ScoreRecovery, oracle_threat
from ppfr.core import AttackRole, DecisionOracle, ScoreOracle, derive_seed
from ppfr.data import PairProtocol, StoredImageSet, read_lfw, training_split_for_lfw
from ppfr.evaluation import (
    AccuracyGaps,
    Experiment,
    OracleAttackPlan,
    OracleAttacks,
    OracleRule,
    Reveal,
    SecureDecisions,
    System,
    Verification,
)
from ppfr.experiments._context import ExperimentContext, budget_of
from ppfr.experiments.hfcf._oracles import (
    ScoreRelease,
    fixed_point_scores,
    noisy_scores,
    party_decisions,
    plain_decisions,
    random_decisions,
    random_scores,
    ranks_among,
    ring_decisions,
)
from ppfr.experiments.hfcf._secure_decisions import secure_decisions
from ppfr.experiments.hfcf._templates import FARS, RECOGNISER, keyed_system, plain_system, public_recogniser
from ppfr.secure import FixedPoint
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import SYNTHETIC_SEED, synthetic_protocol
from ppfr.templates import IdentityMapping

_OVERLAP, _SCALE = 4, 1.0  # the most accurate of the settings in `hfcf:mapping`
_NOISE = 0.05  # about half the standard deviation of impostor scores
_NUM_KNOWN = 100
_LONGEST = 5.0
_ANY_LENGTH = 1000.0  # equivalent to any threshold from 1/1000 of the actual one, for probes of norm 1
_UNCHECKED = f"int8 decisions, where nobody checks that probes have norm 1 (up to {_LONGEST:g})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryBudget:
    """Query budgets of a preset.

    Attributes:
        num_targets: target subjects of attacks on score oracles.
        num_by_decisions: target subjects of attacks on decision oracles.
        num_by_parties: target subjects of attacks on decisions by the three parties.
        num_scores: query budgets with score oracles.
        num_decisions: query budgets with decision oracles, for attacks that must first find an accepted probe.
        num_started: query budgets with decision oracles, for attacks that start from an accepted probe.
        max_by_parties: largest of `num_decisions` for decisions by the three parties.
        num_resamples: bootstrap resamples per interval.
        fmrs: false match rates; decisions are at the first.
    """

    num_targets: int
    num_by_decisions: int
    num_by_parties: int
    num_scores: Sequence[int] = (8, 16, 32, 50, 64, 100, 128, 192, 256, 512)
    num_decisions: Sequence[int] = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
    num_started: Sequence[int] = (10, 30, 100, 300, 1000)
    max_by_parties: int = 3000
    num_resamples: int = 1000
    fmrs: Sequence[float] = (1e-3, 1e-4)


QUERY_BUDGETS: Mapping[str, QueryBudget] = MappingProxyType(
    {
        "fast-test": QueryBudget(
            num_targets=12,
            num_by_decisions=6,
            num_by_parties=2,
            num_scores=(8, 64, 300),
            num_decisions=(10, 60),
            num_started=(10, 60),
            max_by_parties=60,
            num_resamples=100,
            fmrs=(1e-1, 1e-2),
        ),
        "laptop": QueryBudget(num_targets=1000, num_by_decisions=300, num_by_parties=20),
        "paper": QueryBudget(
            num_targets=1000, num_by_decisions=1000, num_by_parties=100, max_by_parties=30_000, num_resamples=2000
        ),
    }
)


def smpc(context: ExperimentContext) -> Experiment:
    """Decisions under secret sharing compared with plain ones; templates recovered from scores and decisions."""
    budget = budget_of(QUERY_BUDGETS, context.preset)
    recogniser = public_recogniser(context, RECOGNISER)
    dim = recogniser.embedder.dim
    if context.preset == "fast-test":
        pairs: PairProtocol = synthetic_protocol(num_pairs=120)
        people, public = "synthetic", _one_each(SyntheticFaces(40, 1, seed=SYNTHETIC_SEED, first_subject=3_000_000))
    else:
        pairs, people = read_lfw(data_root(context.data)), "real"
        public = _one_each(training_split_for_lfw(data_root(context.data)))
    plain, mapped = (
        plain_system(recogniser),
        keyed_system(
            IdentityMapping(dim=dim, overlap=_OVERLAP, scale=_SCALE),
            "mapping",
            f"Mapping, o = {_OVERLAP}, scale {_SCALE:g}, key at the client",
            recogniser=recogniser.name,
            baseline="unprotected",
        ),
    )
    plans = [*_on_plain(dim, budget, context.seed, recogniser.name), *_on_mapped(mapped, budget)]
    return Experiment(
        name="hfcf:smpc",
        title="Decisions under sharing, and what answers give away",
        summary=(
            "Three parties decide on shares of embeddings, or of templates under keys that only clients have. Their "
            "decisions are compared with those by float scores. In addition, a client with many queries attacks the "
            "matcher: how many scores, or how many decisions, are needed to impersonate a subject?"
        ),
        preset=context.preset,
        command=context.command,
        seed=context.seed,
        people=people,
        recognisers=[recogniser],
        systems=[plain, mapped],
        measures=[
            Verification(protocols=[pairs], fars=FARS),
            AccuracyGaps(protocols=[pairs]),
            SecureDecisions(
                pairs=pairs, decide=functools.partial(secure_decisions, num_resamples=budget.num_resamples)
            ),
            OracleAttacks(
                pairs=pairs, plans=plans, public_images=public, num_targets=budget.num_targets, fmrs=budget.fmrs
            ),
        ],
        num_resamples=budget.num_resamples,
    )


def _one_each(images: StoredImageSet | SyntheticFaces) -> StoredImageSet:
    """The first image of each person."""
    first: dict[str, int] = {}
    for index, subject in enumerate(images.subject_ids):
        first.setdefault(subject, index)
    return images.subset(sorted(first.values()), name=f"{images.name}-one-each")


# Attacks


def _by_scores(
    name: str,
    answers: str,
    oracle: ScoreRelease,
    *,
    budget: QueryBudget,
    recogniser: str,
    system: str = "unprotected",
    probes: Literal["faces", "directions"] = "faces",
    has_faces: bool = True,
    role: AttackRole = "attack",
) -> OracleAttackPlan:
    return OracleAttackPlan(
        name=f"{name}-{system}",
        label="Recovery from scores",
        system=system,
        recogniser=recogniser,
        rule=OracleRule(fmr=budget.fmrs[0]),
        answers=answers,
        make=lambda options: ScoreRecovery(simulate=oracle.simulate, probes=probes, has_faces=has_faces),
        reveal=oracle.matcher,
        granted=oracle_threat(sees=ScoreOracle, has_public_faces=has_faces),
        query_budgets=budget.num_scores,
        num_targets=budget.num_targets,
        role=role,
    )


def _by_decisions(
    name: str,
    answers: str,
    reveal: Reveal,
    *,
    budget: QueryBudget,
    recogniser: str,
    system: str = "unprotected",
    noise: float = 0.0,
    longest: float = 1.0,
    starts_from: Literal["faces", "photograph"] = "faces",
    role: AttackRole = "attack",
) -> OracleAttackPlan:
    searches = longest == 1 and starts_from == "faces" and role == "attack"
    return OracleAttackPlan(
        name=f"{name}-{system}",
        label="Recovery from decisions",
        system=system,
        recogniser=recogniser,
        rule=OracleRule(fmr=budget.fmrs[0]),
        answers=answers,
        make=lambda options: DecisionRecovery(noise=noise, longest=longest),
        reveal=reveal,
        granted=oracle_threat(sees=DecisionOracle),
        query_budgets=budget.num_decisions if searches else budget.num_started,
        num_targets=budget.num_by_decisions,
        starts_from=starts_from,
        role=role,
    )


def _on_plain(dim: int, budget: QueryBudget, seed: int, recogniser: str) -> list[OracleAttackPlan]:
    """Attacks on every kind of oracle without template protection, including controls."""
    by_scores = functools.partial(_by_scores, budget=budget, recogniser=recogniser)
    by_decisions = functools.partial(_by_decisions, budget=budget, recogniser=recogniser)
    noise = FixedPoint(dim=dim, values="int8").typical_error
    exact, ring = ScoreRelease(), ring_decisions("int8")
    known = ranks_among(_NUM_KNOWN, dim, seed=derive_seed(seed, "known references"))
    one = ranks_among(1, dim, seed=derive_seed(seed, "one known reference"))
    noisy = noisy_scores(_NOISE, seed=derive_seed(seed, "noise of scores"))
    tossed = random_scores(seed=derive_seed(seed, "random scores"))
    coin = random_decisions(seed=derive_seed(seed, "random decisions"))
    by_parties = by_decisions(
        "int8-parties", "int8 decisions by the three parties themselves", party_decisions("int8"), noise=noise
    )
    by_asker = "decisions on float scores, where the asker sets the threshold"
    photograph = "int8 decisions, starting from a photograph of the person"
    control: AttackRole = "positive control"
    return [
        by_scores("exact-axes", "exact scores, principal axes as probes", exact, probes="directions", role=control),
        by_scores("exact-faces", "exact scores, faces as probes", exact),
        by_scores("exact-no-faces", "exact scores, no faces of one's own", exact, probes="directions", has_faces=False),
        by_scores("int8-scores", "int8 scores, faces as probes", fixed_point_scores(dim, "int8")),
        by_scores("noisy-scores", f"scores with noise of {_NOISE:g}, faces as probes", noisy),
        by_scores("ranks", f"the place in a list with {_NUM_KNOWN} of one's own", known),
        by_scores("nearer", "whether it is nearer than one of one's own", one),
        by_scores("random-scores", "random numbers", tossed, role="negative control"),
        by_decisions("float-decisions", "decisions on float scores", plain_decisions),
        by_decisions("int8-decisions", "int8 decisions", ring, noise=noise),
        dataclasses.replace(
            by_parties,
            num_targets=budget.num_by_parties,
            query_budgets=[number for number in budget.num_decisions if number <= budget.max_by_parties],
        ),
        by_decisions("int8-photograph", photograph, ring, noise=noise, starts_from="photograph"),
        by_decisions("int8-any-length", _UNCHECKED, ring, noise=noise, longest=_LONGEST),
        by_decisions("any-threshold", by_asker, plain_decisions, longest=_ANY_LENGTH),
        by_decisions("random-decisions", "yes or no by the toss of a coin", coin, role="negative control"),
    ]


def _on_mapped(system: System, budget: QueryBudget) -> list[OracleAttackPlan]:
    """Attacks on templates under a key that the adversary does not have. They recover the template."""
    assert system.templates is not None
    noise = FixedPoint(dim=system.templates.scheme.out_dim, values="int8").typical_error
    shared: dict[str, Any] = {"budget": budget, "recogniser": system.recogniser, "system": system.name}
    by_key = "own faces under own keys"
    ring = ring_decisions("int8")
    return [
        _by_scores("exact-faces", f"exact scores, {by_key} as probes", ScoreRelease(), **shared),
        _by_decisions("int8-decisions", f"int8 decisions, {by_key} first", ring, noise=noise, **shared),
        _by_decisions("int8-any-length", _UNCHECKED, ring, noise=noise, longest=_LONGEST, **shared),
    ]
