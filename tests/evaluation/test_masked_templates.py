"""Template protections of the embeddings of a trained system: one training, the same embeddings, paired stage costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from ppfr.core import (
    ALL_KEYS,
    GENUINE_TOKEN,
    STOLEN_TOKEN,
    ImageMasker,
    MaskSpec,
    ProblemsError,
    Record,
    RunOptions,
    check_record,
    choose_device,
)
from ppfr.evaluation import (
    AccuracyGaps,
    Comparison,
    Experiment,
    Identification,
    KeySelection,
    SecureDecisions,
    SecureSearches,
    Session,
    System,
    Training,
    Unlinkability,
    Verification,
    Workspace,
)
from ppfr.evaluation._template_study import study_of
from ppfr.experiments.hfcf import SECTIONS, secure_decisions, secure_formats
from ppfr.masking import Unprotected
from ppfr.report import RecordView, Table
from ppfr.templates import UnprotectedTemplates
from support.records import row, rows
from support.toy_experiment import SIDE, ToyTraining, start, toy_experiment, toy_systems
from support.toy_templates import DIM, keyless, mapped, open_set, toy_pairs

FPIR = 0.1


class Noisy(ImageMasker):
    """Plain images under fresh noise."""

    def __init__(self) -> None:
        self._plain = Unprotected(in_shape=(3, SIDE, SIDE))

    @property
    def name(self) -> str:
        return "noisy"

    @property
    def spec(self) -> MaskSpec:
        return dataclasses.replace(self._plain.spec, is_stochastic=True)

    def public_config(self) -> dict[str, Any]:
        return {}

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        return image_BCHW + 0.2 * torch.randn(image_BCHW.shape, generator=rng)


def over(system: System, source: str, **fields: Any) -> System:
    return dataclasses.replace(system, **{"recogniser": source, "baseline": source, **fields})


def identity(source: str) -> System:
    return over(keyless(f"{source}-identity", "protected", UnprotectedTemplates(dim=DIM)), source)


def chain(training: ToyTraining) -> list[System]:
    plain, fd, constant = toy_systems(training)
    fd = dataclasses.replace(fd, masker=Noisy())
    mapping = over(mapped(), "fd", name="fd-mapping")
    return [plain, fd, identity("fd"), mapping, constant]


def experiment(systems: list[System], **changes: Any) -> Experiment:
    pairs = toy_pairs()
    comparisons = [
        Comparison(name="in-all", text="What do both stages cost?", system="fd-mapping", against="plain"),
        Comparison(name="nothing", text="What does nothing cost?", system="fd-identity", against="fd"),
    ]
    settings: dict[str, Any] = {
        "systems": systems,
        "recognisers": [],
        "comparisons": comparisons,
        "measures": [
            Training(),
            Verification(protocols=[pairs], fars=(1e-1,)),
            AccuracyGaps(protocols=[pairs]),
            SecureDecisions(
                pairs=pairs,
                decide=lambda *given: secure_decisions(*given, fars=(1e-1,), num_resamples=100),
            ),
            Unlinkability(pairs=pairs),
            Identification(protocol=open_set(), fpirs=(FPIR,)),
            SecureSearches(protocol=open_set(), formats=secure_formats, num_decided=9, fpirs=(FPIR,)),
        ],
    }
    return toy_experiment(**{**settings, **changes})


TRAINING = ToyTraining(noise=0.3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return start(experiment(chain(TRAINING)), tmp_path_factory.mktemp("chain"))


def test_all_back_halves_share_one_training(finished: Record) -> None:
    assert finished["status"] == "complete", [s["error"] for s in finished["stages"]]
    check_record(finished)
    assert TRAINING.num_full == 1
    assert [found["system"] for found in rows(finished, "training")] == ["plain", "fd"]


def test_identity_stage_costs_nothing_although_every_mask_is_random(finished: Record) -> None:
    # Another draw of the noise would change the figures of the masking, and with them those of the stage behind it.
    nothing = {"value": 0, "low": 0, "high": 0}
    for gap in rows(finished, "accuracy_gap", system="fd-identity"):
        assert {key: gap["gap"][key] for key in nothing} == nothing
    gaps = [found["gap_to_baseline"] for found in rows(finished, "identification", system="fd-identity")]
    gaps += [found["gap"] for found in rows(finished, "identification_gap", comparison="nothing")]
    assert len(gaps) == 2
    for gap in gaps:
        for found in (gap["rank_1"], gap["fnir_at_fpir"][f"{FPIR:g}"]):
            assert {key: found[key] for key in nothing} == nothing
    for kind in ("secure_decisions", "secure_searches"):
        ours, theirs = (row(finished, kind, system=name)["formats"] for name in ("fd-identity", "fd"))
        # A template is an embedding divided by its norm, which is 1 up to rounding.
        for one, other in zip(ours, theirs, strict=True):
            for same in {"accuracy", "eer", "rank_1", "fnir_at_fpir"} & set(one):
                assert one[same] == other[same]


def test_system_and_its_back_half_get_the_same_embeddings(tmp_path: Path) -> None:
    systems = chain(ToyTraining(noise=0.3))
    session = Session(
        experiment(systems), Workspace(tmp_path), device=choose_device("cpu"), options=RunOptions(run_dir=tmp_path)
    )
    masked, mapping = systems[1], systems[3]
    rows_ND = session.embeddings(masked, toy_pairs())
    np.testing.assert_array_equal(session.embeddings(mapping, toy_pairs()), rows_ND)
    again = Session(
        experiment(systems),
        Workspace(tmp_path),
        device=choose_device("cpu"),
        options=RunOptions(run_dir=tmp_path, resumes=True),
    )
    np.testing.assert_array_equal(again.embeddings(mapping, toy_pairs()), rows_ND)
    first_NK, second_NK = study_of(session, toy_pairs()).compared(masked, is_stolen=True)
    used = toy_pairs().used()
    np.testing.assert_array_equal(first_NK, rows_ND[np.searchsorted(used, toy_pairs().first)])
    np.testing.assert_array_equal(second_NK, rows_ND[np.searchsorted(used, toy_pairs().second)])


def test_comparison_of_a_mapping_with_plain_images_is_in_both_scenarios(finished: Record) -> None:
    plain = row(finished, "verification", source="system", name="plain")["accuracy"]["value"]
    for scenario in (STOLEN_TOKEN, GENUINE_TOKEN):
        ours = row(finished, "verification", source="system", name="fd-mapping", scenario=scenario)
        gap = row(finished, "accuracy_gap", comparison="in-all", scenario=scenario)["gap"]
        assert gap["value"] == pytest.approx(ours["accuracy"]["value"] - plain)
    first, second = (
        row(finished, "identification", system=name, scenario=ALL_KEYS, values="float32")["rank"]["1"]["value"]
        for name in ("fd-mapping", "plain")
    )
    gap = row(finished, "identification_gap", comparison="in-all")["gap"]["rank_1"]
    assert gap["value"] == pytest.approx(first - second)


def test_searches_of_the_parties_are_those_of_integers(finished: Record) -> None:
    found = rows(finished, "secure_searches")
    assert [(each["system"], each["scenario"]) for each in found] == [
        ("plain", ALL_KEYS),
        ("fd", ALL_KEYS),
        ("fd-identity", ALL_KEYS),
        ("fd-mapping", ALL_KEYS),
        ("fd-mapping", GENUINE_TOKEN),
    ]
    for each in found:
        assert [form["values"] for form in each["formats"]] == ["int8", "int16"]
        for form in each["formats"]:
            (at,) = form["decisions"]
            assert at["num_decided"] == 9 and at["num_differ_from_integers_in_the_clear"] == 0
        rank = row(finished, "identification", system=each["system"], scenario=each["scenario"], values="float32")
        exact = each["formats"][1]
        assert exact["rank_1"]["value"] == pytest.approx(rank["rank"]["1"]["value"])
        # The threshold is the score of one search, whose outcome any rounding can change.
        assert exact["decisions"][0]["num_differ_from_float"] <= 1


def test_changed_outcomes_are_counted(tmp_path: Path) -> None:
    def coarse(dim: int) -> list[Any]:
        (form, _) = secure_formats(dim)
        # What is computed in the clear is not what the parties hold.
        return [dataclasses.replace(form, integers=lambda rows_NK: np.abs(form.integers(rows_NK)))]

    systems = chain(ToyTraining())[:1]
    found = start(
        experiment(
            systems,
            comparisons=[],
            measures=[
                Training(),
                Identification(protocol=open_set(), fpirs=(FPIR,)),
                SecureSearches(protocol=open_set(), formats=coarse, num_decided=35, fpirs=(FPIR,)),
            ],
        ),
        tmp_path,
    )
    assert found["status"] == "complete", [s["error"] for s in found["stages"]]
    (at,) = row(found, "secure_searches")["formats"][0]["decisions"]
    assert at["num_decided"] == 35
    assert at["num_differ_from_integers_in_the_clear"] > at["num_differ_from_float"]


def test_stage_cost_table_has_a_column_per_stage(finished: Record) -> None:
    (section,) = SECTIONS
    view = RecordView(finished)
    assert section.is_shown(view)
    tables = [block for block in section.blocks(view) if isinstance(block, Table)]
    assert [table.title for table in tables] == ["1:1, accuracy on toy", "1:N, rank-1", f"1:N, FNIR at FPIR {FPIR:g}"]
    for table in tables:
        cells = {(each.label, each.note): each.cells for each in table.rows}
        masking, mapping, *_ = next(found for (label, _), found in cells.items() if "identity" in label.lower())
        assert masking.main == next(found for (label, _), found in cells.items() if label == "FD")[0].main
        assert mapping.main == "0.00"
    (accuracy, *_) = tables
    (in_all,) = (each.cells[2].main for each in accuracy.rows if each.label == "Mapping" and each.note == STOLEN_TOKEN)
    gap = row(finished, "accuracy_gap", comparison="in-all", scenario=STOLEN_TOKEN)["gap"]["value"]
    assert float(in_all.replace("\N{MINUS SIGN}", "-")) == pytest.approx(100 * gap, abs=0.005)


def test_stage_cost_table_is_left_out_without_a_chain(finished: Record) -> None:
    systems = [each for each in finished["systems"] if each["templates"] is None]
    (section,) = SECTIONS
    assert not section.is_shown(RecordView({**finished, "systems": systems}))


def chosen() -> KeySelection:
    return KeySelection(choose=lambda row_D, threshold, rng: None, in_words="never")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: [*s[:2], dataclasses.replace(s[3], training=ToyTraining(), masker=Noisy())],
            "templates and a train",
        ),
        (lambda s: [s[0], s[3], s[1]], "no trained system of that name is listed before it"),
        (lambda s: [*s[:2], over(s[3], "constant", baseline="fd")], "no evaluation recogniser 'constant'"),
        (lambda s: [*s[:2], over(mapped(selection=chosen()), "fd")], "select no keys"),
    ],
)
def test_templates_over_anything_but_a_trained_system_are_rejected(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=words):
        start(experiment(change(chain(ToyTraining())), comparisons=[]), tmp_path)
