"""Query budgets of clients, subjects and searches: limits, restarts, crashes, damage, threads, size."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import threading

import pytest

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError
from ppfr.service._parties import _budgets
from ppfr.service._parties._budgets import QueryBudgets, answer_bits


@pytest.fixture
def path(tmp_path):
    return tmp_path / "party-0.shares.budgets.sqlite"


def verify(budgets, client, *subjects):
    budgets.spend(client, "verify", num_probes=len(subjects), num_references=1000, subjects=subjects)


def search(budgets, client, bits):
    budgets.spend(client, "any", num_probes=bits, num_references=1000)


def test_answer_bits_of_each_kind():
    assert answer_bits("verify", 5, 100) == 5 == answer_bits("any", 5, 100)
    assert answer_bits("set", 5, 100) == 500
    assert answer_bits("best", 1, 1) == 1 and answer_bits("best", 2, 129) == 2 * (1 + 8)


def test_client_budget_survives_a_restart_and_never_grows(path):
    with QueryBudgets(path, clients={"free": None}) as budgets:
        search(budgets, "free", 10**9)
        assert not path.exists() and budgets.left("free") is None
    with QueryBudgets(path, clients={"desk": 1000}) as budgets:
        for _ in range(50):
            search(budgets, "desk", 7)
        assert budgets.left("desk") == 650
        with pytest.raises(InvalidInputError, match=r"651 bits.* 650 of 1000 .*\bbudget_bits"):
            search(budgets, "desk", 651)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with QueryBudgets(path, clients={"desk": 1000}) as budgets:
        left = budgets.left("desk")
        assert 650 - 10 <= left <= 650
        search(budgets, "desk", left)
    for limit, left in ((1000, 0), (10, 0), (1001, 1)):
        with QueryBudgets(path, clients={"desk": limit}) as budgets:
            assert budgets.left("desk") == left


def test_two_clients_together_cannot_exceed_the_budget_of_a_subject(path):
    with QueryBudgets(path, clients={"one": 1000, "two": 1000}, per_subject=10) as budgets:
        for client in ("one", "two", "one"):
            verify(budgets, client, "anna", "ben", "anna", "anna")
        for client in ("one", "two"):
            with pytest.raises(
                InvalidInputError, match=r"2 bits.*subject.*all clients.* 1 of 10 .*subject_budget_bits"
            ) as raised:
                verify(budgets, client, "ben", "anna", "anna")
            assert "anna" not in str(raised.value) and "ben" not in str(raised.value)
        verify(budgets, "two", "anna")
        # Refused queries counted nothing, for the client and for the other subject.
        assert (budgets.left("one"), budgets.left("two")) == (992, 995)
        verify(budgets, "two", *["ben"] * 7)
    with QueryBudgets(path, clients={"three": None}, per_subject=10) as budgets:
        for subject in ("anna", "ben"):
            with pytest.raises(InvalidInputError, match=r" 0 of 10 .*subject_budget_bits"):
                verify(budgets, "three", subject)
        verify(budgets, "three", "anna2")
    assert b"anna" not in path.read_bytes()


def test_searches_of_all_clients_share_a_budget(path):
    with QueryBudgets(path, clients={"one": 100, "two": 100}, per_subject=1, searches=60) as budgets:
        budgets.spend("one", "best", num_probes=2, num_references=1000)  # 22 bits
        search(budgets, "two", 30)
        with pytest.raises(InvalidInputError, match=r"1000 bits.*this client.* 78 of 100 .*\bbudget_bits"):
            budgets.spend("one", "set", num_probes=1, num_references=1000)
        with pytest.raises(InvalidInputError, match=r"9 bits.*searches.*all clients.* 8 of 60 .*search_budget_bits"):
            search(budgets, "one", 9)
        assert (budgets.left("one"), budgets.left("two")) == (78, 70)
        verify(budgets, "one", "anna")  # is not a search
        search(budgets, "one", 8)


def test_searches_write_nothing_per_subject(path, monkeypatch):
    written = []
    with QueryBudgets(path, clients={}, per_subject=100, searches=10**9) as budgets:
        reserve = budgets._reserve
        monkeypatch.setattr(QueryBudgets, "_reserve", lambda self, blocks: (written.extend(blocks), reserve(blocks)))
        for _ in range(1000):
            budgets.spend("desk", "best", num_probes=1, num_references=100_000)
        assert len(written) == 1 and written[0].scope == "searches"  # one block of 10^7 bits
        verify(budgets, "desk", *map(str, range(100_000)))
        assert len(written) == 100_001
    # A block of one bit was open.
    with (
        QueryBudgets(path, clients={}, per_subject=100) as budgets,
        pytest.raises(InvalidInputError, match=r"100 bits.* 98 of 100 "),
    ):
        verify(budgets, "desk", *["99999"] * 100)


@pytest.mark.parametrize("turn", range(6))
def test_kill_never_returns_spent_bits(path, turn):
    """A process spends, reports each spent bit after `spend` returned, and is killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            budgets = QueryBudgets(path, clients={"desk": 10**6}, per_subject=300, searches=500)
            while True:
                verify(budgets, "desk", "anna")
                os.write(writing, b"v")
                search(budgets, "desk", 1)
                os.write(writing, b"s")
        finally:
            os._exit(1)
    os.close(writing)
    reported = b""
    while len(reported) < 2 + 40 * turn:
        reported += os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    while more := os.read(reading, 1 << 16):
        reported += more
    os.close(reading)
    verified, searched = reported.count(b"v"), reported.count(b"s")
    with QueryBudgets(path, clients={"desk": 10**6}, per_subject=300, searches=500) as budgets:
        assert budgets.left("desk") <= 10**6 - verified - searched
        for spent, limit, block, ask in (
            (verified, 300, 3, lambda bits: verify(budgets, "desk", *["anna"] * bits)),
            (searched, 500, 5, lambda bits: search(budgets, "desk", bits)),
        ):
            with pytest.raises(InvalidInputError) as raised:
                ask(limit + 1)
            left = int(re.search(r"has (\d+) of", str(raised.value))[1])
            assert limit - spent - block - 1 <= left <= limit - spent


def test_threads_never_spend_more_than_the_limits(path):
    counts, lock = {"done": 0}, threading.Lock()

    def run(client):
        for turn in range(300):
            try:
                verify(budgets, client, "anna", f"person {turn % 3}")
            except InvalidInputError:
                continue
            with lock:
                counts["done"] += 1
                counts[client] = counts.get(client, 0) + 1

    with QueryBudgets(path, clients={"a": 200, "b": 5000, "c": None}, per_subject=400) as budgets:
        threads = [threading.Thread(target=run, args=(client,)) for client in "abcb"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts["done"] == 400 and counts["a"] <= 100
        assert budgets.left("b") == 5000 - 2 * counts["b"]
    with QueryBudgets(path, clients={"a": None}, per_subject=401) as budgets:
        verify(budgets, "a", "anna")
        with pytest.raises(InvalidInputError, match=r" 0 of 401 "):
            verify(budgets, "a", "anna")


def test_every_damaged_byte_is_reported_or_without_effect(path, tmp_path):
    clients = {"desk": 1000, "gate": 1000}
    with QueryBudgets(path, clients=clients, per_subject=100, searches=1000) as budgets:
        verify(budgets, "desk", "anna", "ben")
        search(budgets, "gate", 123)
        expected = dict(budgets._reserved)
    content, num_reported = path.read_bytes(), 0
    damaged = tmp_path / "damaged.sqlite"
    for place in range(len(content)):
        if content[place] == 0 and place % 16 and content[place - 8 : place + 8] == bytes(16):
            continue  # within free space
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        damaged.chmod(0o600)
        try:
            with QueryBudgets(damaged, clients=clients) as budgets:
                assert budgets._reserved == expected, place
        except (CorruptTemplateError, OutdatedTemplateError, StorageError) as error:
            assert str(damaged) in str(error)
            num_reported += 1
        finally:
            for suffix in ("-wal", "-shm", "-journal"):
                damaged.with_name(damaged.name + suffix).unlink(missing_ok=True)
    assert num_reported > 200


@pytest.mark.parametrize("content", [b"", b"[1]", b"x" * 8192])
def test_other_files_are_refused_and_left_as_they_are(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CorruptTemplateError, match=rf"{path.name}.*delete the file"):
        QueryBudgets(path, clients={"desk": 1})
    assert path.read_bytes() == content


def test_files_of_other_versions_users_and_processes_are_refused(path):
    with QueryBudgets(path, clients={"desk": 10}), pytest.raises(StorageError, match=r"already open.*one process"):
        QueryBudgets(path, clients={"desk": 10})
    path.chmod(0o640)
    with pytest.raises(StorageError, match="0640"):
        QueryBudgets(path, clients={"desk": 10})
    path.chmod(0o600)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(OutdatedTemplateError, match="version 9"):
        QueryBudgets(path, clients={"desk": 10})


def test_log_of_a_deleted_file_is_not_applied_to_the_new_one(path):
    pid = os.fork()
    if pid == 0:  # ends without closing the file, so that the log remains
        search(QueryBudgets(path, clients={"desk": 10}), "desk", 9)
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.with_name(path.name + "-wal").exists()
    path.unlink()
    with QueryBudgets(path, clients={"desk": 10}) as budgets:
        assert budgets.left("desk") == 10
        search(budgets, "desk", 10)


def test_bits_that_cannot_be_written_are_not_spent(path, monkeypatch):
    with QueryBudgets(path, clients={"desk": 1000}, per_subject=10) as budgets:
        verify(budgets, "desk", "anna")
        monkeypatch.setattr(_budgets, "_RESERVE", "INSERT INTO absent VALUES (?, ?, ?, ?)")
        with pytest.raises((StorageError, CorruptTemplateError)):
            verify(budgets, "desk", "ben")
        monkeypatch.undo()
        assert budgets.left("desk") == 999
        verify(budgets, "desk", *["ben"] * 10)
    with pytest.raises(StorageError, match=re.escape(str(path))):
        verify(budgets, "desk", "cleo")  # after close
