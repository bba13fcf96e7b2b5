"""The file of a store: paths, permissions, erasure of removed records, and a full disk."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from ppfr.core import StorageError
from ppfr.templates import KeyEncryptionKey, TemplateStore
from support.record_stores import SCHEME, key_store


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
