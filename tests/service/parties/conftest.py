"""Three parties as processes of the program itself, on loopback, shared by the tests of this folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ppfr.core import PpfrError
from ppfr.service import ClientSettings, SecureGalleryClient, make_certificates, write_trial

DIM, NUM, TIMEOUT_S = 16, 150, 3.0


def unit(num, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def free_address():
    """Three ports of a loopback address that is nobody else's."""
    host = ".".join(["127", *(str(random.SystemRandom().randint(1, 250)) for _ in range(3))])
    return [f"{host}:{port}" for port in (7300, 7301, 7302)]


class Launcher:
    """tests/matching/parties/launcher.py as a process: starts parties in no time."""

    def __init__(self):
        script = Path(__file__).with_name("launcher.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, str(script)], text=True, **pipes)

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


class Trio:
    """Three processes; any may be killed, stopped and started."""

    def __init__(self, directory, launcher, *, namespaces=("", "", "")):
        self.directory, self.launcher, self.namespaces = directory, launcher, namespaces
        self.ids, self.is_odd = [None, None, None], [False, False, False]
        self.logs = [directory / f"party-{party}.log" for party in range(3)]

    def start(self, party, *, config=None, before="pass"):
        config, log = config or self.directory / f"party-{party}.toml", self.logs[party]
        told = {"config": str(config), "log": str(log), "before": before, "namespace": self.namespaces[party]}
        self.ids[party] = self.launcher.ask(**told)
        self.is_odd[party] = config != self.directory / f"party-{party}.toml" or before != "pass"

    def kill(self, party, number=signal.SIGKILL):
        """End a party; its exit code."""
        ended, self.ids[party] = self.ids[party], None
        os.kill(ended, number)
        return self.launcher.ask(wait=ended)

    def signal(self, party, number):
        os.kill(self.ids[party], number)

    def restart(self, party, **how):
        assert self.kill(party, signal.SIGTERM) == 0
        self.start(party, **how)

    def wait_for_log(self, text, *parties, seconds=20.0):
        """Until one of the parties' logs says something."""
        end = time.monotonic() + seconds
        while not any(text in self.logs[party].read_text() for party in parties):
            assert time.monotonic() < end, [self.logs[party].read_text()[-1500:] for party in parties]
            time.sleep(0.05)

    def are_up(self, *parties):
        return all(self.launcher.ask(poll=self.ids[party]) is None for party in parties)

    def client(self, *, timeout_s=20.0, name="client"):
        settings = ClientSettings.read(self.directory / f"{name}.toml")
        return SecureGalleryClient(dataclasses.replace(settings, timeout_s=timeout_s))

    def wait(self, *, seconds=30.0):
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
        for party in range(3):
            if self.ids[party] is not None:
                self.kill(party)


@pytest.fixture(scope="session")
def launcher():
    pytest.importorskip("cryptography", reason="needs the extra 'mpc': pip install 'ppfr[mpc]'")
    made = Launcher()
    yield made
    made.close()


@pytest.fixture(scope="session")
def trio(tmp_path_factory, launcher):
    directory = tmp_path_factory.mktemp("trio")
    write_trial(directory, dim=DIM, addresses=free_address(), timeout_s=TIMEOUT_S)
    made = Trio(directory, launcher)
    more = (
        '[clients."asker"]\nmay = ["ask"]\nbudget_bits = 40\nleast_threshold = 0.8\n'
        '[clients."enroller"]\nmay = ["enrol"]\n'
    )
    make_certificates(directory, clients=["asker", "enroller"])
    text = (directory / "client.toml").read_text()
    for name in ("asker", "enroller"):
        (directory / f"{name}.toml").write_text(text.replace('"client.', f'"{name}.'))
    for party in range(3):
        with (directory / f"party-{party}.toml").open("a") as config:
            config.write(more)
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
        if trio.ids[party] is None:
            trio.start(party)
        trio.signal(party, signal.SIGCONT)
        if trio.is_odd[party]:
            trio.restart(party)
    trio.wait()
    with trio.client() as client:
        strangers = sorted({subject for subject in client.subjects if not subject.startswith("person ")})
        if strangers:
            client.remove(strangers)


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
                client.identify(probe, threshold=0.5)
            except PpfrError as error:
                return error, time.monotonic() - begun
        pytest.fail("no question failed")

    return run


@pytest.fixture(scope="session")
def delaying_relay():
    """benchmarks/delaying_relay.py as a module."""
    path = Path(__file__).parents[3] / "benchmarks" / "delaying_relay.py"
    spec = importlib.util.spec_from_file_location("delaying_relay", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_trio(launcher, tmp_path, delaying_relay):
    """Three more processes of one test's own: `make_trio(dim=..., delay_s=...)`."""
    made = []

    def make(*, dim, delay_s=0.0, addresses=None, namespaces=("", "", "")):
        addresses = addresses or free_address()
        write_trial(tmp_path, dim=dim, addresses=addresses, timeout_s=TIMEOUT_S)
        if delay_s:
            made.extend(delaying_relay.put_between(tmp_path, addresses, delay_s))
        trio = Trio(tmp_path, launcher, namespaces=namespaces)
        made.append(trio)
        for party in range(3):
            trio.start(party)
        return trio

    yield make
    for one in made:
        one.close()
