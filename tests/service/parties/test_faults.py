"""Failure of one party: requests fail in time and name it, the others keep running, and it can rejoin."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time

import pytest

from ppfr.core import InvalidInputError, PartyError, PpfrError
from ppfr.service import ClientSettings, PartySettings, SecureGalleryClient, create_store, make_certificates
from ppfr.service._parties._handshake import VERSION, accept_connection, receive_handshake, start_handshake
from ppfr.service._parties._links import Link
from ppfr.service._parties._messages import LENGTH

TIMEOUT_S = 3.0
MAX_S = TIMEOUT_S + 4  # time-out of the parties, grace period of the client, busy machine


def others_of(party):
    return [other for other in range(3) if other != party]


@pytest.mark.parametrize("party", [0, 1, 2])
def test_killed_party_is_named_and_rejoins(healthy, people, query_until_error, party):
    with healthy.client() as client:
        client.identify(people[:1], threshold=0.5)
        killer = threading.Timer(0.05, healthy.kill, [party])  # during queries
        killer.start()
        error, seconds = query_until_error(client, people[:40])
        killer.join()
        assert isinstance(error, PartyError) and error.party == party and seconds < MAX_S, error
        assert healthy.are_up(*others_of(party))
        start_s = time.monotonic()
        with pytest.raises(PartyError, match=r"127\.\S+ cannot be reached") as raised:
            client.identify(people[:1], threshold=0.5)
        assert raised.value.party == party and time.monotonic() - start_s < 1
        healthy.start(party)
        healthy.wait()
        assert client.identify(people[:2], threshold=0.5) == ("person 0", "person 1")


@pytest.mark.parametrize("party", [0, 2])
def test_stopped_party_is_named_and_rejoins(healthy, people, query_until_error, party):
    with healthy.client() as client:
        client.identify(people[:1], threshold=0.5)
        stopper = threading.Timer(0.05, healthy.signal, [party, signal.SIGSTOP])
        stopper.start()
        error, seconds = query_until_error(client, people[:40])
        stopper.join()
        assert isinstance(error, PartyError) and error.party == party, error
        assert seconds < MAX_S
        assert healthy.are_up(*others_of(party))
        healthy.signal(party, signal.SIGCONT)
        healthy.wait()
        assert client.identify(people[:2], threshold=0.5) == ("person 0", "person 1")


@pytest.mark.parametrize("party", [0, 2])
def test_acknowledged_enrolment_survives_killed_party(healthy, people, party):
    """A party is killed during a series of enrolments: all acknowledged ones are in all three stores."""
    done, failed, is_stopped = [], [], threading.Event()

    def work():
        with healthy.client(timeout_s=3 * MAX_S) as client:
            for turn in range(len(people)):
                try:
                    client.enrol(-people[turn : turn + 1], [f"late {turn}"])
                    done.append(turn)
                except PpfrError as error:
                    failed.append((turn, error))
                if is_stopped.is_set():
                    return
                time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    while len(done) < 3:
        time.sleep(0.01)
    healthy.kill(party)
    healthy.start(party)
    is_stopped.set()
    thread.join(60)
    assert not thread.is_alive()
    healthy.wait()
    unknown = {f"late {turn}" for turn, error in failed if "Nothing was changed" not in str(error)}
    with healthy.client() as client:  # the subjects are equal at all three, and a session requires equal galleries
        late = {subject for subject in client.subjects if subject.startswith("late")}
        acknowledged = {f"late {turn}" for turn in done}
        assert acknowledged <= late <= acknowledged | unknown
        assert all(error.party == party for _, error in failed), failed
        found = client.verify(-people[done], [f"late {turn}" for turn in done], threshold=0.9)
        assert found.all()


def send_garbage(address):
    """Open connections with data that is not TLS."""
    for data in (b"", os.urandom(4096), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x40\x00" + bytes(100)):
        with socket.create_connection(address, timeout=5) as plain:
            plain.sendall(data)


def test_garbage_does_not_disturb_other_connections(healthy, people):
    addresses = ClientSettings.read(healthy.directory / "client.toml").addresses
    idle = [socket.create_connection(address, timeout=5) for address in addresses]  # idle
    with healthy.client() as client:
        for address in addresses:
            send_garbage(address)
            assert client.identify(people[:1], threshold=0.5) == ("person 0",)
    for party in range(3):
        sender = healthy.dial(f"party-{(party + 1) % 3}", party)
        sender.send_bytes(b"ppfrmpc" + bytes([VERSION]) + b"\xff\xff\xff\xff" + os.urandom(100))  # a head of 4 GB
        sender.close()
        sender = healthy.dial(f"party-{(party + 1) % 3}", party)
        sender.send_bytes(os.urandom(4000))
        sender.close()
    with healthy.client() as client:
        assert client.identify(people[:1], threshold=0.5) == ("person 0",)
    assert healthy.are_up(0, 1, 2)
    for connection in idle:
        connection.close()


def test_request_above_the_limit_is_refused_unread(healthy, people):
    """A client that ignores the limit loses its connection; others are not affected."""
    settings = ClientSettings.read(healthy.directory / "client.toml")
    context = settings.credentials.context(is_server=False)
    with healthy.client() as other:
        for party in range(3):
            link = Link.dial(settings.addresses[party], context, party=party, timeout_s=TIMEOUT_S)
            limit = start_handshake(link, "client", None).integer("max_request_bytes")
            head = json.dumps({"type": "query", "sizes": [limit + 1]}).encode()
            link.send_bytes(LENGTH.pack(len(head)) + head)
            with pytest.raises(PartyError, match="closed the connection"):
                link.receive(1000)
            link.close()
            log = healthy.logs[party].read_text()
            assert str(limit + 1) in log and str(limit) in log and "max_request_bytes" in log
        assert other.identify(people[:1], threshold=0.5) == ("person 0",)


def test_protocol_error_names_the_party(healthy, people):
    """Instead of party 2, a program with its certificate sends an invalid report to party 0."""
    healthy.kill(2)
    settings = PartySettings.read(healthy.directory / "party-2.toml")
    with socket.create_server(settings.listen) as listener:
        listener.settimeout(10)
        accepted = []

        def accept_commands():
            connection, _ = listener.accept()
            with settings.credentials.context(is_server=True).wrap_socket(connection, server_side=True) as secured:
                link = Link(secured, peer="party 0", party=0, timeout_s=5)
                receive_handshake(link, settings.parameters)
                accept_connection(link, settings.parameters)
                accepted.append(True)
                time.sleep(0.5)

        thread = threading.Thread(target=accept_commands)
        thread.start()
        link = healthy.dial("party-2", 0, purpose="reports")
        link.send_bytes(b"\x05\x00\x00\x00nonsense")
        thread.join()
        link.close()
    assert accepted and healthy.are_up(0, 1)
    healthy.wait_for_log("Protocol error of party 2", 0)


def test_party_with_another_version_is_named(healthy, people):
    """Instead of party 2, a program with its certificate replies with another version of the protocol."""
    other = VERSION + 1
    healthy.kill(2)
    settings = PartySettings.read(healthy.directory / "party-2.toml")
    with socket.create_server(settings.listen) as listener:
        listener.settimeout(10)

        def reply():
            connection, _ = listener.accept()
            with settings.credentials.context(is_server=True).wrap_socket(connection, server_side=True) as secured:
                secured.sendall(b"ppfrmpc" + bytes([other]))
                secured.recv(1 << 16)

        thread = threading.Thread(target=reply)
        thread.start()
        with (
            healthy.client() as client,
            pytest.raises(PartyError, match=f"version {other}.*version {VERSION}") as raised,
        ):
            client.match_any(people[:1], threshold=0.5)
        thread.join()
    assert raised.value.party == 2 and healthy.are_up(0, 1)


def test_handshake_refuses_another_version(healthy):
    for party in range(3):
        link = healthy.dial(f"party-{(party + 1) % 3}", party)
        link.send_bytes(b"ppfrmpc" + bytes([VERSION + 1]))
        link.receive_bytes(8)
        refusal = link.receive(0).fields["refused"]
        assert f"version {VERSION + 1}" in refusal and f"version {VERSION}" in refusal
        link.close()


def wait_for_error(query_until_error, client, people, word):
    """Query until an error contains a word; earlier errors may say that a party is not up yet."""
    for _ in range(200):
        error, seconds = query_until_error(client, people[:1])
        if word in str(error):
            return error, seconds
        time.sleep(0.05)
    pytest.fail(f"no error contained {word!r}; the last one was: {error}")


def test_party_with_another_gallery_is_named(healthy, people, query_until_error):
    """A store of another gallery, and one of the same name with other references, under the same certificate."""
    config = healthy.directory / "other-2.toml"
    text = (healthy.directory / "party-2.toml").read_text()
    config.write_text(text.replace('"trial"', '"other"').replace("party-2.shares", "other-2.shares"))
    create_store(PartySettings.read(config)).close()
    healthy.restart(2, config=config)
    with healthy.client() as client:
        error, _ = wait_for_error(query_until_error, client, people, "gallery")
        assert error.party == 2
    assert healthy.are_up(0, 1, 2)
    healthy.wait_for_log("has other parameters: gallery is", 0, 1, 2)
    config.write_text(text.replace("party-2.shares", "empty-2.shares"))
    create_store(PartySettings.read(config)).close()
    healthy.restart(2, config=config)
    with healthy.client() as client:
        wait_for_error(query_until_error, client, people, "galler")
    healthy.wait_for_log("Party 2 has other references than party 0", 0)


def test_wrong_certificates_are_refused(healthy, people, tmp_path):
    """A client of another authority, a party under another name, an unknown client of the same authority."""
    made = make_certificates(tmp_path, clients=["client"])
    assert len(made["made"]) == 4
    make_certificates(healthy.directory, clients=["unknown"])
    text = (healthy.directory / "client.toml").read_text()
    addresses = text.splitlines()[0]

    def error_of(certificate, authority, first_line=addresses):
        path = tmp_path / "config.toml"
        path.write_text(
            f'{first_line}\ncertificate = "{certificate}.crt"\nkey = "{certificate}.key"\nauthority = "{authority}"\n'
        )
        with SecureGalleryClient.open(path) as client, pytest.raises(PpfrError) as raised:
            client.match_any(people[:1], threshold=0.5)
        return raised.value

    ours = healthy.directory
    error = error_of(tmp_path / "client", tmp_path / "ca.crt")
    assert error.party == 0 and "'party-0'" in str(error) and "Compare certificates" in str(error)
    error = error_of(tmp_path / "client", ours / "ca.crt")
    assert error.party == 0 and "closed the connection" in str(error)
    error = error_of(ours / "unknown", ours / "ca.crt")
    assert error.party == 0 and "'unknown' is not in the configuration" in str(error)
    given = ClientSettings.read(ours / "client.toml").addresses
    swapped = ", ".join(f'"{given[i][0]}:{given[i][1]}"' for i in (1, 0, 2))
    error = error_of(ours / "client", ours / "ca.crt", f"parties = [{swapped}]")
    assert error.party == 0 and "'party-0'" in str(error)
    with pytest.raises(InvalidInputError, match=r"client\.key"):
        error_of(ours / "client", tmp_path / "client.key")


def test_client_without_certificate_or_with_tls_1_2_is_refused(healthy):
    address = ClientSettings.read(healthy.directory / "client.toml").addresses[0]
    context = ssl.create_default_context(cafile=str(healthy.directory / "ca.crt"))
    with (
        socket.create_connection(address, timeout=5) as plain,
        pytest.raises((ssl.SSLError, OSError)),
        context.wrap_socket(plain, server_hostname="party-0") as secured,
    ):
        if not secured.recv(1):  # with TLS 1.3 the refusal arrives with the first read
            raise OSError("closed")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address, timeout=5) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname="party-0")
