"""The scheme and the key store of tests of stores."""

from __future__ import annotations

from ppfr.templates import IdentityMapping, KeyEncryptionKey, KeyStore

SCHEME = IdentityMapping(dim=32)
KEK = KeyEncryptionKey.new()


def key_store(path, kek=KEK):
    """The store of keys at `path`."""
    return KeyStore(path, SCHEME, key_encryption_key=kek)
