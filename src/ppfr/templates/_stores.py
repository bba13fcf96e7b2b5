"""Stores of templates and of keys: a separate directory each, with one record per file that only its owner may read."""

from __future__ import annotations

import contextlib
import fcntl
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar, final

from ppfr.assets import write_atomically
from ppfr.core import (
    InvalidInputError,
    PpfrError,
    ProblemsError,
    ProtectedTemplate,
    StorageError,
    SubjectKey,
    TemplateError,
    TemplateScheme,
)

Stored = TypeVar("Stored")

MARKER = "store.json"
STORE_VERSION = 1
_MAX_ID_BYTES = 100


class _Store(ABC, Generic[Stored]):
    """Records of one kind by subject, in a separate directory.

    A subject id is text of 1 to 100 bytes in UTF-8. It becomes the file name (in hexadecimal), so use pseudonyms.
    Concurrent writers of a store are serialised by a lock.

    Args:
        directory: created if absent; must not be that of the other kind of store.
        scheme: reads and writes the records.
    """

    kind: str

    def __init__(self, directory: Path, scheme: TemplateScheme) -> None:
        self._directory, self._scheme = Path(directory), scheme
        self._open()

    @abstractmethod
    def _to_bytes(self, stored: Stored) -> bytes:
        """The record of a template or key."""

    @abstractmethod
    def _from_bytes(self, record: bytes) -> Stored:
        """The template or key in a record."""

    def _open(self) -> None:
        marker = self._directory / MARKER
        stated = {"kind": self.kind, "version": STORE_VERSION}
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not marker.exists():
                if any(self._directory.iterdir()):
                    raise InvalidInputError(f"{self._directory} contains other files; choose a new or empty directory")
                with write_atomically(marker) as temporary:
                    temporary.write_text(json.dumps(stated) + "\n")
            found = json.loads(marker.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise StorageError(
                f"{self._directory} cannot be used as a store: {error}; choose another directory"
            ) from error
        if found != stated:
            other = found.get("kind") if isinstance(found, dict) else None
            raise InvalidInputError(
                f"{self._directory} is a store of {other!r}, not of {self.kind!r} in version {STORE_VERSION}; use "
                "separate directories for keys and templates"
            )

    def add(self, subject_id: str, stored: Stored) -> None:
        """Store the record of a subject who has none.

        Raises:
            ProblemsError: the subject already has a record, the id is not valid, or the template or key is not of the
                store's scheme.
            StorageError: the record cannot be written.
        """
        self.add_all({subject_id: stored})

    def add_all(self, records: Mapping[str, Stored]) -> None:
        """Store many records, all or none.

        Raises:
            ProblemsError: entries cannot be stored; lists all of them by position in `records`. Nothing was stored.
            StorageError: writing failed; the entries written so far are removed again.
        """
        problems, prepared = [], {}
        with self._locked():
            for place, (subject_id, stored) in enumerate(records.items()):
                try:
                    path = self._path(subject_id)
                    if path.exists():
                        raise InvalidInputError("the subject already has a record; remove it, or use replace")
                    prepared[path] = self._to_bytes(stored)
                except (InvalidInputError, TemplateError) as error:
                    problems.append(f"entry {place}: {error}")
            if problems:
                raise ProblemsError(f"nothing was added to the store of {self.kind}", problems)
            written: list[Path] = []
            try:
                for path, record in prepared.items():
                    _write(path, record)
                    written.append(path)
            except PpfrError:
                for path in written:
                    path.unlink(missing_ok=True)
                raise

    def replace(self, subject_id: str, stored: Stored) -> None:
        """Replace the record of a subject, as on renewal.

        Raises:
            InvalidInputError: the subject has no record.
            StorageError: the record cannot be written; the earlier record is unchanged.
        """
        record = self._to_bytes(stored)
        with self._locked():
            _write(self._existing(subject_id), record)

    def get(self, subject_id: str) -> Stored:
        """The checked template or key of a subject.

        Raises:
            InvalidInputError: the subject has no record.
            TemplateError: the record cannot be read; see `TemplateScheme.from_bytes`.
        """
        return self._from_bytes(self._existing(subject_id).read_bytes())

    def remove(self, subject_id: str) -> None:
        """Delete the record of a subject. The file system, backups and snapshots may still contain its bytes.

        Raises:
            InvalidInputError: the subject has no record.
        """
        with self._locked():
            self._existing(subject_id).unlink()

    def __contains__(self, subject_id: str) -> bool:
        return self._path(subject_id).exists()

    def __len__(self) -> int:
        return sum(1 for _ in self._files())

    def subject_ids(self) -> list[str]:
        """All subject ids, sorted."""
        return sorted(bytes.fromhex(path.stem).decode() for path in self._files())

    def load(self) -> dict[str, Stored]:
        """All templates or keys by subject id, sorted.

        Raises:
            ProblemsError: records cannot be read; lists all of them by position in that order.
        """
        found, problems = {}, []
        for place, subject_id in enumerate(self.subject_ids()):
            try:
                found[subject_id] = self.get(subject_id)
            except TemplateError as error:
                problems.append(f"record {place}: {error}")
        if problems:
            raise ProblemsError(f"the store of {self.kind} has unreadable records", problems)
        return found

    def _files(self) -> Iterator[Path]:
        return (path for path in self._directory.glob("*.rec") if not path.name.startswith("."))

    def _path(self, subject_id: str) -> Path:
        name = subject_id.encode() if isinstance(subject_id, str) else b""
        if not 0 < len(name) <= _MAX_ID_BYTES:
            raise InvalidInputError(
                f"a subject id must be text of 1 to {_MAX_ID_BYTES} bytes in UTF-8; use a pseudonym"
            )
        return self._directory / f"{name.hex()}.rec"

    def _existing(self, subject_id: str) -> Path:
        path = self._path(subject_id)
        if not path.exists():
            raise InvalidInputError(f"the subject has no record in the store of {self.kind}; enrol first")
        return path

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / MARKER).open("rb") as marker:
            fcntl.flock(marker, fcntl.LOCK_EX)
            yield

    def __repr__(self) -> str:
        return f"{type(self).__name__}(directory={str(self._directory)!r})"


def _write(path: Path, record: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(record)


@final
class TemplateStore(_Store[ProtectedTemplate]):
    """Protected templates by subject, in a directory without keys.

    Subject ids are text of 1 to 100 bytes in UTF-8. They become file names (in hexadecimal), so use pseudonyms. Records
    are written atomically, are readable only by their owner, and are checked when read. Concurrent writers are
    serialised by a lock. Error messages contain no subject id.

    Args:
        directory: created if absent; must not be that of a `KeyStore`.
        scheme: reads and writes the records.
    """

    kind = "templates"

    def _to_bytes(self, stored: ProtectedTemplate) -> bytes:
        if not isinstance(stored, ProtectedTemplate):
            raise InvalidInputError("a TemplateStore takes only templates; store keys in a KeyStore")
        return self._scheme.to_bytes(stored)

    def _from_bytes(self, record: bytes) -> ProtectedTemplate:
        return self._scheme.from_bytes(record)


@final
class KeyStore(_Store[SubjectKey]):
    """Subject keys by subject, in a separate directory from the templates, preferably on another machine.

    Ids, guarantees and errors are those of `TemplateStore`.

    Args:
        directory: created if absent; must not be that of a `TemplateStore`.
        scheme: reads and writes the records.
    """

    kind = "keys"

    def _to_bytes(self, stored: SubjectKey) -> bytes:
        if not isinstance(stored, SubjectKey):
            raise InvalidInputError("a KeyStore takes only keys; store templates in a TemplateStore")
        return self._scheme.key_to_bytes(stored)

    def _from_bytes(self, record: bytes) -> SubjectKey:
        return self._scheme.key_from_bytes(record)
