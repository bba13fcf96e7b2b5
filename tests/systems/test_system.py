"""Saving and loading a trained system, with the secret in its own file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

from ppfr.core import CheckpointError, ImageMasker, InvalidInputError, MissingWeightsError
from ppfr.masking import Eigenfaces, Peep, PpfrFd, Unprotected
from ppfr.models import MobileFaceNet, card_for
from ppfr.systems import MaskedSystem, load_system, read_recogniser, save_system

SECRET = bytes(range(200, 232))


def system_of(masker: ImageMasker) -> MaskedSystem:
    network = MobileFaceNet(variant="small", in_shape=masker.spec.out_shape, dim=16, seed=1).eval()
    card = card_for(network, name="test", training_data="none", licence="MIT", source="test", may_have_seen=())
    return MaskedSystem(masker=masker, network=network, card=card)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_system(tmp_path, system_of(PpfrFd(secret=SECRET)))
    (tmp_path / "secret.key").write_bytes(SECRET)
    return tmp_path


def embedding(system: MaskedSystem) -> torch.Tensor:
    image_BCHW = torch.rand(2, 3, 112, 112, generator=Generator().manual_seed(4))
    with torch.no_grad():
        return system.network(system.masker.mask(image_BCHW, rng=Generator().manual_seed(5)))


def test_save_and_load_round_trip(saved: Path) -> None:
    loaded = load_system(saved)
    assert embedding(loaded).equal(embedding(system_of(PpfrFd(secret=SECRET))))
    assert loaded.card.name == "test"
    assert load_system(saved).masker.public_config() == PpfrFd(secret=SECRET).public_config()


def test_save_system_does_not_write_the_secret(tmp_path: Path) -> None:
    save_system(tmp_path, system_of(PpfrFd(secret=SECRET)))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for trace in (SECRET, SECRET.hex().encode(), json.dumps(list(SECRET)).encode()):
        assert trace not in written
    assert not (tmp_path / "secret.key").exists()


def test_another_secret_gives_other_embeddings(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "other.key").write_bytes(bytes(range(32)))
    other = load_system(saved, secret_path=tmp_path / "other.key")
    assert not embedding(other).allclose(embedding(load_system(saved)), atol=1e-3)


def test_load_system_rejects_missing_or_short_secret(saved: Path) -> None:
    (saved / "secret.key").write_bytes(bytes(16))
    with pytest.raises(InvalidInputError, match="16 bytes, but a secret has 32"):
        load_system(saved)
    (saved / "secret.key").unlink()
    with pytest.raises(MissingWeightsError, match="--secret"):
        load_system(saved)
    assert not (saved / "secret.key").exists(), "loading must not create a secret"


def test_load_system_rejects_files_of_two_systems(saved: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    save_system(plain, system_of(Unprotected()))
    (saved / "network.safetensors").write_bytes((plain / "network.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="mixed up"):
        load_system(saved)


def test_read_recogniser_accepts_pretrained_networks_and_systems(saved: Path, tmp_path: Path) -> None:
    assert read_recogniser(str(saved)).masker.name == "ppfr-fd"
    with pytest.raises(InvalidInputError, match="mobilefacenet-y1"):
        read_recogniser("nobody")
    with pytest.raises(MissingWeightsError, match="sha256"):
        read_recogniser("mobilefacenet-y1", weights=tmp_path)


def peep(seed: int = 1) -> Peep:
    pixels_NHWC = np.random.default_rng(seed).integers(0, 256, (12, 112, 112, 3), np.uint8)
    return Peep(eigenfaces=Eigenfaces.fit(pixels_NHWC, num_components=6, seed=1))


def test_masker_arrays_are_saved_in_their_own_file(tmp_path: Path) -> None:
    save_system(tmp_path, system_of(peep()))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"network.safetensors", "masker.json", "masker.safetensors", "trained-on.json"}
    loaded = load_system(tmp_path)
    assert embedding(loaded).equal(embedding(system_of(peep())))
    assert loaded.masker.public_config() == peep().public_config()


def test_load_system_rejects_damaged_or_foreign_arrays(tmp_path: Path) -> None:
    save_system(tmp_path / "other", system_of(peep(seed=2)))
    save_system(tmp_path, system_of(peep()))
    arrays, facts = tmp_path / "masker.safetensors", tmp_path / "masker.json"
    whole = arrays.read_bytes()
    for spoilt in (whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1]), (tmp_path / "other" / arrays.name).read_bytes()):
        arrays.write_bytes(spoilt)
        with pytest.raises(
            CheckpointError, match=r"masker\.safetensors is damaged or belongs to another system.*train again"
        ):
            load_system(tmp_path)
    arrays.unlink()
    with pytest.raises(CheckpointError, match=r"masker\.safetensors is missing.*restore it"):
        load_system(tmp_path)
    arrays.write_bytes(whole)
    stored = json.loads(facts.read_text())
    facts.write_text(json.dumps(stored | {"config": stored["config"] | {"eigenfaces_sha256": "0" * 64}}))
    with pytest.raises(CheckpointError, match="given eigenfaces"):
        load_system(tmp_path)
