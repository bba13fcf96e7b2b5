"""Commands of `ppfr party` and `ppfr match`."""

from __future__ import annotations

import dataclasses
import json
import re

import cv2
import numpy as np
import pytest

from ppfr.cli import run
from ppfr.data import QualityLimits, write_crop
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


def save_untrained_system(directory, *, dim):
    network = NETWORKS["mobilefacenet-small"](dim=dim, seed=1)
    card = ModelCard(
        name="untrained", architecture=type(network).__name__, config=network.config(), dim=dim,
        in_shape=network.in_shape, training_data="none", licence="MIT", source="a test",
    )  # fmt: skip
    save_system(directory, MaskedSystem(masker=Unprotected(), network=network, card=card))


@pytest.fixture
def enrol(healthy, ppfr, tmp_path):
    """`enrol(source, ...)` enrols with an untrained system at the shared parties."""
    save_untrained_system(tmp_path / "system", dim=16)
    shared = ["--parties", healthy.directory / "client.toml", "--model", tmp_path / "system"]
    return lambda source, *options: ppfr("match", "enrol", source, *shared, *options)


@pytest.fixture
def crops(tmp_path):
    """Aligned crops of two people; that of bo is blurred."""
    sharp, other = SyntheticFaces(2, 1, seed=3).read([0, 1])
    write_crop(sharp, tmp_path / "photos" / "ana" / "sharp.png")
    write_crop(cv2.GaussianBlur(other, (0, 0), 4), tmp_path / "photos" / "bo" / "blurred.png")
    return tmp_path / "photos"


def test_a_blurred_photo_is_not_enrolled(enrol, crops):
    code, output = enrol(crops)
    assert code == 2 and output["error"]["type"] == "ProblemsError"
    message = output["error"]["message"]
    assert "1 of 2 photos" in message and "blurred.png" in message and "sharp.png" not in message
    assert "sharpness is 0.0" in message and "--min-sharpness" in message and "in focus" in message
    code, output = enrol(crops, "--skip-unreadable")
    assert code == 0 and (output["enrolled"], output["subjects"], output["num_skipped"]) == (1, 1, 1)
    assert "blurred.png" in output["skipped"][0] and "--min-sharpness" in output["skipped"][0]
    assert [one["name"] for one in output["quality"]] == [str(crops / "ana" / "sharp.png")]


@pytest.mark.parametrize("options", [["--min-sharpness", 0.001], ["--any-quality"]])
def test_options_let_a_blurred_photo_be_enrolled(options, enrol, crops):
    code, output = enrol(crops, *options)
    assert code == 0 and output["enrolled"] == 2
    sharp, blurred = output["quality"]
    assert 0.001 < blurred["sharpness"] < 0.04 < sharp["sharpness"]
    used = {key: limit for key, limit in dataclasses.asdict(QualityLimits()).items() if limit is not None}
    assert output["limits"] == ({} if options == ["--any-quality"] else used | {"min_sharpness": 0.001})


def test_what_a_crop_does_not_show_is_stated(enrol, crops):
    _, output = enrol(crops / "ana")
    assert output["not_measured"] == "confidence, inter_eye_px, yaw_deg, pitch_deg, roll_deg of 1 aligned crops"
    assert [output["quality"][0][name] for name in ("confidence", "inter_eye_px", "yaw_deg")] == [None] * 3


@pytest.mark.real_data
def test_photos_that_fail_several_limits_are_refused_with_every_reason(enrol, tmp_path, weights_root):
    photo_HWC = np.full((300, 300, 3), 128, np.uint8)
    photo_HWC[90:202, 90:202] = SyntheticFaces(1, 1, seed=3).read([0])[0]
    small_HWC = cv2.resize(photo_HWC, (60, 60), interpolation=cv2.INTER_AREA)
    for name, image_HWC in (("good", photo_HWC), ("tiny", small_HWC), ("soft", cv2.GaussianBlur(photo_HWC, (0, 0), 4))):
        write_crop(image_HWC, tmp_path / "photos" / f"{name}.png")
    options = ["--weights", weights_root, "--max-pitch", 1]
    code, output = enrol(tmp_path / "photos", *options)
    assert code == 2
    reasons = {
        name: re.findall(r"--[a-z-]+", next(line for line in output["error"]["message"].split("\n") if name in line))
        for name in ("good.png", "tiny.png", "soft.png")
    }
    assert reasons["good.png"] == ["--max-pitch"]
    assert {"--min-inter-eye-px", "--max-pitch"} <= set(reasons["tiny.png"])
    assert {"--min-sharpness", "--max-pitch"} <= set(reasons["soft.png"])
    changed = ["--min-confidence", 0, "--min-inter-eye-px", 3, "--min-sharpness", 0]
    code, output = enrol(tmp_path / "photos", *changed, "--weights", weights_root)
    assert code == 0 and output["enrolled"] == 3 and output["not_measured"] == "none"
    assert {one["name"]: one["inter_eye_px"] < 12 for one in output["quality"]} == {
        str(tmp_path / "photos" / f"{name}.png"): name == "tiny" for name in ("good", "soft", "tiny")
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--any-quality", "--max-yaw", 20], ["max_yaw_deg", "--any-quality"]),
        (["--min-confidence", 2], ["min_confidence", "2.0", "0..1"]),
    ],
)
def test_limits_that_contradict_or_are_out_of_range_are_refused(options, expected, enrol, crops):
    code, output = enrol(crops, *options)
    assert code == 2 and all(word in output["error"]["message"] for word in expected)


def test_limits_for_embeddings_are_refused(enrol, tmp_path):
    np.save(tmp_path / "rows.npy", np.eye(16)[:1])
    code, output = enrol(tmp_path / "rows.npy", "--min-sharpness", 0.1)
    assert code == 2 and "min_sharpness" in output["error"]["message"] and "embeddings" in output["error"]["message"]


def test_match_photos_in_this_process(ppfr, tmp_path):
    save_untrained_system(tmp_path / "system", dim=32)
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
    code, output = ppfr("party", "fingerprint", tmp_path / "certificates" / "front-desk.crt")
    assert code == 0 and len(bytes.fromhex(output["sha256"])) == 32
    code, output = ppfr("party", "fingerprint", tmp_path / "certificates" / "front-desk.key")
    assert code == 2 and "front-desk.key" in output["error"]["message"]
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
