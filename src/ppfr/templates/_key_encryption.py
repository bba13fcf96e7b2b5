"""The key-encryption key of a key store: where it is kept, and how it wraps the records of subject keys."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import secrets
import zlib
from pathlib import Path
from typing import NoReturn, final

from ppfr.assets import check_private, create_private
from ppfr.core import CorruptTemplateError, InvalidInputError, StorageError, UnsupportableError, WrongKeyError

SECRET_BYTES = 32
SALT_BYTES = 32
CHECK_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16
WRAPPING_BYTES = _NONCE_BYTES + _TAG_BYTES  # a wrapped record is longer than the record by this
_PREFIX = "ppfr-kek-1:"
_TEXT = re.compile(re.escape(_PREFIX) + r"([A-Za-z0-9+/]{48})")
_MAX_FILE_BYTES = 1000


@final
class KeyEncryptionKey:
    """32 secret bytes under which a `KeyStore` encrypts subject keys. It cannot be printed or pickled.

    Keep it away from the store and from the store's backups: in a file on another volume, in the environment of the
    process, or with a key management service, whose answer is passed as `secret`.

    Args:
        secret: 32 bytes from a cryptographic generator, not a password.

    Example:
        >>> key = KeyEncryptionKey.new()
        >>> KeyEncryptionKey.from_text(key.to_text()) == key
        True

    Raises:
        InvalidInputError: not 32 bytes.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
            given = f"{len(secret)} bytes" if isinstance(secret, bytes) else type(secret).__name__
            raise InvalidInputError(
                f"Expected {SECRET_BYTES} bytes for a key-encryption key, got {given}. "
                "Create one with `KeyEncryptionKey.new()`."
            )
        self._secret = secret

    @classmethod
    def new(cls) -> KeyEncryptionKey:
        """A key from the operating system's generator."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def create(cls, path: Path) -> KeyEncryptionKey:
        """Draw a key and write it to a new file of mode 0600.

        Raises:
            InvalidInputError: the file exists; a key is never overwritten.
            StorageError: the file cannot be written.
        """
        key = cls.new()
        create_private(Path(path), f"{key.to_text()}\n".encode("ascii"))
        return key

    @classmethod
    def load(cls, path: Path) -> KeyEncryptionKey:
        """Read a key from the file that `create` wrote.

        Raises:
            StorageError: the file is missing or unreadable, or other users than its owner can access it.
            CorruptTemplateError: the file does not contain a key, or is damaged.
        """
        path = Path(path)
        check_private(path, "key-encryption key")
        try:
            with path.open("rb") as opened:
                content = opened.read(_MAX_FILE_BYTES)
        except OSError as error:
            raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
        try:
            return cls.from_text(content.decode("ascii").strip())
        except ValueError as error:
            raise CorruptTemplateError(
                f"{path} does not contain a key-encryption key, or is damaged. Restore the file."
            ) from error

    @classmethod
    def from_environment(cls, variable: str) -> KeyEncryptionKey:
        """Read a key from an environment variable that contains the result of `to_text`.

        Raises:
            InvalidInputError: the variable is not set or does not contain a key.
        """
        text = os.environ.get(variable)
        if text is None:
            raise InvalidInputError(
                f"The environment variable {variable} is not set. Set it to the result of `KeyEncryptionKey.to_text`."
            )
        try:
            return cls.from_text(text.strip())
        except InvalidInputError as error:
            raise InvalidInputError(
                f"The environment variable {variable} does not contain a key-encryption key. "
                "Set it to the result of `KeyEncryptionKey.to_text`."
            ) from error

    @classmethod
    def from_text(cls, text: str) -> KeyEncryptionKey:
        """Read a key from the result of `to_text`.

        Raises:
            InvalidInputError: the text is not a key, or characters were changed.
        """
        match = _TEXT.fullmatch(text)
        try:
            packed = base64.b64decode(match[1], validate=True) if match else b""
        except binascii.Error:  # pragma: no cover (the pattern admits only base64 of 36 bytes)
            packed = b""
        secret, crc = packed[:SECRET_BYTES], packed[SECRET_BYTES:]
        if not match or zlib.crc32(secret).to_bytes(4, "little") != crc:
            raise InvalidInputError(
                f"Expected a key-encryption key as text ({_PREFIX!r} and 48 characters), got other or damaged text. "
                "Create one with `KeyEncryptionKey.new().to_text()`."
            )
        return cls(secret)

    def to_text(self) -> str:
        """The secret as one line of ASCII with a checksum, for a file or an environment variable."""
        packed = self._secret + zlib.crc32(self._secret).to_bytes(4, "little")
        return _PREFIX + base64.b64encode(packed).decode("ascii")

    def wrapping(self, salt: bytes) -> Wrapping:
        """The wrapping of one store; `salt` is the store's and changes when the store is re-wrapped."""
        return Wrapping(*(hmac.digest(self._secret, label + salt, "sha256") for label in _LABELS))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyEncryptionKey) and secrets.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash((type(self), self._secret))

    def __repr__(self) -> str:
        return "KeyEncryptionKey(secret=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("A key-encryption key cannot be pickled or copied. Use to_text().")


_LABELS = b"ppfr/key-store/wrap/1", b"ppfr/key-store/check/1"


@final
class Wrapping:
    """AES-256-GCM under a key that is derived for one store, with a random nonce per record."""

    __slots__ = ("_cipher", "check")

    def __init__(self, wrap: bytes, check: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(wrap)
        self.check = check[:CHECK_BYTES]

    def require(self, check: bytes) -> None:
        """Refuse the key-encryption key if the store, which states `check`, is wrapped under another one.

        Raises:
            WrongKeyError: another key is needed.
        """
        if not secrets.compare_digest(self.check, check):
            raise WrongKeyError(
                "The key store is wrapped under another key-encryption key; nothing was read. "
                "Use the key of the store, or the new one if the store was re-wrapped."
            )

    def wrapped(self, record: bytes, owner: bytes) -> bytes:
        """Nonce, ciphertext and tag; `owner` is authenticated, so that records cannot be exchanged."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, record, owner)

    def unwrapped(self, wrapped: bytes, owner: bytes) -> bytes:
        """The record.

        Raises:
            CorruptTemplateError: the bytes were altered or belong to another owner.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], owner)
        except (InvalidTag, ValueError) as error:
            raise CorruptTemplateError(
                "a wrapped key was altered or is damaged; restore the key store, or enrol again under a new key"
            ) from error

    def __repr__(self) -> str:
        return "Wrapping(key=<redacted>)"
