"""The parties' check of shared inputs: whatever a client shares, only embeddings of norm 1 are answered or stored."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InputCheckError, PartyError
from ppfr.secure import FixedPoint, Party, check_inputs, open_answers, share_inputs, share_query, share_rows
from ppfr.secure._input_check import InputCheck
from ppfr.secure._inputs import input_words, seeded_words

CHALLENGE = bytes(range(32))
VALUES = ["int8", "int16"]


def unit(num, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def shared(words_NX, point):
    """Three parties' inputs of any words."""
    return [part.expanded() for part in seeded_words(np.asarray(words_NX).astype(point.wide_dtype), point)]


def verdicts(three_parties, inputs, *, number=0, challenge=CHALLENGE):
    """None, or the error, at each party; the parties must remain in step, which a second check shows."""
    good = share_inputs(unit(1, inputs[0].fixed_point.dim), inputs[0].fixed_point)

    def work(party, channel, keys):
        try:
            check_inputs(inputs[party], keys, channel, number=number, challenge=challenge)
        except InputCheckError as error:
            found = error
        else:
            found = None
        check_inputs(good[party], keys, channel, number=number + 1, challenge=challenge)
        return found

    return three_parties(work)


def is_refused(three_parties, inputs):
    found = verdicts(three_parties, inputs)
    assert len({type(error) for error in found}) == 1  # the parties agree
    return found[0] is not None


@settings(deadline=None, max_examples=25)
@given(
    num=st.integers(1, 4),
    dim=st.sampled_from([1, 2, 3, 64, 512, 4096]),
    values=st.sampled_from(VALUES),
    is_sparse=st.booleans(),
    seed=st.integers(0, 999),
)
def test_embeddings_of_norm_1_pass(three_parties, num, dim, values, is_sparse, seed):
    rows = unit(num, dim, seed)
    if is_sparse:
        rows = np.eye(dim)[np.random.default_rng(seed).integers(0, dim, num)] * (-1) ** seed
    assert not is_refused(three_parties, share_inputs(rows, FixedPoint(dim=dim, values=values)))


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dim", [1, 7, 512, 4096])
def test_the_bits_express_exactly_the_allowed_norms(dim, values):
    point = FixedPoint(dim=dim, values=values)
    low, high = point.squared_norm_bounds
    weights = point.slack_weights
    sums = {0}
    for weight in weights:
        sums |= {total + weight for total in sums}
    assert sums == set(range(high - low + 1))
    # A rounded unit row is within sqrt(D)/2 of norm s.
    assert low <= (point.scale - dim**0.5 / 2) ** 2 and (point.scale + dim**0.5 / 2) ** 2 <= high
    # The largest sum of squares that the coordinates' check lets through does not overflow the wide ring.
    assert 2.25 * dim * 2**point.ring_bits < 2 ** (8 * point.wide_dtype.itemsize)


def test_lower_halves_are_the_shares_of_the_ring():
    point = FixedPoint(dim=5, values="int8")
    rows = unit(3, 5)
    parts = [part.rows() for part in share_inputs(rows, point)]
    total = parts[0].words_NW[:, :5] + parts[1].words_NW[:, :5] + parts[2].words_NW[:, :5]
    np.testing.assert_array_equal(point.signed(total), point.signed(point.quantise(rows)))


def crooked_values(point):
    """Named (1, D) integers that a hostile client shares as if they were an embedding, with the best bits there are."""
    honest = point.signed(point.quantise(unit(1, point.dim)))
    half, ring = 1 << (point.ring_bits // 2), 1 << point.ring_bits
    one = np.zeros_like(honest)
    one[0, 0] = 1
    return {
        "twice as long": 2 * honest,
        "a third longer": np.rint(1.35 * honest).astype(np.int64),
        "half as long": honest // 2,
        "zero": 0 * honest,
        "a coordinate of 1": one,
        "as long as the ring": (ring // 2 - 1) * one,
        "a wrap of the ring": honest + ring * one,
        "many wraps of the ring": honest + ring * np.arange(point.dim),
        "a wrap of half of the ring": honest + ring // 2 * one,
        "a coordinate beyond its bound": honest + 2 * half * one,
        "a row and far too much": honest + 1000 * half * one,
        "equal coordinates": np.full_like(honest, half // 4),
    }


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dim", [16, 512])
def test_no_crooked_input_passes(three_parties, dim, values):
    point = FixedPoint(dim=dim, values=values)
    for name, values_1D in crooked_values(point).items():
        assert is_refused(three_parties, shared(input_words(values_1D, point), point)), name
        for bits in (0, -1, 5):  # and with other bits
            words = input_words(values_1D, point)
            words[:, dim:] = np.array(bits).astype(words.dtype)
            assert is_refused(three_parties, shared(words, point)), (name, bits)


@pytest.mark.parametrize("values", VALUES)
def test_a_norm_that_only_looks_right_modulo_the_ring_is_refused(three_parties, values):
    """Coordinates so large that their squares wrap to the right norm: only their size gives them away."""
    point = FixedPoint(dim=16, values=values)
    width = 8 * point.wide_dtype.itemsize
    honest = point.signed(point.quantise(unit(1, 16))).astype(object)
    crooked = honest.copy()
    crooked[0, 0] += 1 << (width - 1)  # (y + 2^(K-1))^2 = y^2 modulo 2^K; of no use, since low halves agree
    crooked[0, 1] = crooked[0, 1] + (1 << (width // 2))  # adds 2^(K/2 + 1) y, which its own bits cannot express
    words = input_words(point.signed(point.quantise(unit(1, 16))), point)
    words[0, :16] = [value % (1 << width) for value in crooked[0]]
    assert is_refused(three_parties, shared(words, point))
    # Bits that are no bits can express any norm: only c (c + 1) = 0 gives them away.
    words = input_words(2 * point.signed(point.quantise(unit(1, 16))), point)
    low, _ = point.squared_norm_bounds
    distance = int(np.square(2 * point.signed(point.quantise(unit(1, 16)))).sum()) - low
    words[0, 16:] = 0
    words[0, 16] = -distance % (1 << width)
    assert is_refused(three_parties, shared(words, point))


@pytest.mark.parametrize("values", VALUES)
def test_one_crooked_row_of_many_is_found(three_parties, values):
    point = FixedPoint(dim=32, values=values)
    words = input_words(point.signed(point.quantise(unit(1100, 32))), point)
    assert not is_refused(three_parties, shared(words, point))
    for place in (0, 600, 1099):
        bent = words.copy()
        bent[place : place + 1, 3] += point.wide_dtype.type(1 << (point.ring_bits // 2 + 1))
        assert is_refused(three_parties, shared(bent, point))


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("component", range(3))
def test_a_component_with_two_different_copies_is_refused(three_parties, component, values):
    """By the party that has a copy. The others' parts of an answer are of no use without its part."""
    point = FixedPoint(dim=8, values=values)
    inputs = list(share_inputs(unit(2, 8), point))
    holder = (component - 1) % 3  # it holds the component as that of the next party
    words_2NX = inputs[holder].words_2NX.copy()
    words_2NX[1, 1, 4] += 1
    inputs[holder] = dataclasses.replace(inputs[holder], words_2NX=words_2NX)
    found = verdicts(three_parties, inputs)
    assert isinstance(found[holder], InputCheckError) and "different shares" in str(found[holder])


def query_of(inputs, kind, point, num_claims, threshold=0.9):
    references = np.zeros((num_claims, 1), np.int64) if kind == "verify" else None
    queries = share_query(
        kind, unit(len(inputs[0]), point.dim), fixed_point=point, threshold=threshold, references_NR=references
    )
    return [dataclasses.replace(query, probes=part) for query, part in zip(queries, inputs, strict=True)]


def answered(three_parties, galleries, queries, good):
    """The answers or errors at the three parties, and then the answers to a good query in the same session."""

    def work(party, channel, keys):
        server = Party(galleries[party], keys, channel)
        try:
            found = server.answer(queries[party], number=0, challenge=CHALLENGE)
        except InputCheckError as error:
            found = error
        return found, server.answer(good[party], number=1, challenge=CHALLENGE)

    results = three_parties(work)
    return [found for found, _ in results], [after for _, after in results]


@pytest.mark.parametrize("kind", ["verify", "any", "set", "best"])
@pytest.mark.parametrize("values", VALUES)
def test_a_crooked_probe_gets_no_answer_and_does_not_disturb_others(three_parties, kind, values):
    """A probe that is far too long would be accepted as anybody; see the next test."""
    point = FixedPoint(dim=16, values=values)
    galleries = share_rows(unit(3, 16, seed=4), point)
    good = query_of(share_inputs(unit(1, 16, seed=4), point), kind, point, 1)
    for values_1D in crooked_values(point).values():
        crooked = shared(input_words(values_1D, point), point)
        found, after = answered(three_parties, galleries, query_of(crooked, kind, point, 1), good)
        assert all(isinstance(one, InputCheckError) for one in found)
        assert np.asarray(open_answers(after)).size


@pytest.mark.parametrize("component", range(3))
def test_a_probe_with_different_copies_gets_no_answer(three_parties, component):
    """The party with the odd copy withholds its part, and two parts say nothing about the decision."""
    point = FixedPoint(dim=16, values="int8")
    galleries = share_rows(unit(3, 16, seed=4), point)
    inputs = list(share_inputs(unit(1, 16), point))
    holder = (component - 1) % 3
    words_2NX = inputs[holder].words_2NX.copy()
    words_2NX[1, 0, 0] += 1
    inputs[holder] = dataclasses.replace(inputs[holder], words_2NX=words_2NX)
    good = query_of(share_inputs(unit(1, 16, seed=4), point), "any", point, 1)
    found, _ = answered(three_parties, galleries, query_of(inputs, "any", point, 1), good)
    assert isinstance(found[holder], InputCheckError)


def test_without_the_check_a_long_row_is_a_master_key_and_a_long_probe_reads_templates(three_parties, monkeypatch):
    """What the check prevents: otherwise the inputs of these tests would be harmless, and prove nothing."""
    monkeypatch.setattr(InputCheck, "conclude", lambda _self: None)
    point = FixedPoint(dim=16, values="int16")
    strangers = unit(40, 16, seed=9)
    row = point.signed(point.quantise(unit(1, 16)))
    key = np.concatenate([sign * length * row for sign in (1, -1) for length in (2, 3, 4, 6, 9, 13)])
    queries = query_of(share_inputs(strangers, point), "any", point, 40)
    for rows, is_master_key in (
        ([part.rows() for part in shared(input_words(key, point), point)], True),
        (share_rows(unit(12, 16), point), False),
    ):
        found, _ = answered(three_parties, rows, queries, queries)
        assert (open_answers(found).mean() > 0.6) == is_master_key
    # c e_j against a template: the sign of c t_j - threshold, for any c; a few decisions read the coordinate.
    template = point.signed(point.quantise(unit(1, 16, seed=5)))
    galleries = share_rows(unit(1, 16, seed=5), point)

    def decides(scale):
        probe = np.zeros((1, 16), np.int64)
        probe[0, 3] = scale
        queries = query_of(shared(input_words(probe, point), point), "any", point, 1, 0.05)
        found, _ = answered(three_parties, galleries, queries, queries)
        return bool(open_answers(found)[0])

    least = point.integer_threshold(0.05)
    sign = 1 if decides(1 << 17) else -1
    low, high = 1, 1 << 17  # the least scale that is accepted tells the coordinate
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(sign * middle) else (middle + 1, high)
    assert sign * -(-least // low) in range(template[0, 3] - 4, template[0, 3] + 5)


def test_soundness_of_one_random_word_is_as_documented():
    """The error that is hardest to find, of the least weight that matters, passes as often as the formula says."""
    from ppfr.secure._input_check import _num_sums

    rng = np.random.default_rng(0)
    for dim, values in itertools.product((16, 512, 4096), VALUES):
        point = FixedPoint(dim=dim, values=values)
        width = 8 * point.wide_dtype.itemsize
        largest = int(2.25 * dim * 2**point.ring_bits)
        assert _num_sums(point) * (width - largest.bit_length() + 1) >= 64
        # An equation that is wrong by 2^(bit_length - 1): the product with a word is 0 modulo 2^K for one in this many.
        wrong = point.wide_dtype.type(1 << (largest.bit_length() - 1))
        expected = 2.0 ** -(width - largest.bit_length() + 1)
        if expected > 1e-3:
            words = rng.integers(0, 1 << width, size=400_000, dtype=point.wide_dtype)
            assert abs(float(np.mean(words * wrong == 0)) - expected) < 5 * (expected / 400_000) ** 0.5


def test_parties_that_check_different_inputs_name_each_other(three_parties):
    point = FixedPoint(dim=8)
    one, other = share_inputs(unit(1, 8), point), share_inputs(unit(1, 8), point)

    def work(party, channel, keys):
        try:
            check_inputs((one, other, one)[party][party], keys, channel, number=0, challenge=CHALLENGE)
        except PartyError as error:
            channel.close()
            return error
        return None

    errors = three_parties(work)
    assert any(error is not None and "another query" in str(error) for error in errors)
