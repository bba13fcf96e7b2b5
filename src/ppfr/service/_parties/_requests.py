"""What a client may send to a party, checked before any of it is computed on."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any, cast, final, get_args

import numpy as np

from ppfr.core import ID_BYTES, InvalidInputError, PartyError, PpfrError, RangeError
from ppfr.secure._answers import Kind
from ppfr.secure._changes import Change, Enrolment, Removal
from ppfr.service._parties._budgets import Budgets, answer_bits
from ppfr.service._parties._links import Link
from ppfr.service._parties._member import Member, Question, Request, StaleGalleryError
from ppfr.service._parties._messages import (
    MalformedError,
    Message,
    array_of,
    buffer_of,
    rows_from,
    threshold_from,
)
from ppfr.service._parties._ordering import Desk
from ppfr.service._parties._settings import PartySettings, Role

_log = logging.getLogger("ppfr.party")
_ROLE_OF: dict[str, Role] = {"ask": "ask", "enrol": "enrol", "remove": "enrol"}


@final
class Counter:
    """Where a party serves its clients.

    Args:
        settings: of the party.
        member: its work.
        desk: to the other parties.
        budgets: of the clients.
    """

    def __init__(self, settings: PartySettings, member: Member, desk: Desk, budgets: Budgets) -> None:
        self._settings, self._member, self._desk, self._budgets = settings, member, desk, budgets

    def serve(self, link: Link, client: str) -> None:
        """Answer one request after the other, until the client leaves.

        Raises:
            PartyError: it left, or sent what is no request.
        """
        while True:
            message = link.receive(self._settings.max_request_bytes, waits=True)
            try:
                reply = self._answered(message, client)
            except MalformedError as error:
                raise link.babbles(str(error)) from error
            except PpfrError as error:
                _log.info("refused client=%s what=%s: %s", client, message.fields.get("do"), error)
                reply = error_message(error)
            except Exception as error:  # the fault is here, and its text could hold anything
                _log.exception("internal error") if _log.isEnabledFor(logging.DEBUG) else _log.error(
                    "internal error: %s", type(error).__name__
                )
                reply = error_message(PartyError("an internal error; the party's own log has its name"))
            link.send(reply)

    def _answered(self, message: Message, client: str) -> Message:
        do = message.text("do")
        if do == "status":
            return self._status(client)
        if do == "directory":
            return self._directory(has_contents=message.fields.get("contents") is True)
        if do == "outcome":
            return Message(fields={"state": self._member.states([message.identity("id")])[0]})
        if do not in _ROLE_OF:
            raise MalformedError("a request of no known kind")
        if _ROLE_OF[do] not in self._settings.clients[client].may:
            raise InvalidInputError(
                f"client {client!r} may not {do}: party {self._settings.party}'s operator gives it "
                f"{' and '.join(sorted(self._settings.clients[client].may))}"
            )
        return self._in_turn(message, do, client)

    def _in_turn(self, message: Message, do: str, client: str) -> Message:
        """Have all three parties do it; waits for this party's part."""
        request_id, is_change = message.identity("id"), do != "ask"
        try:
            wanted = self._question(message, client) if do == "ask" else self._change(message, do, request_id)
            request = Request(request_id=request_id, client=client, wanted=wanted)
            self._member.add(request)
        except (PpfrError, MalformedError) as error:
            self._desk.refused(request_id, str(error), is_change=is_change)
            raise
        try:
            self._desk.ready(request_id, is_change=is_change)
        except PartyError as error:
            self._member.cancel(
                request_id, error, aborts=False
            )  # of a change, the next session says what becomes of it
        return request.answer.result()

    def _question(self, message: Message, client: str) -> Question:
        kind = message.text("kind")
        if kind not in get_args(Kind):
            raise MalformedError("a question of no known kind")
        point = self._settings.parameters.fixed_point
        gallery = self._member.gallery()
        if message.text("gallery") != gallery.digest:
            raise StaleGalleryError("the gallery has changed since the client last looked; look again, then ask")
        num, num_references = message.integer("num"), len(gallery.subjects)
        if num == 0:
            raise InvalidInputError("the question has no probe; give at least one")
        if num_references == 0:
            raise InvalidInputError("the gallery is empty; enrol references before searching in it")
        references_N = None
        if kind == "verify":
            references_N = array_of(message.buffer(3), (num,), np.dtype(np.int64))
            if not ((references_N >= 0) & (references_N < num_references)).all():
                raise RangeError(f"references are outside 0..{num_references - 1}; give indices of this gallery")
        elif num * num_references > self._settings.max_comparisons:
            raise InvalidInputError(
                f"{num} probes against {num_references} references are more than {self._settings.max_comparisons} "
                "comparisons; ask with fewer probes at a time"
            )
        party = self._settings.party
        question = Question(
            kind=cast(Kind, kind),
            probes=rows_from(message, party, point),
            threshold=threshold_from(message, 4, party, point),
            references_N=references_N,
            digest=gallery.digest,
        )
        self._check_threshold(question, client)
        self._budgets.spend(client, answer_bits(question.kind, num, num_references))
        return question

    def _check_threshold(self, question: Question, client: str) -> None:
        least = self._settings.clients[client].least_threshold
        if least is None:
            return
        if not isinstance(question.threshold, int):
            raise InvalidInputError(f"client {client!r} may not ask with a hidden threshold; give a public one")
        if question.threshold < self._settings.parameters.fixed_point.integer_threshold(least):
            raise RangeError(f"client {client!r} may not ask with a threshold below {least:g}")

    def _change(self, message: Message, do: str, change_id: bytes) -> Change:
        party, point = self._settings.party, self._settings.parameters.fixed_point
        if do == "enrol":
            subjects = _texts(message.buffer(3))
            return Enrolment(change_id=change_id, rows=rows_from(message, party, point), subjects=subjects)
        ids = bytes(message.buffer(0))
        if len(ids) % ID_BYTES:
            raise MalformedError("ids are cut short")
        named = tuple(ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES))
        return Removal(change_id=change_id, reference_ids=named)

    def _status(self, client: str) -> Message:
        rights = self._settings.clients[client]
        return Message(
            fields={
                "trouble": self._desk.trouble(),
                "references": len(self._member.gallery().subjects),
                "gallery": self._member.gallery().digest,
                "may": sorted(rights.may),
                "bits_left": self._budgets.left(client),
            }
        )

    def _directory(self, *, has_contents: bool) -> Message:
        gallery = self._member.gallery()
        subjects = json.dumps(gallery.subjects).encode()
        return Message(
            fields={
                "gallery": gallery.digest,
                "num": len(gallery.subjects),
                "subjects": hashlib.sha256(subjects).hexdigest(),
            },
            buffers=[buffer_of(gallery.rows.ids_N16), subjects] if has_contents else [],
        )


def error_message(error: PpfrError) -> Message:
    """An error as a client gets it."""
    kind = "Stale" if isinstance(error, StaleGalleryError) else type(error).__name__
    fields: dict[str, Any] = {"kind": kind, "message": str(error), "party": getattr(error, "party", None)}
    return Message(fields={"error": fields})


def _texts(buffer: Any) -> tuple[str, ...]:
    try:
        given = json.loads(bytes(buffer))
    except ValueError as error:
        raise MalformedError("subjects are no JSON") from error
    if not isinstance(given, list) or any(not isinstance(one, str) for one in given):
        raise MalformedError("subjects are no list of texts")
    return tuple(given)
