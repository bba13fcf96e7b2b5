"""Oracle attacks: exact where scores determine the template, at chance where answers are random."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.attacks import DecisionRecovery, ScoreRecovery, cosine_scores, oracle_threat
from ppfr.core import (
    DecisionOracle,
    InvalidInputError,
    OracleAttack,
    RangeError,
    ScoreOracle,
    ShapeError,
    ThreatModelError,
)
from reference.boundary_points import template_from_boundary
from support.documents import run_python

DIM, NUM = 24, 12
THRESHOLD = 0.4


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def unit_rows(num, dim=DIM, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((num, dim)))


def scores_of(rows, answer_of=lambda scores: scores):
    def answer(probes, targets):
        return answer_of(np.einsum("rk,rk->r", probes, rows[targets]))

    return ScoreOracle(answer, num_targets=len(rows), dim=rows.shape[1])


def decisions_of(rows, threshold=THRESHOLD, decide=None):
    def answer(probes, targets):
        return np.einsum("rk,rk->r", probes, rows[targets]) >= threshold

    return DecisionOracle(decide or answer, num_targets=len(rows), dim=rows.shape[1], threshold=threshold)


def cosines(result, rows):
    np.testing.assert_allclose(np.linalg.norm(result.templates_LNK, axis=2), 1, atol=1e-9)
    return np.einsum("lnk,nk->ln", result.templates_LNK, rows)


# Scores


@pytest.mark.parametrize("options", [{}, {"probes": "faces"}, {"has_faces": False}])
def test_as_many_scores_as_values_recover_the_template_exactly(options):
    rows, own = unit_rows(NUM), unit_rows(150, seed=1)
    oracle = scores_of(rows)
    attack = ScoreRecovery(**options)
    result = attack.run(oracle, own, query_budgets=[4, 12, DIM, DIM + 9], seed=1)
    found = cosines(result, rows)
    assert found[2:].min() > 1 - 1e-9
    # of a random direction, a span of q dimensions holds sqrt(q / K)
    assert found[0].mean() == pytest.approx(np.sqrt(4 / DIM), abs=0.12)
    assert found[1].mean() == pytest.approx(np.sqrt(12 / DIM), abs=0.1)
    assert oracle.num_queries_N.tolist() == [DIM + 9] * NUM
    assert result.num_queries_LN[:, 0].tolist() == [4, 12, DIM, DIM + 9]
    assert isinstance(attack, OracleAttack)


def test_few_faces_suffice_for_exact_scores():
    rows, own = unit_rows(NUM), unit_rows(10, seed=1)
    found = cosines(ScoreRecovery().run(scores_of(rows), own, query_budgets=[DIM + 2], seed=1), rows)
    assert found.min() > 1 - 1e-6


def test_faces_of_other_people_improve_recovery_from_few_scores():
    """If templates lie near a subspace of 4 dimensions, 5 scores nearly suffice."""
    rng = np.random.default_rng(5)
    mixing = rng.standard_normal((4, DIM))
    rows, own = (
        unit(rng.standard_normal((num, 4)) @ mixing + 0.05 * rng.standard_normal((num, DIM))) for num in (NUM, 200)
    )
    with_faces = cosines(ScoreRecovery().run(scores_of(rows), own, query_budgets=[5], seed=1), rows)
    without = cosines(ScoreRecovery(has_faces=False).run(scores_of(rows), own, query_budgets=[5], seed=1), rows)
    assert with_faces.min() > 0.95 > 0.8 > without.mean()


def test_rounding_and_noise_are_learned_from_a_copy_of_the_matcher():
    rows, own = unit_rows(NUM), unit_rows(400, seed=1)
    rng = np.random.default_rng(3)
    for answer_of in (lambda s: np.round(10 * s), lambda s: s + 0.02 * rng.standard_normal(s.shape), lambda s: s > 0):
        simulate = lambda p, t, answer_of=answer_of: answer_of(cosine_scores(p, t))  # noqa: E731
        attack = ScoreRecovery(simulate=simulate, probes="faces")
        result = attack.run(scores_of(rows, answer_of), own, query_budgets=[30, 120], seed=1)
        found = cosines(result, rows).mean(axis=1)
        assert found[1] > 0.85 and found[1] > found[0] - 0.02, found
        assert result.notes["cosine_held_out_at_last_budget"] == pytest.approx(found[1], abs=0.1)


def test_random_scores_give_chance_level():
    rows, own = unit_rows(300), unit_rows(200, seed=1)
    rng = np.random.default_rng(2)
    for answer_of in (lambda s: rng.standard_normal(s.shape), lambda s: np.full(s.shape, 0.3)):
        found = cosines(ScoreRecovery().run(scores_of(rows, answer_of), own, query_budgets=[DIM], seed=1), rows)
        assert abs(found.mean()) < 5 / np.sqrt(300 * DIM)


# Decisions


def test_decisions_recover_the_template_and_queries_are_counted():
    rows, own = unit_rows(NUM), unit_rows(300, seed=1)
    oracle = decisions_of(rows)
    result = DecisionRecovery().run(oracle, own, query_budgets=[1, 50, 150, 400], seed=1)
    found = cosines(result, rows)
    assert found[-1].min() > 0.99 and found[2].mean() > 0.85
    assert (result.num_queries_LN <= np.array([1, 50, 150, 400])[:, None]).all()
    assert np.array_equal(oracle.num_queries_N, result.num_queries_LN[-1])
    assert result.notes["share_that_accepted"] == 1
    again = DecisionRecovery().run(decisions_of(rows), own, query_budgets=[1, 50, 150, 400], seed=1)
    assert np.array_equal(again.templates_LNK, result.templates_LNK), "the seed determines the result"


def test_estimate_at_a_budget_does_not_depend_on_later_budgets():
    rows, own = unit_rows(NUM), unit_rows(300, seed=1)
    long = DecisionRecovery().run(decisions_of(rows), own, query_budgets=[40, 90, 200], seed=1)
    short = DecisionRecovery().run(decisions_of(rows[:1]), own, query_budgets=[40, 90], seed=1)
    assert long.num_queries_LN[1, 0] == short.num_queries_LN[1, 0] == 90
    # the first target is alone in its block here, so its random directions differ; its accuracy does not
    assert abs(cosines(long, rows)[1, 0] - cosines(short, rows[:1])[1, 0]) < 0.15


def test_first_acceptance_takes_one_over_the_false_match_rate():
    rows, own = unit_rows(400, seed=7), unit_rows(1000, seed=1)
    rate = float((unit_rows(2000, seed=8) @ unit_rows(2000, seed=9).T >= 0.5).mean())
    assert 0.003 < rate < 0.02
    budgets = [round(0.2 / rate), round(1 / rate)]
    result = DecisionRecovery().run(decisions_of(rows, 0.5), own, query_budgets=budgets, seed=1)
    # geometric: after n probes a share 1 - (1 - rate)^n has accepted one
    for level, budget in enumerate(budgets):
        accepted = np.mean(cosines(result, rows)[level] >= 0.5)
        expected = 1 - (1 - rate) ** budget
        assert abs(accepted - expected) < 4 * np.sqrt(expected * (1 - expected) / len(rows)) + 0.02


def test_photograph_or_probes_of_any_norm_need_no_search():
    rows, own = unit_rows(NUM), unit_rows(300, seed=1)
    beside = unit(rows + 0.9 * unit_rows(NUM, seed=5))
    started = DecisionRecovery().run(
        decisions_of(rows, 0.72), own, starts_NK=beside, query_budgets=[1, 80, 300], seed=1
    )
    is_accepted = np.einsum("nk,nk->n", beside, rows) >= 0.72
    assert 0 < is_accepted.mean() < 1
    assert started.notes["share_that_accepted"] == is_accepted.mean()
    np.testing.assert_allclose(started.templates_LNK[-1][~is_accepted], beside[~is_accepted])
    assert started.num_queries_LN[-1][~is_accepted].tolist() == [1] * (~is_accepted).sum()
    assert cosines(started, rows)[-1][is_accepted].min() > 0.98
    free = DecisionRecovery(longest=1000).run(decisions_of(rows, 0.9), own, query_budgets=[60, 250], seed=1)
    assert cosines(free, rows)[0].mean() > 0.7 and cosines(free, rows)[1].min() > 0.98


def test_bisection_of_boundary_points_needs_more_queries_than_the_filter():
    """K boundary points determine the template; the filter is closer with half the queries."""
    rows, own = unit_rows(4), unit_rows(300, seed=1)
    beside = unit(rows + 0.8 * unit_rows(4, seed=5))
    assert (np.einsum("nk,nk->n", beside, rows) >= THRESHOLD).all()

    def by_bisection(num_bits):
        found = [
            template_from_boundary(lambda p, t=t: p @ t >= THRESHOLD, b, THRESHOLD, num_bits=num_bits, seed=1)
            for t, b in zip(rows, beside, strict=True)
        ]
        return np.array([f @ t for (f, _), t in zip(found, rows, strict=True)]), found[0][1]

    exact, num_exact = by_bisection(40)
    assert exact.min() > 1 - 1e-6 and num_exact == 40 * DIM
    rough, num_rough = by_bisection(6)
    filtered = DecisionRecovery(settled_below=1e-9).run(
        decisions_of(rows), own, starts_NK=beside, query_budgets=[num_rough // 2, num_rough], seed=1
    )
    assert (cosines(filtered, rows).min(axis=1) > rough.min()).all()


@pytest.mark.parametrize("answer", ["yes", "no", "coin"])
def test_constant_or_random_decisions_give_chance_level(answer):
    rows, own = unit_rows(60), unit_rows(100, seed=1)
    rng = np.random.default_rng(0)
    decide = {
        "yes": lambda p, t: np.ones(len(t), dtype=bool),
        "no": lambda p, t: np.zeros(len(t), dtype=bool),
        "coin": lambda p, t: rng.random(len(t)) < 0.5,
    }[answer]
    result = DecisionRecovery().run(decisions_of(rows, decide=decide), own, query_budgets=[30, 120], seed=1)
    found = cosines(result, rows)
    assert np.isfinite(found).all() and abs(found.mean(axis=1)).max() < 6 / np.sqrt(60 * DIM)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(2, 20), st.floats(0.05, 0.95), st.integers(0, 99))
def test_small_oracles_of_any_size_give_finite_templates(num, dim, threshold, seed):
    rows, own = unit_rows(num, dim, seed), unit_rows(11, dim, seed + 1)
    budgets = [1, 7, 19]
    for result in (
        DecisionRecovery(noise=0.01).run(decisions_of(rows, threshold), own, query_budgets=budgets, seed=seed),
        ScoreRecovery(probes="faces").run(scores_of(rows), own, query_budgets=budgets, seed=seed),
    ):
        assert result.templates_LNK.shape == (3, num, dim)
        assert np.isfinite(cosines(result, rows)).all()
        assert (result.num_queries_LN <= np.array(budgets)[:, None]).all()


def test_code_of_the_documentation_page_runs():
    names = run_python("docs/methods/score-recovery.md")
    assert names["found"].templates_LNK.shape == (1, 5, 64)


# Threat models and bad input


def test_threat_models_are_enforced_and_configuration_is_json():
    for attack, sees in ((ScoreRecovery(), ScoreOracle), (DecisionRecovery(), DecisionOracle)):
        assert attack.needs == oracle_threat(sees=sees)
        assert "each probe that it presents" in attack.needs.in_words()
        json.dumps(attack.public_config())
    assert not ScoreRecovery(has_faces=False).needs.has_public_faces
    rows, own = unit_rows(3), unit_rows(20, seed=1)
    with pytest.raises(ThreatModelError, match=r"given DecisionOracle, but .* grants ScoreOracle"):
        ScoreRecovery().run(decisions_of(rows), own, query_budgets=[4], seed=1)
    with pytest.raises(ThreatModelError, match=r"given ScoreOracle, but .* grants DecisionOracle"):
        DecisionRecovery().run(scores_of(rows), own, query_budgets=[4], seed=1)


@pytest.mark.parametrize("attack", [ScoreRecovery(), DecisionRecovery()])
def test_invalid_input_is_rejected_before_any_query(attack):
    rows, own = unit_rows(3), unit_rows(20, seed=1)
    oracle = scores_of(rows) if attack.needs.sees is ScoreOracle else decisions_of(rows)

    def run(own=own, query_budgets=(4,)):
        attack.run(oracle, own, query_budgets=query_budgets, seed=1)

    for bad, error in (
        (own[:9], ShapeError),
        (own[:, 1:], ShapeError),
        (2 * own, RangeError),
        (own * np.nan, RangeError),
    ):
        with pytest.raises(error):
            run(bad)
    for budgets in ([], [0], [4, 4], [5, 4]):
        with pytest.raises(RangeError, match=re.escape(str(budgets))):
            run(query_budgets=budgets)
    assert oracle.num_queries_N.sum() == 0, "refused before any query"


def test_starts_of_wrong_shape_or_not_finite_are_rejected():
    rows, own = unit_rows(3), unit_rows(20, seed=1)
    for starts, error in ((rows[:2], ShapeError), (rows[:, 1:], ShapeError), (rows * np.inf, RangeError)):
        with pytest.raises(error):
            DecisionRecovery().run(decisions_of(rows), own, starts_NK=starts, query_budgets=[4], seed=1)


def test_arguments_out_of_range_are_rejected():
    for options in ({"noise": -1}, {"longest": 0.5}, {"settled_below": 0}):
        with pytest.raises(RangeError):
            DecisionRecovery(**options)
    with pytest.raises(InvalidInputError):
        ScoreRecovery(probes="words")
    with pytest.raises(InvalidInputError):
        ScoreRecovery(probes="faces", has_faces=False)


def test_oracle_checks_queries_counts_them_and_shows_no_template():
    rows = unit_rows(3)
    oracle = decisions_of(rows)
    for probes, targets, error in (
        (rows[:, 1:], [0, 1, 2], ShapeError),
        (rows, [0, 1], ShapeError),
        (rows * np.nan, [0, 1, 2], RangeError),
        (rows, [0, 1, 3], RangeError),
    ):
        with pytest.raises(error):
            oracle.query(probes, targets)
    assert oracle.num_queries_N.sum() == 0
    assert oracle.query(np.empty((0, DIM)), []).shape == (0,)
    assert oracle.query_all(rows[:2]).shape == (3, 2) and oracle.num_queries_N.tolist() == [2, 2, 2]
    assert oracle.threshold == THRESHOLD and repr(oracle).count("array") == 0
    for num_targets, dim in ((0, 3), (3, 0)):
        with pytest.raises(RangeError, match=f"num_targets={num_targets} and dim={dim}"):
            ScoreOracle(lambda p, t: t, num_targets=num_targets, dim=dim)
