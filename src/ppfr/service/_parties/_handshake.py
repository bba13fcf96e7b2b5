"""Handshake of a connection: both sides send the protocol version and their parameters before any other message.

The dialler sends 8 bytes (magic number, version) and a message. The other side replies in the same format. If version
or parameters differ, the error names the difference.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import Any, Literal, get_args

from ppfr.core import InvalidInputError, PartyError
from ppfr.secure import FixedPoint
from ppfr.service._parties._links import Link
from ppfr.service._parties._messages import MalformedError, Message

VERSION = 3
_MAGIC = b"ppfrmpc"
_PREFACE_BYTES = len(_MAGIC) + 1
_MAX_BUFFER_BYTES = 0
_MAX_WAIT_S = 10.0

Purpose = Literal["client", "ring", "commands", "reports"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameters that all parties of a gallery must share; public.

    Attributes:
        fixed_point: format of embeddings as integers.
        gallery_id: 16 bytes.
    """

    fixed_point: FixedPoint
    gallery_id: bytes

    def to_fields(self) -> dict[str, Any]:
        """The parameters as JSON values, with a hash of the protocol version and all of them."""
        fields: dict[str, Any] = {
            "dim": self.fixed_point.dim,
            "values": self.fixed_point.values,
            "gallery": self.gallery_id.hex(),
        }
        return fields | {"hash": hashlib.sha256(repr((VERSION, sorted(fields.items()))).encode()).hexdigest()}

    @classmethod
    def from_fields(cls, fields: Any) -> Parameters:
        """The inverse of `to_fields`.

        Raises:
            MalformedError: missing or invalid parameters.
        """
        try:
            point = FixedPoint(dim=fields["dim"], values=fields["values"])
            return cls(fixed_point=point, gallery_id=bytes.fromhex(fields["gallery"]))
        except (TypeError, KeyError, ValueError) as error:
            raise MalformedError("Handshake does not contain valid parameters.") from error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """The message of the dialler.

    Attributes:
        purpose: what the connection is used for.
        session: id of the parties' session for a "ring" connection; token for "commands" and "reports".
    """

    purpose: Purpose
    session: str


def start_handshake(link: Link, purpose: Purpose, parameters: Parameters | None, *, session: str = "") -> Message:
    """Perform the handshake as the dialler.

    Args:
        link: a new connection.
        purpose: what it is used for.
        parameters: own parameters, which the other side must share; None for a client, which has none.
        session: as in `Handshake`.

    Returns:
        The reply, which contains the parameters of the other side.

    Raises:
        PartyError: the other side has another version or other parameters, refused, or disconnected.
    """
    fields = None if parameters is None else parameters.to_fields()
    link.send_bytes(_MAGIC + bytes([VERSION]))
    link.send(Message(fields={"purpose": purpose, "session": session, "parameters": fields}))
    deadline = time.monotonic() + min(link.timeout_s, _MAX_WAIT_S)
    _check_preface(link, deadline)
    try:
        reply = link.receive(_MAX_BUFFER_BYTES, deadline=deadline)
    except InvalidInputError as error:
        raise link.protocol_error("Handshake is too long.") from error
    refusal = reply.fields.get("refused")
    if refusal is not None:
        raise PartyError(f"{link.peer_at_start} refused the connection: {str(refusal)[:500]}", party=link.party)
    if parameters is not None:
        difference = _difference(link, parameters, reply.fields.get("parameters"))
        if difference:
            raise PartyError(difference, party=link.party)
    return reply


def receive_handshake(link: Link, parameters: Parameters) -> Handshake:
    """Receive the handshake of a dialler; `accept_connection` or `refuse_connection` must follow.

    Raises:
        PartyError: no valid handshake, another version, or other parameters. The dialler has been informed.
    """
    deadline = time.monotonic() + min(link.timeout_s, _MAX_WAIT_S)
    try:
        _check_preface(link, deadline)
        message = link.receive(_MAX_BUFFER_BYTES, deadline=deadline)
    except InvalidInputError as error:
        raise link.protocol_error("Handshake is too long.") from error
    except _VersionError as error:
        refuse_connection(link, str(error))
        raise
    purpose: Any = message.fields.get("purpose")
    if purpose not in get_args(Purpose):
        raise link.protocol_error("Handshake does not contain a valid purpose.")
    if purpose != "client":
        difference = _difference(link, parameters, message.fields.get("parameters"))
        if difference:
            refuse_connection(link, difference)
            raise PartyError(difference, party=link.party)
    return Handshake(purpose=purpose, session=str(message.fields.get("session", "")))


def accept_connection(link: Link, parameters: Parameters, **limits: Any) -> None:
    """Complete the handshake of a dialler."""
    link.send_bytes(_MAGIC + bytes([VERSION]))
    link.send(Message(fields={"parameters": parameters.to_fields(), **limits}))


def refuse_connection(link: Link, reason: str) -> None:
    """Send the reason why a connection is refused, if the dialler is still connected."""
    try:
        link.send_bytes(_MAGIC + bytes([VERSION]))
        link.send(Message(fields={"refused": reason}))
    except PartyError:
        pass  # the dialler has disconnected


class _VersionError(PartyError):
    """The other side uses another version of the protocol."""


def _check_preface(link: Link, deadline: float) -> None:
    preface = bytes(link.receive_bytes(_PREFACE_BYTES, deadline=deadline))
    if preface[:-1] != _MAGIC:
        raise link.protocol_error("The connection does not start with the protocol's magic number.")
    if preface[-1] != VERSION:
        raise _VersionError(
            f"{link.peer_at_start} uses protocol version {preface[-1]}, this side uses version {VERSION}. Install the "
            "same release of ppfr on all hosts.",
            party=link.party,
        )


def _difference(link: Link, parameters: Parameters, received: Any) -> str:
    """Which parameters differ; empty if none."""
    own = parameters.to_fields()
    theirs = received if isinstance(received, dict) else {}
    if theirs.get("hash") == own["hash"]:
        return ""
    differences = [
        f"{name} is {str(theirs.get(name))[:40]!r} at {link.peer} and {own[name]!r} here"
        for name in own
        if name != "hash" and theirs.get(name) != own[name]
    ]
    return (
        f"{link.peer_at_start} has other parameters: {'; '.join(differences) or 'only the hash differs'}. Make the "
        "configurations equal."
    )
