"""The workflows of `ppfr train`, `ppfr evaluate` and `ppfr attack`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ppfr.core import CheckpointError, InvalidInputError, OverlapError, RunOptions, UnsupportableError
from ppfr.systems import make_masker
from ppfr.workflows import AttackRequest, TrainingRequest, attack_method, evaluate_model, train_system, write_reports
from ppfr.workflows._attack import _systems

TRAINING = TrainingRequest(
    images="synthetic:6x4",
    method="ppfr-fd",
    strategy="scratch",
    teacher="mobilefacenet-y1",
    network="mobilefacenet-small",
    head="cosface",
    epochs=1,
    batch_size=12,
    precision="32-true",
    seed=1,
)
ATTACK = AttackRequest(
    kind="linkage",
    method="unprotected",
    public="synthetic:8x2",
    targets="synthetic:100",
    knows_secret=True,
    teacher="",
    epochs=1,
    batch_size=16,
    num_targets=10,
    seed=1,
)


def train(out_dir: Path, **changes: Any) -> dict[str, Any]:
    resumes, secret_path = changes.pop("resumes", False), changes.pop("secret_path", None)
    with_tensorboard = changes.pop("with_tensorboard", False)
    return train_system(
        dataclasses.replace(TRAINING, **changes),
        options=RunOptions(run_dir=out_dir, device="cpu", resumes=resumes),
        secret_path=secret_path,
        data=None,
        weights=None,
        with_tensorboard=with_tensorboard,
    )


def evaluation(system: Path, *, flips: bool) -> dict[str, Any]:
    return evaluate_model(
        str(system),
        "synthetic:60",
        secret_path=None,
        flips=flips,
        data=None,
        weights=None,
        seed=1,
        device="cpu",
    )


def attack(out_dir: Path, request: AttackRequest, *, resumes: bool = False) -> dict[str, Any]:
    options = RunOptions(run_dir=out_dir, device="cpu", resumes=resumes)
    return attack_method(request, options=options, secret_path=None, data=None, weights=None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of plain synthetic faces, barely trained."""
    out_dir = tmp_path_factory.mktemp("plain") / "plain"
    train(out_dir, method="unprotected")
    return out_dir


def test_trained_system_is_reproducible_and_can_be_evaluated(tmp_path: Path) -> None:
    output = train(tmp_path / "one", with_tensorboard=True)
    assert output["steps"] == 2 and output["images"] == 24
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"network.safetensors", "masker.json", "secret.key", "training"} <= names
    assert (tmp_path / "one" / "secret.key").stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "one" / "training").rglob("*tfevents*"))
    again = train(tmp_path / "two", secret_path=tmp_path / "one" / "secret.key")
    assert again["sha256"] == output["sha256"], "same seed, same secret: the same weights to the last bit"
    assert train(tmp_path / "one", resumes=True)["sha256"] == output["sha256"], "resuming changes nothing"
    with pytest.raises(CheckpointError):
        train(tmp_path / "one", resumes=True, head="arcface")
    figures = evaluation(tmp_path / "one", flips=False)
    assert figures["masker"] == "ppfr-fd" and figures["accuracy"]["n"] == 60
    assert figures["embedded"] == "image alone"
    with pytest.raises(UnsupportableError, match=r"ppfr-fd .*--flip"):
        evaluation(tmp_path / "one", flips=True)


def test_plain_images_can_be_mirrored_by_the_recogniser(plain: Path) -> None:
    assert evaluation(plain, flips=True)["embedded"] == "image also mirrored by the recogniser"


def test_method_without_secret_creates_no_secret_file(plain: Path) -> None:
    assert not (plain / "secret.key").exists()
    assert json.loads((plain / "masker.json").read_text(encoding="utf-8"))["name"] == "unprotected"


def test_attack_writes_figures_record_and_report(plain: Path, tmp_path: Path) -> None:
    request = dataclasses.replace(ATTACK, teacher=str(plain), method="frequency", runs_controls=False)
    output = attack(tmp_path / "run", request)
    assert output["status"] == "complete" and output["failed_stages"] == []
    assert list(output["outcome"]) == ["linkage-frequency"]
    assert output["is_sound"] is None and output["controls"].startswith("none ran")
    figures = output["outcome"]["linkage-frequency"]
    assert figures["measured"] and figures["gallery_size"] == figures["num_targets"] == 10
    assert figures["chance_rank_1"] == pytest.approx(0.1)
    assert 0 <= figures["rank_1"]["low"] <= figures["rank_1"]["value"] <= figures["rank_1"]["high"] <= 1
    assert figures["pairs"]["synthetic-pairs"]["n"] == 200, "each of 100 pairs in both orders"
    record = json.loads(Path(output["record"]).read_text(encoding="utf-8"))
    assert "--batch-size 16" in record["experiment"]["command"]
    assert "--no-controls" in record["experiment"]["command"]
    page = Path(output["report"]).read_text(encoding="utf-8")
    assert "only baselines" not in page and "Its figures on leakage are lower bounds that nothing supports" in page
    both = write_reports([tmp_path / "run", Path(output["record"])], tmp_path / "both.html", with_pictures=False)
    assert both["records"] == 2 and (tmp_path / "both.html").stat().st_size > 10_000
    with pytest.raises(CheckpointError, match="--resume"):
        attack(tmp_path / "run", request)
    assert attack(tmp_path / "run", request, resumes=True)["outcome"] == output["outcome"]


def test_attack_with_a_recogniser_at_chance_fails_its_positive_control(plain: Path, tmp_path: Path) -> None:
    """The recogniser of the fixture is hardly trained: whatever the attack shows, it shows nothing."""
    request = dataclasses.replace(ATTACK, teacher=str(plain), method="frequency")
    output = attack(tmp_path / "run", request)
    assert output["status"] == "complete" and output["failed_stages"] == []
    assert list(output["outcome"]) == ["linkage-unprotected", "linkage-frequency", "linkage-constant"]
    assert [text.split()[0] for text in output["failed_controls"]] == ["linkage-unprotected"]
    assert output["is_sound"] is False and output["controls"] == "1 of 2 passed"
    record = json.loads(Path(output["record"]).read_text(encoding="utf-8"))
    roles = {system["name"]: system["role"] for system in record["systems"]}
    assert roles == {"unprotected": "baseline", "frequency": "protected", "constant": "control"}
    page = Path(output["report"]).read_text(encoding="utf-8")
    assert "only baselines" not in page and "A control failed" in page


@pytest.mark.parametrize(("method", "role"), [("unprotected", "baseline"), ("constant", "control")])
def test_attack_on_a_control_system_is_planned_once(method: str, role: str) -> None:
    systems = _systems(dataclasses.replace(ATTACK, method=method), make_masker(method, secret=None))
    assert {system.name: system.role for system in systems} == {"unprotected": "baseline", "constant": "control"}
    assert len(systems) == 2 and next(system for system in systems if system.name == method).role == role


def test_unknown_attack_and_masked_teacher_are_refused(plain: Path, tmp_path: Path) -> None:
    train(tmp_path / "masked")
    with pytest.raises(InvalidInputError, match="--method unprotected"):
        attack(tmp_path / "run", dataclasses.replace(ATTACK, teacher=str(tmp_path / "masked")))
    with pytest.raises(InvalidInputError, match=r"linkage.*'guess'"):
        attack(tmp_path / "run", dataclasses.replace(ATTACK, kind="guess"))
    assert not (tmp_path / "run").exists()


@pytest.mark.real_data
def test_public_faces_with_target_subjects_are_refused(plain: Path, tmp_path: Path, data_root: Path) -> None:
    request = dataclasses.replace(ATTACK, teacher=str(plain), public="cfp-train", targets="lfw")
    with pytest.raises(OverlapError):
        options = RunOptions(run_dir=tmp_path, device="cpu")
        attack_method(request, options=options, secret_path=None, data=data_root, weights=None)
