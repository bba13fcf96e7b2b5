"""Shares and messages of other libraries' parties do not distinguish probes.

A recorder sits on every connection between parties (without TLS, so it sees what a party sees). Queries with two
opposite probes, one that matches all references and one that matches none, alternate in one session. Libraries frame
their messages, so bytes are not uniform. Instead, a permutation test over whole runs compares the byte frequencies of
the runs of the two probes; it is valid for any dependence of the bytes within a run. It cannot detect information that
a message contains only in combination with its receiver's shares; the libraries' proofs cover that.
"""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest

from ppfr.secure import Mpyc, ProcessMatcher, Spu

NUM_RUNS = 12
NUM_RUNS_WITH_TOP_UPS = 28  # half of them may be excluded, and 14 against 14 can still give a small p
NUM_PERMUTATIONS = 100_000
SMALLEST_P = 2e-5  # per channel; a secure library fails once in several thousand runs
ROW = np.abs(np.random.default_rng(0).standard_normal((1, 128)))
ROW /= np.linalg.norm(ROW)


class Recorder:
    """Forwards connections between parties and counts byte values in each direction."""

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
        """Connect to a party that may still be starting."""
        for _ in range(3000):
            try:
                return socket.create_connection(("127.0.0.1", port))
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"no listener on port {port}")

    def _forward(self, source, target, counts):
        try:
            while data := source.recv(1 << 16):
                counts += np.bincount(np.frombuffer(data, np.uint8), minlength=256)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def taken(self):
        """(channels, 256) counts so far, once traffic has paused."""
        before = -1
        while (now := sum(int(counts.sum()) for counts in self.counts.values())) != before:
            before = now
            time.sleep(0.02)
        return np.array([self.counts[name].copy() for name in sorted(self.counts)])

    def close(self):
        for each in self._sockets:
            each.close()


def transcripts(library, *, num_references=4, method="match_any", num_runs=NUM_RUNS):
    """(runs, channels, 256) counts for a probe that is accepted, and for its opposite."""
    recorder = Recorder()
    found = [], []
    with ProcessMatcher(
        np.repeat(ROW, num_references, axis=0), library, timeout_s=300, route=recorder.route
    ) as matcher:
        query = getattr(matcher, method)
        assert query(ROW, threshold=0.5)[0] != query(-ROW, threshold=0.5)[0]  # and one-time set-up is complete
        for _ in range(num_runs):
            for which, probe in enumerate((ROW, -ROW)):
                before = recorder.taken()
                query(probe, threshold=0.5)
                found[which].append(recorder.taken() - before)
    recorder.close()
    return np.array(found[0]), np.array(found[1])


def p_of_no_difference(one, other, *, seed=0):
    """Smallest p over channels of a permutation test over runs on the distance of mean square-root counts.

    Square roots have the same variance for rare and frequent values.
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
    """Counts normalised to one size per run: sizes are compared separately and would mask the bytes."""
    usual = np.median(sizes(np.concatenate([one, other])), axis=0)
    return [runs * (usual / np.maximum(sizes(runs), 1)) for runs in (one, other)]


def in_the_clear(row):
    """Byte counts of a probe as unshared integers."""
    return np.bincount(np.rint(32755 * row).astype(np.int32).view(np.uint8).reshape(-1), minlength=256)


def without_top_ups(one, other):
    """Runs of typical size: CHEETAH replenishes its oblivious transfers from time to time, for any query."""
    usual = np.median(sizes(np.concatenate([one, other])), axis=0)
    return [runs[(sizes(runs) < 1.2 * usual).all(axis=(1, 2))] for runs in (one, other)]


def distinguishes_probes(one, other):
    """Whether the test finds a difference; also asserts that it finds a planted one."""
    planted = [runs.copy() for runs in (one, other)]
    planted[0][:, 0] += in_the_clear(ROW)  # as if one party had sent its probe once without a mask
    planted[1][:, 0] += in_the_clear(-ROW)
    assert p_of_no_difference(*scaled(*planted)) < SMALLEST_P
    by_bytes, by_size = p_of_no_difference(*scaled(one, other)), p_of_no_difference(sizes(one), sizes(other))
    return min(by_bytes, by_size) < SMALLEST_P


def test_messages_of_mpyc_do_not_distinguish_opposite_probes():
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    one, other = transcripts(Mpyc(tls=False))
    assert not distinguishes_probes(one, other)
    assert (
        np.ptp(sizes(np.concatenate([one, other])), axis=0).max() < 200
    )  # it pickles numbers with random leading zeros


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["aby3", "cheetah", "semi2k"])
def test_messages_of_spu_do_not_distinguish_opposite_probes(protocol, spu_python):
    num_runs = NUM_RUNS_WITH_TOP_UPS if protocol == "cheetah" else NUM_RUNS
    library = Spu(protocol=protocol, python=spu_python, tls=False)
    one, other = without_top_ups(*transcripts(library, method="identify", num_runs=num_runs))
    assert min(len(one), len(other)) > num_runs / 2
    assert not distinguishes_probes(one, other)


def shares_of(library, values_ND):
    """Each party's shares of several sets of rows."""
    with ProcessMatcher(np.eye(8), library, timeout_s=300) as matcher:
        return [[share for _, share in matcher._shared(rows)] for rows in values_ND]


def uniform_p(shares):
    from scipy.stats import chi2

    counts = np.bincount(shares.reshape(-1), minlength=256)
    return chi2.sf((np.square(counts - counts.mean()) / counts.mean()).sum(), 255)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["aby3", "cheetah", "semi2k"])
def test_shares_of_spu_are_uniform(protocol, spu_python):
    rows = np.full((400, 8), 11584)
    library = Spu(protocol=protocol, python=spu_python, tls=False)
    for parts in shares_of(library, [rows, -rows]):
        assert len(parts) == library.num_parties
        assert min(uniform_p(part) for part in parts) > 1e-6
    assert uniform_p(rows.astype(np.int32).view(np.uint8)) < 1e-30


def test_shares_of_mpyc_do_not_distinguish_opposite_probes():
    """The highest bytes of field elements are not uniform, so the two probes are compared with each other."""
    pytest.importorskip("mpyc", reason="needs the extra 'mpyc': pip install 'ppfr[mpyc]'")
    from scipy.stats import chi2_contingency

    rows = np.full((100, 8), 11584)
    one, other = shares_of(Mpyc(tls=False), [rows, -rows])
    for place in range(one[0].shape[-1] - 1):
        for party in range(3):
            counts = [np.bincount(parts[party][..., place].reshape(-1), minlength=256) for parts in (one, other)]
            assert chi2_contingency(np.array(counts) + 1).pvalue > 1e-7
