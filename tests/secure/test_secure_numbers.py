"""Fixed-point numbers, sharing and keystreams."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.secure import FixedPoint, PairwiseKeys, SharedRows, reconstruct_rows, share_rows, share_threshold
from reference import secure_matching

VALUES = ["int8", "int16"]


def unit(num, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def longest_when_rounded(dim, scale):
    """Unit rows whose scaled coordinates lie just above a half: rounding increases their norm most."""
    row = np.full(dim, 1 / math.sqrt(dim))
    steps = np.floor(row[0] * scale) + 0.5
    row[: dim // 2] = (steps + 1e-9) / scale
    rest = 1 - np.square(row[: dim // 2]).sum()
    row[dim // 2 :] = math.sqrt(rest / (dim - dim // 2))
    return np.stack([row, -row, np.full(dim, 1 / math.sqrt(dim))])


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 127, 128, 512, 4096])
def test_score_minus_threshold_never_overflows_the_ring(values, dim):
    fixed_point = FixedPoint(dim=dim, values=values)
    rows = np.concatenate([unit(50, dim), longest_when_rounded(dim, fixed_point.scale) if dim > 1 else [[1.0]]])
    integers = fixed_point.signed(fixed_point.quantise(rows))
    assert np.abs(integers).max() <= np.iinfo(values).max
    scores = integers @ integers.T
    largest = 2 ** (fixed_point.ring_bits // 2 - 1) - 1
    assert np.square(integers).sum(axis=1).max() <= largest**2
    for threshold in (-1.0, 1.0):
        difference = scores - fixed_point.integer_threshold(threshold)
        assert np.abs(difference).max() < 2 ** (fixed_point.ring_bits - 1)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dim", [2, 128, 512])
def test_errors_are_within_the_bound_and_have_the_typical_size(values, dim):
    fixed_point = FixedPoint(dim=dim, values=values)
    rows = unit(300, dim)
    integers = fixed_point.signed(fixed_point.quantise(rows))
    error = (integers @ integers.T / fixed_point.scale**2 - rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
    assert np.abs(error).max() <= fixed_point.largest_error
    if dim > 2:
        assert np.sqrt(np.square(error).mean()) == pytest.approx(fixed_point.typical_error, rel=0.1)


def test_quantised_coordinates_equal_the_reference():
    fixed_point = FixedPoint(dim=512, values="int8")
    rows = unit(5, 512)
    assert fixed_point.signed(fixed_point.quantise(rows)).tolist() == secure_matching.quantised(rows, fixed_point.scale)


@given(score=st.integers(-(115**2), 115**2))
def test_a_score_equal_to_the_threshold_is_accepted(score):
    fixed_point = FixedPoint(dim=512, values="int8")
    assert fixed_point.scale == 115
    assert fixed_point.integer_threshold(score / 115**2) == score
    if score < 115**2:
        assert fixed_point.integer_threshold(np.nextafter(score / 115**2, 2)) == score + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.01, -1.01])
def test_thresholds_outside_the_range_are_rejected(bad):
    with pytest.raises(RangeError, match="threshold"):
        FixedPoint(dim=4).integer_threshold(bad)


def test_invalid_embeddings_and_parameters_are_rejected():
    fixed_point = FixedPoint(dim=4)
    with pytest.raises(RangeError, match="finite"):
        fixed_point.quantise([[np.nan, 0, 0, 1]])
    with pytest.raises(RangeError, match="norm 1"):
        fixed_point.quantise([[2.0, 0, 0, 1]])
    with pytest.raises(ShapeError):
        fixed_point.quantise(unit(2, 5))
    with pytest.raises(ShapeError):
        fixed_point.quantise(np.empty((0, 4)))
    with pytest.raises(RangeError, match="dim"):
        FixedPoint(dim=5000)
    with pytest.raises(InvalidInputError, match="int8"):
        FixedPoint(dim=4, values="float32")


@settings(deadline=None, max_examples=20)
@given(num=st.integers(1, 5), dim=st.integers(1, 9), values=st.sampled_from(VALUES), seed=st.integers(0, 99))
def test_any_two_parties_reconstruct(num, dim, values, seed):
    fixed_point = FixedPoint(dim=dim, values=values)
    rows = unit(num, dim, seed)
    shares = share_rows(rows, fixed_point)
    expected = fixed_point.signed(fixed_point.quantise(rows))
    for one in range(3):
        for other in {0, 1, 2} - {one}:
            np.testing.assert_array_equal(reconstruct_rows(shares[one], shares[other]), expected)


def test_one_partys_words_are_uniform_for_all_inputs():
    """Two opposite rows: chi-square of the bytes, against uniform and against each other."""
    from scipy.stats import chi2, chi2_contingency

    fixed_point = FixedPoint(dim=512, values="int8")
    row = np.zeros((200, 512))
    row[:, 0] = 1
    for party in range(3):
        counts = np.array(
            [
                np.bincount(share_rows(rows, fixed_point)[party].words_NW.reshape(-1).view(np.uint8), minlength=256)
                for rows in (row, -row)
            ]
        )
        expected = counts.sum(axis=1, keepdims=True) / 256
        statistic = (np.square(counts - expected) / expected).sum(axis=1)
        assert chi2.sf(statistic, 255).min() > 1e-9
        assert chi2_contingency(counts).pvalue > 1e-9


def test_shares_of_different_sharings_are_rejected():
    fixed_point = FixedPoint(dim=8)
    one, other = share_rows(unit(2, 8), fixed_point), share_rows(unit(2, 8), fixed_point)
    with pytest.raises(InvalidInputError, match="different sharings"):
        reconstruct_rows(one[0], other[1])
    with pytest.raises(InvalidInputError, match="two parties"):
        reconstruct_rows(one[0], one[0])
    with pytest.raises(InvalidInputError, match="different parties"):
        SharedRows.concatenate([one[0], other[1]])
    with pytest.raises(InvalidInputError, match="at least one part"):
        SharedRows.concatenate([])
    joined = [SharedRows.concatenate([one[i], other[i]]) for i in range(3)]
    assert len(joined[0]) == 4 and joined[0].digest() == joined[1].digest() != one[0].digest()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"party": 3}, InvalidInputError),
        ({"words_NW": np.zeros((2, 15), np.uint32)}, ShapeError),
        ({"words_NW": np.zeros((2, 16), np.uint16)}, InvalidInputError),
        ({"ids_N16": np.zeros((1, 16), np.uint8)}, ShapeError),
    ],
)
def test_inconsistent_shares_are_rejected(change, error):
    given_ = {
        "party": 0,
        "fixed_point": FixedPoint(dim=8),
        "ids_N16": np.zeros((2, 16), np.uint8),
        "words_NW": np.zeros((2, 16), np.uint32),
    }
    SharedRows(**given_)
    with pytest.raises(error):
        SharedRows(**(given_ | change))


def test_threshold_shares_sum_to_the_threshold():
    fixed_point = FixedPoint(dim=8, values="int8")
    shares = share_threshold(-0.25, fixed_point)
    total = shares[0].words_2.astype(int).sum() + int(shares[1].words_2[1])
    assert fixed_point.signed(np.array([total % 2**16]))[0] == fixed_point.integer_threshold(-0.25)
    assert len({share.sharing for share in shares}) == 1


def test_keystream_is_aes_in_counter_mode():
    """AES-128 of the blocks 0 and 1 under the zero key: H and E(Y0) of test case 1 of the GCM specification."""
    from ppfr.secure._keystream import Keystream

    stream = Keystream(bytes(16), 0)
    assert stream.words(16, np.uint8).tobytes().hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e"
    assert stream.words((2, 1), np.uint64).tobytes().hex() == "58e2fccefa7e3061367f1d57a4e7455a"
    long = Keystream(bytes(16), 0).words(1 << 17, np.uint64)
    parts = Keystream(bytes(16), 0)
    np.testing.assert_array_equal(
        long, np.concatenate([parts.words(n, np.uint64) for n in (3, 40000, (1 << 17) - 40003)])
    )
    assert not np.array_equal(long[:4], Keystream(bytes(16), 1).words(4, np.uint64))
    with pytest.raises(RangeError, match="16"):
        Keystream(b"short", 0)
    with pytest.raises(RangeError, match="number"):
        Keystream(bytes(16), -1)


def test_masks_of_three_parties_cancel(three_parties):
    from ppfr.secure._keystream import ZeroShares

    def draw(_party, _channel, keys):
        masks = ZeroShares(keys, 7)
        return masks.of_sum((3, 5), np.uint16), masks.of_xor(9)

    drawn = three_parties(draw)
    assert not np.any(sum(part[0] for part in drawn))
    assert not np.any(drawn[0][1] ^ drawn[1][1] ^ drawn[2][1])


def test_agreed_keys_are_pairwise_and_not_shown(three_parties):
    keys = three_parties(lambda _party, channel, _keys: PairwiseKeys.agree(channel))
    assert [key.next for key in keys] == [keys[1].own, keys[2].own, keys[0].own]
    assert len({key.own for key in keys}) == 3 and keys[0].own.hex() not in repr(keys[0])
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(keys[0])
