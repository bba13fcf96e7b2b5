"""Mixing configurations: parsing, the tasks they build, the exposed training set, and training with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Generator

from ppfr.core import CheckpointError, InvalidInputError, RangeError, RunOptions
from ppfr.masking import InstaHide, MixedMasker, MixUp, PpfrFd, Unprotected
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import (
    AdaptiveMixing,
    FixedMixing,
    FromScratch,
    Mixing,
    check_mixing_batch,
    load_system,
    parse_mixing,
    save_system,
    training_set_masker,
)
from ppfr.training import AdaptiveMixingTask, MarginTask, Plan, StrategySettings
from ppfr.workflows import TrainingRequest, train_system

SECRET = bytes(range(32))
NARROW = AdaptiveMixing(candidates=(2, 3), strategy_width=2, settings=StrategySettings(every_steps=2))
STRATEGY = FromScratch(
    plan=Plan(epochs=2, batch_size=8, channels_last=False, checkpoint_every_steps=2),
    network="mobilefacenet-small",
    dim=16,
    scale=16.0,
)
REQUEST = TrainingRequest(
    images="synthetic:6x4",
    method="ppfr-fd",
    strategy="scratch",
    teacher="mobilefacenet-y1",
    network="mobilefacenet-small",
    head="cosface",
    epochs=1,
    batch_size=8,
    precision="32-true",
    seed=1,
)


def rng(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


def strategy(mixing: Mixing | None) -> FromScratch:
    return dataclasses.replace(STRATEGY, mixing=mixing)


def train_request(out_dir: Path, **changes: object) -> dict[str, object]:
    return train_system(
        dataclasses.replace(REQUEST, **changes),  # type: ignore[arg-type]
        options=RunOptions(run_dir=out_dir, device="cpu"),
        secret_path=None,
        data=None,
        weights=None,
        with_tensorboard=False,
    )


# Parsing


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (None, None),
        ("mixup:2", FixedMixing(method="mixup", num_images=2)),
        ("instahide:4", FixedMixing(method="instahide", num_images=4)),
        ("adamixup:2-4", AdaptiveMixing(candidates=(2, 3, 4))),
        ("adamixup:3-6", AdaptiveMixing(candidates=(3, 4, 5, 6))),
    ],
)
def test_read_mixing_parses_valid_words(word: str | None, expected: Mixing | None) -> None:
    assert parse_mixing(word) == expected


@pytest.mark.parametrize("word", ["cutmix:2", "mixup", "mixup:", "mixup:-2", "mixup:2.5", "adamixup:3", "", "mixup:2 "])
def test_read_mixing_rejects_unknown_words_and_lists_valid_ones(word: str) -> None:
    with pytest.raises(InvalidInputError, match=r"unknown mixing.*mixup:K, instahide:K .*adamixup:LOW-HIGH"):
        parse_mixing(word)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mixup:1", "2 images or more"),
        ("mixup:0", "2 images or more"),
        ("instahide:1", "2 images or more"),
        ("adamixup:1-3", "2 images or more"),
    ],
)
def test_read_mixing_rejects_invalid_numbers(word: str, message: str) -> None:
    with pytest.raises(RangeError, match=message):
        parse_mixing(word)


@pytest.mark.parametrize("word", ["adamixup:3-3", "adamixup:5-2"])
def test_read_mixing_rejects_empty_range_and_suggests_fixed_mixing(word: str) -> None:
    with pytest.raises(InvalidInputError, match=r"use mixup:\d"):
        parse_mixing(word)


# Configurations


def test_fixed_mixing_uses_the_default_cap_of_the_method() -> None:
    (mixup,) = FixedMixing(method="mixup", num_images=3).mixers()
    (instahide,) = FixedMixing(method="instahide", num_images=2).mixers()
    (capped,) = FixedMixing(method="mixup", num_images=2, max_weight=0.9).mixers()
    assert isinstance(mixup, MixUp) and mixup.public_config() == {"num_images": 3, "max_weight": 0.55}
    assert isinstance(instahide, InstaHide) and instahide.public_config() == {"num_images": 2, "max_weight": 0.65}
    assert capped.public_config()["max_weight"] == 0.9
    with pytest.raises(InvalidInputError, match=r"'cutmix'.*mixup, instahide"):
        FixedMixing(method="cutmix").mixers()
    with pytest.raises(RangeError, match=r"cap from 0\.5 to 1"):
        FixedMixing(method="mixup", num_images=2, max_weight=0.4).mixers()


def test_adaptive_mixing_has_one_mixer_per_candidate_in_order() -> None:
    assert [mixer.name for mixer in AdaptiveMixing(candidates=(5, 2)).mixers()] == ["mixup-5", "mixup-2"]
    with pytest.raises(InvalidInputError, match="each number of images once"):
        AdaptiveMixing(candidates=(2, 3, 2)).mixers()


# Tasks


def test_fixed_mixing_sets_the_mixer_of_the_task() -> None:
    masker = PpfrFd(secret=SECRET)
    plain = strategy(None).build(masker, num_classes=4, seed=3)[0]
    fixed = strategy(FixedMixing(method="instahide", num_images=3)).build(masker, num_classes=4, seed=3)[0]
    assert isinstance(plain, MarginTask) and plain.mixer is None
    assert isinstance(fixed, MarginTask) and fixed.mixer is not None and fixed.mixer.name == "instahide-3"


def test_adaptive_mixing_wraps_an_identical_recogniser_task() -> None:
    masker = PpfrFd(secret=SECRET)
    plain = strategy(None).build(masker, num_classes=4, seed=3)[0]
    task, network = strategy(NARROW).build(masker, num_classes=4, seed=3)
    assert isinstance(task, AdaptiveMixingTask)
    assert [mixer.num_images for mixer in task.mixers] == [2, 3]
    assert task.settings == NARROW.settings
    assert (task.strategy.in_shape, task.strategy.num_choices) == ((36, 28, 28), 2)
    assert task.strategy.width == 2
    assert task.recogniser.mixer is None and any(network is part for part in task.recogniser.modules())
    alone, wrapped = plain.state_dict(), task.recogniser.state_dict()
    assert alone.keys() == wrapped.keys() and all(torch.equal(alone[name], wrapped[name]) for name in alone)
    again = strategy(NARROW).build(masker, num_classes=4, seed=3)[0].state_dict()
    assert all(torch.equal(again[name], value) for name, value in task.state_dict().items() if "baseline" not in name)


def test_adaptive_mixing_rejects_single_candidate() -> None:
    with pytest.raises(InvalidInputError, match="mix a fixed number of images"):
        strategy(AdaptiveMixing(candidates=(3,))).build(PpfrFd(secret=SECRET), num_classes=4, seed=3)


# The exposed training set


def test_no_mixing_exposes_no_mixed_images() -> None:
    assert training_set_masker(Unprotected(), None, {"shares": [1.0]}) is None


def test_exposed_set_uses_the_shares_of_the_training() -> None:
    exposed = training_set_masker(Unprotected(), NARROW, {"shares": [0.2, 0.8]})
    assert isinstance(exposed, MixedMasker)
    config = exposed.public_config()
    assert config["shares"] == pytest.approx([0.2, 0.8])
    assert [mixer["name"] for mixer in config["mixers"]] == ["mixup-2", "mixup-3"]
    fixed = training_set_masker(Unprotected(), FixedMixing(method="instahide"), {"shares": [0.2, 0.8]})
    assert isinstance(fixed, MixedMasker) and fixed.public_config()["shares"] == [1.0]
    assert fixed.spec.value_range == (-1.0, 1.0)


# Training


@pytest.fixture(scope="module")
def images() -> SyntheticFaces:
    return SyntheticFaces(4, 4, seed=1)


def test_adaptive_mixing_trains_saves_and_resumes_only_with_same_candidates(
    images: SyntheticFaces, tmp_path: Path
) -> None:
    options = RunOptions(run_dir=tmp_path / "run", device="cpu", shows_progress=False)
    masker = PpfrFd(secret=SECRET)
    system, record = strategy(NARROW).train(masker, images, seed=1, options=options)
    assert record.steps == 4
    assert record.outcome["candidates"] == ["mixup-2", "mixup-3"]
    # There are four steps with one choice each, so shares are quarters.
    assert sum(record.outcome["shares"]) == pytest.approx(1)
    assert all(share * 4 == pytest.approx(round(share * 4)) for share in record.outcome["shares"])
    assert {"strategy/reward_1", "strategy/reward_2", "recogniser/num_images"} <= set(record.losses)

    save_system(tmp_path / "system", system)
    (tmp_path / "system" / "secret.key").write_bytes(SECRET)
    loaded = load_system(tmp_path / "system")
    image_BCHW = torch.rand(2, 3, 112, 112, generator=rng())
    with torch.no_grad():
        wanted = system.network(masker.mask(image_BCHW, rng=rng()))
        assert loaded.network(loaded.masker.mask(image_BCHW, rng=rng())).equal(wanted)
    assert loaded.masker.name == "ppfr-fd", "probes are masked, not mixed"

    resumed = dataclasses.replace(options, resumes=True)
    assert strategy(NARROW).train(masker, images, seed=1, options=resumed)[1].outcome == record.outcome
    for other in (
        dataclasses.replace(NARROW, candidates=(2, 4)),
        dataclasses.replace(NARROW, candidates=(2, 3, 4)),
        dataclasses.replace(NARROW, max_weight=0.6),
        FixedMixing(method="mixup", num_images=2),
        None,
    ):
        with pytest.raises(CheckpointError, match="mixer"):
            strategy(other).train(masker, images, seed=1, options=resumed)


def test_mixing_changes_the_weights_reproducibly(images: SyntheticFaces) -> None:
    options = RunOptions(run_dir=None, device="cpu", shows_progress=False)
    mixings = (NARROW, NARROW, FixedMixing(method="mixup", num_images=2), FixedMixing(method="instahide", num_images=2))
    weights = []
    for mixing in mixings:
        short = dataclasses.replace(strategy(mixing), plan=dataclasses.replace(STRATEGY.plan, max_steps=2))
        system, _ = short.train(Unprotected(), images, seed=1, options=options)
        weights.append(torch.cat([value.flatten().double() for value in system.network.state_dict().values()]))
    assert torch.equal(weights[0], weights[1])
    assert len({float(value.sum()) for value in weights}) == 3


def test_train_system_reports_the_choices_of_adaptive_mixing(tmp_path: Path) -> None:
    facts = train_request(tmp_path / "run", mix="adamixup:2-3")
    outcome = facts["outcome"]
    assert isinstance(outcome, dict) and outcome["num_images"] == [2, 3] and sum(outcome["shares"]) == pytest.approx(1)
    assert "outcome" not in train_request(tmp_path / "plain")


def test_unknown_mixing_is_rejected_before_a_secret_is_created(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown mixing"):
        train_request(tmp_path / "run", mix="blend:2")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "batch_size", "request_remedy"),
    [
        ("mixup:6", 5, "larger batch_size"),
        ("adamixup:2-6", 5, "larger batch_size"),
        ("instahide:2", 1, "--batch-size 1 .*at least 2.*larger --batch-size"),  # batch normalisation comes first
    ],
)
def test_small_batch_is_rejected_before_a_secret_is_created(word, batch_size, request_remedy, tmp_path):
    with pytest.raises(InvalidInputError, match="larger batch_size"):
        check_mixing_batch(parse_mixing(word), batch_size)
    with pytest.raises(InvalidInputError, match=request_remedy):
        train_request(tmp_path / "run", mix=word, batch_size=batch_size)
    assert not (tmp_path / "run").exists()
