from __future__ import annotations

import multiprocessing
import stat

import pytest

from ppfr.core import (
    CorruptTemplateError,
    InvalidInputError,
    ProblemsError,
    StorageError,
    UnknownSchemeError,
)
from ppfr.templates import IdentityMapping, KeyStore, TemplateStore

SCHEME = IdentityMapping(dim=32)


@pytest.fixture
def enrolled(people):
    """Three subjects: id -> (template, key)."""
    found = {}
    for name, embedding in zip(("a1", "b/../2", "ünï"), people(3, 32)[0], strict=True):
        key = SCHEME.new_key()
        found[name] = SCHEME.enrol(embedding, key=key), key
    return found


@pytest.fixture
def stores(tmp_path):
    return TemplateStore(tmp_path / "templates", SCHEME), KeyStore(tmp_path / "keys", SCHEME)


def test_stored_templates_and_keys_can_be_read_again(stores, enrolled, people, tmp_path):
    templates, keys = stores
    templates.add_all({name: template for name, (template, _) in enrolled.items()})
    for name, (_, key) in enrolled.items():
        keys.add(name, key)
    again = TemplateStore(tmp_path / "templates", SCHEME), KeyStore(tmp_path / "keys", SCHEME)
    assert again[0].subject_ids() == sorted(enrolled) == again[1].subject_ids() and len(again[0]) == 3
    for name, embedding in zip(enrolled, people(3, 32)[0], strict=True):
        template, key = again[0].get(name), again[1].get(name)
        assert SCHEME.score(SCHEME.probe(embedding, key=key, like=template), template) == pytest.approx(1, abs=1e-6)
    assert set(again[0].load()) == set(enrolled)
    for path in tmp_path.rglob("*.rec"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.parent.parent == tmp_path, "a subject id must not select a path outside the store"


def test_all_problems_of_added_entries_are_listed_at_once(stores, enrolled):
    templates, keys = stores
    (first, key), (second, _), _ = enrolled.values()
    templates.add("known", first)
    with pytest.raises(ProblemsError) as caught:
        templates.add_all({"new": second, "known": second, "": second, "x" * 101: second, "key": key})
    assert len(caught.value.problems) == 4
    assert [line.split(":")[0] for line in caught.value.problems] == ["entry 1", "entry 2", "entry 3", "entry 4"]
    assert "already has a record" in caught.value.problems[0] and "in a KeyStore" in caught.value.problems[3]
    assert "known" not in str(caught.value)
    assert "new" not in templates and len(templates) == 1, "all or none"
    with pytest.raises(ProblemsError, match="store templates in a TemplateStore"):
        keys.add("known", first)


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


def test_one_directory_cannot_be_two_stores(stores, tmp_path):
    with pytest.raises(InvalidInputError, match="is a store of 'templates', not of 'keys'"):
        KeyStore(tmp_path / "templates", SCHEME)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with pytest.raises(InvalidInputError, match="contains other files; choose a new or empty directory"):
        KeyStore(tmp_path / "other", SCHEME)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be used as a store.*choose another directory"):
        KeyStore(tmp_path / "file", SCHEME)


def test_damaged_records_are_all_listed(stores, enrolled, tmp_path):
    templates, _ = stores
    templates.add_all({name: template for name, (template, _) in enrolled.items()})
    damaged, cut, _ = sorted((tmp_path / "templates").glob("*.rec"))
    record = damaged.read_bytes()
    damaged.write_bytes(record[:-1] + bytes([record[-1] ^ 1]))
    cut.write_bytes(b"")
    with pytest.raises(ProblemsError, match="2 problem") as caught:
        templates.load()
    assert all(name not in str(caught.value) for name in enrolled)
    with pytest.raises(CorruptTemplateError):
        templates.get("a1")


def test_records_of_another_scheme_are_rejected(stores, enrolled, tmp_path):
    (template, _), *_ = enrolled.values()
    stores[0].add("a", template)
    with pytest.raises(UnknownSchemeError):
        TemplateStore(tmp_path / "templates", IdentityMapping(dim=32, overlap=2)).get("a")


def _add_same(directory, outcomes):
    store = KeyStore(directory, SCHEME)
    try:
        store.add("same", SCHEME.new_key())
        outcomes.put("added")
    except ProblemsError:
        outcomes.put("rejected")


def test_only_one_of_two_processes_can_add_the_same_subject(tmp_path):
    context = multiprocessing.get_context("spawn")
    KeyStore(tmp_path, SCHEME)
    outcomes = context.Queue()
    workers = [context.Process(target=_add_same, args=(tmp_path, outcomes)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = sorted(outcomes.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == ["added", "rejected"]
