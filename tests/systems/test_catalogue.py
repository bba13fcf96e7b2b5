"""The catalogue: maskers, image sets, protocols and secrets by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Generator, Tensor

from ppfr import masking
from ppfr.core import ImageMasker, InvalidInputError, MaskSpec
from ppfr.data import write_crop
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import MASKERS, make_masker, needs_secret, read_images, read_or_create_secret, read_protocol
from ppfr.systems._catalogue import _discover


def test_catalogue_has_every_exported_masker() -> None:
    exported = {kind for kind in vars(masking).values() if isinstance(kind, type) and issubclass(kind, ImageMasker)}
    composite = {masking.MixedMasker}  # needs another masker as an argument
    assert set(MASKERS.values()) == exported - composite
    assert {"ppfr-fd", "unprotected", "constant"} <= set(MASKERS)


@final
class Newcomer(ImageMasker):
    """A masker that is in no list."""

    name = "newcomer"

    def __init__(self, *, secret: bytes, strength: float = 1.0) -> None:
        self._secret, self._strength = secret, strength

    @property
    def spec(self) -> MaskSpec:
        return masking.Unprotected().spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        return image_BCHW

    def public_config(self) -> Mapping[str, Any]:
        return {"strength": self._strength}


def test_new_masker_is_discovered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "Newcomer", Newcomer, raising=False)
    assert _discover()["newcomer"] is Newcomer


@pytest.mark.parametrize("name", sorted(MASKERS))
def test_make_masker_restores_a_masker_from_its_public_config(name: str) -> None:
    secret = bytes(range(32))
    masker = make_masker(name, secret=secret)
    again = make_masker(name, secret=secret, config=masker.public_config())
    image_BCHW = torch.rand(2, 3, 112, 112, generator=Generator().manual_seed(1))
    first, second = (each.mask(image_BCHW, rng=Generator().manual_seed(2)) for each in (masker, again))
    assert first.equal(second)


def test_needs_secret_depends_on_masker_and_config() -> None:
    assert needs_secret("ppfr-fd")
    assert not needs_secret("ppfr-fd", {"permutation": "per_image"})
    assert not needs_secret("unprotected")
    for call in (lambda: make_masker("blur", secret=None), lambda: needs_secret("blur")):
        with pytest.raises(InvalidInputError, match=r"'blur'; available: .*ppfr-fd"):
            call()
    with pytest.raises(InvalidInputError, match="ppfr-fd does not accept these arguments"):
        make_masker("ppfr-fd", secret=bytes(32), config={"sigma": 3})


def test_secret_is_created_once_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "secret.key"
    secret, was_drawn = read_or_create_secret(path)
    assert was_drawn and len(secret) == 32 and path.read_bytes() == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_create_secret(path) == (secret, False)
    assert read_or_create_secret(tmp_path / "other.key")[0] != secret
    path.write_bytes(bytes(33))
    with pytest.raises(InvalidInputError, match="33 bytes, but a secret has 32"):
        read_or_create_secret(path)


def test_synthetic_names() -> None:
    images = read_images("synthetic:5x3")
    assert len(images) == 15 and len(set(images.subject_ids)) == 5
    protocol = read_protocol("synthetic:60")
    assert len(protocol) == 60 and protocol.num_folds == 10
    assert not set(protocol.subjects()) & set(images.subject_ids), "protocols and training sets share no subject"
    assert len(read_protocol("synthetic")) == 1000


def test_read_images_accepts_folders(tmp_path: Path) -> None:
    faces = SyntheticFaces(2, 2, seed=1).read(range(4))
    for number, face_HWC in enumerate(faces):
        write_crop(face_HWC, tmp_path / f"person-{number // 2}" / f"{number}.png")
    images = read_images(str(tmp_path))
    assert list(images.subject_ids) == ["person-0"] * 2 + ["person-1"] * 2
    assert (images.read([3])[0] == faces[3]).all()


@pytest.mark.real_data
def test_names_of_real_data(data_root: Path) -> None:
    assert len(read_protocol("lfw", data=data_root)) == 6000
    assert len(read_protocol("cfp-fp", data=data_root)) == 7000
    for training, protocols in (("lfw-train", ["lfw"]), ("cfp-train", ["cfp-ff", "cfp-fp"])):
        subjects = set(read_images(training, data=data_root).subject_ids)
        for protocol in protocols:
            assert not subjects & set(read_protocol(protocol, data=data_root).subjects())
