"""Commands of `ppfr party` and `ppfr match`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppfr.cli import run
from ppfr.data import write_crop
from ppfr.masking import Unprotected
from ppfr.models import ModelCard
from ppfr.service import PartySettings
from ppfr.service._parties._thresholds import read_thresholds
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import NETWORKS, MaskedSystem, save_system


@pytest.fixture
def ppfr(capsys):
    """`ppfr("match", ...)` returns the exit code and the printed JSON object."""

    def call(*arguments):
        capsys.readouterr()
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_match_by_three_parties(healthy, people, ppfr, tmp_path):
    parties = ["--parties", healthy.directory / "client.toml"]
    np.save(tmp_path / "guest.npy", -people[:2].astype(np.float32))
    np.save(tmp_path / "probes.npy", np.stack([-people[1], people[7], -people[40]]))
    code, output = ppfr("match", "enrol", tmp_path / "guest.npy", "--subject", "guest", *parties)
    assert (code, output) == (0, {"enrolled": 2, "subjects": 1, "references_now": 152})
    code, output = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", "0.9", *parties)
    assert code == 0 and [one["subject"] for one in output["answers"]] == ["guest", "person 7", None]
    code, output = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", 0.9, "--answer", "set", *parties)
    assert [one["subjects"] for one in output["answers"]] == [["guest"], ["person 7"], []]
    code, output = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", 0.9, "--answer", "any", *parties)
    assert output["num_found"] == 2 and [one["is_enrolled"] for one in output["answers"]] == [True, True, False]
    code, output = ppfr("match", "verify", tmp_path / "probes.npy", "--subject", "guest", "--threshold", 0.9, *parties)
    assert output == {"probes": 3, "num_accepted": 1, "accepted": [True, False, False]}
    code, output = ppfr(
        "match", "verify", tmp_path / "probes.npy", "--subject", "guest", "--threshold", "door", *parties
    )
    assert output["accepted"] == [True, False, False]
    code, output = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", "gate", *parties)
    assert code == 2 and "'gate'" in output["error"]["message"] and "door" in output["error"]["message"]
    assert ppfr("match", "remove", "--subject", "guest", *parties) == (0, {"removed": 2, "references_now": 150})
    code, output = ppfr("match", "status", *parties)
    assert code == 0 and output["all_up"] and [party["references"] for party in output["parties"]] == [150] * 3
    healthy.kill(1)
    code, output = ppfr("match", "status", *parties)
    assert code == 1 and "cannot be reached" in output["parties"][1]["problem"]
    code, output = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", "0.9", *parties)
    assert code == 2 and output["error"]["type"] == "PartyError" and "Party 1" in output["error"]["message"]


def test_match_photos_in_this_process(ppfr, tmp_path):
    network = NETWORKS["mobilefacenet-small"](dim=32, seed=1)
    card = ModelCard(
        name="untrained", architecture=type(network).__name__, config=network.config(), dim=32,
        in_shape=network.in_shape, training_data="none", licence="MIT", source="a test",
    )  # fmt: skip
    save_system(tmp_path / "system", MaskedSystem(masker=Unprotected(), network=network, card=card))
    faces = SyntheticFaces(3, 1, seed=3).read([0, 1, 2])
    for name, face in zip(("ana", "bo", "cem"), faces, strict=True):
        write_crop(face, tmp_path / "photos" / name / "one.png")
    shared = ["--gallery", tmp_path / "photos", "--model", tmp_path / "system"]
    for backend in ("three-party", "exact"):
        code, output = ppfr(
            "match", "identify", tmp_path / "photos", "--threshold", 0.9999, *shared, "--backend", backend
        )
        assert code == 0 and [one["name"] for one in output["answers"]] == ["ana", "bo", "cem"]
        assert [one["subject"] for one in output["answers"]] == ["ana", "bo", "cem"]
        probe = tmp_path / "photos" / "bo" / "one.png"
        code, output = ppfr(
            "match", "verify", probe, "--subject", "bo", "--threshold", 0.9999, *shared, "--backend", backend
        )
        assert output["accepted"] == [True]
        code, output = ppfr(
            "match", "identify", probe, "--answer", "set", "--threshold", 0.9999, *shared, "--backend", backend
        )
        assert output["answers"] == [{"name": "one", "subjects": ["bo"]}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gallery", "g.npy", "--parties", "c.toml"], "--gallery SOURCE"),
        ([], "--gallery SOURCE"),
        (["--gallery", "absent.npy"], "absent.npy does not exist"),
        (["--gallery", "g.npy", "--backend", "magic"], "exact, three-party, got 'magic'"),
        (["--gallery", "g.npy", "--answer", "name"], "best, any, set, got 'name'"),
        (["--gallery", "faces"], "--model"),
        (["--parties", "absent.toml"], "absent.toml does not exist"),
        (["--gallery", "integers.npy"], "integers.npy"),
        (["--gallery", "g.npy", "--threshold", "door"], "'door' is not a number"),
    ],
)
def test_match_refuses_invalid_options(arguments, expected, ppfr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("g.npy", np.eye(3))
    np.save("integers.npy", np.eye(3, dtype=int))
    write_crop(SyntheticFaces(1, 1, seed=3).read([0])[0], tmp_path / "faces" / "a.png")
    code, output = ppfr("match", "identify", "g.npy", "--threshold", "0.5", *arguments)
    assert code == 2 and expected in output["error"]["message"]


def test_party_files(ppfr, tmp_path):
    code, output = ppfr("party", "trial", "--out", tmp_path / "trial", "--dim", 8, "--values", "int8")
    assert code == 0 and len(output["files"]) == 8
    code, output = ppfr("party", "init", "--config", tmp_path / "trial" / "party-0.toml")
    assert code == 2 and "exists" in output["error"]["message"]
    (tmp_path / "trial" / "party-0.shares").unlink()
    code, output = ppfr("party", "init", "--config", tmp_path / "trial" / "party-0.toml")
    assert code == 0 and output["party"] == 0
    code, output = ppfr("party", "certify", "--out", tmp_path / "certificates", "--client", "front-desk")
    assert code == 0 and [path.rpartition("/")[2] for path in output["made"]][-1] == "front-desk.crt"
    code, output = ppfr("party", "trial", "--out", tmp_path / "other", "--dim", 8, "--address", "a:1")
    assert code == 2 and "a:1" in output["error"]["message"]
    code, output = ppfr("party", "trial", "--out", tmp_path / "third", "--dim", 8, "--values", "float")
    assert code == 2 and "values" in output["error"]["message"]


def test_hidden_threshold_files(ppfr, tmp_path):
    ppfr("party", "trial", "--out", tmp_path, "--dim", 8, "--values", "int8")
    shared = ["party", "thresholds", "--out", tmp_path, "--threshold", 0.4]
    code, output = ppfr(*shared, "--name", "door", "--config", tmp_path / "party-1.toml")
    names = [f"party-{party}.door.threshold" for party in range(3)]
    assert code == 0 and output == {"name": "door", "files": [str(tmp_path / name) for name in names]}
    config = tmp_path / "party-2.toml"
    config.write_text(config.read_text().replace("# thresholds", "thresholds"))
    assert list(read_thresholds(PartySettings.read(config))) == ["door"]
    assert ppfr(*shared, "--name", "gate", "--dim", 8)[0] == 0  # of int16
    for arguments, expected in (
        (["--name", "door", "--dim", 8], "party-0.door.threshold already exists"),
        (["--name", "other"], "--config"),
        (["--name", "other", "--config", config, "--dim", 8], "--config"),
        (["--name", "other", "--config", config, "--values", "int8"], "--config"),
        (["--name", "other", "--dim", 0], "dim"),
        (["--name", "other", "--dim", 8, "--values", "float"], "'float'"),
        (["--name", "0.4", "--dim", 8], "'0.4'"),
    ):
        code, output = ppfr(*shared, *arguments)
        assert code == 2 and expected in output["error"]["message"], output
    assert len(list(tmp_path.glob("*.threshold"))) == 6
    config.write_text(config.read_text().replace("party-2.door", "party-0.door"))
    code, output = ppfr("party", "serve", "--config", config)
    assert code == 2 and "party-0.door.threshold is the file of party 0" in output["error"]["message"]


def test_serve_refuses_inconsistent_files(ppfr, tmp_path):
    ppfr("party", "trial", "--out", tmp_path, "--dim", 8)
    config = tmp_path / "party-1.toml"
    text = config.read_text()
    for old, new, expected in (
        ("party-1.shares", "party-0.shares", "is the store of party 0"),
        ("dim = 8", "dim = 9", "dim"),
        ('"trial"', '"other"', "`gallery`"),
        ("party-1.key", "party-2.key", "party-2.key"),
        ("party-1.crt", "absent.crt", "absent.crt does not exist"),
    ):
        config.write_text(text.replace(old, new))
        code, output = ppfr("party", "serve", "--config", config)
        assert code == 2 and expected in output["error"]["message"], output
