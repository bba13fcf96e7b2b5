"""Records: golden bytes of version 1, and rejected input."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, SubjectKey, UnknownSchemeError
from ppfr.templates import IdentityMapping, UnprotectedTemplates, scheme_of

# Records of format version 1. They must remain readable: do not regenerate these bytes.
GOLDEN_TEMPLATE = bytes.fromhex(
    "50504652544d504c010001006964656e746974792d6d617070696e670000000000000000010000000400000008000000"
    "03000100cd3b7f669ea00640000000000000000000000000000000008707ee467d72c640782073934f631a6ed681b01a"
    "c19e4dd77c3ded67dd3380e700000000c2dbb54411cef6856b2e4983d06a6da359ce7cbffd9f143c1a0006bd56751dbe"
)
GOLDEN_KEY = bytes.fromhex(
    "50504652534b4559010001006964656e746974792d6d617070696e670000000000000000000000002600000008000000"
    "03000100cd3b7f669ea00640000000000000000000000000000000008707ee467d72c640782073934f631a6e00000000"
    "0000000000000000000000000000000085309712e6f38311cdc2ad700e5cee3ff9320302030100010203040506070809"
    "0a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)
GOLDEN_EMBEDDING = np.array([0.5, -0.5, 0.1, 0.1, 0.1, 0.1, -0.6708204, 0.1], np.float32)


def golden_scheme() -> IdentityMapping:
    return IdentityMapping(dim=8, num_terms=3, overlap=1)


def test_golden_records_of_version_1():
    scheme = golden_scheme()
    key = scheme.key_from_bytes(GOLDEN_KEY)
    template = scheme.from_bytes(GOLDEN_TEMPLATE)
    embedding = GOLDEN_EMBEDDING / np.linalg.norm(GOLDEN_EMBEDDING)
    assert scheme.score(scheme.probe(embedding, key=key, like=template), template) == pytest.approx(1, abs=1e-6)
    assert scheme.to_bytes(template) == GOLDEN_TEMPLATE
    assert scheme.key_to_bytes(key) == GOLDEN_KEY
    assert scheme.to_bytes(scheme.enrol(embedding, key=key)) == GOLDEN_TEMPLATE
    assert scheme_of(GOLDEN_TEMPLATE).public_config()["overlap"] == 1
    assert scheme_of(GOLDEN_KEY, kind="key").in_dim == 8


def test_record_contains_neither_key_nor_embedding(people):
    scheme = IdentityMapping(dim=64)
    embedding = people(1, 64)[0][0]
    key = scheme.new_key()
    record = scheme.to_bytes(scheme.enrol(embedding, key=key))
    for secret in (key.material, key.binding, key.material[:5], key.binding[:8], embedding[:4].tobytes()):
        assert secret not in record


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_changed_byte_is_detected(data):
    scheme = golden_scheme()
    for golden, read in ((GOLDEN_TEMPLATE, scheme.from_bytes), (GOLDEN_KEY, scheme.key_from_bytes)):
        damaged = bytearray(golden)
        damaged[data.draw(st.integers(0, len(golden) - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises((CorruptTemplateError, OutdatedTemplateError)):
            read(bytes(damaged))
        with pytest.raises(CorruptTemplateError):
            read(golden[: data.draw(st.integers(0, len(golden) - 1))])
        with pytest.raises(CorruptTemplateError):
            read(golden + b"\0")


def with_valid_checksum(record: bytes) -> bytes:
    """The record with a recomputed checksum."""
    without = record[:112] + bytes(16) + record[128:]
    return record[:112] + hashlib.sha256(without).digest()[:16] + record[128:]


def test_unsupported_versions_and_unknown_schemes_are_distinguished():
    scheme = golden_scheme()
    newer = bytearray(GOLDEN_TEMPLATE)
    newer[8:10] = struct.pack("<H", 2)
    with pytest.raises(OutdatedTemplateError, match="format version 2, but this release reads 1"):
        scheme.from_bytes(bytes(newer))
    later = bytearray(GOLDEN_TEMPLATE)
    later[10:12] = struct.pack("<H", 7)
    with pytest.raises(OutdatedTemplateError, match="version 7 of identity-mapping"):
        scheme.from_bytes(with_valid_checksum(bytes(later)))
    with pytest.raises(OutdatedTemplateError, match="version 7 of identity-mapping"):
        scheme_of(with_valid_checksum(bytes(later)))
    foreign = bytearray(GOLDEN_TEMPLATE)
    foreign[12:16] = b"else"
    with pytest.raises(UnknownSchemeError, match=r"does not have the scheme.*identity-mapping"):
        scheme_of(with_valid_checksum(bytes(foreign)))
    with pytest.raises(UnknownSchemeError, match="scheme_of"):
        UnprotectedTemplates(dim=8).from_bytes(GOLDEN_TEMPLATE)
    odd = bytearray(GOLDEN_TEMPLATE)
    odd[44:48] = struct.pack("<I", 1)  # dim: fewer elements than terms
    with pytest.raises(UnknownSchemeError, match="not valid for this scheme; enrol again"):
        scheme_of(with_valid_checksum(bytes(odd)))


def test_template_and_key_records_are_distinguished():
    scheme = golden_scheme()
    with pytest.raises(CorruptTemplateError, match="the bytes are a key record; give a template record"):
        scheme.from_bytes(GOLDEN_KEY)
    with pytest.raises(CorruptTemplateError, match="the bytes are a template record; give a key record"):
        scheme.key_from_bytes(GOLDEN_TEMPLATE)
    with pytest.raises(CorruptTemplateError, match="not a record of this package"):
        scheme.from_bytes(bytes(200))
    with pytest.raises(CorruptTemplateError, match=r"got 0 bytes.*at least 128"):
        scheme.from_bytes(b"")


def test_non_finite_values_are_rejected():
    scheme = golden_scheme()
    damaged = GOLDEN_TEMPLATE[:128] + np.array([np.nan], "<f4").tobytes() + GOLDEN_TEMPLATE[132:]
    with pytest.raises(CorruptTemplateError, match="of which 3 are finite"):
        scheme.from_bytes(with_valid_checksum(damaged))


def test_half_precision_records_have_half_the_size_and_similar_scores(people):
    embedding, again = (rows[0] for rows in people(1, 512))
    half, full = IdentityMapping(payload="float16"), IdentityMapping()
    key = half.new_key()
    small, large = half.enrol(embedding, key=key), full.enrol(embedding, key=key)
    assert len(half.to_bytes(small)) - 128 == (len(full.to_bytes(large)) - 128) // 2 == 206
    read = full.from_bytes(half.to_bytes(small))  # either scheme reads either payload
    assert full.score(full.probe(again, key=key, like=read), read) == pytest.approx(
        full.score(full.probe(again, key=key, like=large), large), abs=1e-3
    )
    assert scheme_of(half.to_bytes(small)).public_config()["payload"] == "float16"


def test_probe_cannot_be_stored(people):
    scheme = IdentityMapping(dim=64)
    embedding = people(1, 64)[0][0]
    key = scheme.new_key()
    template = scheme.enrol(embedding, key=key)
    with pytest.raises(InvalidInputError, match="a probe cannot be stored"):
        scheme.to_bytes(scheme.probe(embedding, key=key, like=template))


def test_key_requires_a_binding_of_32_bytes():
    with pytest.raises(InvalidInputError, match="32 bytes, not 3"):
        SubjectKey(scheme_id="x", version=1, parameters=b"", material=b"", binding=b"abc")
