"""Measures of templates: figures, controls, resumed runs, and rejected input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppfr.core import CheckpointError, OverlapError, ProblemsError, Record, RunOptions, check_record, choose_device
from ppfr.data import OpenSetProtocol, one_reference_each
from ppfr.evaluation import EvaluationRecogniser, Identification, KeySelection, Renewal, Session, Transfer, Workspace
from ppfr.evaluation._template_study import cosines, study_of, templates_of
from support.records import row, rows, without_timing
from support.toy_experiment import Projection, people, start
from support.toy_templates import (
    Dying,
    constant,
    mapped,
    open_set,
    plan,
    template_experiment,
    template_measures,
    toy_pairs,
    unprotected,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Baseline, its twin, a mapping, a leaky mapping, a constant; both protocols; transfer to another recogniser."""
    systems = (
        unprotected(),
        unprotected("twin", role="protected", baseline="plain"),
        mapped(),
        mapped("leaky", overlap=2),
        mapped("chosen", selection=first_key()),
        constant(),
    )
    plans = [*(plan(system) for system in systems), plan(systems[2], knows_keys=False)]
    plans += [plan(system, num_templates=5) for system in (systems[0], systems[2], systems[-1])]
    transfer = Transfer(recogniser="other", public_images=people(30, 2, seed=9, name="public"))
    experiment = template_experiment(
        systems=systems, measures=template_measures(systems, plans=plans, transfer=transfer)
    )
    other = EvaluationRecogniser(name="other", label="Other", embedder=Projection(6))
    experiment = dataclasses.replace(experiment, recognisers=[*experiment.recognisers, other])
    return start(experiment, tmp_path_factory.mktemp("templates"))


def first_key() -> KeySelection:
    protection = mapped().templates
    assert protection is not None
    return KeySelection(
        choose=lambda row_D, threshold, rng: (protection.draw_keys(1, rng)[0], 1, threshold > 2),
        in_words="the first one",
    )


def verification(record: Record, name: str) -> list[dict[str, Any]]:
    return rows(record, "verification", source="system", name=name)


def inversion(record: Record, attack: str) -> dict[str, Any]:
    return row(record, "template_inversion", attack=attack)


def test_joint_inversion_of_several_templates_recovers_more(finished: Record) -> None:
    """Five templates of each subject, each under a key of its own; controls see five templates as well."""
    one, five = (inversion(finished, f"solve-mapping-known{end}") for end in ("", "-joint"))
    assert five["cosine"]["value"] > one["cosine"]["value"] + 0.1
    run = row(finished, "attack_run", attack="solve-mapping-known-joint")
    assert (run["num_targets"], run["num_images"], run["notes"]["num_templates"]) == (12, 60, 5)
    for control in ("solve-plain-known-joint", "solve-constant-known-joint"):
        assert row(finished, "attack_run", attack=control)["is_control_met"]


def test_identity_scheme_has_the_figures_of_its_recogniser(finished: Record) -> None:
    assert finished["status"] == "complete", [s["error"] for s in finished["stages"]]
    check_record(finished)
    plain = row(finished, "verification", source="recogniser", name="recogniser")
    same = {"source": "", "name": "", "scenario": ""}
    for found in verification(finished, "plain"):
        assert {**found, **same} == {**plain, **same}, "without a key, both scenarios are one"
    for found in rows(finished, "accuracy_gap", system="twin"):
        assert (found["gap"]["value"], found["gap"]["low"], found["gap"]["high"]) == (0, 0, 0)
    for ours, theirs in zip(verification(finished, "twin"), verification(finished, "plain"), strict=True):
        assert ours["eer"] == theirs["eer"] and ours["tar_at_far"] == theirs["tar_at_far"]
    twin, baseline = (rows(finished, "identification", system=name) for name in ("twin", "plain"))
    for ours, theirs in zip(twin, baseline, strict=True):
        assert ours["rank"] == theirs["rank"] and ours["fnir_at_fpir"] == theirs["fnir_at_fpir"]
    assert twin[0]["gap_to_baseline"]["rank_1"]["value"] == 0


def test_constant_templates_are_at_chance_level_in_every_measure(finished: Record) -> None:
    for found in verification(finished, "constant"):
        assert found["eer"]["value"] == 0.5 and found["auc"]["value"] == 0.5
        assert found["tar_at_far"]["0.1"]["value"] == 0
    links = rows(finished, "unlinkability", system="constant")
    assert [link["figures"]["d_sys"]["value"] for link in links] == [0, 0]
    search = row(finished, "identification", system="constant")
    assert search["rank"]["1"]["value"] == pytest.approx(1 / 20) and search["fnir_at_fpir"]["0.1"]["value"] == 1
    renewal = row(finished, "renewal", system="constant")
    assert renewal["eer"] == [0.5, 0.5] and renewal["old_template_accepted"]["value"] == 0
    assert inversion(finished, "solve-constant-known")["at_fmr"][0]["success"]["low"] <= 0.1


def test_leaky_scheme_is_detected(finished: Record) -> None:
    verdicts = [run["is_control_met"] for run in rows(finished, "attack_run") if run["is_control_met"] is not None]
    assert verdicts == [True] * 4  # two controls, each with one template and with five
    twin, leaky, mapping = (inversion(finished, f"solve-{name}-known") for name in ("twin", "leaky", "mapping"))
    assert twin["cosine"]["low"] > 0.999 and leaky["cosine"]["value"] > 0.8
    assert leaky["cosine"]["value"] > mapping["cosine"]["value"]
    unknown = inversion(finished, "solve-mapping-unknown")
    assert unknown["cosine"]["value"] < mapping["cosine"]["value"]
    assert unknown["after_renewal"] is None, "without keys nobody can map under the new one"
    links = {n: rows(finished, "unlinkability", system=n)[0]["figures"]["d_sys"]["value"] for n in ("twin", "mapping")}
    assert links["twin"] > 0.9 and links["mapping"] < links["twin"] - 0.2
    assert row(finished, "renewal", system="twin")["old_template_accepted"]["value"] == 1
    first = twin["at_fmr"][0]
    assert first["success"]["value"] == first["plain"]["value"] == first["success_if_solved"]["value"]
    assert twin["after_renewal"]["accepted"]["value"] > 0.5


def test_transfer_is_measured_at_another_recogniser(finished: Record) -> None:
    found = inversion(finished, "solve-twin-known")["transfer"]
    assert found["recogniser"] == "other" and finished["recognisers"][1]["name"] == "other"
    assert found["at_fmr"][0]["success"]["value"] == found["at_fmr"][0]["plain"]["value"] > 0.5
    names = {name for pair in finished["disjointness"] for name in pair["sets"]}
    assert {"public", "toy"} <= names


def test_genuine_tokens_are_a_second_factor(finished: Record) -> None:
    stolen, genuine = (found["eer"]["value"] for found in verification(finished, "leaky"))
    assert genuine <= stolen + 0.1
    searches = rows(finished, "identification", system="leaky")
    assert [(s["scenario"], s["values"]) for s in searches] == [
        ("matcher holds all keys", "float32"),
        ("genuine-token", "float32"),
        ("stolen-token", "float32"),
    ]
    assert row(finished, "key_selection", system="chosen")["share_below"] == 0
    assert verification(finished, "chosen") == []


def test_templates_are_what_the_scheme_enrols(tmp_path: Path) -> None:
    experiment = template_experiment()
    session = Session(experiment, Workspace(tmp_path), device=choose_device("cpu"), options=RunOptions())
    study, system = study_of(session, toy_pairs()), experiment.system("mapping")
    rows_ND, keys = study.rows_of(system)[:5], study.keys(system)[:5]
    assert [k.material for k in study.keys(system, renewal=1)[:5]] != [k.material for k in keys]
    ours_NK = templates_of(system, rows_ND, keys)
    assert system.templates is not None
    scheme = system.templates.scheme
    for row_D, key, ours_K in zip(rows_ND.astype(np.float32), keys, ours_NK, strict=True):
        template = scheme.enrol(row_D, key=key)
        np.testing.assert_allclose(template.values_K, ours_K, atol=1e-6)
        probe = scheme.probe(rows_ND[1].astype(np.float32), key=key, like=template)
        mapped_NK = templates_of(system, rows_ND[1:2], [key])
        assert scheme.score(probe, template) == pytest.approx(cosines(mapped_NK, ours_K[None])[0], abs=1e-5)


def test_interrupted_run_resumes_and_ends_with_the_same_record(tmp_path: Path) -> None:
    def small(system: Any) -> Any:
        systems = (unprotected(), system)
        return template_experiment(systems=systems, measures=template_measures(systems)[:5])

    whole = start(small(mapped()), tmp_path / "whole")
    dying = small(mapped(draw_keys=Dying()))
    with pytest.raises(KeyboardInterrupt):
        start(dying, tmp_path / "cut")
    with pytest.raises(CheckpointError, match="earlier run"):
        start(dying, tmp_path / "cut")
    with pytest.raises(CheckpointError, match="seed"):
        start(dataclasses.replace(dying, seed=4), tmp_path / "cut", resumes=True)
    resumed = start(dying, tmp_path / "cut", resumes=True)
    also = frozenset({"seconds_per_victim"})
    assert without_timing(resumed, also=also) == without_timing(whole, also=also)


SYSTEMS = (unprotected(), mapped(), constant())
SHORT: Any = type("E", (), {"dim": 8, "embed": None})()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"measures": template_measures(SYSTEMS, num_targets=1)}, "allowed is 2 to 40"),
        (
            {"measures": template_measures(SYSTEMS, fmrs=(1e-4,))},
            "FMR 0.0001 cannot be measured with 780 impostor comparisons",
        ),
        ({"measures": [Identification(protocol=open_set(), fpirs=(0.0,))]}, r"fpirs=\(0\.0,\).*\(0, 1\]"),
        ({"measures": [Renewal(pairs=toy_pairs(), num_renewals=0)]}, "num_renewals=0"),
        ({"measures": ()}, "there is no measure"),
        ({"systems": (), "measures": template_measures((), plans=())}, "there is no system"),
        (
            {"recognisers": [EvaluationRecogniser(name="recogniser", label="R", embedder=SHORT)]},
            "returns 8; use a scheme",
        ),
        ({"recognisers": []}, "there is no evaluation recogniser 'recogniser'"),
        ({"num_resamples": 50}, "at least 100"),
        ({"people": "robots"}, "'real' or 'synthetic'"),
    ],
)
def test_run_rejects_experiments_with_problems_before_anything_runs(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ProblemsError, match=words):
        start(template_experiment(**changes), tmp_path)
    assert not (tmp_path / "record.json").exists()


def test_run_rejects_public_faces_of_target_subjects(tmp_path: Path) -> None:
    transfer = Transfer(recogniser="recogniser", public_images=toy_pairs().images)
    with pytest.raises(OverlapError):
        start(template_experiment(measures=template_measures(SYSTEMS, transfer=transfer)), tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("references", [0, 1, 3], "already has one"),
        ("references", [], "the gallery is empty"),
        ("unmated", [], "there are no distractors"),
        ("mated", [], "no probe has a mate"),
        ("mated", [0], "itself a reference"),
        ("mated", [60], "without a reference"),
        ("unmated", [2], "distractors have a reference"),
        ("unmated", [500], "outside"),
    ],
)
def test_open_set_protocol_rejects_contradictions(field: str, value: list[int], words: str) -> None:
    good = open_set()
    fields = {name: getattr(good, name) for name in ("name", "images", "references", "mated", "unmated")}
    with pytest.raises(ProblemsError, match=words):
        OpenSetProtocol(**{**fields, field: np.array(value, dtype=np.int64)})


def test_subjects_with_one_image_are_non_mated_probes() -> None:
    images = people(6, 3, seed=1, name="lfw").subset([0, 1, 2, 3, 6, 7], name="few")
    protocol = one_reference_each(images, name="few", most_probes_each=5)
    assert protocol.references.tolist() == [0, 4] and protocol.mated.tolist() == [1, 2, 5]
    assert protocol.unmated.tolist() == [3] and protocol.used().tolist() == [0, 1, 2, 3, 4, 5]
