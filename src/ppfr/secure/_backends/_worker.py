"""One process of a secure back end: a party, or the client that creates shares and opens answers.

This file and the library's roles (`_spu_roles`, `_mpyc_roles`) run in the library's own environment: they need the
standard library, NumPy and the library, but not ppfr. The first message to a process sets its role; then it answers one
message after another on standard input and output. A message is 8 bytes of length, a JSON header, then the arrays that
the header names, each as 8 bytes of length and an .npy without pickled objects.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_LENGTH = struct.Struct(">Q")
Arrays = dict[str, Any]


def packed(header: dict[str, Any], arrays: Arrays) -> bytes:
    """Serialise a message."""
    names = sorted(arrays)
    parts = [json.dumps({**header, "arrays": names}).encode()]
    for name in names:
        buffer = io.BytesIO()
        np.save(buffer, arrays[name], allow_pickle=False)
        parts.append(buffer.getvalue())
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def unpacked(read: Callable[[int], bytes]) -> tuple[dict[str, Any], Arrays]:
    """Read the next message of a stream; `read(n)` must return exactly n bytes."""

    def part() -> bytes:
        return read(_LENGTH.unpack(read(_LENGTH.size))[0])

    header = json.loads(part())
    return header, {name: np.load(io.BytesIO(part()), allow_pickle=False) for name in header.pop("arrays")}


def link_bytes(dealer_port: int) -> dict[str, list[int]]:
    """Bytes sent and received so far on this process's TCP connections, counted by the kernel (Linux)."""
    counted = {"parties": [0, 0], "dealer": [0, 0]}
    for descriptor in list(Path("/proc/self/fd").iterdir()):
        try:
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(descriptor.name))) as connection:
                port = connection.getpeername()[1]
                tcp_info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (OSError, IndexError):
            continue  # not a connected TCP socket
        counter = counted["dealer" if port == dealer_port else "parties"]
        counter[0] += struct.unpack_from("Q", tcp_info, 200)[0]  # tcpi_bytes_sent
        counter[1] += struct.unpack_from("Q", tcp_info, 128)[0]  # tcpi_bytes_received
    return counted


def _made(setup: dict[str, Any]) -> Any:
    """Create a library's client or party."""
    if setup["engine"] not in ("spu", "mpyc"):
        raise ValueError(f"engine must be 'spu' or 'mpyc', got {setup['engine']!r}.")
    roles = runpy.run_path(str(Path(__file__).with_name(f"_{setup['engine']}_roles.py")))
    return roles["Party" if setup["role"] == "party" else "Client"](setup)


def _answered(worker: Any, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
    if request["do"] == "share":
        metas, parts = worker.share(arrays["values"])
        return {"metas": metas}, {str(i): part for i, part in enumerate(parts)}
    if request["do"] == "open":
        parts = [arrays[str(i)] for i in range(len(arrays))]
        return {}, {"values": worker.open(request["metas"], parts)}
    if request["do"] == "enrol":
        return {"num": worker.enrol(request["meta"], arrays["share"])}, {}
    if request["do"] == "count":
        return link_bytes(request["dealer_port"]), {}
    meta, share = worker.answer(
        request["kind"], request["threshold"], request["meta"], arrays["share"], arrays.get("references")
    )
    return {"meta": meta}, {"share": share}


def main() -> None:
    """Answer messages until the input ends."""
    source = sys.stdin.buffer
    target: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print to standard output, which must carry messages only

    def read(num_bytes: int) -> bytes:
        data = source.read(num_bytes)
        if len(data) != num_bytes:
            raise EOFError
        return data

    worker: Any = None
    while True:
        try:
            request, arrays = unpacked(read)
        except EOFError:
            os._exit(0)  # libraries' threads would keep the process alive
        try:
            if worker is None:
                worker = _made(request)
                reply: tuple[dict[str, Any], Arrays] = ({}, {})
            else:
                reply = _answered(worker, request, arrays)
        except ModuleNotFoundError as error:
            reply = ({"missing": error.name}, {})
        except Exception as error:  # any error of the library is reported to the caller
            reply = ({"error": f"{type(error).__name__}: {error}"[:400]}, {})
        target.write(packed(*reply))
        target.flush()


if __name__ == "__main__":
    main()
