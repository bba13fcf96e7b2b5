"""What whoever may ask a matcher makes of its answers: templates recovered within a budget of queries, and judged.

Suffixes: N victims, K template values, D embedding, P faces of the adversary, S subjects, L budgets.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppfr.core import MatchInterface
from ppfr.evaluation._stages import Stage
from ppfr.evaluation._templates._experiment import QueryAttackPlan, QueryRule, TemplateArm
from ppfr.evaluation._templates._session import TemplateSession, cosines, templates_of, unit
from ppfr.evaluation._workspace import Json
from ppfr.metrics import mean_with_interval, threshold_at_far

_MOST_ROLLS = 25


class Queries:
    """The stages of one sitting in which matchers are asked."""

    def __init__(self, session: TemplateSession) -> None:
        self._session, self._experiment = session, session.experiment
        self._thresholds: dict[str, list[float]] = {}

    def stages_of(self, arm: TemplateArm) -> list[Stage]:
        """The attacks on one arm, in the order in which they run."""
        return [
            Stage(
                name=f"ask/{plan.name}",
                title=f"{plan.label} on {arm.label}: {plan.answers}",
                weight=3,
                after=(f"verify/{arm.name}",),
                measure=functools.partial(self._asked, plan),
            )
            for plan in self._experiment.query_attacks
            if plan.arm == arm.name
        ]

    def _asked(self, plan: QueryAttackPlan) -> Json:
        session, arm = self._session, self._experiment.arm(plan.arm)
        people, victims, rows_ND = session.people, self._victims(plan), session.pair_rows()
        keys = [session.keys(arm)[i] for i in victims]
        enrolled_NK, another_NK = (
            templates_of(arm, rows_ND[images_S[victims]], keys) for images_S in (people.enrolled_S, people.another_S)
        )
        starts_NK = None
        if plan.starts_from == "photograph":
            starts_NK = templates_of(arm, rows_ND[people.third_S[victims]], keys)
        threshold, attack = self._thresholds_of(arm)[0], plan.make()
        reveals = plan.granted.sees
        interface = MatchInterface(
            plan.reveal(enrolled_NK, threshold),
            num_targets=len(victims),
            dim=enrolled_NK.shape[1],
            reveals=reveals,
            threshold=threshold if reveals == "decisions" else None,
        )
        own_PK = self._own(arm)
        seed = session.seed("attack", attack.name)
        result = attack.run(interface, own_PK, starts_NK=starts_NK, budgets=plan.budgets, seed=seed)

        def judged(found_NK: np.ndarray) -> list[Json]:
            return self._passing(arm, victims, found_NK, enrolled_NK, another_NK)

        outcome: Json = {
            "num_victims": len(victims),
            "dim": enrolled_NK.shape[1],
            "answers": plan.answers,
            "starts_from": plan.starts_from,
            "by_budget": [
                {
                    "num_queries": budget,
                    "median_asked": float(np.median(asked_N)),
                    "cosine": self._mean(cosines(found_NK, enrolled_NK), victims, is_share=False),
                    "at_fmr": judged(found_NK),
                }
                for budget, found_NK, asked_N in zip(
                    result.budgets, result.templates_LNK, result.num_asked_LN, strict=True
                )
            ],
            "without_queries": judged(np.tile(_most_alike(own_PK, threshold), (len(victims), 1))),
            "photograph": [
                {"fmr": row["fmr"], "accepted": row["enrolled"]}
                for row in judged(another_NK if starts_NK is None else starts_NK)
            ],
        }
        verdict = None if plan.role == "attack" else query_verdict(outcome, plan.role, plan.rule)
        return {"outcome": outcome, "is_met": verdict, "notes": {**result.notes, "num_own": len(own_PK)}}

    def _victims(self, plan: QueryAttackPlan) -> np.ndarray:
        """Indices of people: smaller numbers are among larger ones."""
        order = np.random.default_rng(self._session.seed("query victims")).permutation(self._session.victims())
        if plan.starts_from == "photograph":
            order = order[self._session.people.third_S[order] >= 0]
        return np.asarray(order[: plan.num_victims])

    def _own(self, arm: TemplateArm) -> np.ndarray:
        """(P, K) the adversary's faces as the arm's templates, under keys of its own drawing."""
        images = self._experiment.public_images
        assert images is not None
        first: dict[str, int] = {}
        for index, subject in enumerate(images.subject_ids):
            first.setdefault(subject, index)
        rows_PD = self._session.rows(self._experiment.recogniser, images, sorted(first.values()))
        return templates_of(arm, rows_PD, self._session.other_keys(arm, len(rows_PD), "own faces"))

    def _thresholds_of(self, arm: TemplateArm) -> list[float]:
        """The arm's thresholds at `fmrs`: the recogniser's, or those of mapped templates where the arm has keys.

        Impostor comparisons of mapped templates are of people with the next ones of the list, under the claimed key.
        """
        session, fmrs = self._session, self._experiment.fmrs
        if not arm.is_keyed:
            return [session.threshold(self._experiment.recogniser, fmr) for fmr in fmrs]
        if arm.name not in self._thresholds:
            people, keys = session.people, session.keys(arm)
            first_SD = session.pair_rows()[people.enrolled_S]
            template_SK = templates_of(arm, first_SD, keys)
            impostor = [
                cosines(template_SK, templates_of(arm, np.roll(first_SD, -by, axis=0), keys))
                for by in range(1, min(_MOST_ROLLS, len(first_SD) - 1) + 1)
            ]
            two = people.with_two()
            another = templates_of(arm, session.pair_rows()[people.another_S[two]], [keys[i] for i in two])
            genuine = cosines(template_SK[two], another)
            self._thresholds[arm.name] = [threshold_at_far(genuine, np.concatenate(impostor), fmr) for fmr in fmrs]
        return self._thresholds[arm.name]

    def _passing(
        self,
        arm: TemplateArm,
        victims: np.ndarray,
        found_NK: np.ndarray,
        enrolled_NK: np.ndarray,
        another_NK: np.ndarray,
    ) -> list[Json]:
        """How often what was recovered is accepted: as the enrolled template, and against one of another image."""
        return [
            {
                "fmr": fmr,
                "threshold": threshold,
                "enrolled": self._mean(cosines(found_NK, enrolled_NK) >= threshold, victims),
                "another": self._mean(cosines(found_NK, another_NK) >= threshold, victims),
            }
            for fmr, threshold in zip(self._experiment.fmrs, self._thresholds_of(arm), strict=True)
        ]

    def _mean(self, values_N: np.ndarray, victims: np.ndarray, *, is_share: bool = True) -> Mapping[str, Any]:
        return mean_with_interval(
            values_N.astype(np.float64),
            victims,
            is_share=is_share,
            seed=self._session.seed("bootstrap"),
            num_resamples=self._experiment.num_resamples,
        ).to_dict()


def _most_alike(own_PK: np.ndarray, threshold: float) -> np.ndarray:
    """(K,) what is presented where nothing may be asked: of the own templates and their mean, the one most accepted."""
    candidates = np.concatenate([own_PK, unit(own_PK.mean(axis=0, keepdims=True))])
    accepted_P = [np.count_nonzero(own_PK @ row_K >= threshold) for row_K in candidates]
    return np.asarray(candidates[int(np.argmax(accepted_P))])


def query_rule_in_words(role: str, rule: QueryRule, fmr: float) -> Json:
    """What a control must show, before it has."""
    if role == "positive control":
        words = f"recovers templates of a mean cosine of at least {rule.least_cosine:g} (lower end of the interval)"
        return {"expects": "win", "rule": words, "is_met": None}
    words = (
        f"passes, against another image at FMR {fmr:g}, as no more than {rule.most_times_fmr * fmr:g} of the victims "
        "(lower end), or as no more than whoever asks nothing (its upper end)"
    )
    return {"expects": "chance", "rule": words, "is_met": None}


def query_verdict(outcome: Mapping[str, Any], role: str, rule: QueryRule) -> bool:
    """Whether a control came out as it must, at its last budget."""
    last = outcome["by_budget"][-1]
    if role == "positive control":
        return bool(last["cosine"]["low"] >= rule.least_cosine)
    first, unasked = last["at_fmr"][0], outcome["without_queries"][0]["another"]
    return bool(first["another"]["low"] <= max(rule.most_times_fmr * first["fmr"], unasked["high"]))
