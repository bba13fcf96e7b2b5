"""`ppfr-fd:analysis`: which channels each penalty weight drops, on synthetic faces."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppfr.core import CheckpointError, DatasetError, InvalidInputError, RunOptions
from ppfr.experiments.ppfr_fd import _channel_analysis as job
from ppfr.experiments.ppfr_fd import analyse_channels
from ppfr.masking import PpfrFd
from ppfr.synthetic import SyntheticFaces
from ppfr.training import Plan


def analyse(out_dir: Path, **options: Any) -> dict[str, Any]:
    where = RunOptions(run_dir=out_dir, device=options.pop("device", "cpu"), resumes=options.pop("resumes", False))
    return analyse_channels(**{"preset": "fast-test", "seed": 1, "options": where, **options})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return analyse(tmp_path_factory.mktemp("analysis") / "run")


@pytest.fixture(scope="module")
def record(result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(result["record"]).read_text(encoding="utf-8"))
    return found


def test_analysis_record_has_data_task_and_command(record: dict[str, Any]) -> None:
    assert (record["experiment"], record["preset"], record["seed"]) == ("ppfr-fd:analysis", "fast-test", 1)
    assert record["command"] == "ppfr analyse-channels --preset fast-test --seed 1"
    assert record["data"] == {
        "name": "synthetic-less-held-out",
        "num_images": 72,
        "num_subjects": 16,
        "num_held_out": 8,
    }
    assert record["candidates"] == sorted([0, *PpfrFd(secret=bytes(32)).kept_channels])
    assert record["task"] == "the margin head's loss on the labels" and record["provenance"] == []
    assert [row["training"]["steps"] for row in record["rows"]] == [8, 8]
    assert "/" not in json.dumps({key: value for key, value in record.items() if key not in {"start", "rows"}})


def test_rows_of_the_analysis_partition_the_candidates_consistently(record: dict[str, Any]) -> None:
    energies = record["energies"]
    total = sum(energies.values())
    for row in record["rows"]:
        assert sorted(row["channels_kept"] + row["channels_dropped"]) == record["candidates"]
        assert row["channels_kept"] == [c for c in record["candidates"] if row["gates"][str(c)] > 0.5]
        share = sum(energies[str(c)] for c in row["channels_kept"]) / total
        assert row["energy_share_kept"] == pytest.approx(share, rel=1e-5, abs=1e-9)
        for figure in (row["task_loss"], row["task_loss_of_all_channels"]):
            assert figure["n"] == 8 and figure["low"] <= figure["value"] <= figure["high"]
        if row["channels_kept"]:
            PpfrFd(secret=bytes(32), channels=row["channels_kept"])
    assert energies["0"] == max(energies.values())


def test_large_penalty_drops_dc_and_zero_penalty_keeps_more(record: dict[str, Any]) -> None:
    free, dear = record["rows"]
    assert (free["penalty_weight"], dear["penalty_weight"]) == (0.0, 1000.0)
    assert 0 in dear["channels_dropped"] and dear["gates"]["0"] < free["gates"]["0"]
    assert dear["energy_share_kept"] < 0.2 < free["energy_share_kept"]


def test_finished_analysis_is_rejected_without_resume_and_unchanged_with_it(result: dict[str, Any]) -> None:
    out_dir = Path(result["record"]).parent
    with pytest.raises(CheckpointError, match="--resume"):
        analyse(out_dir)
    again = analyse(out_dir, resumes=True)
    assert again["rows"] == result["rows"]
    with pytest.raises(CheckpointError, match="penalty_weight"):
        analyse(out_dir, resumes=True, penalty_weights=(0.0, 7.0))


def test_analysis_rejects_unknown_presets_and_invalid_weights_before_it_writes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'paper'; available: fast-test, laptop"):
        analyse(tmp_path, preset="paper")
    for weights in ((), (-1.0,), (0.5, 0.5), (float("nan"),)):
        with pytest.raises(InvalidInputError, match=r"penalty weights.*give one or more"):
            analyse(tmp_path, penalty_weights=weights)
    assert not list(tmp_path.iterdir())


def test_held_out_images_are_one_per_subject_of_the_training_set() -> None:
    faces = SyntheticFaces(6, 4, seed=1)
    chosen = job._held_out(faces, 4, seed=3)
    assert np.array_equal(chosen, job._held_out(faces, 4, seed=3))
    assert len({faces.subject_ids[i] for i in chosen}) == len(chosen) == 4
    assert all(i % 4 == 3 for i in chosen)
    with pytest.raises(DatasetError, match=r"0 of 5 subjects.*larger image set"):
        job._held_out(SyntheticFaces(5, 2, seed=1), 4, seed=3)


@pytest.mark.real_data
def test_laptop_strategy_works_with_the_public_network(
    weights_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher's embedding as the task, from an adapted start; two steps of each on synthetic faces."""
    laptop = job.analysis_budget("laptop", weights=weights_root)
    two_steps = Plan(epochs=1, batch_size=8, max_steps=2)
    small = dataclasses.replace(
        laptop,
        images="synthetic:6x4",
        start=dataclasses.replace(laptop.start, plan=two_steps),  # type: ignore[type-var]
        plan=two_steps,
        num_held_out=3,
        num_resamples=50,
    )
    monkeypatch.setattr(job, "analysis_budget", lambda preset, *, weights: small)
    result = analyse(tmp_path, preset="laptop", weights=weights_root, penalty_weights=(0.1,))
    record = json.loads(Path(result["record"]).read_text(encoding="utf-8"))
    assert "mobilefacenet-y1" in record["task"] and record["provenance"][0]["name"] == "mobilefacenet-y1"
    assert record["command"].endswith("--penalty-weight 0.1")
    (row,) = record["rows"]
    assert 0 < row["task_loss"]["value"] < 2
    assert row["training"]["task"]["gate_lr_scale"] == laptop.gate_lr_scale
