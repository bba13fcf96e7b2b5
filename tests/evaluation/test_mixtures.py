"""Attacks on mixed images: whom they find is any of the people in a mixture, and epochs add up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ppfr.core import AttackResult, ImageMasker, ImageSet, MixedImages, ObservedImages, ProblemsError, RunOptions
from ppfr.evaluation import Experiment, System, TrainedSystem
from ppfr.masking import MixedMasker, MixUp, Unprotected
from support.toy_experiment import (
    SIDE,
    Projection,
    ToyRecovery,
    ToyTraining,
    reader,
    start,
    toy_experiment,
    toy_plan,
    toy_protocol,
)

K = 3
SEES_MIXED = reader(sees=MixedImages)


class MixingTraining(ToyTraining):
    """Mixes plain images."""

    mixes = True

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedSystem:
        trained = super().train(masker, images, seed=seed, options=options)
        return dataclasses.replace(trained, exposed=MixedMasker(masker, [MixUp(num_images=K, max_weight=0.5)]))


class Unmixing(ToyRecovery):
    """Solves for the images of a mixture exactly, because it has them, and names one of the people at random."""

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        images = torch.from_numpy(toy_protocol().images.read(range(180))).permute(0, 3, 1, 2).float() / 255
        weights = torch.linalg.lstsq(images.flatten(1).double().T, seen.images_NKPQ.flatten(1).double().T).solution.T
        rng = np.random.default_rng(seed)
        members = [rng.choice(np.flatnonzero(row > 0.01)) for row in weights.numpy()]
        return AttackResult(embeddings_ND=Projection(9).embed(images[members]).numpy())


class Guessing(ToyRecovery):
    """Ignores what it sees."""

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        rng = torch.Generator().manual_seed(seed)
        rows = torch.randn(len(seen.images_NKPQ), Projection.dim, generator=rng)
        return AttackResult(embeddings_ND=functional.normalize(rows, dim=1).numpy())


class Constant(ToyRecovery):
    """Gives the same estimate for everybody."""

    def run(self, seen: ObservedImages, *, seed: int) -> AttackResult:
        return AttackResult(embeddings_ND=np.eye(Projection.dim)[np.zeros(len(seen.images_NKPQ), dtype=int)])


def mixing_experiment(**changes: Any) -> Experiment:
    masker = Unprotected(in_shape=(3, SIDE, SIDE))
    plain = System(name="plain", label="Plain", role="baseline", masker=masker, training=ToyTraining())
    mixed = System(
        name="mixed", label="Mixed", role="protected", masker=masker, training=MixingTraining(), baseline="plain"
    )
    plans = [
        toy_plan("unmix", "mixed", kind=Unmixing, granted=SEES_MIXED, measures_pairs=False),
        toy_plan("guess", "mixed", kind=Guessing, granted=SEES_MIXED, measures_pairs=False),
        toy_plan("copy", "mixed", granted=SEES_MIXED, measures_pairs=False),
        toy_plan("copy-32", "mixed", granted=SEES_MIXED, measures_pairs=False, num_epochs=32),
        toy_plan("copy-plain", "plain", role="positive control"),
    ]
    return toy_experiment(plans=plans, systems=[plain, mixed], **changes)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    record = start(mixing_experiment(), tmp_path_factory.mktemp("mixed"))
    assert record["status"] == "complete"
    return record["results"]


def of(results: dict[str, list[dict[str, Any]]], kind: str, attack: str) -> dict[str, Any]:
    return next(row for row in results[kind] if row["attack"] == attack)


def test_perfect_attacker_finds_somebody_in_every_mixture(results: dict[str, list[dict[str, Any]]]) -> None:
    """The gallery has another image of each person, so plain images are the most that it can have."""
    mixtures = of(results, "mixture_re_identification", "unmix")
    plain = of(results, "re_identification", "copy-plain")["plain_rank_1"]["value"]
    assert plain > 0.8
    assert mixtures["anybody"]["rate"]["value"] >= plain - 0.1
    assert mixtures["anybody"]["plain"]["value"] >= plain
    assert of(results, "re_identification", "unmix")["rank_1"]["value"] < 0.6  # one of three, and some luck
    assert mixtures["heaviest"]["rate"]["value"] < 0.6
    assert 2.5 < mixtures["mean_people"] <= K and mixtures["num_epochs"] == 1


def test_guessing_attacker_is_near_the_chance_levels(results: dict[str, list[dict[str, Any]]]) -> None:
    mixtures = of(results, "mixture_re_identification", "guess")
    assert mixtures["anybody"]["chance"] == pytest.approx(mixtures["mean_people"] / 30)
    assert mixtures["heaviest"]["chance"] == pytest.approx(1 / 30)
    for name in ("anybody", "heaviest", "found"):
        rate = mixtures[name]
        assert rate["rate"]["low"] <= rate["chance"] and rate["rate"]["value"] < 0.3


def test_average_over_epochs_leaves_the_subject_of_each_row(results: dict[str, list[dict[str, Any]]]) -> None:
    one, many = (of(results, "re_identification", name)["rank_1"]["value"] for name in ("copy", "copy-32"))
    assert many > one + 0.2
    mixtures = of(results, "mixture_re_identification", "copy-32")
    assert mixtures["num_epochs"] == 32 and mixtures["mean_people"] > 10
    assert mixtures["heaviest"]["rate"]["value"] == pytest.approx(many)  # the row's own subject weighs most


def test_images_that_are_not_mixed_have_no_such_row(results: dict[str, list[dict[str, Any]]]) -> None:
    assert "copy-plain" not in {row["attack"] for row in results["mixture_re_identification"]}


@pytest.mark.parametrize(("kind", "is_met"), [(Unmixing, True), (Constant, False)])
def test_positive_control_on_mixed_images_is_judged_by_anybody(kind: type, is_met: bool, tmp_path: Path) -> None:
    """A control without training, as negative ones are, mixes nothing."""
    system = dataclasses.replace(mixing_experiment().system("mixed"), role="baseline", baseline=None)
    plans = [toy_plan("check", "mixed", kind=kind, role="positive control", granted=SEES_MIXED, measures_pairs=False)]
    record = start(toy_experiment(plans=plans, systems=[system]), tmp_path)
    assert of(record["results"], "attack_run", "check")["is_control_met"] is is_met


@pytest.mark.parametrize(("system", "granted", "num_epochs"), [("mixed", SEES_MIXED, 0), ("plain", reader(), 6)])
def test_number_of_epochs_that_fits_no_attack_is_refused(
    system: str, granted: Any, num_epochs: int, tmp_path: Path
) -> None:
    plans = [toy_plan("copy", system, granted=granted, num_epochs=num_epochs)]
    systems = mixing_experiment().systems
    with pytest.raises(ProblemsError, match=f"num_epochs={num_epochs}"):
        start(toy_experiment(plans=plans, systems=systems), tmp_path)
