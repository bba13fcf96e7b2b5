"""The AdaMixUp tables: rows, maskers, published results, and what adversaries see."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ppfr.core import InvalidInputError, MaskedImages, MissingAssetError, MixedImages, RunOptions, check_record
from ppfr.data._subjects import shared_subjects
from ppfr.evaluation import Experiment, GalleryAttacks, ImageAttacks, Session, System, Verification, Workspace
from ppfr.evaluation.measures._image_attack_run import seen_through, training_masker
from ppfr.experiments import EXPERIMENTS, IMAGE_ATTACKS, PRESETS, ExperimentContext
from ppfr.experiments.adamixup._tables import BUDGETS
from ppfr.masking import MixedMasker
from ppfr.workflows import run_named_experiment
from support.experiments import attacks_of, measure_of
from support.records import entry, row

# Its authors' tables as printed: total, Score_pp, Score_cls, then accuracies in %, arXiv 2403.10558v2.
TABLE_2 = """
arcface       -    -    -     99.23 96.26 95.53 94.92
adamixup-2-6 .968 .979  .957  96.15 93.63 94.73 91.20
adamixup-2-5 .981 .975  .987  98.20 95.29 95.11 93.25
adamixup-2-4 .959 .925  .992  98.43 95.33 95.18 93.71
mixup-2      .912 .825  .999  98.92 95.29 95.66 94.03
mixup-3      .940 .892  .989  98.20 94.81 95.03 93.38
mixup-4      .877 .975  .779  84.62 80.07 80.62 77.90
mixup-5      .796 .988  .605  73.31 69.51 68.55 66.49
mixup-6      .750 1.000 .500  66.53 63.35 65.83 63.07
mixup-fd     .749 .500  .997  98.76 95.22 94.92 93.88
ppfr-fd      .806 .613 1.000  98.93 95.54 95.08 93.65
dp           .753 .917  .590  72.36 69.71 68.54 66.80
instahide-fd .733 .713  .753  82.93 77.01 76.76 73.13
"""
MEASURES = (
    "total score", "privacy score", "accuracy score",
    "accuracy on lfw", "accuracy on cfp-fp", "accuracy on agedb-30", "accuracy on calfw",
)  # fmt: skip
TABLE_1 = {"mixup-rgb": 86.38, "mixup-fd": 98.76, "instahide-rgb": 61.75, "instahide-fd": 82.93}
TABLE_3 = {
    "adamixup-2-6": (0.17, 0.25, 0.13, 0.26, 0.19),
    "adamixup-2-5": (0.21, 0.28, 0.16, 0.35),
    "adamixup-2-4": (0.31, 0.44, 0.25),
}
MIXERS = {
    **{f"adamixup-2-{most}": [f"mixup-{k}" for k in range(2, most + 1)] for most in (4, 5, 6)},
    **{f"mixup-{k}": [f"mixup-{k}"] for k in range(2, 7)},
    **{f"{method}-{domain}": [f"{method}-2"] for method in ("mixup", "instahide") for domain in ("rgb", "fd")},
}
MASKS = {"arcface": "unprotected", "dp": "peep", "constant": "constant"} | {
    name: "unprotected" if name.endswith("rgb") else "frequency" if name.endswith("fd") else "ppfr-fd"
    for name in MIXERS
}
MASKS |= {"ppfr-fd": "ppfr-fd"}


def context(out_dir: Path, **fields: Any) -> ExperimentContext:
    options = RunOptions(run_dir=out_dir, device="cpu", resumes=fields.pop("resumes", False))
    return ExperimentContext(**{"preset": "fast-test", "seed": 1, "options": options, **fields})


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Experiment]:
    """All three, built without data; they share one recogniser."""
    shared = context(tmp_path_factory.mktemp("tables"), resumes=True)
    return {number: EXPERIMENTS[f"adamixup:table{number}"](shared) for number in "123"}


def published(system: System) -> dict[str, float]:
    found = {figure.measure: figure.value for figure in system.published}
    assert len(found) == len(system.published), "no measure twice"
    return found


def printed(row: str) -> tuple[str, dict[str, float]]:
    name, *cells = row.split()
    values = {
        measure: float(cell) / (100 if measure.startswith("accuracy on") else 1)
        for measure, cell in zip(MEASURES, cells, strict=True)
        if cell != "-"
    }
    return name, values


# Rows


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("1", ["arcface", *TABLE_1]),
        ("2", [*(printed(row)[0] for row in TABLE_2.strip().splitlines()), "constant"]),
        ("3", ["arcface", *TABLE_3]),
    ],
)
def test_each_table_has_its_rows_under_their_masks_and_mixtures(
    tables: dict[str, Experiment], table: str, names: list[str]
) -> None:
    experiment = tables[table]
    assert experiment.name == f"adamixup:table{table}" and experiment.preset == "fast-test"
    assert [system.name for system in experiment.systems] == names
    for system in experiment.systems:
        assert system.masker.name == MASKS[system.name]
        assert system.baseline == (None if system.name in ("arcface", "constant") else "arcface")
        if system.training is None:
            assert system.role == "control"
            continue
        assert system.training.mixes == (system.name in MIXERS)
        mixing = system.training._strategy.mixing  # type: ignore[attr-defined]
        assert [mixer.name for mixer in mixing.mixers()] == MIXERS[system.name] if mixing else system.name not in MIXERS


def test_accuracies_are_those_of_one_masked_image(tables: dict[str, Experiment]) -> None:
    assert not any(table.mirrors_input for table in tables.values())


def test_maskers_are_those_of_the_rows(tables: dict[str, Experiment]) -> None:
    system = tables["2"].system
    assert system("instahide-fd").masker.public_config()["num_channels"] == 64
    assert system("instahide-fd").masker.public_config()["keeps_dc"], "-FD: the full frequency data"
    assert system("dp").masker.public_config()["eps"] == 3.0
    assert not system("dp").masker.spec.is_keyed and system("ppfr-fd").masker.spec.is_keyed
    masked = [system(name).masker for name in ("ppfr-fd", "mixup-4", "adamixup-2-5")]
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    outputs = [masker.mask(image, rng=torch.Generator()) for masker in masked]
    assert all(torch.equal(outputs[0], other) for other in outputs), "one deployment: one secret for all rows"


def test_rows_differ_in_training_only_by_their_mixing(tables: dict[str, Experiment]) -> None:
    for experiment in tables.values():
        configs = [
            dict(system.training.public_config()) for system in experiment.systems if system.training is not None
        ]
        for config in configs:
            config.pop("mixing")
        assert all(config == configs[0] for config in configs)


def test_every_preset_has_a_budget_for_every_attack() -> None:
    assert tuple(BUDGETS) == PRESETS
    for budget in BUDGETS.values():
        assert all(budget.attack_preset in kind.sizes for kind in IMAGE_ATTACKS.values())


# Figures of its authors


@pytest.mark.parametrize("row", TABLE_2.strip().splitlines(), ids=lambda row: row.split()[0])
def test_published_results_of_table_2_are_those_of_the_paper(tables: dict[str, Experiment], row: str) -> None:
    name, wanted = printed(row)
    system = tables["2"].system(name)
    found = published(system)
    shares = {measure: found.pop(measure) for measure in list(found) if measure.startswith("share of")}
    assert found == pytest.approx(wanted, abs=1e-12) and len(found) == (4 if name == "arcface" else 7)
    assert list(shares.values()) == list(TABLE_3.get(name, ()))
    for figure in system.published:
        assert figure.source == f"arXiv 2403.10558, table {3 if figure.measure.startswith('share of') else 2}"


def test_published_results_of_tables_1_and_3_are_those_of_the_paper(tables: dict[str, Experiment]) -> None:
    for name, accuracy in TABLE_1.items():
        system = tables["1"].system(name)
        assert published(system) == pytest.approx({"accuracy on lfw": accuracy / 100})
        assert {figure.source for figure in system.published} == {"arXiv 2403.10558, table 1"}
    for name, shares in TABLE_3.items():
        system = tables["3"].system(name)
        assert published(system) == {f"share of mixup-{k}": share for k, share in enumerate(shares, 2)}
        assert math.isclose(sum(shares), 1.0) and {f.source for f in system.published} == {"arXiv 2403.10558, table 3"}


# Adversaries


def test_adversaries_see_mixed_images_if_and_only_if_a_row_mixes(tables: dict[str, Experiment], tmp_path: Path) -> None:
    experiment = tables["2"]
    assert attacks_of(tables["1"]) == attacks_of(tables["3"]) == []
    trained = measure_of(experiment, ImageAttacks).plans
    assert len(trained) == len(experiment.systems) * len(IMAGE_ATTACKS)
    for plan in trained:
        attack: Any = plan.make(RunOptions(run_dir=tmp_path, device="cpu"))
        assert attack.needs == dataclasses.replace(plan.granted, knows_recogniser=False)
        assert plan.granted.sees is (MixedImages if plan.system in MIXERS else MaskedImages)
        assert attack.ignores_signs == (plan.system == "instahide-fd")
        assert plan.granted.knows_secret, "pairs of plain and masked faces are had with the deployment's secret alone"
        roles = {"arcface": "positive control", "constant": "negative control"}
        assert plan.role == roles.get(plan.system, "attack")
    assert {(plan.system, plan.label) for plan in trained} == {
        (system.name, label)
        for system in experiment.systems
        for label in (kind.title for kind in IMAGE_ATTACKS.values())
    }


def test_what_devices_send_is_attacked_without_training_in_every_row(tables: dict[str, Experiment]) -> None:
    plans = measure_of(tables["2"], GalleryAttacks).plans
    assert {plan.system for plan in plans} == {system.name for system in tables["2"].systems}
    assert all(plan.granted.sees is MaskedImages and plan.granted.knows_secret for plan in plans)
    labels = {plan.label for plan in plans if plan.system == "adamixup-2-4"}
    assert labels == {"Enrolment attack", "Matched filter", "Ridge regression to identity"}


@pytest.mark.parametrize("name", ["adamixup-2-4", "instahide-fd"])
def test_attack_trains_on_and_sees_the_exposed_training_set(
    tables: dict[str, Experiment], name: str, tmp_path: Path
) -> None:
    systems = [tables["2"].system(name), tables["2"].system("ppfr-fd")]
    experiment = dataclasses.replace(tables["2"], systems=systems)
    session = Session(
        experiment,
        Workspace(tmp_path),
        device=torch.device("cpu"),
        options=RunOptions(shows_progress=False),
    )
    mixed, alone = (
        next(p for p in measure_of(experiment, ImageAttacks).plans if p.system == system.name) for system in systems
    )
    assert seen_through(session, alone) is systems[1].masker
    exposed = seen_through(session, mixed)
    assert isinstance(exposed, MixedMasker)
    attack = mixed.make(session.options("attack", mixed.name, resumes=True))
    assert training_masker(session, mixed, attack) is exposed

    image = torch.from_numpy(experiment.training_images.read(range(8))).permute(0, 3, 1, 2) / 255
    seen = exposed.mask(image, rng=torch.Generator().manual_seed(1))
    plain = systems[0].masker.mask(image, rng=torch.Generator().manual_seed(1))
    assert seen.shape == plain.shape and not torch.allclose(seen, plain, atol=1e-3)
    outcome = session.trained(systems[0]).fits[0]["outcome"]
    if name == "adamixup-2-4":
        assert exposed.public_config()["shares"] == pytest.approx(outcome["shares"])
        assert sum(outcome["shares"]) == pytest.approx(1) and len(outcome["shares"]) == 3
    else:
        assert exposed.public_config()["shares"] == [1.0]


# Presets


@pytest.mark.parametrize("table", "123")
def test_paper_preset_lists_all_missing_files(table: str, tmp_path: Path) -> None:
    files = ["train.rec", "train.idx", "lfw.bin", "cfp_fp.bin", "agedb_30.bin", "calfw.bin"]
    build = EXPERIMENTS[f"adamixup:table{table}"]
    data = tmp_path / "data"
    (data / "faces_webface_112x112").mkdir(parents=True)
    paper = context(tmp_path / "run", preset="paper", data=data)
    with pytest.raises(MissingAssetError) as found:
        build(paper)
    assert found.value.name == ", ".join(files)
    assert "package of CASIA-WebFace into faces_webface_112x112/" in str(found.value)
    for name in ("train.rec", "agedb_30.bin"):
        (data / "faces_webface_112x112" / name).write_bytes(b"")
    with pytest.raises(MissingAssetError) as found:
        build(paper)
    assert found.value.name == "train.idx, lfw.bin, cfp_fp.bin, calfw.bin"
    assert not (tmp_path / "run").exists()


def test_cfp_has_the_rows_of_table_2_without_attacks_and_the_published_column(tmp_path: Path) -> None:
    shared = context(tmp_path, resumes=True)
    experiment = EXPERIMENTS["adamixup:cfp"](shared)
    assert [system.name for system in experiment.systems] == [
        printed(row)[0] for row in TABLE_2.strip().splitlines()
    ]  # fmt: skip
    assert not attacks_of(experiment)
    for line in TABLE_2.strip().splitlines():
        name, values = printed(line)
        (figure,) = experiment.system(name).published
        assert figure.measure == "accuracy on cfp-fp" and figure.value == values["accuracy on cfp-fp"]
        assert figure.source.endswith("table 2")
    with pytest.raises(InvalidInputError, match=r"'paper'.*adamixup:table2.*'laptop'"):
        EXPERIMENTS["adamixup:cfp"](dataclasses.replace(shared, preset="paper"))


@pytest.mark.real_data
def test_cfp_trains_on_nobody_who_is_in_cfp(tmp_path: Path, data_root: Path, weights_root: Path) -> None:
    laptop = context(tmp_path, preset="laptop", data=data_root, weights=weights_root)
    experiment = EXPERIMENTS["adamixup:cfp"](laptop)
    protocols = measure_of(experiment, Verification).protocols
    assert [(protocol.name, len(protocol)) for protocol in protocols] == [("cfp-ff", 7000), ("cfp-fp", 7000)]
    for protocol in protocols:
        assert not shared_subjects(experiment.training_images.subject_ids, protocol.images.subject_ids)


@pytest.mark.real_data
def test_laptop_preset_uses_lfw_and_a_narrow_strategy_network(
    tmp_path: Path, data_root: Path, weights_root: Path
) -> None:
    laptop = context(tmp_path, preset="laptop", data=data_root, weights=weights_root)
    experiment = EXPERIMENTS["adamixup:table2"](laptop)
    assert [len(protocol) for protocol in measure_of(experiment, Verification).protocols] == [
        6000
    ] and experiment.people == "real"
    assert not set(experiment.training_images.subject_ids) & set(
        measure_of(experiment, Verification).protocols[0].subjects()
    )
    mixing = experiment.system("adamixup-2-5").training.public_config()["mixing"]  # type: ignore[union-attr]
    assert mixing["strategy_width"] == 16 and mixing["max_weight"] == 0.55
    settings = mixing["settings"]
    assert (settings["every_steps"], settings["reward_weights"]) == (4, (1.0, 1.0))
    assert (settings["look_ahead_lr"], settings["look_ahead_clip_norm"]) == (0.01, 5.0)
    assert not experiment.system("dp").masker.spec.is_keyed
    assert experiment.system("dp").masker.public_arrays()["eigenfaces.components"].shape[0] == 128
    assert {system.name for system in experiment.systems} == set(MASKS) - {"mixup-rgb", "instahide-rgb"}
    compared = EXPERIMENTS["adamixup:supervision"](laptop)
    learns = {
        "adamixup-2-5": (2.0, "arcface"),
        "adamixup-2-5-labels": (0.0, "arcface"),
        "adamixup-2-5-teacher": (2.0, None),
    }
    assert [system.name for system in compared.systems] == ["arcface", *learns] and not attacks_of(compared)
    for name, expected in learns.items():
        config = compared.system(name).training.public_config()  # type: ignore[union-attr]
        assert (config["embedding_weight"], config["head"]) == expected and config["mixing"] == mixing
        assert not compared.system(name).published
    with pytest.raises(InvalidInputError, match=r"'paper'.*use the preset 'laptop'"):
        EXPERIMENTS["adamixup:supervision"](dataclasses.replace(laptop, preset="paper"))
    assert not list(tmp_path.iterdir()), "building writes nothing"


# From end to end


@pytest.mark.slow
def test_table_1_runs_from_end_to_end(tmp_path: Path) -> None:
    told = run_named_experiment(
        "adamixup:table1", preset="fast-test", seed=1, options=RunOptions(run_dir=tmp_path / "run", device="cpu")
    )
    assert told["status"] == "complete" and told["failed_stages"] == []
    assert set(told["accuracy"]) == {f"{name} on synthetic-pairs" for name in ("arcface", *TABLE_1)}
    record = json.loads(Path(told["record"]).read_text(encoding="utf-8"))
    check_record(record)
    for name, accuracy in TABLE_1.items():
        (figure,) = entry(record, "systems", name)["published"]
        assert figure["value"] == pytest.approx(accuracy / 100)
        assert row(record, "training", system=name)["fits"][0]["task"]["mixer"]["name"] == MIXERS[name][0]
    assert row(record, "training", system="arcface")["fits"][0]["task"]["mixer"] is None
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert str(tmp_path) not in page + json.dumps(record), "no path of this machine"
