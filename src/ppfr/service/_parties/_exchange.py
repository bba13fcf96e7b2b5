"""A client's three connections: a request to all parties, three replies, and whom to name when one is missing."""

from __future__ import annotations

import dataclasses
import selectors
import time
from collections.abc import Sequence
from typing import Any, final

import ppfr.core
from ppfr.core import InvalidInputError, PartyError, PpfrError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.service._parties._greeting import Parameters, greet
from ppfr.service._parties._links import Link
from ppfr.service._parties._member import StaleGalleryError
from ppfr.service._parties._messages import MalformedError, Message
from ppfr.service._parties._settings import ClientSettings

_MAX_REPLY_BYTES = 1 << 31
_GRACE_S = 2.0
_KINDS = ("InvalidInputError", "ShapeError", "RangeError", "ProblemsError", "StorageError", "CorruptTemplateError")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the parties said when they were connected to.

    Attributes:
        parameters: of the gallery, the same at all three.
        max_request_bytes: the least of theirs.
        max_comparisons: the least of theirs.
        timeout_s: how long they wait for each other, the longest of theirs.
    """

    parameters: Parameters
    max_request_bytes: int
    max_comparisons: int
    timeout_s: float


@final
class Exchange:
    """Connections of one client; it connects when first needed, and anew after an error.

    Args:
        settings: who asks, and whom.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._context = settings.identity.context(is_server=False)
        self._links: list[Link] = []
        self._terms: Terms | None = None
        self.traffic: dict[str, Any] = {}

    def terms(self) -> Terms:
        """Of the parties.

        Raises:
            PartyError: one is not there, refuses this client, or has other parameters than the others; names it.
        """
        if self._terms is None:
            answers = []
            try:
                for party in range(NUM_PARTIES):
                    link, answer = self._connected(party)
                    self._links.append(link)
                    answers.append(answer)
                self._terms = _agreed(answers)
            except PpfrError:
                self.close()
                raise
        return self._terms

    def all_of(self, messages: Sequence[Message]) -> list[Message]:
        """Three replies, none an error.

        Raises:
            PpfrError: what a party refused, or which party is gone or late.
        """
        replies, error = self.replies(messages)
        if error is not None:
            raise error
        return [reply for reply in replies if reply is not None]

    def replies(self, messages: Sequence[Message]) -> tuple[list[Message | None], PpfrError | None]:
        """What the parties reply to one message each, and, unless all three replied, the error that explains it."""
        self.terms()
        deadline = time.monotonic() + self._settings.timeout_s
        before = [(link.bytes_sent, link.bytes_received) for link in self._links]
        errors: dict[int, PpfrError] = {}
        found: dict[int, Message] = {}
        for party, message in enumerate(messages):
            try:
                self._links[party].send(message)
            except PartyError as failure:
                errors[party] = failure
                deadline = min(deadline, time.monotonic() + _GRACE_S)
        self._receive(found, errors, deadline)
        self.traffic = {
            "bytes_sent": sum(link.bytes_sent - b for link, (b, _) in zip(self._links, before, strict=True)),
            "bytes_received": sum(link.bytes_received - b for link, (_, b) in zip(self._links, before, strict=True)),
            "bytes_between_parties": [reply.fields.get("bytes_sent", 0) for _, reply in sorted(found.items())],
        }
        error = _explained(errors)
        if len(found) + len(errors) < NUM_PARTIES or any(isinstance(e, PartyError) for e in errors.values()):
            self.close()  # a connection may have failed, or be at another request than the others
        return [found.get(party) for party in range(NUM_PARTIES)], error

    def status(self) -> list[dict[str, Any]]:
        """Of each party by itself, whatever the others do."""
        self.close()
        told: list[dict[str, Any]] = []
        for party in range(NUM_PARTIES):
            facts: dict[str, Any] = {"name": f"party {party}"}
            try:
                link, answer = self._connected(party)
                try:
                    link.send(Message(fields={"do": "status"}))
                    facts |= link.receive(_MAX_REPLY_BYTES).fields
                    parameters = answer.fields["parameters"]
                    facts |= {"dim": parameters["dim"], "values": parameters["values"]}
                finally:
                    link.close()
            except PartyError as error:
                facts["trouble"] = str(error)
            told.append(facts)
        return told

    def close(self) -> None:
        """End all connections."""
        for link in self._links:
            link.close()
        self._links, self._terms = [], None

    def _connected(self, party: int) -> tuple[Link, Message]:
        address, timeout_s = self._settings.addresses[party], self._settings.timeout_s
        link = Link.dial(address, self._context, party=party, timeout_s=timeout_s)
        try:
            return link, greet(link, "client", None)
        except PpfrError:
            link.close()
            raise

    def _receive(self, found: dict[int, Message], errors: dict[int, PpfrError], deadline: float) -> None:
        """Replies as they come; after the first error the others have a short time to explain it."""
        terms, begun = self.terms(), time.monotonic()
        with selectors.DefaultSelector() as selector:
            for party, link in enumerate(self._links):
                if party not in errors:
                    selector.register(link, selectors.EVENT_READ, party)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                for key, _ in ready:
                    party = key.data
                    selector.unregister(key.fileobj)
                    try:
                        reply = self._links[party].receive(_MAX_REPLY_BYTES, deadline=deadline)
                        told = _error_of(reply)
                        if told is not None:
                            raise told
                        found[party] = reply
                        # Parties end at the same time: who is that late after another one will not come at all.
                        deadline = min(deadline, time.monotonic() + terms.timeout_s)
                    except PpfrError as error:
                        errors[party] = error
                        deadline = min(deadline, time.monotonic() + _GRACE_S)
                if not ready:
                    break
        if len(found) + len(errors) < NUM_PARTIES and not errors:
            party = next(party for party in range(NUM_PARTIES) if party not in found)
            errors[party] = PartyError(
                f"party {party} did not answer for {time.monotonic() - begun:.1f} s; see whether it is up, then ask "
                "again",
                party=party,
            )


def _agreed(answers: list[Message]) -> Terms:
    given = []
    for party, answer in enumerate(answers):
        try:
            given.append(Parameters.from_fields(answer.fields.get("parameters")))
            if given[party] != given[0]:
                raise PartyError(
                    f"party {party} has {given[party].fixed_point} and party 0 {given[0].fixed_point}, or another "
                    "gallery; make their configurations alike",
                    party=party,
                )
        except MalformedError as error:
            raise PartyError(f"party {party} sent no parameters; see which program is there", party=party) from error
    return Terms(
        parameters=given[0],
        max_request_bytes=min(answer.integer("max_request_bytes") for answer in answers),
        max_comparisons=min(answer.integer("max_comparisons") for answer in answers),
        timeout_s=max(float(answer.fields.get("timeout_s", 0)) for answer in answers),
    )


def _error_of(reply: Message) -> PpfrError | None:
    told = reply.fields.get("error")
    if not isinstance(told, dict):
        return None
    message, party = str(told.get("message")), told.get("party")
    if told.get("kind") == "Stale":
        return StaleGalleryError(message)
    if told.get("kind") in _KINDS:
        kind: type[PpfrError] = getattr(ppfr.core, str(told["kind"]))
        return InvalidInputError(message) if kind is ppfr.core.ProblemsError else kind(message)
    return PartyError(message, party=party if isinstance(party, int) else None)


def _explained(errors: dict[int, PpfrError]) -> PpfrError | None:
    """The error that the others follow from: a party that waited for another one may name one that waited as well."""
    own = [error for error in errors.values() if not isinstance(error, PartyError)]
    if own or not errors:
        return own[0] if own else None
    party = min(errors)
    seen = {party}
    while (blamed := getattr(errors[party], "party", None)) in errors and blamed not in seen:
        party = blamed
        seen.add(party)
    return errors[party]
