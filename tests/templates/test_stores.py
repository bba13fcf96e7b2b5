"""Stores of templates and keys: contents, errors, permissions, erasure, wrapping and concurrent processes."""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
import stat
import unicodedata

import numpy as np
import pytest

from ppfr.core import (
    CorruptTemplateError,
    InvalidInputError,
    OutdatedTemplateError,
    ProblemsError,
    StorageError,
    UnknownSchemeError,
    UnsupportableError,
    WrongKeyError,
)
from ppfr.templates import IdentityMapping, KeyEncryptionKey, KeyStore, TemplateStore, UnprotectedTemplates
from support.documents import run_python

SCHEME = IdentityMapping(dim=32)
KEK = KeyEncryptionKey.new()


@pytest.fixture
def enrolled(people):
    """Three subjects: id -> (template, key)."""
    found = {}
    for name, embedding in zip(("a1", "b/../2", "ünï"), people(3, 32)[0], strict=True):
        key = SCHEME.new_key()
        found[name] = SCHEME.enrol(embedding, key=key), key
    return found


def key_store(path, kek=KEK):
    return KeyStore(path, SCHEME, key_encryption_key=kek)


@pytest.fixture
def stores(tmp_path):
    return TemplateStore(tmp_path / "a.templates", SCHEME), key_store(tmp_path / "a.keys")


def test_stored_templates_and_keys_can_be_read_again(stores, enrolled, people, tmp_path):
    templates, keys = stores
    templates.add_all({name: template for name, (template, _) in enrolled.items()})
    for name, (_, key) in enrolled.items():
        keys.add(name, key)
    again = TemplateStore(templates.path, SCHEME), key_store(keys.path)
    assert again[0].subject_ids() == sorted(enrolled) == again[1].subject_ids() and len(again[0]) == 3
    for name, embedding in zip(enrolled, people(3, 32)[0], strict=True):
        template, key = again[0].get(name), again[1].get(name)
        assert SCHEME.score(SCHEME.probe(embedding, key=key, like=template), template) == pytest.approx(1, abs=1e-6)
    assert list(again[0].load()) == sorted(enrolled) == list(again[1].load())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keys", "a.templates"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_all_problems_of_added_entries_are_listed_at_once(stores, enrolled):
    templates, keys = stores
    (first, key), (second, _), _ = enrolled.values()
    templates.add("known", first)
    entries = {"new": second, "known": second, "": second, "x" * 101: second, "key": key, "a\n": second}
    entries |= {"\ud800": second, 7: second, "é": second, unicodedata.normalize("NFD", "é"): second}
    with pytest.raises(ProblemsError) as caught:
        templates.add_all(entries)
    assert [line.split(":")[0] for line in caught.value.problems] == [f"entry {n}" for n in (1, 2, 3, 4, 5, 6, 7, 9)]
    assert "already has a record" in caught.value.problems[0] and "in a KeyStore" in caught.value.problems[3]
    assert "two spellings" in caught.value.problems[-1]
    assert "known" not in str(caught.value)
    assert "new" not in templates and len(templates) == 1, "all or none"
    with pytest.raises(ProblemsError, match="store templates in a TemplateStore"):
        keys.add("known", first)


@pytest.mark.parametrize("name", ["", "x" * 101, "ü" * 51, "a\0b", "a\x1b[2J", "\udcff", None, b"a"])
def test_invalid_subject_ids_raise_the_documented_error_everywhere(stores, enrolled, name):
    templates, _ = stores
    (template, _), *_ = enrolled.values()
    for action in (
        lambda: templates.add(name, template),
        lambda: templates.replace(name, template),
        lambda: templates.get(name),
        lambda: templates.remove(name),
        lambda: name in templates,
    ):
        with pytest.raises(InvalidInputError, match="1 to 100 bytes"):
            action()


def test_a_subject_is_found_in_any_unicode_form(stores, enrolled):
    (template, _), *_ = enrolled.values()
    stores[0].add(unicodedata.normalize("NFD", "Zoë"), template)
    assert unicodedata.normalize("NFC", "Zoë") in stores[0]
    assert stores[0].subject_ids() == [unicodedata.normalize("NFC", "Zoë")]


def test_replace_and_remove(stores, enrolled):
    templates, _ = stores
    (first, _), (second, _), _ = enrolled.values()
    with pytest.raises(InvalidInputError, match="enrol first"):
        templates.replace("a", first)
    templates.add("a", first)
    templates.replace("a", second)
    assert templates.get("a").key_id == second.key_id
    templates.remove("a")
    assert "a" not in templates and len(templates) == 0
    for action in (templates.get, templates.remove):
        with pytest.raises(InvalidInputError, match="enrol first"):
            action("a")
    templates.add("a", first)
    assert templates.get("a").key_id == first.key_id


def test_records_of_different_sizes_share_a_store(tmp_path, people):
    """The float16 record of 512 values is half as long, so it takes another slot."""
    embedding = people(1, 512)[0][0]
    wide, half = (UnprotectedTemplates(dim=512, payload=payload) for payload in ("float32", "float16"))
    path, key = tmp_path / "templates", wide.new_key()
    first, second = TemplateStore(path, wide), TemplateStore(path, half)
    first.add("a", wide.enrol(embedding, key=key))
    first.add("b", wide.enrol(embedding, key=key))
    second.replace("a", half.enrol(embedding, key=key))
    size = path.stat().st_size
    first.add("c", wide.enrol(embedding, key=key))  # takes the slot that "a" has left
    assert path.stat().st_size == size
    assert first.subject_ids() == ["a", "b", "c"] and len(first.load()) == 3
    assert np.allclose(first.get("a").values_K, first.get("b").values_K, atol=1e-3)


def test_a_file_is_a_store_of_one_kind(stores, tmp_path):
    templates, keys = stores
    with pytest.raises(InvalidInputError, match="is a store of templates, not of keys"):
        key_store(templates.path)
    with pytest.raises(InvalidInputError, match="is a store of keys, not of templates"):
        TemplateStore(keys.path, SCHEME)
    with pytest.raises(OutdatedTemplateError, match=r"is a directory, but a store is one file.*template-records"):
        TemplateStore(tmp_path, SCHEME)


@pytest.mark.parametrize("name", ["file/store", "x" * 300, "a\0b"])
def test_paths_that_cannot_be_files_raise_the_documented_error(tmp_path, name):
    (tmp_path / "file").touch()
    for make in (lambda: TemplateStore(tmp_path / name, SCHEME), lambda: KeyEncryptionKey.create(tmp_path / name)):
        with pytest.raises(StorageError):
            make()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o640, 0o622, 0o620])
def test_files_that_other_users_can_access_are_refused_with_the_remedy(stores, enrolled, tmp_path, mode):
    templates, keys = stores
    (template, key), *_ = enrolled.values()
    KeyEncryptionKey.create(tmp_path / "kek")
    for path, action in (
        (templates.path, lambda: templates.add("a", template)),
        (templates.path, lambda: TemplateStore(templates.path, SCHEME)),
        (keys.path, lambda: keys.add("a", key)),
        (keys.path, keys.load),
        (tmp_path / "kek", lambda: KeyEncryptionKey.load(tmp_path / "kek")),
    ):
        path.chmod(mode)
        with pytest.raises(StorageError, match=rf"has mode {mode:04o}.*chmod 600 "):
            action()
        path.chmod(0o600)
        action()
        if path in (templates.path, keys.path) and "a" in templates:
            templates.remove("a")
        if path == keys.path and "a" in keys:
            keys.remove("a")


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


@pytest.mark.parametrize("kind", ["templates", "keys"])
def test_removed_and_replaced_records_are_erased_from_the_file(tmp_path, people, kind):
    """Changes are many and interleaved, so that SQLite splits and fills pages."""
    rng = np.random.default_rng(7)
    embeddings = people(60, 32)[0]
    templates, keys = TemplateStore(tmp_path / "t", SCHEME), key_store(tmp_path / "k")
    store = templates if kind == "templates" else keys
    gone, kept = [], []

    def slot_of(name):
        with sqlite3.connect(store.path) as connection:
            rows = connection.execute("SELECT content FROM slots").fetchall()
        connection.close()
        size = 16 + 4 + 1
        (content,) = [row for (row,) in rows if row[size : size + len(name) + 1] == name.encode() + b"\0"]
        return content[121 : 121 + int.from_bytes(content[16:20], "little")]

    def made(n):
        key = SCHEME.new_key()
        return key if kind == "keys" else SCHEME.enrol(embeddings[n % 60], key=key)

    for number in range(16):
        names = [f"subject-{number}-{n}" for n in range(int(rng.integers(1, 40)))]
        store.add_all({name: made(n) for n, name in enumerate(names)})
        kept += names
        chosen = [kept[n] for n in rng.choice(len(kept), len(kept) // 6, replace=False)]
        for place, name in enumerate(chosen):
            gone.append((slot_of(name), None if place % 2 else name))
            if place % 2:
                store.replace(name, made(place))
            else:
                store.remove(name)
                kept.remove(name)
    held = store.path.read_bytes()
    assert len(gone) > 60 and store.subject_ids() == sorted(kept)
    pieces = {held[at : at + 8] for at in range(len(held))}
    start = 128 if kind == "templates" else 0  # the header of a template's record holds the scheme's parameters
    for record, name in gone:
        assert pieces.isdisjoint(record[at : at + 8] for at in range(start, len(record) - 8, 8))
        assert name is None or name.encode() + b"\0" not in held
    assert all(name.encode() + b"\0" in held for name in kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "t"]


def test_compacting_erases_digests_and_frees_space(stores, enrolled):
    templates, _ = stores
    (template, _), *_ = enrolled.values()
    templates.add_all({f"{n}": template for n in range(150)})
    with sqlite3.connect(templates.path) as connection:
        digests = [digest for (digest,) in connection.execute("SELECT digest FROM listed")]
    connection.close()
    for n in range(1, 150):
        templates.remove(f"{n}")
    size = templates.path.stat().st_size
    templates.compact()
    held = templates.path.read_bytes()
    assert sum(digest in held for digest in digests) == 1
    assert templates.path.stat().st_size <= size and templates.subject_ids() == ["0"]
    templates.add_all({f"{n}": template for n in range(1, 150)})
    assert len(templates.load()) == 150


def test_damaged_records_are_all_listed_and_can_be_removed(stores, enrolled):
    templates, keys = stores
    templates.add_all({name: template for name, (template, _) in enrolled.items()})
    keys.add_all({name: key for name, (_, key) in enrolled.items()})
    for store in stores:
        with sqlite3.connect(store.path) as connection:
            connection.execute("UPDATE slots SET content = zeroblob(length(content)) WHERE place = 1")
            connection.execute("UPDATE slots SET content = 'text' WHERE place = 3")
        connection.close()
        for action in (store.load, store.subject_ids):
            with pytest.raises(ProblemsError, match="2 problem") as caught:
                action()
            assert all(name not in str(caught.value) for name in enrolled)
        for name in ("a1", "ünï"):
            with pytest.raises(CorruptTemplateError):
                store.get(name)
        assert store.get("b/../2")
        store.remove("a1")
        assert "a1" not in store
    with pytest.raises(CorruptTemplateError, match="damaged"):
        keys.rewrap(KeyEncryptionKey.new())
    assert keys.get("b/../2").key_id == enrolled["b/../2"][1].key_id


def test_records_of_another_scheme_are_rejected(stores, enrolled):
    (template, _), *_ = enrolled.values()
    stores[0].add("a", template)
    with pytest.raises(UnknownSchemeError):
        TemplateStore(stores[0].path, IdentityMapping(dim=32, overlap=2)).get("a")


def test_a_newer_file_is_rejected(stores):
    with sqlite3.connect(stores[0].path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(OutdatedTemplateError, match="has format version 3, but this release reads version 2"):
        TemplateStore(stores[0].path, SCHEME)


def test_a_full_disk_leaves_the_store_as_it_was(stores, enrolled, monkeypatch):
    from ppfr.templates import _store_file

    templates, _ = stores
    (template, _), *_ = enrolled.values()
    templates.add("a", template)
    real = _store_file._connected

    def limited(path):
        connection = real(path)
        limit = connection.execute("PRAGMA page_count").fetchone()[0] + 2
        connection.execute(f"PRAGMA max_page_count = {limit}").fetchall()
        return connection

    monkeypatch.setattr(_store_file, "_connected", limited)
    before = templates.path.read_bytes()
    with pytest.raises(StorageError, match=r"full; nothing was changed. Check free space"):
        templates.add_all({f"{n}": template for n in range(2000)})
    assert templates.path.read_bytes() == before and templates.subject_ids() == ["a"]


def test_the_documentation_converts_a_store_of_release_0_1(tmp_path, people, monkeypatch):
    scheme = IdentityMapping()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old-templates").mkdir()
    record = scheme.to_bytes(scheme.enrol(people(1, 512)[0][0], key=scheme.new_key()))
    (tmp_path / "old-templates" / f"{'ünï'.encode().hex()}.rec").write_bytes(record)
    names = run_python("docs/reference/template-records.md", num_blocks=2)
    assert scheme.to_bytes(names["templates"].get("ünï")) == record
    assert len(names["keys"]) == 0


def _add_same(path, kek, outcomes):
    store = KeyStore(path, SCHEME, key_encryption_key=KeyEncryptionKey.from_text(kek))
    try:
        store.add("same", SCHEME.new_key())
        outcomes.put("added")
    except ProblemsError:
        outcomes.put("rejected")


def test_only_one_of_two_processes_can_add_the_same_subject(tmp_path):
    """The processes also compete for creating the file."""
    context = multiprocessing.get_context("spawn")
    outcomes = context.Queue()
    arguments = tmp_path / "keys", KEK.to_text(), outcomes
    workers = [context.Process(target=_add_same, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = sorted(outcomes.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == ["added", "rejected"]
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
