"""A party's received messages reveal nothing: every word is uniform over the masks that the party cannot compute.

Statistical test: one sharing is repeated over a gallery, so data sent without a mask would repeat too; the bytes
received for two very different probes are compared by chi-square. Exact test: every message changes word for word with
the keystream that its receiver does not have, so it is uniform if that keystream is. Both tests detect planted bugs.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from ppfr.secure import (
    FixedPoint,
    InMemoryChannel,
    Party,
    SharedRows,
    open_answers,
    share_inputs,
    share_query,
    share_rows,
)

KINDS = ["verify", "any", "set", "best"]
# Messages in the order in which their masks are drawn, without the statement and the hash of the random sums. Party 2
# receives two more from party 0: the upper parts of the coordinates, and the bits of a summand.
RESHARED = {0: 1, 1: 1, 2: 2}
MASKED = {party: [1, 0, 2] if party < 2 else [0, 2, 1, 3, 4] for party in range(3)}
HASH = {0: 4, 1: 4, 2: 6}


class Recorded:
    """A channel that records received messages."""

    def __init__(self, channel):
        self.channel, self.received = channel, []

    def send(self, data):
        self.channel.send(data)

    def receive(self, num_bytes):
        self.received.append(self.channel.receive(num_bytes))
        return self.received[-1]

    def close(self):
        self.channel.close()


@pytest.fixture(scope="module")
def shared():
    """One sharing of one row, and shares of the same row and of its opposite as probes."""
    point = FixedPoint(dim=8, values="int8")
    row = np.zeros((1, 8))
    row[0, 2] = 1
    sharing, same, opposite = share_rows(row, point), share_inputs(row, point), share_inputs(-row, point)
    return point, sharing, (same, opposite)


def transcripts(three_parties, shared, kind, which, *, num, number=3):
    """Messages received by each party, and the three answers."""
    point, sharing, probes = shared
    galleries = [
        SharedRows(
            party=i,
            fixed_point=point,
            ids_N16=np.repeat(sharing[i].ids_N16, num, axis=0),
            words_NW=np.repeat(sharing[i].words_NW, num, axis=0),
        )
        for i in range(3)
    ]
    times = num if kind == "verify" else 1
    queries = share_query(
        kind,
        np.eye(8)[:1].repeat(times, axis=0),
        fixed_point=point,
        threshold=0.25,
        references_NR=np.zeros((num, 1), np.int64) if kind == "verify" else None,
    )
    channels = [Recorded(channel) for channel in InMemoryChannel.ring(timeout_s=600)]

    def work(party, channel, keys):
        one = probes[which][party]
        part = dataclasses.replace(
            one,
            ids_N16=np.repeat(one.ids_N16, times, axis=0),
            words_2NX=np.repeat(one.words_2NX, times, axis=1),
        )
        query = dataclasses.replace(queries[party], probes=part)
        return Party(galleries[party], keys, channel).answer(query, number=number, challenge=bytes(32))

    answers = three_parties(work, channels=channels)
    return [in_order_of_masks(channel.received, party) for party, channel in enumerate(channels)], answers


def in_order_of_masks(received, party):
    masked = [message for place, message in enumerate(received) if place not in (0, HASH[party])]
    first = MASKED[party]
    return [*(masked[place] for place in first), *masked[len(first) :]]


def smallest_p(received):
    """Smallest p over the parties of received bytes being uniform, and equally distributed for the two probes."""
    from scipy.stats import chi2, chi2_contingency

    found = []
    for party in range(3):
        counts = np.array([np.bincount(np.frombuffer(b"".join(r[party]), np.uint8), minlength=256) for r in received])
        expected = counts.sum(axis=1, keepdims=True) / 256
        found += chi2.sf((np.square(counts - expected) / expected).sum(axis=1), 255).tolist()
        found.append(chi2_contingency(counts).pvalue)
    return min(found)


@pytest.mark.parametrize("kind", KINDS)
def test_transcripts_are_uniform_and_sizes_equal(three_parties, shared, kind):
    (one, _), (other, _) = (transcripts(three_parties, shared, kind, which, num=640) for which in range(2))
    for party in range(3):
        assert [len(message) for message in one[party]] == [len(message) for message in other[party]]
        assert one[party] != other[party]
    assert smallest_p([one, other]) > 1e-6


@pytest.mark.parametrize("bug", ["of_sum", "of_xor"])
def test_a_missing_mask_is_detected(three_parties, shared, monkeypatch, bug):
    """Re-sharing or gates without masks: answers stay correct, but bytes are not uniform."""
    from ppfr.secure._keystream import ZeroShares

    monkeypatch.setattr(ZeroShares, bug, lambda _self, shape, dtype=np.uint64: np.zeros(shape, dtype))
    (one, answers), (other, _) = (transcripts(three_parties, shared, "set", which, num=640) for which in range(2))
    assert open_answers(answers).all()
    assert smallest_p([one, other]) < 1e-30


class Shifted:
    """A keystream whose draw number `at` is shifted: by addition in the ring for sums, by XOR for words."""

    def __init__(self, stream, at):
        self.stream, self.at, self.drawn = stream, at, 0

    def words(self, shape, dtype):
        words = self.stream.words(shape, dtype)
        if self.drawn == self.at:
            words = words ^ shift_of(shape, dtype) if dtype == np.uint64 else words + shift_of(shape, dtype)
        self.drawn += 1
        return words


def shift_of(shape, dtype):
    return np.random.default_rng(9).integers(0, np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)


def shifted_messages(three_parties, shared, monkeypatch, kind, sender):
    """For each message of `sender`: does a shift of the keystream that its receiver lacks shift it equally?"""
    from ppfr.secure import _party
    from ppfr.secure._keystream import ZeroShares

    receiver, hidden_key = (sender - 1) % 3, bytes([(sender + 1) % 3]) * 16
    before, _ = transcripts(three_parties, shared, kind, 0, num=5)
    held = []
    for at in range(len(before[receiver])):

        def masks(keys, number, at=at):
            made = ZeroShares(keys, number)
            if keys.own == hidden_key:
                made.own = Shifted(made.own, at)
            if keys.next == hidden_key:
                made.next = Shifted(made.next, at)
            return made

        with monkeypatch.context() as patch:
            patch.setattr(_party, "ZeroShares", masks)
            after, _ = transcripts(three_parties, shared, kind, 0, num=5)
        reshared = RESHARED[receiver]
        dtype = np.uint16 if at == reshared else np.uint32 if at < reshared else np.uint64
        one, other = (np.frombuffer(r[receiver][at], dtype) for r in (before, after))
        difference = (one ^ other) if dtype == np.uint64 else (one - other)
        held.append(
            np.array_equal(difference, shift_of(difference.shape, dtype))
            and before[receiver][:at] == after[receiver][:at]
        )
    return held


@pytest.mark.parametrize("sender", range(3))
@pytest.mark.parametrize("kind", ["any", "best"])
def test_every_message_shifts_with_a_keystream_that_its_receiver_lacks(
    three_parties, shared, monkeypatch, kind, sender
):
    held = shifted_messages(three_parties, shared, monkeypatch, kind, sender)
    assert len(held) > 10 and all(held)


def test_a_message_without_a_mask_does_not_shift(three_parties, shared, monkeypatch):
    from ppfr.secure._keystream import ZeroShares

    monkeypatch.setattr(ZeroShares, "of_sum", lambda _self, shape, dtype: np.zeros(shape, dtype))
    assert not shifted_messages(three_parties, shared, monkeypatch, "any", 1)[0]


def test_bits_shared_without_a_mask_do_not_shift(three_parties, shared, monkeypatch):
    """The bytes look uniform here, since the summand is; but party 2 has the third component, and thus the score."""
    from ppfr.secure._rounds import Rounds

    class Zeros:
        def words(self, shape, dtype):
            return np.zeros(shape, dtype)

    masked = Rounds.to_summands

    def unmasked(self, shared_2BN):
        masks, self.masks = self.masks, SimpleNamespace(own=Zeros(), next=Zeros())
        try:
            return masked(self, shared_2BN)
        finally:
            self.masks = masks

    monkeypatch.setattr(Rounds, "to_summands", unmasked)
    _, answers = transcripts(three_parties, shared, "set", 0, num=70)
    assert open_answers(answers).all()
    held = shifted_messages(three_parties, shared, monkeypatch, "any", 0)
    assert all(held[:3]) and not held[3]


def test_one_partys_answer_is_uniform(three_parties, shared):
    """Only the client, which has all three answers, learns a decision."""
    from scipy.stats import chi2

    for which in range(2):
        _, answers = transcripts(three_parties, shared, "set", which, num=64 * 256)
        for answer in answers:
            counts = np.bincount(answer.words[0].reshape(-1).view(np.uint8), minlength=256)
            assert chi2.sf((np.square(counts - counts.mean()) / counts.mean()).sum(), 255) > 1e-6
