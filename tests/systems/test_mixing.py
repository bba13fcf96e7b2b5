"""Mixing by words: what it builds, what it leaves exposed, and what a mixed training leaves behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Generator

from ppfr.core import CheckpointError, InvalidInputError, RangeError
from ppfr.masking import InstaHide, MixedMasker, MixUp, PpfrFd, Unprotected
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import AdaptiveMixing, FitOptions, FixedMixing, FromScratch, load_system, save_system
from ppfr.systems._mixing import Mixing, check_batch, exposed_by, read_mixing
from ppfr.training import AdaptiveMixingObjective, MarginObjective, Plan, StrategySettings
from ppfr.workflows import TrainingRequest, train_system

SECRET = bytes(range(32))
NARROW = AdaptiveMixing(candidates=(2, 3), strategy_width=2, settings=StrategySettings(every_steps=2))
WAY = FromScratch(
    plan=Plan(passes=2, batch_size=8, channels_last=False, checkpoint_every_steps=2),
    network="mobilefacenet-small",
    dim=16,
    scale=16.0,
)
REQUEST = TrainingRequest(
    images="synthetic:6x4",
    method="ppfr-fd",
    way="scratch",
    teacher="mobilefacenet-y1",
    network="mobilefacenet-small",
    head="cosface",
    passes=1,
    batch_size=8,
    precision="32-true",
    seed=1,
)


def rng(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


def way(mixing: Mixing | None) -> FromScratch:
    return dataclasses.replace(WAY, mixing=mixing)


def train_by_words(out_dir: Path, **changes: object) -> dict[str, object]:
    return train_system(
        dataclasses.replace(REQUEST, **changes),  # type: ignore[arg-type]
        out_dir=out_dir,
        secret_path=None,
        data=None,
        weights=None,
        device="cpu",
        num_devices=1,
        resumes=False,
        with_tensorboard=False,
    )


# Words


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        (None, None),
        ("mixup:2", FixedMixing(method="mixup", num_images=2)),
        ("instahide:4", FixedMixing(method="instahide", num_images=4)),
        ("adamixup:2-4", AdaptiveMixing(candidates=(2, 3, 4))),
        ("adamixup:3-6", AdaptiveMixing(candidates=(3, 4, 5, 6))),
    ],
)
def test_a_word_names_a_mixing(word: str | None, wanted: Mixing | None) -> None:
    assert read_mixing(word) == wanted


@pytest.mark.parametrize("word", ["cutmix:2", "mixup", "mixup:", "mixup:-2", "mixup:2.5", "adamixup:3", "", "mixup:2 "])
def test_a_word_that_names_nothing_is_refused_with_those_that_do(word: str) -> None:
    with pytest.raises(InvalidInputError, match=r"no mixing is named.*mixup:K, instahide:K .*adamixup:LOW-HIGH"):
        read_mixing(word)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("mixup:1", "2 images or more"),
        ("mixup:0", "2 images or more"),
        ("instahide:1", "2 images or more"),
        ("adamixup:1-3", "2 images or more"),
    ],
)
def test_numbers_that_cannot_be_mixed_are_refused(word: str, words: str) -> None:
    with pytest.raises(RangeError, match=words):
        read_mixing(word)


@pytest.mark.parametrize("word", ["adamixup:3-3", "adamixup:5-2"])
def test_a_candidate_set_of_one_is_sent_to_fixed_mixing(word: str) -> None:
    with pytest.raises(InvalidInputError, match=r"no range of two numbers or more; say mixup:\d"):
        read_mixing(word)


# Values


def test_fixed_mixing_has_one_mixer_with_the_method_s_own_cap() -> None:
    (mixup,) = FixedMixing(method="mixup", num_images=3).mixers()
    (instahide,) = FixedMixing(method="instahide", num_images=2).mixers()
    (capped,) = FixedMixing(method="mixup", num_images=2, max_weight=0.9).mixers()
    assert isinstance(mixup, MixUp) and mixup.public_config() == {"num_images": 3, "max_weight": 0.55}
    assert isinstance(instahide, InstaHide) and instahide.public_config() == {"num_images": 2, "max_weight": 0.65}
    assert capped.public_config()["max_weight"] == 0.9
    with pytest.raises(InvalidInputError, match="'cutmix'; there are mixup, instahide"):
        FixedMixing(method="cutmix").mixers()
    with pytest.raises(RangeError, match=r"cap from 0\.5 to 1"):
        FixedMixing(method="mixup", num_images=2, max_weight=0.4).mixers()


def test_adaptive_mixing_has_a_mixer_for_each_candidate_in_order() -> None:
    assert [mixer.name for mixer in AdaptiveMixing(candidates=(5, 2)).mixers()] == ["mixup-5", "mixup-2"]
    with pytest.raises(InvalidInputError, match="each number of images once"):
        AdaptiveMixing(candidates=(2, 3, 2)).mixers()


# What they build


def test_no_mixing_and_fixed_mixing_are_the_objective_with_its_mixer() -> None:
    masker = PpfrFd(secret=SECRET)
    plain = way(None).build(masker, num_classes=4, seed=3)[0]
    fixed = way(FixedMixing(method="instahide", num_images=3)).build(masker, num_classes=4, seed=3)[0]
    assert isinstance(plain, MarginObjective) and plain.mixer is None
    assert isinstance(fixed, MarginObjective) and fixed.mixer is not None and fixed.mixer.name == "instahide-3"


def test_adaptive_mixing_puts_a_strategy_around_the_very_recogniser_that_would_train_without() -> None:
    masker = PpfrFd(secret=SECRET)
    plain = way(None).build(masker, num_classes=4, seed=3)[0]
    objective, network = way(NARROW).build(masker, num_classes=4, seed=3)
    assert isinstance(objective, AdaptiveMixingObjective)
    assert [mixer.num_images for mixer in objective.mixers] == [2, 3]
    assert objective.settings == NARROW.settings
    assert (objective.strategy.in_shape, objective.strategy.num_choices) == ((36, 28, 28), 2)
    assert objective.strategy.width == 2
    assert objective.recogniser.mixer is None and any(network is part for part in objective.recogniser.modules())
    alone, under = plain.state_dict(), objective.recogniser.state_dict()
    assert alone.keys() == under.keys() and all(torch.equal(alone[name], under[name]) for name in alone)
    again = way(NARROW).build(masker, num_classes=4, seed=3)[0].state_dict()
    assert all(
        torch.equal(again[name], value) for name, value in objective.state_dict().items() if "baseline" not in name
    )


def test_a_strategy_of_one_candidate_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="mix with a fixed number of images"):
        way(AdaptiveMixing(candidates=(3,))).build(PpfrFd(secret=SECRET), num_classes=4, seed=3)


# What is exposed


def test_nothing_mixed_leaves_nothing_but_the_masked_images() -> None:
    assert exposed_by(Unprotected(), None, {"shares": [1.0]}) is None


def test_the_exposed_set_is_mixed_with_the_shares_that_were_realised() -> None:
    exposed = exposed_by(Unprotected(), NARROW, {"shares": [0.2, 0.8]})
    assert isinstance(exposed, MixedMasker)
    config = exposed.public_config()
    assert config["shares"] == pytest.approx([0.2, 0.8])
    assert [mixer["name"] for mixer in config["mixers"]] == ["mixup-2", "mixup-3"]
    fixed = exposed_by(Unprotected(), FixedMixing(method="instahide"), {"shares": [0.2, 0.8]})
    assert isinstance(fixed, MixedMasker) and fixed.public_config()["shares"] == [1.0]
    assert fixed.spec.value_range == (-1.0, 1.0)


# What training leaves


@pytest.fixture(scope="module")
def images() -> SyntheticFaces:
    return SyntheticFaces(4, 4, seed=1)


def test_a_mixed_training_is_logged_saved_and_resumed_by_the_same_candidates_alone(
    images: SyntheticFaces, tmp_path: Path
) -> None:
    options = FitOptions(run_dir=tmp_path / "run", device="cpu", shows_progress=False)
    masker = PpfrFd(secret=SECRET)
    system, record = way(NARROW).train(masker, images, seed=1, options=options)
    assert record.steps == 4
    assert record.outcome["candidates"] == ["mixup-2", "mixup-3"]
    # Every step is one choice: shares are quarters.
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
    assert loaded.masker.name == "ppfr-fd", "an image to be recognised is masked, not mixed"

    resumed = dataclasses.replace(options, resumes=True)
    assert way(NARROW).train(masker, images, seed=1, options=resumed)[1].outcome == record.outcome
    for other in (
        dataclasses.replace(NARROW, candidates=(2, 4)),
        dataclasses.replace(NARROW, candidates=(2, 3, 4)),
        dataclasses.replace(NARROW, max_weight=0.6),
        FixedMixing(method="mixup", num_images=2),
        None,
    ):
        with pytest.raises(CheckpointError, match="mixer"):
            way(other).train(masker, images, seed=1, options=resumed)


def test_mixing_changes_what_is_learned_and_the_seed_repeats_it(images: SyntheticFaces) -> None:
    options = FitOptions(run_dir=None, device="cpu", shows_progress=False)
    mixings = (NARROW, NARROW, FixedMixing(method="mixup", num_images=2), FixedMixing(method="instahide", num_images=2))
    weights = []
    for mixing in mixings:
        short = dataclasses.replace(way(mixing), plan=dataclasses.replace(WAY.plan, max_steps=2))
        system, _ = short.train(Unprotected(), images, seed=1, options=options)
        weights.append(torch.cat([value.flatten().double() for value in system.network.state_dict().values()]))
    assert torch.equal(weights[0], weights[1])
    assert len({float(value.sum()) for value in weights}) == 3


def test_the_command_line_s_word_trains_and_tells_what_the_strategy_chose(tmp_path: Path) -> None:
    told = train_by_words(tmp_path / "run", mix="adamixup:2-3")
    outcome = told["outcome"]
    assert isinstance(outcome, dict) and outcome["num_images"] == [2, 3] and sum(outcome["shares"]) == pytest.approx(1)
    assert "outcome" not in train_by_words(tmp_path / "plain")


def test_a_wrong_word_is_refused_before_a_secret_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no mixing is named"):
        train_by_words(tmp_path / "run", mix="blend:2")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("word", "batch_size"), [("mixup:6", 5), ("adamixup:2-6", 5), ("instahide:2", 1)])
def test_a_batch_too_small_is_refused_before_a_secret_is_drawn(word, batch_size, tmp_path):
    with pytest.raises(InvalidInputError, match="larger batch_size"):
        check_batch(read_mixing(word), batch_size)
    with pytest.raises(InvalidInputError, match="larger batch_size"):
        train_by_words(tmp_path / "run", mix=word, batch_size=batch_size)
    assert not (tmp_path / "run").exists()
