"""Damaged stores raise the documented errors and never return other contents than were stored."""

from __future__ import annotations

import sqlite3

import pytest

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, ProblemsError, StorageError
from ppfr.templates import KeyEncryptionKey, TemplateStore
from support.damage import outcomes
from support.record_stores import SCHEME, key_store


def opened(path, kind):
    return TemplateStore(path, SCHEME) if kind == "templates" else key_store(path)


@pytest.fixture(params=["templates", "keys"])
def kind(request):
    return request.param


@pytest.fixture
def whole(kind, tmp_path, people):
    """The bytes of a store of 37 subjects with three free slots."""
    store = opened(tmp_path / "whole", kind)
    made = {f"subject-{n}": SCHEME.new_key() for n in range(40)}
    if kind == "templates":
        rows = people(40, 32)[0]
        made = {name: SCHEME.enrol(row, key=key) for row, (name, key) in zip(rows, made.items(), strict=True)}
    store.add_all(made)
    for n in (0, 11, 39):
        store.remove(f"subject-{n}")
    return store.path.read_bytes()


def write(path, content):
    for left in path.parent.glob("damaged*"):
        left.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def test_a_damaged_store_is_detected_when_it_is_loaded(kind, whole, tmp_path):
    path = tmp_path / "damaged"

    def read(content):
        write(path, content)
        loaded = opened(path, kind).load()
        return {name: (one.key_id, one.tag if kind == "templates" else one.material) for name, one in loaded.items()}

    allowed = CorruptTemplateError, OutdatedTemplateError, ProblemsError
    found = outcomes(whole, 450, read, allowed, seed=1)
    assert found["CorruptTemplateError"] > 100 and found["ProblemsError"] > 10


def test_operations_on_a_damaged_store_raise_documented_errors(kind, whole, tmp_path, people):
    path = tmp_path / "damaged"
    key = SCHEME.new_key()
    new = key if kind == "keys" else SCHEME.enrol(people(1, 32)[0][0], key=key)

    def read(content):
        write(path, content)
        store = opened(path, kind)
        got = store.get("subject-7").key_id
        store.add("new", new)
        store.replace("subject-8", new)
        store.remove("subject-9")
        return got, store.get("new").key_id, store.get("subject-8").key_id, len(store), store.subject_ids()

    allowed = CorruptTemplateError, OutdatedTemplateError, InvalidInputError, StorageError
    outcomes(whole, 60, read, allowed, seed=2)


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
