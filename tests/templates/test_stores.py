"""Stores of templates and keys: contents, subject ids, rejected entries, other formats, and concurrent processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import unicodedata

import numpy as np
import pytest

from ppfr.core import InvalidInputError, OutdatedTemplateError, ProblemsError, UnknownSchemeError
from ppfr.templates import IdentityMapping, KeyEncryptionKey, KeyStore, TemplateStore, UnprotectedTemplates
from support.documents import run_python
from support.record_stores import KEK, SCHEME, key_store


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
