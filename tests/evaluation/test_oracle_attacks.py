"""Oracle attacks and secure decisions: figures, controls and refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppfr.attacks import DecisionRecovery, ScoreRecovery, oracle_threat, templates_threat
from ppfr.core import (
    DecisionOracle,
    MatchOracle,
    OverlapError,
    ProblemsError,
    Record,
    ScoreOracle,
    ThreatModelError,
    check_record,
)
from ppfr.data import PairProtocol
from ppfr.evaluation import (
    AccuracyGaps,
    DecisionsAtFar,
    FormatFigures,
    OracleAcceptance,
    OracleAttackPlan,
    OracleAttackRow,
    OracleAttacks,
    OracleBudget,
    OracleRule,
    QueryTraffic,
    SecureDecisions,
    TurnedDecision,
    Verification,
)
from ppfr.metrics import Estimate
from support.records import entry, row, rows, stage_states
from support.toy_experiment import pairs, people, start
from support.toy_templates import mapped, template_experiment, unprotected


def scores(references_NK: np.ndarray, threshold: float) -> Any:
    return lambda probes, targets: np.einsum("rk,rk->r", probes, references_NK[targets])


def decisions(references_NK: np.ndarray, threshold: float) -> Any:
    return lambda probes, targets: np.einsum("rk,rk->r", probes, references_NK[targets]) >= threshold


def nothing(references_NK: np.ndarray, threshold: float) -> Any:
    rng = np.random.default_rng(1)
    return lambda probes, targets: rng.standard_normal(len(targets))


def oracle_plan(name: str = "by-scores", *, sees: type[MatchOracle] = ScoreOracle, **changes: Any) -> OracleAttackPlan:
    attack: Any = ScoreRecovery if sees is ScoreOracle else DecisionRecovery
    settings: dict[str, Any] = {
        "name": name,
        "label": "Recovery",
        "system": "plain",
        "answers": f"{sees.kind} of {name}",
        "make": lambda options: attack(),
        "reveal": scores if sees is ScoreOracle else decisions,
        "granted": oracle_threat(sees=sees),
        "recogniser": "recogniser",
        "rule": OracleRule(fmr=1e-1),
        "query_budgets": (2, 60) if sees is ScoreOracle else (5, 300),
        "num_targets": 10,
    }
    return OracleAttackPlan(**{**settings, **changes})


def agreed(protocol: PairProtocol, enrolled_NK: np.ndarray, probes_NK: np.ndarray, seed: int) -> list[FormatFigures]:
    assert enrolled_NK.shape == probes_NK.shape == (len(protocol), enrolled_NK.shape[1])
    np.testing.assert_allclose(np.linalg.norm(enrolled_NK, axis=1), 1)
    one = Estimate(value=1.0, low=1.0, high=1.0, n=9, method="")
    turned = TurnedDecision(
        pair=3, is_genuine=True, accepted=False, float_score_less_threshold=0.1, score_less_threshold=-0.1
    )
    return [
        FormatFigures(
            values="int8",
            scale=9,
            ring_bits=16,
            rms_error=0.1,
            largest_error=0.1,
            error_bound=0.1,
            accuracy=one,
            eer=one,
            accuracy_gap_to_float=one,
            decisions=[
                DecisionsAtFar(
                    far=0.1, threshold=0.5, num_differ_from_integers_in_the_clear=0, differ_from_float=[turned]
                )
            ],
            queries=[QueryTraffic(kind="verify", num_references=1, bytes_sent=[3, 2, 2], num_rounds=7)],
        )
    ]


def three_each() -> PairProtocol:
    """40 people with three images: the first against the second, the second against the third and the next person's."""
    first = np.arange(40) * 3
    return PairProtocol(
        name="toy",
        images=people(40, 3, seed=1, name="tested"),
        first=np.concatenate([first, first + 1, first]),
        second=np.concatenate([first + 1, first + 2, np.roll(first, -1)]),
        is_genuine=np.arange(120) < 80,
        fold=np.tile(np.arange(40) % 4, 3),
    )


def oracle_experiment(protocol: PairProtocol | None = None, **changes: Any) -> Any:
    tested = protocol or three_each()
    settings: dict[str, Any] = {
        "pairs": tested,
        "plans": [
            oracle_plan("exact", role="positive control"),
            oracle_plan("by-scores"),
            oracle_plan("nothing", reveal=nothing, role="negative control"),
            oracle_plan("by-decisions", sees=DecisionOracle),
            oracle_plan("photograph", sees=DecisionOracle, starts_from="photograph"),
            oracle_plan("of-mapped", system="mapping"),
        ],
        "public_images": people(40, 2, seed=9, name="public"),
        "num_targets": 12,
        "fmrs": (1e-1, 1e-2),
    }
    return template_experiment(
        systems=(unprotected(), mapped()),
        measures=[
            Verification(protocols=[tested], fars=(1e-1,)),
            AccuracyGaps(protocols=[tested]),
            SecureDecisions(pairs=tested, decide=agreed),
            OracleAttacks(**{**settings, **changes}),
        ],
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return start(oracle_experiment(), tmp_path_factory.mktemp("oracles"))


def outcome(record: Record, name: str) -> dict[str, Any]:
    return row(record, "oracle_attack", attack=name)


def test_scores_recover_templates_and_controls_pass(finished: Record) -> None:
    assert finished["status"] == "complete", [s["error"] for s in finished["stages"]]
    check_record(finished)
    few, many = outcome(finished, "by-scores")["by_budget"]
    assert many["cosine"]["value"] > 0.999 > few["cosine"]["value"]
    for found, photograph in zip(many["at_fmr"], outcome(finished, "by-scores")["photograph"], strict=True):
        assert found["enrolled"]["value"] == 1
        assert found["another"]["value"] == photograph["accepted"]["value"], "as good as the enrolled image itself"
    verdicts = {run["attack"]: run["is_control_met"] for run in rows(finished, "attack_run")}
    assert {name for name, verdict in verdicts.items() if verdict} == {"exact", "nothing"}
    assert outcome(finished, "nothing")["by_budget"][-1]["cosine"]["value"] < 0.6


def test_decisions_recover_templates_and_a_photograph_saves_the_search(finished: Record) -> None:
    found, started = (outcome(finished, name)["by_budget"] for name in ("by-decisions", "photograph"))
    assert found[-1]["at_fmr"][0]["enrolled"]["value"] >= found[0]["at_fmr"][0]["enrolled"]["value"]
    assert started[-1]["cosine"]["value"] > 0.9 and started[0]["median_asked"] <= 5
    assert outcome(finished, "photograph")["starts_from"] == "photograph"


def test_mapped_template_is_recovered_without_the_key(finished: Record) -> None:
    assert entry(finished, "attacks", "of-mapped")["secret"] == "unknown"
    found = outcome(finished, "of-mapped")
    assert found["dim"] == entry(finished, "systems", "mapping")["templates"]["out_dim"]
    assert found["by_budget"][-1]["cosine"]["value"] > 0.999


def test_only_the_stages_of_the_measures_run(finished: Record) -> None:
    kinds = {name.split("/")[0] for name in stage_states(finished)}
    assert kinds == {"recogniser", "threshold", "evaluate", "compare", "decide", "ask"}
    assert {found["system"] for found in rows(finished, "secure_decisions")} == {"plain", "mapping"}
    assert "renewal" not in finished["results"] and "unlinkability" not in finished["results"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plans": [oracle_plan(system="else")]}, "there is no system 'else'"),
        ({"plans": [oracle_plan(), oracle_plan()]}, "2 attacks are named"),
        ({"plans": [oracle_plan(role="boss")]}, "role 'boss'"),
        ({"plans": [oracle_plan(num_targets=1)]}, "1 target subjects"),
        ({"plans": [oracle_plan(query_budgets=(9, 3))]}, r"\[9, 3\] are not ascending"),
        ({"plans": [oracle_plan(granted=templates_threat(knows_keys=False))]}, "sees Templates"),
        ({"protocol": pairs(people(40, 3, seed=1, name="tested"), each=3)}, "third image, which 0 people have"),
    ],
)
def test_invalid_plans_are_rejected_before_anything_runs(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=words):
        start(oracle_experiment(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_threat_models_are_enforced_and_shared_people_rejected(tmp_path: Path) -> None:
    wrong = dataclasses.replace(oracle_plan(), granted=oracle_threat(sees=DecisionOracle))
    with pytest.raises(ThreatModelError, match="needs to see ScoreOracle, but is granted DecisionOracle"):
        start(oracle_experiment(plans=[wrong]), tmp_path / "a")
    with pytest.raises(OverlapError):
        start(oracle_experiment(public_images=people(40, 2, seed=1, name="tested")), tmp_path / "b")


def test_controls_can_fail() -> None:
    def found(unqueried_high: float) -> OracleAttackRow:
        half = Estimate(value=0.5, low=0.4, high=0.6, n=9, method="")
        unqueried = Estimate(value=0.2, low=0.1, high=unqueried_high, n=9, method="")
        accepted = OracleAcceptance(fmr=0.01, threshold=0.5, enrolled=half, another=half)
        return OracleAttackRow(
            attack="a",
            dim=3,
            answers="",
            starts_from="faces",
            by_budget=[OracleBudget(num_queries=1, median_asked=1.0, cosine=half, at_fmr=[accepted])],
            without_queries=[dataclasses.replace(accepted, another=unqueried)],
            photograph=[],
        )

    rule = OracleRule(fmr=0.01)
    assert not rule.is_met(found(0.3), "positive control")
    assert not rule.is_met(found(0.3), "negative control")
    assert rule.is_met(found(0.45), "negative control")
    assert OracleRule(fmr=0.01, min_cosine=0.4).is_met(found(0.3), "positive control")
