"""Commands that export, rebuild and repair the stores of parties that are not running."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppfr.cli import run
from ppfr.secure import Enrolment, Refresh, share_rows
from ppfr.service import PartySettings, open_store


@pytest.fixture
def ppfr(capsys):
    """`ppfr("export", ...)` runs `ppfr party export ... --json`; returns exit code and the printed JSON object."""

    def call(*arguments):
        capsys.readouterr()
        code = run(["party", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def configs(ppfr, tmp_path):
    """Configurations of three parties, each with five references of epoch 1."""
    assert ppfr("trial", "--out", tmp_path, "--dim", 8)[0] == 0
    configs = [tmp_path / f"party-{party}.toml" for party in range(3)]
    point = PartySettings.read(configs[0]).parameters.fixed_point
    rows = share_rows(np.eye(8)[:5], point)
    change(configs, [Enrolment(change_id=b"e" * 16, rows=part, subjects=("a", "b", "c", "d", "e")) for part in rows])
    change(configs, [Refresh(change_id=b"r" * 16, seed=b"s" * 32)] * 3)
    return configs


def change(configs, parts):
    for config, part in zip(configs, parts, strict=True):
        with open_store(PartySettings.read(config)) as store:
            store.prepare(part)
            store.commit(part.change_id)


def content(config):
    with open_store(PartySettings.read(config)) as store:
        rows, subjects = store.load()
        return rows.ids_N16.tobytes(), rows.words_NW.tobytes(), subjects, store.epoch


def test_a_lost_store_is_rebuilt_from_two_exports(configs, ppfr, tmp_path):
    files = [tmp_path / "from-1", tmp_path / "from-2"]
    for config, path in zip(configs[1:], files, strict=True):
        code, output = ppfr("export", "--config", config, "--for", 0, "--out", path)
        assert code == 0 and (output["references"], output["epoch"], output["file"]) == (5, 1, str(path))
    expected = content(configs[0])
    rebuild = ["rebuild", "--config", configs[0], "--from", files[0], "--from"]
    code, output = ppfr(*rebuild, files[1])
    assert code == 2 and "already exists" in output["error"]["message"]
    PartySettings.read(configs[0]).store.unlink()
    code, output = ppfr(*rebuild, files[0])
    assert code == 2 and "got 1, 1" in output["error"]["message"]
    code, output = ppfr(*rebuild, configs[2])
    assert code == 2 and "is not an export" in output["error"]["message"]
    code, output = ppfr(*rebuild, files[1])
    assert (code, output["references"], output["epoch"]) == (0, 5, 1)
    assert content(configs[0]) == expected


def test_diverged_stores_are_repaired_at_each_party(configs, ppfr, tmp_path):
    with open_store(PartySettings.read(configs[2])) as store:
        rows = share_rows(np.eye(8)[:2], store.fixed_point)[2]
        store.prepare(Enrolment(change_id=b"x" * 16, rows=rows, subjects=("x", "y")))
        store.commit(b"x" * 16)
    inventories = [tmp_path / f"inventory-{party}" for party in range(3)]
    for config, path in zip(configs, inventories, strict=True):
        assert ppfr("export", "--config", config, "--out", path)[0] == 0
    for party, config in enumerate(configs):
        given = [["--inventory", path] for other, path in enumerate(inventories) if other != party]
        repair = ["repair", "--config", config, *given[0], *given[1]]
        before = content(config)
        code, counts = ppfr(*repair, "--dry-run")
        assert (code, counts["references_kept"], counts["references_erased"]) == (0, 5, 2 if party == 2 else 0)
        assert content(config) == before
        assert ppfr(*repair) == (code, counts)
        assert len(content(config)[2]) == 5
        assert party == 2 or content(config) == before
    assert len({(one[0], one[2:]) for one in map(content, configs)}) == 1


def test_a_store_in_use_and_one_of_another_party_are_refused(configs, ppfr, tmp_path):
    with open_store(PartySettings.read(configs[1])):
        code, output = ppfr("export", "--config", configs[1], "--out", tmp_path / "file")
    assert code == 2 and "already open" in output["error"]["message"]
    configs[0].write_text(configs[0].read_text().replace("party-0.shares", "party-1.shares"))
    code, output = ppfr("export", "--config", configs[0], "--out", tmp_path / "file")
    assert code == 2 and "is the store of party 1" in output["error"]["message"]
    assert not (tmp_path / "file").exists()
