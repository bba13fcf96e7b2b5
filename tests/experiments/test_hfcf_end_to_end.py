"""HFCF as a whole: the rows are those of the other experiments, and the fast-test preset runs to the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppfr.cli import run as ppfr
from ppfr.core import ALL_KEYS, GENUINE_TOKEN, STOLEN_TOKEN, RunOptions, check_record
from ppfr.evaluation import Experiment, Identification, SecureSearches, Verification
from ppfr.experiments import EXPERIMENTS, ExperimentContext
from support.experiments import attacks_of, measure_of
from support.records import row, rows

MASKINGS = ("unprotected", "ppfr-fd", "dctdp-0.5", "hfcf-1")
MAPPINGS = {"mapping-recognises": "mapping-o4-scale-1", "mapping-hides": "mapping-o0-scale-sqrt-n"}


def built(name: str, folder: Path) -> Experiment:
    options = RunOptions(run_dir=folder, device="cpu")
    return EXPERIMENTS[name](ExperimentContext(preset="fast-test", seed=1, options=options))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return built("hfcf:end-to-end", tmp_path_factory.mktemp("end-to-end"))


def test_every_masking_has_the_same_back_half(experiment: Experiment) -> None:
    assert [system.name for system in experiment.systems] == [
        name for masking in MASKINGS for name in (masking, *(f"{masking}-{mapping}" for mapping in MAPPINGS))
    ]
    assert len({system.label for system in experiment.systems}) == len(experiment.systems)
    for masking in MASKINGS:
        masked = experiment.system(masking)
        assert masked.training is not None and masked.templates is None
        assert masked.baseline == (None if masking == "unprotected" else "unprotected")
        for mapping in MAPPINGS:
            mapped = experiment.system(f"{masking}-{mapping}")
            assert (mapped.recogniser, mapped.baseline) == (masking, masking)
            assert mapped.training is None and mapped.masker is None
            assert (
                mapped.templates.scheme.public_config()
                == experiment.system(f"unprotected-{mapping}").templates.scheme.public_config()
            )
    assert not attacks_of(experiment)


def test_rows_are_those_of_the_other_experiments(experiment: Experiment, tmp_path: Path) -> None:
    ablation, mapping = (built(name, tmp_path) for name in ("hfcf:ablation", "hfcf:mapping"))
    for name in MASKINGS:
        ours, theirs = experiment.system(name), ablation.system(name)
        assert ours.masker.public_config() == theirs.masker.public_config()
        assert ours.training.public_config() == theirs.training.public_config()
    for name, other in MAPPINGS.items():
        ours = dict(experiment.system(f"hfcf-1-{name}").templates.scheme.public_config())
        theirs = dict(mapping.system(other).templates.scheme.public_config())
        assert ours == theirs


def test_comparisons_change_one_stage_or_all(experiment: Experiment) -> None:
    sides = {each.name: (each.system, each.against) for each in experiment.comparisons}
    assert len(sides) == 12
    for mapping in MAPPINGS:
        for name in MASKINGS[1:]:
            assert sides[f"{name}-{mapping}-in-all"] == (f"{name}-{mapping}", "unprotected")
        for name in MASKINGS[1:3]:
            assert sides[f"hfcf-against-{name}-{mapping}"] == (f"hfcf-1-{mapping}", f"{name}-{mapping}")
            assert sides[f"hfcf-against-{name}"] == ("hfcf-1", name)


def test_searches_under_sharing_are_those_in_the_clear(experiment: Experiment) -> None:
    clear, shared = (measure_of(experiment, kind) for kind in (Identification, SecureSearches))
    assert clear.protocol is shared.protocol and tuple(clear.fpirs) == tuple(shared.fpirs) == (1e-2,)


@pytest.mark.slow
def test_fast_test_preset_needs_no_data_and_shows_the_cost_of_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PPFR_DATA", raising=False)
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    out = tmp_path / "run"
    assert ppfr(["run", "hfcf:end-to-end", "--preset", "fast-test", "--out", str(out), "--device", "cpu"]) == 0
    record = json.loads((out / "record.json").read_text("utf-8"))
    check_record(record)
    assert record["status"] == "complete", [s["error"] for s in record["stages"]]
    assert [found["system"] for found in rows(record, "training")] == list(MASKINGS)
    names = [system["name"] for system in record["systems"]]
    assert [found["system"] for found in rows(record, "secure_decisions")] == names
    for found in rows(record, "secure_decisions"):
        assert [form["values"] for form in found["formats"]] == ["int8", "int16"]
        assert all(at["num_differ_from_integers_in_the_clear"] == 0 for f in found["formats"] for at in f["decisions"])
    for name in MASKINGS:
        assert row(record, "secure_searches", system=name)["scenario"] == ALL_KEYS
        for mapping in MAPPINGS:
            found = rows(record, "secure_searches", system=f"{name}-{mapping}")
            assert [each["scenario"] for each in found] == [ALL_KEYS, GENUINE_TOKEN]
            scenarios = [each["scenario"] for each in rows(record, "verification", name=f"{name}-{mapping}")]
            assert scenarios == [STOLEN_TOKEN, GENUINE_TOKEN]
    for found in rows(record, "secure_searches"):
        assert all(at["num_differ_from_integers_in_the_clear"] == 0 for f in found["formats"] for at in f["decisions"])
    page = (out / "report.html").read_text("utf-8")
    for words in ("Cost of each stage", "Searches under secret sharing", "Masking and mapping", "(1:N)"):
        assert words in page


@pytest.mark.real_data
def test_experiment_on_real_data_builds(tmp_path: Path, data_root: Path, weights_root: Path) -> None:
    context = ExperimentContext(
        preset="laptop",
        seed=1,
        options=RunOptions(run_dir=tmp_path, device="cpu"),
        data=data_root,
        weights=weights_root,
    )
    experiment = EXPERIMENTS["hfcf:end-to-end"](context)
    (pairs,) = measure_of(experiment, Verification).protocols
    searched = measure_of(experiment, Identification).protocol
    assert len(pairs) == 6000 and set(searched.images.subject_ids) <= set(pairs.subjects())
    assert not set(experiment.training_images.subject_ids) & set(searched.images.subject_ids)
    assert not list(tmp_path.iterdir()), "building writes nothing"
