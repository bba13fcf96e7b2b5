"""Key-encryption keys: wrapping and rotation of the keys in a store, and where they are kept."""

from __future__ import annotations

import pickle
import sqlite3
import stat

import pytest

from ppfr.core import CorruptTemplateError, InvalidInputError, StorageError, UnsupportableError, WrongKeyError
from ppfr.templates import KeyEncryptionKey, KeyStore
from support.record_stores import KEK, SCHEME, key_store


def test_keys_are_wrapped_and_bound_to_their_subjects(stores, enrolled):
    _, keys = stores
    keys.add_all({name: key for name, (_, key) in enrolled.items()})
    content = keys.path.read_bytes()
    for _, key in enrolled.values():
        for secret in (key.material, key.binding, key.key_id, SCHEME.key_to_bytes(key)[:40]):
            assert secret not in content
    assert b"a1" in content
    swapped = keys.path.with_name("swapped")
    swapped.write_bytes(content)
    swapped.chmod(0o600)
    with sqlite3.connect(swapped) as connection:
        (first,), (second,) = connection.execute("SELECT content FROM slots ORDER BY place LIMIT 2").fetchall()
        from ppfr.templates._store_file import _SLOT, Slot, _packed

        head, rest = _SLOT.unpack_from(first), second[_SLOT.size : _SLOT.size + _SLOT.unpack_from(second)[1]]
        forged = _packed(Slot(head[3][: head[2]], rest))
        connection.execute("UPDATE slots SET content = ? WHERE place = 1", [forged])
    connection.close()
    with pytest.raises(CorruptTemplateError, match="was altered or is damaged"):
        key_store(swapped).get("a1")


def test_rewrapping_rotates_the_key_and_leaves_no_old_wrapping(stores, enrolled):
    _, keys = stores
    keys.add_all({name: key for name, (_, key) in enrolled.items()})
    before, other = keys.path.read_bytes(), key_store(keys.path)
    new = KeyEncryptionKey.new()
    keys.rewrap(new)
    after = keys.path.read_bytes()
    assert {name: key.material for name, key in keys.load().items()} == {
        n: k.material for n, (_, k) in enrolled.items()
    }
    with sqlite3.connect("file:?mode=memory", uri=True) as connection:
        connection.deserialize(before)
        wrapped = [row[0][121:] for row in connection.execute("SELECT content FROM slots")]
    connection.close()
    assert len(wrapped) == 3 and not any(old[:16] in after for old in wrapped)
    for failing in (lambda: key_store(keys.path), lambda: other.get("a1"), lambda: other.add("z", SCHEME.new_key())):
        with pytest.raises(WrongKeyError, match="under another key-encryption key"):
            failing()
    assert len(key_store(keys.path, new)) == 3
    with pytest.raises(InvalidInputError, match="create a new one"):
        keys.rewrap(new)


def test_key_encryption_keys_can_be_kept_in_a_file_or_the_environment(tmp_path, monkeypatch):
    key = KeyEncryptionKey.create(tmp_path / "new" / "kek")
    assert KeyEncryptionKey.load(tmp_path / "new" / "kek") == key != KeyEncryptionKey.new()
    assert stat.S_IMODE((tmp_path / "new" / "kek").stat().st_mode) == 0o600
    with pytest.raises(InvalidInputError, match="already exists and is not overwritten"):
        KeyEncryptionKey.create(tmp_path / "new" / "kek")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kek"]
    monkeypatch.setenv("KEK_OF_TEST", key.to_text())
    assert KeyEncryptionKey.from_environment("KEK_OF_TEST") == key
    monkeypatch.setenv("KEK_OF_TEST", "password")
    with pytest.raises(InvalidInputError, match="KEK_OF_TEST does not contain") as caught:
        KeyEncryptionKey.from_environment("KEK_OF_TEST")
    assert "password" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="NO_KEK is not set"):
        KeyEncryptionKey.from_environment("NO_KEK")
    for bad in (b"short", "text", bytearray(32)):
        with pytest.raises(InvalidInputError, match=r"Expected 32 bytes.*KeyEncryptionKey.new"):
            KeyEncryptionKey(bad)
    with pytest.raises(StorageError, match="Cannot use the key-encryption key"):
        KeyEncryptionKey.load(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="must be a KeyEncryptionKey, got bytes"):
        KeyStore(tmp_path / "keys", SCHEME, key_encryption_key=bytes(32))


def test_every_changed_byte_of_a_key_file_is_detected(tmp_path):
    path = tmp_path / "kek"
    KeyEncryptionKey.create(path)
    whole = path.read_bytes()
    for at in range(len(whole) - 1):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(content)
            with pytest.raises(CorruptTemplateError, match="does not contain a key-encryption key"):
                KeyEncryptionKey.load(path)


def test_key_encryption_keys_are_not_shown_or_pickled():
    assert "redacted" in repr(KEK) and KEK.to_text()[11:] not in repr(KEK)
    with pytest.raises(UnsupportableError, match="cannot be pickled"):
        pickle.dumps(KEK)
