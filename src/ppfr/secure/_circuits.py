"""Comparisons and selections on shared bits, 64 per word: the circuits that a party evaluates.

Shared bits are (2, K, B, W): component, plane (the lowest bit first), probe, word. Value i of a probe is lane i // W of
word i % W.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr.secure._rounds import Rounds, Words

_LANE_SHIFTS = (1, 2, 4, 8, 16, 32)
_SIGN = np.s_[:, -1:]


@functools.cache
def prefix_levels(num_bits: int, *, every_carry: bool) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64], int], ...]:
    """Levels of a Sklansky prefix network, without the gates that no required carry depends on.

    A position j has g_j (its group generates a carry) and p_j (its group propagates one), planes j and num_bits + j of
    one state. At level l, where bit l of j is set, the group below ends at e = (j >> l << l) - 1: g_j ^= p_j g_e and
    p_j = p_j p_e.

    Args:
        num_bits: width of the summands.
        every_carry: compute all carries; otherwise only the last one, which needs a tree of gates.

    Returns:
        For each level, in order: left planes (always p_j, which also determines the plane that is written), right
        planes, and the number of gates, at the front, that compute g.
    """
    wanted_g, wanted_p = set(range(num_bits)) if every_carry else {num_bits - 1}, set[int]()
    levels = []
    for level in reversed(range((num_bits - 1).bit_length())):
        end = {j: (j >> level << level) - 1 for j in range(num_bits) if j >> level & 1}
        made_g, made_p = sorted(wanted_g & end.keys()), sorted(wanted_p & end.keys())
        left = np.array([num_bits + j for j in (*made_g, *made_p)], dtype=np.int64)
        right = np.array([*(end[j] for j in made_g), *(num_bits + end[j] for j in made_p)], dtype=np.int64)
        levels.append((left, right, len(made_g)))
        wanted_p |= set(made_g) | {end[j] for j in made_p}
        wanted_g |= {end[j] for j in made_g}
    return tuple(reversed(levels))


def carries(rounds: Rounds, x: Words, y: Words, *, every_carry: bool = False) -> Words:
    """Carries out of all positions of x + y, (2, K, B, W), or out of the last one only, (2, 1, B, W)."""
    num_bits = x.shape[1]
    state = np.concatenate([rounds.conjunction(x, y), x ^ y], axis=1)
    for left, right, num_g in prefix_levels(num_bits, every_carry=every_carry):
        made = rounds.and_gates(state, left, state, right)
        state[:, left[:num_g] - num_bits] ^= made[:, :num_g]
        state[:, left[num_g:]] = made[:, num_g:]
    return np.asarray(state[:, :num_bits] if every_carry else state[:, num_bits - 1 : num_bits])


def sum_bits(rounds: Rounds, x: Words, y: Words) -> Words:
    """All bits of x + y, modulo 2^K."""
    total = x ^ y
    total[:, 1:] ^= carries(rounds, x[:, :-1], y[:, :-1], every_carry=True)
    return total


def not_negative(rounds: Rounds, x: Words, y: Words) -> Words:
    """(2, 1, B, W): whether x + y, as a signed number of K bits, is at least 0."""
    sign = x[_SIGN] ^ y[_SIGN] ^ carries(rounds, x[:, :-1], y[:, :-1])
    return rounds.inverted(sign)


def any_probe(rounds: Rounds, bits: Words) -> Words:
    """(2, 1, B, W) -> (2, 1, 1, W): the disjunction of all probes, lane by lane."""
    none = rounds.inverted(bits)
    while none.shape[2] > 1:
        half = none.shape[2] // 2
        both = rounds.conjunction(none[:, :, :half], none[:, :, half : 2 * half])
        none = np.concatenate([both, none[:, :, 2 * half :]], axis=2)
    return rounds.inverted(none)


def all_lanes(rounds: Rounds, bits: Words) -> Words:
    """(2, 1, B, W) -> (2, 1, B, 1): lane 0 holds the conjunction of all lanes of the probe."""
    while bits.shape[-1] > 1:
        half = bits.shape[-1] // 2
        both = rounds.conjunction(bits[..., :half], bits[..., half : 2 * half])
        bits = np.concatenate([both, bits[..., 2 * half :]], axis=-1)
    for shift in reversed(_LANE_SHIFTS):
        bits = rounds.conjunction(bits, bits >> np.uint64(shift))
    return bits


def largest(rounds: Rounds, numbers: Words) -> tuple[Words, Words]:
    """Maximum of unsigned numbers by a tournament; of equal numbers the lower index wins.

    Neighbouring words are compared first, then neighbouring lanes. The left operand therefore always has the lower
    indices, and the choice at each level is the next bit of the winner's index.

    Args:
        rounds: the query's communication.
        numbers: (2, K, B, W).

    Returns:
        (2, K, B, 1): lane 0 holds the largest; (2, J, B, 1): its word, then its lane (6 bits), each lowest bit first.
    """
    num_planes = numbers.shape[1]
    planes = numbers
    while (width := planes.shape[-1]) > 1:
        half = width // 2
        chosen = _choose(rounds, planes[..., 0 : 2 * half : 2], planes[..., 1 : 2 * half : 2], num_planes)
        left_over = planes[..., 2 * half :]
        below = np.zeros((2, 1, *left_over.shape[2:]), dtype=np.uint64)
        planes = np.concatenate([chosen, np.concatenate([left_over, below], axis=1)], axis=-1)
    for shift in _LANE_SHIFTS:
        planes = _choose(rounds, planes, planes >> np.uint64(shift), num_planes)
    return planes[:, :num_planes], planes[:, num_planes:]


def _choose(rounds: Rounds, left: Words, right: Words, num_planes: int) -> Words:
    """Planes of the side with the larger number (the first `num_planes` planes), left if equal; then the choice."""
    takes_right = carries(rounds, right[:, :num_planes], rounds.inverted(left[:, :num_planes]))
    difference = left ^ right
    every = np.arange(difference.shape[1])
    chosen = left ^ rounds.and_gates(difference, every, takes_right, np.zeros_like(every))
    return np.concatenate([chosen, takes_right], axis=1)


def best_not_negative(rounds: Rounds, x: Words, y: Words, filled_W: NDArray[Any]) -> Words:
    """(2, 1 + J, B, 1): lane 0 holds whether any x + y >= 0, then the index of the largest (zeros if none is)."""
    total = sum_bits(rounds, x, y)
    total[_SIGN] = rounds.inverted(total[_SIGN])  # unsigned order; lanes without a value become the minimum
    number, index = largest(rounds, total & filled_W)
    found = number[_SIGN]
    every = np.arange(index.shape[1])
    masked_index = rounds.and_gates(index, every, found, np.zeros_like(every))
    return np.concatenate([found, masked_index], axis=1)
