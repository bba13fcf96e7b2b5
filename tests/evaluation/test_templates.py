"""Experiments on templates: figures mean what they say, controls hold, runs resume, bad input is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_experiment import Projection, people, without_timing
from toy_templates import Dying, constant, mapped, open_set, plan, template_experiment, unprotected

from ppfr.core import (
    CheckpointError,
    InvalidInputError,
    OverlapError,
    ProblemsError,
    Record,
    check_record,
    choose_device,
    record_schema,
)
from ppfr.data import OpenSetProtocol, one_reference_each
from ppfr.evaluation import Judge, KeySelection, Transfer, run
from ppfr.evaluation._templates._session import TemplateSession, cosines, templates_of
from ppfr.evaluation._workspace import Workspace
from ppfr.report import write_report


def start(experiment: Any, folder: Path, **options: Any) -> Record:
    return run(experiment, out_dir=folder, device="cpu", progress=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    """Baseline, its twin, a mapping, a leaky mapping, a constant; both protocols; transfer to another recogniser."""
    folder = tmp_path_factory.mktemp("templates")
    arms = (
        unprotected(),
        unprotected("twin", role="protected", baseline="plain"),
        mapped(),
        mapped("leaky", overlap=2),
        dataclasses.replace(mapped("chosen"), selection=first_key()),
        constant(),
    )
    transfer = Transfer(
        judge=Judge(name="other", label="Other", embedder=Projection(6)),
        public_images=people(30, 2, seed=9, name="public"),
    )
    attacks = [*(plan(arm) for arm in arms), plan(arms[2], knows_keys=False)]
    return start(template_experiment(arms=arms, attacks=attacks, transfer=transfer), folder), folder


def first_key() -> KeySelection:
    arm = mapped()
    return KeySelection(
        choose=lambda row_D, threshold, rng: (arm.draw_keys(1, rng)[0], 1, threshold > 2), in_words="the first one"
    )


def arm_of(record: Record, name: str) -> Any:
    return next(arm for arm in record["arms"] if arm["name"] == name)


def outcome_of(record: Record, name: str) -> Any:
    return next(attack["outcome"] for attack in record["attacks"] if attack["name"] == name)


def test_a_scheme_that_is_the_identity_has_the_recognisers_own_figures(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    assert record["status"] == "complete", [s["error"] for s in record["stages"]]
    (plain,) = record["judges"][0]["protocols"]
    for protocol in arm_of(record, "plain")["protocols"]:
        assert {**protocol, "name": ""} == {**plain, "name": ""}, "no key: stolen and kept are one"
    twin, baseline = arm_of(record, "twin"), arm_of(record, "plain")
    for ours, theirs in zip(twin["protocols"], baseline["protocols"], strict=True):
        gap = ours["gap_to_baseline"]
        assert (gap["value"], gap["low"], gap["high"]) == (0, 0, 0)
        assert ours["eer"] == theirs["eer"] and ours["tar_at_far"] == theirs["tar_at_far"]
    for ours, theirs in zip(twin["identification"], baseline["identification"], strict=True):
        assert ours["rank"] == theirs["rank"] and ours["fnir_at_fpir"] == theirs["fnir_at_fpir"]
    assert twin["identification"][0]["gap_to_baseline"]["rank_1"]["value"] == 0


def test_the_constant_is_at_chance_everywhere(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    arm = arm_of(record, "constant")
    for protocol in arm["protocols"]:
        assert protocol["eer"]["value"] == 0.5 and protocol["auc"]["value"] == 0.5
        assert protocol["tar_at_far"]["0.1"]["value"] == 0
    assert [link["d_sys"]["value"] for link in arm["unlinkability"]] == [0, 0]
    (search,) = arm["identification"]
    assert search["rank"]["1"]["value"] == pytest.approx(1 / 20) and search["fnir_at_fpir"]["0.1"]["value"] == 1
    assert arm["renewal"]["eer"] == [0.5, 0.5] and arm["renewal"]["old_template_accepted"]["value"] == 0
    assert outcome_of(record, "solve-constant-known")["at_fmr"][0]["success"]["low"] <= 0.1


def test_leaky_schemes_are_found_leaky(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    assert [a["control"]["is_met"] for a in record["attacks"] if a["control"]] == [True, True]
    twin, leaky = outcome_of(record, "solve-twin-known"), outcome_of(record, "solve-leaky-known")
    assert twin["cosine"]["low"] > 0.999 and leaky["cosine"]["value"] > 0.8
    assert leaky["cosine"]["value"] > outcome_of(record, "solve-mapping-known")["cosine"]["value"]
    unknown = outcome_of(record, "solve-mapping-unknown")
    assert unknown["cosine"]["value"] < outcome_of(record, "solve-mapping-known")["cosine"]["value"]
    assert unknown["re_issue"] is None, "a thief without keys cannot map under the new one"
    links = {name: arm_of(record, name)["unlinkability"][0]["d_sys"]["value"] for name in ("twin", "mapping")}
    assert links["twin"] > 0.9 and links["mapping"] < links["twin"] - 0.2
    assert arm_of(record, "twin")["renewal"]["old_template_accepted"]["value"] == 1
    first = twin["at_fmr"][0]
    assert first["success"]["value"] == first["plain"]["value"] == first["success_if_solved"]["value"]
    assert twin["re_issue"]["accepted"]["value"] > 0.5


def test_transfer_asks_another_recogniser(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    found = outcome_of(record, "solve-twin-known")["transfer"]
    assert found["judge"] == "other" and record["judges"][1]["name"] == "other"
    assert found["at_fmr"][0]["success"]["value"] == found["at_fmr"][0]["plain"]["value"] > 0.5
    assert record["disjointness"] == [{"sets": ["public", "toy"], "num_shared_subjects": 0}]


def test_keys_kept_are_a_second_factor(finished: tuple[Record, Path]) -> None:
    record, _ = finished
    arm = arm_of(record, "leaky")
    stolen, kept = (protocol["eer"]["value"] for protocol in arm["protocols"])
    assert kept <= stolen + 0.1
    assert [(s["scenario"], s["values"]) for s in arm["identification"]] == [
        ("the matcher holds all keys", "float32"),
        ("key kept", "float32"),
        ("key stolen", "float32"),
    ]
    assert arm_of(record, "chosen")["selection"]["share_below"] == 0
    assert arm_of(record, "chosen")["protocols"] == []


def test_templates_are_what_the_scheme_enrols(tmp_path: Path) -> None:
    experiment = template_experiment()
    session = TemplateSession(experiment, Workspace(tmp_path), device=choose_device("cpu"))
    arm, rows_ND = experiment.arm("mapping"), session.pair_rows()[:5]
    keys = session.keys(arm)[:5]
    assert [k.material for k in session.keys(arm, issue=1)[:5]] != [k.material for k in keys]
    ours_NK = templates_of(arm, rows_ND, keys)
    for row_D, key, ours_K in zip(rows_ND.astype(np.float32), keys, ours_NK, strict=True):
        template = arm.scheme.enrol(row_D, key=key)
        np.testing.assert_allclose(template.values_K, ours_K, atol=1e-6)
        probe = arm.scheme.probe(rows_ND[1].astype(np.float32), key=key, like=template)
        mapped_NK = templates_of(arm, rows_ND[1:2], [key])
        assert arm.scheme.score(probe, template) == pytest.approx(cosines(mapped_NK, ours_K[None])[0], abs=1e-5)


def test_the_record_keeps_its_schema_and_makes_one_page(finished: tuple[Record, Path], tmp_path: Path) -> None:
    record, folder = finished
    check_record(record)
    assert record_schema("templates")["$id"] == "urn:ppfr:template-record:1"
    with pytest.raises(InvalidInputError, match="no record is of kind"):
        record_schema("voices")
    for field in ("is_keyed", "unlinkability"):
        broken = json.loads(json.dumps(record))
        del broken["arms"][0][field]
        with pytest.raises(ProblemsError, match=field):
            check_record(broken)
    page = write_report([folder, folder], tmp_path / "two.html").read_text("utf-8")
    assert page.count('<article class="record"') == 2
    page = write_report(folder, tmp_path / "one.html").read_text("utf-8")
    for words in ("Irreversibility", "Unlinkability and renewal", "Recognition, 1:N", "key stolen", "D_sys", "Solver"):
        assert words in page
    assert "/home/ada" not in page and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_two_kinds_of_records_do_not_share_a_page(
    finished: tuple[Record, Path], made_record: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "record.json").write_text(json.dumps(made_record), "utf-8")
    with pytest.raises(InvalidInputError, match="a report of each kind"):
        write_report([finished[1], tmp_path], tmp_path / "both.html")


def test_a_cut_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    def small(arm: Any) -> Any:
        arms = (unprotected(), arm)
        return template_experiment(arms=arms, attacks=[plan(arm) for arm in arms], open_set=None)

    whole = start(small(mapped()), tmp_path / "whole")
    dying = small(dataclasses.replace(mapped(), draw_keys=Dying()))
    with pytest.raises(KeyboardInterrupt):
        start(dying, tmp_path / "cut")
    with pytest.raises(CheckpointError, match="earlier run"):
        start(dying, tmp_path / "cut")
    with pytest.raises(CheckpointError, match="seed"):
        start(dataclasses.replace(dying, seed=4), tmp_path / "cut", resume=True)
    resumed = start(dying, tmp_path / "cut", resume=True)
    timing_of_notes = {"seconds_per_victim"}
    for record in (whole, resumed):
        for attack in record["attacks"]:
            attack["notes"] = {k: v for k, v in attack["notes"].items() if k not in timing_of_notes}
    assert without_timing(resumed) == without_timing(whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_victims": 1}, "allowed is 2 to 40"),
        ({"fmrs": (1e-4,)}, "FMR 0.0001 cannot be shown with 780 impostor comparisons"),
        ({"fpirs": (0.0,)}, r"each in \(0, 1\]"),
        ({"pairs": None}, "no 1:1 protocol whose people"),
        ({"pairs": None, "open_set": None, "attacks": ()}, "neither a 1:1 nor a 1:N protocol"),
        ({"arms": ()}, "there is no arm"),
        ({"recogniser": Judge(name="j", label="J", embedder=type("E", (), {"dim": 8, "embed": None})())}, "gives 8"),
        ({"num_resamples": 50}, "at least 100"),
        ({"people": "robots"}, "'real' or 'synthetic'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    if changes.get("arms") == ():
        changes = {**changes, "attacks": ()}
    with pytest.raises(ProblemsError, match=words):
        start(template_experiment(**changes), tmp_path)
    assert not (tmp_path / "record.json").exists()


def test_public_faces_of_the_victims_are_refused(tmp_path: Path) -> None:
    experiment = template_experiment()
    assert experiment.pairs is not None
    transfer = Transfer(judge=experiment.recogniser, public_images=experiment.pairs.images)
    with pytest.raises(OverlapError):
        start(dataclasses.replace(experiment, transfer=transfer), tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("references", [0, 1, 3], "has one already"),
        ("references", [], "the gallery is empty"),
        ("unmated", [], "there are no distractors"),
        ("mated", [], "no probe has a mate"),
        ("mated", [0], "its own reference"),
        ("mated", [60], "of people who have no reference"),
        ("unmated", [2], "they are no distractors"),
        ("unmated", [500], "outside"),
    ],
)
def test_open_set_protocols_that_contradict_themselves_are_refused(field: str, value: list[int], words: str) -> None:
    good = open_set()
    fields = {name: getattr(good, name) for name in ("name", "images", "references", "mated", "unmated")}
    with pytest.raises(ProblemsError, match=words):
        OpenSetProtocol(**{**fields, field: np.array(value, dtype=np.int64)})


def test_who_has_one_image_is_a_distractor() -> None:
    images = people(6, 3, seed=1, name="lfw").subset([0, 1, 2, 3, 6, 7], name="few")
    protocol = one_reference_each(images, name="few", most_probes_each=5)
    assert protocol.references.tolist() == [0, 4] and protocol.mated.tolist() == [1, 2, 5]
    assert protocol.unmated.tolist() == [3] and protocol.used().tolist() == [0, 1, 2, 3, 4, 5]
