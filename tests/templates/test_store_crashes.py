"""Killed processes: each change to a store is whole or absent, and no file with a key is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from ppfr.assets import create_private
from ppfr.templates import KeyStore, TemplateStore
from support import record_store_writer as writer


class Children:
    """Child processes of the writer, one at a time; each can be killed."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, writer.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.read() == ["ready"]

    def read(self):
        return self.process.stdout.readline().split()

    def start(self, *words):
        """Start a child; return its process id."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        early = []
        while (words := self.read())[0] != "child":
            early.append(words)
        return int(words[1]), early

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


def expected_after(held, step):
    """Contents after a step: subject -> key id, or None where the test does not know it."""
    held = dict(held)
    word, number, *rest = step
    if word == "add":
        held |= dict.fromkeys(writer.subjects(number))
    elif word == "remove":
        del held[writer.subjects(number)[0]]
    elif word == "replace":
        held[writer.subjects(number)[1]] = rest[0]
    return held


def agrees(found, expected):
    return found.keys() == expected.keys() and all(expected[one] in (None, found[one]) for one in expected)


def test_after_a_kill_changes_are_atomic_and_acknowledged_ones_are_in_the_store(children, tmp_path):
    """Thirty kills; each is 0 to 30 ms after one of the first eight reports. A step takes 10 to 50 ms."""
    directory = tmp_path / "stores"
    path = directory / "keys"
    writer.kek_of(tmp_path, 0)
    KeyStore(path, writer.SCHEME, key_encryption_key=writer.kek_of(tmp_path, 0))
    moments, held, kek, num_interrupted, num_done = random.Random(5), {}, 0, 0, 0
    for turn in range(30):
        pid, reports = children.start(path, tmp_path, kek, 1000 * turn)
        reports += [children.read() for _ in range(moments.randrange(9))]
        time.sleep(0.03 * moments.random())
        reports += children.kill(pid)
        open_step = None
        for word, number, *rest in reports:
            if word in ("add", "remove", "replace", "rewrap"):
                open_step = (word, number, *rest)
            else:
                held, open_step = expected_after(held, open_step), None
                kek, num_done = (int(number) if word == "rewrapped" else kek), num_done + 1
        num_interrupted += open_step is not None
        if open_step is not None and open_step[0] == "rewrap":
            kek = kek_after(path, tmp_path, kek)
        store = KeyStore(path, writer.SCHEME, key_encryption_key=writer.kek_of(tmp_path, kek))
        found = {one: key.key_id.hex() for one, key in store.load().items()}
        after = held if open_step is None else expected_after(held, open_step)
        assert agrees(found, held) or agrees(found, after)
        held = found
        assert {file.name for file in directory.iterdir()} == {"keys"}, "nothing is left beside the store"
    assert num_done > 20 and num_interrupted > 5


def kek_after(path, directory, kek):
    """Which of the two keys of an interrupted rotation opens the store."""
    from ppfr.core import WrongKeyError

    try:
        KeyStore(path, writer.SCHEME, key_encryption_key=writer.kek_of(directory, kek))
    except WrongKeyError:
        return kek + 1
    return kek


def killed_in(action, *, after_calls):
    """Run an action in a child process that kills itself at the given call that writes, names or flushes a file."""
    pid = os.fork()
    if pid == 0:
        calls = 0
        real = {name: getattr(os, name) for name in ("fsync", "link", "replace", "open")}

        def counted(name):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > after_calls:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*args, **kwargs)

            return call

        for name in real:
            setattr(os, name, counted(name))
        try:
            action()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("after_calls", range(8))
def test_a_private_file_is_whole_or_absent_at_any_kill(tmp_path, after_calls):
    path = tmp_path / "secret"
    killed_in(lambda: create_private(path, b"k" * 32), after_calls=after_calls)
    assert [file.read_bytes() for file in tmp_path.iterdir()] in ([], [b"k" * 32])


@pytest.mark.parametrize("after_calls", range(8))
def test_a_store_is_whole_or_absent_at_any_kill_during_its_creation(tmp_path, after_calls):
    path = tmp_path / "templates"
    killed_in(lambda: TemplateStore(path, writer.SCHEME), after_calls=after_calls)
    assert len(TemplateStore(path, writer.SCHEME)) == 0
