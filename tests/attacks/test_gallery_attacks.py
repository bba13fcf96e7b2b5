"""Attacks without training: exact behaviour on toy maskers with noise of known law, and their controls."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ppfr.attacks import EnrolmentAttack, GalleryAttack, IdentityRegression, Knowledge, MatchedFilter
from ppfr.core import (
    AdditiveNoise,
    ImageMasker,
    InvalidInputError,
    MaskedImages,
    MaskSpec,
    MixedImages,
    PpfrError,
    RangeError,
    ShapeError,
    ThreatModelError,
    UnsupportableError,
)
from ppfr.masking import Constant, Unprotected

SHAPE = (3, 8, 8)
NUM = math.prod(SHAPE)


class Noisy(ImageMasker):
    """Adds noise of a scale that may differ between values."""

    name = "noisy"
    spec = MaskSpec(
        in_shape=SHAPE,
        out_shape=SHAPE,
        value_range=(-math.inf, math.inf),
        is_stochastic=True,
        is_keyed=False,
        is_trainable=False,
        is_differentiable=True,
        bytes_per_face=2 * NUM,
    )

    def __init__(self, scale_F: Tensor, *, law: str = "laplace", states_law: bool = True) -> None:
        self.scale_F, self.law, self._states_law = scale_F, law, states_law

    def mask(self, image_BCHW, *, rng=None):
        shape = (len(image_BCHW), NUM)
        if self.law == "laplace":
            one, two = (-torch.log1p(-torch.rand(shape, generator=rng, dtype=torch.float64)) for _ in range(2))
            drawn = (one - two).float()
        else:
            drawn = torch.randn(shape, generator=rng)
        return (image_BCHW.flatten(1) + drawn * self.scale_F).view(image_BCHW.shape)

    def public_config(self):
        return {}

    def noise(self):
        if not self._states_law:
            return None
        flat = lambda values: values.flatten(1)  # noqa: E731
        return AdditiveNoise(law=self.law, scale_F=self.scale_F, values=flat, centre=flat)


class Pixels:
    """Embeds an image as its pixels around grey."""

    dim = NUM

    def embed(self, x_BKPQ):
        return functional.normalize(x_BKPQ.flatten(1) - 0.5 + 1e-6, dim=1)


class Images:
    """Random images as an image set."""

    name = "images"

    def __init__(self, num: int, *, seed: int) -> None:
        self.pixels = np.random.default_rng(seed).integers(0, 256, (num, 8, 8, 3), np.uint8)
        self.subject_ids = [f"s{number}" for number in range(num)]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices):
        return self.pixels[list(indices)]

    def tensor(self) -> Tensor:
        return torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def knowledge(masker: ImageMasker, **changes) -> Knowledge:
    known = Knowledge(
        masker=masker,
        deployed_recogniser=Pixels(),
        public_recogniser=Pixels(),
        public_images=Images(300, seed=1),
        device=torch.device("cpu"),
    )
    return dataclasses.replace(known, **changes)


def rank_1(attack: GalleryAttack, masker: ImageMasker, image_NCHW: Tensor, *, num: int = 1, known=None) -> float:
    """Share of `num` observations of each image whose best candidate is the image, with ties broken at random."""
    attack.enrol(known or knowledge(masker), image_NCHW, seed=5)
    total = sum(
        attack.evidence(MaskedImages(images_NKPQ=masker.mask(image_NCHW, rng=rng(100 + n)))) for n in range(num)
    )
    score_NM = attack.scores(total / num, num_averaged=num)
    is_best_NM = score_NM == score_NM.max(axis=1, keepdims=True)
    return float((np.diag(is_best_NM) / is_best_NM.sum(axis=1)).mean())


ATTACKS = [EnrolmentAttack(), EnrolmentAttack(averages="masked images"), MatchedFilter(), IdentityRegression()]


def laplace_success(d: float, num_values: int) -> float:
    """Probability that the likelihood-ratio test between two candidates is right, by the central limit theorem.

    One value contributes |n + d| - |n| with n ~ Laplace(0, 1), where d is the difference over the scale.
    """
    t = np.linspace(0, d, 20_001)
    middle = np.trapezoid((d - 2 * t) ** 2 * np.exp(-t) / 2, t)
    mean = d + math.exp(-d) - 1
    variance = d * d / 2 + d * d * math.exp(-d) / 2 + middle - mean**2
    return 0.5 * (1 + math.erf(mean * math.sqrt(num_values / variance) / math.sqrt(2)))


@pytest.mark.parametrize("num", [1, 4])
def test_matched_filter_reaches_the_predicted_success_under_laplace_noise(num):
    step = 0.1
    candidates = torch.stack([torch.full(SHAPE, 0.4), torch.full(SHAPE, 0.4 + step)])
    masker, times = Noisy(torch.ones(NUM)), 4000
    attack = MatchedFilter()
    attack.enrol(knowledge(masker), candidates, seed=1)
    shown = candidates[:1].expand(times, -1, -1, -1)
    total = sum(attack.evidence(MaskedImages(images_NKPQ=masker.mask(shown, rng=rng(n)))) for n in range(num))
    score_NM = attack.scores(total / num, num_averaged=num)
    found = float((score_NM[:, 0] > score_NM[:, 1]).mean())
    expected = laplace_success(step, NUM * num)
    assert 0.7 < expected < 0.995
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / times))


def test_matched_filter_reaches_the_predicted_success_under_gaussian_noise():
    step, times = 0.1, 4000
    candidates = torch.stack([torch.full(SHAPE, 0.4), torch.full(SHAPE, 0.4 + step)])
    masker, attack = Noisy(torch.ones(NUM), law="gaussian"), MatchedFilter()
    attack.enrol(knowledge(masker), candidates, seed=1)
    shown = candidates[:1].expand(times, -1, -1, -1)
    score_NM = attack.scores(attack.evidence(MaskedImages(images_NKPQ=masker.mask(shown, rng=rng(1)))), num_averaged=1)
    expected = 0.5 * (1 + math.erf(step * math.sqrt(NUM) / 2 / math.sqrt(2)))
    found = float((score_NM[:, 0] > score_NM[:, 1]).mean())
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / times))


def test_matched_filter_scores_are_log_likelihood_ratios():
    """The score difference of two candidates equals that of the densities, computed value by value."""
    scale_F = torch.linspace(0.5, 3.0, NUM)
    masker, images = Noisy(scale_F), Images(3, seed=2).tensor()
    attack = MatchedFilter()
    attack.enrol(knowledge(masker), images, seed=1)
    masked = masker.mask(images, rng=rng(3))
    score_NM = attack.scores(attack.evidence(MaskedImages(images_NKPQ=masked)), num_averaged=1)
    for n in range(3):
        law = torch.distributions.Laplace(images.flatten(1).double(), scale_F.double())
        density_M = law.log_prob(masked[n].flatten().double()).sum(dim=1).numpy()
        np.testing.assert_allclose(score_NM[n] - score_NM[n, 0], density_M - density_M[0], rtol=1e-4, atol=1e-4)


def test_matched_filter_ignores_the_noise_of_useless_channels():
    """A budget that puts most noise on half of the values does not stop it; an unweighted distance is stopped."""
    scale_F = torch.cat([torch.full((NUM // 2,), 0.3), torch.full((NUM // 2,), 300.0)])
    masker, images = Noisy(scale_F, law="gaussian"), Images(50, seed=3).tensor()
    assert rank_1(MatchedFilter(), masker, images) > 0.95
    masked = masker.mask(images, rng=rng(100)).flatten(1)
    nearest_N = torch.cdist(masked, images.flatten(1)).argmin(dim=1)
    assert float((nearest_N == torch.arange(50)).float().mean()) < 0.2


def test_values_under_noise_of_unknown_kind_are_not_used():
    scale_F = torch.ones(NUM)
    scale_F[: NUM - 3] = math.inf
    masker = Noisy(torch.zeros(NUM))
    noise = dataclasses.replace(masker.noise(), scale_F=scale_F)
    masker.noise = lambda: noise
    images = Images(2, seed=4).tensor()
    attack = MatchedFilter()
    attack.enrol(knowledge(masker), images, seed=1)
    other = images.clone()
    other.flatten(1)[:, : NUM - 3] = 0.0
    one, two = (attack.evidence(MaskedImages(images_NKPQ=seen)) for seen in (images, other))
    torch.testing.assert_close(one, two)


def test_mean_of_draws_has_variance_over_n():
    """The masked-images mean of the enrolment attack: n draws of one image, n = 1, 4, 16."""
    attack, masker, image = (
        EnrolmentAttack(averages="masked images"),
        Noisy(torch.ones(NUM)),
        torch.full((1, *SHAPE), 0.5),
    )
    attack.enrol(knowledge(masker), image, seed=1)
    for num in (1, 4, 16):
        shown = image.expand(400, -1, -1, -1)
        mean = sum(attack.evidence(MaskedImages(images_NKPQ=masker.mask(shown, rng=rng(n)))) for n in range(num)) / num
        assert float((mean - 0.5).square().mean()) == pytest.approx(2 / num, rel=0.05)


@pytest.mark.parametrize("averages", ["embeddings", "masked images"])
def test_more_observations_and_more_gallery_masks_help_the_enrolment_attack(averages):
    masker, images = Noisy(torch.full((NUM,), 1.5)), Images(100, seed=6).tensor()
    one = rank_1(EnrolmentAttack(num_masks=1, averages=averages), masker, images)
    enrolled = rank_1(EnrolmentAttack(num_masks=32, averages=averages), masker, images)
    observed = rank_1(EnrolmentAttack(num_masks=32, averages=averages), masker, images, num=16)
    assert one + 0.03 < enrolled < observed - 0.2 and observed > 0.6


def test_averages_differ_only_in_where_the_mean_is_taken():
    """With one mask and one observation there is nothing to average, so both variants agree exactly."""
    masker, images = Noisy(torch.ones(NUM)), Images(10, seed=7).tensor()
    found = []
    for averages in ("embeddings", "masked images"):
        attack = EnrolmentAttack(num_masks=1, averages=averages)
        attack.enrol(knowledge(masker), images, seed=1)
        seen = MaskedImages(images_NKPQ=masker.mask(images, rng=rng(2)))
        found.append(attack.scores(attack.evidence(seen), num_averaged=1))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_ridge_regression_solves_a_linear_task_and_gains_from_observations():
    images = Images(60, seed=8).tensor()
    known = knowledge(Noisy(torch.full((NUM,), 1.5)), public_images=Images(800, seed=9))
    assert rank_1(IdentityRegression(num_faces=800), known.masker, images, known=known) < 0.6
    assert rank_1(IdentityRegression(num_faces=800), known.masker, images, num=16, known=known) > 0.95


def test_ridge_regression_equals_the_closed_form_in_primal_variables():
    """Penalty: N times the variance of unit Laplace noise, plus the relative ridge."""
    masker, images, public = Noisy(torch.linspace(0.5, 2.0, NUM)), Images(5, seed=10).tensor(), Images(40, seed=11)
    attack = IdentityRegression(num_faces=40, ridge=1e-2)
    attack.enrol(knowledge(masker, public_images=public), images, seed=1)
    seen = masker.mask(images, rng=rng(4))
    found = attack.scores(attack.evidence(MaskedImages(images_NKPQ=seen)), num_averaged=3)
    x = public.tensor().flatten(1).double()
    weight, mean_x = 1 / masker.scale_F.double(), x.mean(dim=0)
    x, y = (x - mean_x) * weight, Pixels().embed(public.tensor()).double()
    mean_y = y.mean(dim=0)
    penalty = 1e-2 * float((x * x).sum(dim=1).mean()) + 40 * 2.0 / 3
    w = torch.linalg.solve(x.T @ x + penalty * torch.eye(NUM, dtype=torch.float64), x.T @ (y - mean_y))
    estimate = functional.normalize(((seen.flatten(1).double() - mean_x) * weight) @ w, dim=1)
    gallery = functional.normalize(Pixels().embed(images).double() - mean_y, dim=1)
    np.testing.assert_allclose(found, (estimate @ gallery.T).numpy(), atol=2e-3)  # features are kept in half precision


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.label)
def test_wins_without_protection(attack):
    masker = Unprotected(in_shape=SHAPE)
    assert rank_1(attack, masker, Images(40, seed=12).tensor()) >= 0.95


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.label)
def test_is_at_chance_on_a_constant(attack):
    masker = Constant(out_shape=SHAPE, in_shape=SHAPE)
    assert rank_1(attack, masker, Images(40, seed=13).tensor()) == pytest.approx(1 / 40)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.label)
def test_refuses_what_its_threat_model_does_not_grant(attack):
    images, masker = Images(4, seed=14).tensor(), Unprotected(in_shape=SHAPE)
    fresh = type(attack)()
    with pytest.raises(PpfrError, match="enrol"):
        fresh.evidence(MaskedImages(images_NKPQ=images))
    fresh.enrol(knowledge(masker), images, seed=1)
    with pytest.raises(ThreatModelError, match="MixedImages"):
        fresh.evidence(MixedImages(images_NKPQ=images))
    with pytest.raises(ShapeError, match="4, 3, 8, 4"):
        fresh.evidence(MaskedImages(images_NKPQ=images[..., :4]))
    assert fresh.needs.knows_secret and fresh.level == "trivial"


def test_what_an_attack_lacks_is_named():
    images, masker = Images(4, seed=15).tensor(), Unprotected(in_shape=SHAPE)
    with pytest.raises(UnsupportableError, match="unprotected"):
        EnrolmentAttack().enrol(knowledge(masker, deployed_recogniser=None), images, seed=1)
    silent = Noisy(torch.ones(NUM), states_law=False)
    for attack in (MatchedFilter(), IdentityRegression()):
        with pytest.raises(UnsupportableError, match=r"noise\(\)"):
            attack.enrol(knowledge(silent), images, seed=1)


def test_arguments_out_of_range_are_named():
    with pytest.raises(RangeError, match="num_masks is 0"):
        EnrolmentAttack(num_masks=0)
    with pytest.raises(InvalidInputError, match=r"'medians'.*'embeddings'"):
        EnrolmentAttack(averages="medians")
    with pytest.raises(RangeError, match="num_faces is 1"):
        IdentityRegression(num_faces=1)
    with pytest.raises(RangeError, match="ridge is 0"):
        IdentityRegression(ridge=0)


def test_public_config_states_what_the_figures_depend_on():
    assert EnrolmentAttack(num_masks=4).public_config() == {
        "attack": "enrolment",
        "level": "trivial",
        "num_masks": 4,
        "averages": "embeddings",
    }
    assert IdentityRegression(num_faces=9).public_config()["num_faces"] == 9
