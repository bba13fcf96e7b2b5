"""Commands run on synthetic faces and, if available, on real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ppfr.data import read_image, write_crop
from ppfr.masking import read_masked
from ppfr.synthetic import SyntheticFaces

Ppfr = Callable[..., Any]  # the fixture of conftest


def test_mask_writes_masked_image_and_separate_secret(ppfr: Ppfr, crop: Path, tmp_path: Path) -> None:
    first = ppfr("mask", crop, "--out", tmp_path, "--json")
    assert first.code == 0 and "secret" in first.stderr
    output = first.json
    assert (output["method"], output["shape"], output["bytes_per_face"]) == ("ppfr-fd", "36x28x28", 2 * 36 * 28 * 28)
    key = tmp_path / "secret.key"
    assert key.stat().st_mode & 0o777 == 0o600
    sent = Path(output["sent"])
    assert key.read_bytes() not in sent.read_bytes()
    assert key.read_bytes().hex() not in first.stdout + first.stderr
    assert read_masked(sent).values_BKPQ.shape == (1, 36, 28, 28)
    assert read_image(output["picture"]).shape[2] == 3

    again = ppfr("mask", crop, "--out", tmp_path / "again", "--secret", key, "--json")
    assert again.json["secret_was_drawn"] is False and not again.stderr
    values = read_masked(sent).values_BKPQ
    assert read_masked(Path(again.json["sent"])).values_BKPQ.equal(values)
    other = ppfr("mask", crop, "--out", tmp_path / "other", "--json")
    assert not read_masked(Path(other.json["sent"])).values_BKPQ.equal(values)


def test_mask_unprotected_needs_no_secret(ppfr: Ppfr, crop: Path, tmp_path: Path) -> None:
    printed = ppfr("mask", crop, "--out", tmp_path, "--method", "unprotected")
    assert printed.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.masked.png", "face.masked.safetensors"]


def test_synthetic_faces_can_be_written_checked_and_read(ppfr: Ppfr, tmp_path: Path) -> None:
    written = ppfr("data", "synthetic", "--out", tmp_path, "--subjects", 3, "--images", 2, "--json").json
    assert written["images"] == 6
    assert len(list(tmp_path.rglob("*.png"))) == 6
    checked = ppfr("data", "check", tmp_path, "--json").json
    assert (checked["images"], checked["people"], checked["files_left_out"]) == (6, 3, "none")
    assert "files_left_out" not in ppfr("data", "check", "synthetic:3x2", "--json").json


def test_data_check_counts_the_files_it_leaves_out(ppfr: Ppfr, crop: Path, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "crops"
    for path in (outside / "1.png", folder / "ann" / "1.png", folder / "ann" / "2020" / "2.png"):
        path.parent.mkdir(parents=True)
        path.write_bytes(crop.read_bytes())
    (folder / "bob").symlink_to(outside, target_is_directory=True)
    for name in ("ann/x.HEIC", "ann/y.heic", "ann/.z.heic", "more.zip", ".hidden/a.zip", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"file")
    (outside / "link.zip").symlink_to(folder / "more.zip")
    checked = ppfr("data", "check", folder, "--json").json
    assert (checked["images"], checked["people"]) == (2, 2)
    left_out = checked["files_left_out"]
    assert left_out.startswith("6: 2 .heic (convert it to JPEG") and "`heif-convert`" in left_out
    assert (
        "2 .zip (unpack it first)" in left_out
        and "1 .txt" in left_out
        and "1 in deeper folders such as 2020/" in left_out
    )


def test_evaluate_prints_figures_with_n_and_interval(ppfr: Ppfr, system: Path) -> None:
    printed = ppfr("evaluate", "--model", system, "--protocol", "synthetic:60", "--json")
    assert printed.code == 0
    output = printed.json
    assert output["num_genuine"] == output["num_impostor"] == 30
    assert set(output["tar_at_far"]) == {"0.01", "0.001", "0.0001"}
    for figure in (output["accuracy"], output["eer"], output["tar_at_far"]["0.001"]):
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1 and figure["n"] > 0
    assert 0 <= output["accuracy_std_over_folds"] <= 0.5
    assert output["masker"] == "ppfr-fd" and "roc" not in output
    assert output["embedded"] == "image alone"
    text = ppfr("evaluate", "--model", system, "--protocol", "synthetic:60").stdout
    assert f"{100 * output['accuracy']['value']:.2f} % [" in text and "n=60" in text


def test_evaluation_with_another_secret_gives_other_figures(ppfr: Ppfr, system: Path, tmp_path: Path) -> None:
    """A wrong secret of the right size cannot be detected; only the figures differ."""
    (tmp_path / "other.key").write_bytes(bytes(range(32)))
    arguments = ("evaluate", "--model", system, "--protocol", "synthetic:60", "--json")
    right, wrong = ppfr(*arguments).json, ppfr(*arguments, "--secret", tmp_path / "other.key").json
    assert right["auc"] != wrong["auc"]


def test_models_are_described_and_exported(ppfr: Ppfr, system: Path, tmp_path: Path) -> None:
    listed = ppfr("models", "list", "--json").json["models"]
    assert {"mobilefacenet-y1", "mobilefacenet-casia"} <= {entry["name"] for entry in listed}
    assert all(entry["licence"] and entry["training_data"] for entry in listed)
    card = ppfr("models", "show", system, "--json").json
    assert card["input"] == "36x28x28" and card["training_data"] == "synthetic"
    pytest.importorskip("onnxruntime")
    done = ppfr("models", "export", system, "--out", tmp_path / "n.onnx", "--json")
    assert done.code == 0 and done.json["largest_difference"] < 1e-4 and (tmp_path / "n.onnx").stat().st_size > 1000


def test_doctor_reports_what_is_missing_for_each_task(ppfr: Ppfr) -> None:
    printed = ppfr("doctor", "--json")
    jobs = printed.json["jobs"]
    assert printed.code == 0 and printed.json["can_run_demo"] is True
    assert "ppfr models fetch" in jobs["photos"]
    assert "ppfr data fetch lfw" in jobs["real faces"] and "mobilefacenet_y1" in jobs["real faces"]


def test_run_lists_experiments(ppfr: Ppfr) -> None:
    assert {"spine:demo", "spine:lfw", "spine:cfp"} <= set(ppfr("run", "list", "--json").json)


@pytest.mark.real_data
def test_real_photos_are_aligned_and_masked(ppfr: Ppfr, tmp_path: Path, data_root: Path, weights_root: Path) -> None:
    photo = sorted((data_root / "lfw_photos").rglob("*.jpg"))[0]
    done = ppfr("align", photo, "--out", tmp_path / "crops", "--weights", weights_root, "--largest", "--json")
    assert done.code == 0 and read_image(done.json["file"]).shape == (112, 112, 3)
    sent = ppfr("mask", photo, "--out", tmp_path / "sent", "--weights", weights_root, "--largest", "--json")
    assert sent.code == 0 and json.loads(sent.stdout)["bytes_per_face"] == 56448


@pytest.mark.real_data
def test_align_reports_quality_and_applies_limits(ppfr: Ppfr, tmp_path: Path, weights_root: Path) -> None:
    for number, face_HWC in enumerate(SyntheticFaces(2, 1, seed=3).read([0, 1])):
        photo_HWC = np.full((300, 300, 3), 128, np.uint8)
        photo_HWC[90:202, 90:202] = face_HWC
        photo_HWC = cv2.GaussianBlur(photo_HWC, (0, 0), 4) if number else photo_HWC
        write_crop(photo_HWC, tmp_path / "in" / f"{number}.png")
    arguments = ["align", tmp_path / "in", "--out", tmp_path / "out", "--weights", weights_root]
    done = ppfr(*arguments, "--json")
    assert done.code == 0 and (done.json["crops"], done.json["crops_of_earlier_runs"]) == (2, 0)
    sharp, blurred = done.json["quality"]
    assert sharp["sharpness"] > 0.04 > blurred["sharpness"] and sharp["confidence"] > 0.85
    assert ppfr(*arguments, "--json").json["crops_of_earlier_runs"] == 2
    refused = ppfr(*arguments, "--min-sharpness", 0.04, "--json")
    message = refused.json["error"]["message"]
    assert refused.code == 2 and "1.png" in message and "sharpness" in message and "delete" in message
    again = ppfr(*arguments, "--min-sharpness", 0.001)
    assert again.code == 0 and "1.png: confidence 0." in again.stdout and "yaw deg" in again.stdout
    one = ppfr(
        "align", tmp_path / "in" / "1.png", *arguments[2:], "--min-sharpness", 0.04, "--max-pitch", 0.1, "--json"
    )
    assert one.code == 2 and all(word in one.json["error"]["message"] for word in ("sharpness", "pitch", "1.png"))


@pytest.mark.real_data
def test_doctor_and_lists_find_available_files(ppfr: Ppfr, data_root: Path, weights_root: Path) -> None:
    output = ppfr("doctor", "--data", data_root, "--weights", weights_root, "--json").json
    assert output["jobs"]["photos"] == output["jobs"]["real faces"] == "ready"
    sets = ppfr("data", "list", "--data", data_root, "--json").json
    assert sets["lfw"].startswith("6000 pairs in 10 folds, 7701 images")
    assert sets["lfw-train"].split()[1] == "images," and int(sets["lfw-train"].split()[0]) > 5000
    networks = ppfr("models", "list", "--weights", weights_root, "--json").json["models"]
    assert all(not entry["file"].startswith("not installed") for entry in networks)


def test_identify_says_not_found(ppfr: Ppfr, tmp_path: Path) -> None:
    np.save(tmp_path / "gallery.npy", np.eye(3, 8))
    np.save(tmp_path / "probes.npy", np.eye(4, 8)[2:])
    command = ("match", "identify", tmp_path / "probes.npy", "--gallery", tmp_path / "gallery.npy", "--threshold", 0.5)
    for answer, key, empty in (("best", "subject", None), ("set", "subjects", [])):
        arguments = (*command, "--backend", "exact", "--answer", answer)
        assert ppfr(*arguments, "--json").json["answers"][1] == {"name": "1", key: empty}
        words = ppfr(*arguments).stdout
        assert "not found" in words and "not measured" not in words


def test_match_goes_on_without_unreadable_photos(ppfr: Ppfr, crop: Path, system: Path, tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    (tmp_path / "photos" / "ann" / "1.PNG").write_bytes(crop.read_bytes())
    (tmp_path / "photos" / "bob" / "1.png").write_bytes(b"no image")
    (tmp_path / "photos" / "ann" / "._1.png").write_bytes(b"hidden")
    command = ["match", "identify", tmp_path / "photos", "--threshold", 0.9, "--gallery", crop, "--backend", "exact"]
    assert "1 of 2 photos cannot be used" in ppfr(*command, "--model", system).stderr
    printed = ppfr(*command, "--model", system, "--skip-unreadable", "--json")
    assert printed.code == 0
    assert printed.json["answers"] == [{"name": "ann", "subject": "face"}]
    assert printed.json["num_skipped"] == 1 and "bob" in printed.json["skipped"][0]
