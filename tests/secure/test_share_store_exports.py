"""Exports of share stores: what they contain, and files that are refused."""

from __future__ import annotations

import stat

import numpy as np
import pytest
from safetensors.numpy import load, save

from ppfr.core import CorruptTemplateError, InvalidInputError, OutdatedTemplateError, StorageError
from ppfr.secure import (
    ShareStore,
    StoreExport,
)
from ppfr.secure._share_exports import _checksum
from support.damage import outcomes
from support.share_stores import (
    GALLERY,
    POINT,
    enrolments,
    exports_for,
    perform,
    refreshes,
)


def test_exports_have_one_component_each_and_inventories_have_none(stores, tmp_path):
    words = {store.party: store.load()[0].words_NW for store in stores}
    one, two = exports_for(stores, 0, tmp_path)
    np.testing.assert_array_equal(one.component_MD, words[1][:, :16])
    np.testing.assert_array_equal(two.component_MD, words[2][:, 16:])
    stores[1].exported().write(tmp_path / "inventory")
    for path, held in (("from-1-for-0", [words[1][:, :16]]), ("inventory", [])):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o600
        written = (tmp_path / path).read_bytes()
        for component in (words[1][:, :16], words[1][:, 16:]):
            is_held = any(np.array_equal(component, each) for each in held)
            assert all((row.tobytes()[:8] in written) == is_held for row in component)
        texts = repr(StoreExport.read(tmp_path / path))
        assert "-0-" not in texts and str(words[1][0, 0]) not in texts
    with pytest.raises(InvalidInputError, match="already exists"):
        stores[1].exported().write(tmp_path / "inventory")


@pytest.mark.parametrize("recipient", [1, 3, -1])
def test_an_export_for_no_other_party_is_refused(stores, recipient):
    with pytest.raises(InvalidInputError, match=f"other parties of party 1 .*got {recipient}"):
        stores[1].exported(recipient=recipient)


@pytest.mark.parametrize("make", [lambda: enrolments(8, 2), lambda: refreshes(8)])
def test_an_export_with_a_prepared_change_is_refused_with_the_remedy(stores, make):
    stores[1].prepare(make()[1])
    with pytest.raises(InvalidInputError, match=r"Start all three parties.*repair --lost 0"):
        stores[1].exported(recipient=0)
    stores[1].exported()


def test_damaged_exports_raise_documented_errors(stores, tmp_path):
    path = tmp_path / "export"

    def read(whole):
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(0o600)
        found = StoreExport.read(path)
        return found.header, found.changes, found.ids_M16.tobytes(), found.subjects, found.component_MD.tobytes()

    stores[1].exported(recipient=0).write(tmp_path / "whole")
    found = outcomes(
        (tmp_path / "whole").read_bytes(), 400, read, (CorruptTemplateError, OutdatedTemplateError), seed=3
    )
    assert found["CorruptTemplateError"] > 350
    for foreign in (b"", b"words", bytes(5000), save({"ids": np.zeros(3)}), save({}, {"format": "ppfr share export"})):
        with pytest.raises((CorruptTemplateError, OutdatedTemplateError)):
            read(foreign)


FORGED = {
    "ids in another order": lambda metadata, arrays: arrays.update(ids=arrays["ids"][::-1].copy()),
    "an id twice": lambda metadata, arrays: arrays.update(ids=arrays["ids"][[0, *range(len(arrays["ids"]) - 1)]]),
    "too few ids": lambda metadata, arrays: arrays.update(ids=arrays["ids"][1:]),
    "short ids": lambda metadata, arrays: arrays.update(ids=arrays["ids"][:, 1:].copy()),
    "words of another type": lambda metadata, arrays: arrays.update(component=arrays["component"].astype(np.uint16)),
    "words of another width": lambda metadata, arrays: arrays.update(component=arrays["component"][:, 1:].copy()),
    "a number as ids": lambda metadata, arrays: arrays.update(ids=np.array(3, np.uint8)),
    "no words": lambda metadata, arrays: arrays.pop("component"),
    "another array": lambda metadata, arrays: arrays.update(more=np.zeros(3)),
    "a control character": lambda metadata, arrays: arrays["subject_bytes"].__setitem__(0, 10),
    "no text": lambda metadata, arrays: arrays["subject_bytes"].__setitem__(0, 255),
    "an empty subject": lambda metadata, arrays: arrays["subject_lengths"].__setitem__(
        slice(0, 2), [0, arrays["subject_lengths"][:2].sum()]
    ),
    "an unknown state": lambda metadata, arrays: arrays["change_states"].__setitem__(0, 3),
    "a prepared change": lambda metadata, arrays: arrays["change_states"].__setitem__(0, 0),
    "an unknown kind": lambda metadata, arrays: arrays["change_kinds"].__setitem__(0, 9),
    "a change twice": lambda metadata, arrays: arrays["change_ids"].__setitem__(1, arrays["change_ids"][0]),
    "a pending row": lambda metadata, arrays: arrays["pending"].__setitem__(0, 0),
    "a pending row of no change": lambda metadata, arrays: arrays["pending"].__setitem__(0, 99),
    "the own party": lambda metadata, arrays: metadata.update(recipient="1"),
    "no party": lambda metadata, arrays: metadata.update(party="7"),
    "a negative epoch": lambda metadata, arrays: metadata.update(epoch="-1"),
    "no number": lambda metadata, arrays: metadata.update(dim="many"),
    "other values": lambda metadata, arrays: metadata.update(values="float"),
    "a short gallery id": lambda metadata, arrays: metadata.update(gallery_id="00"),
    "more metadata": lambda metadata, arrays: metadata.update(more="x"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "1.shares"
    with ShareStore.create(path, party=1, fixed_point=POINT, gallery_id=GALLERY) as store:
        perform([store], enrolments(1, 5))
        perform([store], refreshes(2))
        return store.exported(recipient=0)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_an_inconsistent_export_with_a_correct_checksum_is_refused(exported, tmp_path, forge):
    metadata, arrays = exported._metadata(), {name: each.copy() for name, each in exported._tensors().items()}
    path = tmp_path / "forged"

    def write():
        path.unlink(missing_ok=True)
        path.write_bytes(save(arrays, {**metadata, "sha256": _checksum(metadata, arrays)}))
        path.chmod(0o600)

    write()
    assert StoreExport.read(path).subjects == exported.subjects
    forge(metadata, arrays)
    write()
    with pytest.raises(CorruptTemplateError, match=r"inconsistent content.*export it again"):
        StoreExport.read(path)


def test_a_tampered_export_and_one_of_another_version_are_refused(stores, tmp_path):
    stores[1].exported(recipient=0).write(tmp_path / "whole")
    arrays = load((tmp_path / "whole").read_bytes())
    arrays["component"] = arrays["component"] + np.uint32(1)
    metadata = stores[1].exported(recipient=0)._metadata()
    for number, (given, error, message) in enumerate(
        [
            (metadata | {"sha256": _checksum(metadata, {})}, CorruptTemplateError, "checksum does not match"),
            (metadata, CorruptTemplateError, "checksum does not match"),
            (metadata | {"version": "2"}, OutdatedTemplateError, r"reads \(1\)"),
        ]
    ):
        path = tmp_path / f"{number}"
        path.write_bytes(save(arrays, given))
        path.chmod(0o600)
        with pytest.raises(error, match=message):
            StoreExport.read(path)


def test_an_export_that_other_users_can_access_or_that_is_missing_is_refused(stores, tmp_path):
    path = tmp_path / "export"
    stores[1].exported(recipient=0).write(path)
    path.chmod(0o640)
    with pytest.raises(StorageError, match=r"mode 0640.*chmod 600"):
        StoreExport.read(path)
    with pytest.raises(StorageError, match="missing"):
        StoreExport.read(tmp_path / "missing")
