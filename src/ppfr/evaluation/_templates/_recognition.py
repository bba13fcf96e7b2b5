"""What schemes cost in recognition: 1:1 with the key stolen and kept, 1:N with distractors; re-issues and links.

Suffixes: N comparisons or probes, M references, K template values, D embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppfr.core import KEYED_SEARCH, SubjectKey
from ppfr.evaluation._embedding import comparisons_of, verification_figures
from ppfr.evaluation._experiment import Judge
from ppfr.evaluation._stages import Stage
from ppfr.evaluation._templates._experiment import Held, TemplateArm
from ppfr.evaluation._templates._session import KEPT, SCENARIOS, STOLEN, TemplateSession, cosines, templates_of, unit
from ppfr.evaluation._workspace import Json
from ppfr.metrics import (
    Comparisons,
    identification_report,
    mean_with_interval,
    paired_accuracy_gap,
    paired_identification_gaps,
    roc,
    threshold_at_far,
    unlinkability,
)

_HELD: tuple[Held, ...] = ("float32", "int8")
_ROLLS = 10
OWN_FAR = 1e-3
"""The protected system's own threshold, at which old templates are presented to it, lies at this FAR."""


class Recognition:
    """The stages of judge and arms."""

    def __init__(self, session: TemplateSession) -> None:
        self._session, self._experiment = session, session.experiment

    def judge_stages(self) -> list[Stage]:
        """The recognisers without protection: first, since all others rest on them."""
        transfer = self._experiment.transfer
        judges = [self._experiment.recogniser, *([] if transfer is None else [transfer.judge])]
        return [
            Stage(
                name=f"judge/{judge.name}",
                title=f"Embed all images and measure {judge.label} without protection",
                weight=40,
                after=(),
                measure=functools.partial(self._judge, judge),
            )
            for judge in judges
            if self._experiment.pairs is not None
        ]

    def _judge(self, judge: Judge) -> Json:
        session, pairs = self._session, self._experiment.pairs
        assert pairs is not None
        a_N, b_N = self._positions()
        rows_ND = session.pair_rows(judge)
        scores_N = cosines(rows_ND[a_N], rows_ND[b_N])
        return {
            "protocols": [verification_figures(self._experiment, pairs, comparisons_of(pairs, scores_N))],
            "thresholds": [dict(row) for row in session.thresholds(judge)],
        }

    def stages_of(self, arm: TemplateArm) -> list[Stage]:
        """The stages of one arm, in the order in which they run."""

        def stage(
            kind: str, words: str, measure: Callable[[TemplateArm], Json], *, weight: float, after: Sequence[str] = ()
        ) -> Stage:
            return Stage(
                name=f"{kind}/{arm.name}",
                title=f"{words} {arm.label}",
                weight=weight,
                after=tuple(after),
                measure=functools.partial(measure, arm),
            )

        found = []
        judge = f"judge/{self._experiment.recogniser.name}"
        if arm.selection is not None:
            return [stage("select", "Select the victims' keys for", self._select, weight=4, after=[judge])]
        if self._experiment.pairs is not None:
            verify = f"verify/{arm.name}"
            found.append(stage("verify", "Verify 1:1 with", self._verify, weight=1, after=[judge]))
            if arm.baseline is not None:
                both = [verify, f"verify/{arm.baseline}"]
                found.append(stage("compare", "Compare with its baseline:", self._compare, weight=1, after=both))
            if self._experiment.num_issues:
                found.append(stage("unlink", "Link templates of", self._unlink, weight=0.2, after=[judge]))
                found.append(stage("renew", "Re-issue templates of", self._renew, weight=0.5, after=[verify]))
            if self._experiment.decide_securely is not None and arm.role != "control":
                found.append(stage("decide", "Decide under sharing with", self._decide, weight=2, after=[verify]))
        if self._experiment.open_set is not None:
            after = [] if arm.baseline is None else [f"identify/{arm.baseline}"]
            found.append(stage("identify", "Search 1:N with", self._identify, weight=8, after=after))
        return found

    # 1:1

    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        pairs = self._experiment.pairs
        assert pairs is not None
        used = pairs.used()
        return np.searchsorted(used, pairs.first), np.searchsorted(used, pairs.second)

    def _people_compared(self) -> tuple[np.ndarray, np.ndarray]:
        pairs = self._experiment.pairs
        assert pairs is not None
        ids, place = pairs.images.subject_ids, {s: i for i, s in enumerate(self._session.people.subjects)}
        return (
            np.array([place[ids[index]] for index in pairs.first.tolist()]),
            np.array([place[ids[index]] for index in pairs.second.tolist()]),
        )

    def _scores(self, arm: TemplateArm, scenario: str, *, issue: int = 0) -> np.ndarray:
        """(N,) the first image is enrolled under its person's key; the second is mapped under the scenario's."""
        return cosines(*self._compared(arm, scenario, issue=issue))

    def _compared(self, arm: TemplateArm, scenario: str, *, issue: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) enrolled templates, and the probes that they are compared with."""
        rows_ND, keys = self._session.pair_rows(), self._session.keys(arm, issue=issue)
        (a_N, b_N), (claimed_N, own_N) = self._positions(), self._people_compared()
        template_NK = templates_of(arm, rows_ND[a_N], [keys[i] for i in claimed_N])
        used_N = claimed_N if scenario == STOLEN else own_N
        return template_NK, templates_of(arm, rows_ND[b_N], [keys[i] for i in used_N])

    def _decide(self, arm: TemplateArm) -> Json:
        """Whoever claims an identity maps the probe under its key; an impostor is one who has stolen it."""
        pairs, decide = self._experiment.pairs, self._experiment.decide_securely
        assert pairs is not None and decide is not None
        enrolled_NK, probes_NK = self._compared(arm, STOLEN)
        return {"secure": dict(decide(pairs, enrolled_NK, probes_NK, self._session.seed("bootstrap")))}

    def _verify(self, arm: TemplateArm) -> Json:
        pairs = self._experiment.pairs
        assert pairs is not None
        found: list[Json] = []
        for scenario in SCENARIOS:
            if scenario == KEPT and not arm.is_keyed:  # without a key both are one
                scores_N = self._session.workspace.read_scores(arm.name, _slug(STOLEN))
                figures = {**found[0]}
            else:
                scores_N = self._scores(arm, scenario)
                figures = verification_figures(self._experiment, pairs, comparisons_of(pairs, scores_N))
            self._session.workspace.write_scores(arm.name, _slug(scenario), scores_N)
            found.append({**figures, "name": f"{pairs.name}, {scenario}"})
        return {"protocols": found}

    def _select(self, arm: TemplateArm) -> Json:
        return {"selection": self._session.selected(arm)[1]}

    def _comparisons(self, arm_name: str, scenario: str) -> Comparisons:
        pairs = self._experiment.pairs
        assert pairs is not None
        return comparisons_of(pairs, self._session.workspace.read_scores(arm_name, _slug(scenario)))

    def _compare(self, arm: TemplateArm) -> Json:
        pairs = self._experiment.pairs
        assert pairs is not None and arm.baseline is not None
        gaps = {}
        for scenario in SCENARIOS:
            gap = paired_accuracy_gap(
                self._comparisons(arm.name, scenario),
                self._comparisons(arm.baseline, scenario),
                seed=self._session.seed("bootstrap"),
                num_resamples=self._experiment.num_resamples,
            )
            gaps[f"{pairs.name}, {scenario}"] = gap.to_dict()
        return {"gaps": gaps}

    # Unlinkability and renewal

    def _unlink(self, arm: TemplateArm) -> Json:
        people, rows_ND = self._session.people, self._session.pair_rows()
        two = people.with_two()
        old, new = ([self._session.keys(arm, issue=issue)[i] for i in two] for issue in (0, 1))
        first_NK = templates_of(arm, rows_ND[people.enrolled_S[two]], old)
        found = []
        for capture, images_S in (("same", people.enrolled_S), ("another", people.another_S)):
            second_NK = templates_of(arm, rows_ND[images_S[two]], new)
            link = unlinkability(
                cosines(first_NK, second_NK),
                np.concatenate([cosines(first_NK, np.roll(second_NK, by, axis=0)) for by in range(1, _rolls(two) + 1)]),
                mated_subjects=two,
                score_range=(-1.0, 1.0),
                seed=self._session.seed("bootstrap"),
                num_resamples=self._experiment.num_resamples,
            )
            found.append({"capture": capture, **link.to_dict()})
        return {"unlinkability": found}

    def _renew(self, arm: TemplateArm) -> Json:
        people, rows_ND = self._session.people, self._session.pair_rows()
        two, threshold = people.with_two(), own_threshold(self._session, arm)
        issues, templates = [], []
        for issue in (0, 1):
            keys = self._session.keys(arm, issue=issue)
            templates.append(templates_of(arm, rows_ND[people.enrolled_S[two]], [keys[i] for i in two]))
        share = mean_with_interval(
            (cosines(*templates) >= threshold).astype(np.float64),
            two,
            seed=self._session.seed("bootstrap"),
            num_resamples=self._experiment.num_resamples,
            is_share=True,
        )
        pairs = self._experiment.pairs
        assert pairs is not None
        for issue in range(1, self._experiment.num_issues + 1):
            scores_N = self._scores(arm, STOLEN, issue=issue)
            curve = roc(scores_N[pairs.is_genuine], scores_N[~pairs.is_genuine])
            issues.append({"eer": curve.eer(), "tar": curve.tar_at_far(OWN_FAR)})
        return {
            "renewal": {
                "num_issues": self._experiment.num_issues,
                "num_comparisons": len(pairs),
                "far": OWN_FAR,
                "eer": [row["eer"] for row in issues],
                "tar_at_far": [row["tar"] for row in issues],
                "old_template_accepted": share.to_dict(),
            }
        }

    # 1:N

    def _identify(self, arm: TemplateArm) -> Json:
        protocol = self._experiment.open_set
        assert protocol is not None
        used, ids = protocol.used(), np.asarray(protocol.images.subject_ids)
        rows_ND = self._session.rows(self._experiment.recogniser, protocol.images, used.tolist())
        probe_N = np.concatenate([protocol.mated, protocol.unmated])
        references_MD = rows_ND[np.searchsorted(used, protocol.references)]
        probes_ND = rows_ND[np.searchsorted(used, probe_N)]
        subjects = ids[probe_N], ids[protocol.references]
        found = []
        for scenario, values, scores_NM in _searches(arm, references_MD, probes_ND, *subjects, session=self._session):
            if arm.baseline is None and (scenario, values) == (KEYED_SEARCH, "float32"):
                self._session.workspace.write_scores(arm.name, _slug(KEYED_SEARCH), scores_NM.astype(np.float32))
            found.append({"scenario": scenario, "values": values, **self._searched(arm, scores_NM, *subjects)})
        return {"identification": found}

    def _searched(self, arm: TemplateArm, scores_NM: np.ndarray, probes: np.ndarray, gallery: np.ndarray) -> Json:
        settings: dict[str, Any] = {
            "fpirs": self._experiment.fpirs,
            "seed": self._session.seed("bootstrap"),
            "num_resamples": self._experiment.num_resamples,
        }
        report = identification_report(scores_NM, probes, gallery, ranks=(1,), **settings).to_dict()
        gaps = None
        if arm.baseline is not None:
            plain_NM = self._session.workspace.read_scores(arm.baseline, _slug(KEYED_SEARCH))
            gaps = paired_identification_gaps(scores_NM, plain_NM, probes, gallery, **settings).to_dict()
        return {**report, "gap_to_baseline": gaps}


def own_threshold(session: TemplateSession, arm: TemplateArm) -> float:
    """Where the protected system accepts, with the key stolen, at `OWN_FAR` of the protocol's impostors."""
    pairs = session.experiment.pairs
    assert pairs is not None
    scores_N = session.workspace.read_scores(arm.name, _slug(STOLEN))
    return threshold_at_far(scores_N[pairs.is_genuine], scores_N[~pairs.is_genuine], OWN_FAR)


def _searches(
    arm: TemplateArm,
    references_MD: np.ndarray,
    probes_ND: np.ndarray,
    probes: np.ndarray,
    gallery: np.ndarray,
    *,
    session: TemplateSession,
) -> list[tuple[str, str, np.ndarray]]:
    """(scenario, how values are held, (N, M) scores) of everything that is searched under an arm."""
    keys = session.other_keys(arm, len(gallery), "gallery")
    found: list[tuple[str, str, np.ndarray]] = []
    if arm.matcher is None:
        found.append((KEYED_SEARCH, "float32", _slow_search(arm, references_MD, probes_ND, keys)))
    else:
        for held in _HELD:
            matcher = arm.matcher(references_MD.astype(np.float32), keys, held)
            found.append((KEYED_SEARCH, held, matcher.score_matrix(probes_ND.astype(np.float32))))
    if not arm.is_keyed:
        return found
    template_MK = templates_of(arm, references_MD, keys)
    strangers = session.other_keys(arm, len(probes), "strangers")
    place = {subject: index for index, subject in enumerate(gallery.tolist())}
    stolen_N = np.random.default_rng(session.seed("templates", "stolen")).integers(len(gallery), size=len(probes))
    for scenario in (KEPT, STOLEN):
        used = [
            keys[place[subject]]
            if subject in place
            else strangers[row]
            if scenario == KEPT
            else keys[int(stolen_N[row])]
            for row, subject in enumerate(probes.tolist())
        ]
        scores_NM = np.clip(templates_of(arm, probes_ND, used) @ template_MK.T, -1.0, 1.0)
        found.append((scenario, "float32", scores_NM))
    return found


def _slow_search(
    arm: TemplateArm, references_MD: np.ndarray, probes_ND: np.ndarray, keys: Sequence[SubjectKey]
) -> np.ndarray:
    """(N, M) by a loop over identities: the probes are mapped under each one's key in turn."""
    scores_NM = np.empty((len(probes_ND), len(keys)))
    for column, key in enumerate(keys):
        mapping = arm.scheme.mapping([key])
        template_1K = unit(mapping.apply(references_MD[column : column + 1]))
        mapped_NK = unit(mapping.rows([0] * len(probes_ND)).apply(probes_ND))
        scores_NM[:, column] = np.clip(mapped_NK @ template_1K[0], -1.0, 1.0)
    return scores_NM


def _rolls(rows: np.ndarray) -> int:
    return min(_ROLLS, len(rows) - 1)


def _slug(scenario: str) -> str:
    return scenario.replace(" ", "-")
