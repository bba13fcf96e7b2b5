from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import chance_rate, cmc, open_set_tpir, rank_k
from reference import error_rates

few_values = st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0])


@settings(deadline=None, max_examples=40)
@given(data=st.data(), num_probes=st.integers(2, 8), num_subjects=st.integers(2, 6), references=st.integers(1, 3))
def test_rank_k_equals_the_slow_reference_with_ties_and_several_references(data, num_probes, num_subjects, references):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    gallery = rng.permutation(np.repeat(np.arange(num_subjects), references))
    probes = np.arange(num_probes) % num_subjects
    scores = data.draw(npst.arrays(np.float64, (num_probes, len(gallery)), elements=few_values))
    curve = cmc(scores, probes, gallery)
    for k in range(1, num_subjects + 1):
        assert curve[k - 1] == pytest.approx(error_rates.rank_k_share(scores, probes, gallery, k))
    assert (np.diff(curve) >= -1e-12).all() and curve[-1] == 1.0
    found = rank_k(scores, probes, gallery, ranks=(1, num_subjects), seed=0, num_resamples=30)
    assert found[1].value == pytest.approx(curve[0]) and found[1].n == num_probes


def test_constant_scores_are_exactly_chance():
    found = rank_k(np.zeros((40, 100)), np.arange(40), np.arange(100), ranks=(1, 5), seed=0, num_resamples=50)
    assert found[1].value == pytest.approx(chance_rate(1, 100)) == 0.01
    assert found[5].value == pytest.approx(chance_rate(5, 100)) == 0.05


def test_intervals_are_over_probe_subjects():
    """Each subject is found always or never, in ten probes: 30 coin flips, not 300."""
    subjects = np.repeat(np.arange(30), 10)
    scores = np.random.default_rng(0).random((300, 30))
    scores[np.arange(300), subjects] = np.where(subjects % 2 == 0, 2.0, -1.0)
    found = rank_k(scores, subjects, np.arange(30), ranks=(1,), seed=0)[1]
    assert found.value == 0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.5 / np.sqrt(30), rel=0.12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    scores, probes, gallery = rng.normal(size=(50, 20)), rng.integers(20, size=50), np.arange(20)
    whole = cmc(scores, probes, gallery)
    monkeypatch.setattr("ppfr.metrics._identification._BLOCK_VALUES", 60)
    np.testing.assert_array_equal(cmc(scores, probes, gallery), whole)


def open_set_by_hand(scores, probes, gallery, fpir, rank):
    known = np.isin(probes, gallery)
    top = np.sort(scores.max(axis=1)[~known])[::-1]
    best = 0.0
    for threshold in np.append(scores.ravel(), np.inf):
        if np.mean(top >= threshold) > fpir:
            continue
        hits = 0
        for row, subject in zip(scores[known], probes[known], strict=True):
            mate = row[gallery == subject].max()
            others = [row[gallery == g].max() for g in set(gallery) - {subject}]
            hits += mate >= threshold and sum(o >= mate for o in others) < rank
        best = max(best, hits / known.sum())
    return best


@pytest.mark.parametrize("rank", [1, 3])
def test_open_set_is_what_a_loop_gives(rank):
    rng = np.random.default_rng(rank)
    gallery = np.repeat(np.arange(15), 2)
    probes = np.concatenate([rng.integers(15, size=40), 100 + rng.integers(9, size=30)])
    scores = rng.normal(size=(70, 30)).round(1) + 1.5 * (probes[:, None] == gallery)
    found = open_set_tpir(scores, probes, gallery, fpirs=(0.1, 0.4), rank=rank, seed=0, num_resamples=100)
    for fpir, estimate in found.items():
        assert estimate.value == pytest.approx(open_set_by_hand(scores, probes, gallery, fpir, rank))
        assert estimate.n == 40 and estimate.low <= estimate.value <= estimate.high
    assert found[0.1].caveat == "FPIR 0.1 rests on 3 of 30 searches without a mate (rule of 30)"


def test_identification_rejects_invalid_input():
    scores = np.zeros((3, 2))
    with pytest.raises(InvalidInputError, match="1 of 3 probes have no mate in the gallery"):
        rank_k(scores, [0, 1, 2], [0, 1], seed=0)
    with pytest.raises(ShapeError, match="probe_subjects has shape"):
        rank_k(scores, [0, 1], [0, 1], seed=0)
    with pytest.raises(ShapeError, match="N probes, M gallery"):
        cmc(np.zeros(3), [0, 1, 1], [0, 1])
    with pytest.raises(RangeError, match="not finite"):
        cmc(np.full((3, 2), np.nan), [0, 1, 1], [0, 1])
    with pytest.raises(RangeError, match=r"rank 5 is not in 1\.\.2"):
        rank_k(scores, [0, 1, 1], [0, 1], seed=0)
    with pytest.raises(InvalidInputError, match="no probe is without a mate"):
        open_set_tpir(scores, [0, 1, 1], [0, 1], seed=0)
    with pytest.raises(RangeError, match="FPIR 0 is not a rate"):
        open_set_tpir(scores, [0, 1, 2], [0, 1], fpirs=(0,), seed=0)
