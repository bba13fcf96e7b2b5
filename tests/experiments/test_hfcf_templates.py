"""The experiments on identity-specific mapping run end to end on the command line, and build on real faces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ppfr.cli import run as ppfr
from ppfr.core import RunOptions, check_record
from ppfr.evaluation import Identification, TemplateInversion, Verification
from ppfr.experiments import EXPERIMENTS, ExperimentContext
from ppfr.experiments.hfcf._templates import simulated_keys
from ppfr.templates import IdentityMapping
from support.experiments import measure_of


@pytest.mark.parametrize("name", [pytest.param("hfcf:mapping", marks=pytest.mark.slow), "hfcf:one_to_n"])
def test_fast_test_preset_needs_no_data_and_writes_record_and_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PPFR_DATA", raising=False)
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    assert ppfr(["run", name, "--preset", "fast-test", "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text("utf-8"))
    check_record(record)
    assert record["status"] == "complete"
    assert record["experiment"]["name"] == name and record["experiment"]["people"] == "synthetic"
    labels = [system["label"] for system in record["systems"] if system["role"] == "protected"]
    assert [label for label in labels if "selected" not in label] == [
        f"Mapping, o = {o}, scale {scale}" for scale in ("sqrt(n)", "1") for o in (0, 4)
    ]
    page = tmp_path / "again.html"
    assert ppfr(["report", str(tmp_path / "run"), "--out", str(page)]) == 0
    assert page.read_text("utf-8") == (tmp_path / "run" / "report.html").read_text("utf-8")


def test_simulated_keys_are_valid_and_depend_on_the_seed() -> None:
    scheme = IdentityMapping(dim=16, num_terms=5, coefficient_bound=3, scale=1.0)
    drawn = [scheme.packed(simulated_keys(scheme, 500, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    for keys in drawn:
        keys.check()
        assert set(np.unique(keys.coefficients_Mm)) == {-3, -2, -1, 1, 2, 3}
    assert np.array_equal(drawn[0].coefficients_Mm, drawn[1].coefficients_Mm)
    assert np.array_equal(drawn[0].exponents_Mm, drawn[1].exponents_Mm)
    assert not np.array_equal(drawn[0].coefficients_Mm, drawn[2].coefficients_Mm)


@pytest.mark.real_data
@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_experiments_on_real_data_build(preset: str, tmp_path: Path, data_root: Path, weights_root: Path) -> None:
    context = ExperimentContext(
        preset=preset, seed=1, options=RunOptions(run_dir=tmp_path, device="cpu"), data=data_root, weights=weights_root
    )
    mapping, search = EXPERIMENTS["hfcf:mapping"](context), EXPERIMENTS["hfcf:one_to_n"](context)
    assert [len(protocol) for protocol in measure_of(mapping, Verification).protocols] == [6000]
    searched = measure_of(search, Identification).protocol
    assert (len(searched.references), len(searched.unmated)) == (1680, 4069)
    assert {system.templates.scheme.in_dim for system in (*mapping.systems, *search.systems)} == {128}
    inversion = measure_of(mapping, TemplateInversion)
    if inversion.transfer is not None:
        assert not set(inversion.transfer.public_images.subject_ids) & set(inversion.pairs.subjects())
    assert not list(tmp_path.iterdir()), "building writes nothing"
