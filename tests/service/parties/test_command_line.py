"""`ppfr party` and `ppfr match` as typed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppfr.cli import run
from ppfr.data import write_crop
from ppfr.masking import Unprotected
from ppfr.models import ModelCard
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import NETWORKS, MaskedSystem, save_system


@pytest.fixture
def ppfr(capsys):
    """`ppfr("match", ...)` -> exit code and the JSON object that was printed."""

    def call(*arguments):
        capsys.readouterr()
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_match_by_three_parties(healthy, people, ppfr, tmp_path):
    parties = ["--parties", healthy.directory / "client.toml"]
    np.save(tmp_path / "guest.npy", -people[:2].astype(np.float32))
    np.save(tmp_path / "probes.npy", np.stack([-people[1], people[7], -people[40]]))
    code, told = ppfr("match", "enrol", tmp_path / "guest.npy", "--subject", "guest", *parties)
    assert (code, told) == (0, {"enrolled": 2, "subjects": 1, "references_now": 152})
    code, told = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", "0.9", *parties)
    assert code == 0 and [one["subject"] for one in told["answers"]] == ["guest", "person 7", None]
    code, told = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", 0.9, "--answer", "set", *parties)
    assert [one["subjects"] for one in told["answers"]] == [["guest"], ["person 7"], []]
    code, told = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", 0.9, "--answer", "any", *parties)
    assert told["num_found"] == 2 and [one["is_enrolled"] for one in told["answers"]] == [True, True, False]
    code, told = ppfr("match", "verify", tmp_path / "probes.npy", "--subject", "guest", "--threshold", 0.9, *parties)
    assert told == {"probes": 3, "num_accepted": 1, "accepted": [True, False, False]}
    assert ppfr("match", "remove", "--subject", "guest", *parties) == (0, {"removed": 2, "references_now": 150})
    code, told = ppfr("match", "status", *parties)
    assert code == 0 and told["all_up"] and [party["references"] for party in told["parties"]] == [150] * 3
    healthy.kill(1)
    code, told = ppfr("match", "status", *parties)
    assert code == 1 and "party 1 at" in told["parties"][1]["trouble"]
    code, told = ppfr("match", "identify", tmp_path / "probes.npy", "--threshold", "0.9", *parties)
    assert code == 2 and told["error"]["type"] == "PartyError" and "party 1" in told["error"]["message"]


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
        code, told = ppfr(
            "match", "identify", tmp_path / "photos", "--threshold", 0.9999, *shared, "--backend", backend
        )
        assert code == 0 and [one["name"] for one in told["answers"]] == ["ana", "bo", "cem"]
        assert [one["subject"] for one in told["answers"]] == ["ana", "bo", "cem"]
        probe = tmp_path / "photos" / "bo" / "one.png"
        code, told = ppfr(
            "match", "verify", probe, "--subject", "bo", "--threshold", 0.9999, *shared, "--backend", backend
        )
        assert told["accepted"] == [True]
        code, told = ppfr(
            "match", "identify", probe, "--answer", "set", "--threshold", 0.9999, *shared, "--backend", backend
        )
        assert told["answers"] == [{"name": "one", "subjects": ["bo"]}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gallery", "g.npy", "--parties", "c.toml"], "give --parties"),
        ([], "give --parties"),
        (["--gallery", "absent.npy"], "absent.npy is not there"),
        (["--gallery", "g.npy", "--backend", "magic"], "'magic' is not one of"),
        (["--gallery", "g.npy", "--answer", "name"], "'name' is not one of"),
        (["--gallery", "faces"], "photos need a recogniser"),
        (["--parties", "absent.toml"], "absent.toml is not there"),
        (["--gallery", "integers.npy"], "give floats"),
    ],
)
def test_match_says_what_is_wrong(arguments, said, ppfr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("g.npy", np.eye(3))
    np.save("integers.npy", np.eye(3, dtype=int))
    write_crop(SyntheticFaces(1, 1, seed=3).read([0])[0], tmp_path / "faces" / "a.png")
    code, told = ppfr("match", "identify", "g.npy", "--threshold", "0.5", *arguments)
    assert code == 2 and said in told["error"]["message"]


def test_party_files(ppfr, tmp_path):
    code, told = ppfr("party", "trial", "--out", tmp_path / "trial", "--dim", 8, "--values", "int8")
    assert code == 0 and len(told["files"]) == 8
    code, told = ppfr("party", "init", "--config", tmp_path / "trial" / "party-0.toml")
    assert code == 2 and "exists" in told["error"]["message"]
    (tmp_path / "trial" / "party-0.shares").unlink()
    code, told = ppfr("party", "init", "--config", tmp_path / "trial" / "party-0.toml")
    assert code == 0 and told["party"] == 0
    code, told = ppfr("party", "certify", "--out", tmp_path / "certificates", "--client", "front-desk")
    assert code == 0 and [path.rpartition("/")[2] for path in told["made"]][-1] == "front-desk.crt"
    code, told = ppfr("party", "trial", "--out", tmp_path / "other", "--dim", 8, "--address", "a:1")
    assert code == 2 and "give three" in told["error"]["message"]
    code, told = ppfr("party", "trial", "--out", tmp_path / "third", "--dim", 8, "--values", "float")
    assert code == 2 and "values" in told["error"]["message"]


def test_serve_refuses_files_that_do_not_go_together(ppfr, tmp_path):
    ppfr("party", "trial", "--out", tmp_path, "--dim", 8)
    config = tmp_path / "party-1.toml"
    text = config.read_text()
    for old, new, said in (
        ("party-1.shares", "party-0.shares", "is party 0's"),
        ("dim = 8", "dim = 9", "the configuration says"),
        ('"trial"', '"other"', "another gallery"),
        ("party-1.key", "party-2.key", "do not go together"),
        ("party-1.crt", "absent.crt", "absent.crt is not there"),
    ):
        config.write_text(text.replace(old, new))
        code, told = ppfr("party", "serve", "--config", config)
        assert code == 2 and said in told["error"]["message"], told
