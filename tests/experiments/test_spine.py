"""Experiments build wherever their data is available, and the smallest one runs end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppfr.core import CheckpointError, RunOptions, check_record
from ppfr.evaluation import GalleryAttacks, ImageAttacks, Verification
from ppfr.experiments import EXPERIMENTS, IMAGE_ATTACKS, PRESETS, ExperimentContext
from ppfr.experiments.spine._experiments import DEMO_BUDGETS, REAL_BUDGETS
from ppfr.workflows import _run as jobs
from ppfr.workflows import list_experiments, run_named_experiment
from support.experiments import attacks_of, measure_of

DEMO_RECORD_KEYS = {
    *("is_sound", "controls", "status", "failed_stages", "failed_controls", "accuracy", "wall_s", "record", "report")
}


def test_every_experiment_has_a_docstring_and_all_presets() -> None:
    assert all(len(line) > 20 for line in list_experiments().values())
    for budgets in (DEMO_BUDGETS, REAL_BUDGETS):
        assert tuple(budgets) == PRESETS
        for budget in budgets.values():
            assert all(budget.attack_preset in kind.sizes for kind in IMAGE_ATTACKS.values())


def check(experiment: object, name: str, *, preset: str = "fast-test") -> None:
    assert experiment.name == name and experiment.preset == preset  # type: ignore[attr-defined]
    roles = {system.name: system.role for system in experiment.systems}  # type: ignore[attr-defined]
    assert roles == {"unprotected": "baseline", "ppfr-fd": "protected", "constant": "control"}
    attacked = {(plan.system, plan.role) for plan in attacks_of(experiment)}  # type: ignore[attr-defined]
    assert ("unprotected", "positive control") in attacked and ("constant", "negative control") in attacked
    trained = measure_of(experiment, ImageAttacks).plans  # type: ignore[arg-type]
    on_protected = [plan.granted.knows_secret for plan in trained if plan.system == "ppfr-fd"]
    assert sorted(on_protected) == [False] * 4 + [True] * 3, "each with and without the secret, and one known photo"
    looked_up = measure_of(experiment, GalleryAttacks).plans  # type: ignore[arg-type]
    assert len(looked_up) == 3 * len(roles), "the attacks without training always run beside the trained ones"


def test_demo_builds_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PPFR_DATA", raising=False)
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    experiment = EXPERIMENTS["spine:demo"](
        ExperimentContext(preset="fast-test", seed=1, options=RunOptions(run_dir=tmp_path, device="cpu"))
    )
    check(experiment, "spine:demo")
    assert experiment.people == "synthetic"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "preset", "pairs"),
    [
        ("spine:lfw", "laptop", [6000]),
        ("spine:cfp", "laptop", [7000, 7000]),
        ("spine:lfw", "fast-test", [300]),  # not all images are embedded
        ("spine:cfp", "fast-test", [300, 300]),
    ],
)
def test_experiments_on_real_data_build(
    name: str, preset: str, pairs: list[int], tmp_path: Path, data_root: Path, weights_root: Path
) -> None:
    context = ExperimentContext(
        preset=preset,
        seed=1,
        options=RunOptions(run_dir=tmp_path, device="cpu"),
        data=data_root,
        weights=weights_root,
    )
    experiment = EXPERIMENTS[name](context)
    check(experiment, name, preset=preset)
    assert [len(protocol) for protocol in measure_of(experiment, Verification).protocols] == pairs
    assert experiment.people == "real" and measure_of(experiment, ImageAttacks).lpips is not None
    trained_on = set(experiment.training_images.subject_ids)
    assert not any(trained_on & set(protocol.subjects()) for protocol in measure_of(experiment, Verification).protocols)
    adapted = {entry.name for system in experiment.systems if system.training for entry in system.training.provenance}
    assert adapted and not adapted & {each.name for each in experiment.recognisers}, "evaluated by another network"
    assert not list(tmp_path.iterdir()), "building writes nothing"


def test_problems_of_a_run_are_summarised() -> None:
    record = {
        "attacks": [
            {"name": "won", "control": {"expects": "win", "rule": ""}},
            {"name": "lost", "control": {"expects": "win", "rule": ""}},
            {"name": "unknown", "control": {"expects": "win", "rule": ""}},
            {"name": "no control", "control": None},
        ],
        "results": {
            "attack_run": [
                {"attack": "won", "is_control_met": True},
                {"attack": "lost", "is_control_met": False},
                {"attack": "no control", "is_control_met": None},
            ]
        },
        "stages": [
            {"name": "fine", "error": None},
            {"name": "fit/x", "error": {"kind": "DatasetError", "message": "too few"}},
        ],
    }
    assert jobs.failed_controls(record) == ["lost was expected to win"]
    assert jobs.failed_stages(record) == ["fit/x: DatasetError: too few"]


@pytest.mark.slow
def test_demo_runs_end_to_end_and_resumes_after_an_interruption(tmp_path: Path) -> None:
    options = RunOptions(run_dir=tmp_path / "run", device="cpu")
    resumed = RunOptions(run_dir=tmp_path / "run", device="cpu", resumes=True)
    told = run_named_experiment("spine:demo", preset="fast-test", seed=1, options=options)
    assert set(told) == DEMO_RECORD_KEYS
    assert told["status"] == "complete" and told["failed_stages"] == []
    assert set(told["accuracy"]) == {"unprotected on synthetic-pairs", "ppfr-fd on synthetic-pairs"}
    assert told["is_sound"] == (not told["failed_controls"])
    record = json.loads(Path(told["record"]).read_text(encoding="utf-8"))
    check_record(record)
    assert len(record["attacks"]) == len(record["results"]["attack_run"]) == 15 + 9
    assert {row["attack"] for row in record["results"]["gallery_attack"]} == {
        attack["name"] for attack in record["attacks"] if attack["config"].get("level") == "trivial"
    }
    own = next(row for row in record["results"]["gallery_attack"] if row["attack"] == "enrolment-unprotected")
    assert own["rank_1"]["value"] == pytest.approx(own["plain_rank_1"]["value"], abs=0.05), "its own network"
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert str(tmp_path) not in page + json.dumps(record), "no path of this machine"

    with pytest.raises(CheckpointError, match="--resume"):
        run_named_experiment("spine:demo", preset="fast-test", seed=1, options=options)
    lost = tmp_path / "run" / "parts" / "evaluate--ppfr-fd.json"
    before = json.loads(lost.read_text(encoding="utf-8"))
    lost.unlink()
    again = run_named_experiment("spine:demo", preset="fast-test", seed=1, options=resumed)
    assert again["status"] == "complete" and again["accuracy"] == told["accuracy"]
    assert json.loads(lost.read_text(encoding="utf-8"))["result"] == before["result"]
