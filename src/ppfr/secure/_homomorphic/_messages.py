"""The frame of all messages between key holder and server, and of the key's file."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Sequence
from typing import Literal, get_args

from ppfr.core import CorruptTemplateError, OutdatedTemplateError, WrongKeyError

Kind = Literal["context", "references", "probe", "scores", "key"]
FORMAT_VERSION = 1
KEY_ID_BYTES = 16
_MAGIC = b"PPFRCKKS"
# magic, version, kind, a zero, dim, number of references, number of parts, key id
_HEADER = struct.Struct("<8sHBxIQI16s")
_LENGTH = struct.Struct("<I")
_CHECKSUM_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """The content of a frame.

    Attributes:
        kind: "context" (parameters, for the server), "references" (a block of the gallery), "probe", "scores", or
            "key", which stays with the key holder.
        dim: D.
        num: number of references in the block, or of blocks in "scores"; otherwise 0.
        key_id: 16 random bytes that identify the key; public.
        parts: serialised TenSEAL objects.
    """

    kind: Kind
    dim: int
    num: int
    key_id: bytes
    parts: Sequence[bytes]

    def to_bytes(self) -> bytes:
        """Serialise with a checksum, which detects damage but not forgery."""
        code = get_args(Kind).index(self.kind)
        packed = [_HEADER.pack(_MAGIC, FORMAT_VERSION, code, self.dim, self.num, len(self.parts), self.key_id)]
        for part in self.parts:
            packed += [_LENGTH.pack(len(part)), part]
        return b"".join([*packed, _checksum(packed)])

    @classmethod
    def from_bytes(cls, data: bytes, *, kind: Kind, key_id: bytes | None = None) -> Message:
        """Parse a frame.

        Args:
            data: the whole frame.
            kind: the expected kind.
            key_id: the expected key, if known.

        Raises:
            CorruptTemplateError: not a frame, truncated, damaged or of another kind.
            OutdatedTemplateError: a version that this release does not read.
            WrongKeyError: it was made with another key.
        """
        what = f"The '{kind}' message of homomorphic matching"
        if not isinstance(data, bytes) or len(data) < _HEADER.size + _CHECKSUM_BYTES or data[:8] != _MAGIC:
            raise CorruptTemplateError(f"{what} is not in the expected format or is truncated. Create it again.")
        _, version, code, dim, num, num_parts, found_id = _HEADER.unpack_from(data)
        if version != FORMAT_VERSION:
            raise OutdatedTemplateError(f"{what} has version {version}, but this release reads {FORMAT_VERSION}.")
        if _checksum([memoryview(data)[:-_CHECKSUM_BYTES]]) != data[-_CHECKSUM_BYTES:]:
            raise CorruptTemplateError(f"{what} is damaged or truncated. Create it again.")
        if code != get_args(Kind).index(kind):
            given = (*get_args(Kind), "unknown")[min(code, len(get_args(Kind)))]
            raise CorruptTemplateError(f"{what} is of kind '{given}'. Pass '{kind}'.")
        if key_id is not None and found_id != key_id:
            raise WrongKeyError(f"{what} was made with another key. Use one key for gallery, probes and scores.")
        return cls(kind=kind, dim=dim, num=num, key_id=found_id, parts=_parts(data, num_parts, what))

    def __repr__(self) -> str:
        return f"Message(kind={self.kind!r}, dim={self.dim}, num={self.num}, parts=<redacted>)"


def _parts(data: bytes, num_parts: int, what: str) -> list[bytes]:
    at, end, parts = _HEADER.size, len(data) - _CHECKSUM_BYTES, []
    for _ in range(num_parts):
        if at + _LENGTH.size > end:
            raise CorruptTemplateError(f"{what} is shorter than its header states. Create it again.")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        parts.append(data[at - length : at])
    if at != end:
        raise CorruptTemplateError(f"{what} does not have the length that its header states. Create it again.")
    return parts


def _checksum(pieces: Sequence[bytes | memoryview]) -> bytes:
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.digest()[:_CHECKSUM_BYTES]
