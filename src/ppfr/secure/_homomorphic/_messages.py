"""What travels between key holder and server, and the key's file: one frame for all, checked before it is used."""

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
    """A frame's content.

    Attributes:
        kind: "context" (parameters, for the server), "references" (a block of the gallery), "probe", "scores", or
            "key", which stays with its holder.
        dim: D.
        num: of references in the block, of blocks in "scores", else 0.
        key_id: 16 random bytes that say which key it is under; public.
        parts: TenSEAL's own bytes.
    """

    kind: Kind
    dim: int
    num: int
    key_id: bytes
    parts: Sequence[bytes]

    def to_bytes(self) -> bytes:
        """The frame, with a checksum, which finds damage, not forgery."""
        code = get_args(Kind).index(self.kind)
        packed = [_HEADER.pack(_MAGIC, FORMAT_VERSION, code, self.dim, self.num, len(self.parts), self.key_id)]
        for part in self.parts:
            packed += [_LENGTH.pack(len(part)), part]
        return b"".join([*packed, _checksum(packed)])

    @classmethod
    def from_bytes(cls, data: bytes, *, kind: Kind, key_id: bytes | None = None) -> Message:
        """Read a frame.

        Args:
            data: all of it.
            kind: what it must hold.
            key_id: the key that it must be under, if that is known.

        Raises:
            CorruptTemplateError: foreign, cut short, damaged or of another kind.
            OutdatedTemplateError: a version that this release does not read.
            WrongKeyError: it was made under another key.
        """
        what = f"what was given as {kind} of homomorphic matching"
        if not isinstance(data, bytes) or len(data) < _HEADER.size + _CHECKSUM_BYTES or data[:8] != _MAGIC:
            raise CorruptTemplateError(f"{what} is none, or was cut short; have it made again")
        _, version, code, dim, num, num_parts, found_id = _HEADER.unpack_from(data)
        if version != FORMAT_VERSION:
            raise OutdatedTemplateError(f"{what} has version {version}, this release reads {FORMAT_VERSION}")
        if _checksum([memoryview(data)[:-_CHECKSUM_BYTES]]) != data[-_CHECKSUM_BYTES:]:
            raise CorruptTemplateError(f"{what} is damaged or was cut short; have it made again")
        if code != get_args(Kind).index(kind):
            raise CorruptTemplateError(f"{what} is {(*get_args(Kind), 'unknown')[min(code, 5)]}; give {kind}")
        if key_id is not None and found_id != key_id:
            raise WrongKeyError(f"{what} was made under another key; use the one key for gallery, probes and scores")
        return cls(kind=kind, dim=dim, num=num, key_id=found_id, parts=_parts(data, num_parts, what))

    def __repr__(self) -> str:
        return f"Message(kind={self.kind!r}, dim={self.dim}, num={self.num}, parts=<redacted>)"


def _parts(data: bytes, num_parts: int, what: str) -> list[bytes]:
    at, end, parts = _HEADER.size, len(data) - _CHECKSUM_BYTES, []
    for _ in range(num_parts):
        if at + _LENGTH.size > end:
            raise CorruptTemplateError(f"{what} is shorter than it says; have it made again")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        parts.append(data[at - length : at])
    if at != end:
        raise CorruptTemplateError(f"{what} is not of the length that it says; have it made again")
    return parts


def _checksum(pieces: Sequence[bytes | memoryview]) -> bytes:
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.digest()[:_CHECKSUM_BYTES]
