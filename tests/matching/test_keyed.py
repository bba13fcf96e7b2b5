"""Keyed search compared with the slow reference: scores, ranks, flags, threads, batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, PolynomialKeys, PolynomialShape, RangeError, ShapeError
from ppfr.matching import KeyedGallery, KeyedMatcher
from reference import polynomials


def near(rows, cosine, *, seed=3):
    """Further captures of the same people."""
    noise = np.random.default_rng(seed).standard_normal(rows.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    mixed = cosine * rows + np.sqrt(1 - cosine**2) * noise
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def slow_scores(gallery, probes):
    """(N, M) scores of the slow reference with the templates as stored in the gallery."""
    everything = np.arange(len(gallery))
    keys, templates = gallery.keys_of(everything), gallery.templates_of(everything)
    shape = gallery.shape
    return np.array(
        [
            polynomials.keyed_scores(p, templates, keys.coefficients_Mm, keys.exponents_Mm, shape.overlap, shape.factor)
            for p in probes
        ]
    )


@settings(deadline=None, max_examples=25)
@given(
    num=st.integers(1, 12),
    dim=st.integers(2, 40),
    num_terms=st.integers(2, 8),
    overlap=st.integers(0, 7),
    scale=st.sampled_from([None, 1.0]),
    values=st.sampled_from(["float32", "int8"]),
    num_threads=st.integers(1, 3),
    block_size=st.sampled_from([1, 5, 64]),
    seed=st.integers(0, 999),
)
def test_scores_and_ranks_match_the_slow_reference(
    make_enrolled, num, dim, num_terms, overlap, scale, values, num_threads, block_size, seed
):
    num_terms = min(num_terms, dim)
    overlap = min(overlap, num_terms - 1)
    shape, rows, templates, keys = make_enrolled(num, dim, num_terms, overlap, scale=scale, seed=seed)
    gallery = KeyedGallery.in_memory(shape, templates, keys, values=values)
    matcher = KeyedMatcher(gallery, num_threads=num_threads, block_size=block_size)
    probes = near(rows[:3], 0.7, seed=seed)
    slow = slow_scores(gallery, probes)
    assert np.abs(matcher.score_matrix(probes) - slow).max() <= matcher.margin
    found = matcher.top_k(probes, k=5)
    k = min(5, num)
    for row, scores in enumerate(slow):
        order = np.argsort(-scores, kind="stable")[:k]
        np.testing.assert_allclose(found.score_Nk[row], scores[order], atol=1e-9)
        # Scores that are equal within rounding may be in either order.
        tied = np.abs(scores[found.reference_Nk[row]] - scores[order]) < 1e-9
        assert tied.all()
        if k > 1 and -np.diff(np.sort(-scores)).max() < -1e-9:
            np.testing.assert_array_equal(found.reference_Nk[row], order)
    threshold = float(np.median(slow))
    matches = matcher.at_least(probes, threshold=threshold)
    sure = {(int(p), int(r)) for p, r in zip(*np.nonzero(slow >= threshold + 1e-9), strict=True)}
    maybe = {(int(p), int(r)) for p, r in zip(*np.nonzero(slow >= threshold - 1e-9), strict=True)}
    got = {(int(p), int(r)) for p, r in zip(matches.probe_C, matches.reference_C, strict=True)}
    assert sure <= got <= maybe and len(got) == len(matches.probe_C)


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("overlap", [0, 4])
def test_ranks_of_a_larger_gallery_match_the_slow_reference(make_enrolled, values, overlap):
    """Most impostor scores are close together, so a scan in single precision alone would swap some ranks."""
    shape, rows, templates, keys = make_enrolled(400, 64, 5, overlap, seed=1)
    gallery = KeyedGallery.in_memory(shape, templates, keys, values=values)
    probes = near(rows[:4], 0.6)
    slow = slow_scores(gallery, probes)
    found = KeyedMatcher(gallery, num_threads=2, block_size=37).top_k(probes, k=400)
    np.testing.assert_array_equal(found.reference_Nk, np.argsort(-slow, axis=1, kind="stable"))
    np.testing.assert_allclose(found.score_Nk, -np.sort(-slow, axis=1), atol=1e-12)


def test_cancelled_sums_are_flagged_and_scored_again():
    """A constant embedding and coefficients with sum zero: in single precision only rounding errors remain."""
    shape = PolynomialShape(dim=20, num_terms=2, overlap=0)
    probe = np.full((1, 20), 20**-0.5)  # scaled elements of exactly 1: every power is 1
    keys = PolynomialKeys(
        coefficients_Mm=np.array([[7, -7], [3, -7], [50, -49]], np.int8),
        exponents_Mm=np.array([[1, 2], [2, 1], [1, 2]], np.uint8),
    )
    tilted = probe + np.linspace(-1e-6, 1e-6, 20)
    tilted /= np.linalg.norm(tilted)
    templates = np.random.default_rng(0).standard_normal((3, 10))
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    gallery = KeyedGallery.in_memory(shape, templates, keys)
    matcher = KeyedMatcher(gallery, num_threads=1)
    slow = slow_scores(gallery, tilted)
    # The first sum is 1e-6 times its terms, so a score in single precision would be off by about 0.1.
    np.testing.assert_allclose(matcher.score_matrix(tilted), slow, atol=1e-5)
    np.testing.assert_array_equal(matcher.top_k(tilted, k=3).reference_Nk[0], np.argsort(-slow[0]))


def test_result_does_not_depend_on_threads_batches_and_blocks(make_enrolled, monkeypatch):
    shape, rows, templates, keys = make_enrolled(150, 30, 5, 4, scale=1.0, seed=2)
    gallery = KeyedGallery.in_memory(shape, templates, keys)
    probes = near(rows[:20], 0.8)
    once = KeyedMatcher(gallery, num_threads=1).top_k(probes, k=7)
    monkeypatch.setattr("ppfr.matching._scanning._SCORES_AT_ONCE", 450)
    monkeypatch.setattr("ppfr.matching._scanning._CANDIDATES_AT_ONCE", 3)
    again = KeyedMatcher(gallery, num_threads=3, block_size=11).top_k(probes, k=7)
    np.testing.assert_array_equal(once.reference_Nk, again.reference_Nk)
    np.testing.assert_allclose(once.score_Nk, again.score_Nk, atol=1e-12)
    singles = [KeyedMatcher(gallery).top_k(p[None], k=7).reference_Nk[0] for p in probes]
    np.testing.assert_array_equal(once.reference_Nk, singles)
    assert (once.reference_Nk[:, 0] == np.arange(20)).mean() > 0.8


def test_int8_scores_are_close_to_float32_scores(make_enrolled):
    shape, rows, templates, keys = make_enrolled(150, 128, 5, 0, seed=4)
    probes = near(rows, 0.8)
    full, small = (
        KeyedMatcher(KeyedGallery.in_memory(shape, templates, keys, values=v)).score_matrix(probes)
        for v in ("float32", "int8")
    )
    assert 1e-5 < np.abs(full - small).max() < 0.02


def test_invalid_input_is_rejected(make_enrolled, tmp_path):
    shape, rows, templates, keys = make_enrolled(6, 20, 5, 0)
    gallery = KeyedGallery.in_memory(shape, templates, keys)
    matcher = KeyedMatcher(gallery)
    for invalid, error, text in (
        (rows[:, :-1], ShapeError, r"give \(N, 20\)"),
        (rows[0], ShapeError, r"give \(N, 20\)"),
        (rows[:0], ShapeError, "N >= 1"),
        (rows * 2, RangeError, "6 of 6 probes are not of L2 norm 1"),
        (np.where(rows == rows[0, 0], np.nan, rows), RangeError, "not finite"),
    ):
        for search in (
            matcher.score_matrix,
            lambda probes: matcher.top_k(probes, k=1),
            lambda probes: matcher.at_least(probes, threshold=0.5),
        ):
            with pytest.raises(error, match=text):
                search(invalid)
    with pytest.raises(RangeError, match="k=0; must be 1 or more"):
        matcher.top_k(rows, k=0)
    with pytest.raises(RangeError, match="threshold=nan"):
        matcher.at_least(rows, threshold=float("nan"))
    with pytest.raises(RangeError, match="num_threads=0; must be 1 or more"):
        KeyedMatcher(gallery, num_threads=0)
    empty = KeyedGallery.create(tmp_path / "t", tmp_path / "k", shape=shape)
    with pytest.raises(InvalidInputError, match="the gallery is empty"):
        KeyedMatcher(empty).top_k(rows, k=1)
