"""Records of templates and keys: a fixed header, then the values. See docs/reference/template-records.md."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from typing import Literal, NoReturn

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, UnsupportableError

Kind = Literal["template", "key"]

FORMAT_VERSION = 1
MAGIC: dict[str, bytes] = {"template": b"PPFRTMPL", "key": b"PPFRSKEY"}
PARAMETER_BYTES = 32
SCHEME_ID_BYTES = 24
_PAYLOAD_BYTES = {"bytes": 1, "float32": 4, "float16": 2}
_PAYLOADS = tuple(_PAYLOAD_BYTES)
# magic, format version, scheme version, scheme id, payload kind, 3 zeros, number of values, parameters, key id, tag,
# 4 zeros, checksum
_HEADER = struct.Struct(f"<8sHH{SCHEME_ID_BYTES}sB3xI{PARAMETER_BYTES}s16s16s4x16s")
HEADER_BYTES = _HEADER.size
_CHECKSUM_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Record:
    """The parsed fields of a record, before a scheme checks them.

    Attributes:
        kind: "template" or "key".
        scheme_id: ASCII, at most 24 characters.
        scheme_version: from 1.
        parameters: at most 32 bytes, defined by the scheme.
        payload_kind: "float32" or "float16" for a template, "bytes" for a key.
        payload: the values, little-endian.
        key_id: 16 bytes.
        tag: 16 bytes; zeros in a key record.
    """

    kind: Kind
    scheme_id: str
    scheme_version: int
    parameters: bytes
    payload_kind: str
    payload: bytes
    key_id: bytes
    tag: bytes = bytes(16)

    def __repr__(self) -> str:
        return f"Record(kind={self.kind!r}, scheme_id={self.scheme_id!r}, payload=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("a template or key record cannot be pickled; use to_bytes()")

    def tagged_part(self) -> bytes:
        """The bytes that the keyed tag covers: everything except the tag and the checksum."""
        return _packed(dataclasses.replace(self, tag=bytes(16)), bytes(_CHECKSUM_BYTES))

    def to_bytes(self) -> bytes:
        """Header, then payload."""
        without = _packed(self, bytes(_CHECKSUM_BYTES))
        return _packed(self, _checksum(without))


def _packed(record: Record, checksum: bytes) -> bytes:
    scheme_id = record.scheme_id.encode("ascii")
    if not 0 < len(scheme_id) <= SCHEME_ID_BYTES or len(record.parameters) > PARAMETER_BYTES:
        raise InvalidInputError(
            f"the scheme id has {len(scheme_id)} characters and the parameters have {len(record.parameters)} bytes; "
            f"a record allows 1 to {SCHEME_ID_BYTES} and at most {PARAMETER_BYTES}"
        )
    num_values = len(record.payload) // _PAYLOAD_BYTES[record.payload_kind]
    header = _HEADER.pack(
        MAGIC[record.kind],
        FORMAT_VERSION,
        record.scheme_version,
        scheme_id,
        _PAYLOADS.index(record.payload_kind),
        num_values,
        record.parameters,
        record.key_id,
        record.tag,
        checksum,
    )
    return header + record.payload


def _checksum(record_without: bytes) -> bytes:
    return hashlib.sha256(record_without).digest()[:_CHECKSUM_BYTES]


def parse_record(data: bytes, *, kind: Kind) -> Record:
    """Parse a record and verify its checksum.

    Raises:
        CorruptTemplateError: the bytes are not a record of this kind, are truncated, or were altered.
        OutdatedTemplateError: this release does not read the format version.
    """
    what = f"a {kind} record"
    if len(data) < HEADER_BYTES:
        raise CorruptTemplateError(
            f"got {len(data)} bytes, which is too short for {what} (at least {HEADER_BYTES}); it is truncated or not a "
            "record; enrol again"
        )
    (magic, version, scheme_version, scheme_id, code, num, parameters, key_id, tag, checksum) = _HEADER.unpack_from(
        data
    )
    if magic != MAGIC[kind]:
        other = next((name for name, word in MAGIC.items() if word == magic), None)
        found = f"a {other} record" if other else "not a record of this package"
        raise CorruptTemplateError(f"the bytes are {found}; give {what}")
    if version != FORMAT_VERSION:
        raise OutdatedTemplateError(
            f"the record has format version {version}, but this release reads {FORMAT_VERSION}; "
            "enrol again, or use the release that wrote it"
        )
    payload = bytes(data[HEADER_BYTES:])
    damaged = CorruptTemplateError(f"{what} is damaged or truncated (wrong checksum); enrol again")
    if code >= len(_PAYLOADS) or len(payload) != num * _PAYLOAD_BYTES[_PAYLOADS[code]]:
        raise damaged
    without = bytearray(data)
    without[HEADER_BYTES - _CHECKSUM_BYTES : HEADER_BYTES] = bytes(_CHECKSUM_BYTES)
    if _checksum(bytes(without)) != checksum:
        raise damaged
    try:
        name = scheme_id.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged from error
    return Record(
        kind=kind,
        scheme_id=name,
        scheme_version=scheme_version,
        parameters=parameters,
        payload_kind=_PAYLOADS[code],
        payload=payload,
        key_id=key_id,
        tag=tag,
    )
