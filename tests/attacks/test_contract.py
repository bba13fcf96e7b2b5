"""Contract of all trained attacks: threat models, shapes, order of calls, seeds, resuming, facts for the record."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from ppfr.attacks import ConditionalGan, FreshSecret, IdentityLinkage, UNetRecovery, masked_images_threat
from ppfr.core import (
    CheckpointError,
    ImageMasker,
    InvalidInputError,
    MaskedImages,
    MixedImages,
    PpfrError,
    ShapeError,
    Templates,
    ThreatModelError,
)
from ppfr.masking import PpfrFd, Unprotected
from ppfr.training import Plan

PLAN = Plan(epochs=1, batch_size=8, max_steps=2, num_prefetch=0)
SMALL = {"width": 4, "max_width": 8, "num_blocks": 0}


@pytest.fixture(params=["unet", "gan", "linkage"])
def make(request, recogniser, card):
    """A maker of one of the three attacks, tiny."""

    def attack(**options):
        options = {"plan": PLAN, "knows_secret": True, "device": "cpu", "progress": False, **options}
        if request.param == "unet":
            return UNetRecovery(**SMALL, **options)
        if request.param == "gan":
            return ConditionalGan(**SMALL, discriminator_width=4, **options)
        return IdentityLinkage(recogniser, teacher_card=card, stem_width=8, stem_depth=0, **options)

    return attack


def _rows(result):
    return result.recovered_NCHW if result.recovered_NCHW is not None else torch.from_numpy(result.embeddings_ND)


def _deployed(byte=b"d"):
    return PpfrFd(secret=byte * 32)


def test_threat_model_follows_knows_secret(make):
    for knows_secret in (True, False):
        needs = make(knows_secret=knows_secret).needs
        assert needs == masked_images_threat(knows_secret=knows_secret, knows_recogniser=False)
    words = make(knows_secret=False).needs.in_words()
    assert "does not know the deployment's secret parameters" in words and "masked images" in words


@pytest.mark.parametrize(
    ("knows_secret", "sees", "knows_recogniser"),
    [(True, MaskedImages, True), (False, MaskedImages, False), (True, MixedImages, False), (False, MixedImages, False)],
)
def test_server_knows_its_recogniser(knows_secret, sees, knows_recogniser):
    threat = masked_images_threat(knows_secret=knows_secret, sees=sees)
    assert threat.knows_recogniser == knows_recogniser
    assert ("does not know" not in threat.in_words()) == knows_recogniser


def test_facts_and_configuration_are_json(make, few):
    attack = make()
    facts = attack.fit(Unprotected(), few, seed=1)
    assert facts["steps"] == 2 and facts["images_seen"] == 16 and facts["num_parameters"] > 0
    assert any(name.startswith("loss ") for name in facts) and facts["images_per_s"] > 0 and facts["wall_s"] >= 0
    assert [step for step, _ in facts["curve"]] == [0, 1]
    assert json.loads(json.dumps(facts)) == facts
    config = json.loads(json.dumps(attack.public_config()))
    assert config["attack"] == attack.name and config["plan"]["batch_size"] == 8
    assert "lr" in config
    assert "threat_model" not in config, "the record has that of the adversary, who may know more than the attack uses"


def test_same_seed_gives_the_same_attack_for_any_chunk_size(make, few, targets, observe):
    """Bit-identical for one chunk size; another chunk size differs by rounding only."""
    seen, results = observe(_deployed(), targets), []
    for chunk_size in (16, 16, 5):
        attack = make(chunk_size=chunk_size)
        attack.fit(_deployed(), few, seed=3)
        results.append(_rows(attack.run(seen, seed=4)))
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2], atol=1e-3, rtol=1e-3)


def test_finished_training_is_resumed_from_its_run_directory(make, few, targets, observe, tmp_path):
    seen = observe(_deployed(), targets)
    first = make(run_dir=tmp_path)
    first.fit(_deployed(), few, seed=3)
    again = make(run_dir=tmp_path)
    again.fit(_deployed(), few, seed=3)
    assert torch.equal(_rows(first.run(seen, seed=4)), _rows(again.run(seen, seed=4)))


def test_checkpoint_of_another_secret_is_rejected(make, few, tmp_path):
    """An attack trained under one secret and evaluated under another would look weaker than it is."""
    make(run_dir=tmp_path).fit(_deployed(), few, seed=3)
    with pytest.raises(CheckpointError, match="another secret"):
        make(run_dir=tmp_path).fit(_deployed(b"e"), few, seed=3)


def test_run_before_fit_is_rejected(make, targets, observe):
    with pytest.raises(PpfrError, match="call fit"):
        make().run(observe(Unprotected(), targets), seed=1)


def test_observation_that_the_threat_model_does_not_grant_is_rejected(make, few, targets, observe):
    attack = make()
    attack.fit(Unprotected(), few, seed=1)
    with pytest.raises(ThreatModelError, match="given Templates, but its threat model grants MaskedImages only"):
        attack.run(Templates(templates_NK=np.ones((2, 128))), seed=1)
    with pytest.raises(ShapeError, match=r"\(2, 36, 28, 28\); .* was trained on \(N, 3, 112, 112\)"):
        attack.run(MaskedImages(images_NKPQ=torch.rand(2, 36, 28, 28)), seed=1)


def test_masker_that_does_not_match_the_threat_model_is_rejected(make, few):
    with pytest.raises(ThreatModelError, match="give it FreshSecret"):
        make(knows_secret=False).fit(_deployed(), few, seed=1)
    with pytest.raises(ThreatModelError, match="give it the deployed masker"):
        make(knows_secret=True).fit(FreshSecret(_deployed()), few, seed=1)
    with pytest.raises(ShapeError, match="crops"):
        make().fit(Unprotected(in_shape=(3, 64, 64)), few, seed=1)


def test_settings_out_of_range_are_rejected(make):
    with pytest.raises(InvalidInputError, match="chunk_size"):
        make(chunk_size=0)
    with pytest.raises(InvalidInputError, match="without the secret"):
        make(knows_secret=True, aligns_channels=True)


@pytest.mark.parametrize("aligns_channels", [False, True])
def test_adversary_without_the_secret_trains_on_simulations(make, few, targets, observe, aligns_channels):
    attack = make(knows_secret=False, aligns_channels=aligns_channels, **({"num_deployments": 1}))
    facts = attack.fit(FreshSecret(_deployed()), few, seed=1)
    assert facts["knows_secret"] == "no" and facts["aligns_channels"] == ("yes" if aligns_channels else "no")
    assert len(_rows(attack.run(observe(_deployed(), targets), seed=2))) == len(targets)


class LearnedScale(nn.Module, ImageMasker):
    """A masker with a parameter, as a deployment that trains its masker would have."""

    name = "learned-scale"
    spec = dataclasses.replace(Unprotected().spec, is_trainable=True)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def mask(self, image_BCHW, *, rng):
        return image_BCHW * self.scale

    def public_config(self):
        return {}


def test_attack_never_trains_the_masker(make, few, targets, observe, tmp_path):
    masker = LearnedScale()
    attack = make(run_dir=tmp_path)
    attack.fit(masker, few, seed=1)
    assert masker.scale.item() == 0.5 and masker.scale.requires_grad and masker.training
    assert not any("scale" in name for name in attack._trained.state_dict())
    assert len(_rows(attack.run(observe(masker, targets), seed=2))) == len(targets)
