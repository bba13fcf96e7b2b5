"""Limits per client: connections, memory, idle time and rate. No client takes the places or the time of the others."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from ppfr.core import InvalidInputError, PartyError, ProblemsError
from ppfr.service import PartySettings, write_trial
from ppfr.service._parties._messages import LENGTH, Message

MEBI = 1 << 20


def unit(num, dim=16):
    rows = np.random.default_rng(5).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def resident_bytes(process_id):
    (line,) = [line for line in Path(f"/proc/{process_id}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) * 1024


def announce(link, num_bytes, **fields):
    """Send the head of a request without its buffers."""
    head = json.dumps({"type": "query", "id": os.urandom(16).hex(), "sizes": [num_bytes], **fields}).encode()
    link.send_bytes(LENGTH.pack(len(head)) + head)


def error_of(link):
    return link.receive(0).fields["error"]


def test_one_client_cannot_take_all_connections(make_trio):
    """With 8 places in total, a client gets a quarter, and another client is served."""
    trio = make_trio(keys="max_connections = 8", clients={"greedy": 'permissions = ["query"]'})
    trio.wait()
    links, refusals = [], []
    for _ in range(12):
        try:
            links.append(trio.dial("greedy", 1, purpose="client"))
        except PartyError as error:
            refusals.append(str(error))
    assert len(links) == 2 and all("'greedy'" in text and "max_connections_per_client" in text for text in refusals)
    with trio.client() as client:
        client.enrol(unit(2), ["a", "b"])
        assert client.identify(unit(2)[:1], threshold=0.9) == ("a",)
    assert "max_connections_per_client" in trio.logs[1].read_text()
    for link in links:
        link.close()
    trio.wait_for_log("ended: Client 'greedy' closed", 1)
    trio.dial("greedy", 1, purpose="client").close()


def test_connections_in_the_handshake_count(make_trio):
    """A client that is silent in the handshakes of its connections does not block others either."""
    trio = make_trio(keys="max_connections = 8", clients={"greedy": 'permissions = ["query"]'})
    trio.wait()
    silent = [trio.dial("greedy", 0) for _ in range(12)]
    with trio.client(timeout_s=5) as client:
        client.enrol(unit(1), ["a"])
        assert client.identify(unit(1), threshold=0.9) == ("a",)
    for link in silent:
        link.close()


def test_announced_bytes_take_no_memory(make_trio):
    """Five heads that announce 60 MB each do not make a party allocate it."""
    trio = make_trio()
    trio.wait()
    links = [trio.dial("client", 1, purpose="client") for _ in range(4)]
    before = resident_bytes(trio.ids[1])
    for link in links:
        announce(link, 60 * MEBI)
    time.sleep(0.5)
    assert resident_bytes(trio.ids[1]) - before < 8 * MEBI
    for link in links:
        link.close()


def test_memory_of_requests_is_limited_per_client(make_trio):
    limit = f'permissions = ["query"]\nmax_bytes_in_flight = {4 * MEBI}'
    trio = make_trio(clients={"greedy": limit})
    trio.wait()
    first, second = (trio.dial("greedy", 2, purpose="client") for _ in range(2))
    announce(first, 3 * MEBI)
    first.send_bytes(bytes(MEBI))
    time.sleep(0.2)
    announce(second, 2 * MEBI)
    second.send_bytes(bytes(2 * MEBI))
    error = error_of(second)
    assert error["kind"] == "InvalidInputError" and "max_bytes_in_flight" in error["message"]
    assert "'greedy'" in error["message"] and str(4 * MEBI) in error["message"]
    trio.wait_for_log("refused client=greedy", 2)
    second.send(Message(fields={"type": "status"}))  # the connection is still in step
    assert second.receive(0).fields["permissions"] == ["query"]
    announce(second, 100, num=10**9)  # the rows that are expanded from a few bytes count too
    second.send_bytes(bytes(100))
    assert "max_bytes_in_flight" in error_of(second)["message"]
    first.close()
    trio.wait_for_log("Client 'greedy' closed", 2)
    announce(second, 3 * MEBI)  # the memory of the first connection is free again
    second.send_bytes(bytes(3 * MEBI))
    with pytest.raises(PartyError, match="closed the connection"):  # reached the parser, which refuses it
        second.receive(0)
    second.close()


def test_client_splits_its_requests_by_its_own_memory_limit(make_trio):
    limit = f'permissions = ["query", "enrol"]\nmax_bytes_in_flight = {4 * MEBI}'
    trio = make_trio(clients={"small": limit})
    trio.wait()
    with trio.client(name="small") as client:
        assert client._exchange.terms().max_request_bytes == MEBI
        client.enrol(unit(2), ["a", "b"])
        rows = np.repeat(unit(2), 20_000, axis=0)
        assert client.match_any(rows, threshold=0.9).all()


def test_idle_connection_is_closed_and_the_client_connects_again(make_trio):
    trio = make_trio(keys="idle_s = 1", clients={"greedy": 'permissions = ["query"]\nidle_s = 0.4'})
    trio.wait()
    link = trio.dial("greedy", 0, purpose="client")
    start_s = time.monotonic()
    error = error_of(link)
    assert 0.3 < time.monotonic() - start_s < 2 and "0.4 s" in error["message"] and "idle_s" in error["message"]
    with pytest.raises(PartyError, match="closed the connection"):
        link.receive(0)
    link.close()
    assert "'greedy' sent no request" in trio.logs[0].read_text()
    with trio.client() as client:
        for turn in range(3):
            client.enrol(unit(3)[turn : turn + 1], [f"person {turn}"])
            time.sleep((0.5, 0.8, 1.3)[turn])  # a party has not closed, is about to close, has closed
        assert client.identify(unit(3), threshold=0.9) == ("person 0", "person 1", "person 2")


def test_client_connects_again_after_parties_restarted(make_trio):
    """A connection that a party has closed is replaced before a request is sent, so that no request fails."""
    trio = make_trio()
    trio.wait()
    with trio.client() as client:
        client.enrol(unit(1), ["a"])
        trio.restart(1)
        trio.wait()
        assert client.identify(unit(1), threshold=0.9) == ("a",)


def test_rate_of_requests_is_limited_per_client(make_trio):
    """Some requests too many are delayed, and more are refused. Another client is not affected."""
    slow, slower = ('permissions = ["query"]\nmax_requests_per_s = ' + rate for rate in ("5", "0.1"))
    trio = make_trio(clients={"slow": slow, "slower": slower})
    trio.wait()
    with trio.client() as client:
        client.enrol(unit(1), ["a"])
    with trio.client(name="slow") as client:
        start_s = time.monotonic()
        for _ in range(12):
            assert client.match_any(unit(1), threshold=0.9).all()
        assert time.monotonic() - start_s > (12 - 5) / 5 - 0.1
    with trio.client(name="slower") as client, pytest.raises(InvalidInputError) as raised:
        for _ in range(3):
            client.match_any(unit(1), threshold=0.9)
    assert "'slower'" in str(raised.value) and "max_requests_per_s" in str(raised.value) and "0.1" in str(raised.value)
    trio.wait_for_log("refused client=slower", 0, 1, 2)
    with trio.client() as client:
        start_s = time.monotonic()
        for _ in range(12):
            assert client.match_any(unit(1), threshold=0.9).all()
        assert time.monotonic() - start_s < 3  # no request of the other client blocks the queue


def test_limits_have_defaults_and_are_checked(tmp_path):
    write_trial(tmp_path, dim=8)
    path = tmp_path / "party-0.toml"
    text = path.read_text()
    found = PartySettings.read(path).clients["client"]
    assert (found.max_connections, found.max_bytes_in_flight, found.idle_s) == (16, 256 * MEBI, 300)
    keys = f"max_connections = 32\nmax_connections_per_client = 5\nidle_s = 9\nmax_bytes_in_flight = {9 * MEBI}\n"
    path.write_text(keys + text + '[clients."b"]\npermissions = ["query"]\nidle_s = 4\nmax_connections = 7\n')
    both = PartySettings.read(path).clients
    assert (both["client"].max_connections, both["client"].idle_s) == (5, 9)
    assert (both["b"].max_connections, both["b"].idle_s, both["b"].max_bytes_in_flight) == (7, 4, 9 * MEBI)
    path.write_text(text + '[clients."b"]\npermissions = ["query"]\nmax_connections = 60\n')
    with pytest.raises(ProblemsError, match=r"clients\.b.*60.*max_connections \(64\)"):
        PartySettings.read(path)
    bad = "max_requests_per_s = 0\nidle_s = -1\nmax_bytes_in_flight = 5\nmax_connections_per_client = 0\n"
    path.write_text(bad + text)
    with pytest.raises(ProblemsError) as raised:
        PartySettings.read(path)
    assert [problem.split()[0] for problem in sorted(raised.value.problems)] == [
        "idle_s", "max_bytes_in_flight", "max_connections_per_client", "max_requests_per_s",
    ]  # fmt: skip


def test_parties_survive_a_flood_of_refused_requests(make_trio):
    trio = make_trio(clients={"greedy": 'permissions = ["query"]\nmax_requests_per_s = 0.01'})
    trio.wait()
    links = [trio.dial("greedy", party, purpose="client") for party in (0, 1, 2) for _ in range(4)]
    for _ in range(2):
        for link in links:
            link.send(Message(fields={"type": "enrol", "id": os.urandom(16).hex(), "num": 1}))
    with trio.client() as client:
        client.enrol(unit(1), ["a"])
        assert client.identify(unit(1), threshold=0.9) == ("a",)
    for link in links:
        link.close()
    assert trio.are_up(0, 1, 2) and trio.kill(0, signal.SIGTERM) == 0


def test_one_host_cannot_take_all_places_for_handshakes(make_trio):
    """Connections without a certificate from one host leave places for other hosts."""
    trio = make_trio(keys="max_connections = 8")
    trio.wait()
    addresses = [PartySettings.read(trio.directory / f"party-{party}.toml").listen for party in range(3)]
    silent = [
        socket.create_connection(address, timeout=5, source_address=("127.0.0.9", 0))
        for address in addresses
        for _ in range(12)
    ]
    start_s = time.monotonic()
    with trio.client(timeout_s=5) as client:
        client.enrol(unit(1), ["a"])
        assert client.identify(unit(1), threshold=0.9) == ("a",)
    assert time.monotonic() - start_s < 2  # not after the time-out of the silent connections
    for plain in silent:
        plain.close()
