"""A client's connections to the three parties: sends one message to each and collects the replies."""

from __future__ import annotations

import dataclasses
import math
import selectors
import time
from collections.abc import Sequence
from typing import Any, final

import ppfr.core
from ppfr.core import InvalidInputError, PartyError, PpfrError
from ppfr.secure import NUM_PARTIES
from ppfr.service._parties._handshake import Parameters, start_handshake
from ppfr.service._parties._links import Link
from ppfr.service._parties._messages import MalformedError, Message
from ppfr.service._parties._node import StaleGalleryError
from ppfr.service._parties._settings import ClientSettings

_MAX_REPLY_BYTES = 1 << 31
_GRACE_S = 2.0
_IDLE_SHARE = 0.75  # of the time after which a party closes an idle connection; the rest is for delays of the network
_KINDS = (
    "InvalidInputError",
    "InputCheckError",
    "ShapeError",
    "RangeError",
    "ProblemsError",
    "StorageError",
    "CorruptTemplateError",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GalleryTerms:
    """Parameters and limits that the parties sent in their handshakes.

    Attributes:
        parameters: of the gallery, the same at all three parties.
        max_request_bytes: the smallest limit of the three parties.
        max_comparisons: the smallest limit of the three parties.
        timeout_s: the longest time-out of the three parties among each other.
        idle_s: the shortest time after which one of them closes a connection without a request.
    """

    parameters: Parameters
    max_request_bytes: int
    max_comparisons: int
    timeout_s: float
    idle_s: float = math.inf


@final
class Exchange:
    """The connections of one client. They are opened on first use, and again after an error or a long pause.

    A request is never sent on a connection that a party may close for idleness meanwhile: some parties would have
    received it and another one not. So no request has to be repeated, and no change is made twice.

    Args:
        settings: of the client.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._context = settings.credentials.context(is_server=False)
        self._links: list[Link] = []
        self._terms: GalleryTerms | None = None
        self._used_s = 0.0
        self.traffic: dict[str, Any] = {}

    def terms(self) -> GalleryTerms:
        """Parameters and limits of the parties; connects if necessary.

        Raises:
            PartyError: a party cannot be reached, refuses this client, or has other parameters than the others; names
                it.
        """
        if self._terms is None:
            replies = []
            try:
                for party in range(NUM_PARTIES):
                    link, reply = self._connected(party)
                    self._links.append(link)
                    replies.append(reply)
                self._terms = _agreed(replies)
                self._used_s = time.monotonic()
            except PpfrError:
                self.close()
                raise
        return self._terms

    def all_of(self, messages: Sequence[Message]) -> list[Message]:
        """Send one message to each party and return the three replies.

        Raises:
            PpfrError: a party refused, cannot be reached, or timed out.
        """
        replies, error = self.replies(messages)
        if error is not None:
            raise error
        return [reply for reply in replies if reply is not None]

    def replies(self, messages: Sequence[Message]) -> tuple[list[Message | None], PpfrError | None]:
        """Send one message to each party; return the replies, and an error unless all three replied."""
        self._close_if_idle()
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
        self._used_s = time.monotonic()
        error = _root_cause(errors)
        if len(found) + len(errors) < NUM_PARTIES or any(isinstance(e, PartyError) for e in errors.values()):
            self.close()  # a connection has failed, or may be out of step with the others
        return [found.get(party) for party in range(NUM_PARTIES)], error

    def status(self) -> list[dict[str, Any]]:
        """The status of each party, independently of the others; a failure is reported as "problem"."""
        self.close()
        statuses: list[dict[str, Any]] = []
        for party in range(NUM_PARTIES):
            status: dict[str, Any] = {"name": f"party {party}"}
            try:
                link, reply = self._connected(party)
                try:
                    link.send(Message(fields={"type": "status"}))
                    status |= link.receive(_MAX_REPLY_BYTES).fields
                    parameters = reply.fields["parameters"]
                    status |= {"dim": parameters["dim"], "values": parameters["values"]}
                finally:
                    link.close()
            except PartyError as error:
                status["problem"] = str(error)
            statuses.append(status)
        return statuses

    def close(self) -> None:
        """Close all connections."""
        for link in self._links:
            link.close()
        self._links, self._terms = [], None

    def _close_if_idle(self) -> None:
        """Close connections that a party has closed, or will close soon."""
        if self._terms is None:
            return
        is_late = time.monotonic() - self._used_s > _IDLE_SHARE * self._terms.idle_s
        if is_late or any(link.is_closed_by_peer for link in self._links):
            self.close()

    def _connected(self, party: int) -> tuple[Link, Message]:
        address, timeout_s = self._settings.addresses[party], self._settings.timeout_s
        link = Link.dial(address, self._context, party=party, timeout_s=timeout_s)
        try:
            link.check_certificate(self._settings.revoked)
            return link, start_handshake(link, "client", None)
        except PpfrError:
            link.close()
            raise

    def _receive(self, found: dict[int, Message], errors: dict[int, PpfrError], deadline: float) -> None:
        """Receive replies in any order. After the first error, wait only briefly for the other parties."""
        terms, start_s = self.terms(), time.monotonic()
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
                        failure = _error_of(reply)
                        if failure is not None:
                            raise failure
                        found[party] = reply
                        # The parties finish together: a reply that is later by their time-out will not arrive at all.
                        deadline = min(deadline, time.monotonic() + terms.timeout_s)
                    except PpfrError as error:
                        errors[party] = error
                        deadline = min(deadline, time.monotonic() + _GRACE_S)
                if not ready:
                    break
        if len(found) + len(errors) < NUM_PARTIES and not errors:
            party = next(party for party in range(NUM_PARTIES) if party not in found)
            errors[party] = PartyError(
                f"Party {party} did not reply within {time.monotonic() - start_s:.1f} s. Check that it runs, then "
                "repeat the request.",
                party=party,
            )


def _agreed(replies: list[Message]) -> GalleryTerms:
    parameters = []
    for party, reply in enumerate(replies):
        try:
            parameters.append(Parameters.from_fields(reply.fields.get("parameters")))
            own, first = parameters[party].fixed_point, parameters[0].fixed_point
            if parameters[party] != parameters[0]:
                difference = "has another gallery than party 0" if own == first else f"has {own}, party 0 has {first}"
                raise PartyError(f"Party {party} {difference}. Make their configurations equal.", party=party)
        except MalformedError as error:
            raise PartyError(
                f"Protocol error of party {party}: {error} Check which program runs there, and its version.",
                party=party,
            ) from error
    return GalleryTerms(
        parameters=parameters[0],
        max_request_bytes=min(reply.integer("max_request_bytes") for reply in replies),
        max_comparisons=min(reply.integer("max_comparisons") for reply in replies),
        timeout_s=max(float(reply.fields.get("timeout_s", 0)) for reply in replies),
        idle_s=min(float(reply.fields.get("idle_s", math.inf)) for reply in replies),
    )


def _error_of(reply: Message) -> PpfrError | None:
    """The error that a reply contains, if any."""
    fields = reply.fields.get("error")
    if not isinstance(fields, dict):
        return None
    message, party = str(fields.get("message")), fields.get("party")
    if fields.get("kind") == "Stale":
        return StaleGalleryError(message)
    if fields.get("kind") in _KINDS:
        kind: type[PpfrError] = getattr(ppfr.core, str(fields["kind"]))
        return InvalidInputError(message) if kind is ppfr.core.ProblemsError else kind(message)
    return PartyError(message, party=party if isinstance(party, int) else None)


def _root_cause(errors: dict[int, PpfrError]) -> PpfrError | None:
    """The error that caused the others.

    A party that timed out on a neighbour names it, but the neighbour may itself have waited for the third party.
    """
    refusals = [error for error in errors.values() if not isinstance(error, PartyError)]
    if refusals or not errors:
        return refusals[0] if refusals else None
    party = min(errors)
    seen = {party}
    while (named := getattr(errors[party], "party", None)) in errors and named not in seen:
        party = named
        seen.add(party)
    return errors[party]
