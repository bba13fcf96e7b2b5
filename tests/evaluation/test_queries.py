"""Experiments in which a matcher is asked and pairs are decided under sharing: figures, controls, refusals, page."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_experiment import pairs, people
from toy_templates import mapped, template_experiment, unprotected

from ppfr.attacks import DecisionRecovery, ScoreRecovery, queries_threat
from ppfr.core import OverlapError, ProblemsError, Record, ThreatModelError, check_record
from ppfr.data import PairProtocol
from ppfr.evaluation import QueryAttackPlan, run
from ppfr.evaluation._templates._experiment import QueryRule
from ppfr.evaluation._templates._queries import query_verdict
from ppfr.report import write_report


def scores(references_NK: np.ndarray, threshold: float) -> Any:
    return lambda probes, targets: np.einsum("rk,rk->r", probes, references_NK[targets])


def decisions(references_NK: np.ndarray, threshold: float) -> Any:
    return lambda probes, targets: np.einsum("rk,rk->r", probes, references_NK[targets]) >= threshold


def nothing(references_NK: np.ndarray, threshold: float) -> Any:
    rng = np.random.default_rng(1)
    return lambda probes, targets: rng.standard_normal(len(targets))


def asking(name: str = "by-scores", *, sees: str = "scores", **changes: Any) -> QueryAttackPlan:
    make: Any = ScoreRecovery if sees == "scores" else functools.partial(DecisionRecovery)
    settings: dict[str, Any] = {
        "name": name,
        "label": "Recovery",
        "arm": "plain",
        "answers": f"{sees} of {name}",
        "make": make,
        "reveal": scores if sees == "scores" else decisions,
        "granted": queries_threat(sees=sees),
        "budgets": (2, 60) if sees == "scores" else (5, 300),
        "num_victims": 10,
    }
    return QueryAttackPlan(**{**settings, **changes})


def agreed(pairs: Any, enrolled_NK: np.ndarray, probes_NK: np.ndarray, seed: int) -> dict[str, Any]:
    assert enrolled_NK.shape == probes_NK.shape == (len(pairs), enrolled_NK.shape[1])
    np.testing.assert_allclose(np.linalg.norm(enrolled_NK, axis=1), 1)
    estimate = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 9, "level": 0.95, "method": "", "caveat": ""}
    turned = {"pair": 3, "is_genuine": True, "accepted": False}
    turned |= {"float_score_less_threshold": 0.1, "score_less_threshold": -0.1}
    decided = {"far": 0.1, "threshold": 0.5, "num_differ_from_integers_in_the_clear": 0, "differ_from_float": [turned]}
    query = {"kind": "verify", "num_references": 1, "bytes_sent": [3, 2, 2], "num_rounds": 7}
    found = {"values": "int8", "scale": 9, "ring_bits": 16, "rms_error": 0.1, "largest_error": 0.1, "error_bound": 0.1}
    found |= {"accuracy": estimate, "accuracy_gap_to_float": estimate, "eer": estimate}
    return {
        "protocol": pairs.name,
        "num_pairs": len(pairs),
        "formats": [{**found, "decisions": [decided], "queries": [query]}],
    }


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


def asked(**changes: Any) -> Any:
    attacks = [
        asking("exact", role="positive control"),
        asking("by-scores"),
        asking("nothing", reveal=nothing, role="negative control"),
        asking("by-decisions", sees="decisions"),
        asking("photograph", sees="decisions", starts_from="photograph"),
        asking("of-mapped", arm="mapping"),
    ]
    settings: dict[str, Any] = {
        "arms": (unprotected(), mapped()),
        "attacks": (),
        "open_set": None,
        "pairs": three_each(),
        "query_attacks": attacks,
        "public_images": people(40, 2, seed=9, name="public"),
        "decide_securely": agreed,
        "num_issues": 0,
    }
    return template_experiment(**{**settings, **changes})


def start(experiment: Any, folder: Path) -> Record:
    return run(experiment, out_dir=folder, device="cpu", progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    folder = tmp_path_factory.mktemp("asked")
    return start(asked(), folder), folder


def outcome_of(record: Record, name: str) -> Any:
    return next(attack["outcome"] for attack in record["attacks"] if attack["name"] == name)


def test_scores_give_templates_away_and_controls_hold(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    assert record["status"] == "complete", [s["error"] for s in record["stages"]]
    check_record(record)
    few, many = outcome_of(record, "by-scores")["by_budget"]
    assert many["cosine"]["value"] > 0.999 > few["cosine"]["value"]
    for row, photograph in zip(many["at_fmr"], outcome_of(record, "by-scores")["photograph"], strict=True):
        assert row["enrolled"]["value"] == 1
        assert row["another"]["value"] == photograph["accepted"]["value"], "as good as the enrolled image itself"
    controls = {a["name"]: a["control"]["is_met"] for a in record["attacks"] if a["control"] is not None}
    assert controls == {"exact": True, "nothing": True}
    assert outcome_of(record, "nothing")["by_budget"][-1]["cosine"]["value"] < 0.6


def test_decisions_do_too_and_a_photograph_spares_the_search(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    found, started = (outcome_of(record, name)["by_budget"] for name in ("by-decisions", "photograph"))
    assert found[-1]["at_fmr"][0]["enrolled"]["value"] >= found[0]["at_fmr"][0]["enrolled"]["value"]
    assert started[-1]["cosine"]["value"] > 0.9 and started[0]["median_asked"] <= 5
    assert outcome_of(record, "photograph")["starts_from"] == "photograph"


def test_without_the_key_it_is_the_mapped_template_that_comes_out(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    attack = next(a for a in record["attacks"] if a["name"] == "of-mapped")
    assert attack["secret"] == "unknown" and attack["outcome"]["dim"] == record["arms"][1]["scheme"]["out_dim"]
    assert attack["outcome"]["by_budget"][-1]["cosine"]["value"] > 0.999


def test_re_issues_can_be_left_out_and_pairs_decided_under_sharing(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    assert {stage["name"].split("/")[0] for stage in record["stages"]} == {
        "judge",
        "verify",
        "compare",
        "decide",
        "ask",
    }
    for arm in record["arms"]:
        assert arm["unlinkability"] == [] and arm["renewal"] is None and arm["secure"]["num_pairs"] > 0


def test_the_page_shows_budgets_and_turned_decisions(finished: tuple[Record, Path], tmp_path: Path) -> None:
    _, folder = finished
    page = write_report(folder, tmp_path / "page.html").read_text("utf-8")
    for words in ("Decisions under sharing", "Every decision that rounding turned: 2", "What answers give away"):
        assert words in page
    for words in ("decisions of by-decisions", "60 queries", "Budgets", "Cosine to the enrolled template"):
        assert words in page
    assert "Irreversibility" not in page and "Unlinkability and renewal" not in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"public_images": None}, "no public_images"),
        ({"query_attacks": [asking(arm="else")]}, "there is no arm 'else'"),
        ({"query_attacks": [asking(), asking()]}, "2 attacks are named"),
        ({"query_attacks": [asking(role="boss")]}, "role 'boss'"),
        ({"query_attacks": [asking(num_victims=1)]}, "1 victims"),
        ({"query_attacks": [asking(budgets=(9, 3))]}, "not ascending"),
        ({"num_issues": -1}, "num_issues=-1"),
        ({"pairs": pairs(people(40, 3, seed=1, name="tested"), each=3)}, "third image, which 0 people have"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ProblemsError, match=words):
        start(asked(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_threat_models_and_people_are_held_apart(tmp_path: Path) -> None:
    wrong = dataclasses.replace(asking(), granted=queries_threat(sees="decisions"))
    with pytest.raises(ThreatModelError, match="needs to see 'scores'"):
        start(asked(query_attacks=[wrong]), tmp_path / "a")
    with pytest.raises(OverlapError):
        start(asked(public_images=people(40, 2, seed=1, name="tested")), tmp_path / "b")


def test_controls_can_fail() -> None:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    outcome = {
        "by_budget": [{"cosine": estimate, "at_fmr": [{"fmr": 0.01, "another": estimate}]}],
        "without_queries": [{"another": {"high": 0.3}}],
    }
    assert not query_verdict(outcome, "positive control", QueryRule())
    assert not query_verdict(outcome, "negative control", QueryRule())
    outcome["without_queries"] = [{"another": {"high": 0.45}}]
    assert query_verdict(outcome, "negative control", QueryRule())
    assert query_verdict(outcome, "positive control", QueryRule(least_cosine=0.4))
