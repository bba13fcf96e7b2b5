from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.matching import ExactMatcher
from support.embeddings import unit_rows


@settings(deadline=None, max_examples=30)
@given(
    num=st.integers(1, 60),
    dim=st.integers(2, 70),
    k=st.integers(1, 9),
    block_size=st.sampled_from([1, 7, 1000]),
    seed=st.integers(0, 999),
)
def test_float32_search_matches_cosine_similarity_in_double_precision(num, dim, k, block_size, seed):
    rows = unit_rows(num, dim, seed=seed).astype(np.float32)
    probes = unit_rows(3, dim, seed=seed + 1).astype(np.float32)
    matcher = ExactMatcher(rows, num_threads=2, block_size=block_size)
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (probes, rows))
    exact = a @ b.T
    np.testing.assert_allclose(matcher.score_matrix(probes), exact, atol=1e-6)
    found = matcher.top_k(probes, k=k)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_allclose(found.score_Nk, np.take_along_axis(exact, order, axis=1), atol=1e-7)
    matches = matcher.at_least(probes, threshold=0.1)
    assert len(matches.probe_C) == int((exact >= 0.1).sum())


def test_int8_scores_match_the_quantised_rows():
    rows, probes = unit_rows(500, 96, seed=0), unit_rows(20, 96, seed=1)
    matcher = ExactMatcher(rows, values="int8")
    quantised = np.rint(rows * (127 / np.abs(rows).max(axis=1, keepdims=True)))
    exact = probes @ (quantised / np.linalg.norm(quantised, axis=1, keepdims=True)).T
    np.testing.assert_allclose(matcher.score_matrix(probes), exact, atol=1e-5)
    np.testing.assert_array_equal(matcher.top_k(probes, k=500).reference_Nk, np.argsort(-exact, axis=1))
    assert np.abs(exact - probes @ rows.T).max() < 0.01
    assert matcher.num_bytes == 500 * (96 + 4)
    assert "redacted" in repr(matcher)


def test_equal_scores_are_sorted_by_index():
    rows = np.repeat(unit_rows(3, 8, seed=0), 4, axis=0)
    found = ExactMatcher(rows, block_size=5).top_k(rows[:1], k=6)
    assert list(found.reference_Nk[0][:4]) == [0, 1, 2, 3]


def test_invalid_input_is_rejected():
    rows = unit_rows(4, 8, seed=0)
    with pytest.raises(InvalidInputError, match="the gallery is empty"):
        ExactMatcher(rows[:0])
    with pytest.raises(ShapeError, match=r"\(8,\); must be \(M, D\)"):
        ExactMatcher(rows[0])
    with pytest.raises(RangeError, match="not of L2 norm 1"):
        ExactMatcher(rows * 3)
    with pytest.raises(InvalidInputError, match="values='float64'; allowed: float32, int8"):
        ExactMatcher(rows, values="float64")
    with pytest.raises(RangeError, match="block_size=0"):
        ExactMatcher(rows, block_size=0)
