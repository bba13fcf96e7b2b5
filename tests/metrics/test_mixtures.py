"""Searches with mixtures: nobody in a mixture is special, and chance levels are those of a random order."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import RangeError, ShapeError
from ppfr.metrics import mixture_hits, rank_k


def made_shares(num: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """(num, num) shares of k different people in each mixture, the row's own among them."""
    share_NN = np.zeros((num, num))
    for own in range(num):
        others = rng.permutation(np.delete(np.arange(num), own))[: k - 1]
        share_NN[own, [own, *others]] = rng.dirichlet(np.full(k, 20.0))
    return share_NN


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_perfect_search_finds_anybody_always_and_the_first_in_one_of_k(k: int) -> None:
    rng = np.random.default_rng(k)
    share_NN = made_shares(400, k, rng)
    score_NN = (share_NN > 0) * rng.uniform(1, 2, share_NN.shape)  # everybody in the mixture, in a random order
    hits = mixture_hits(score_NN, share_NN)
    assert hits.anybody_N.mean() == hits.found_N.mean() == 1
    first = rank_k(score_NN, np.arange(400), np.arange(400), ranks=(1,), seed=1, num_resamples=100)[1]
    assert first.value == pytest.approx(1 / k, abs=0.09)
    assert hits.heaviest_N.mean() == pytest.approx(1 / k, abs=0.09)
    assert mixture_hits(share_NN, share_NN).heaviest_N.mean() == 1


@pytest.mark.parametrize("k", [2, 5])
def test_search_at_random_is_at_the_chance_levels(k: int) -> None:
    rng = np.random.default_rng(k)
    share_NN = made_shares(50, k, rng)
    constant = mixture_hits(np.zeros((50, 50)), share_NN)  # ties count as if in a random order: exact
    assert constant.anybody_N.mean() == pytest.approx(constant.chance_anybody) == pytest.approx(k / 50)
    assert constant.heaviest_N.mean() == pytest.approx(constant.chance_heaviest) == pytest.approx(1 / 50)
    assert constant.found_N.mean() == pytest.approx(constant.chance_found) == pytest.approx(k / 50)
    drawn = [mixture_hits(rng.normal(size=(50, 50)), share_NN) for _ in range(400)]
    for name in ("anybody", "heaviest", "found"):
        mean = np.mean([getattr(hits, f"{name}_N").mean() for hits in drawn])
        assert mean == pytest.approx(getattr(constant, f"chance_{name}"), rel=0.1)


def test_equal_weights_have_several_heaviest_and_one_person_alone_is_a_usual_search() -> None:
    hits = mixture_hits([[3, 2, 1, 0]] * 2, [[0.5, 0.5, 0, 0], [0, 0.25, 0.75, 0]])
    assert hits.heaviest_N.tolist() == [1, 0] and hits.chance_heaviest == (2 + 1) / 2 / 4
    assert hits.found_N.tolist() == [1, 0.5]
    score_NN = np.random.default_rng(1).normal(size=(20, 20))
    alone = mixture_hits(score_NN, np.eye(20))
    usual = rank_k(score_NN, np.arange(20), np.arange(20), ranks=(1,), seed=1, num_resamples=100)[1]
    assert alone.anybody_N.mean() == alone.heaviest_N.mean() == alone.found_N.mean() == usual.value


@pytest.mark.parametrize(
    ("scores", "shares", "error", "words"),
    [
        ([[1.0, 2.0]], [[1.0]], ShapeError, r"\(1, 2\).*\(1, 1\)"),
        ([[np.nan, 2.0]], [[1.0, 0.0]], RangeError, "finite"),
        ([[1.0, 2.0]], [[0.0, 0.0]], RangeError, "without anybody"),
        ([[1.0, 2.0]], [[1.5, -0.5]], RangeError, "negative"),
    ],
)
def test_unusable_matrices_are_refused(scores: object, shares: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        mixture_hits(scores, shares)
