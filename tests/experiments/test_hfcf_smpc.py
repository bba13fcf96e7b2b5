"""The experiment on secure matching runs end to end on the command line, and builds on real faces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppfr.cli import run as ppfr
from ppfr.core import RunOptions, check_record
from ppfr.evaluation import OracleAttacks
from ppfr.experiments import EXPERIMENTS, ExperimentContext
from support.experiments import measure_of
from support.records import rows


@pytest.mark.slow
def test_fast_test_preset_needs_no_data_and_writes_record_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PPFR_DATA", raising=False)
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    out = tmp_path / "run"
    assert ppfr(["run", "hfcf:smpc", "--preset", "fast-test", "--out", str(out), "--device", "cpu"]) == 0
    record = json.loads((out / "record.json").read_text("utf-8"))
    check_record(record)
    assert record["status"] == "complete" and record["experiment"]["people"] == "synthetic"
    assert len(rows(record, "secure_decisions")) == len(record["systems"]) == 2
    for decided in rows(record, "secure_decisions"):
        assert [f["values"] for f in decided["formats"]] == ["int8", "int16"]
        for found in decided["formats"]:
            assert all(row["num_differ_from_integers_in_the_clear"] == 0 for row in found["decisions"])
            assert [q["kind"] for q in found["queries"]] == ["verify", "any", "set", "best"]
    sees = {a["threat_model"]["sees"] for a in record["attacks"]}
    assert sees == {"scores", "decisions"} and len(rows(record, "oracle_attack")) == len(record["attacks"])
    assert {a["role"] for a in record["attacks"]} == {"attack", "positive control", "negative control"}
    page = (out / "report.html").read_text("utf-8")
    for words in ("Decisions under sharing", "Oracle attacks", "no query", "int8 decisions"):
        assert words in page
    assert ppfr(["report", str(out), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text("utf-8") == page


@pytest.mark.real_data
def test_experiment_on_real_data_builds(tmp_path: Path, data_root: Path, weights_root: Path) -> None:
    context = ExperimentContext(
        preset="laptop",
        seed=1,
        options=RunOptions(run_dir=tmp_path, device="cpu"),
        data=data_root,
        weights=weights_root,
    )
    experiment = EXPERIMENTS["hfcf:smpc"](context)
    attacks = measure_of(experiment, OracleAttacks)
    assert len(attacks.pairs) == 6000
    subjects = list(attacks.public_images.subject_ids)
    assert len(set(subjects)) == len(subjects) > 1500
    assert not set(subjects) & set(attacks.pairs.subjects())
    assert not list(tmp_path.iterdir()), "building writes nothing"
