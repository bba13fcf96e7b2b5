"""Killed processes and coordinators that crash at any step: a change is in all three stores or in none."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ppfr.core import InvalidInputError, StorageError, new_reference_ids
from ppfr.secure import Enrolment, Refresh, Removal, SharedRows, ShareStore, reconstruct_rows, settle, share_rows
from support import share_store_writer as writer


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{party}.shares" for party in range(3)]
    for party, path in enumerate(paths):
        ShareStore.create(path, party=party, fixed_point=writer.POINT, gallery_id=bytes(16)).close()
    return paths


class Children:
    """Child processes of the writer, one at a time; each can be killed."""

    def __init__(self):
        command = [sys.executable, writer.__file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.read() == ["ready"]

    def read(self):
        return self.process.stdout.readline().split()

    def start(self, *words):
        """Start a child; return its process id and first report."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        reports = sorted([self.read(), self.read()], key=lambda words: words[0] != "child")  # in any order
        return int(reports[0][1]), reports[1]

    def kill(self, pid):
        """Kill the child; return its remaining reports."""
        os.kill(pid, signal.SIGKILL)
        return list(iter(self.read, ["gone"]))


@pytest.fixture(scope="module")
def children():
    children = Children()
    yield children
    children.process.stdin.close()
    assert children.process.wait(timeout=60) == 0
    children.process.stdout.close()


def settling(stores, change_id):
    """The steps of a recovery; other actors may act between two steps."""
    states = []
    for store in stores:
        yield
        states.append(store.state(change_id))
    is_commit = settle(states) == "commit"
    for store in stores:
        yield
        try:
            (store.commit if is_commit else store.abort)(change_id)
        except InvalidInputError:
            assert store.party == 0  # only party 0 decides
            yield from settling(stores, change_id)
            return


def settle_all(stores):
    for change_id in {change_id for store in stores for change_id in store.pending()}:
        for _ in settling(stores, change_id):
            pass


def assert_each_change_is_whole_or_absent(store, numbers):
    """The loaded rows must follow from the states that the store reports."""
    expected, num_refreshes = {}, 0
    for number in numbers:
        change = writer.change(number, store.party)
        if store.state(change.change_id) != "committed":
            continue
        if isinstance(change, Enrolment):
            rows = zip(change.rows.ids_N16, change.rows.words_NW, change.subjects, strict=True)
            expected |= {one.tobytes(): (words, subject) for one, words, subject in rows}
        elif isinstance(change, Removal):
            expected = {one: row for one, row in expected.items() if one not in change.reference_ids}
        elif expected:
            num_refreshes += 1
            rows = SharedRows(
                party=store.party,
                fixed_point=writer.POINT,
                ids_N16=np.array([list(one) for one in expected], dtype=np.uint8),
                words_NW=np.array([words for words, _ in expected.values()]),
            )
            words_NW = change.applied(rows).words_NW
            expected = {one: (words_NW[n], expected[one][1]) for n, one in enumerate(expected)}
        else:
            num_refreshes += 1
    assert store.epoch == num_refreshes
    rows, subjects = store.load()
    assert [one.tobytes() for one in rows.ids_N16] == sorted(expected)
    assert list(subjects) == [expected[one][1] for one in sorted(expected)]
    if expected:
        np.testing.assert_array_equal(rows.words_NW, [expected[one][0] for one in sorted(expected)])


def test_after_a_kill_changes_are_atomic_and_acknowledged_ones_are_in_all_stores(children, paths):
    """Thirty kills during enrolments, removals, withdrawals and refreshes on the same files.

    Each kill is 0 to 12 ms after one of the first 15 steps; a step, which waits for the disk, takes 5 to 20 ms.
    """
    moments, numbers, acknowledged, withdrawn, num_unsettled = random.Random(5), [], [], [], 0
    for turn in range(30):
        pid, first = children.start(*paths, 100 * turn)
        assert first == ["started"]
        reports = [children.read() for _ in range(moments.randrange(15))]
        time.sleep(0.012 * moments.random())
        reports += children.kill(pid)
        numbers += [int(words[1]) for words in reports if words[0] == "trying"]
        acknowledged += [bytes.fromhex(words[1]) for words in reports if words[0] == "acknowledged"]
        withdrawn += [bytes.fromhex(words[1]) for words in reports if words[0] == "withdrawn"]
        with contextlib.ExitStack() as stack:
            stores = [stack.enter_context(ShareStore.open(path)) for path in paths]
            for words in (words for words in reports if words[0] == "prepared"):
                assert stores[int(words[1])].state(bytes.fromhex(words[2])) != "unknown"  # on disk once it is reported
            for store in stores:
                assert_each_change_is_whole_or_absent(store, numbers)
            num_unsettled += any(store.pending() for store in stores)
            settle_all(stores)
            for store in stores:
                assert store.pending() == ()
                assert {store.state(change_id) for change_id in acknowledged} <= {"committed"}
                assert {store.state(change_id) for change_id in withdrawn} <= {"aborted"}
            assert len({(store.load()[0].digest(), store.epoch) for store in stores}) == 1
            num_refreshes = stores[0].epoch
    assert len(acknowledged) > 20
    assert num_unsettled > 5  # kills do interrupt changes
    assert num_refreshes > 3


def test_a_store_is_locked_by_one_process_until_it_ends(children, paths):
    pid, first = children.start("hold", paths[0])
    assert first == ["held", "0"]
    for _ in range(2):
        with pytest.raises(StorageError, match="already open"):
            ShareStore.open(paths[0])
    assert children.kill(pid) == []
    with ShareStore.open(paths[0]) as store:
        with pytest.raises(StorageError, match="already open"):
            ShareStore.open(paths[0])
        _, first = children.start("hold", paths[0])  # the failed attempt above has not released the lock
        assert first == ["rejected"]
        assert children.read() == ["gone"]
        assert len(store) == 0


def coordinating(stores, parts, acknowledged):
    """The steps of a coordinator."""
    change_id = parts[0].change_id
    try:
        for store, part in zip(stores, parts, strict=True):
            yield
            store.prepare(part)
        for store in stores:
            yield
            store.commit(change_id)
    except InvalidInputError:  # overtaken
        yield from settling(stores, change_id)
        return
    yield
    acknowledged.append(change_id)


def late(store, part):
    """A "prepare" message that arrives at any time."""
    yield
    with contextlib.suppress(InvalidInputError):
        store.prepare(part)


def random_change():
    ids, change_id = new_reference_ids(2), secrets.token_bytes(16)
    rows = [writer.enrolment(1, party).rows for party in range(3)]
    rows = [
        type(part)(party=n, fixed_point=part.fixed_point, ids_N16=ids, words_NW=part.words_NW[:2])
        for n, part in enumerate(rows)
    ]
    return [Enrolment(change_id=change_id, rows=part, subjects=("a", "b")) for part in rows]


def random_refresh():
    return [Refresh(change_id=secrets.token_bytes(16), seed=secrets.token_bytes(32))] * 3


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(schedule=st.lists(st.integers(0, 5), max_size=40), is_refresh=st.booleans())
def test_all_stores_agree_for_any_interleaving_of_coordinator_and_settlers(open_stores, schedule, is_refresh):
    """The schedule lists who acts next: the coordinator (0), two settlers (1, 2), a late message to each party (3-5).

    An actor that is not scheduled any more has crashed. One more settler acts at the end.
    """
    parts, acknowledged = random_refresh() if is_refresh else random_change(), []
    change_id = parts[0].change_id
    actors = [
        coordinating(open_stores, parts, acknowledged),
        settling(open_stores, change_id),
        settling(open_stores, change_id),
    ]
    actors += [late(store, part) for store, part in zip(open_stores, parts, strict=True)]
    for actor in actors:
        next(actor)
    before = [len(store) for store in open_stores]
    epochs = [store.epoch for store in open_stores]
    for index in schedule:
        next(actors[index], None)
    was_acknowledged = list(acknowledged)
    for _ in settling(open_stores, change_id):
        pass
    states = {store.state(change_id) for store in open_stores}
    assert states in ({"committed"}, {"aborted"})
    assert states == {"committed"} or not was_acknowledged
    for index in range(6):  # late messages change nothing
        for _ in actors[index]:
            pass
    assert {store.state(change_id) for store in open_stores} == states
    num_new = 2 if states == {"committed"} and not is_refresh else 0
    assert [len(store) for store in open_stores] == [count + num_new for count in before]
    num_refreshes = int(states == {"committed"} and is_refresh)
    assert [store.epoch for store in open_stores] == [epoch + num_refreshes for epoch in epochs]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(schedule=st.lists(st.integers(0, 5), max_size=50))
@example(
    schedule=[1] * 5 + [0] * 4 + [1] * 3 + [0] * 4
)  # the refresh is committed at party 0 before the enrolment comes
@example(schedule=[0] * 5 + [1] * 4 + [0] * 3 + [1] * 4)
def test_shares_fit_together_after_any_interleaving_of_an_enrolment_and_a_refresh(open_stores, schedule):
    """Each store may see the two in another order only if one of them is aborted.

    Actors: a coordinator of each change (0, 1), a settler of each (2, 3), a late enrolment (4) and a late refresh (5).
    """
    embeddings = np.eye(writer.POINT.dim)[secrets.randbelow(60) :][:2]
    change_id, refreshes, acknowledged = secrets.token_bytes(16), random_refresh(), []
    parts = [
        Enrolment(change_id=change_id, rows=rows, subjects=("a", "b")) for rows in share_rows(embeddings, writer.POINT)
    ]
    ids = [refreshes[0].change_id, change_id]
    actors = [
        coordinating(open_stores, parts, acknowledged),
        coordinating(open_stores, refreshes, acknowledged),
        *(settling(open_stores, one) for one in ids),
        late(open_stores[2], parts[2]),
        late(open_stores[1], refreshes[1]),
    ]
    for index in schedule:
        next(actors[index], None)
    was_acknowledged = list(acknowledged)
    for one in ids:
        for _ in settling(open_stores, one):
            pass
        states = {store.state(one) for store in open_stores}
        assert states in ({"committed"}, {"aborted"})
        assert states == {"committed"} or one not in was_acknowledged
    loaded = [store.load()[0] for store in open_stores]
    if len(loaded[0]):
        first = reconstruct_rows(loaded[0], loaded[1])
        np.testing.assert_array_equal(first, reconstruct_rows(loaded[1], loaded[2]))
        np.testing.assert_array_equal(first, reconstruct_rows(loaded[2], loaded[0]))
        assert set(np.abs(first).sum(axis=1)) == {np.abs(writer.POINT.signed(writer.POINT.quantise(embeddings))).max()}


@pytest.fixture
def open_stores(paths):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ShareStore.open(path)) for path in paths]


@pytest.mark.parametrize("make", [random_change, random_refresh])
@pytest.mark.parametrize("num_steps", range(8))
def test_a_change_is_settled_after_a_coordinator_crash_at_each_step(open_stores, num_steps, make):
    parts, acknowledged = make(), []
    steps = coordinating(open_stores, parts, acknowledged)
    for _ in range(num_steps + 1):
        next(steps, None)
    states = [store.state(parts[0].change_id) for store in open_stores]
    num_prepared, num_committed = min(num_steps, 3), max(0, min(num_steps - 3, 3))
    reached = ["committed"] * num_committed + ["prepared"] * (num_prepared - num_committed)
    assert states == reached + ["unknown"] * (3 - len(reached))
    assert bool(acknowledged) == (num_steps == 7)
    settle_all(open_stores)
    end = "committed" if num_steps >= 3 else "aborted" if num_steps else "unknown"
    assert {store.state(parts[0].change_id) for store in open_stores} == {end}


STATES = ("unknown", "prepared", "committed", "aborted")


@pytest.mark.parametrize("states", list(itertools.product(STATES, repeat=3)))
def test_settle_decides_all_combinations(states):
    wanted = "commit" if "committed" in states or states == ("prepared",) * 3 else "abort"
    assert settle(states) == wanted


def test_settle_requires_three_valid_states():
    for bad in (("prepared",) * 2, ("prepared", "prepared", "lost")):
        with pytest.raises(InvalidInputError, match="states at parties 0, 1 and 2"):
            settle(bad)
