"""One party's persistent state: its shares, and which changes to them were prepared, committed or aborted.

Suffixes: N rows of a change, M references, W ring elements of a row.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, final, get_args

import numpy as np

from ppfr.core import ID_BYTES, InvalidInputError, ProblemsError, StorageError, UnsupportableError
from ppfr.secure._changes import CHANGE_ID_BYTES, Change, Enrolment, Refresh, Removal, State, check_change_id
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._share_exports import StoreExport, export_of
from ppfr.secure._share_file import StoreHeader, connected, create_file, damaged, read_header, translated
from ppfr.secure._share_slots import empty_slots, fill_slots, is_listed, read_slots, refresh_slots, slot_contents
from ppfr.secure._sharing import SharedRows

_SET_STATE = """
INSERT INTO changes (change_id, kind, state) VALUES (?, ?, ?)
ON CONFLICT (change_id) DO UPDATE SET state = excluded.state, digest = NULL
"""
_KINDS = {Enrolment: "enrolment", Removal: "removal", Refresh: "refresh"}


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
        The file contains uniform words, subjects (pseudonyms), ids, their number and their order, and the seed of a
        refresh while it is prepared. The files of two parties together reveal the embeddings if they are of one epoch:
        keep them, and their backups, with different operators.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, header: StoreHeader) -> None:
        self._path, self._connection = path, connection
        self._party, self._fixed_point, self._gallery_id = header.party, header.fixed_point, header.gallery_id
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
        create_file(path, StoreHeader(party=party, fixed_point=fixed_point, gallery_id=gallery_id))
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
            header = read_header(path, connection)
            connection.execute(
                "PRAGMA journal_mode = WAL"
            ).fetchall()  # copies made by SQLite's tools are in another mode
            store = cls(path, connection, header)
            store._erase()  # for a removal or refresh that was committed before its process ended
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

    @property
    def epoch(self) -> int:
        """Number of committed refreshes, equal at the three stores of a gallery."""
        with self._lock, translated(self._path):
            return int(self._connection.execute("SELECT epoch FROM store").fetchone()[0])

    def prepare(self, change: Change) -> None:
        """Store a change so that it can be committed or aborted; preparing the same change again has no effect.

        Raises:
            InvalidInputError: shares of another party or of other parameters; an id that was used for another change,
                or whose change is already committed or aborted; a refresh while another change is prepared, or another
                change while a refresh is prepared.
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
            self._check_alone(change)
            number = connection.execute(
                "INSERT INTO changes (change_id, kind, state, digest) VALUES (?, ?, 'prepared', ?)",
                [change.change_id, _KINDS[type(change)], digest],
            ).lastrowid
            if isinstance(change, Refresh):
                connection.execute("UPDATE seed SET content = ?", [change.seed])
                return
            placed = self._added(change) if isinstance(change, Enrolment) else self._removable(change)
            waiting = ((place, number, reference_id) for place, reference_id in placed)
            connection.executemany("INSERT INTO pending VALUES (?, ?, ?)", waiting)

    def commit(self, change_id: bytes) -> None:
        """Commit a prepared change and erase the rows that it removes or replaces; committing again has no effect.

        Raises:
            InvalidInputError: the change is unknown here, or was aborted.
            CorruptTemplateError: a row that a refresh replaces is damaged; nothing was changed.
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
            raise damaged(self._path, "change")
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
            raise damaged(self._path, "change")
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
            if not all(is_listed(*row) for row in listed):
                raise damaged(self._path, "list of references")
            filled = "SELECT * FROM slots WHERE place NOT IN early AND place NOT IN free ORDER BY place"
            words_MW, subjects = read_slots(self._path, self._fixed_point, listed, self._connection.execute(filled))
        ids_M16 = np.frombuffer(b"".join(found for _, found in listed), dtype=np.uint8).reshape(-1, ID_BYTES)
        rows = SharedRows(party=self._party, fixed_point=self._fixed_point, ids_N16=ids_M16, words_NW=words_MW)
        return rows, tuple(subjects)

    def exported(self, *, recipient: int | None = None) -> StoreExport:
        """Read references, subjects and changes for another party, for which the service must be stopped.

        Args:
            recipient: a party whose store is lost; the export then has the component that it lacks and this party has.
                None for an inventory without shares.

        Raises:
            InvalidInputError: no other party, or a change is prepared here and would be missing there.
            CorruptTemplateError: a row or a change is damaged.
        """
        with self._lock, translated(self._path):
            header = StoreHeader(
                party=self._party, fixed_point=self._fixed_point, gallery_id=self._gallery_id, epoch=self.epoch
            )
            return export_of(self._path, self._connection, header, recipient)

    def reconcile(self, ends: Mapping[bytes, State], erased: Sequence[bytes]) -> None:
        """End changes and erase references in one step, without the other parties; `repair_store` computes both.

        Args:
            ends: "committed" or "aborted" for each change whose state differs here.
            erased: ids of the references to erase.

        Raises:
            CorruptTemplateError, StorageError: as for `commit`.
        """
        with self._transaction() as connection:
            for change_id, end in ends.items():
                query = "SELECT number, kind, state FROM changes WHERE change_id = ?"
                number, kind, state = connection.execute(query, [change_id]).fetchone() or (0, "none", "unknown")
                if state == "prepared":
                    self._end_prepared(change_id, number, kind, end)
                connection.execute(_SET_STATE, [change_id, kind, end])
            mark = "INSERT INTO pending SELECT place, 0, reference_id FROM listed WHERE reference_id = ?"
            connection.executemany(mark, ([one] for one in erased))
            empty_slots(connection, 0)
            connection.execute("DELETE FROM pending WHERE number = 0")
        with self._lock, translated(self._path, done="the store is repaired, but not yet erased from the disk"):
            self._erase()

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

    def _check_alone(self, change: Change) -> None:
        """Refuse a refresh beside another change: the parties could commit the two in different orders."""
        (is_refreshing,) = self._connection.execute("SELECT content != zeroblob(32) FROM seed").fetchone() or (None,)
        if is_refreshing is None:
            raise damaged(self._path, "seed")
        (is_changing,) = self._connection.execute("SELECT EXISTS (SELECT * FROM pending)").fetchone()
        if is_refreshing or (is_changing and isinstance(change, Refresh)):
            raise InvalidInputError(
                f"A {'refresh' if is_refreshing else 'change'} is prepared, and a refresh must be the only prepared "
                "change. Commit or abort it, then try again."
            )

    def _added(self, change: Enrolment) -> list[tuple[int, bytes]]:
        """Fill slots, empty ones first; return their places and ids."""
        rows = change.rows
        ids = [row.tobytes() for row in rows.ids_N16]
        known = "SELECT place FROM listed WHERE reference_id = ?"
        is_known_N = [self._connection.execute(known, [one]).fetchone() is not None for one in ids]
        self._refuse(is_known_N, "its id exists already")
        places = fill_slots(self._connection, ids, slot_contents(rows, change.subjects))
        return list(zip(places, ids, strict=True))

    def _removable(self, change: Removal) -> list[tuple[int, bytes]]:
        """Places and ids of committed references without another pending change."""
        free = "SELECT place FROM listed WHERE reference_id = ? AND place NOT IN (SELECT place FROM pending)"
        found = [self._connection.execute(free, [one]).fetchone() for one in change.reference_ids]
        if not all(row is None or isinstance(row[0], int) for row in found):
            raise damaged(self._path, "list of references")
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
            number, kind, state = connection.execute(query, [change_id]).fetchone() or (0, "none", "unknown")
            if state not in ("prepared", end) and (state, end) != ("unknown", "aborted"):
                remedy = "Prepare it first" if state == "unknown" else "Use settle() with its three states"
                raise InvalidInputError(f"The change is {state} here and cannot become {end}. {remedy}.")
            erases = _erases(kind, end)
            if state == "prepared":
                self._end_prepared(change_id, number, kind, end)
            if state != end:
                connection.execute(_SET_STATE, [change_id, kind, end])
        if erases:
            with self._lock, translated(self._path, done=f"the change is {end}, but not yet erased from the disk"):
                self._erase()

    def _end_prepared(self, change_id: bytes, number: int, kind: str, end: State) -> None:
        """Apply or undo a prepared change."""
        if kind == "refresh":
            self._end_refresh(change_id, number, end)
        elif _erases(kind, end):
            empty_slots(self._connection, number)
        self._connection.execute("DELETE FROM pending WHERE number = ?", [number])

    def _end_refresh(self, change_id: bytes, number: int, end: State) -> None:
        """Apply the held seed if the change is committed, and overwrite it with zeros."""
        if end == "committed":
            query = "SELECT content, digest FROM seed, changes WHERE number = ?"
            seed, digest = self._connection.execute(query, [number]).fetchone() or (b"", b"")
            try:
                change = Refresh(change_id=change_id, seed=seed)
            except InvalidInputError as error:
                raise damaged(self._path, "seed") from error
            if change.digest() != digest:
                raise damaged(self._path, "seed")
            refresh_slots(self._path, self._connection, self._party, self._fixed_point, change)
            self._connection.execute("UPDATE store SET epoch = epoch + 1")
        self._connection.execute("UPDATE seed SET content = zeroblob(32)")

    def _erase(self) -> None:
        """Write the log into the file and truncate the log, which contains earlier bytes."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

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


def _erases(kind: str, end: State) -> bool:
    """Whether a change that ends so overwrites words or a seed."""
    return kind in ("refresh", "removal" if end == "committed" else "enrolment")
