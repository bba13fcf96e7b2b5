"""Three parties, each a process of `ppfr party serve` on the loopback interface, shared by these tests."""

from __future__ import annotations

import dataclasses
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
from ppfr.secure import FixedPoint
from ppfr.service import (
    ClientSettings,
    PartySettings,
    SecureGalleryClient,
    make_certificates,
    write_threshold_files,
    write_trial,
)
from ppfr.service._parties._handshake import start_handshake
from ppfr.service._parties._links import Link
from support.delaying_relay import put_between

DIM, NUM, TIMEOUT_S = 16, 150, 3.0
HIDDEN_THRESHOLD = 0.6  # named "door"


def unit(num, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def free_addresses():
    """Three ports of a random loopback address, which no other process uses."""
    host = ".".join(["127", *(str(random.SystemRandom().randint(1, 250)) for _ in range(3))])
    return [f"{host}:{port}" for port in (7300, 7301, 7302)]


class Launcher:
    """The process of launcher.py, which starts parties without delay."""

    def __init__(self):
        script = Path(__file__).with_name("launcher.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, str(script)], text=True, **pipes)

    def call(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


class Trio:
    """Three processes; each can be killed, stopped and started again."""

    def __init__(self, directory, launcher, *, namespaces=("", "", "")):
        self.directory, self.launcher, self.namespaces = directory, launcher, namespaces
        self.ids, self.has_other_config = [None, None, None], [False, False, False]
        self.logs = [directory / f"party-{party}.log" for party in range(3)]

    def start(self, party, *, config=None):
        self.has_other_config[party] = config is not None
        config, log = config or self.directory / f"party-{party}.toml", self.logs[party]
        self.ids[party] = self.launcher.call(config=str(config), log=str(log), namespace=self.namespaces[party])

    def kill(self, party, number=signal.SIGKILL):
        """Send a signal to a party, wait for its end, and return the exit code."""
        ended, self.ids[party] = self.ids[party], None
        os.kill(ended, number)
        return self.launcher.call(wait=ended)

    def signal(self, party, number):
        os.kill(self.ids[party], number)

    def restart(self, party, *, config=None):
        assert self.kill(party, signal.SIGTERM) == 0
        self.start(party, config=config)

    def wait_for_log(self, text, *parties, seconds=20.0):
        """Wait until the log of one of the parties contains a text."""
        end = time.monotonic() + seconds
        while not any(text in self.logs[party].read_text() for party in parties):
            assert time.monotonic() < end, [self.logs[party].read_text()[-1500:] for party in parties]
            time.sleep(0.05)

    def are_up(self, *parties):
        return all(self.launcher.call(poll=self.ids[party]) is None for party in parties)

    def reload(self, *parties):
        """Have parties read their configurations again, and wait until they have."""
        before = {party: self.logs[party].read_text().count("reloaded the conf") for party in parties}
        for party in parties:
            self.signal(party, signal.SIGHUP)
        end = time.monotonic() + 10
        while any(self.logs[party].read_text().count("reloaded the conf") == before[party] for party in parties):
            assert time.monotonic() < end, [self.logs[party].read_text()[-1500:] for party in parties]
            time.sleep(0.02)

    def edit(self, old, new, *parties):
        """Replace a text in the configurations of parties."""
        for party in parties:
            path = self.directory / f"party-{party}.toml"
            text = path.read_text()
            assert old in text, (old, text)
            path.write_text(text.replace(old, new))

    def dial(self, name, party, *, purpose=None):
        """A TLS connection to a party with the certificate of `name`, after the handshake if a purpose is given."""
        own = PartySettings.read(self.directory / f"party-{party}.toml")
        credentials = dataclasses.replace(
            own.credentials, certificate=self.directory / f"{name}.crt", key=self.directory / f"{name}.key"
        )
        link = Link.dial(own.listen, credentials.context(is_server=False), party=party, timeout_s=TIMEOUT_S)
        if purpose is not None:
            try:
                start_handshake(link, purpose, own.parameters, session="00" * 16)
            except PpfrError:
                link.close()
                raise
        return link

    def client(self, *, timeout_s=20.0, name="client"):
        settings = ClientSettings.read(self.directory / f"{name}.toml")
        return SecureGalleryClient(dataclasses.replace(settings, timeout_s=timeout_s))

    def wait(self, *, seconds=30.0):
        """Wait until all three parties have a session; a failure shows their problems and logs."""
        end = time.monotonic() + seconds
        while True:
            with self.client() as client:
                problems = [status["problem"] for status in client.status()]
            if problems == ["", "", ""]:
                return
            assert time.monotonic() < end, (problems, [log.read_text()[-600:] for log in self.logs])
            time.sleep(0.1)

    def close(self):
        for party in range(3):
            if self.ids[party] is not None:
                self.kill(party)


@pytest.fixture(scope="session")
def launcher():
    made = Launcher()
    yield made
    made.close()


@pytest.fixture(scope="session")
def trio(tmp_path_factory, launcher):
    directory = tmp_path_factory.mktemp("trio")
    write_trial(directory, dim=DIM, addresses=free_addresses(), timeout_s=TIMEOUT_S)
    made = Trio(directory, launcher)
    more = (
        '[clients."reader"]\npermissions = ["query"]\nbudget_bits = 40\nmin_threshold = 0.8\n'
        '[clients."enroller"]\npermissions = ["enrol"]\n'
    )
    make_certificates(directory, clients=["reader", "enroller"])
    text = (directory / "client.toml").read_text()
    for name in ("reader", "enroller"):
        (directory / f"{name}.toml").write_text(text.replace('"client.', f'"{name}.'))
    write_threshold_files(directory, name="door", threshold=HIDDEN_THRESHOLD, fixed_point=FixedPoint(dim=DIM))
    for party in range(3):
        config = directory / f"party-{party}.toml"
        config.write_text(config.read_text().replace("# thresholds", "thresholds") + more)
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
    """The shared parties, with a session before the test, and repaired and cleaned after it."""
    trio.wait()
    yield trio
    for party in range(3):
        if trio.ids[party] is None:
            trio.start(party)
        trio.signal(party, signal.SIGCONT)
        if trio.has_other_config[party]:
            trio.restart(party)
    trio.wait()
    with trio.client() as client:
        others = sorted({subject for subject in client.subjects if not subject.startswith("person ")})
        if others:
            client.remove(others)


@pytest.fixture(scope="session")
def people():
    return unit(NUM)


@pytest.fixture
def query_until_error():
    """Query in a loop until it fails; return the error and the duration of the last query in seconds."""

    def run(client, probe, *, seconds=30.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start_s = time.monotonic()
            try:
                client.identify(probe, threshold=0.5)
            except PpfrError as error:
                return error, time.monotonic() - start_s
        pytest.fail("no query failed")

    return run


@pytest.fixture
def make_trio(launcher, tmp_path):
    """Starts three parties for one test: `make_trio(dim=..., delay_s=...)`.

    `keys` are lines for the configuration of each party, and `clients` maps names of further clients to their lines.
    """
    made = []

    def make(*, dim=DIM, delay_s=0.0, addresses=None, namespaces=("", "", ""), keys="", clients=None):
        addresses = addresses or free_addresses()
        write_trial(tmp_path, dim=dim, addresses=addresses, timeout_s=TIMEOUT_S)
        make_certificates(tmp_path, clients=list(clients or {}))
        tables = "".join(f'[clients."{name}"]\n{lines}\n' for name, lines in (clients or {}).items())
        for party in range(3):
            path = tmp_path / f"party-{party}.toml"
            path.write_text(f"{keys}\n{path.read_text()}\n{tables}")
        for name in clients or {}:
            (tmp_path / f"{name}.toml").write_text(
                (tmp_path / "client.toml").read_text().replace('"client.', f'"{name}.')
            )
        if delay_s:
            made.extend(put_between(tmp_path, addresses, delay_s))
        trio = Trio(tmp_path, launcher, namespaces=namespaces)
        made.append(trio)
        for party in range(3):
            trio.start(party)
        return trio

    yield make
    for one in made:
        one.close()
