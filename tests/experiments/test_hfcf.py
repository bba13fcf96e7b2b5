"""HFCF ablation: rows differ only in what their names state, and comparisons are of the right systems."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ppfr.core import MissingAssetError, RunOptions, check_record
from ppfr.evaluation import Experiment, GalleryAttacks, ImageAttacks
from ppfr.experiments import EXPERIMENTS, IMAGE_ATTACKS, ExperimentContext
from ppfr.masking import Dctdp, Hfcf, NoisyFrontEnd, Sensitivities
from ppfr.workflows import run_experiment
from support.experiments import attacks_of, measure_of
from support.records import entry, row, rows

COLOURS = ("lbp-ycbcr", "lbp-difference", "lbp-bits")
UNATTACKED = {"hfcf-3", *(f"hfcf-1-{colour}" for colour in COLOURS)}


def context(out_dir: Path, **fields: Any) -> ExperimentContext:
    options = RunOptions(run_dir=out_dir, device="cpu", resumes=fields.pop("resumes", False))
    return ExperimentContext(**{"preset": "fast-test", "seed": 1, "options": options, **fields})


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return EXPERIMENTS["hfcf:ablation"](context(tmp_path_factory.mktemp("hfcf")))


def test_ablation_has_all_rows(experiment: Experiment) -> None:
    assert [system.name for system in experiment.systems] == [
        "unprotected",
        *(f"hfcf-{eps}" for eps in ("0.5", "1", "2", "4", "inf")),
        *(f"hfcf-{eps}-no-{part}" for eps in ("1", "inf") for part in ("colour", "fusion")),
        "hfcf-3",
        "hfcf-1-even",
        "hfcf-1-even-no-colour",
        "hfcf-1-noisy-colour",
        *(f"hfcf-1-{colour}" for colour in COLOURS),
        "dctdp-0.5",
        "dctdp-published",
        "ppfr-fd",
        "constant",
    ]
    assert len({system.label for system in experiment.systems}) == len(experiment.systems)
    assert all(system.baseline == "unprotected" for system in experiment.systems if system.role == "protected")


def test_accuracies_are_those_of_one_masked_image(experiment: Experiment) -> None:
    assert not experiment.mirrors_input


def test_variants_differ_only_in_what_their_names_state(experiment: Experiment) -> None:
    whole = dict(experiment.system("hfcf-1").masker.public_config())
    for name, changed in {
        "hfcf-0.5": {"eps_mean"},
        "hfcf-1-no-colour": {"colour"},
        "hfcf-1-noisy-colour": {"colour_eps"},
        "hfcf-3": {"eps_mean"},
        "hfcf-1-even": {"learns", "learned_sha256"},
        "hfcf-1-even-no-colour": {"colour", "learns", "learned_sha256"},
        "hfcf-1-lbp-bits": {"colour"},
        # Other coefficients have other ranges.
        "hfcf-1-no-fusion": {"fuses", "sensitivities_sha256"},
    }.items():
        config = dict(experiment.system(name).masker.public_config())
        assert {key for key in whole if config[key] != whole[key]} == changed, name
    fused, unfused = experiment.system("hfcf-3").masker, experiment.system("hfcf-1-no-fusion").masker
    assert isinstance(fused, Hfcf) and isinstance(unfused, Hfcf)
    assert fused.privacy().eps_place == pytest.approx(unfused.privacy().eps_place)
    published = experiment.system("dctdp-published").masker
    assert isinstance(published, Dctdp) and math.isclose(published.budget.eps_mean, 4.0)


def test_sensitivities_are_those_of_the_training_set(experiment: Experiment) -> None:
    masker = experiment.system("hfcf-2").masker
    assert isinstance(masker, Hfcf)
    front_end = NoisyFrontEnd(front_end="block", fuses=True)
    measured = Sensitivities.measure(experiment.training_images, front_end)
    assert masker.budget.sensitivities_sha256 == measured.sha256


def test_all_rows_have_the_same_training(experiment: Experiment) -> None:
    configs = [system.training.public_config() for system in experiment.systems if system.training is not None]
    assert all(config == configs[0] for config in configs)


def test_each_comparison_changes_one_setting(experiment: Experiment) -> None:
    sides = {comparison.name: (comparison.system, comparison.against) for comparison in experiment.comparisons}
    assert sides["fusion"] == ("hfcf-inf", "hfcf-inf-no-fusion")
    assert sides["fusion-at-equal-total"] == ("hfcf-3", "hfcf-1-no-fusion")
    assert sides["learning"] == ("hfcf-1-no-colour", "hfcf-1-even-no-colour")
    assert sides["noise"] == ("hfcf-1-no-colour", "hfcf-inf-no-colour")
    assert sides["colour"] == ("hfcf-1", "hfcf-1-no-colour")
    assert sides["repaid"] == ("hfcf-1", "hfcf-inf-no-colour")
    assert sides["noisy-colour"] == ("hfcf-1-noisy-colour", "hfcf-1-no-colour")
    assert all(sides[f"colour-as-{colour}"] == (f"hfcf-1-{colour}", "hfcf-1") for colour in COLOURS)


def test_all_rows_but_accuracy_only_rows_have_all_attacks(experiment: Experiment) -> None:
    attacked = {(plan.system, plan.label) for plan in attacks_of(experiment)}
    names = {system.name for system in experiment.systems} - UNATTACKED
    labels = {kind.title for kind in IMAGE_ATTACKS.values()} | {
        *("Enrolment attack", "Matched filter", "Ridge regression to identity")
    }
    means = {(name, "Enrolment attack, masked images averaged") for name in names}
    assert attacked - means == {(name, label) for name in names for label in labels}
    noisy = {name for name in names if experiment.system(name).masker.spec.is_stochastic}
    assert {name for name, _ in attacked & means} == noisy and "hfcf-1" in noisy
    roles = {"unprotected": "positive control", "constant": "negative control"}
    assert all(plan.role == roles.get(plan.system, "attack") for plan in attacks_of(experiment))


def test_paper_preset_lists_missing_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(MissingAssetError, match="package of MS1MV2 into faces_emore/"):
        EXPERIMENTS["hfcf:ablation"](context(tmp_path, preset="paper", data=tmp_path / "data"))


@pytest.mark.slow
def test_ablation_runs_end_to_end_and_records_guarantees(experiment: Experiment, tmp_path: Path) -> None:
    kept = ("unprotected", "hfcf-1", "hfcf-1-no-colour")
    attacks, gallery = measure_of(experiment, ImageAttacks), measure_of(experiment, GalleryAttacks)
    looked_up = [plan for plan in gallery.plans if plan.system == "hfcf-1"]
    plans = [plan for plan in attacks.plans if plan.name == "linkage-hfcf-1"]
    told = run_experiment(
        dataclasses.replace(
            experiment,
            systems=[experiment.system(name) for name in kept],
            comparisons=[
                comparison
                for comparison in experiment.comparisons
                if {comparison.system, comparison.against} <= {*kept}
            ],
            measures=[
                *experiment.measures[:-2],
                dataclasses.replace(gallery, plans=looked_up),
                dataclasses.replace(attacks, plans=plans),
            ],
        ),
        RunOptions(run_dir=tmp_path / "run", device="cpu"),
    )
    assert told["status"] == "complete" and told["failed_stages"] == []
    record = json.loads(Path(told["record"]).read_text(encoding="utf-8"))
    check_record(record)
    assert entry(record, "comparisons", "colour")["system"] == "hfcf-1"
    assert [found["protocol"] for found in rows(record, "accuracy_gap", comparison="colour")] == ["synthetic-pairs"]
    guarantee = {name: row(record, "training", system=name)["guarantee"] for name in kept}
    assert guarantee["unprotected"] is None
    assert guarantee["hfcf-1"]["eps_image"] == "inf", "its colour channels have no guarantee"
    proven = guarantee["hfcf-1-no-colour"]
    assert proven["eps_image"] == pytest.approx(63 * 28 * 28, rel=1e-3)
    assert proven["eps_least"] < proven["eps_largest"], "the training moved the budget"
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "Do the colour channels repay it?" in page and "no meaningful guarantee" in page
