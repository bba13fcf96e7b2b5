"""Stores of templates and of keys: a separate SQLite file each, which only its owner may access."""

from __future__ import annotations

import contextlib
import secrets
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar, final

from ppfr.core import (
    InvalidInputError,
    OutdatedTemplateError,
    ProblemsError,
    ProtectedTemplate,
    StorageError,
    SubjectKey,
    TemplateError,
    TemplateScheme,
)
from ppfr.templates._key_encryption import SALT_BYTES, KeyEncryptionKey, Wrapping
from ppfr.templates._store_file import (
    MAX_SUBJECT_BYTES,
    Header,
    Slot,
    StoreFile,
    clear_journal,
    compacted,
    create_store_file,
    new_header,
    transaction,
)

Stored = TypeVar("Stored")


class _Store(ABC, Generic[Stored]):
    """Records of one kind by subject, in one file. The public classes document it."""

    kind: str

    def __init__(self, path: Path, scheme: TemplateScheme) -> None:
        self._path, self._scheme = Path(path), scheme
        try:
            is_directory, exists = self._path.is_dir(), self._path.exists()
        except (OSError, ValueError) as error:
            raise StorageError(f"{self._path} cannot be used as a store: {error}. Choose another file name.") from error
        if is_directory:
            raise OutdatedTemplateError(
                f"{self._path} is a directory, but a store is one file. Choose a file name. If the directory is a "
                "store of release 0.1, add its records to a new store (docs/reference/template-records.md)."
            )
        if not exists:
            # Another process may create it at the same time.
            with contextlib.suppress(InvalidInputError):
                create_store_file(self._path, self.kind, self._new_header())
        with transaction(self._path, self.kind, writes=False) as file:
            self._check_header(file.header)
        clear_journal(self._path, self.kind)

    @abstractmethod
    def _new_header(self) -> Header:
        """The header of a new file."""

    @abstractmethod
    def _check_header(self, header: Header) -> None:
        """Raise WrongKeyError if the records cannot be read."""

    @abstractmethod
    def _to_bytes(self, stored: Stored) -> bytes:
        """The record of a template or key."""

    @abstractmethod
    def _from_bytes(self, record: bytes) -> Stored:
        """The template or key in a record."""

    @abstractmethod
    def _slot(self, file: StoreFile, subject: bytes, record: bytes) -> Slot:
        """What the file holds for a record."""

    @abstractmethod
    def _record(self, file: StoreFile, slot: Slot) -> bytes:
        """The record that the file holds."""

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._path

    def add(self, subject_id: str, stored: Stored) -> None:
        """Store the record of a subject who has none.

        Raises:
            ProblemsError: the subject already has a record, the id is not valid, or the template or key is not of the
                store's scheme.
            StorageError: the record cannot be written.
        """
        self.add_all({subject_id: stored})

    def add_all(self, records: Mapping[str, Stored]) -> None:
        """Store many records, all or none, even if the process is killed.

        Raises:
            ProblemsError: entries cannot be stored; lists all of them by position in `records`. Nothing was stored.
            StorageError: writing failed. Nothing was stored.
        """
        problems: list[str] = []
        prepared: dict[bytes, bytes] = {}
        with transaction(self._path, self.kind, writes=True) as file:
            self._check_header(file.header)
            for place, (subject_id, stored) in enumerate(records.items()):
                try:
                    subject = _subject(subject_id)
                    if file.place_of(subject) is not None:
                        raise InvalidInputError("the subject already has a record; remove it, or use replace")
                    if subject in prepared:
                        raise InvalidInputError("the subject occurs twice, in two spellings; give one record")
                    prepared[subject] = self._to_bytes(stored)
                except (InvalidInputError, TemplateError) as error:
                    problems.append(f"entry {place}: {error}")
            if problems:
                raise ProblemsError(f"nothing was added to the store of {self.kind}", problems)
            for subject, record in prepared.items():
                file.add(self._slot(file, subject, record))

    def replace(self, subject_id: str, stored: Stored) -> None:
        """Replace the record of a subject, as on renewal. The earlier record is overwritten.

        Raises:
            InvalidInputError: the subject has no record, or the template or key is of the wrong kind.
            TemplateError: the template or key is not of the store's scheme.
            StorageError: the record cannot be written; the earlier record is unchanged.
        """
        subject, record = _subject(subject_id), self._to_bytes(stored)
        with transaction(self._path, self.kind, writes=True) as file:
            self._check_header(file.header)
            file.replace(self._existing(file, subject), self._slot(file, subject, record))

    def get(self, subject_id: str) -> Stored:
        """The checked template or key of a subject.

        Raises:
            InvalidInputError: the subject has no record.
            TemplateError: the record cannot be read; see `TemplateScheme.from_bytes`.
            StorageError: the file cannot be read.
        """
        subject = _subject(subject_id)
        with transaction(self._path, self.kind, writes=False) as file:
            self._check_header(file.header)
            wrapped = file.read(self._existing(file, subject), subject)
            record = self._record(file, Slot(subject, wrapped))
        return self._from_bytes(record)

    def remove(self, subject_id: str) -> None:
        """Overwrite the record and the id of a subject with zeros; damaged records can be removed as well.

        The bytes are no longer in the file when the call returns. A keyed digest of the id can remain in unused parts
        of pages until `compact`. The file system, backups and snapshots may contain earlier versions of the file.

        Raises:
            InvalidInputError: the subject has no record.
            StorageError: the file cannot be written; the record is unchanged.
        """
        subject = _subject(subject_id)
        with transaction(self._path, self.kind, writes=True) as file:
            file.remove(self._existing(file, subject), subject)

    def compact(self) -> None:
        """Rewrite the file without unused space, and with it without remains of digests of removed ids.

        Raises:
            StorageError: there is not enough space; the file is unchanged.
        """
        compacted(self._path, self.kind)

    def __contains__(self, subject_id: str) -> bool:
        with transaction(self._path, self.kind, writes=False) as file:
            return file.place_of(_subject(subject_id)) is not None

    def __len__(self) -> int:
        with transaction(self._path, self.kind, writes=False) as file:
            return file.count()

    def subject_ids(self) -> list[str]:
        """All subject ids, sorted.

        Raises:
            ProblemsError: records are damaged; lists all of them by position in the file.
        """
        with transaction(self._path, self.kind, writes=False) as file:
            return sorted(slot.subject.decode() for slot in self._all(file))

    def load(self) -> dict[str, Stored]:
        """All templates or keys by subject id, sorted.

        Raises:
            ProblemsError: records cannot be read; lists all of them by position in the file.
            CorruptTemplateError: the file has lost records.
        """
        found, problems = {}, []
        with transaction(self._path, self.kind, writes=False) as file:
            self._check_header(file.header)
            for place, slot in enumerate(self._all(file)):
                try:
                    found[slot.subject.decode()] = self._from_bytes(self._record(file, slot))
                except TemplateError as error:
                    problems.append(f"record {place}: {error}")
        if problems:
            raise ProblemsError(f"the store of {self.kind} has unreadable records", problems)
        return dict(sorted(found.items()))

    def _all(self, file: StoreFile) -> list[Slot]:
        slots = list(file.slots())
        whole = [slot for slot in slots if slot is not None]
        if len(whole) != len(slots):
            problems = [
                f"record {place}: it is damaged; restore the file, or enrol again"
                for place, slot in enumerate(slots)
                if slot is None
            ]
            raise ProblemsError(f"the store of {self.kind} has unreadable records", problems)
        return whole

    def _existing(self, file: StoreFile, subject: bytes) -> int:
        place = file.place_of(subject)
        if place is None:
            raise InvalidInputError(f"the subject has no record in the store of {self.kind}; enrol first")
        return place

    def __repr__(self) -> str:
        return f"{type(self).__name__}(path={str(self._path)!r})"


def _subject(subject_id: str) -> bytes:
    """A subject id as it is stored: in Unicode's normal form NFC and in UTF-8."""
    try:
        text = unicodedata.normalize("NFC", subject_id) if isinstance(subject_id, str) else ""
        subject = text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as in file names that are not UTF-8
        subject = b""
    if not 0 < len(subject) <= MAX_SUBJECT_BYTES or any(unicodedata.category(one) == "Cc" for one in text):
        raise InvalidInputError(
            f"a subject id must be text of 1 to {MAX_SUBJECT_BYTES} bytes in UTF-8 without control characters; "
            "use a pseudonym"
        )
    return subject


@final
class TemplateStore(_Store[ProtectedTemplate]):
    """Protected templates by subject, in one file without keys.

    A subject id is text of 1 to 100 bytes in UTF-8 without control characters; it is stored in the clear, in Unicode's
    normal form NFC, so use pseudonyms. Every change is atomic and on disk when the call returns. Removed and replaced
    records are overwritten with zeros. Several processes can use the file; they wait for each other. Records are
    checked when they are read. Error messages contain no subject id.

    Args:
        path: of the file, mode 0600; created if absent. It must not be that of a `KeyStore`.
        scheme: reads and writes the records.

    Raises:
        CorruptTemplateError: the file is not a store, or is damaged.
        OutdatedTemplateError: the file has a version that this release does not read.
        InvalidInputError: the file is a store of keys.
        StorageError: the file cannot be read or created, or other users than its owner can access it.
    """

    kind = "templates"

    def _new_header(self) -> Header:
        return new_header()

    def _check_header(self, header: Header) -> None:
        """Templates are not wrapped."""

    def _slot(self, file: StoreFile, subject: bytes, record: bytes) -> Slot:
        return Slot(subject, record)

    def _record(self, file: StoreFile, slot: Slot) -> bytes:
        return slot.record

    def _to_bytes(self, stored: ProtectedTemplate) -> bytes:
        if not isinstance(stored, ProtectedTemplate):
            raise InvalidInputError("a TemplateStore takes only templates; store keys in a KeyStore")
        return self._scheme.to_bytes(stored)

    def _from_bytes(self, record: bytes) -> ProtectedTemplate:
        return self._scheme.from_bytes(record)


@final
class KeyStore(_Store[SubjectKey]):
    """Subject keys by subject, wrapped under a key-encryption key, in a separate file from the templates.

    Ids, guarantees and errors are those of `TemplateStore`. Keep the file on another machine than the templates, and
    the key-encryption key apart from both.

    Args:
        path: of the file, mode 0600; created if absent. It must not be that of a `TemplateStore`.
        scheme: reads and writes the records.
        key_encryption_key: the key of the store; a new store is created for this key.

    Example:
        >>> import tempfile
        >>> from ppfr.templates import IdentityMapping
        >>> folder, scheme = tempfile.TemporaryDirectory(), IdentityMapping()
        >>> kek = KeyEncryptionKey.create(Path(folder.name) / "kek")
        >>> store = KeyStore(Path(folder.name) / "keys", scheme, key_encryption_key=kek)
        >>> store.add("pseudonym", scheme.new_key())
        >>> store.rewrap(KeyEncryptionKey.create(Path(folder.name) / "kek-2"))
        >>> store.subject_ids()
        ['pseudonym']
        >>> folder.cleanup()

    Raises:
        WrongKeyError: the store is wrapped under another key-encryption key.
        CorruptTemplateError, OutdatedTemplateError, InvalidInputError, StorageError: as for `TemplateStore`.

    Privacy:
        Records are encrypted and authenticated with AES-256-GCM under a key that is derived for the store, and bound to
        their subjects. Without the key-encryption key, the file reveals subject ids (pseudonyms), their number and
        their order. An adversary who can replace the file with an earlier version of it is not detected.
    """

    kind = "keys"

    def __init__(self, path: Path, scheme: TemplateScheme, *, key_encryption_key: KeyEncryptionKey) -> None:
        if not isinstance(key_encryption_key, KeyEncryptionKey):
            raise InvalidInputError(
                f"key_encryption_key must be a KeyEncryptionKey, got {type(key_encryption_key).__name__}; create one "
                "with `KeyEncryptionKey.create(path)`"
            )
        self._key_encryption_key = key_encryption_key
        super().__init__(path, scheme)

    def rewrap(self, key_encryption_key: KeyEncryptionKey) -> None:
        """Rotate the key-encryption key: wrap all records under a new one, all or none. Subject keys do not change.

        This object uses the new key from now on; other objects on the file raise `WrongKeyError`. Earlier copies of
        the file can still be read with the earlier key, so erase them or that key.

        Raises:
            InvalidInputError: the new key is the store's key.
            CorruptTemplateError: a record is damaged; remove it first. Nothing was changed.
            StorageError: the file cannot be written. Nothing was changed.
        """
        if not isinstance(key_encryption_key, KeyEncryptionKey) or key_encryption_key == self._key_encryption_key:
            raise InvalidInputError("rewrap takes another KeyEncryptionKey than the store's; create a new one")
        with transaction(self._path, self.kind, writes=True) as file:
            old = self._wrapping(file.header)
            salt = secrets.token_bytes(SALT_BYTES)
            new = key_encryption_key.wrapping(salt)
            for place in file.places():
                slot = file.slot_at(place)
                record = old.unwrapped(slot.record, slot.subject)
                file.replace(place, Slot(slot.subject, new.wrapped(record, slot.subject)))
            file.set_wrapping(salt, new.check)
        self._key_encryption_key = key_encryption_key

    def _wrapping(self, header: Header) -> Wrapping:
        wrapping = self._key_encryption_key.wrapping(header.wrap_salt)
        wrapping.require(header.wrap_check)
        return wrapping

    def _new_header(self) -> Header:
        salt = secrets.token_bytes(SALT_BYTES)
        return new_header(salt, self._key_encryption_key.wrapping(salt).check)

    def _check_header(self, header: Header) -> None:
        self._wrapping(header)

    def _slot(self, file: StoreFile, subject: bytes, record: bytes) -> Slot:
        return Slot(subject, self._wrapping(file.header).wrapped(record, subject))

    def _record(self, file: StoreFile, slot: Slot) -> bytes:
        return self._wrapping(file.header).unwrapped(slot.record, slot.subject)

    def _to_bytes(self, stored: SubjectKey) -> bytes:
        if not isinstance(stored, SubjectKey):
            raise InvalidInputError("a KeyStore takes only keys; store templates in a TemplateStore")
        return self._scheme.key_to_bytes(stored)

    def _from_bytes(self, record: bytes) -> SubjectKey:
        return self._scheme.key_from_bytes(record)
