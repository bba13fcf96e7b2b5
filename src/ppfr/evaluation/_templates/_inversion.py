"""What a thief of templates gets back: recovered embeddings, held against the recogniser, another one, and re-issues.

Suffixes: N victims, D embedding, K template values.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ppfr.core import InvalidInputError, Observation, ShapeError, TemplateMapping
from ppfr.evaluation._experiment import Judge
from ppfr.evaluation._stages import Stage
from ppfr.evaluation._templates._experiment import InversionRule, TemplateArm, TemplateAttackPlan
from ppfr.evaluation._templates._recognition import own_threshold
from ppfr.evaluation._templates._session import TemplateSession, cosines, templates_of
from ppfr.evaluation._workspace import Json
from ppfr.metrics import inversion_success, mean_with_interval, unlinkability

_RIDGE = 1e-3
_ROLLS = 10


class GuessedMapping:
    """A `TemplateMapping` under keys that the adversary drew: he who is to do without the real ones gets no others."""

    def __init__(self, mapping: TemplateMapping) -> None:
        self._mapping = mapping

    @property
    def num_rows(self) -> int:
        """N."""
        return self._mapping.num_rows

    @property
    def in_dim(self) -> int:
        """D."""
        return self._mapping.in_dim

    @property
    def out_dim(self) -> int:
        """K."""
        return self._mapping.out_dim

    @property
    def is_deployed(self) -> bool:
        """Never."""
        return False

    def apply(self, embeddings_ND: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, K)."""
        return self._mapping.apply(embeddings_ND)

    def pullback(self, embeddings_ND: np.ndarray, gradient_NK: np.ndarray) -> np.ndarray:
        """(N, D): gradient with respect to the embeddings."""
        return self._mapping.pullback(embeddings_ND, gradient_NK)

    def rows(self, indices: Sequence[int]) -> TemplateMapping:
        """The same for some rows."""
        return GuessedMapping(self._mapping.rows(indices))


class Inversions:
    """The attack stages of one sitting."""

    def __init__(self, session: TemplateSession) -> None:
        self._session, self._experiment = session, session.experiment
        self._map_DE: np.ndarray | None = None

    def stages_of(self, arm: TemplateArm) -> list[Stage]:
        """The attacks on one arm, in the order in which they run."""
        return [
            Stage(
                name=f"invert/{plan.name}",
                title=f"{plan.label} on {arm.label}{_with_keys(arm, plan)}",
                weight=6,
                after=(f"verify/{arm.name}" if arm.selection is None else f"select/{arm.name}",),
                measure=functools.partial(self._invert, plan),
            )
            for plan in self._experiment.attacks
            if plan.arm == arm.name
        ]

    def _invert(self, plan: TemplateAttackPlan) -> Json:
        session, arm = self._session, self._experiment.arm(plan.arm)
        victims = session.victims()
        rows_ND = session.pair_rows()[session.people.enrolled_S[victims]]
        keys = [session.keys(arm)[i] for i in victims]
        template_NK = torch.from_numpy(templates_of(arm, rows_ND, keys).astype(np.float32))
        mapping: TemplateMapping = arm.scheme.mapping(keys)
        if not plan.granted.knows_secret:
            mapping = GuessedMapping(arm.scheme.mapping(session.other_keys(arm, len(victims), "guessed")))
        attack = plan.make()
        seen = Observation(kind="templates", values_NKPQ=template_NK)
        result = attack.run(seen, mapping, seed=session.seed("attack", attack.name))
        if result.embeddings_ND is None:
            raise InvalidInputError(f"attack {plan.name!r} gave no embeddings; only these can be judged here")
        found_ND = np.asarray(result.embeddings_ND, dtype=np.float64)
        if found_ND.shape != rows_ND.shape:
            raise ShapeError(f"attack {plan.name!r} gave shape {found_ND.shape} for victims of shape {rows_ND.shape}")
        outcome = self._outcome(arm, victims, rows_ND, found_ND, result.solved_N)
        if plan.granted.knows_secret and arm.selection is None:
            outcome["re_issue"] = self._against_re_issue(arm, victims, found_ND)
        verdict = None if plan.role == "attack" else inversion_verdict(outcome, plan.role, plan.rule)
        return {"outcome": outcome, "is_met": verdict, "notes": dict(result.notes)}

    def _settings(self) -> dict[str, Any]:
        return {"seed": self._session.seed("bootstrap"), "num_resamples": self._experiment.num_resamples}

    def _outcome(
        self,
        arm: TemplateArm,
        victims: np.ndarray,
        rows_ND: np.ndarray,
        found_ND: np.ndarray,
        solved_N: np.ndarray | None,
    ) -> Json:
        session, recogniser = self._session, self._experiment.recogniser
        another_ND = session.pair_rows()[session.people.another_S[victims]]
        cosine_N = cosines(found_ND, rows_ND)
        return {
            "num_victims": len(victims),
            "cosine": mean_with_interval(cosine_N, victims, **self._settings()).to_dict(),
            "median_cosine": float(np.median(cosine_N)),
            "largest_cosine": float(cosine_N.max()),
            "solved": None if solved_N is None else float(np.mean(solved_N)),
            "at_fmr": [
                self._passing(fmr, recogniser, victims, (found_ND, rows_ND, another_ND), solved_N)
                for fmr in self._experiment.fmrs
            ],
            "transfer": self._transfer(victims, rows_ND, found_ND),
            "re_issue": None,
        }

    def _passing(
        self,
        fmr: float,
        judge: Judge,
        victims: np.ndarray,
        found_plain_another: tuple[np.ndarray, np.ndarray, np.ndarray],
        solved_N: np.ndarray | None = None,
    ) -> Json:
        """How often recovered embeddings are accepted against another image, and plain ones."""
        found_ND, plain_ND, another_ND = found_plain_another
        threshold = self._session.threshold(judge, fmr)

        def success(rows_ND: np.ndarray, solved: np.ndarray | None = None) -> Mapping[str, Any]:
            return inversion_success(
                rows_ND, victims, another_ND, victims, threshold=threshold, solved_N=solved, **self._settings()
            ).to_dict()

        found = success(found_ND)
        return {
            "fmr": fmr,
            "threshold": threshold,
            "success": found["success"],
            "success_if_solved": None if solved_N is None else success(found_ND, solved_N)["success"],
            "other_subject": found["other_subject"],
            "plain": success(plain_ND)["success"],
        }

    def _against_re_issue(self, arm: TemplateArm, victims: np.ndarray, found_ND: np.ndarray) -> Json:
        """The victim was enrolled anew from another image under a fresh key, which the thief holds too."""
        session = self._session
        keys = [session.keys(arm, issue=1)[i] for i in victims]
        renewed_NK = templates_of(arm, session.pair_rows()[session.people.another_S[victims]], keys)

        def scores(by: int) -> np.ndarray:
            """What is recovered of one victim, against the re-issued template of the one who is `by` places on."""
            order = np.roll(np.arange(len(victims)), -by)
            mapped_NK = templates_of(arm, found_ND, [keys[i] for i in order])
            return cosines(mapped_NK, renewed_NK[order])

        mated_N = scores(0)
        link = unlinkability(
            mated_N,
            np.concatenate([scores(by) for by in range(1, min(_ROLLS, len(victims) - 1) + 1)]),
            mated_subjects=victims,
            score_range=(-1.0, 1.0),
            **self._settings(),
        )
        is_accepted_N = (mated_N >= own_threshold(session, arm)).astype(np.float64)
        return {
            "accepted": mean_with_interval(is_accepted_N, victims, is_share=True, **self._settings()).to_dict(),
            "linkability": dict(link.to_dict()),
        }

    # Another recogniser

    def _transfer(self, victims: np.ndarray, rows_ND: np.ndarray, found_ND: np.ndarray) -> Json | None:
        transfer, session = self._experiment.transfer, self._session
        if transfer is None:
            return None
        another_NE = session.pair_rows(transfer.judge)[session.people.another_S[victims]]
        map_DE = self._map()
        rows = found_ND @ map_DE, rows_ND @ map_DE, another_NE
        passing = [self._passing(fmr, transfer.judge, victims, rows) for fmr in self._experiment.fmrs]
        return {"judge": transfer.judge.name, "at_fmr": passing}

    def _map(self) -> np.ndarray:
        """(D, E) ridge regression from the recogniser's embeddings to the other's, on public faces."""
        if self._map_DE is None:
            transfer = self._experiment.transfer
            assert transfer is not None
            images = transfer.public_images
            everything = list(range(len(images)))
            a_PD = self._session.rows(self._experiment.recogniser, images, everything)
            b_PE = self._session.rows(transfer.judge, images, everything)
            gram_DD = a_PD.T @ a_PD
            ridge_DD = _RIDGE * np.trace(gram_DD) / len(gram_DD) * np.eye(len(gram_DD))
            self._map_DE = np.linalg.solve(gram_DD + ridge_DD, a_PD.T @ b_PE)
        return self._map_DE


def inversion_rule_in_words(role: str, rule: InversionRule, fmr: float) -> Json:
    """What a control must show, before it has."""
    if role == "positive control":
        words = (
            f"recovers embeddings of a mean cosine of at least {rule.least_cosine:g} (lower end of the interval) and "
            f"passes as at least {100 * rule.least_share_of_plain:g} % of the victims as whom their plain embeddings "
            f"pass at FMR {fmr:g}"
        )
        return {"expects": "win", "rule": words, "is_met": None}
    words = f"passes as no more than {rule.most_times_fmr * fmr:g} of the victims at FMR {fmr:g} (lower end)"
    return {"expects": "chance", "rule": words, "is_met": None}


def inversion_verdict(outcome: Mapping[str, Any], role: str, rule: InversionRule) -> bool:
    """Whether a control came out as it must."""
    first = outcome["at_fmr"][0]
    if role == "positive control":
        passes = first["success"]["value"] >= rule.least_share_of_plain * first["plain"]["value"]
        return bool(passes and outcome["cosine"]["low"] >= rule.least_cosine)
    return bool(first["success"]["low"] <= rule.most_times_fmr * first["fmr"])


def _with_keys(arm: TemplateArm, plan: TemplateAttackPlan) -> str:
    if not arm.is_keyed:
        return ""
    return ", keys known" if plan.granted.knows_secret else ", keys unknown"
