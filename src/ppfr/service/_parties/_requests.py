"""Requests of clients that all three parties execute."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import Future

from ppfr.secure import Enrolment, Query, Removal, SharedInputs
from ppfr.service._parties._messages import Message


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOrder:
    """A client's order to draw new randomness for all shares; the parties agree on the seed when they execute it."""

    change_id: bytes

    def content_digest(self) -> bytes:
        """32 bytes that are equal at all three parties."""
        return hashlib.sha256(b"refresh" + self.change_id).digest()


Operation = Query | Enrolment | Removal | RefreshOrder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A client's request that all three parties execute.

    Attributes:
        request_id: 16 random bytes, the same at all three parties; for a change, the change id.
        client: name in the client's certificate.
        operation: a query, or a change.
        gallery_digest: for a query, of the gallery that it was made for, in hexadecimal.
        inputs: for an enrolment, the shares from which its rows were taken; the parties check them.
        reply: resolved when the request has been executed or has failed.
    """

    request_id: bytes
    client: str
    operation: Operation
    gallery_digest: str = ""
    inputs: SharedInputs | None = None
    reply: Future[Message] = dataclasses.field(default_factory=Future)

    @property
    def is_change(self) -> bool:
        """Whether the request changes the gallery."""
        return not isinstance(self.operation, Query)

    @property
    def kind(self) -> str:
        """What it does, for logs."""
        if isinstance(self.operation, Query):
            return self.operation.kind
        return {Enrolment: "enrol", Removal: "remove", RefreshOrder: "refresh"}[type(self.operation)]

    def digest(self) -> bytes:
        """32 bytes over the public content, which must be equal at all three parties, and the client's name."""
        of_operation = self.operation
        if isinstance(of_operation, Query):
            threshold = of_operation.threshold
            public = threshold if isinstance(threshold, int) else threshold.sharing
            references_NR = of_operation.references_NR
            content = repr((of_operation.kind, public, self.gallery_digest)).encode() + of_operation.probes.digest()
            if references_NR is not None:
                content += repr(references_NR.shape).encode() + references_NR.astype("<i8").tobytes()
        else:
            content = of_operation.content_digest()
        return hashlib.sha256(repr((self.request_id, self.client, self.kind)).encode() + content).digest()
