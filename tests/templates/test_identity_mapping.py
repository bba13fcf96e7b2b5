from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import (
    CorruptTemplateError,
    PolynomialKeys,
    RangeError,
    ShapeError,
    UnknownSchemeError,
    WrongKeyError,
)
from ppfr.metrics import roc, unlinkability
from ppfr.templates import IdentityMapping, PolynomialMapping


def test_length_of_templates_is_the_papers():
    assert [IdentityMapping(overlap=o).out_dim for o in range(5)] == [103, 128, 170, 255, 508]


@settings(deadline=None, max_examples=40)
@given(
    dim=st.integers(2, 40),
    num_terms=st.integers(2, 7),
    overlap=st.integers(0, 6),
    scale=st.sampled_from([None, 1.0, 3.5]),
    seed=st.integers(0, 999),
)
def test_values_are_the_slow_twins(twin, dim, num_terms, overlap, scale, seed):
    num_terms = min(num_terms, dim)
    overlap = min(overlap, num_terms - 1)
    scheme = IdentityMapping(dim=dim, num_terms=num_terms, overlap=overlap, scale=scale)
    assert scheme.out_dim == twin.num_windows(dim, num_terms, overlap)
    rows = np.random.default_rng(seed).standard_normal((3, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    keys = scheme.draw_packed(3)
    mapped = PolynomialMapping(scheme.shape, keys, is_deployed=True).apply(rows)
    values = scheme.values_of(rows, keys)
    for row, c, e, out, template in zip(rows, keys.coefficients_Mm, keys.exponents_Mm, mapped, values, strict=True):
        slow = np.array(twin.mapped(row, c, e, overlap, scheme.shape.factor))
        np.testing.assert_allclose(out, slow, rtol=1e-9, atol=1e-9 * np.abs(slow).max())
        np.testing.assert_allclose(template, slow / np.linalg.norm(slow), atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(overlap=st.integers(0, 4), scale=st.sampled_from([None, 1.0]), seed=st.integers(0, 99))
def test_pullback_is_the_derivative(overlap, scale, seed):
    rng = np.random.default_rng(seed)
    mapping = IdentityMapping(dim=24, overlap=overlap, scale=scale).guessed_mapping(3)
    point, direction = rng.standard_normal((2, 3, 24))
    weights = rng.standard_normal((3, mapping.out_dim))
    step = 1e-6
    slope = (weights * (mapping.apply(point + step * direction) - mapping.apply(point - step * direction))).sum(1)
    exact = (mapping.pullback(point, weights) * direction).sum(1)
    np.testing.assert_allclose(exact, slope / (2 * step), rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    np.testing.assert_allclose((mapping.pullback(point, weights) * point).sum(1), 0, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("overlap", range(5))
def test_one_element_moves_only_the_windows_it_is_in(overlap):
    """A changed sign keeps the norm, and moves the terms with an odd exponent."""
    scheme = IdentityMapping(dim=60, overlap=overlap)
    keys, step = scheme.draw_packed(1), scheme.shape.step
    mapping = PolynomialMapping(scheme.shape, keys, is_deployed=True)
    before = np.random.default_rng(overlap).standard_normal((1, 60))
    after = before.copy()
    after[0, 30] *= -1
    moved = set(np.flatnonzero(np.abs(mapping.apply(after) - mapping.apply(before))[0] > 1e-9))
    windows = [j for j in range(scheme.out_dim) if j * step <= 30 < j * step + 5]
    assert moved == {j for j in windows if keys.exponents_Mm[0, 30 - j * step] % 2 == 1}
    assert len(windows) <= -(-5 // step)


def test_keys_are_distinct_non_zero_and_all_orders_come():
    keys = IdentityMapping(coefficient_bound=3, num_terms=5, dim=20).draw_packed(6000)
    keys.check()
    assert set(np.unique(keys.coefficients_Mm)) == {-3, -2, -1, 1, 2, 3}
    assert len(np.unique(keys.exponents_Mm, axis=0)) == 120
    # Each coefficient and each exponent at each place is as frequent as any other: five sigma.
    for column, num in ((keys.coefficients_Mm[:, 0], 6), (keys.exponents_Mm[:, 3], 5)):
        counts = np.unique(column, return_counts=True)[1]
        assert np.abs(counts - 6000 / num).max() < 5 * np.sqrt(6000 / num)


def test_large_bounds_and_wide_windows_draw_too():
    for bound, terms in ((127, 2), (8, 10), (5, 10)):
        keys = IdentityMapping(dim=40, num_terms=terms, coefficient_bound=bound, scale=2.0).draw_packed(500)
        keys.check()
        assert np.abs(keys.coefficients_Mm.astype(int)).max() == bound


def scores_under(scheme, people, num, dim):
    """Genuine, impostor, wrong-key scores, then (two keys, same face) and (two keys, two faces)."""
    enrolled, again = people(num, dim, cosine=0.9)
    keys, others = scheme.draw_packed(num), scheme.draw_packed(num)
    template = scheme.values_of(enrolled, keys)
    return [
        (template * scheme.values_of(rows, used)).sum(1)
        for rows, used in (
            (again, keys),
            (np.roll(again, 1, axis=0), keys),
            (again, others),
            (enrolled, others),
            (np.roll(enrolled, 1, axis=0), others),
        )
    ]


@pytest.mark.parametrize("scale", [None, 1.0])
def test_a_wrong_key_scores_like_an_impostor_on_average_and_seldom_like_a_genuine(people, scale):
    """Keys come from the operating system: bounds are far from what their draw can give."""
    genuine, impostor, wrong_key, _, _ = scores_under(
        IdentityMapping(dim=256, overlap=2, scale=scale), people, 800, 256
    )
    assert roc(genuine, impostor).eer() < 0.05
    assert roc(genuine, wrong_key).eer() < 0.12
    assert abs(np.median(wrong_key)) < 0.05 and abs(wrong_key.mean()) < 0.07
    assert np.median(genuine) > 0.6


def test_two_keys_of_one_face_are_linkable_as_far_as_the_page_says(people):
    """No wish but a fact: with chance 1/m two keys agree in the place of the exponent that dominates."""
    *_, mated, non_mated = scores_under(IdentityMapping(dim=256, overlap=2), people, 800, 256)
    found = unlinkability(mated, non_mated, mated_subjects=np.arange(800), num_bins=20, seed=1, num_resamples=50)
    assert 0.2 < found.d_sys.value < 0.6 and found.chance < 0.08
    # More terms, less often agreement.
    *_, mated, non_mated = scores_under(IdentityMapping(dim=256, num_terms=10, scale=1.0), people, 800, 256)
    fewer = unlinkability(mated, non_mated, mated_subjects=np.arange(800), num_bins=20, seed=1, num_resamples=50)
    assert fewer.d_sys.value < found.d_sys.value


def test_renewal_leaves_nothing_to_compare(people):
    scheme = IdentityMapping(dim=64)
    embedding = people(1, 64)[0][0]
    key = scheme.new_key()
    first = scheme.enrol(embedding, key=key)
    second, new_key = scheme.renew(embedding)
    assert scheme.score(scheme.probe(embedding, key=new_key, like=second), second) == pytest.approx(1, abs=1e-6)
    with pytest.raises(WrongKeyError, match="nothing was compared"):
        scheme.probe(embedding, key=key, like=second)
    with pytest.raises(WrongKeyError, match="nothing was compared"):
        scheme.score(first, second)


def test_other_parameters_are_another_scheme(people):
    embedding = people(1, 64)[0][0]
    scheme, other = IdentityMapping(dim=64), IdentityMapping(dim=64, overlap=1)
    key = scheme.new_key()
    with pytest.raises(UnknownSchemeError, match="other parameters"):
        other.enrol(embedding, key=key)
    with pytest.raises(UnknownSchemeError, match="other parameters"):
        other.from_bytes(scheme.to_bytes(scheme.enrol(embedding, key=key)))
    # The bound is how keys are drawn, not how they compare.
    IdentityMapping(dim=64, coefficient_bound=90).enrol(embedding, key=key)


def test_altered_templates_are_found_out_by_the_key(people):
    """Whoever edits a record can mend its public checksum, not its tag."""
    import dataclasses

    scheme = IdentityMapping(dim=64)
    embedding = people(1, 64)[0][0]
    key = scheme.new_key()
    template = scheme.enrol(embedding, key=key)
    values = template.values_K.copy()
    values[0] += 0.5
    forged = scheme.from_bytes(scheme.to_bytes(dataclasses.replace(template, values_K=values)))
    with pytest.raises(CorruptTemplateError, match="not as it was enrolled"):
        scheme.probe(embedding, key=key, like=forged)


def test_bad_arguments():
    for bad, text in (
        ({"num_terms": 1}, r"num_terms=1 is not in 2\.\.16"),
        ({"overlap": 5}, r"overlap=5 is not in 0\.\.4"),
        ({"coefficient_bound": 2}, r"coefficient_bound=2 is not in 3\.\.127"),
        ({"coefficient_bound": 128}, "stored in a byte"),
        ({"scale": 0.0}, "not positive"),
        ({"num_terms": 16}, "leaves the range of single precision"),
        ({"dim": 3}, r"not in 2\.\.3"),
    ):
        with pytest.raises(RangeError, match=text):
            IdentityMapping(**bad)
    scheme = IdentityMapping(dim=16)
    keys = scheme.draw_packed(2)
    with pytest.raises(ShapeError, match="3 embeddings and 2 keys"):
        scheme.values_of(np.eye(16)[:3], keys)
    bad_keys = PolynomialKeys(
        coefficients_Mm=np.zeros((1, 5), np.int8), exponents_Mm=np.arange(1, 6, dtype=np.uint8)[None]
    )
    with pytest.raises(RangeError, match="1 of 1 packed keys are none"):
        PolynomialMapping(scheme.shape, bad_keys, is_deployed=True)
    with pytest.raises(RangeError, match="int8"):
        PolynomialKeys(coefficients_Mm=np.ones((1, 5)), exponents_Mm=np.ones((1, 5), np.uint8))
    with pytest.raises(ShapeError, match="one row for each key"):
        scheme.guessed_mapping(2).apply(np.eye(16)[:1])
    with pytest.raises(RangeError, match="rows of zeros"):
        scheme.guessed_mapping(1).apply(np.zeros((1, 16)))
