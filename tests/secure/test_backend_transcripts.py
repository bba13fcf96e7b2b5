"""What parties of other libraries are given and say to each other does not tell probes apart.

A recorder sits on every connection between parties (TLS off, so that it sees what a party sees). Queries with two
opposite probes, one that all references accept and one that none does, alternate in one session. Libraries frame what
they send, so that bytes are not uniform; instead the byte frequencies of the runs of one probe are compared with those
of the other by a permutation test over whole runs, which holds however bytes of a run hang together. It cannot see what
a message says only together with its receiver's own shares: that is for the libraries' proofs.
"""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest

from ppfr.secure import Mpyc, ProcessMatcher, Spu

NUM_RUNS = 12
NUM_RUNS_WITH_TOP_UPS = 28  # half of them may be left out, and 14 against 14 still has small p
NUM_PERMUTATIONS = 100_000
SMALLEST_P = 2e-5  # for each channel: a sound library fails this once in some thousands of times
ROW = np.abs(np.random.default_rng(0).standard_normal((1, 128)))
ROW /= np.linalg.norm(ROW)


class Recorder:
    """Forwards connections between parties, and counts the values of bytes in each direction of each."""

    def __init__(self):
        self.counts = {}
        self._sockets = []

    def route(self, sender, receiver, port):
        listener = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(listener)
        threading.Thread(target=self._accept, args=(listener, sender, receiver, port), daemon=True).start()
        return listener.getsockname()[1]

    def _accept(self, listener, sender, receiver, port):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = self._connected(port)
            self._sockets += [near, far]
            for source, target, name in ((near, far, (sender, receiver)), (far, near, (receiver, sender))):
                counts = self.counts.setdefault((sender, receiver, name), np.zeros(256, np.int64))
                threading.Thread(target=self._forward, args=(source, target, counts), daemon=True).start()

    def _connected(self, port):
        """To a party that may not be up yet."""
        for _ in range(3000):
            try:
                return socket.create_connection(("127.0.0.1", port))
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"nobody listens on {port}")

    def _forward(self, source, target, counts):
        try:
            while data := source.recv(1 << 16):
                counts += np.bincount(np.frombuffer(data, np.uint8), minlength=256)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def taken(self):
        """(channels, 256) so far, when nothing has come for a moment."""
        before = -1
        while (now := sum(int(counts.sum()) for counts in self.counts.values())) != before:
            before = now
            time.sleep(0.02)
        return np.array([self.counts[name].copy() for name in sorted(self.counts)])

    def close(self):
        for each in self._sockets:
            each.close()


def transcripts(library, *, num_references=4, verb="match_any", num_runs=NUM_RUNS):
    """(runs, channels, 256) counts for a probe that is accepted, and for its opposite."""
    recorder = Recorder()
    found = [], []
    with ProcessMatcher(
        np.repeat(ROW, num_references, axis=0), library, timeout_s=300, route=recorder.route
    ) as matcher:
        ask = getattr(matcher, verb)
        assert ask(ROW, threshold=0.5)[0] != ask(-ROW, threshold=0.5)[0]  # and what is made once is made
        for _ in range(num_runs):
            for which, probe in enumerate((ROW, -ROW)):
                before = recorder.taken()
                ask(probe, threshold=0.5)
                found[which].append(recorder.taken() - before)
    recorder.close()
    return np.array(found[0]), np.array(found[1])


def p_of_no_difference(one, other, *, seed=0):
    """Permutation test over runs, for each channel: how far the means of square roots of counts lie apart; least p.

    Of square roots, since they have the same variance for rare and frequent values.
    """
    side = np.concatenate([np.full(len(one), 1 / len(one)), np.full(len(other), -1 / len(other))])
    sides = np.random.default_rng(seed).permuted(np.tile(side, (NUM_PERMUTATIONS, 1)), axis=1)
    found = []
    for runs in np.sqrt(np.concatenate([one, other])).swapaxes(0, 1):
        around = runs - runs.mean(axis=0)
        gram = around @ around.T
        apart = ((sides @ gram) * sides).sum(axis=1)
        found.append((1 + (apart >= side @ gram @ side - 1e-9).sum()) / (1 + NUM_PERMUTATIONS))
    return min(found)


def sizes(runs):
    """(runs, channels, 1): bytes that each channel carried in each run."""
    return runs.sum(axis=2, keepdims=True)


def scaled(one, other):
    """Counts of runs as if all were of one size: sizes are compared by themselves, and would drown the bytes."""
    usual = np.median(sizes(np.concatenate([one, other])), axis=0)
    return [runs * (usual / np.maximum(sizes(runs), 1)) for runs in (one, other)]


def in_the_clear(row):
    """Counts of a probe's bytes as the integers that are shared."""
    return np.bincount(np.rint(32755 * row).astype(np.int32).view(np.uint8).reshape(-1), minlength=256)


def without_top_ups(one, other):
    """Runs of usual size: CHEETAH tops up its oblivious transfers now and then, whatever is asked."""
    usual = np.median(sizes(np.concatenate([one, other])), axis=0)
    return [runs[(sizes(runs) < 1.2 * usual).all(axis=(1, 2))] for runs in (one, other)]


def tell_probes_apart(one, other):
    """Whether the test sees a difference; that it would see a planted one is asserted on the way."""
    planted = [runs.copy() for runs in (one, other)]
    planted[0][:, 0] += in_the_clear(ROW)  # had one party sent its probe once, without a mask
    planted[1][:, 0] += in_the_clear(-ROW)
    assert p_of_no_difference(*scaled(*planted)) < SMALLEST_P
    by_bytes, by_size = p_of_no_difference(*scaled(one, other)), p_of_no_difference(sizes(one), sizes(other))
    return min(by_bytes, by_size) < SMALLEST_P


def test_mpycs_parties_say_the_same_of_opposite_probes():
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    one, other = transcripts(Mpyc(tls=False))
    assert not tell_probes_apart(one, other)
    assert np.ptp(sizes(np.concatenate([one, other])), axis=0).max() < 200  # it pickles numbers: random leading zeros


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["aby3", "cheetah", "semi2k"])
def test_spus_parties_say_the_same_of_opposite_probes(protocol, spu_python):
    num_runs = NUM_RUNS_WITH_TOP_UPS if protocol == "cheetah" else NUM_RUNS
    library = Spu(protocol=protocol, python=spu_python, tls=False)
    one, other = without_top_ups(*transcripts(library, verb="identify", num_runs=num_runs))
    assert min(len(one), len(other)) > num_runs / 2
    assert not tell_probes_apart(one, other)


def shares_of(library, values_ND):
    """What each party is given of rows, several times over."""
    with ProcessMatcher(np.eye(8), library, timeout_s=300) as matcher:
        return [[share for _, share in matcher._shared(rows)] for rows in values_ND]


def uniform_p(shares):
    from scipy.stats import chi2

    counts = np.bincount(shares.reshape(-1), minlength=256)
    return chi2.sf((np.square(counts - counts.mean()) / counts.mean()).sum(), 255)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["aby3", "cheetah", "semi2k"])
def test_what_a_party_of_spu_is_given_is_uniform(protocol, spu_python):
    rows = np.full((400, 8), 11584)
    library = Spu(protocol=protocol, python=spu_python, tls=False)
    for parts in shares_of(library, [rows, -rows]):
        assert len(parts) == library.num_parties
        assert min(uniform_p(part) for part in parts) > 1e-6
    assert uniform_p(rows.astype(np.int32).view(np.uint8)) < 1e-30


def test_what_a_party_of_mpyc_is_given_is_alike():
    """Field elements' highest bytes are not uniform; so one probe's against the other's."""
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    from scipy.stats import chi2_contingency

    rows = np.full((100, 8), 11584)
    one, other = shares_of(Mpyc(tls=False), [rows, -rows])
    for place in range(one[0].shape[-1] - 1):
        for party in range(3):
            counts = [np.bincount(parts[party][..., place].reshape(-1), minlength=256) for parts in (one, other)]
            assert chi2_contingency(np.array(counts) + 1).pvalue > 1e-7
