"""Format of the control messages between parties and clients: a JSON head, followed by binary buffers.

A message is 4 bytes (length of the head, little-endian), the head (a JSON object), then the buffers. The head lists the
sizes of the buffers as "sizes" and the kind of message as "type". Nothing is unpickled or executed. Every length is
checked before the bytes are received, and memory is allocated as they arrive.
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
from ppfr.secure import CHALLENGE_BYTES, Buffer, FixedPoint, SeededInputs, SharedInputs

LENGTH = struct.Struct("<I")
MAX_HEAD_BYTES = 1 << 16
_MAX_BUFFERS = 16
_MAX_INTEGER = 1 << 40  # so that products of a few sizes do not overflow


class MalformedError(ValueError):
    """The received bytes are not a valid message."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """One message.

    Attributes:
        fields: JSON values; public.
        buffers: binary data, little-endian where it contains numbers; may contain shares.
    """

    fields: dict[str, Any]
    buffers: Sequence[Buffer] = ()

    def head(self) -> bytes:
        """The message without its buffers."""
        sizes = [memoryview(buffer).nbytes for buffer in self.buffers]
        text = json.dumps(self.fields | {"sizes": sizes}, separators=(",", ":")).encode()
        return LENGTH.pack(len(text)) + text

    def text(self, name: str) -> str:
        """The value of a string field.

        Raises:
            MalformedError: the field is missing or not a string.
        """
        value: str = self._field(name, str)
        return value

    def integer(self, name: str) -> int:
        """The value of an integer field in 0..2**40; raises as `text`."""
        value: int = self._field(name, int)
        if isinstance(value, bool) or not 0 <= value <= _MAX_INTEGER:
            raise MalformedError(f"Field {name!r} must be an integer in 0..{_MAX_INTEGER}.")
        return value

    def id(self, name: str) -> bytes:
        """The value of a field that contains 16 bytes in hexadecimal; raises as `text`."""
        return id_from_hex(self.text(name))

    def challenge(self) -> bytes:
        """The field "challenge": 32 bytes in hexadecimal; raises as `text`."""
        try:
            value = bytes.fromhex(self.text("challenge"))
        except ValueError as error:
            raise MalformedError("The challenge is not hexadecimal.") from error
        if len(value) != CHALLENGE_BYTES:
            raise MalformedError(f"The challenge must have {CHALLENGE_BYTES} bytes, got {len(value)}.")
        return value

    def buffer(self, index: int) -> Buffer:
        """One of the buffers; raises as `text`."""
        if index >= len(self.buffers):
            raise MalformedError(f"Buffer {index} is missing.")
        return self.buffers[index]

    def _field(self, name: str, kind: type[Any]) -> Any:
        value = self.fields.get(name)
        if not isinstance(value, kind):
            raise MalformedError(f"Field {name!r} is missing or is not of type {kind.__name__}.")
        return value

    def __repr__(self) -> str:
        return f"Message({self.fields.get('type')!r}, buffers=<redacted>)"


def id_from_hex(text: str) -> bytes:
    """Convert a hexadecimal string into an id of 16 bytes.

    Raises:
        MalformedError: not hexadecimal, or of another length.
    """
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise MalformedError("An id is not hexadecimal.") from error
    if len(value) != ID_BYTES:
        raise MalformedError(f"An id must have {ID_BYTES} bytes, got {len(value)}.")
    return value


def json_from(text: Buffer, what: str) -> Any:
    """Parse JSON that another process sent.

    Args:
        text: in UTF-8.
        what: names the text in errors.

    Raises:
        MalformedError: not JSON, or nested too deeply.
    """
    try:
        return json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"The {what} is not JSON, or is nested too deeply.") from error


def parsed_head(text: bytes, limit_bytes: int) -> tuple[dict[str, Any], list[int]]:
    """Parse a head into its fields and the sizes of the buffers that follow.

    Raises:
        MalformedError: not a valid head.
        InvalidInputError: the buffers are larger than `limit_bytes`.
    """
    fields = json_from(text, "head")
    sizes = fields.pop("sizes", None) if isinstance(fields, dict) else None
    if not isinstance(sizes, list) or len(sizes) > _MAX_BUFFERS:
        raise MalformedError("The head does not contain a valid list of sizes.")
    if any(isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _MAX_INTEGER for size in sizes):
        raise MalformedError(f"Sizes must be integers in 0..{_MAX_INTEGER}.")
    if sum(sizes) > limit_bytes:
        raise InvalidInputError(
            f"The message has {sum(sizes)} bytes, the limit is {limit_bytes}. Send less per request, or raise "
            "max_request_bytes in the configuration of the party."
        )
    return fields, sizes


def array_of(buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Interpret a buffer as an array; it is not copied on a little-endian machine.

    Raises:
        MalformedError: the size of the buffer does not fit the shape.
    """
    if memoryview(buffer).nbytes != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise MalformedError("The size of a buffer does not fit its shape.")
    read = np.frombuffer(buffer, dtype=dtype.newbyteorder("<")).reshape(shape)
    return read.astype(dtype, copy=False)


def buffer_of(array: NDArray[Any]) -> Buffer:
    """The inverse of `array_of`."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def inputs_to_buffers(inputs: SeededInputs) -> list[Buffer]:
    """Ids, seeds and component 2, one buffer each."""
    rest = b"" if inputs.rest_NX is None else buffer_of(inputs.rest_NX)
    return [buffer_of(inputs.ids_N16), b"".join(inputs.seeds), rest]


def inputs_from(message: Message, party: int, point: FixedPoint) -> SharedInputs:
    """Read the first three buffers, as `inputs_to_buffers` writes them, and expand the seeds.

    Raises:
        MalformedError: the buffers do not fit each other.
        InvalidInputError: the shares are those of another party.
    """
    num = message.integer("num")
    seeds = bytes(message.buffer(1))
    rest = message.buffer(2)
    columns = point.dim + len(point.slack_weights)
    inputs = SeededInputs(
        party=party,
        fixed_point=point,
        ids_N16=array_of(message.buffer(0), (num, ID_BYTES), np.dtype(np.uint8)),
        seeds=tuple(seeds[start : start + ID_BYTES] for start in range(0, len(seeds), ID_BYTES)),
        rest_NX=None if party == 0 and not len(rest) else array_of(rest, (num, columns), point.wide_dtype),
    )
    return inputs.expanded()


def threshold_from(message: Message, point: FixedPoint) -> int | str:
    """Read the threshold of a query: a public integer, or the name of a hidden threshold.

    Raises:
        MalformedError: neither of them.
    """
    given = message.fields.get("threshold")
    if isinstance(given, dict) and isinstance(name := given.get("name"), str) and len(given) == 1:
        return name
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) > point.scale**2:
        raise MalformedError("The threshold is not an integer score.")
    return given
