"""Audit log of a party: who requested what, and what was refused. It contains no subject, share or answer."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
from pathlib import Path
from typing import final, get_args

from ppfr.assets import check_private
from ppfr.core import ID_BYTES, StorageError
from ppfr.secure import Kind
from ppfr.service._parties._links import Link
from ppfr.service._parties._messages import MalformedError, Message, id_from_hex

_AUDITED = (*get_args(Kind), "enrol", "remove", "refresh", "subjects")


@final
class AuditLog:
    """A file of JSON lines, appended to, for its owner only.

    Each line is written with one call of the operating system before the reply is sent. It survives the end of the
    process, but not always a power failure.

    Args:
        path: created when missing; None for no audit log.

    Raises:
        StorageError: the file cannot be written, or other users can access it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: int | None = None
        self._is_cut = False  # the last line has no end, since the disk was full
        self.reopen()

    def record(
        self,
        action: str,
        *,
        client: str,
        fingerprint: str,
        num: int | None = None,
        request_id: str | None = None,
        refusal: str | None = None,
    ) -> None:
        """Append an event.

        Args:
            action: "enrol", "remove", "subjects", the kind of a query, "connect", or "other".
            client: name in the certificate.
            fingerprint: of the certificate.
            num: number of references or probes.
            request_id: hexadecimal.
            refusal: why it was refused, as a class of errors or the key of a limit; None if it was executed.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._path is None:
            return
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        fields = {"time": time, "client": client, "fingerprint": fingerprint, "action": action}
        more = {"num": num, "request_id": request_id, "refusal": refusal}
        line = json.dumps(fields | {name: value for name, value in more.items() if value is not None}).encode() + b"\n"
        with self._lock:
            try:
                if self._file is None:
                    raise OSError("it is closed")
                line = b"\n" + line if self._is_cut else line
                num_written = os.write(self._file, line)
                self._is_cut = self._is_cut if num_written == 0 else num_written != len(line)
                if num_written != len(line):
                    raise OSError("only a part was written")
            except OSError as error:
                raise StorageError(
                    f"The audit log cannot be written ({error.strerror or error}). Free space at {self._path}."
                ) from error

    def reopen(self) -> None:
        """Open the file again, after another program has moved it away.

        Raises:
            StorageError: as for the class; the old file stays open.
        """
        if self._path is None:
            return
        try:
            opened = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"Cannot open the audit log {self._path}: {error.strerror or error}.") from error
        try:
            check_private(self._path, "audit log")
            size = os.fstat(opened).st_size
            is_cut = size > 0 and os.pread(opened, 1, size - 1) != b"\n"
        except BaseException:
            os.close(opened)
            raise
        with self._lock:
            before, self._file, self._is_cut = self._file, opened, is_cut
        if before is not None:
            os.close(before)

    def close(self) -> None:
        """Close the file; later events are errors."""
        with self._lock:
            opened, self._file = self._file, None
        if opened is not None:
            os.close(opened)


def refusal_class(error: BaseException | None) -> str | None:
    """An error as `refusal` of an event: the key of the configuration that it names, or its type."""
    return None if error is None else str(getattr(error, "key", type(error).__name__))


def record_request(log: AuditLog, link: Link, message: Message, client: str, refusal: BaseException | None) -> None:
    """Record a client's request. A request that reveals nothing, such as a status, is recorded only if it was refused.

    Raises:
        StorageError: the file cannot be written.
    """
    fields = message.fields
    action = fields.get("kind") if fields.get("type") == "query" else fields.get("type")
    is_audited = action in _AUDITED and (action != "subjects" or fields.get("contents") is True)
    if not is_audited and refusal is None:
        return
    num = fields.get("num")
    if action == "remove" and message.buffers:
        num = memoryview(message.buffers[0]).nbytes // ID_BYTES
    request_id = None
    with contextlib.suppress(MalformedError):  # a refused request may have no valid id
        request_id = id_from_hex(str(fields.get("id"))).hex()
    log.record(
        str(action) if action in _AUDITED else "other",
        client=client,
        fingerprint=link.fingerprint,
        num=num if isinstance(num, int) else None,
        request_id=request_id,
        refusal=refusal_class(refusal),
    )
