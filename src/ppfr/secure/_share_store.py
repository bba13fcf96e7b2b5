"""One party's persistent state: its shares, and which changes to them were prepared, committed or aborted.

Suffixes: N rows of a change, M references, W ring elements of a row.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, final, get_args

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, CorruptTemplateError, InvalidInputError, ProblemsError, StorageError, UnsupportableError
from ppfr.secure._changes import CHANGE_ID_BYTES, Change, Enrolment, Removal, State, check_change_id
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._share_file import GALLERY_ID_BYTES, connected, create_file, read_header, translated
from ppfr.secure._sharing import SharedRows

_SLOT = struct.Struct("<IB100s")  # CRC-32 of id, subject and words; length of the subject, subject; then the words


@final
class ShareStore:
    """The shares of one party in one file; create it with `create`, then use `open`.

    A change is prepared, then committed or aborted (`settle`). Each step is atomic and durable: it is on disk when the
    call returns, and survives the end of the process or a power failure. Only one process at a time may open the file;
    its threads may share the object.

    Example:
        >>> import tempfile
        >>> rows = SharedRows(
        ...     party=1,
        ...     fixed_point=FixedPoint(dim=2),
        ...     ids_N16=np.zeros((1, 16), np.uint8),
        ...     words_NW=np.ones((1, 4), np.uint32),
        ... )
        >>> change = Enrolment(change_id=bytes(16), rows=rows, subjects=("pseudonym",))
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "party-1.shares"
        >>> with ShareStore.create(path, party=1, fixed_point=rows.fixed_point, gallery_id=bytes(16)) as store:
        ...     store.prepare(change)
        ...     before = len(store)
        ...     store.commit(change.change_id)  # once all three have prepared, party 0 first
        ...     print(before, len(store), store.load()[1])
        0 1 ('pseudonym',)
        >>> folder.cleanup()

    Privacy:
        The file contains uniform words, subjects (pseudonyms), ids, their number and their order. The files of two
        parties together reveal the embeddings: keep them, and their backups, with different operators.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, party: int, point: FixedPoint, gallery: bytes
    ) -> None:
        self._path, self._connection = path, connection
        self._party, self._fixed_point, self._gallery_id = party, point, gallery
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: Path, *, party: int, fixed_point: FixedPoint, gallery_id: bytes) -> ShareStore:
        """Create a store without references, in a file that only its owner may read.

        Args:
            path: of the file; its directory is created if missing.
            party: 0..2.
            fixed_point: parameters of all rows.
            gallery_id: 16 random bytes, equal at the three stores of a gallery.

        Raises:
            InvalidInputError: the file exists, the party does not, or the id has another length.
            StorageError: the file cannot be written.
        """
        path = Path(path)
        if party not in range(NUM_PARTIES):
            raise InvalidInputError(f"party must be 0, 1 or 2, got {party}.")
        if not isinstance(gallery_id, bytes) or len(gallery_id) != GALLERY_ID_BYTES:
            raise InvalidInputError(
                f"A gallery id must be {GALLERY_ID_BYTES} bytes. Draw one with secrets.token_bytes."
            )
        create_file(path, (party, fixed_point.dim, fixed_point.values, gallery_id))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> ShareStore:
        """Open a store from its file and complete the erasure that an interrupted process left behind.

        Raises:
            CorruptTemplateError: not a share store, or a damaged one; the file is not changed.
            OutdatedTemplateError: a version that this release does not read.
            StorageError: missing, not readable and writable, accessible to other users, or already open.
        """
        path = Path(path)
        if not path.is_file():
            raise StorageError(f"The share store {path} does not exist. Create it, or check the path.")
        with translated(path), contextlib.ExitStack() as undo:
            connection = connected(path)
            undo.callback(connection.close)
            party, point, gallery_id = read_header(path, connection)
            connection.execute(
                "PRAGMA journal_mode = WAL"
            ).fetchall()  # copies made by SQLite's tools are in another mode
            store = cls(path, connection, party, point, gallery_id)
            store._erase()  # for a removal that was committed before its process ended
            undo.pop_all()
        return store

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._path

    @property
    def party(self) -> int:
        """Index of the party, 0..2."""
        return self._party

    @property
    def fixed_point(self) -> FixedPoint:
        """Parameters of all rows."""
        return self._fixed_point

    @property
    def gallery_id(self) -> bytes:
        """16 bytes, equal at the three stores of a gallery."""
        return self._gallery_id

    def prepare(self, change: Change) -> None:
        """Store a change so that it can be committed or aborted; preparing the same change again has no effect.

        Raises:
            InvalidInputError: shares of another party or of other parameters; an id that was used for another change,
                or whose change is already committed or aborted.
            ProblemsError: lists every row whose id exists already, or every reference that cannot be removed, by its
                position.
            StorageError: the change cannot be written; nothing was written.
        """
        if isinstance(change, Enrolment):
            self._check_rows(change.rows)
        digest = change.digest()
        with self._transaction() as connection:
            known = connection.execute("SELECT state, digest FROM changes WHERE change_id = ?", [change.change_id])
            if (found := known.fetchone()) is not None:
                if found != ("prepared", digest):
                    raise InvalidInputError(f"The change id was used and is {found[0]}. Draw a new id.")
                return
            number = connection.execute(
                "INSERT INTO changes (change_id, kind, state, digest) VALUES (?, ?, 'prepared', ?)",
                [change.change_id, "enrolment" if isinstance(change, Enrolment) else "removal", digest],
            ).lastrowid
            placed = self._added(change) if isinstance(change, Enrolment) else self._removable(change)
            waiting = ((place, number, reference_id) for place, reference_id in placed)
            connection.executemany("INSERT INTO pending VALUES (?, ?, ?)", waiting)

    def commit(self, change_id: bytes) -> None:
        """Commit a prepared change and erase the rows that it removes; committing again has no effect.

        Raises:
            InvalidInputError: the change is unknown here, or was aborted.
            StorageError: the change cannot be written. If the message says so, the change is committed and only the
                erasure must be repeated, by `commit` or `open`.
        """
        self._end(change_id, "committed")

    def abort(self, change_id: bytes) -> None:
        """Undo a prepared change and reject its id from now on, even if it is unknown; aborting again has no effect.

        Raises:
            InvalidInputError: the change was committed.
            StorageError: as for `commit`.
        """
        self._end(change_id, "aborted")

    def state(self, change_id: bytes) -> State:
        """State of a change in this store.

        Raises:
            InvalidInputError: the id is not 16 bytes.
            CorruptTemplateError: the recorded state is damaged.
        """
        check_change_id(change_id)
        with self._lock, translated(self._path):
            found = self._connection.execute("SELECT state FROM changes WHERE change_id = ?", [change_id]).fetchone()
        if found is not None and found[0] not in get_args(State):
            raise self._damaged("change")
        state: State = "unknown" if found is None else found[0]
        return state

    def pending(self) -> tuple[bytes, ...]:
        """Ids of changes that are prepared but neither committed nor aborted, oldest first.

        Raises:
            CorruptTemplateError: an id is damaged.
        """
        with self._lock, translated(self._path):
            found = self._connection.execute("SELECT change_id FROM changes WHERE state = 'prepared' ORDER BY number")
            ids = tuple(change_id for (change_id,) in found)
        if not all(isinstance(one, bytes) and len(one) == CHANGE_ID_BYTES for one in ids):
            raise self._damaged("change")
        return ids

    def __len__(self) -> int:
        """M, the number of committed references."""
        with self._lock, translated(self._path):
            return int(self._connection.execute("SELECT count(*) FROM listed WHERE place NOT IN early").fetchone()[0])

    def load(self) -> tuple[SharedRows, tuple[str, ...]]:
        """Load all committed references and their subjects in order of reference ids, which is equal at all parties.

        Raises:
            CorruptTemplateError: a row is damaged.
        """
        with self._lock, translated(self._path):
            query = "SELECT place, reference_id FROM listed WHERE place NOT IN early ORDER BY reference_id"
            listed = self._connection.execute(query).fetchall()
            if not all(_is_listed(*row) for row in listed):
                raise self._damaged("list of references")
            ids_M16 = np.frombuffer(b"".join(found for _, found in listed), dtype=np.uint8).reshape(-1, ID_BYTES)
            place_M = np.array([place for place, _ in listed], dtype=np.int64)
            words_MW, subjects = self._read(place_M, [found for _, found in listed])
        rows = SharedRows(party=self._party, fixed_point=self._fixed_point, ids_N16=ids_M16, words_NW=words_MW)
        return rows, tuple(subjects)

    def close(self) -> None:
        """Close the file; the object cannot be used afterwards."""
        with self._lock, translated(self._path):
            self._connection.close()

    def __enter__(self) -> ShareStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_rows(self, rows: SharedRows) -> None:
        if rows.party != self._party:
            raise InvalidInputError(f"The shares belong to party {rows.party}, the store to party {self._party}.")
        if rows.fixed_point != self._fixed_point:
            raise InvalidInputError(f"The shares use {rows.fixed_point}, but this store uses {self._fixed_point}.")

    def _added(self, change: Enrolment) -> list[tuple[int, bytes]]:
        """Fill slots, empty ones first; return their places and ids."""
        rows, num = change.rows, len(change.rows)
        ids = [row.tobytes() for row in rows.ids_N16]
        known = "SELECT place FROM listed WHERE reference_id = ?"
        is_known_N = [self._connection.execute(known, [one]).fetchone() is not None for one in ids]
        self._refuse(is_known_N, "its id exists already")
        found = self._connection.execute("SELECT place FROM free ORDER BY place LIMIT ?", [num]).fetchall()
        (last,) = self._connection.execute("SELECT coalesce(max(place), 0) FROM slots").fetchone()
        places = [*(place for (place,) in found), *range(last + 1, last + 1 + num - len(found))]
        little_NW = rows.words_NW.astype(rows.words_NW.dtype.newbyteorder("<"), copy=False)
        contents = map(_content, ids, change.subjects, map(np.ndarray.tobytes, little_NW))
        fill = self._connection.executemany
        fill("UPDATE slots SET content = ?2 WHERE place = ?1", zip(places[: len(found)], contents, strict=False))
        fill("INSERT INTO slots VALUES (?1, ?2)", zip(places[len(found) :], contents, strict=True))
        fill("DELETE FROM free WHERE place = ?", found)
        fill("INSERT INTO listed VALUES (?, ?)", zip(ids, places, strict=True))
        return list(zip(places, ids, strict=True))

    def _removable(self, change: Removal) -> list[tuple[int, bytes]]:
        """Places and ids of committed references without another pending change."""
        free = "SELECT place FROM listed WHERE reference_id = ? AND place NOT IN (SELECT place FROM pending)"
        found = [self._connection.execute(free, [one]).fetchone() for one in change.reference_ids]
        if not all(row is None or isinstance(row[0], int) for row in found):
            raise self._damaged("list of references")
        self._refuse([row is None for row in found], "it is not enrolled, or another change to it is prepared")
        return [(place, one) for (place,), one in zip(found, change.reference_ids, strict=True)]

    def _refuse(self, is_bad_N: list[bool], why: str) -> None:
        problems = [f"entry {place}: {why}" for place, is_bad in enumerate(is_bad_N) if is_bad]
        if problems:
            raise ProblemsError("nothing was prepared", problems)

    def _end(self, change_id: bytes, end: State) -> None:
        check_change_id(change_id)
        with self._transaction() as connection:
            query = "SELECT number, kind, state FROM changes WHERE change_id = ?"
            number, kind, state = connection.execute(query, [change_id]).fetchone() or (None, "none", "unknown")
            if state not in ("prepared", end) and (state, end) != ("unknown", "aborted"):
                remedy = "Prepare it first" if state == "unknown" else "Use settle() with its three states"
                raise InvalidInputError(f"The change is {state} here and cannot become {end}. {remedy}.")
            erases = kind == ("removal" if end == "committed" else "enrolment")
            if state == "unknown":
                refused = "INSERT INTO changes (change_id, kind, state) VALUES (?, ?, ?)"
                connection.execute(refused, [change_id, kind, end])
            elif state == "prepared":
                if erases:
                    self._empty(number)
                connection.execute("DELETE FROM pending WHERE number = ?", [number])
                connection.execute("UPDATE changes SET state = ?, digest = NULL WHERE number = ?", [end, number])
        if erases:
            with self._lock, translated(self._path, done=f"the change is {end}, but not yet erased from the disk"):
                self._erase()

    def _empty(self, number: int | None) -> None:
        """Overwrite the slots of a pending change with zeros."""
        for statement in (
            "UPDATE slots SET content = zeroblob(length(content)) WHERE place IN "
            "(SELECT place FROM pending WHERE number = ?)",
            "DELETE FROM listed WHERE reference_id IN (SELECT reference_id FROM pending WHERE number = ?)",
            "INSERT INTO free SELECT place FROM pending WHERE number = ?",
        ):
            self._connection.execute(statement, [number])

    def _erase(self) -> None:
        """Write the log into the file and truncate the log, which contains earlier bytes."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _read(self, place_M: NDArray[np.int64], ids: list[bytes]) -> tuple[NDArray[Any], list[str]]:
        """Rows in the order of the given places, read in the order of the file."""
        dtype = self._fixed_point.dtype.newbyteorder("<")
        num, row_bytes, num_read = len(ids), 2 * self._fixed_point.dim * dtype.itemsize, 0
        bytes_M, subjects = np.empty(num * row_bytes, dtype=np.uint8), [""] * num
        target = bytes_M.data
        filled = "SELECT place, content FROM slots WHERE place NOT IN early AND place NOT IN free ORDER BY place"
        scan = self._connection.execute(filled)
        for to, (place, content) in zip(np.argsort(place_M).tolist(), scan, strict=False):
            if not isinstance(content, bytes) or len(content) < _SLOT.size:
                raise self._damaged("row")
            crc, length, subject = _SLOT.unpack_from(content)
            words = memoryview(content)[_SLOT.size :]
            if place != place_M[to] or len(words) != row_bytes or _crc(ids[to], subject[:length], words) != crc:
                raise self._damaged("row")
            target[to * row_bytes : (to + 1) * row_bytes] = words
            subjects[to] = subject[:length].decode()
            num_read += 1
        if num_read != num:
            raise CorruptTemplateError(f"{self._path} lacks rows that it lists. Restore the file, or enrol again.")
        words_MW = (
            bytes_M.view(dtype).reshape(num, 2 * self._fixed_point.dim).astype(self._fixed_point.dtype, copy=False)
        )
        return words_MW, subjects

    def _damaged(self, part: str) -> CorruptTemplateError:
        return CorruptTemplateError(f"{self._path} contains a damaged {part}. Restore the file, or enrol again.")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                with contextlib.suppress(sqlite3.Error):
                    self._erase()  # frees the space that the attempt used
                raise

    def __repr__(self) -> str:
        return f"ShareStore({str(self._path)!r}, party={self._party}, {self._fixed_point}, contents=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("A share store cannot be pickled. Open its file in the other process.")


def _is_listed(place: object, reference_id: object) -> bool:
    """Whether a row of `listed` has the types that were written."""
    return isinstance(place, int) and isinstance(reference_id, bytes) and len(reference_id) == ID_BYTES


def _content(reference_id: bytes, subject: str, words: bytes) -> bytes:
    name = subject.encode()
    return _SLOT.pack(_crc(reference_id, name, words), len(name), name) + words


def _crc(reference_id: bytes, subject: bytes, words: bytes | memoryview) -> int:
    return zlib.crc32(words, zlib.crc32(reference_id + subject))
