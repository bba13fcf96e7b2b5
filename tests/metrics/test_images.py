from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics import PSNR_CEILING_DB, lpips, psnr, ssim


@pytest.fixture(scope="module")
def pairs():
    """Smooth, noisy, flat, inverted and unrelated pairs: 67 of them, so that the last block is a partial one."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:33] / 40
    waves = np.stack([np.sin(6 * x + k) * np.cos(9 * y - k) for k in range(67 * 3)]).reshape(67, 3, 40, 33)
    a = (0.5 + 0.5 * waves).astype(np.float32)
    b = np.clip(a + rng.normal(size=a.shape) * np.linspace(0, 0.5, 67)[:, None, None, None], 0, 1).astype(np.float32)
    b[1], b[2], a[3], b[3] = 1 - a[1], rng.random(a[2].shape), 1.0, 0.99
    return a, b


def test_psnr_equals_scikit_image(pairs):
    a, b = pairs
    found = psnr(a, b)
    wide = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a[1:], b[1:], strict=True)]
    expected = [peak_signal_noise_ratio(x, y, data_range=1) for x, y in wide]
    np.testing.assert_allclose(found[1:], expected, rtol=1e-9)
    assert found[0] == PSNR_CEILING_DB
    half = np.full((1, 3, 4, 4), 0.5)
    assert psnr(half, half + 0.1)[0] == pytest.approx(20.0)


def test_ssim_equals_scikit_image(pairs):
    a, b = pairs
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    wide = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a, b, strict=True)]
    expected = [structural_similarity(x, y, channel_axis=0, **options) for x, y in wide]
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-4)
    np.testing.assert_allclose(np.delete(ssim(a, b), 3), np.delete(expected, 3), atol=2e-6)  # 3: flat and bright
    luma = np.array([0.299, 0.587, 0.114])[:, None, None]
    grey = [structural_similarity((luma * x).sum(0), (luma * y).sum(0), **options) for x, y in wide]
    np.testing.assert_allclose(ssim(a, b, colours="grey"), grey, atol=1e-4)


def test_similarities_are_symmetric_and_independent_of_the_batch(pairs):
    a, b = pairs
    assert ssim(a, a) == pytest.approx(np.ones(67), abs=1e-6)
    np.testing.assert_allclose(ssim(a, b), ssim(b, a), atol=1e-7)
    np.testing.assert_array_equal(psnr(a, b), psnr(b, a))
    for measure in (ssim, psnr):
        np.testing.assert_allclose(measure(a, b)[60:], [measure(a[i : i + 1], b[i : i + 1])[0] for i in range(60, 67)])
    kept = a.copy()
    ssim(a, b)
    np.testing.assert_array_equal(a, kept)


def test_lpips_runs_the_network_in_batches(pairs):
    a, b = pairs
    sizes = []

    def network(x, y):
        assert x.dtype == y.dtype == np.float32
        sizes.append(len(x))
        return np.abs(x - y).mean(axis=(1, 2, 3))

    found = lpips(a, b, network, batch_size=30)
    assert sizes == [30, 30, 7]
    np.testing.assert_allclose(found, np.abs(a - b).mean(axis=(1, 2, 3)))
    with pytest.raises(ShapeError, match="one value each"):
        lpips(a, b, lambda x, y: np.zeros((len(x), 1)))
    with pytest.raises(InvalidInputError, match="batch_size=0"):
        lpips(a, b, network, batch_size=0)


@pytest.mark.parametrize("measure", [psnr, ssim, lambda a, b: lpips(a, b, None)])
def test_similarities_reject_invalid_images(measure):
    good = np.zeros((2, 3, 16, 16), dtype=np.float32)
    for bad, error, text in [
        (good[:1], ShapeError, "images have shapes"),
        (good + 2, RangeError, r"outside \[0, 1\]"),
        (good - 0.1, RangeError, r"outside \[0, 1\]"),
        (np.where(good == 0, np.nan, good), RangeError, "not finite"),
        (good.astype(np.uint8), RangeError, "divide by 255"),
    ]:
        with pytest.raises(error, match=text):
            measure(good, bad)
    with pytest.raises(ShapeError):
        measure(good[0], good[0])


def test_ssim_rejects_invalid_options_and_small_images():
    small, grey = np.zeros((1, 3, 8, 30)), np.zeros((1, 1, 16, 16))
    with pytest.raises(ShapeError, match=r"\(8, 30\) pixels .*use larger"):
        ssim(small, small)
    with pytest.raises(ShapeError, match="3 channels, got 1"):
        ssim(grey, grey, colours="grey")
    with pytest.raises(InvalidInputError, match='use "rgb" or "grey"'):
        ssim(grey, grey, colours="gray")
    assert ssim(grey, grey) == pytest.approx([1.0])
