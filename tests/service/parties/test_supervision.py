"""Unexpected exceptions: threads go on, and a program at the address of a party stops nothing for good."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time

import pytest

from ppfr.core import InvalidInputError
from ppfr.service import PartySettings
from ppfr.service._parties._handshake import VERSION
from ppfr.service._parties._messages import LENGTH, MalformedError, Message, parsed_head
from ppfr.service._parties._supervision import ending_connection, start_thread

NESTED = b"[" * 10_000 + b"]" * 10_000
PREFACE = b"ppfrmpc" + bytes([VERSION])


def framed(text):
    return LENGTH.pack(len(text)) + text


GREETINGS = {
    "too long": PREFACE + Message(fields={"parameters": None}, buffers=[bytes(100)]).head(),
    "nested": PREFACE + framed(NESTED),
    "no parameters": PREFACE + framed(b'{"sizes": [], "parameters": [[1]]}'),
    "not an object": PREFACE + framed(b"[]"),
    "long integer": PREFACE + framed(b'{"sizes": [' + b"9" * 5000 + b"]}"),
    "huge sum": PREFACE + framed(json.dumps({"sizes": [int("9" * 4290)] * 16}).encode()[: 1 << 16]),
    "garbage": os.urandom(4096),
    "nothing": b"",
}


def impersonate(listener, credentials, greeting, num):
    """Accept `num` connections, and send a greeting on each."""
    context = credentials.context(is_server=True)
    for _ in range(num):
        plain, _ = listener.accept()
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
            secured.sendall(greeting)
            secured.settimeout(1)
            while secured.recv(1 << 16):
                pass


def test_impostor_at_the_address_of_party_0_stops_nothing_for_good(healthy, people):
    """It has party 0's certificate and sends bad greetings. The real party 0 starts: all is up within seconds."""
    healthy.kill(0)
    settings = PartySettings.read(healthy.directory / "party-0.toml")
    with socket.create_server(settings.listen) as listener:
        listener.settimeout(20)
        for greeting in GREETINGS.values():
            impersonate(listener, settings.credentials, greeting, num=2)
    assert healthy.are_up(1, 2)
    healthy.start(0)
    start_s = time.monotonic()
    healthy.wait(seconds=8)
    assert time.monotonic() - start_s < 8
    with healthy.client() as client:
        assert client.identify(people[:1], threshold=0.5) == ("person 0",)


@pytest.mark.parametrize("party", [0, 1])
def test_nested_json_of_a_client_or_a_party_ends_only_its_connection(healthy, people, party):
    for name, purpose in (("client", "client"), ("client", None)):
        link = healthy.dial(name, party, purpose=purpose)
        link.send_bytes(b"" if purpose else PREFACE)
        link.send_bytes(framed(NESTED))
        with pytest.raises(Exception, match="closed the connection"):
            while True:
                link.receive_bytes(1)
        link.close()
    text = healthy.logs[party].read_text()
    assert "nested too deeply" in text and "Traceback" not in text
    with healthy.client() as client:
        assert client.identify(people[:1], threshold=0.5) == ("person 0",)


@pytest.mark.parametrize("text", [NESTED, b'{"sizes": [], "a": ' + NESTED + b"}"])
def test_nested_json_is_malformed(text):
    with pytest.raises(MalformedError, match="nested"):
        parsed_head(text, 100)


def test_integers_are_bounded():
    with pytest.raises(MalformedError):
        parsed_head(json.dumps({"sizes": [1 << 41]}).encode(), 1 << 50)
    with pytest.raises(MalformedError, match="num"):
        Message(fields={"num": 1 << 63}).integer("num")


def test_thread_goes_on_after_an_unexpected_exception(caplog):
    """The log names the type, not the text, which could contain anything."""
    turns, done = [], threading.Event()

    def work():
        turns.append(time.monotonic())
        if len(turns) == 1:
            raise KeyError("a secret")
        done.set()

    with caplog.at_level(logging.INFO, logger="ppfr.party"):
        start_thread("test", work)
        assert done.wait(5)
    time.sleep(0.1)
    assert len(turns) == 2 and turns[1] - turns[0] > 0.2
    assert "KeyError" in caplog.text and "thread test" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize("error", [KeyError("a secret"), RecursionError("a secret"), ValueError("a secret")])
def test_unexpected_exception_of_a_connection_ends_in_one_place(caplog, error):
    with caplog.at_level(logging.INFO, logger="ppfr.party"):
        with ending_connection("a connection"):
            raise error
        with ending_connection("a connection"):
            raise InvalidInputError("a reason")
        with ending_connection("a connection"):
            raise ConnectionResetError("a secret")
    assert type(error).__name__ in caplog.text and "secret" not in caplog.text and "a reason" in caplog.text
