"""HFCF and DCTDP in the training loop: the privacy budget is trained, resumed, and saved frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from ppfr.attacks import UNetRecovery
from ppfr.core import CheckpointError, ImageMasker, RunOptions
from ppfr.masking import Dctdp, Hfcf, Sensitivities
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import MASKERS, FromScratch, MaskedSystem, load_system, make_masker, save_system
from ppfr.training import OptimizerSettings, Plan

IMAGES = SyntheticFaces(4, 4, seed=1)
STRATEGY = FromScratch(
    plan=Plan(epochs=2, batch_size=4, max_steps=4, channels_last=False, checkpoint_every_steps=2),
    network="mobilefacenet-small",
    dim=16,
    scale=16.0,
    optimizer=OptimizerSettings(optimizer="adamw", lr=1e-2),
)
SMALL = {"front_end": "block", "stride": 8, "num_channels": 12}


@pytest.fixture(scope="module")
def ranges() -> dict[str, Sensitivities]:
    return {
        "hfcf": Sensitivities.measure(IMAGES, Hfcf(**SMALL).front_end),  # type: ignore[arg-type]
        "dctdp": Sensitivities.measure(IMAGES, Dctdp(**SMALL).front_end),  # type: ignore[arg-type]
    }


def make(name: str, ranges: dict[str, Sensitivities], **given: object) -> Hfcf | Dctdp:
    kind = {"hfcf": Hfcf, "dctdp": Dctdp}[name]
    return kind(**({**SMALL, "sensitivities": ranges[name]} | given))  # type: ignore[arg-type]


def train(masker: ImageMasker, run_dir: Path, *, resumes: bool = False) -> MaskedSystem:
    options = RunOptions(run_dir=run_dir, device="cpu", shows_progress=False, resumes=resumes)
    return STRATEGY.train(masker, IMAGES, seed=1, options=options)[0]


def faces() -> Tensor:
    return torch.from_numpy(IMAGES.read([0, 5, 9])).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("name", ["hfcf", "dctdp"])
def test_privacy_budget_is_trained_and_saved_frozen(
    name: str, ranges: dict[str, Sensitivities], tmp_path: Path
) -> None:
    masker = make(name, ranges)
    system = train(masker, tmp_path / "training")
    learned = masker.budget.learned()["rho"]
    assert np.abs(learned).max() > 1e-3, "rho has changed"
    assert masker.budget.eps().sum().item() == pytest.approx(masker.budget.total_eps, rel=1e-5)
    assert masker.spec.is_trainable and not system.masker.spec.is_trainable
    save_system(tmp_path / "system", system)
    loaded = load_system(tmp_path / "system").masker
    assert isinstance(loaded, Hfcf | Dctdp) and not loaded.spec.is_trainable
    np.testing.assert_array_equal(loaded.budget.learned()["rho"], learned)
    masked = [m.mask(faces(), rng=Generator().manual_seed(3)).detach() for m in (masker, loaded)]
    assert torch.equal(masked[0], masked[1])
    assert loaded.public_config() == system.masker.public_config()


def test_resumed_run_restores_the_privacy_budget(ranges: dict[str, Sensitivities], tmp_path: Path) -> None:
    whole, halved = make("hfcf", ranges), make("hfcf", ranges)
    train(whole, tmp_path / "whole")
    train(halved, tmp_path / "cut")
    latest = sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))[-1]
    latest.unlink()  # as if the run had been killed after step 2
    fresh = make("hfcf", ranges)
    train(fresh, tmp_path / "cut", resumes=True)
    np.testing.assert_array_equal(fresh.budget.learned()["rho"], whole.budget.learned()["rho"])


def test_resuming_rejects_sensitivities_of_another_data_set(ranges: dict[str, Sensitivities], tmp_path: Path) -> None:
    train(make("hfcf", ranges), tmp_path)
    other = Sensitivities.measure(SyntheticFaces(2, 2, seed=9), make("hfcf", ranges).front_end)
    with pytest.raises(CheckpointError, match="sensitivities_sha256"):
        train(make("hfcf", ranges, sensitivities=other), tmp_path, resumes=True)


def test_load_system_rejects_other_arrays(ranges: dict[str, Sensitivities], tmp_path: Path) -> None:
    system = train(make("hfcf", ranges), tmp_path / "training")
    save_system(tmp_path / "system", system)
    facts = tmp_path / "system" / "masker.json"
    stored = system.masker.public_config()["learned_sha256"]
    facts.write_text(facts.read_text().replace(stored, "0" * 64))
    with pytest.raises(CheckpointError, match=r"learned values have checksum \w+\.\.\., expected 0{12}"):
        load_system(tmp_path / "system")


def test_attack_does_not_change_the_privacy_budget(ranges: dict[str, Sensitivities]) -> None:
    masker = make("dctdp", ranges)
    before = masker.budget.learned()["rho"]
    attack = UNetRecovery(
        plan=Plan(epochs=1, batch_size=4, max_steps=2, channels_last=False),
        knows_secret=False,
        width=8,
        max_width=8,
        device="cpu",
        progress=False,
    )
    attack.fit(masker, IMAGES, seed=1)
    np.testing.assert_array_equal(masker.budget.learned()["rho"], before)
    assert masker.budget.rho is not None and masker.budget.rho.requires_grad


def test_noise_maskers_are_in_the_catalogue() -> None:
    assert {"hfcf", "dctdp"} <= set(MASKERS)
    made = make_masker("hfcf", secret=None, config={"front_end": "block", "eps_mean": "inf", "colour": "none"})
    assert made.spec.out_shape == (63, 28, 28)
