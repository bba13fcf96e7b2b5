"""The recipes on identity-specific mapping run from end to end through the command line, and build on real faces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ppfr.cli import run as ppfr
from ppfr.core import check_record
from ppfr.evaluation import TemplateExperiment
from ppfr.experiments import PRESETS, RECIPES, RecipeContext
from ppfr.experiments.hfcf._templates import TEMPLATE_BUDGETS, simulated_keys
from ppfr.templates import IdentityMapping


@pytest.mark.parametrize("name", ["hfcf:mapping", "hfcf:one_to_n"])
def test_fast_test_needs_nothing_and_leaves_record_and_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PPFR_DATA", raising=False)
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    assert ppfr(["run", name, "--preset", "fast-test", "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text("utf-8"))
    check_record(record)
    assert record["kind"] == "templates" and record["status"] == "complete"
    assert record["experiment"]["name"] == name and record["experiment"]["people"] == "synthetic"
    labels = [arm["label"] for arm in record["arms"] if arm["role"] == "protected" and arm["selection"] is None]
    assert labels == [f"Mapping, o = {o}, scale {scale}" for scale in ("sqrt(n)", "1") for o in (0, 4)]
    page = tmp_path / "again.html"
    assert ppfr(["report", str(tmp_path / "run"), "--out", str(page)]) == 0
    assert page.read_text("utf-8") == (tmp_path / "run" / "report.html").read_text("utf-8")


def test_every_preset_is_there() -> None:
    assert tuple(TEMPLATE_BUDGETS) == PRESETS


def test_simulated_keys_are_keys_and_come_from_the_seed() -> None:
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
def test_real_recipes_build(preset: str, tmp_path: Path, data_root: Path, weights_root: Path) -> None:
    context = RecipeContext(preset=preset, out_dir=tmp_path, seed=1, device="cpu", data=data_root, weights=weights_root)
    mapping, search = RECIPES["hfcf:mapping"](context), RECIPES["hfcf:one_to_n"](context)
    assert isinstance(mapping, TemplateExperiment) and isinstance(search, TemplateExperiment)
    assert mapping.pairs is not None and len(mapping.pairs) == 6000 and mapping.open_set is None
    assert search.pairs is None and search.open_set is not None
    assert (len(search.open_set.references), len(search.open_set.unmated)) == (1680, 4069)
    assert {arm.scheme.in_dim for arm in (*mapping.arms, *search.arms)} == {128}
    if mapping.transfer is not None:
        assert not set(mapping.transfer.public_images.subject_ids) & set(mapping.pairs.subjects())
    assert not list(tmp_path.iterdir()), "building writes nothing"
