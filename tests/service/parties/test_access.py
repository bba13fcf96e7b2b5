"""Revoked certificates, removed clients, changed rights, and the audit log, while the parties run."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import ssl
import stat
import time

import numpy as np
import pytest

from ppfr.core import InvalidInputError, PartyError, ProblemsError, StorageError
from ppfr.service import ClientSettings, PartySettings, fingerprint_of_file, make_certificates, write_trial
from ppfr.service._parties._audit import AuditLog

ALL = (0, 1, 2)


def unit(num, dim=16):
    rows = np.random.default_rng(5).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def revoke(trio, name, *parties):
    """Add a certificate to the revoked ones of parties, and return its fingerprint."""
    fingerprint = fingerprint_of_file(trio.directory / f"{name}.crt")
    for party in parties:
        path = trio.directory / f"party-{party}.toml"
        path.write_text(f'revoked = ["{fingerprint}"]\n{path.read_text()}')
    trio.reload(*parties)
    return fingerprint


def events(trio, party):
    path = trio.directory / f"party-{party}.audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fingerprint_is_that_of_the_certificate(tmp_path):
    make_certificates(tmp_path, clients=["desk"])
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "desk.crt").read_text())
    assert fingerprint_of_file(tmp_path / "desk.crt") == hashlib.sha256(der).hexdigest()
    for name in ("absent.crt", "desk.key"):
        with pytest.raises(InvalidInputError, match=name):
            fingerprint_of_file(tmp_path / name)


def test_revoked_client_is_refused_and_its_connections_end(make_trio):
    trio = make_trio(clients={"desk": 'permissions = ["query"]'})
    trio.wait()
    with trio.client() as client, trio.client(name="desk") as desk:
        client.enrol(unit(1), ["a"])
        assert desk.identify(unit(1), threshold=0.9) == ("a",)
        link = trio.dial("desk", 1, purpose="client")
        fingerprint = revoke(trio, "desk", *ALL)
        with pytest.raises(PartyError, match="closed the connection"):
            link.receive(0)
        link.close()
        with pytest.raises(PartyError, match=rf"'desk'.*{fingerprint}.*revoked") as raised:
            desk.identify(unit(1), threshold=0.9)
        assert raised.value.party == 0
        assert client.identify(unit(1), threshold=0.9) == ("a",)  # on its old connections
    assert fingerprint in trio.logs[0].read_text()
    refused = [event for event in events(trio, 0) if event.get("refusal") == "revoked"]
    assert refused and all((e["fingerprint"], e["client"]) == (fingerprint, "desk") for e in refused)
    for file in ("desk.crt", "desk.key"):
        (trio.directory / file).unlink()
    make_certificates(trio.directory, clients=["desk"])  # a new certificate for the same name is accepted
    with trio.client(name="desk") as desk:
        assert desk.identify(unit(1), threshold=0.9) == ("a",)


def test_connections_of_a_revoked_certificate_do_not_count_for_its_client(make_trio):
    """A stolen and revoked certificate must not take the places of the client."""
    trio = make_trio(keys="max_connections = 8", clients={"desk": 'permissions = ["query"]'})
    trio.wait()
    before = fingerprint_of_file(trio.directory / "desk.crt")
    for suffix in ("crt", "key"):
        (trio.directory / f"desk.{suffix}").rename(trio.directory / f"stolen.{suffix}")
    make_certificates(trio.directory, clients=["desk"])
    assert revoke(trio, "stolen", *ALL) == before
    silent = [trio.dial("stolen", 0) for _ in range(6)]  # in the handshake
    with trio.client(name="desk", timeout_s=5) as desk:
        assert desk.subjects == ()
    for link in silent:
        link.close()


def test_clients_and_rights_change_without_a_restart(make_trio):
    trio = make_trio(clients={"desk": 'permissions = ["query"]\nbudget_bits = 1'})
    trio.wait()
    with trio.client() as client, trio.client(name="desk") as desk:
        client.enrol(unit(1), ["a"])
        assert desk.match_any(unit(1), threshold=0.9).all()
        with pytest.raises(InvalidInputError, match="budget_bits"):
            desk.match_any(unit(1), threshold=0.9)
        trio.edit("budget_bits = 1", "budget_bits = 3", *ALL)
        trio.reload(*ALL)
        assert desk.match_any(unit(1), threshold=0.9).all()  # on the same connections
        assert [status["bits_left"] for status in desk.status()] == [1, 1, 1]
        trio.edit('permissions = ["query"]', 'permissions = ["enrol"]', *ALL)
        trio.reload(*ALL)
        with pytest.raises(InvalidInputError, match="'desk' has no permission to query"):
            desk.match_any(unit(1), threshold=0.9)
        link = trio.dial("desk", 2, purpose="client")
        trio.edit('[clients."desk"]', '[clients."other"]', *ALL)
        trio.reload(*ALL)
        with pytest.raises(PartyError, match="closed the connection"):
            link.receive(0)
        link.close()
        with pytest.raises(PartyError, match="'desk' is not in the configuration"):
            desk.match_any(unit(1), threshold=0.9)
        assert client.identify(unit(1), threshold=0.9) == ("a",)
    assert trio.are_up(*ALL)


def test_invalid_configuration_is_not_put_into_force(make_trio):
    trio = make_trio(clients={"desk": 'permissions = ["query"]'})
    trio.wait()
    with trio.client(name="desk") as desk:
        assert desk.subjects == ()
        path = trio.directory / "party-1.toml"
        text = path.read_text()
        path.write_text(text.replace('permissions = ["query"]', 'permissions = ["read"]'))
        trio.signal(1, 1)
        trio.wait_for_log("clients.desk.permissions.0 = 'read'", 1)
        assert "the one in force stays" in trio.logs[1].read_text()
        path.write_text("party = ")
        trio.signal(1, 1)
        trio.wait_for_log("TOML", 1)
        assert [status["problem"] for status in desk.status()] == ["", "", ""]
        path.write_text(text.replace("timeout_s = 3", "timeout_s = 4").replace("dim = 16", "dim = 17"))
        trio.reload(1)
        (line,) = [line for line in trio.logs[1].read_text().splitlines() if "only after a restart" in line]
        assert "timeout_s" in line and "dim" in line and "store" not in line and "clients" not in line
        assert [status["problem"] for status in desk.status()] == ["", "", ""]


def test_revoked_party_is_refused_by_parties_and_clients(make_trio, tmp_path):
    trio = make_trio()
    trio.wait()
    fingerprint = revoke(trio, "party-2", 0, 1)
    end = time.monotonic() + 10
    with trio.client() as client:
        while not client.status()[0]["problem"]:
            assert time.monotonic() < end
            time.sleep(0.1)
    trio.wait_for_log(f"{fingerprint} is revoked", 0, 1)
    trio.wait_for_log("refused party 2", 0)
    settings = ClientSettings.read(trio.directory / "client.toml")
    path = trio.directory / "client.toml"
    colons = ":".join(fingerprint[i : i + 2].upper() for i in range(0, 64, 2))  # as openssl prints it
    path.write_text(f'revoked = ["{colons}"]\n{path.read_text()}')
    assert ClientSettings.read(path).revoked == {fingerprint} and not settings.revoked
    with trio.client() as client, pytest.raises(PartyError, match=f"party 2.*{fingerprint}.*revoked") as raised:
        client.match_any(unit(1), threshold=0.9)
    assert raised.value.party == 2
    path.write_text(path.read_text().replace(f'"{colons}"', ""))
    trio.edit(f'revoked = ["{fingerprint}"]\n', "", 0, 1)
    trio.reload(0, 1)
    trio.wait(seconds=10)


def test_invalid_fingerprints_are_refused(tmp_path):
    write_trial(tmp_path, dim=8)
    path = tmp_path / "party-0.toml"
    for value in ("ab", "xy" * 32, "ab" * 33):
        path.write_text(
            f'revoked = ["{value}"]\n'
            + path.read_text().partition("party =")[1]
            + "".join(path.read_text().partition("party =")[2:])
        )
        with pytest.raises(ProblemsError, match=rf"revoked\.0 = '{value}'.*fingerprint"):
            PartySettings.read(path)


def test_audit_log_names_who_did_what_and_no_content(make_trio):
    trio = make_trio(clients={"desk": 'permissions = ["query"]\nmin_threshold = 0.8'})
    trio.wait()
    secret = "Ms Very Private"
    with trio.client() as client, trio.client(name="desk") as desk:
        client.enrol(unit(3), [secret, "b", "c"])
        assert desk.identify(unit(2), threshold=0.9) == (secret, "b")
        with pytest.raises(InvalidInputError):
            desk.match_any(unit(2), threshold=0.1)
        client.verify(unit(1), [secret], threshold=0.9)
        with pytest.raises(InvalidInputError):
            desk.remove([secret])
        client.remove([secret, "b"])
    fingerprints = {name: fingerprint_of_file(trio.directory / f"{name}.crt") for name in ("client", "desk")}
    for party in ALL:
        path = trio.directory / f"party-{party}.audit.jsonl"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = [event for event in events(trio, party) if event["action"] != "subjects"]
        assert [(e["client"], e["action"], e["num"], e.get("refusal")) for e in found] == [
            ("client", "enrol", 3, None),
            ("desk", "best", 2, None),
            ("desk", "any", 2, "RangeError"),
            ("client", "verify", 1, None),
            ("desk", "remove", 1, "InvalidInputError"),
            ("client", "remove", 2, None),
        ]
        assert all(e["fingerprint"] == fingerprints[e["client"]] and e["time"].endswith("+00:00") for e in found)
        assert all(len(bytes.fromhex(e["request_id"])) == 16 for e in found)
        keys = {"time", "client", "fingerprint", "action", "num", "request_id", "refusal"}
        assert {key for event in events(trio, party) for key in event} <= keys
        assert "Private" not in path.read_text()
    ids = [[e.get("request_id") for e in events(trio, party) if e["action"] == "enrol"] for party in ALL]
    assert ids[0] == ids[1] == ids[2]


def test_audit_log_can_be_rotated(make_trio):
    trio = make_trio()
    trio.wait()
    path = trio.directory / "party-0.audit.jsonl"
    with trio.client() as client:
        client.enrol(unit(1), ["a"])
        before = path.read_text()
        path.rename(path.with_suffix(".1"))
        trio.reload(0)
        client.remove(["a"])
    assert path.with_suffix(".1").read_text() == before and "enrol" in before
    assert "remove" in path.read_text() and "enrol" not in path.read_text()


def test_audit_log_that_cannot_be_written_or_is_readable_by_others_is_an_error(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.record("enrol", client="desk", fingerprint="ab", num=1)
    path.chmod(0o640)
    with pytest.raises(StorageError, match="0640"):
        log.reopen()
    log.record("enrol", client="desk", fingerprint="ab", num=2)  # the old file stays open
    log.close()
    assert [json.loads(line)["num"] for line in path.read_text().splitlines()] == [1, 2]
    with pytest.raises(StorageError):
        log.record("enrol", client="desk", fingerprint="ab")
    with pytest.raises(StorageError, match="absent"):
        AuditLog(tmp_path / "absent" / "audit.jsonl")
    off = AuditLog(None)
    off.record("enrol", client="desk", fingerprint="ab")


@pytest.mark.parametrize("reopens", [False, True])
def test_line_that_was_cut_off_does_not_damage_the_next_one(tmp_path, monkeypatch, reopens):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.record("enrol", client="desk", fingerprint="ab", num=1)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("os.write", lambda file, data: write(file, data[:20]))  # the disk is full
        with pytest.raises(StorageError, match="only a part"):
            log.record("enrol", client="desk", fingerprint="ab", num=2)
    if reopens:
        log.close()
        log = AuditLog(path)
    log.record("enrol", client="desk", fingerprint="ab", num=3)
    log.close()
    first, cut, last = path.read_text().splitlines()
    assert json.loads(first)["num"] == 1 and len(cut) == 20 and json.loads(last)["num"] == 3


def test_party_does_not_start_with_an_audit_log_that_others_can_read(make_trio):
    trio = make_trio()
    trio.wait()
    with trio.client() as client:
        client.enrol(unit(1), ["a"])
    trio.edit('audit_log = "party-2.audit.jsonl"', 'audit_log = "/dev/full"', 2)
    trio.kill(2)
    trio.start(2)
    trio.wait_for_log("/dev/full", 2)
    assert trio.launcher.call(wait=trio.ids[2]) == 2  # others can access it
    trio.ids[2] = None


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_private_key_that_others_can_read_is_refused(tmp_path, mode):
    write_trial(tmp_path, dim=8)
    credentials = PartySettings.read(tmp_path / "party-0.toml").credentials
    credentials.context(is_server=True)
    credentials.key.chmod(mode)
    with pytest.raises(StorageError, match=rf"party-0\.key has mode {mode:04o}.*chmod 600"):
        credentials.context(is_server=True)


def test_private_keys_are_never_replaced(tmp_path):
    make_certificates(tmp_path, clients=["desk"])
    key = tmp_path / "desk.key"
    before = key.read_bytes()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.glob("*.key"))
    (tmp_path / "desk.crt").unlink()
    with pytest.raises(InvalidInputError, match=r"desk\.key already exists"):
        make_certificates(tmp_path, clients=["desk"])
    assert key.read_bytes() == before


def test_answer_is_not_sent_if_it_cannot_be_recorded(make_trio):
    trio = make_trio()
    trio.wait()
    path = trio.directory / "party-2.audit.jsonl"
    with trio.client() as client:
        client.enrol(unit(1), ["a"])
        assert client.identify(unit(1), threshold=0.9) == ("a",)
        unlimited = resource.prlimit(trio.ids[2], resource.RLIMIT_FSIZE)
        resource.prlimit(trio.ids[2], resource.RLIMIT_FSIZE, (path.stat().st_size, unlimited[1]))
        with pytest.raises(StorageError, match=r"audit log.*party-2\.audit\.jsonl"):
            client.identify(unit(1), threshold=0.9)
        resource.prlimit(trio.ids[2], resource.RLIMIT_FSIZE, unlimited)
        assert client.identify(unit(1), threshold=0.9) == ("a",)
    assert [event["action"] for event in events(trio, 2) if event["action"] == "best"] == ["best"] * 2
