"""Clients that do not follow the protocol, against three processes: nothing is answered, stored or torn down."""

from __future__ import annotations

import dataclasses
import json
import secrets

import numpy as np
import pytest

from ppfr.core import InputCheckError, InvalidInputError, PartyError, PpfrError
from ppfr.secure import FixedPoint, ShareStore, seeded_inputs
from ppfr.secure._inputs import input_words, seeded_words
from ppfr.service import write_threshold_files
from ppfr.service._parties._messages import Message, buffer_of, inputs_to_buffers
from ppfr.service._parties._snapshot import GallerySnapshot

POINT = FixedPoint(dim=16, values="int16")


def integers(rows):
    return POINT.signed(POINT.quantise(rows))


def shares_of(values_ND):
    """Shares of any integers, with the best bits that there are for them."""
    return seeded_words(input_words(values_ND, POINT), POINT)


def enrolment(shares, subjects, *, change_id=None, kind="enrol"):
    """The three messages of an enrolment; `subjects` may differ between parties."""
    change_id = change_id or secrets.token_hex(16)
    names = [subjects] * 3 if isinstance(subjects[0], str) else subjects
    return [
        Message(
            fields={"type": kind, "id": change_id, "num": len(share.ids_N16)},
            buffers=[*inputs_to_buffers(share), json.dumps(of_party).encode()],
        )
        for share, of_party in zip(shares, names, strict=True)
    ]


def question(client, shares, *, kind="any", threshold=0.9, claims=None):
    fields = {
        "type": "query",
        "id": secrets.token_hex(16),
        "kind": kind,
        "num": len(shares[0].ids_N16),
        "gallery": client._current().digest,
        "threshold": POINT.integer_threshold(threshold),
    }
    references = b""
    if claims is not None:
        fields["num_references"] = np.shape(claims)[1]
        references = buffer_of(np.asarray(claims, dtype=np.int64))
    return [Message(fields=fields, buffers=[*inputs_to_buffers(share), references]) for share in shares]


def with_fields(message, **changes):
    return dataclasses.replace(message, fields=message.fields | changes)


@pytest.fixture
def undisturbed(healthy, people):
    """The parties; afterwards the same session must still run, and the gallery be the same."""

    def sessions():
        return healthy.logs[0].read_text().count("session started")

    before = sessions()
    yield healthy
    with healthy.client() as client:
        assert client.verify(people[:1], ["person 0"], threshold=0.9).tolist() == [True]
        assert set(client.subjects) == {f"person {i}" for i in range(150)}
    assert sessions() == before


def refused(client, messages):
    """Send three messages that must be refused; return the error."""
    with pytest.raises(PpfrError) as caught:
        client._exchange.all_of(messages)
    return caught.value


def crooked(people):
    one = np.zeros((1, 16), np.int64)
    one[0, 2] = 1
    row = integers(people[:1])
    return {
        "long": 1000 * row,
        "a little long": np.rint(1.2 * row).astype(np.int64),
        "short": row // 2,
        "c e_j": (1 << 30) * one,
        "wraps": row + (1 << 32) * one,
    }


def test_a_row_and_its_negative_that_would_match_everybody_are_refused(undisturbed, people):
    with undisturbed.client(name="enroller") as client:
        for values in crooked(people).values():
            shares = shares_of(np.concatenate([values, -values]))
            error = refused(client, enrolment(shares, ["guest", "guest"]))
            assert isinstance(error, InputCheckError)
            assert len(client.subjects) == 150
    for party in range(3):
        log = undisturbed.logs[party].read_text()
        assert "refused kind=enrol client=enroller" in log


@pytest.mark.parametrize("kind", ["any", "best", "verify"])
def test_probes_that_would_read_templates_get_no_answer(undisturbed, people, kind):
    claims = [[0]] if kind == "verify" else None
    with undisturbed.client() as client:
        for values in crooked(people).values():
            messages = question(client, shares_of(values), kind=kind, claims=claims)
            assert isinstance(refused(client, messages), InputCheckError)
    assert "refused kind=" + kind + " client=client" in undisturbed.logs[0].read_text()


@pytest.mark.parametrize("holder", range(3))
def test_two_copies_of_a_component_that_differ_get_no_answer(undisturbed, people, holder):
    shares = list(seeded_inputs(people[:1], POINT))
    other = seeded_inputs(people[:1], POINT)[holder]
    bent = dataclasses.replace(other, ids_N16=shares[holder].ids_N16)
    shares[holder] = bent
    with undisturbed.client() as client:
        assert isinstance(refused(client, question(client, shares)), InputCheckError)
        assert isinstance(refused(client, enrolment(shares, ["guest"])), PpfrError)
        assert len(client.subjects) == 150


def test_parts_of_an_enrolment_that_differ_are_refused_and_name_the_client(undisturbed, people):
    """Committed by all three parties, they would make the gallery unusable for ever."""
    shares, others = seeded_inputs(-people[:1], POINT), seeded_inputs(-people[:1], POINT)
    removal = Message(fields={"type": "remove", "id": "", "num": 1}, buffers=[buffer_of(shares[0].ids_N16)])
    with undisturbed.client(name="enroller") as client:
        for place in range(3):
            names = [["guest"]] * 3
            names[place] = ["ghost"]
            other_ids = list(shares)
            other_ids[place] = others[place]
            mixed = enrolment(shares, ["guest"])
            mixed[place] = with_fields(removal, id=mixed[0].fields["id"])
            for messages in (enrolment(shares, names), enrolment(other_ids, ["guest"]), mixed):
                error = refused(client, messages)
                assert isinstance(error, InvalidInputError) and "'enroller'" in str(error)
    assert "refused client=enroller: other content" in undisturbed.logs[0].read_text()


def test_questions_that_differ_between_parties_are_refused_before_they_are_ordered(undisturbed, people):
    """Otherwise every party would stop in the middle, and all clients would wait for a new session."""
    shares = seeded_inputs(people[:1], POINT)
    with undisturbed.client() as client:
        for place in range(3):
            for change in ({"threshold": 5}, {"kind": "set"}):
                messages = question(client, shares)
                messages[place] = with_fields(messages[place], **change)
                assert "'client'" in str(refused(client, messages))
            messages = question(client, shares, kind="verify", claims=[[0]])
            messages[place] = question(client, shares, kind="verify", claims=[[1]])[place]
            messages[place] = with_fields(messages[place], id=messages[(place + 1) % 3].fields["id"])
            assert "'client'" in str(refused(client, messages))


def test_one_claim_cannot_name_references_of_several_subjects(undisturbed, people):
    with undisturbed.client() as client:
        messages = question(client, seeded_inputs(people[:1], POINT), kind="verify", claims=[[0, 1]])
        assert "several subjects" in str(refused(client, messages))


def test_replies_do_not_say_how_many_requests_others_sent(undisturbed, people):
    with undisturbed.client() as client:
        replies = client._exchange.all_of(question(client, seeded_inputs(people[:1], POINT)))
        assert all(set(reply.fields) == {"num_values", "shape", "bytes_sent"} for reply in replies)


def test_rows_that_no_party_checked_are_on_no_disk(healthy, people):
    """A request that one party never gets must not be settled as prepared by all after a crash."""
    with healthy.client(timeout_s=1.0) as client:
        client._exchange.terms()
        for party in (0, 1):
            client._exchange._links[party].send(enrolment(shares_of(1000 * integers(people[:1])), ["guest"])[party])
        client.status()
    for party in (1, 2):
        healthy.kill(party)
        with ShareStore.open(healthy.directory / f"party-{party}.shares") as store:
            assert store.pending() == ()
        healthy.start(party)
    healthy.wait()
    with healthy.client() as client:
        assert len(client.subjects) == 150


def test_a_directory_that_the_other_parties_do_not_confirm_is_refused(healthy):
    """Party 0 alone sends the ids and subjects: it could swap two names, and a removal would erase the wrong person."""

    class Lying:
        def __init__(self, exchange, change):
            self.exchange, self.change = exchange, change

        def terms(self):
            return self.exchange.terms()

        def all_of(self, messages):
            first, *others = self.exchange.all_of(messages)
            ids, subjects = bytes(first.buffers[0]), json.loads(bytes(first.buffers[1]))
            return [dataclasses.replace(first, buffers=self.change(ids, subjects)), *others]

    lies = (
        lambda ids, subjects: [ids, json.dumps([subjects[1], subjects[0], *subjects[2:]]).encode()],
        lambda ids, subjects: [ids[16:32] + ids[:16] + ids[32:], json.dumps(subjects).encode()],
        lambda ids, subjects: [ids[:-16], json.dumps(subjects[:-1]).encode()],
        lambda ids, subjects: [ids, b"[" * 100_000],
    )
    with healthy.client() as client:
        for lie in lies:
            with pytest.raises(PartyError, match="Party 0"):
                GallerySnapshot.fetch(Lying(client._exchange, lie))


def test_refresh_renews_all_shares_and_changes_no_decision(healthy, people):
    with healthy.client() as client, healthy.client(name="reader") as reader:
        with pytest.raises(InvalidInputError, match=r"'reader'.*refresh"):
            reader.refresh()
        before = client._current().digest
        client.refresh()
        assert client.identify(people[:3], threshold=0.9) == ("person 0", "person 1", "person 2")
        assert client._current().digest != before
        client.enrol(-people[:1], ["guest"])
    healthy.restart(2)
    healthy.wait()
    with healthy.client() as client:
        client.refresh()
        assert client.identify(np.concatenate([people[5:6], -people[:1]]), threshold=0.9) == ("person 5", "guest")
    for party in range(3):
        events = (healthy.directory / f"party-{party}.audit.jsonl").read_text().splitlines()
        assert any('"client": "client"' in event and '"action": "refresh"' in event for event in events)


def test_parties_with_different_hidden_thresholds_start_no_session(healthy, tmp_path):
    """Otherwise each query that names the threshold would end the session, for all clients."""
    write_threshold_files(tmp_path, name="door", threshold=0.6, fixed_point=FixedPoint(dim=16))
    config = (healthy.directory / "party-1.toml").read_text()
    other = config.replace('"party-1.door.threshold"', f'"{tmp_path}/party-1.door.threshold"')
    assert other != config
    (healthy.directory / "other.toml").write_text(other)
    healthy.restart(1, config=healthy.directory / "other.toml")
    healthy.wait_for_log("Party 1 has other hidden thresholds than party 0", 0)
