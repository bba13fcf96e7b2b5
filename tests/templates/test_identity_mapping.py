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
from reference import polynomials


def test_template_length_matches_the_paper():
    assert [IdentityMapping(overlap=o).out_dim for o in range(5)] == [103, 128, 170, 255, 508]


@settings(deadline=None, max_examples=40)
@given(
    dim=st.integers(2, 40),
    num_terms=st.integers(2, 7),
    overlap=st.integers(0, 6),
    scale=st.sampled_from([None, 1.0, 3.5]),
    seed=st.integers(0, 999),
)
def test_values_match_the_slow_reference(dim, num_terms, overlap, scale, seed):
    num_terms = min(num_terms, dim)
    overlap = min(overlap, num_terms - 1)
    scheme = IdentityMapping(dim=dim, num_terms=num_terms, overlap=overlap, scale=scale)
    assert scheme.out_dim == polynomials.num_windows(dim, num_terms, overlap)
    rows = np.random.default_rng(seed).standard_normal((3, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    keys = scheme.draw_packed(3)
    mapped = PolynomialMapping(scheme.shape, keys, is_deployed=True).apply(rows)
    values = scheme.values_of(rows, keys)
    for row, c, e, out, template in zip(rows, keys.coefficients_Mm, keys.exponents_Mm, mapped, values, strict=True):
        slow = np.array(polynomials.mapped(row, c, e, overlap, scheme.shape.factor))
        np.testing.assert_allclose(out, slow, rtol=1e-9, atol=1e-9 * np.abs(slow).max())
        np.testing.assert_allclose(template, slow / np.linalg.norm(slow), atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(overlap=st.integers(0, 4), scale=st.sampled_from([None, 1.0]), seed=st.integers(0, 99))
def test_pullback_matches_the_numerical_derivative(overlap, scale, seed):
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
def test_one_element_changes_only_the_windows_that_contain_it(overlap):
    """A changed sign preserves the norm and changes only the terms with an odd exponent."""
    scheme = IdentityMapping(dim=60, overlap=overlap)
    keys, step = scheme.draw_packed(1), scheme.shape.step
    mapping = PolynomialMapping(scheme.shape, keys, is_deployed=True)
    before = np.random.default_rng(overlap).standard_normal((1, 60))
    after = before.copy()
    after[0, 30] *= -1
    changed = set(np.flatnonzero(np.abs(mapping.apply(after) - mapping.apply(before))[0] > 1e-9))
    windows = [j for j in range(scheme.out_dim) if j * step <= 30 < j * step + 5]
    assert changed == {j for j in windows if keys.exponents_Mm[0, 30 - j * step] % 2 == 1}
    assert len(windows) <= -(-5 // step)


def test_coefficients_are_distinct_and_non_zero_and_all_exponent_orders_occur():
    keys = IdentityMapping(coefficient_bound=3, num_terms=5, dim=20).draw_packed(6000)
    keys.check()
    assert set(np.unique(keys.coefficients_Mm)) == {-3, -2, -1, 1, 2, 3}
    assert len(np.unique(keys.exponents_Mm, axis=0)) == 120
    # At a fixed position, all coefficients and all exponents are equally frequent, within five sigma.
    for column, num in ((keys.coefficients_Mm[:, 0], 6), (keys.exponents_Mm[:, 3], 5)):
        counts = np.unique(column, return_counts=True)[1]
        assert np.abs(counts - 6000 / num).max() < 5 * np.sqrt(6000 / num)


def test_keys_can_be_drawn_for_large_bounds_and_wide_windows():
    for bound, terms in ((127, 2), (8, 10), (5, 10)):
        keys = IdentityMapping(dim=40, num_terms=terms, coefficient_bound=bound, scale=2.0).draw_packed(500)
        keys.check()
        assert np.abs(keys.coefficients_Mm.astype(int)).max() == bound


def comparison_scores(scheme, people, num, dim):
    """Scores: genuine, impostor, wrong key; two keys and one face; two keys and two faces."""
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
def test_wrong_key_scores_are_close_to_impostor_scores(people, scale):
    """Keys come from the operating system and are not seeded, so the bounds leave a wide margin."""
    genuine, impostor, wrong_key, _, _ = comparison_scores(
        IdentityMapping(dim=256, overlap=2, scale=scale), people, 800, 256
    )
    assert roc(genuine, impostor).eer() < 0.05
    assert roc(genuine, wrong_key).eer() < 0.12
    assert abs(np.median(wrong_key)) < 0.05 and abs(wrong_key.mean()) < 0.07
    assert np.median(genuine) > 0.6


def test_templates_of_one_face_under_two_keys_are_partly_linkable(people):
    """A known limitation: with probability 1/m, two keys have the dominant exponent at the same position."""
    *_, mated, non_mated = comparison_scores(IdentityMapping(dim=256, overlap=2), people, 800, 256)
    found = unlinkability(mated, non_mated, mated_subjects=np.arange(800), num_bins=20, seed=1, num_resamples=50)
    assert 0.2 < found.d_sys.value < 0.6 and found.chance < 0.08
    # With more terms, the positions agree less often.
    *_, mated, non_mated = comparison_scores(IdentityMapping(dim=256, num_terms=10, scale=1.0), people, 800, 256)
    fewer = unlinkability(mated, non_mated, mated_subjects=np.arange(800), num_bins=20, seed=1, num_resamples=50)
    assert fewer.d_sys.value < found.d_sys.value


def test_renewed_template_cannot_be_compared_with_the_earlier_one(people):
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
    # The bound affects how keys are drawn, not how templates are compared.
    IdentityMapping(dim=64, coefficient_bound=90).enrol(embedding, key=key)


def test_probe_rejects_an_altered_template(people):
    """An attacker who edits a record can recompute the public checksum, but not the keyed tag."""
    import dataclasses

    scheme = IdentityMapping(dim=64)
    embedding = people(1, 64)[0][0]
    key = scheme.new_key()
    template = scheme.enrol(embedding, key=key)
    values = template.values_K.copy()
    values[0] += 0.5
    forged = scheme.from_bytes(scheme.to_bytes(dataclasses.replace(template, values_K=values)))
    with pytest.raises(CorruptTemplateError, match=r"altered after enrolment.*enrol again"):
        scheme.probe(embedding, key=key, like=forged)


def test_invalid_arguments_are_rejected():
    for bad, text in (
        ({"num_terms": 1}, r"num_terms=1 is not in 2\.\.16"),
        ({"overlap": 5}, r"overlap=5 is not in 0\.\.4"),
        ({"coefficient_bound": 2}, r"coefficient_bound=2; must be from 3 to 127"),
        ({"coefficient_bound": 128}, r"coefficient_bound=128; must be from 3 to 127"),
        ({"scale": 0.0}, "not positive"),
        ({"num_terms": 16}, "exceeds the range of single precision"),
        ({"dim": 3}, r"not in 2\.\.3"),
    ):
        with pytest.raises(RangeError, match=text):
            IdentityMapping(**bad)
    scheme = IdentityMapping(dim=16)
    keys = scheme.draw_packed(2)
    with pytest.raises(ShapeError, match="3 embeddings and 2 keys; give one key per embedding"):
        scheme.values_of(np.eye(16)[:3], keys)
    bad_keys = PolynomialKeys(
        coefficients_Mm=np.zeros((1, 5), np.int8), exponents_Mm=np.arange(1, 6, dtype=np.uint8)[None]
    )
    with pytest.raises(RangeError, match="1 of 1 packed keys are invalid"):
        PolynomialMapping(scheme.shape, bad_keys, is_deployed=True)
    with pytest.raises(RangeError, match="int8"):
        PolynomialKeys(coefficients_Mm=np.ones((1, 5)), exponents_Mm=np.ones((1, 5), np.uint8))
    with pytest.raises(ShapeError, match=r"\(1, 16\); this mapping takes \(2, 16\)"):
        scheme.guessed_mapping(2).apply(np.eye(16)[:1])
    with pytest.raises(RangeError, match=r"rows of zeros.*must be finite and non-zero"):
        scheme.guessed_mapping(1).apply(np.zeros((1, 16)))
