"""One suite over all template schemes. A new scheme is one line in SCHEMES."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from ppfr.core import (
    CorruptTemplateError,
    RangeError,
    ShapeError,
    TemplateMapping,
    TemplateScheme,
    UnknownSchemeError,
    UnsupportableError,
    WrongKeyError,
)
from ppfr.templates import ConstantTemplates, IdentityMapping, UnprotectedTemplates, scheme_of

SCHEMES: dict[str, Callable[[], TemplateScheme]] = {
    "identity-mapping": lambda: IdentityMapping(dim=64),
    "identity-mapping-overlap": lambda: IdentityMapping(dim=64, num_terms=7, overlap=4),
    "identity-mapping-unscaled-half": lambda: IdentityMapping(dim=64, overlap=2, scale=1.0, payload="float16"),
    "unprotected": lambda: UnprotectedTemplates(dim=64),
    "constant": lambda: ConstantTemplates(dim=64, out_dim=9),
}


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> TemplateScheme:
    return SCHEMES[request.param]()


@pytest.fixture
def embedding() -> np.ndarray:
    row = np.random.default_rng(5).standard_normal(64).astype(np.float32)
    return row / np.linalg.norm(row)


def test_an_enrolled_embedding_matches_itself(scheme, embedding):
    key = scheme.new_key()
    before = embedding.copy()
    template = scheme.enrol(embedding, key=key)
    probe = scheme.probe(embedding, key=key, like=template)
    assert template.values_K.shape == (scheme.out_dim,) and template.values_K.dtype == np.float32
    assert scheme.score(probe, template) == pytest.approx(1, abs=1e-3)
    assert scheme.score(probe, template) == pytest.approx(scheme.score(template, probe), abs=1e-12)
    np.testing.assert_array_equal(embedding, before)
    assert not template.values_K.flags.writeable


def test_enrolment_is_a_function_of_embedding_and_key(scheme, embedding):
    key = scheme.new_key()
    first, second = (scheme.to_bytes(scheme.enrol(embedding, key=key)) for _ in range(2))
    assert first == second
    assert scheme.to_bytes(scheme.enrol(embedding, key=scheme.new_key())) != first


def test_records_come_back_and_say_what_they_are(scheme, embedding):
    key = scheme.new_key()
    template = scheme.enrol(embedding, key=key)
    record = scheme.to_bytes(template)
    again = scheme.from_bytes(record)
    np.testing.assert_array_equal(again.values_K, template.values_K)
    assert scheme.to_bytes(again) == record
    made_by = scheme_of(record)
    assert (made_by.scheme_id, made_by.in_dim, made_by.out_dim) == (scheme.scheme_id, scheme.in_dim, scheme.out_dim)
    made_by.probe(embedding, key=made_by.key_from_bytes(scheme.key_to_bytes(key)), like=again)
    assert scheme_of(scheme.key_to_bytes(key), kind="key").scheme_id == scheme.scheme_id


def test_a_wrong_key_is_found_out_before_anything_is_compared(scheme, embedding):
    template = scheme.enrol(embedding, key=scheme.new_key())
    with pytest.raises(WrongKeyError, match="nothing was compared"):
        scheme.probe(embedding, key=scheme.new_key(), like=template)


def test_every_damage_to_a_record_is_found(scheme, embedding):
    key = scheme.new_key()
    for record, read in (
        (scheme.to_bytes(scheme.enrol(embedding, key=key)), scheme.from_bytes),
        (scheme.key_to_bytes(key), scheme.key_from_bytes),
    ):
        spoilt = record[:-1] + bytes([record[-1] ^ 1])
        for bad in (spoilt, record[:-1], record[:60], b"", b"x" * len(record)):
            with pytest.raises(CorruptTemplateError):
                read(bad)


def test_another_schemes_key_is_refused(scheme, embedding):
    other = UnprotectedTemplates(dim=65)
    with pytest.raises(UnknownSchemeError):
        scheme.enrol(embedding, key=other.new_key())
    with pytest.raises(UnknownSchemeError):
        scheme.mapping([other.new_key()])


def test_keys_and_templates_show_and_copy_nowhere(scheme, embedding):
    key = scheme.new_key()
    template = scheme.enrol(embedding, key=key)
    for secret in (key, template):
        shown = repr(secret) + str(secret)
        assert "redacted" in shown
        for number in (key.binding.hex(), str(key.material), str(list(key.binding))):
            assert not number or number == "b''" or number not in shown
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(UnsupportableError, match="cannot be pickled"):
                attempt(secret)


def test_the_mapping_is_what_enrolment_does_and_can_be_differentiated(scheme, embedding):
    keys = [scheme.new_key() for _ in range(3)]
    rows = np.stack([np.roll(embedding, shift) for shift in range(3)]).astype(np.float64)
    mapping = scheme.mapping(keys)
    assert isinstance(mapping, TemplateMapping) and mapping.is_deployed and mapping.num_rows == 3
    assert (mapping.in_dim, mapping.out_dim) == (scheme.in_dim, scheme.out_dim)
    mapped = mapping.apply(rows)
    for row, key, out in zip(rows, keys, mapped, strict=True):
        values = scheme.enrol(row, key=key).values_K
        np.testing.assert_allclose(out / np.linalg.norm(out), values, atol=1e-3)
    np.testing.assert_allclose(mapping.apply(7.5 * rows), mapped, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mapping.rows([2, 0]).apply(rows[[2, 0]]), mapped[[2, 0]], rtol=1e-12)
    weights, direction = np.ones_like(mapped), np.roll(rows, 3, axis=1)
    slope = ((mapping.apply(rows + 1e-6 * direction) - mapping.apply(rows - 1e-6 * direction)) / 2e-6).sum(1)
    exact = (mapping.pullback(rows, weights) * direction).sum(1)
    np.testing.assert_allclose(exact, slope, rtol=1e-4, atol=1e-6 * max(1.0, np.abs(slope).max()))
    guessed = scheme.guessed_mapping(2)
    assert not guessed.is_deployed and guessed.apply(rows[:2]).shape == (2, scheme.out_dim)


def test_the_public_config_rebuilds_it(scheme, embedding):
    rebuilt = type(scheme)(**json.loads(json.dumps(dict(scheme.public_config()))))
    key = scheme.new_key()
    assert rebuilt.to_bytes(rebuilt.enrol(embedding, key=key)) == scheme.to_bytes(scheme.enrol(embedding, key=key))


def test_no_global_randomness(scheme, embedding):
    state = np.random.get_state()[1].copy()
    scheme.renew(embedding)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("kind", ["batch", "short", "nan", "infinite", "not unit", "zero"])
def test_bad_embeddings_are_refused_and_not_repeated(scheme, embedding, kind):
    given, error = {
        "batch": (embedding[None], ShapeError),
        "short": (embedding[:-1], ShapeError),
        "nan": (np.where(np.arange(64) == 3, np.nan, embedding), RangeError),
        "infinite": (np.where(np.arange(64) == 3, np.inf, embedding), RangeError),
        "not unit": (embedding * 1.5, RangeError),
        "zero": (embedding * 0, RangeError),
    }[kind]
    key = scheme.new_key()
    template = scheme.enrol(embedding, key=key)
    for call in (lambda: scheme.enrol(given, key=key), lambda: scheme.probe(given, key=key, like=template)):
        with pytest.raises(error) as caught:
            call()
        for number in np.ravel(embedding)[:8]:
            assert f"{number:.4f}" not in str(caught.value)
