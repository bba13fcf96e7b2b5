"""Writing MXNet RecordIO word by word, as its format is described, to have files to read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

MAGIC = struct.pack("<I", 0xCED7230A)


def record(data: bytes) -> bytes:
    """One record; split wherever the magic word stands at a multiple of four."""
    cuts = [at for at in range(0, len(data) - 3, 4) if data[at : at + 4] == MAGIC]
    parts, start = [], 0
    for cut in cuts:
        parts.append(data[start:cut])
        start = cut + 4
    parts.append(data[start:])
    out = b""
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        out += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def image_record(content: bytes, labels: Sequence[float], key: int, *, as_array: bool) -> bytes:
    """Header (flag, label, id, id2) and content."""
    if as_array:
        header = struct.pack("<IfQQ", len(labels), 0.0, key, 0) + struct.pack(f"<{len(labels)}f", *labels)
    else:
        header = struct.pack("<IfQQ", 0, labels[0], key, 0)
    return record(header + content)


def write_rec(path: Path, records: Sequence[tuple[int, bytes]]) -> None:
    """`path` and its index beside it, from (key, record)."""
    offset, lines, data = 0, [], b""
    for key, one in records:
        lines.append(f"{key}\t{offset}\n")
        data += one
        offset += len(one)
    path.write_bytes(data)
    path.with_suffix(".idx").write_text("".join(lines))
