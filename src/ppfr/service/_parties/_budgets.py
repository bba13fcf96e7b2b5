"""Query budgets: bits of answers by client, by verified subject, and over all searches.

Without a limit, clients could compute references from decisions alone. A limit for each client does not bound this,
because clients can combine their answers: a subject's references are protected by the limit over all clients.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self, final, get_args

from ppfr.assets import check_private, create_sqlite, limit_values, sqlite_errors
from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError
from ppfr.secure import Kind

APPLICATION_ID = int.from_bytes(b"PFQB", "big")
FORMAT_VERSION = 1
_PAGE_BYTES = 4096
_REMEDY = "Restore it from a backup, or stop the party and delete the file to reset all its budgets."
_SCHEMA = """
CREATE TABLE reserved (scope TEXT NOT NULL, name BLOB NOT NULL, bits INTEGER NOT NULL, checksum INTEGER NOT NULL,
                       PRIMARY KEY (scope, name)) WITHOUT ROWID;
"""
_RESERVE = "INSERT INTO reserved VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET bits = ?3, checksum = ?4"

Scope = Literal["client", "subject", "searches"]


class Account(NamedTuple):
    """What bits are counted for.

    Attributes:
        scope: "client", "subject" or "searches".
        name: of the client in UTF-8; SHA-256 of the subject's name; empty for searches.
    """

    scope: Scope
    name: bytes


_SEARCHES = Account("searches", b"")


def answer_bits(kind: Kind, num_probes: int, num_references: int) -> int:
    """Bits that an answer reveals.

    One per probe for "verify" and "any", one per comparison for "set", 1 + log2(references), rounded up, per probe for
    "best".
    """
    index_bits = max(num_references - 1, 0).bit_length()
    return num_probes * {"verify": 1, "any": 1, "set": num_references, "best": 1 + index_bits}[kind]


@final
class QueryBudgets:
    """Spent bits in an SQLite file; use it as a context manager, or call `close`. Only one process may open the file.

    The file is not written for every query. Bits are reserved in blocks of a hundredth of the limit, and each block is
    on disk before its first bit is spent. After a restart the unused part of a block counts as spent, so that neither a
    crash nor a power failure returns spent bits. Where there is no limit, bits are not counted.

    Args:
        path: of the file, which only its owner may access; created if any limit is given.
        clients: limit in bits by client; None for no limit.
        per_subject: limit for the answers to `verify` about one subject, over all clients; None for no limit.
        searches: limit for the answers to all searches ("any", "set" and "best"), over all clients; None for no limit.

    Raises:
        CorruptTemplateError: the file is damaged, or is not a file of query budgets.
        OutdatedTemplateError: a version that this release does not read.
        StorageError: other users can access the file, it is open in another process, or it cannot be written.

    Privacy:
        The file contains names of clients, and SHA-256 digests of the names of subjects that were verified. Digests of
        removed subjects remain: otherwise removing and enrolling a person again would return spent bits. A digest hides
        only names that nobody can guess.
    """

    def __init__(
        self,
        path: Path,
        *,
        clients: Mapping[str, int | None],
        per_subject: int | None = None,
        searches: int | None = None,
    ) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reserved: dict[Account, int] = {}
        self._spent: dict[Account, int] = {}
        self._connection: sqlite3.Connection | None = None
        self.set_limits(clients=clients, per_subject=per_subject, searches=searches)

    def set_limits(
        self, *, clients: Mapping[str, int | None], per_subject: int | None = None, searches: int | None = None
    ) -> None:
        """Replace all limits; spent bits stay spent. Raises as the class."""
        with self._lock:
            is_limited = any(limit is not None for limit in (*clients.values(), per_subject, searches))
            if is_limited and self._connection is None:
                with contextlib.ExitStack() as undo:
                    connection = undo.enter_context(contextlib.closing(_connected(self._path)))
                    self._reserved = _read(self._path, connection)
                    undo.pop_all()
                self._connection, self._spent = connection, dict(self._reserved)
            self._clients, self._per_subject, self._searches = clients, per_subject, searches

    def left(self, client: str) -> int | None:
        """Bits that a client has left; None for no limit."""
        limit = self._clients.get(client)
        return None if limit is None else self._left(_account_of(client), limit)

    def spend(
        self, client: str, kind: Kind, *, num_probes: int, num_references: int, subjects: Sequence[str] = ()
    ) -> None:
        """Count the bits of an answer before they are revealed. They stay spent if the query fails later.

        Args:
            client: that receives the answer.
            kind: of the query.
            num_probes: number of probes; for "verify", of claims.
            num_references: size of the gallery.
            subjects: for "verify", the claimed subject of each claim.

        Raises:
            InvalidInputError: the client, a claimed subject or the searches have fewer bits left. Nothing is counted
                for any of them. The message does not name the subject.
            StorageError: the file cannot be written; nothing is counted.
        """
        bits = answer_bits(kind, num_probes, num_references)
        charges: list[tuple[Account, int, int | None]] = [(_account_of(client), bits, self._clients.get(client))]
        if kind == "verify":
            charges += [(_digest_of(one), num, self._per_subject) for one, num in Counter(subjects).items()]
        else:
            charges += [(_SEARCHES, bits, self._searches)]
        with self._lock:
            new: dict[Account, int] = {}
            blocks: dict[Account, int] = {}
            for account, amount, limit in charges:
                if limit is None:
                    continue
                new[account] = self._spent.get(account, 0) + amount
                if new[account] > limit:
                    raise _exhausted(account.scope, amount, self._left(account, limit), limit)
                if new[account] > self._reserved.get(account, 0):
                    blocks[account] = min(limit, new[account] + max(1, limit // 100))
            if blocks:
                self._reserve(blocks)
                self._reserved |= blocks
            self._spent |= new

    def close(self) -> None:
        """Close the file; bits that need a new block cannot be spent afterwards."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _left(self, account: Account, limit: int) -> int:
        return max(0, limit - self._spent.get(account, 0))

    def _reserve(self, blocks: Mapping[Account, int]) -> None:
        """Write new blocks, all or none of them."""
        rows = [(*account, bits, _checksum(account, bits)) for account, bits in blocks.items()]
        connection = self._connection
        assert connection is not None  # there is a limit, so the file was opened
        with _translated(self._path):
            connection.execute("BEGIN")
            try:
                connection.executemany(_RESERVE, rows)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # after some errors SQLite has rolled back already
                    connection.execute("ROLLBACK")
                raise


def _account_of(client: str) -> Account:
    return Account("client", client.encode())


def _digest_of(subject: str) -> Account:
    return Account("subject", hashlib.sha256(subject.encode()).digest())


def _exhausted(scope: Scope, bits: int, left: int, limit: int) -> InvalidInputError:
    whose, key = {
        "client": ("this client", "budget_bits"),
        "subject": ("a claimed subject (over all clients)", "subject_budget_bits"),
        "searches": ("searches (over all clients)", "search_budget_bits"),
    }[scope]
    return InvalidInputError(
        f"The answer has {bits} bits, but the query budget of {whose} has {left} of {limit} bits left. Send fewer "
        f"probes, or have the operator of the party raise {key}."
    )


def _connected(path: Path) -> sqlite3.Connection:
    """Open the file, and lock it until it is closed or the process ends; create it if it does not exist."""
    what = "file of query budgets"
    if not path.exists():
        _create(path, what)
    check_private(path, what)
    with _translated(path), contextlib.ExitStack() as undo:
        uri = f"{path.resolve().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        undo.callback(connection.close)
        limit_values(connection)
        # Locking mode first: SQLite applies it on the first access to the file.
        for setting in ("locking_mode = EXCLUSIVE", "trusted_schema = OFF", "synchronous = FULL"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        _check(path, connection)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()  # copies of SQLite's tools are in another mode
        undo.pop_all()
    return connection


def _create(path: Path, what: str) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        path.with_name(f"{path.name}-wal").unlink(missing_ok=True)  # of a deleted file; it does not belong to this one
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
        )
        # With the write-ahead log, a commit flushes the disk once; with a rollback journal, three times.
        connection.execute("PRAGMA journal_mode = WAL").fetchall()

    create_sqlite(path, fill, what=what, page_bytes=_PAGE_BYTES)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise CorruptTemplateError(f"{path} does not contain query budgets. {_REMEDY}")
    if version != FORMAT_VERSION:
        raise OutdatedTemplateError(
            f"{path} has format version {version}, but this release reads version {FORMAT_VERSION}. "
            "Use the release that wrote it."
        )
    if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        raise CorruptTemplateError(f"{path} is damaged. {_REMEDY}")


def _read(path: Path, connection: sqlite3.Connection) -> dict[Account, int]:
    with _translated(path):
        found = connection.execute("SELECT scope, name, bits, checksum FROM reserved").fetchall()
    reserved: dict[Account, int] = {}
    for scope, name, bits, checksum in found:
        is_typed = scope in get_args(Scope) and isinstance(name, bytes) and isinstance(bits, int)
        if not is_typed or checksum != _checksum(account := Account(scope, name), bits):
            raise CorruptTemplateError(f"{path} is damaged. {_REMEDY}")
        reserved[account] = bits
    return reserved


def _checksum(account: Account, bits: int) -> int:
    return zlib.crc32(repr((*account, bits)).encode())


def _translated(path: Path) -> contextlib.AbstractContextManager[None]:
    """Translate SQLite's errors, as `ppfr.assets.sqlite_errors`."""
    what, in_use = "file of query budgets", "Only one process at a time may use it."
    return sqlite_errors(path, what=what, in_use=in_use, done="no bits were counted", remedy=_REMEDY)
