"""The measure of attacks without training: rows, controls, observations of one image and of several, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ppfr.attacks import EnrolmentAttack, GalleryAttack, IdentityRegression, MatchedFilter
from ppfr.core import MixedImages, ProblemsError
from ppfr.evaluation import (
    GalleryAttackPlan,
    GalleryAttackRow,
    GalleryAttackRule,
    GalleryAttacks,
    System,
    Targets,
    Training,
)
from ppfr.masking import Constant, Dctdp, PpfrFd
from ppfr.metrics import Estimate
from support.toy_experiment import (
    SECRET,
    SIDE,
    ToyTraining,
    pairs,
    people,
    start,
    toy_experiment,
    toy_protocol,
    toy_systems,
)

SHAPE = (3, SIDE, SIDE)


def plan(attack: GalleryAttack, system: str, *, role: str = "attack", **changes: Any) -> GalleryAttackPlan:
    settings: dict[str, Any] = {
        "name": f"{attack.name}-{system}",
        "label": attack.label,
        "system": system,
        "make": lambda _: attack,
        "granted": attack.needs,
        "recogniser": "recogniser",
        "role": role,
        "num_observations": (1, 2),
    }
    return GalleryAttackPlan(**{**settings, **changes})


def measure(plans: list[GalleryAttackPlan], **changes: Any) -> GalleryAttacks:
    settings: dict[str, Any] = {
        "plans": plans,
        "protocols": [toy_protocol()],
        "targets": Targets(num_subjects=30),
        "public_images": people(20, 3, seed=4, name="public"),
    }
    return GalleryAttacks(**{**settings, **changes})


def systems() -> list[System]:
    """Plain, PPFR-FD and noise, each with the recogniser that it was trained for, and a constant."""
    noisy = Dctdp(eps_mean=0.3, learns=False, front_end="block", stride=8, num_channels=10, in_shape=SHAPE)
    plain, fd, _ = toy_systems(ToyTraining())
    return [
        plain,
        fd,
        System(name="noisy", label="Noisy", role="protected", masker=noisy, training=ToyTraining(), baseline="plain"),
        System(name="constant", label="Constant", role="control", masker=Constant(out_shape=SHAPE, in_shape=SHAPE)),
    ]


def experiment(plans: list[GalleryAttackPlan], **changes: Any):
    return toy_experiment(systems=systems(), measures=[Training(), measure(plans, **changes)])


ROLES = {"plain": "positive control", "constant": "negative control"}


def test_attacks_win_without_protection_and_are_at_chance_on_a_constant(tmp_path: Path) -> None:
    plans = [
        plan(attack, system, role=ROLES.get(system, "attack"))
        for attack in (EnrolmentAttack(num_masks=2), MatchedFilter(), IdentityRegression(num_faces=40))
        for system in ("plain", "fd", "constant")
    ]
    record = start(experiment(plans), tmp_path)
    runs = {row["attack"]: row["is_control_met"] for row in record["results"]["attack_run"]}
    assert runs["matched-filter-plain"] is True and runs["enrolment-fd"] is None
    rows = {(row["attack"], row["source"], row["num_observations"]): row for row in record["results"]["gallery_attack"]}
    for name in ("enrolment", "matched-filter", "identity-regression"):
        constant = rows[f"{name}-constant", "one image", 1]
        assert constant["rank_1"]["value"] == pytest.approx(1 / 30) == pytest.approx(constant["chance_rank_1"])
        assert constant["auc"]["value"] == 0.5
        assert runs[f"{name}-constant"] is True
    fd = rows["enrolment-fd", "one image", 1]
    assert fd["rank_1"]["low"] > fd["chance_rank_1"] and fd["level"] == "trivial" and fd["photo"] == "another photo"
    same = rows["matched-filter-fd", "one image", 1]
    assert same["rank_1"]["value"] == same["plain_rank_1"]["value"] == same["auc"]["value"] == 1
    assert same["photo"] == "same photo"
    assert ("enrolment-fd", "one image", 2) not in rows, "a masker without randomness has one mask of an image"


def test_several_observations_are_masks_of_one_image_or_images_of_the_person(tmp_path: Path) -> None:
    """People have three images in the protocol, of which one is in the gallery: two of each can be observed."""
    images = people(60, 3, seed=1, name="tested")
    protocol = pairs(images, each=3)
    protocol = dataclasses.replace(protocol, second=protocol.second + (protocol.second % 3 == 0) * 2)
    attacks = (EnrolmentAttack(num_masks=4), MatchedFilter())
    plans = [plan(attack, "noisy", num_observations=(1, 2, 8)) for attack in attacks]
    record = start(experiment(plans, protocols=[protocol]), tmp_path)
    rows = [(row["attack"], row["source"], row["num_observations"]) for row in record["results"]["gallery_attack"]]
    assert rows == [
        *(("enrolment-noisy", "one image", num) for num in (1, 2, 8)),
        *(("matched-filter-noisy", "one image", num) for num in (1, 2, 8)),
        ("enrolment-noisy", "images of the person", 2),
    ]
    person = record["results"]["gallery_attack"][-1]
    assert person["rank_1"]["n"] == 30 and person["gallery_size"] == 30
    filtered = [row["auc"]["value"] for row in record["results"]["gallery_attack"][3:6]]
    assert filtered[0] < filtered[2]


def test_results_repeat_and_the_attacks_of_a_system_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, two = plan(EnrolmentAttack(num_masks=2), "noisy"), plan(MatchedFilter(), "noisy")
    alone = start(experiment([one]), tmp_path / "alone")["results"]["gallery_attack"]
    both = start(experiment([two, one]), tmp_path / "both")["results"]["gallery_attack"]
    assert alone == [row for row in both if row["attack"] == one.name]


@pytest.mark.parametrize(
    ("value", "low", "role", "is_met"),
    [
        (0.90, 0.85, "positive control", True),
        (0.85, 0.80, "positive control", False),  # 94 % of what plain images get
        (0.90, 0.02, "positive control", False),
        (0.10, 0.02, "negative control", True),
        (0.10, 0.04, "negative control", False),
        (0.90, 0.85, "attack", None),
    ],
)
def test_positive_control_asks_for_95_percent_of_plain_images(
    value: float, low: float, role: Any, is_met: bool | None
) -> None:
    found, plain = (
        Estimate(value=rate, low=end, high=1.0, n=30, level=0.95, method="bootstrap")
        for rate, end in ((value, low), (0.9, 0.8))
    )
    row = GalleryAttackRow(
        attack="a", level="trivial", photo="another photo", source="one image", num_observations=1, gallery_size=30,
        rank_1=found, rank_5=found, auc=found, chance_rank_1=1 / 30, chance_rank_5=5 / 30, plain_rank_1=plain,
        plain_rank_5=plain,
    )  # fmt: skip
    assert GalleryAttackRule().is_met(role, row) is is_met


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (plan(MatchedFilter(), "noisy", num_observations=(4, 1)), r"num_observations=\[4, 1\]"),
        (plan(MatchedFilter(), "noisy", num_observations=()), r"num_observations=\[\]"),
        (
            plan(MatchedFilter(), "noisy", granted=dataclasses.replace(MatchedFilter().needs, sees=MixedImages)),
            "sees MixedImages",
        ),
        (
            plan(MatchedFilter(), "fd", granted=dataclasses.replace(MatchedFilter().needs, knows_secret=False)),
            "grant it",
        ),
    ],
)
def test_unfit_plans_are_refused_before_anything_runs(changed: GalleryAttackPlan, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=problem):
        start(experiment([changed]), tmp_path)


def test_enrolment_on_a_system_without_a_recogniser_is_refused(tmp_path: Path) -> None:
    masker = PpfrFd(secret=SECRET, in_shape=SHAPE)
    bare = [System(name="bare", label="Bare", role="protected", masker=masker)]
    refused = toy_experiment(systems=bare, measures=[measure([plan(EnrolmentAttack(), "bare")])], training_images=None)
    with pytest.raises(ProblemsError, match=r"recogniser of system 'bare'.*training"):
        start(refused, tmp_path)


def test_too_many_target_subjects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=r"61 target subjects.*2 to 60"):
        start(experiment([plan(MatchedFilter(), "plain")], targets=Targets(num_subjects=61)), tmp_path)
