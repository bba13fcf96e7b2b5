"""The first words on a connection: both sides say their version and parameters before anything else.

The dialler sends 8 bytes (magic, version) and a message; the other side answers with the same. What differs is said.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import Any, Literal, get_args

from ppfr.core import InvalidInputError, PartyError
from ppfr.secure._fixed_point import FixedPoint
from ppfr.service._parties._links import Link
from ppfr.service._parties._messages import MalformedError, Message

VERSION = 1
_MAGIC = b"ppfrmpc"
_PREFACE_BYTES = len(_MAGIC) + 1
_GREETING_BYTES = 0  # no buffers
_LONGEST_S = 10.0

Purpose = Literal["client", "ring", "orders", "reports"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What all parties of a gallery have in common; public.

    Attributes:
        fixed_point: how embeddings are integers.
        gallery_id: 16 bytes.
    """

    fixed_point: FixedPoint
    gallery_id: bytes

    def to_fields(self) -> dict[str, Any]:
        """As they are sent; the hash is over version and all of them."""
        facts: dict[str, Any] = {
            "dim": self.fixed_point.dim,
            "values": self.fixed_point.values,
            "gallery": self.gallery_id.hex(),
        }
        return facts | {"hash": hashlib.sha256(repr((VERSION, sorted(facts.items()))).encode()).hexdigest()}

    @classmethod
    def from_fields(cls, fields: Any) -> Parameters:
        """The inverse.

        Raises:
            MalformedError: none.
        """
        try:
            point = FixedPoint(dim=fields["dim"], values=fields["values"])
            return cls(fixed_point=point, gallery_id=bytes.fromhex(fields["gallery"]))
        except (TypeError, KeyError, ValueError) as error:
            raise MalformedError("parameters are none") from error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What the dialler said.

    Attributes:
        purpose: what the connection is for.
        session: of a "ring" connection, which session of the parties.
    """

    purpose: Purpose
    session: str


def greet(link: Link, purpose: Purpose, mine: Parameters | None, *, session: str = "") -> Message:
    """The dialler's side; the answer, with the other's parameters.

    Raises:
        PartyError: the other side speaks another version, has other parameters, refuses, or is not there any more.
    """
    parameters = None if mine is None else mine.to_fields()
    said = Message(fields={"purpose": purpose, "session": session, "parameters": parameters})
    link.send_bytes(_MAGIC + bytes([VERSION]))
    link.send(said)
    deadline = time.monotonic() + min(link.timeout_s, _LONGEST_S)
    _check_preface(link, deadline)
    answer = link.receive(_GREETING_BYTES, deadline=deadline)
    refusal = answer.fields.get("refused")
    if refusal is not None:
        raise PartyError(f"{link.peer} refused the connection: {str(refusal)[:500]}", party=link.party)
    if mine is not None:
        difference = _difference(link, mine, answer.fields.get("parameters"))
        if difference:
            raise PartyError(difference, party=link.party)
    return answer


def hear_greeting(link: Link, mine: Parameters) -> Greeting:
    """The other side's part, up to the answer, which is `welcome` or `refuse`.

    Raises:
        PartyError: no greeting, or another version or other parameters; the dialler was told.
    """
    deadline = time.monotonic() + min(link.timeout_s, _LONGEST_S)
    try:
        _check_preface(link, deadline)
        said = link.receive(_GREETING_BYTES, deadline=deadline)
    except InvalidInputError as error:
        raise link.babbles("a greeting is too long") from error
    except PartyError as error:
        if isinstance(error, _VersionError):
            refuse(link, str(error))
        raise
    purpose: Any = said.fields.get("purpose")
    if purpose not in get_args(Purpose):
        raise link.babbles("a greeting has no purpose")
    if purpose != "client":
        difference = _difference(link, mine, said.fields.get("parameters"))
        if difference:
            refuse(link, difference)
            raise PartyError(difference, party=link.party)
    return Greeting(purpose=purpose, session=str(said.fields.get("session", "")))


def welcome(link: Link, mine: Parameters, **facts: Any) -> None:
    """Accept a connection."""
    link.send_bytes(_MAGIC + bytes([VERSION]))
    link.send(Message(fields={"parameters": mine.to_fields(), **facts}))


def refuse(link: Link, why: str) -> None:
    """Say why a connection is not accepted, as far as the other side still hears it."""
    try:
        link.send_bytes(_MAGIC + bytes([VERSION]))
        link.send(Message(fields={"refused": why}))
    except PartyError:
        pass  # whoever is gone needs no answer


class _VersionError(PartyError):
    """Another version of the protocol."""


def _check_preface(link: Link, deadline: float) -> None:
    preface = bytes(link.receive_bytes(_PREFACE_BYTES, deadline=deadline))
    if preface[:-1] != _MAGIC:
        raise link.babbles("a connection begins with other bytes than the protocol's")
    if preface[-1] != VERSION:
        raise _VersionError(
            f"{link.peer} speaks version {preface[-1]} of the parties' protocol, this side version {VERSION}; install "
            "the same release at all of them",
            party=link.party,
        )


def _difference(link: Link, mine: Parameters, theirs: Any) -> str:
    own = mine.to_fields()
    given = theirs if isinstance(theirs, dict) else {}
    if given.get("hash") == own["hash"]:
        return ""
    told = [
        f"{name} is {str(given.get(name))[:40]!r} at {link.peer} and {own[name]!r} here"
        for name in own
        if name != "hash" and given.get(name) != own[name]
    ]
    return f"{link.peer} has other parameters: {'; '.join(told) or 'their hash differs'}; make the configurations alike"
