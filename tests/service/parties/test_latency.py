"""Between hosts: each round costs one way, whatever is computed; parties in network namespaces of their own."""

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
    """Seconds of a decision 1:1, after its directory and connections are there."""
    rows = unit(20)
    with trio.client() as client:
        client.enrol(rows, [f"person {i}" for i in range(20)])
        assert client.identify(rows[3:5], threshold=0.9) == ("person 3", "person 4")
        assert client.verify(rows[:2], ["person 0", "person 5"], threshold=0.9).tolist() == [True, False]
        taken = []
        for _ in range(5):
            begun = time.monotonic()
            client.verify(rows[:1], ["person 0"], threshold=0.9)
            taken.append(time.monotonic() - begun)
    return min(taken)


def test_a_decision_waits_once_a_round(make_trio):
    """Request, "it is here", "do it", statement, 8 rounds, reply: 13 ways of 10 ms, and little beside them."""
    trio = make_trio(dim=16, delay_s=DELAY_S)
    trio.wait()
    least = (ROUNDS + 5) * DELAY_S
    assert least <= check(trio) < 3 * least


def ip(*words, tool="ip"):
    done = subprocess.run([tool, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{tool} {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def hosts():
    """Names of four network namespaces on one switch, for three parties and a client: 10.77.0.1 to 10.77.0.4."""
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
def test_parties_on_hosts_of_their_own(make_trio, hosts, delay_ms):
    if delay_ms:
        try:
            for name in hosts:
                ip("-n", name, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", f"{delay_ms}ms", tool="tc")
        except OSError as error:
            pytest.skip(f"the kernel delays no packets ({error}); a relay delays them in another test")
    addresses = [f"10.77.0.{i + 1}:7300" for i in range(3)]
    trio = make_trio(dim=16, addresses=addresses, namespaces=tuple(hosts[:3]))
    found = []

    def work():
        """On the fourth host: a thread may be in another network than its process."""
        handle = os.open(f"/var/run/netns/{hosts[3]}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) == 0:
            trio.wait()
            found.append(check(trio))
        os.close(handle)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert found and found[0] >= (ROUNDS + 5) * delay_ms / 1e3
