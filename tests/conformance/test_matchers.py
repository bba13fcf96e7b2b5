"""One suite over all matchers. A new matcher is one line in MATCHERS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ppfr.core import Matcher, RangeError, ShapeError
from ppfr.matching import ExactMatcher, KeyedGallery, KeyedMatcher
from ppfr.templates import IdentityMapping

DIM, NUM = 64, 120


def people() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((NUM, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def keyed(**options: object) -> KeyedMatcher:
    scheme = IdentityMapping(dim=DIM, overlap=2, scale=2.0)
    keys = scheme.draw_packed(NUM)
    return KeyedMatcher(KeyedGallery.in_memory(scheme.shape, scheme.values_of(people(), keys), keys, **options))


MATCHERS: dict[str, Callable[[], Matcher]] = {
    "exact": lambda: ExactMatcher(people()),
    "exact-int8": lambda: ExactMatcher(people(), values="int8"),
    "keyed": keyed,
    "keyed-int8": lambda: keyed(values="int8"),
}


@pytest.fixture(params=MATCHERS)
def matcher(request: pytest.FixtureRequest) -> Matcher:
    return MATCHERS[request.param]()


def test_it_is_a_matcher_of_its_gallery(matcher):
    assert isinstance(matcher, Matcher)
    assert (matcher.dim, matcher.num_references) == (DIM, NUM)
    scores = matcher.score_matrix(people()[:7])
    assert scores.shape == (7, NUM) and scores.dtype == np.float32
    assert (np.abs(scores) <= 1 + 1e-5).all()


def test_everybody_is_found_first_by_the_enrolled_embedding(matcher):
    found = matcher.top_k(people(), k=3)
    np.testing.assert_array_equal(found.reference_Nk[:, 0], np.arange(NUM))
    np.testing.assert_allclose(found.score_Nk[:, 0], 1, atol=0.01)
    assert (np.diff(found.score_Nk, axis=1) <= 0).all()


def test_searches_agree_with_the_matrix(matcher):
    probes = people()[5:9]
    scores = matcher.score_matrix(probes)
    found = matcher.top_k(probes, k=NUM + 5)
    assert found.reference_Nk.shape == (4, NUM)
    np.testing.assert_array_equal(np.sort(found.reference_Nk, axis=1), np.tile(np.arange(NUM), (4, 1)))
    np.testing.assert_allclose(np.take_along_axis(scores, found.reference_Nk, axis=1), found.score_Nk, atol=2e-4)
    threshold = float(found.score_Nk[2, 10])
    matches = matcher.at_least(probes, threshold=threshold)
    for n in range(4):
        of_probe = matches.probe_C == n
        num = int((found.score_Nk[n] >= threshold).sum())
        np.testing.assert_array_equal(matches.reference_C[of_probe], found.reference_Nk[n, :num])
    nothing = matcher.at_least(probes, threshold=1.5)
    assert len(nothing.probe_C) == len(nothing.score_C) == 0


def test_probes_are_not_changed_and_results_are_repeatable(matcher):
    probes = people()[:5]
    before = probes.copy()
    first, second = matcher.top_k(probes, k=4), matcher.top_k(probes, k=4)
    np.testing.assert_array_equal(probes, before)
    np.testing.assert_array_equal(first.reference_Nk, second.reference_Nk)
    np.testing.assert_array_equal(first.score_Nk, second.score_Nk)


def test_results_show_nothing(matcher):
    assert "redacted" in repr(matcher.top_k(people()[:1], k=2))
    assert "redacted" in repr(matcher.at_least(people()[:1], threshold=0.0))


def test_bad_probes_are_refused(matcher):
    probes = people()[:2]
    for bad, error in (
        (probes[0], ShapeError),
        (probes[:, :-1], ShapeError),
        (probes * 1.1, RangeError),
        (probes * np.nan, RangeError),
    ):
        with pytest.raises(error):
            matcher.top_k(bad, k=1)
