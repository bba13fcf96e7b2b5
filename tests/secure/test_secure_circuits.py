"""Kernels against slow references; adders, signs and tournaments on shares against integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.secure import NumbaProducts, TorchProducts
from ppfr.secure._circuits import (
    all_lanes,
    best_not_negative,
    carries,
    largest,
    not_negative,
    prefix_levels,
    sum_bits,
)
from ppfr.secure._keystream import ZeroShares
from ppfr.secure._rounds import Rounds, filled_lanes, sliced, unsliced
from reference import secure_matching

TYPES = [np.uint16, np.uint32]


def drawn(shape, dtype, seed):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)


@settings(deadline=None, max_examples=15)
@given(
    num_rows=st.integers(1, 19),
    num_probes=st.integers(1, 9),
    width=st.integers(1, 70),
    dtype=st.sampled_from(TYPES),
    seed=st.integers(0, 99),
)
def test_products_equal_the_reference(num_rows, num_probes, width, dtype, seed):
    rows, probes = drawn((num_rows, width), dtype, seed), drawn((num_probes, width), dtype, seed + 1)
    bits = 8 * np.dtype(dtype).itemsize
    expected = [[secure_matching.ring_product(row, probe, bits) for row in rows] for probe in probes]
    reference = np.random.default_rng(seed).integers(0, num_rows, size=num_probes)
    for products in (NumbaProducts(rows), TorchProducts(rows)):
        found = products.of_all(probes)
        assert found.dtype == dtype and found.tolist() == expected
        pairs = products.of_pairs(probes, reference)
        assert pairs.dtype == dtype and pairs.tolist() == [expected[n][r] for n, r in enumerate(reference)]


@pytest.mark.parametrize("dtype", TYPES)
def test_the_largest_sums_are_exact(dtype):
    """Maximal words at the maximal width, where float64 would lose a bit first."""
    rows = np.full((2, 8192), np.iinfo(dtype).max, dtype=dtype)
    rows[1] = 1 << (8 * np.dtype(dtype).itemsize - 1)
    expected = NumbaProducts(rows).of_all(rows)
    np.testing.assert_array_equal(TorchProducts(rows).of_all(rows), expected)
    bits = 8 * np.dtype(dtype).itemsize
    assert int(expected[0, 0]) == 8192 * (2**bits - 1) ** 2 % 2**bits


@settings(deadline=None, max_examples=15)
@given(num=st.integers(1, 200), dtype=st.sampled_from(TYPES), seed=st.integers(0, 99))
def test_bit_slices_equal_the_reference(num, dtype, seed):
    values = drawn((2, num), dtype, seed)
    planes = sliced(values)
    for row in range(2):
        assert planes[:, row].tolist() == secure_matching.sliced(values[row], planes.shape[0])
    for k, plane in enumerate(planes):
        np.testing.assert_array_equal(unsliced(plane, num), (values >> k & 1).astype(bool))
    assert unsliced(filled_lanes(num)[None], len(filled_lanes(num)) * 64)[0].tolist() == [
        i < num for i in range(len(filled_lanes(num)) * 64)
    ]


@pytest.mark.parametrize("num_bits", range(1, 33))
@pytest.mark.parametrize("every_carry", [False, True])
def test_prefix_network_computes_the_carries_of_addition(num_bits, every_carry):
    """The network in the clear."""
    rng = np.random.default_rng(num_bits)
    x, y = rng.integers(0, 2, size=(2, num_bits, 100), dtype=np.int64)
    state = np.concatenate([x & y, x ^ y])
    for left, right, num_g in prefix_levels(num_bits, every_carry=every_carry):
        made = state[left] & state[right]
        state[left[:num_g] - num_bits] ^= made[:num_g]
        state[left[num_g:]] = made[num_g:]
    weights = 1 << np.arange(num_bits)[:, None]
    for j in range(num_bits) if every_carry else [num_bits - 1]:
        total = (x[: j + 1] * weights[: j + 1]).sum(0) + (y[: j + 1] * weights[: j + 1]).sum(0)
        np.testing.assert_array_equal(state[j], total >> (j + 1))


def test_cost_of_a_comparison_is_as_documented():
    """Gates and rounds stated in docs/methods/secure-matching.md: 15 and 31 bits, only the last carry."""
    for num_bits, gates, levels in ((15, 39, 4), (31, 86, 5)):
        network = prefix_levels(num_bits, every_carry=False)
        assert (num_bits + sum(len(left) for left, _, _ in network), len(network)) == (gates, levels)


def at_three(three_parties, values, circuit, *, seed=0):
    """Share ring elements, run a circuit on their two summands at each party and open its bits."""
    low, high = drawn((2, *values.shape), values.dtype, seed)
    components = [low, high, values - low - high]

    def work(party, channel, keys):
        rounds = Rounds(party, channel, ZeroShares(keys, seed))
        shared = np.stack([components[party], components[(party + 1) % 3]])
        return circuit(rounds, *rounds.to_summands(shared))

    shares = three_parties(work)
    for party in range(3):
        np.testing.assert_array_equal(shares[party][1], shares[(party + 1) % 3][0])  # replicated
    return shares[0][0] ^ shares[1][0] ^ shares[2][0]


@pytest.mark.parametrize("dtype", TYPES)
def test_signs_of_all_values(three_parties, dtype):
    """All elements of the 16-bit ring; edge cases and random elements of the 32-bit ring."""
    bits = 8 * np.dtype(dtype).itemsize
    edges = np.array([0, 1, 2, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2 ** (bits - 1) + 1, 2**bits - 2, 2**bits - 1])
    values = np.arange(2**16) if bits == 16 else np.concatenate([edges, drawn(3000, np.uint32, 1)])
    values = values.astype(dtype)[None]
    opened = at_three(three_parties, values, not_negative)
    np.testing.assert_array_equal(unsliced(opened[0], values.shape[1]), values < 2 ** (bits - 1))


@settings(deadline=None, max_examples=8)
@given(num=st.integers(1, 130), rows=st.integers(1, 3), dtype=st.sampled_from(TYPES), seed=st.integers(0, 999))
def test_adder_is_integer_addition(three_parties, num, rows, dtype, seed):
    values = drawn((rows, num), dtype, seed)
    opened = at_three(three_parties, values, sum_bits, seed=seed)
    for k, plane in enumerate(opened):
        np.testing.assert_array_equal(unsliced(plane, num), (values >> k & 1).astype(bool))
    last = at_three(three_parties, values, lambda rounds, x, y: carries(rounds, x, y)[:, -1:], seed=seed)
    every = at_three(three_parties, values, lambda rounds, x, y: carries(rounds, x, y, every_carry=True), seed=seed)
    np.testing.assert_array_equal(last[0], every[-1])


@pytest.mark.parametrize("num", [1, 2, 63, 64, 65, 130, 321])
def test_largest_returns_the_first_maximum(three_parties, num):
    """Few distinct numbers, so there are many ties."""
    values = np.random.default_rng(num).integers(0, 4, size=(3, num)).astype(np.uint16)
    values[2] = 2**15  # all equal, and the minimum of signed numbers
    width = -(-num // 64)

    def circuit(rounds, x, y):
        number, index = largest(rounds, sum_bits(rounds, x, y) & filled_lanes(num))
        return np.concatenate([number, index], axis=1)

    planes = (at_three(three_parties, values, circuit)[:, :, 0] & np.uint64(1)).astype(np.int64)
    weights = 1 << np.arange(16)
    np.testing.assert_array_equal(weights @ planes[:16], values.max(axis=1))
    index = planes[16:]
    word = (index[:-6] << np.arange(len(index) - 6)[:, None]).sum(axis=0)
    lane = (index[-6:] << np.arange(6)[:, None]).sum(axis=0)
    np.testing.assert_array_equal(lane * width + word, values.argmax(axis=1))


def test_the_best_index_is_hidden_if_none_is_accepted(three_parties):
    values = np.array([[-5, -1, -9], [-5, 0, -9]], dtype=np.int16).view(np.uint16)
    opened = at_three(three_parties, values, lambda rounds, x, y: best_not_negative(rounds, x, y, filled_lanes(3)))
    bits = opened[:, :, 0] & np.uint64(1)
    assert bits[:, 0].tolist() == [0] * 7 and bits[:, 1].tolist() == [1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("num", [1, 64, 65, 200])
def test_all_lanes_is_the_conjunction_of_a_probes_lanes(three_parties, num):
    values = np.full((3, num), 2**16 - 1, dtype=np.uint16)
    values[1, num - 1] = 1
    values[2, 0] = 1

    def circuit(rounds, x, y):
        return all_lanes(rounds, rounds.inverted(not_negative(rounds, x, y) & filled_lanes(num)))

    opened = at_three(three_parties, values, circuit)[0, :, 0] & np.uint64(1)
    assert opened.tolist() == [1, 0, 0]
