"""Latency between hosts: each round costs one one-way delay. The parties run in separate network namespaces."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time

import numpy as np
import pytest

DELAY_S, ROUNDS = 0.01, 8
CLONE_NEWNET = 0x40000000


def unit(num, dim=16):
    rows = np.random.default_rng(1).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check(trio):
    """Duration of a 1:1 decision in seconds, once connections are open and the subjects are known."""
    rows = unit(20)
    with trio.client() as client:
        client.enrol(rows, [f"person {i}" for i in range(20)])
        assert client.identify(rows[3:5], threshold=0.9) == ("person 3", "person 4")
        assert client.verify(rows[:2], ["person 0", "person 5"], threshold=0.9).tolist() == [True, False]
        durations_s = []
        for _ in range(5):
            start_s = time.monotonic()
            client.verify(rows[:1], ["person 0"], threshold=0.9)
            durations_s.append(time.monotonic() - start_s)
    return min(durations_s)


def test_decision_takes_one_delay_per_round(make_trio):
    """Request, report, command, statement, 8 rounds and reply: 13 one-way delays of 10 ms, and little else."""
    trio = make_trio(dim=16, delay_s=DELAY_S)
    trio.wait()
    minimum_s = (ROUNDS + 5) * DELAY_S
    assert minimum_s <= check(trio) < 3 * minimum_s


def ip(*words, tool="ip"):
    done = subprocess.run([tool, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{tool} {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def hosts():
    """Four network namespaces on one switch, for three parties and a client: 10.77.0.1 to 10.77.0.4."""
    tag = f"ppfr{os.getpid()}"
    names = [f"{tag}-{i}" for i in range(4)]
    try:
        for name in (tag, *names):
            ip("netns", "add", name)
        ip("-n", tag, "link", "add", "switch", "type", "bridge")
        ip("-n", tag, "link", "set", "switch", "up")
        for i, name in enumerate(names):
            ip("-n", tag, "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", tag, "link", "set", f"port{i}", "master", "switch", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        for name in (tag, *names):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.parametrize("delay_ms", [0, 20])
def test_parties_on_separate_hosts(make_trio, hosts, delay_ms):
    if delay_ms:
        try:
            for name in hosts:
                ip("-n", name, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", f"{delay_ms}ms", tool="tc")
        except OSError as error:
            pytest.skip(f"the kernel cannot delay packets ({error}); another test uses a relay instead")
    addresses = [f"10.77.0.{i + 1}:7300" for i in range(3)]
    trio = make_trio(dim=16, addresses=addresses, namespaces=tuple(hosts[:3]))
    found = []

    def work():
        """Run on the fourth host; a thread can be in another network namespace than its process."""
        handle = os.open(f"/var/run/netns/{hosts[3]}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) == 0:
            trio.wait()
            found.append(check(trio))
        os.close(handle)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert found and found[0] >= (ROUNDS + 5) * delay_ms / 1e3
