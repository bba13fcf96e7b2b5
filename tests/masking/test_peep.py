"""PEEP: the eigenfaces against scikit-learn, the noise against its law, and both against each other's absence."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from torch import Generator, Tensor

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.data import ArrayImageSet
from ppfr.masking import Eigenfaces, Peep, read_masked, visualise, write_masked
from ppfr.masking._peep import _laplace

SIZE = 32
NO_NOISE = 1e9


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def pictures(num: int, *, seed: int, size: int = SIZE) -> np.ndarray:
    """(N, H, W, 3) uint8: a smooth random picture each, with a falling spectrum."""
    draw = np.random.default_rng(seed)
    at = np.arange(size) / size
    waves = np.stack([np.cos(np.pi * k * at) / (1 + k) for k in range(8)])
    coefficients = draw.standard_normal((num, 3, 8, 8))
    image = 0.5 + 0.18 * np.einsum("ncij,ih,jw->nhwc", coefficients, waves, waves)
    noise = 0.02 * draw.standard_normal(image.shape)
    return np.asarray(np.clip(image + noise, 0, 1) * 255, np.uint8)


def as_images(pictures_NHWC: np.ndarray) -> Tensor:
    return torch.tensor(pictures_NHWC).permute(0, 3, 1, 2).float() / 255


def grey_rows(pictures_NHWC: np.ndarray) -> np.ndarray:
    return (pictures_NHWC @ np.array([0.299, 0.587, 0.114]) / 255).reshape(len(pictures_NHWC), -1)


REFERENCE = pictures(80, seed=1)
EIGENFACES = Eigenfaces.fit(REFERENCE, num_components=20, seed=1)
SHAPE = (3, SIZE, SIZE)


def peep(eps: float = 3.0, faces: Eigenfaces = EIGENFACES) -> Peep:
    return Peep(eps=eps, eigenfaces=faces, colours=faces.colours, in_shape=SHAPE)


def test_components_are_scikit_learns() -> None:
    wanted = PCA(20, svd_solver="full").fit(grey_rows(REFERENCE))
    rows = EIGENFACES.components.reshape(20, -1)
    signs = np.sign((rows * wanted.components_).sum(1, keepdims=True))
    np.testing.assert_allclose(rows, signs * wanted.components_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(EIGENFACES.mean.ravel(), wanted.mean_, rtol=0, atol=1e-6)
    coefficients = wanted.transform(grey_rows(REFERENCE)) * signs.T
    np.testing.assert_allclose(EIGENFACES.low, coefficients.min(0), rtol=0, atol=1e-4)
    np.testing.assert_allclose(EIGENFACES.high, coefficients.max(0), rtol=0, atol=1e-4)


def test_without_noise_it_is_scikit_learns_projection_of_reference_faces() -> None:
    rows = grey_rows(REFERENCE)
    pca = PCA(20, svd_solver="full").fit(rows)
    wanted = np.clip(pca.inverse_transform(pca.transform(rows)), 0, 1).reshape(-1, 1, SIZE, SIZE)
    masked = peep(NO_NOISE).mask(as_images(REFERENCE), rng=rng())
    np.testing.assert_allclose(masked.numpy(), wanted, rtol=0, atol=1e-5)


def test_a_new_face_is_clipped_to_the_reference_s_range() -> None:
    new = 255 - pictures(60, seed=9)
    flat_KF = EIGENFACES.components.reshape(20, -1)
    free = (grey_rows(new) - EIGENFACES.mean.ravel()) @ flat_KF.T
    clipped = np.clip(free, EIGENFACES.low, EIGENFACES.high)
    assert (free != clipped).any(), "else this shows nothing"
    wanted = np.clip(EIGENFACES.mean.ravel() + clipped @ flat_KF, 0, 1).reshape(-1, 1, SIZE, SIZE)
    masked = peep(NO_NOISE).mask(as_images(new), rng=rng())
    np.testing.assert_allclose(masked.numpy(), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eps", [0.5, 4.0])
def test_the_noise_on_each_scaled_coefficient_is_laplace_of_1_over_eps(eps: float) -> None:
    """A basis of small range, so that no pixel is clipped and the coefficients can be read off the picture."""
    small = dataclasses.replace(
        EIGENFACES, mean=np.full((1, SIZE, SIZE), 0.5), low=-1e-2 * np.ones(20), high=np.ones(20) * 1e-2
    )
    image = torch.full((4000, *SHAPE), 0.5)
    masked = peep(eps, small).mask(image, rng=rng(1))
    assert ((masked > 0) & (masked < 1)).all()
    read = (masked.double().numpy() - 0.5).reshape(4000, -1) @ small.components.reshape(20, -1).T
    noise_BK = (read + 1e-2) / 2e-2 - 0.5
    assert stats.kstest(noise_BK.ravel(), stats.laplace(scale=1 / eps).cdf).pvalue > 0.01
    assert stats.kstest(noise_BK.ravel(), stats.laplace(scale=1.05 / eps).cdf).pvalue < 1e-6, "the test can tell"
    correlation = np.corrcoef(noise_BK.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / math.sqrt(4000), "each coefficient has a draw of its own"


def test_the_sampler_has_laplace_s_tails_and_no_infinities() -> None:
    draw = _laplace(2000, 500, scale=1.0, rng=rng(2)).double().numpy().ravel()
    assert np.isfinite(draw).all()
    assert abs((np.abs(draw) > 8).mean() / math.exp(-8) - 1) < 4 / math.sqrt(1e6 * math.exp(-8))
    assert stats.kstest(draw, stats.laplace().cdf).pvalue > 0.01


def test_less_eps_is_more_noise_and_every_call_draws_anew() -> None:
    image = as_images(REFERENCE[:20])
    clean = peep(NO_NOISE).mask(image, rng=rng())
    errors = [float((peep(eps).mask(image, rng=rng()) - clean).square().mean()) for eps in (100.0, 10.0, 1.0)]
    assert errors[0] < errors[1] < errors[2]
    same = peep().mask(image[:1].expand(2, -1, -1, -1), rng=rng())
    assert not same[0].equal(same[1])


def test_colour_pictures() -> None:
    faces = Eigenfaces.fit(REFERENCE, num_components=20, seed=1, colours="rgb")
    masked = peep(NO_NOISE, faces).mask(as_images(REFERENCE), rng=rng())
    rows = as_images(REFERENCE).flatten(1).double().numpy()
    pca = PCA(20, svd_solver="full").fit(rows)
    wanted = np.clip(pca.inverse_transform(pca.transform(rows)), 0, 1).reshape(-1, *SHAPE)
    np.testing.assert_allclose(masked.numpy(), wanted, rtol=0, atol=1e-5)


def test_an_image_set_and_its_array_are_one_reference_and_larger_ones_are_sampled() -> None:
    images = ArrayImageSet(REFERENCE, [str(number) for number in range(80)], name="reference")
    assert Eigenfaces.fit(images, num_components=20, seed=1).sha256 == EIGENFACES.sha256
    few = [Eigenfaces.fit(images, num_components=5, seed=seed, max_images=30) for seed in (1, 1, 2)]
    assert few[0].sha256 == few[1].sha256 != few[2].sha256
    np.testing.assert_array_equal(few[0].components, few[1].components)
    assert not np.allclose(few[0].mean, few[2].mean, atol=1e-4)


def test_eigenfaces_are_named_by_what_they_come_from() -> None:
    names = {
        Eigenfaces.fit(REFERENCE, num_components=19, seed=1).sha256,
        Eigenfaces.fit(REFERENCE[::-1], num_components=20, seed=1).sha256,
        Eigenfaces.fit(REFERENCE, num_components=20, seed=1, colours="rgb").sha256,
        dataclasses.replace(EIGENFACES, origin=b"").sha256,
        dataclasses.replace(EIGENFACES, origin=b"", high=EIGENFACES.high + 1).sha256,
        EIGENFACES.sha256,
    }
    assert len(names) == 6
    again = Eigenfaces.from_arrays(EIGENFACES.arrays())
    assert again.sha256 == EIGENFACES.sha256 and (again.components == EIGENFACES.components).all()
    with pytest.raises(ValueError, match="read-only"):
        EIGENFACES.mean[0, 0, 0] = 1.0


def test_masker_is_restored_from_config_and_arrays_only() -> None:
    masker = peep()
    config = masker.public_config() | {"in_shape": SHAPE}
    parts = {name.removeprefix("eigenfaces."): array for name, array in masker.public_arrays().items()}
    again = Peep(**config, eigenfaces=parts)
    assert again.public_config() == masker.public_config()
    image = as_images(REFERENCE[:3])
    assert again.mask(image, rng=rng()).equal(masker.mask(image, rng=rng()))
    for twin in (pickle.loads(pickle.dumps(masker)), copy.deepcopy(masker)):
        assert twin.mask(image, rng=rng()).equal(masker.mask(image, rng=rng()))
    other = Eigenfaces.fit(pictures(80, seed=2), num_components=20, seed=1)
    with pytest.raises(InvalidInputError, match=r"given eigenfaces have checksum .* expected"):
        Peep(**config, eigenfaces=other)


def test_built_in_eigenfaces_are_fitted_when_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    monkeypatch.setattr("ppfr.masking._peep.built_in_eigenfaces", lambda *given: fitted.append(given) or EIGENFACES)
    masker = Peep(num_components=20, in_shape=SHAPE)
    assert masker.spec.out_shape == (1, SIZE, SIZE) and "built-in" in repr(masker)
    assert len(masker.public_config()["eigenfaces_sha256"]) == 64 and not fitted
    assert masker.mask(as_images(REFERENCE[:2]), rng=rng()).equal(peep().mask(as_images(REFERENCE[:2]), rng=rng()))
    assert fitted == [(20, "y", SIZE)]


def test_the_built_in_name_is_known_without_fitting_and_is_that_of_the_fit() -> None:
    masker = Peep(num_components=4, in_shape=SHAPE)
    config = masker.public_config()
    assert masker.eigenfaces.sha256 == config["eigenfaces_sha256"]
    assert masker.eigenfaces.components.shape == (4, 1, SIZE, SIZE)
    named = {"eigenfaces_sha256": config["eigenfaces_sha256"], "in_shape": SHAPE}
    assert Peep(num_components=4, **named).public_config() == config
    with pytest.raises(InvalidInputError, match="built-in eigenfaces have checksum"):
        Peep(num_components=5, **named)


def test_a_masked_file_holds_the_picture_and_can_be_looked_at(tmp_path: Path) -> None:
    masker, path = peep(), tmp_path / "masked.safetensors"
    masked = masker.mask(as_images(REFERENCE[:2]), rng=rng())
    write_masked(path, masked, masker, is_seeded=True)
    with pytest.warns(UserWarning, match="seeded noise"):
        read = read_masked(path)
    assert (read.method, dict(read.config)) == ("peep", dict(masker.public_config()))
    torch.testing.assert_close(read.values_BKPQ, masked, rtol=0, atol=1e-3)
    picture = visualise(masked[0], layout="grid", side_px=SIZE)
    np.testing.assert_allclose(picture, 255 * masked[0].permute(1, 2, 0).expand(-1, -1, 3).numpy(), atol=0.51)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"eps": 0.0}, RangeError, "above 0"),
        ({"eps": math.inf}, RangeError, "finite"),
        ({"eps": math.nan}, RangeError, "eps is nan"),
        ({"colours": "ycbcr"}, RangeError, "'y', 'rgb'"),
        ({"num_components": 512}, RangeError, r"1\.\.511"),
        ({"num_components": 0}, RangeError, r"1\.\.511"),
        ({"in_shape": (3, 112, 96)}, InvalidInputError, r"Eigenfaces\.fit"),
        ({"in_shape": (1, 112, 112)}, RangeError, r"\(3, H, W\)"),
        ({"eigenfaces": EIGENFACES}, ShapeError, "32x32, the crop is 112x112"),
        ({"eigenfaces": EIGENFACES, "in_shape": SHAPE, "colours": "rgb"}, InvalidInputError, "colours='y'"),
        ({"eigenfaces": EIGENFACES, "in_shape": SHAPE, "num_components": 7}, RangeError, "have 20"),
        ({"eigenfaces": {"mean": np.zeros(3)}}, InvalidInputError, "consist of components, high"),
        ({"eigenfaces": "faces.npz"}, InvalidInputError, "is a str"),
    ],
)
def test_constructor_rejects_invalid_arguments(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Peep(**arguments)  # type: ignore[arg-type]


def test_fit_rejects_unusable_references() -> None:
    def fit(images: np.ndarray, num_components: int = 5, **given: int) -> None:
        Eigenfaces.fit(images, num_components=num_components, seed=1, **given)

    with pytest.raises(RangeError, match=r"1\.\.79"):
        fit(REFERENCE, 80)
    with pytest.raises(InvalidInputError, match="span only 2 dimensions"):
        fit(REFERENCE[[0, 1, 2] * 10])
    with pytest.raises(ShapeError, match="float64"):
        fit(REFERENCE / 255)
    with pytest.raises(ShapeError, match="no images"):
        fit(REFERENCE[:0])
    with pytest.raises(RangeError, match="max_images is 1"):
        fit(REFERENCE, max_images=1)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"low": EIGENFACES.high}, RangeError, "above low"),
        ({"low": EIGENFACES.low[:-1]}, ShapeError, "have shapes"),
        ({"mean": np.full((1, SIZE, SIZE), np.nan)}, RangeError, "not finite"),
        ({"components": 2 * EIGENFACES.components}, RangeError, "orthonormal"),
        ({"origin": b"short"}, ShapeError, "5 bytes"),
    ],
)
def test_eigenfaces_reject_inconsistent_arrays(changed: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        dataclasses.replace(EIGENFACES, **changed)
