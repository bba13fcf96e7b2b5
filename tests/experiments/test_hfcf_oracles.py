"""The oracles that attacks query return what real matchers return, including the three parties."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr import secure
from ppfr.attacks import DecisionRecovery
from ppfr.core import DecisionOracle, InputCheckError
from ppfr.experiments.hfcf._oracles import (
    ScoreRelease,
    fixed_point_scores,
    noisy_scores,
    party_decisions,
    plain_decisions,
    random_decisions,
    ranks_among,
    ring_decisions,
)
from ppfr.secure import FixedPoint, ThreePartyMatcher
from ppfr.secure._input_check import InputCheck

DIM = 16


def unit_rows(num, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "oracle", [ScoreRelease(), fixed_point_scores(DIM, "int8"), ranks_among(5, DIM, seed=1), noisy_scores(0.0, seed=1)]
)
def test_simulated_copy_returns_what_the_matcher_returns(oracle):
    references, probes = unit_rows(7), unit_rows(5, seed=1)
    query = oracle.matcher(references, 0.5)
    returned = query(np.repeat(probes, 7, axis=0), np.tile(np.arange(7), 5)).reshape(5, 7).T
    np.testing.assert_allclose(oracle.simulate(probes, references), returned, atol=1e-12)


def test_oracles_return_rounded_noisy_or_ranked_scores():
    references, probes = unit_rows(50), unit_rows(40, seed=1)
    exact = references @ probes.T
    rounded = fixed_point_scores(DIM, "int8").simulate(probes, references)
    point = FixedPoint(dim=DIM, values="int8")
    assert 0 < np.abs(rounded - exact).max() <= point.largest_error
    np.testing.assert_allclose(rounded * point.scale**2, np.rint(rounded * point.scale**2), atol=1e-6)
    assert noisy_scores(0.05, seed=1).simulate(probes, references) == pytest.approx(exact, abs=0.3)
    assert np.std(noisy_scores(0.05, seed=1).simulate(probes, references) - exact) == pytest.approx(0.05, rel=0.1)
    places = ranks_among(4, DIM, seed=1).simulate(probes, references)
    assert set(np.unique(places)) == {0.0, 1.0, 2.0, 3.0, 4.0}
    for column in range(5):  # places rise with scores
        assert (np.diff(places[np.argsort(exact[:, column]), column]) >= 0).all()
    assert np.mean(random_decisions(seed=1)(references, 0.5)(probes, np.zeros(40, int))) == pytest.approx(0.5, abs=0.25)


@pytest.mark.parametrize("values", ["int8", "int16"])
def test_integers_in_the_clear_decide_as_the_three_parties(values):
    references = unit_rows(9)
    probes = np.repeat(references, 30, axis=0) + 0.9 * unit_rows(270, seed=2)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    targets = np.repeat(np.arange(9), 30)
    threshold = float(np.median(np.einsum("nk,nk->n", probes, references[targets])))
    ours = ring_decisions(values)(references, threshold)(probes, targets)
    theirs = party_decisions(values)(references, threshold)(probes, targets)
    assert np.array_equal(ours, theirs) and 0.3 < ours.mean() < 0.7
    assert np.mean(ours == plain_decisions(references, threshold)(probes, targets)) > 0.95


def test_parties_refuse_probes_of_larger_norm_which_need_no_search(monkeypatch):
    """Without the check, a longer probe is answered as one of norm 1 at a lower threshold."""
    references, own = unit_rows(3), unit_rows(60, seed=4)
    matcher = ThreePartyMatcher(references, values="int8")
    point = matcher.fixed_point

    def dishonest(self, rows, what=""):
        return np.rint(np.asarray(rows) * point.scale).astype(np.int64).astype(point.dtype)

    monkeypatch.setattr(secure.FixedPoint, "quantise", dishonest)  # at the client alone: parties hold shares by now
    with pytest.raises(InputCheckError):
        matcher.verify(4 * unit_rows(1, seed=6), ["0"], threshold=0.5)
    monkeypatch.setattr(InputCheck, "conclude", lambda _self: None)
    in_the_clear = ring_decisions("int8")(references, 0.5)
    oracle = DecisionOracle(
        lambda probes, targets: matcher.verify(probes, [str(target) for target in targets], threshold=0.5),
        num_targets=3,
        dim=DIM,
        threshold=0.5,
    )
    probes, targets = 4 * unit_rows(200, seed=6), np.arange(200) % 3
    assert np.array_equal(oracle.query(probes, targets), in_the_clear(probes, targets))
    result = DecisionRecovery(noise=point.typical_error, longest=5).run(oracle, own, query_budgets=[200], seed=1)
    matcher.close()
    assert np.einsum("nk,nk->n", result.templates_LNK[0], references).min() > 0.9
    assert result.num_queries_LN.max() <= 200


def test_client_that_sets_the_threshold_needs_no_search():
    """A probe of length c at the threshold t is asked for as one of norm 1 at t / c, by the engine's own front door."""
    references, own = unit_rows(2), unit_rows(60, seed=4)
    with ThreePartyMatcher(references, values="int16") as matcher:

        def answer(probes, targets):
            lengths = np.linalg.norm(probes, axis=1)
            return np.array(
                [
                    matcher.verify(probe[None] / length, [str(target)], threshold=0.9 / length)[0]
                    for probe, target, length in zip(probes, targets, lengths, strict=True)
                ]
            )

        oracle = DecisionOracle(answer, num_targets=2, dim=DIM, threshold=0.9)
        result = DecisionRecovery(longest=1000).run(oracle, own, query_budgets=[120], seed=1)
    assert np.einsum("nk,nk->n", result.templates_LNK[0], references).min() > 0.95
