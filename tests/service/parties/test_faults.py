"""What goes wrong at one party: the question fails in time and names it, the others stay up, and it comes back."""

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
from ppfr.service._parties import _greeting
from ppfr.service._parties._greeting import greet
from ppfr.service._parties._links import Link
from ppfr.service._parties._messages import LENGTH

TIMEOUT_S = 3.0
LATEST_S = TIMEOUT_S + 4  # the parties' time-out, a client's patience for explanations, a busy machine


def others_of(party):
    return [other for other in range(3) if other != party]


@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_party_that_dies_is_named_and_rejoins(healthy, people, asks_until_error, party):
    with healthy.client() as client:
        client.identify(people[:1], threshold=0.5)
        killer = threading.Timer(0.05, healthy.kill, [party])  # while questions are asked
        killer.start()
        error, seconds = asks_until_error(client, people[:40])
        killer.join()
        assert isinstance(error, PartyError) and f"party {party}" in str(error) and seconds < LATEST_S
        assert healthy.are_up(*others_of(party))
        begun = time.monotonic()
        with pytest.raises(PartyError, match=rf"party {party} at .* cannot be reached"):
            client.identify(people[:1], threshold=0.5)
        assert time.monotonic() - begun < 1
        healthy.start(party)
        healthy.wait()
        assert client.identify(people[:2], threshold=0.5) == ("person 0", "person 1")


@pytest.mark.parametrize("party", [0, 2])
def test_a_party_that_stalls_is_named_and_rejoins(healthy, people, asks_until_error, party):
    with healthy.client() as client:
        client.identify(people[:1], threshold=0.5)
        stopper = threading.Timer(0.05, healthy.signal, [party, signal.SIGSTOP])
        stopper.start()
        error, seconds = asks_until_error(client, people[:40])
        stopper.join()
        assert isinstance(error, PartyError) and f"party {party}" in str(error), error
        assert seconds < LATEST_S
        assert healthy.are_up(*others_of(party))
        healthy.signal(party, signal.SIGCONT)
        healthy.wait()
        assert client.identify(people[:2], threshold=0.5) == ("person 0", "person 1")


@pytest.mark.parametrize("party", [0, 2])
def test_an_acknowledged_enrolment_survives(healthy, people, party):
    """A party is killed while one enrolment follows the other: all that were acknowledged are at all three."""
    done, failed, is_over = [], [], threading.Event()

    def work():
        with healthy.client(timeout_s=3 * LATEST_S) as client:
            for turn in range(len(people)):
                try:
                    client.enrol(-people[turn : turn + 1], [f"late {turn}"])
                    done.append(turn)
                except PpfrError as error:
                    failed.append((turn, error))
                if is_over.is_set():
                    return
                time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    while len(done) < 3:
        time.sleep(0.01)
    healthy.kill(party)
    healthy.start(party)
    is_over.set()
    thread.join(60)
    assert not thread.is_alive()
    healthy.wait()
    unknown = {f"late {turn}" for turn, error in failed if "nothing was changed" not in str(error)}
    with healthy.client() as client:  # a directory that three parties agree on, and a session: galleries are equal
        late = {subject for subject in client.subjects if subject.startswith("late")}
        acknowledged = {f"late {turn}" for turn in done}
        assert acknowledged <= late <= acknowledged | unknown
        assert all(f"party {party}" in str(error) for _, error in failed)
        found = client.verify(-people[done], [f"late {turn}" for turn in done], threshold=0.9)
        assert found.all()


def garbage(address):
    """Connections that no program of ours makes."""
    for data in (b"", os.urandom(4096), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x40\x00" + bytes(100)):
        with socket.create_connection(address, timeout=5) as plain:
            plain.sendall(data)


def dialled(trio, name, party, *, purpose=None):
    """A TLS connection under somebody's certificate."""
    settings = PartySettings.read(trio.directory / f"{name}.toml")
    link = Link.dial(
        settings.addresses[party], settings.identity.context(is_server=False), party=party, timeout_s=TIMEOUT_S
    )
    if purpose is not None:
        greet(link, purpose, settings.parameters, session="00" * 16)
    return link


def test_garbage_on_the_port_disturbs_nobody(healthy, people):
    addresses = ClientSettings.read(healthy.directory / "client.toml").addresses
    idle = [socket.create_connection(address, timeout=5) for address in addresses]  # says nothing, and stays
    with healthy.client() as client:
        for address in addresses:
            garbage(address)
            assert client.identify(people[:1], threshold=0.5) == ("person 0",)
    for party in range(3):
        sender = dialled(healthy, f"party-{(party + 1) % 3}", party)
        sender.send_bytes(b"ppfrmpc\x01" + b"\xff\xff\xff\xff" + os.urandom(100))  # a head of 4 GB
        sender.close()
        sender = dialled(healthy, f"party-{(party + 1) % 3}", party)
        sender.send_bytes(os.urandom(4000))
        sender.close()
    with healthy.client() as client:
        assert client.identify(people[:1], threshold=0.5) == ("person 0",)
    assert healthy.are_up(0, 1, 2)
    for connection in idle:
        connection.close()


def test_too_large_a_request_is_refused_unread(healthy, people):
    """By a client that does not keep to the limit it was told: its connection ends, nobody else's does."""
    settings = ClientSettings.read(healthy.directory / "client.toml")
    context = settings.identity.context(is_server=False)
    with healthy.client() as other:
        for party in range(3):
            link = Link.dial(settings.addresses[party], context, party=party, timeout_s=TIMEOUT_S)
            limit = greet(link, "client", None).integer("max_request_bytes")
            head = json.dumps({"do": "ask", "sizes": [limit + 1]}).encode()
            link.send_bytes(LENGTH.pack(len(head)) + head)
            with pytest.raises(PartyError, match="closed the connection"):
                link.receive(1000)
            link.close()
            assert f"{limit + 1} bytes, {limit} are allowed" in healthy.logs[party].read_text()
        assert other.identify(people[:1], threshold=0.5) == ("person 0",)


def test_a_party_that_babbles_in_its_place_is_named(healthy, people):
    """Party 2 is gone; somebody with its certificate reports nonsense to party 0."""
    healthy.kill(2)
    settings = PartySettings.read(healthy.directory / "party-2.toml")
    with socket.create_server(settings.listen) as listener:
        listener.settimeout(10)
        taken = []

        def take_orders():
            connection, _ = listener.accept()
            with settings.identity.context(is_server=True).wrap_socket(connection, server_side=True) as secured:
                link = Link(secured, peer="party 0", party=0, timeout_s=5)
                _greeting.hear_greeting(link, settings.parameters)
                _greeting.welcome(link, settings.parameters)
                taken.append(True)
                time.sleep(0.5)

        thread = threading.Thread(target=take_orders)
        thread.start()
        link = dialled(healthy, "party-2", 0, purpose="reports")
        link.send_bytes(b"\x05\x00\x00\x00nonsense")
        thread.join()
        link.close()
    assert taken and healthy.are_up(0, 1)
    healthy.wait_for_log("party 2 sent what is no message of the protocol", 0)


def test_another_version_is_named(healthy, people, asks_until_error, monkeypatch):
    healthy.restart(2, before="import ppfr.service._parties._greeting as g; g.VERSION = 9")
    with healthy.client() as client:
        error, _ = wait_for_error(asks_until_error, client, people, "version")
        assert "party 2" in str(error) and "version 9" in str(error)
    assert healthy.are_up(0, 1, 2)
    healthy.wait_for_log("speaks version 9 of the parties' protocol, this side version 1", 0, 1)


def wait_for_error(asks_until_error, client, people, word):
    """The first error that says a word: before it, a party may just not be there yet."""
    for _ in range(200):
        error, seconds = asks_until_error(client, people[:1])
        if word in str(error):
            return error, seconds
        time.sleep(0.05)
    pytest.fail(f"no error said {word!r}; the last: {error}")


def test_another_gallery_is_named(healthy, people, asks_until_error):
    """A store of another gallery under the same certificate."""
    config = healthy.directory / "other-2.toml"
    text = (healthy.directory / "party-2.toml").read_text()
    config.write_text(text.replace('"trial"', '"other"').replace("party-2.shares", "other-2.shares"))
    create_store(PartySettings.read(config)).close()
    healthy.restart(2, config=config)
    with healthy.client() as client:
        error, _ = wait_for_error(asks_until_error, client, people, "gallery")
        assert "party 2" in str(error)
    assert healthy.are_up(0, 1, 2)
    healthy.wait_for_log("has other parameters: gallery is", 0, 1, 2)
    # The same gallery's name, but other references in it.
    config.write_text(text.replace("party-2.shares", "empty-2.shares"))
    create_store(PartySettings.read(config)).close()
    healthy.restart(2, config=config)
    with healthy.client() as client:
        error, _ = wait_for_error(asks_until_error, client, people, "galler")
    healthy.wait_for_log("party 2 holds other references than party 0", 0)


def test_wrong_certificates_are_refused(healthy, people, tmp_path):
    """Another authority's client, a party under another's name, a stranger of the same authority."""
    made = make_certificates(tmp_path, clients=["client"])
    assert len(made["made"]) == 4
    make_certificates(healthy.directory, clients=["stranger"])
    text = (healthy.directory / "client.toml").read_text()
    addresses = text.splitlines()[0]

    def error_of(certificate, authority, first_line=addresses):
        path = tmp_path / "config.toml"
        path.write_text(
            f'{first_line}\ncertificate = "{certificate}.crt"\nkey = "{certificate}.key"\nauthority = "{authority}"\n'
        )
        with SecureGalleryClient.open(path) as client, pytest.raises(PpfrError) as raised:
            client.match_any(people[:1], threshold=0.5)
        return str(raised.value)

    ours = healthy.directory
    assert "did not show a certificate" in error_of(tmp_path / "client", tmp_path / "ca.crt")
    assert "party 0 closed the connection" in error_of(tmp_path / "client", ours / "ca.crt")
    assert "client 'stranger' is not in the configuration" in error_of(ours / "stranger", ours / "ca.crt")
    given = ClientSettings.read(ours / "client.toml").addresses
    swapped = ", ".join(f'"{given[i][0]}:{given[i][1]}"' for i in (1, 0, 2))
    said = error_of(ours / "client", ours / "ca.crt", f"parties = [{swapped}]")
    assert "party 0 at" in said and "certificate of 'party-0'" in said
    with pytest.raises(InvalidInputError, match="do not go together"):
        error_of(ours / "client", tmp_path / "client.key")


def test_a_client_without_tls_1_3_or_certificate_is_refused(healthy):
    address = ClientSettings.read(healthy.directory / "client.toml").addresses[0]
    context = ssl.create_default_context(cafile=str(healthy.directory / "ca.crt"))
    with (
        socket.create_connection(address, timeout=5) as plain,
        pytest.raises((ssl.SSLError, OSError)),
        context.wrap_socket(plain, server_hostname="party-0") as secured,
    ):
        if not secured.recv(1):  # TLS 1.3 tells a missing certificate with the first reading
            raise OSError("closed")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address, timeout=5) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname="party-0")
