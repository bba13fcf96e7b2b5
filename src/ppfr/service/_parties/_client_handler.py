"""Client handler of a party: checks requests before they are executed, and sends the replies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast, final, get_args

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, InvalidInputError, PartyError, PpfrError, RangeError, StorageError
from ppfr.secure import Enrolment, Kind, Query, Removal
from ppfr.service._parties._access import Access
from ppfr.service._parties._audit import AuditLog, record_request
from ppfr.service._parties._budgets import QueryBudgets
from ppfr.service._parties._client_limits import ClientLimits, LimitError
from ppfr.service._parties._links import IdleError, Link
from ppfr.service._parties._messages import (
    MalformedError,
    Message,
    array_of,
    buffer_of,
    inputs_from,
    json_from,
    threshold_from,
)
from ppfr.service._parties._node import STALE_GALLERY, PartyNode, StaleGalleryError
from ppfr.service._parties._request_queue import RequestQueue
from ppfr.service._parties._requests import RefreshOrder, Request
from ppfr.service._parties._settings import PartySettings, Permission
from ppfr.service._parties._supervision import log_unexpected
from ppfr.service._parties._thresholds import named_threshold

_log = logging.getLogger("ppfr.party")
_PERMISSION_FOR: dict[str, Permission] = {
    "query": "query",
    "enrol": "enrol",
    "remove": "enrol",
    "refresh": "maintain",
}


@final
class ClientHandler:
    """Serves the clients of a party.

    Args:
        settings: of the party.
        node: executes requests.
        queue: orders requests among the parties.
        budgets: query budgets of clients, subjects and searches.
        access: current rights of the clients.
        limits: counts what each client uses.
        audit: receives each request that was executed or refused.
    """

    def __init__(
        self,
        settings: PartySettings,
        node: PartyNode,
        queue: RequestQueue,
        budgets: QueryBudgets,
        *,
        access: Access,
        limits: ClientLimits,
        audit: AuditLog,
    ) -> None:
        self._settings, self._node, self._queue, self._budgets = settings, node, queue, budgets
        self._access, self._limits, self._audit = access, limits, audit

    def serve(self, link: Link, client: str) -> None:
        """Serve one request after the other until the client disconnects.

        Raises:
            PartyError: the client disconnected, or violated the protocol.
        """
        while True:
            try:
                with self._limits.next_request(link, client, self._settings.max_request_bytes) as (message, limit):
                    self._answer(link, message, client, limit)
            except IdleError as error:
                link.send(error_message(error))
                raise

    def _answer(self, link: Link, message: Message, client: str, limit: LimitError | None) -> None:
        """Execute or refuse a request, record it in the audit log, and send the reply."""
        refusal: Exception | None = None
        try:
            reply = self._reply(message, client, limit)
        except MalformedError as error:
            record_request(self._audit, link, message, client, error)
            raise link.protocol_error(str(error)) from error
        except PpfrError as error:
            refusal, reply = error, error_message(error)
            _log.info("refused client=%s type=%s: %s", client, message.fields.get("type"), error)
        except Exception as error:  # a bug of this program, whose text could contain anything
            log_unexpected(f"a request of client {client}", error)
            refusal, reply = error, error_message(PartyError("Internal error. The log of the party names it."))
        try:
            record_request(self._audit, link, message, client, refusal)
        except StorageError as error:  # an answer that is not in the audit log is not sent
            _log.error("%s", error)
            reply = error_message(error)
        link.send(reply)

    def _reply(self, message: Message, client: str, limit: LimitError | None) -> Message:
        kind = message.text("type")
        if limit is not None and kind not in _PERMISSION_FOR:
            raise limit
        if kind == "status":
            return self._status(client)
        if kind == "subjects":
            return self._subjects(has_contents=message.fields.get("contents") is True)
        if kind == "outcome":
            return Message(fields={"state": self._node.states([message.id("id")])[0]})
        if kind not in _PERMISSION_FOR:
            raise MalformedError("Unknown type of request.")
        permissions = self._access.rights_of(client).permissions
        if _PERMISSION_FOR[kind] not in permissions:
            raise InvalidInputError(
                f"Client {client!r} has no permission to {kind}. Party {self._settings.party} permits it: "
                f"{', '.join(sorted(permissions))}. The operator can change `permissions` in the configuration."
            )
        return self._executed(message, kind, client, limit)

    def _executed(self, message: Message, kind: str, client: str, limit: LimitError | None) -> Message:
        """Submit a request to the queue, unless it exceeds a limit, and wait for its reply."""
        request_id, is_change = message.id("id"), kind != "query"
        try:
            if limit is not None:
                raise limit
            request = (
                self._query(message, client, request_id)
                if kind == "query"
                else self._change(message, kind, client, request_id)
            )
            self._node.add(request)
        except (PpfrError, MalformedError) as error:
            self._queue.refused(request_id, str(error), is_change=is_change)
            raise
        try:
            self._queue.ready(request)
        except PartyError as error:
            self._node.cancel(request_id, error, aborts=False)
        return request.reply.result()

    def _query(self, message: Message, client: str, request_id: bytes) -> Request:
        kind = message.text("kind")
        if kind not in get_args(Kind):
            raise MalformedError("Unknown kind of query.")
        point = self._settings.parameters.fixed_point
        gallery = self._node.gallery()
        if message.text("gallery") != gallery.digest:
            raise StaleGalleryError(STALE_GALLERY)
        num, num_references = message.integer("num"), len(gallery.subjects)
        if num == 0:
            raise InvalidInputError("The query has no probes. Give at least one.")
        if num_references == 0:
            raise InvalidInputError("The gallery is empty. Enrol references first.")
        references_NR = None
        width = message.integer("num_references") if kind == "verify" else num_references
        if num * width > self._settings.max_comparisons:
            raise InvalidInputError(
                f"{num} probes against {width} references exceed the limit of "
                f"{self._settings.max_comparisons} comparisons. Send fewer probes per query."
            )
        if kind == "verify":
            references_NR = array_of(message.buffer(3), (num, width), np.dtype(np.int64))
            if not ((references_NR >= 0) & (references_NR < num_references)).all():
                raise RangeError(f"Indices of references must be in 0..{num_references - 1}.")
            _check_claims(references_NR, gallery.subjects)
        party, given = self._settings.party, threshold_from(message, point)
        query = Query(
            party=party,
            kind=cast(Kind, kind),
            probes=inputs_from(message, party, point),
            threshold=named_threshold(self._node.thresholds, given) if isinstance(given, str) else given,
            references_NR=references_NR,
        )
        self._check_threshold(query, client)
        claimed = () if references_NR is None else [gallery.subjects[index] for index in references_NR[:, 0]]
        self._budgets.spend(client, query.kind, num_probes=num, num_references=num_references, subjects=claimed)
        return Request(request_id=request_id, client=client, operation=query, gallery_digest=gallery.digest)

    def _check_threshold(self, query: Query, client: str) -> None:
        min_threshold = self._access.rights_of(client).min_threshold
        if min_threshold is None or not isinstance(query.threshold, int):  # the operators chose a hidden one
            return
        if query.threshold < self._settings.parameters.fixed_point.integer_threshold(min_threshold):
            raise RangeError(f"The threshold of client {client!r} must be at least {min_threshold:g}.")

    def _change(self, message: Message, kind: str, client: str, change_id: bytes) -> Request:
        if kind == "refresh":
            order = RefreshOrder(change_id=change_id)
            return Request(request_id=change_id, client=client, operation=order)
        if kind == "enrol":
            inputs = inputs_from(message, self._settings.party, self._settings.parameters.fixed_point)
            enrolment = Enrolment(change_id=change_id, rows=inputs.rows(), subjects=_strings(message.buffer(3)))
            return Request(request_id=change_id, client=client, operation=enrolment, inputs=inputs)
        ids = bytes(message.buffer(0))
        if len(ids) % ID_BYTES:
            raise MalformedError(f"The length of the ids is not a multiple of {ID_BYTES}.")
        reference_ids = tuple(ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES))
        removal = Removal(change_id=change_id, reference_ids=reference_ids)
        return Request(request_id=change_id, client=client, operation=removal)

    def _status(self, client: str) -> Message:
        return Message(
            fields={
                "problem": self._queue.problem(),
                "references": len(self._node.gallery().subjects),
                "gallery": self._node.gallery().digest,
                "permissions": sorted(self._access.rights_of(client).permissions),
                "bits_left": self._budgets.left(client),
            }
        )

    def _subjects(self, *, has_contents: bool) -> Message:
        gallery = self._node.gallery()
        return Message(
            fields={
                "gallery": gallery.digest,
                "epoch": gallery.epoch,
            },
            buffers=[buffer_of(gallery.rows.ids_N16), gallery.listing] if has_contents else [],
        )


def error_message(error: PpfrError) -> Message:
    """An error as a reply to a client."""
    kind = "Stale" if isinstance(error, StaleGalleryError) else type(error).__name__
    kind = InvalidInputError.__name__ if isinstance(error, LimitError) else kind
    fields: dict[str, Any] = {"kind": kind, "message": str(error), "party": getattr(error, "party", None)}
    return Message(fields={"error": fields})


def _check_claims(references_NR: NDArray[np.int64], subjects: Sequence[str]) -> None:
    """Refuse a claim on references of several subjects: its answer, one bit, must be about one subject."""
    names_NR = np.array(subjects, dtype=object)[references_NR]
    if not (names_NR == names_NR[:, :1]).all():
        raise InvalidInputError("A claim names references of several subjects. Claim one subject for each probe.")


def _strings(buffer: Any) -> tuple[str, ...]:
    given = json_from(buffer, "list of subjects")
    if not isinstance(given, list) or any(not isinstance(one, str) for one in given):
        raise MalformedError("The subjects are not a list of strings.")
    return tuple(given)
