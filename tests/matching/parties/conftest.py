"""Three parties as processes of the program itself, on loopback, shared by the tests of this folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ppfr.core import PpfrError
from ppfr.matching import ClientSettings, SecureGalleryClient, write_trial

DIM, NUM, TIMEOUT_S = 16, 150, 2.0
SERVE = "import sys; from ppfr.cli import run; {before}; sys.exit(run(sys.argv[1:]))"


def unit(num, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def free_address():
    """Three ports of a loopback address that is nobody else's."""
    host = ".".join(["127", *(str(random.SystemRandom().randint(1, 250)) for _ in range(3))])
    return [f"{host}:{port}" for port in (7300, 7301, 7302)]


class Trio:
    """Three processes; any may be killed, stopped and started."""

    def __init__(self, directory, *, wrapped=((), (), ())):
        self.directory, self.wrapped = directory, wrapped
        self.processes = [None, None, None]
        self.logs = [directory / f"party-{party}.log" for party in range(3)]

    def start(self, party, *, config=None, before="pass"):
        config = config or self.directory / f"party-{party}.toml"
        code = SERVE.format(before=before)
        command = [*self.wrapped[party], sys.executable, "-c", code, "party", "serve", "--config", str(config)]
        with self.logs[party].open("ab") as log:
            self.processes[party] = subprocess.Popen(command, stderr=log, stdout=log)

    def kill(self, party):
        self.processes[party].kill()
        self.processes[party].wait()

    def signal(self, party, number):
        os.kill(self.processes[party].pid, number)

    def restart(self, party):
        self.signal(party, signal.SIGTERM)
        assert self.processes[party].wait(timeout=30) == 0
        self.start(party)

    def are_up(self, *parties):
        return all(self.processes[party].poll() is None for party in parties)

    def client(self, *, timeout_s=20.0, name="client"):
        settings = ClientSettings.read(self.directory / f"{name}.toml")
        return SecureGalleryClient(dataclasses.replace(settings, timeout_s=timeout_s))

    def wait(self, *, seconds=60.0):
        """Until all three compute together; whatever hinders them is the failure's text."""
        end = time.monotonic() + seconds
        while True:
            with self.client() as client:
                told = [facts["trouble"] for facts in client.status()]
            if told == ["", "", ""]:
                return
            assert time.monotonic() < end, (told, [log.read_text()[-600:] for log in self.logs])
            time.sleep(0.1)

    def close(self):
        for process in filter(None, self.processes):
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def trio(tmp_path_factory):
    pytest.importorskip("cryptography", reason="needs the extra 'mpc': pip install 'ppfr[mpc]'")
    directory = tmp_path_factory.mktemp("trio")
    write_trial(directory, dim=DIM, addresses=free_address(), timeout_s=TIMEOUT_S)
    made = Trio(directory)
    for party in range(3):
        made.start(party)
    try:
        made.wait()
        with made.client() as client:
            client.enrol(unit(NUM), [f"person {i}" for i in range(NUM)])
        yield made
    finally:
        made.close()


@pytest.fixture
def healthy(trio):
    """The three, working together before and, whatever a test did to them, after it."""
    trio.wait()
    yield trio
    for party in range(3):
        with contextlib.suppress(OSError):
            trio.signal(party, signal.SIGCONT)
        if trio.processes[party].poll() is not None:
            trio.start(party)
    trio.wait()


@pytest.fixture(scope="session")
def people():
    return unit(NUM)


@pytest.fixture
def asks_until_error():
    """Ask in a loop until it fails: the error, and how long the last question took."""

    def run(client, probe, *, seconds=30.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                client.best_at_least(probe, threshold=0.5)
            except PpfrError as error:
                return error, time.monotonic() - begun
        pytest.fail("no question failed")

    return run
