"""How parties and clients write what is not headerless: a line of JSON and numbered buffers behind it.

A frame is 4 bytes (length of the JSON, little-endian), the JSON object, then the buffers, whose sizes the object's
"sizes" lists. Nothing is pickled, nothing is executed, and every length is checked before memory is taken for it.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, InvalidInputError
from ppfr.secure._channel import Buffer
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._sharing import SeededRows, SharedRows, SharedThreshold

LENGTH = struct.Struct("<I")
MAX_HEAD_BYTES = 1 << 16
_MAX_BUFFERS = 16


class MalformedError(ValueError):
    """Bytes that are no message of the protocol."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """One message.

    Attributes:
        fields: plain values; public.
        buffers: raw bytes, little-endian where they are numbers; shares among them.
    """

    fields: dict[str, Any]
    buffers: Sequence[Buffer] = ()

    def head(self) -> bytes:
        """Everything but the buffers."""
        sizes = [memoryview(buffer).nbytes for buffer in self.buffers]
        text = json.dumps(self.fields | {"sizes": sizes}, separators=(",", ":")).encode()
        return LENGTH.pack(len(text)) + text

    def text(self, name: str) -> str:
        """A field that must be text.

        Raises:
            MalformedError: it is not.
        """
        value: str = self._field(name, str)
        return value

    def integer(self, name: str) -> int:
        """A field that must be a whole number, 0 or more; errors as for `text`."""
        value: int = self._field(name, int)
        if isinstance(value, bool) or value < 0:
            raise MalformedError(f"{name} is no number of 0 or more")
        return value

    def identity(self, name: str) -> bytes:
        """A field of 16 bytes in hexadecimal; errors as for `text`."""
        return identity_of(self.text(name))

    def buffer(self, place: int) -> Buffer:
        """One of the buffers; errors as for `text`."""
        if place >= len(self.buffers):
            raise MalformedError(f"buffer {place} is missing")
        return self.buffers[place]

    def _field(self, name: str, kind: type[Any]) -> Any:
        value = self.fields.get(name)
        if not isinstance(value, kind):
            raise MalformedError(f"{name} is missing or no {kind.__name__}")
        return value

    def __repr__(self) -> str:
        return f"Message({self.fields.get('do')!r}, buffers=<redacted>)"


def identity_of(text: str) -> bytes:
    """16 bytes of their hexadecimal form.

    Raises:
        MalformedError: it is none.
    """
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise MalformedError("an id is not hexadecimal") from error
    if len(value) != ID_BYTES:
        raise MalformedError(f"an id has not {ID_BYTES} bytes")
    return value


def parsed_head(text: bytes, limit_bytes: int) -> tuple[dict[str, Any], list[int]]:
    """The fields of a message's head, and the sizes of the buffers that follow.

    Raises:
        MalformedError: no such head.
        InvalidInputError: the message is larger than is allowed.
    """
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise MalformedError("a head is no JSON") from error
    sizes = fields.pop("sizes", None) if isinstance(fields, dict) else None
    if not isinstance(sizes, list) or len(sizes) > _MAX_BUFFERS:
        raise MalformedError("a head has no sizes")
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in sizes):
        raise MalformedError("sizes are no numbers")
    if sum(sizes) > limit_bytes:
        raise InvalidInputError(
            f"the message has {sum(sizes)} bytes, {limit_bytes} are allowed; send less at a time, or raise the limit"
        )
    return fields, sizes


def array_of(buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array over a buffer, not copied where the machine is little-endian.

    Raises:
        MalformedError: another number of bytes.
    """
    if memoryview(buffer).nbytes != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise MalformedError("a buffer is not as long as its shape")
    read = np.frombuffer(buffer, dtype=dtype.newbyteorder("<")).reshape(shape)
    return read.astype(dtype, copy=False)


def buffer_of(array: NDArray[Any]) -> Buffer:
    """The inverse of `array_of`."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def rows_to_buffers(rows: SeededRows) -> list[Buffer]:
    """Ids, seeds, component 2."""
    rest = b"" if rows.rest_ND is None else buffer_of(rows.rest_ND)
    return [buffer_of(rows.ids_N16), b"".join(rows.seeds), rest]


def rows_from(message: Message, party: int, point: FixedPoint) -> SharedRows:
    """The inverse of `rows_to_buffers`, on the first three buffers, expanded.

    Raises:
        MalformedError: buffers that do not fit together.
        InvalidInputError: shares of another party.
    """
    num = message.integer("num")
    seeds = bytes(message.buffer(1))
    rest = message.buffer(2)
    rows = SeededRows(
        party=party,
        fixed_point=point,
        ids_N16=array_of(message.buffer(0), (num, ID_BYTES), np.dtype(np.uint8)),
        seeds=tuple(seeds[start : start + ID_BYTES] for start in range(0, len(seeds), ID_BYTES)),
        rest_ND=None if party == 0 and not len(rest) else array_of(rest, (num, point.dim), point.dtype),
    )
    return rows.expanded()


def threshold_from(message: Message, place: int, party: int, point: FixedPoint) -> int | SharedThreshold:
    """A public threshold of the field "threshold", or the share in a buffer under the sharing named there."""
    given = message.fields.get("threshold")
    if isinstance(given, str):
        words_2 = array_of(message.buffer(place), (2,), point.dtype)
        return SharedThreshold(party=party, fixed_point=point, sharing=identity_of(given), words_2=words_2)
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) > point.scale**2:
        raise MalformedError("threshold is no integer score")
    return given
