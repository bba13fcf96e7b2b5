"""Attacks on a masker that is trained with its recogniser use its learned parameters, also in resumed runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ppfr.core import ImageMasker, ImageSet, RunOptions
from ppfr.evaluation import Experiment, TrainedSystem
from ppfr.masking import Dctdp, NoisyFrontEnd, Sensitivities
from support.records import stage_states, without_timing
from support.toy_experiment import MASKERS_SEEN, SIDE, ToyTraining, start, toy_experiment, toy_systems

FRONT_END = NoisyFrontEnd(front_end="block", stride=8, num_channels=5, in_shape=(3, SIDE, SIDE))
RANGES = Sensitivities.measure(np.random.default_rng(1).integers(0, 256, (9, SIDE, SIDE, 3), np.uint8), FRONT_END)


class LearnsTheMasker(ToyTraining):
    """Leaves a budget in the masker, as the training loop does, also where it finds itself done."""

    def train(self, masker: ImageMasker, images: ImageSet, *, seed: int, options: RunOptions) -> TrainedSystem:
        trained = super().train(masker, images, seed=seed, options=options)
        assert isinstance(masker, Dctdp) and masker.budget.rho is not None
        with torch.no_grad():
            masker.budget.rho.copy_(torch.linspace(-2, 2, masker.budget.rho.numel()))
        return trained


def experiment(training: ToyTraining | None = None) -> Experiment:
    """With a masker that nobody has trained yet."""
    masker = Dctdp(front_end="block", stride=8, num_channels=5, in_shape=(3, SIDE, SIDE), sensitivities=RANGES)
    plain, protected, constant = toy_systems(training or LearnsTheMasker())
    return toy_experiment(systems=[plain, dataclasses.replace(protected, masker=masker), constant])


@pytest.fixture(scope="module", autouse=True)
def _quick_timing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppfr.evaluation.measures._cost._MIN_S", 0.0)
        yield


def test_resumed_attacks_use_the_learned_parameters_of_the_masker(tmp_path: Path) -> None:
    whole = start(experiment(), tmp_path / "whole")
    assert whole["status"] == "complete"
    start(experiment(), tmp_path / "cut")
    for part in (tmp_path / "cut" / "parts").glob("*"):
        if part.name.startswith(("fit--recover-fd", "attack--recover-fd")):
            part.unlink()
    MASKERS_SEEN.clear()
    resumed = start(experiment(), tmp_path / "cut", resumes=True)
    seen = [masker for name, masker in MASKERS_SEEN if name == "attack-recover-fd"]
    assert len(seen) == 1 and isinstance(seen[0], Dctdp)
    np.testing.assert_allclose(seen[0].budget.learned()["rho"].ravel(), np.linspace(-2, 2, 15 * 16), atol=1e-6)
    assert without_timing(resumed) == without_timing(whole)


def test_attack_on_a_learned_masker_is_skipped_if_its_training_fails(tmp_path: Path) -> None:
    record = start(experiment(ToyTraining(noise=0.3, breaks=True)), tmp_path)
    states = stage_states(record)
    assert states["train/fd"] == "failed" and states["fit/recover-fd"] == "skipped"
    assert states["attack/recover-plain"] == "done"
