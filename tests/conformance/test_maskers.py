"""One suite over all maskers. A new masker is one line in MASKERS."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from ppfr.core import ImageMasker, RangeError, ShapeError, UnsupportableError
from ppfr.masking import (
    Constant,
    Dctdp,
    Eigenfaces,
    FrequencyChannels,
    Hfcf,
    NoisyFrontEnd,
    Peep,
    PpfrFd,
    Sensitivities,
    Unprotected,
)

SECRET = bytes(range(100, 132))
PIXELS = np.random.default_rng(3)
EIGENFACES = Eigenfaces.fit(PIXELS.integers(0, 256, (20, 112, 112, 3), np.uint8), num_components=12, seed=1)
COLOUR_EIGENFACES = Eigenfaces.fit(
    PIXELS.integers(0, 256, (20, 32, 48, 3), np.uint8), num_components=5, seed=1, colours="rgb"
)
SMALL = (3, 32, 48)


def sensitivities(**front_end: Any) -> Sensitivities:
    """Of noise, which ranges more widely than faces do."""
    made = NoisyFrontEnd(**front_end)
    _, height, width = made.in_shape
    return Sensitivities.measure(PIXELS.integers(0, 256, (12, height, width, 3), np.uint8), made)


HFCF = sensitivities(fuses=True)
SMALL_HFCF = sensitivities(front_end="block", stride=8, num_channels=20, fuses=True, in_shape=SMALL)
SMALL_DCTDP = sensitivities(front_end="block", stride=8, num_channels=20, in_shape=SMALL)
UPSAMPLED_DCTDP = sensitivities(in_shape=SMALL, num_channels=9)
MASKERS: dict[str, Callable[[], ImageMasker]] = {
    "unprotected": Unprotected,
    "constant": Constant,
    "constant-28": lambda: Constant(out_shape=(36, 28, 28)),
    "ppfr-fd": lambda: PpfrFd(secret=SECRET),
    "ppfr-fd-colour-14": lambda: PpfrFd(secret=SECRET, colours="ycbcr", stride=8, num_channels=35),
    "ppfr-fd-upsampled": lambda: PpfrFd(secret=SECRET, front_end="upsampled"),
    # Of three channels a secret leaves 6 outcomes, so that two often agree; of five, 1,440.
    "ppfr-fd-named-channels": lambda: PpfrFd(secret=SECRET, channels=(0, 1, 8, 9, 16)),
    "ppfr-fd-per-image": lambda: PpfrFd(secret=None, permutation="per_image"),
    "frequency": FrequencyChannels,
    "frequency-full-colour": lambda: FrequencyChannels(colours="ycbcr", num_channels=64),
    "frequency-small-colour": lambda: FrequencyChannels(colours="ycbcr", block=8, stride=4, in_shape=SMALL),
    "frequency-odd-margins": lambda: FrequencyChannels(block=7, stride=4, num_channels=20, in_shape=SMALL),
    "frequency-upsampled": lambda: FrequencyChannels(front_end="upsampled", num_channels=63, keeps_dc=False),
    "peep": lambda: Peep(eigenfaces=EIGENFACES),
    "peep-colour": lambda: Peep(eps=1.0, eigenfaces=COLOUR_EIGENFACES, colours="rgb", in_shape=(3, 32, 48)),
    "hfcf": lambda: Hfcf(sensitivities=HFCF),
    "hfcf-no-noise": lambda: Hfcf(eps_mean=math.inf, colour="lbp-ycbcr"),
    "hfcf-no-noise-flips": lambda: Hfcf(eps_mean=math.inf, colour="lbp-bits", colour_eps=1.0, front_end="block"),
    "hfcf-small": lambda: Hfcf(
        sensitivities=SMALL_HFCF, front_end="block", stride=8, num_channels=20, colour="lbp-bits", in_shape=SMALL
    ),
    "hfcf-at-rest": lambda: Hfcf(
        sensitivities=SMALL_HFCF,
        front_end="block",
        stride=8,
        num_channels=20,
        colour="lbp-difference",
        colour_eps=2.0,
        in_shape=SMALL,
        learned={"rho": np.random.default_rng(5).normal(size=(20, 4, 6))},
    ).frozen(),
    "hfcf-unfused": lambda: Hfcf(
        sensitivities=SMALL_DCTDP,
        front_end="block",
        stride=8,
        num_channels=20,
        fuses=False,
        colour="none",
        in_shape=SMALL,
    ),
    "dctdp": lambda: Dctdp(sensitivities=UPSAMPLED_DCTDP, num_channels=9, in_shape=SMALL),
    "dctdp-no-noise": lambda: Dctdp(eps_mean=math.inf, front_end="block"),
    "dctdp-published": lambda: Dctdp(settings="published", num_channels=9, in_shape=SMALL),
    "ppfr-fd-small": lambda: PpfrFd(secret=SECRET, in_shape=(3, 32, 48), block=4, stride=2, num_channels=15),
}
SHARES_ITS_DRAW = ("dctdp-published",)  # as its authors' code does, against the contract: see docs/methods/dctdp.md


@pytest.fixture(params=MASKERS)
def masker(request: pytest.FixtureRequest) -> ImageMasker:
    return MASKERS[request.param]()


def rng(seed: int = 7) -> Generator:
    return Generator().manual_seed(seed)


def faces(masker: ImageMasker, num: int = 3) -> Tensor:
    """Blurred noise: energy at low frequencies, as in faces."""
    _, height, width = masker.spec.in_shape
    coarse = torch.rand(num, 3, height // 8, width // 8, generator=rng(1))
    fine = torch.rand(num, 3, height, width, generator=rng(2))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (0.9 * smooth + 0.1 * fine).clamp(0, 1)


def test_spec_is_true(masker: ImageMasker) -> None:
    spec = masker.spec
    masked = masker.mask(faces(masker), rng=rng()).detach()
    assert masked.shape == (3, *spec.out_shape)
    assert masked.dtype == torch.float32
    assert masked.isfinite().all()
    low, high = spec.value_range
    assert low <= float(masked.min()) and float(masked.max()) <= high
    assert spec.bytes_per_face == 2 * math.prod(spec.out_shape)
    assert masker.mask(faces(masker, 0), rng=rng()).shape == (0, *spec.out_shape)


def test_extreme_images_stay_in_range(masker: ImageMasker) -> None:
    _, height, width = masker.spec.in_shape
    single = torch.zeros(1, 3, height, width)
    single[..., height // 2, width // 2] = 1.0
    checker = ((torch.arange(height)[:, None] + torch.arange(width)) % 2).float().expand(1, 3, -1, -1)
    images = torch.cat([torch.zeros_like(single), torch.ones_like(single), single, checker])
    masked = masker.mask(images, rng=rng()).detach()
    low, high = masker.spec.value_range
    assert masked.isfinite().all()
    assert low <= float(masked.min()) and float(masked.max()) <= high


def test_it_is_stochastic_as_the_spec_says_and_only_by_rng(masker: ImageMasker, request: pytest.FixtureRequest) -> None:
    image = faces(masker)
    state = torch.random.get_rng_state()
    first, again = masker.mask(image, rng=rng(1)), masker.mask(image, rng=rng(1))
    other = masker.mask(image, rng=rng(2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) != masker.spec.is_stochastic
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator was used"
    untouched, used = rng(3), rng(3)
    masker.mask(image, rng=used)
    assert torch.equal(untouched.get_state(), used.get_state()) != masker.spec.is_stochastic
    if masker.spec.is_stochastic:
        twins = masker.mask(image[:1].expand(2, -1, -1, -1), rng=rng(1))
        is_shared = request.node.callspec.params["masker"] in SHARES_ITS_DRAW
        assert torch.equal(twins[0], twins[1]) == is_shared, "every image of a batch needs its own draw"


def test_without_rng_it_draws_from_the_operating_system(masker: ImageMasker, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 256 bits of a key count, and nothing that `torch.manual_seed` or NumPy's seed can fix."""
    image, draw, asked, key = faces(masker), os.urandom, [], bytearray(32)

    def urandom(num: int) -> bytes:
        asked.append(num)
        return bytes(key[:num])

    def masked() -> Tensor:
        return masker.mask(image).detach()

    before, before_numpy = torch.random.get_rng_state(), repr(np.random.get_state())
    low, high = masker.spec.value_range
    first = masked()
    assert first.isfinite().all() and low <= float(first.min()) and float(first.max()) <= high
    assert torch.equal(first, masked()) != masker.spec.is_stochastic
    monkeypatch.setattr(os, "urandom", urandom)
    known = masked()
    assert torch.equal(known, masked()), "it draws from somewhere else"
    assert bool(asked) == masker.spec.is_stochastic and set(asked) <= {32}
    for byte in (0, 15, 31):
        key[byte] ^= 1
        assert torch.equal(known, masked()) != masker.spec.is_stochastic
        key[byte] ^= 1
    monkeypatch.setattr(os, "urandom", draw)
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was used"
    assert before_numpy == repr(np.random.get_state()), "NumPy's global generator was used"


MIRRORS = ("unprotected", "constant", "constant-28", "frequency")


def test_mirrored_is_the_mask_of_the_mirrored_image(masker: ImageMasker, request: pytest.FixtureRequest) -> None:
    """From one masked image alone: a second mask would be a second observation for the adversary."""
    image, name = faces(masker), request.node.callspec.params["masker"]
    masked = masker.mask(image, rng=rng()).detach()
    before = masked.clone()
    mirrored, nothing = masker.mirrored(masked), masker.mirrored(masked[:0])
    assert torch.equal(masked, before)
    assert (mirrored is None) == (nothing is None), "support must not depend on the input"
    is_supported = name.startswith(MIRRORS) and name != "frequency-odd-margins"
    assert (mirrored is not None) == is_supported
    if mirrored is None or nothing is None:
        return
    assert not masker.spec.is_stochastic
    torch.testing.assert_close(mirrored, masker.mask(image.flip(-1), rng=rng()), rtol=1e-4, atol=1e-5)
    assert nothing.shape == masked[:0].shape


def test_the_image_is_not_changed_and_not_shared(masker: ImageMasker) -> None:
    image = faces(masker)
    before = image.clone()
    masked = masker.mask(image, rng=rng())
    masked.detach().add_(1.0)
    assert torch.equal(image, before)


def test_a_batch_is_its_images_stacked(masker: ImageMasker) -> None:
    if masker.spec.is_stochastic:
        return  # each image of a batch has its own draw, so singles draw something else
    image = faces(masker, 5)
    singles = torch.cat([masker.mask(x[None], rng=rng()) for x in image])
    torch.testing.assert_close(masker.mask(image, rng=rng()), singles, rtol=1e-4, atol=1e-4)


def test_secrets_are_new_and_seeded_iff_keyed(masker: ImageMasker) -> None:
    if not masker.spec.is_keyed:
        with pytest.raises(UnsupportableError):
            masker.with_new_secret(rng=rng())
        return
    image = faces(masker)
    first, again, other = (masker.with_new_secret(rng=rng(seed)) for seed in (1, 1, 2))
    assert first.spec == masker.spec and first.public_config() == masker.public_config()
    assert torch.equal(first.mask(image, rng=rng()), again.mask(image, rng=rng()))
    assert not torch.equal(first.mask(image, rng=rng()), other.mask(image, rng=rng()))
    assert not torch.equal(first.mask(image, rng=rng()), masker.mask(image, rng=rng()))


def test_secrets_show_nowhere(masker: ImageMasker) -> None:
    shown = repr(masker) + str(masker) + json.dumps(dict(masker.public_config()))
    for form in (repr(SECRET)[2:-1], SECRET.hex(), str(list(SECRET))[1:-1], SECRET.decode("latin1")):
        assert form not in shown
    if masker.spec.is_keyed:
        with pytest.raises(UnsupportableError, match="secret"):
            pickle.dumps(masker)


def test_the_public_config_and_arrays_rebuild_it(masker: ImageMasker) -> None:
    config = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(json.dumps(dict(masker.public_config()))).items()
    }
    secret = {"secret": SECRET if masker.spec.is_keyed else None} if isinstance(masker, PpfrFd) else {}
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, array in masker.public_arrays().items():
        argument, part = name.split(".")
        arrays.setdefault(argument, {})[part] = array
    rebuilt = type(masker)(**config, **secret, **arrays)  # type: ignore[call-arg]
    assert rebuilt.spec == masker.spec
    image = faces(masker)
    assert torch.equal(rebuilt.mask(image, rng=rng()), masker.mask(image, rng=rng()))


def test_what_it_says_is_proven_is_json_with_words(masker: ImageMasker) -> None:
    found = masker.guarantee()
    if found is None:
        assert masker.name not in ("hfcf", "dctdp", "peep"), "noise has something to say"
        return
    json.dumps(found, allow_nan=False)
    assert len(str(found["in_words"])) > 20


def test_gradients_reach_the_image_iff_the_spec_says(masker: ImageMasker) -> None:
    image = faces(masker).requires_grad_()
    masked = masker.mask(image, rng=rng())
    assert masked.requires_grad == masker.spec.is_differentiable
    if masker.spec.is_differentiable:
        weight = torch.rand(masked.shape, generator=rng(4))
        (gradient,) = torch.autograd.grad((masked * weight).sum(), image)
        assert gradient.isfinite().all() and gradient.abs().max() > 0
        flat = torch.full_like(image, 0.5).requires_grad_()
        (gradient,) = torch.autograd.grad(masker.mask(flat, rng=rng()).sum(), flat)
        assert gradient.isfinite().all(), "a flat image must not divide by zero"


def test_gradients_reach_its_parameters_iff_it_is_trainable(masker: ImageMasker) -> None:
    parameters = list(masker.parameters()) if isinstance(masker, torch.nn.Module) else []
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    assert bool(learning) == masker.spec.is_trainable
    if learning:
        masked = masker.mask(faces(masker), rng=rng())
        weight = torch.rand(masked.shape, generator=rng(4))
        for gradient in torch.autograd.grad((masked * weight).sum(), learning):
            assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_it_works_without_gradient_tracking(masker: ImageMasker) -> None:
    image = faces(masker)
    with torch.inference_mode():
        inside = masker.mask(image, rng=rng())
    torch.testing.assert_close(inside.clone(), masker.mask(image, rng=rng()))


@pytest.mark.parametrize("kind", ["unbatched", "channels last", "too small", "uint8", "0..255", "negative", "nan"])
def test_bad_images_are_refused(masker: ImageMasker, kind: str) -> None:
    image = faces(masker)
    spoilt = image.clone()
    spoilt[0, 0, 0, 0] = float("nan")
    given, error = {
        "unbatched": (image[0], ShapeError),
        "channels last": (image.permute(0, 2, 3, 1), ShapeError),
        "too small": (image[..., :-8], ShapeError),
        "uint8": ((image * 255).byte(), RangeError),
        "0..255": (image * 255, RangeError),
        "negative": (image - 0.5, RangeError),
        "nan": (spoilt, RangeError),
    }[kind]
    with pytest.raises(error):
        masker.mask(given, rng=rng())
