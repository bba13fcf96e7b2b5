from __future__ import annotations

import dataclasses
import errno
import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from ppfr.core import CheckpointError, InvalidInputError, MissingWeightsError, StorageError
from ppfr.models import (
    IResNet,
    MobileFaceNet,
    ModelCard,
    StemAdapter,
    build_network,
    card_for,
    conv_stem,
    load_model,
    read_card,
    save_model,
)

FACTS = {"training_data": "synthetic faces", "licence": "MIT", "source": "a test", "may_have_seen": ("nobody",)}


def _small():
    return MobileFaceNet((6, 14, 14), 32, "small", seed=3)


def _stem_adapter():
    stem = conv_stem((9, 28, 28), (32, 28, 28), width=8, depth=1, seed=3)
    return StemAdapter(stem, MobileFaceNet(variant="small", seed=3), "down28")


BUILDERS = [
    _small,
    lambda: IResNet((6, 14, 14), 16, (1, 1, 2, 1), widths=(4, 4, 8, 8), has_se=True, dropout=0.1, seed=3),
    _stem_adapter,
]


def _nine():
    return IResNet((3, 28, 28), 16, (1, 1, 1, 1), widths=(9, 4, 8, 8), seed=3)


@pytest.mark.parametrize("build", BUILDERS)
def test_save_and_load_round_trip(tmp_path, noisy, build):
    network = noisy(build())
    path = tmp_path / "models" / "net.safetensors"
    card = save_model(path, network, card_for(network, name="mine", **FACTS))
    loaded, again = load_model(path)
    assert again == card == dataclasses.replace(read_card(path), sha256=card.sha256)
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (again.training_data, again.may_have_seen, again.in_shape) == (
        "synthetic faces",
        ("nobody",),
        network.in_shape,
    )
    assert not loaded.training
    assert type(loaded) is type(network)
    x = torch.rand(2, *network.in_shape)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))


def test_body_of_a_stem_adapter_may_be_a_stem_adapter(tmp_path):
    inner = StemAdapter(conv_stem((9, 28, 28), (9, 28, 28), width=4, depth=0, seed=1), _nine(), "stem")
    outer = StemAdapter(conv_stem((5, 14, 14), (9, 28, 28), width=4, depth=0, seed=1), inner, "stage1").eval()
    path = tmp_path / "net.safetensors"
    save_model(path, outer, card_for(outer, name="mine", **FACTS))
    x = torch.rand(1, 5, 14, 14)
    with torch.no_grad():
        assert torch.equal(load_model(path)[0](x), outer(x))


def test_load_tensors_rejects_another_model_and_lists_all_differences(tmp_path):
    network = _small()
    path = tmp_path / "net.safetensors"
    card = card_for(network, name="mine", **FACTS)
    tensors = dict(network.state_dict())
    del tensors["head.linear.weight"]
    tensors["head.norm.bias"] = torch.zeros(5)
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, path, metadata={"ppfr_card": card.to_json()})
    message = r"missing head\.linear\.weight; left over extra; wrong shape head\.norm\.bias \(5,\) for \(32,\)"
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_save_model_rejects_card_of_another_network(tmp_path):
    card = card_for(_small(), name="mine", **FACTS)
    with pytest.raises(InvalidInputError, match="card_for"):
        save_model(tmp_path / "net.safetensors", MobileFaceNet((6, 14, 14), 16, "small", seed=0), card)
    with pytest.raises(InvalidInputError, match=r"must end in \.safetensors"):
        save_model(tmp_path / "net.pt", _small(), card)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    network, path = _small(), tmp_path / "net.safetensors"
    save_model(path, network, card_for(network, name="old", **FACTS))

    def full(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ppfr.models._store.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        save_model(path, network, card_for(network, name="new", **FACTS))
    assert load_model(path)[1].name == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]


def test_load_model_distinguishes_damaged_foreign_and_missing_files(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(MissingWeightsError, match=r"net\.safetensors was not found; looked in .*models list"):
        load_model(path)
    network = _small()
    save_model(path, network, card_for(network, name="mine", **FACTS))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\x80\x02pickle", b""):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged or has another format"):
            load_model(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="has no model card"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "VisionTransformer"}, "this version of ppfr has MobileFaceNet"),
        ({"config": {"depth": 3}}, "does not accept"),
        ({"dim": 7}, "contradicts itself"),
    ],
)
def test_load_model_rejects_card_that_does_not_match_the_tensors(tmp_path, change, message):
    network, path = _small(), tmp_path / "net.safetensors"
    card = dataclasses.replace(card_for(network, name="mine", **FACTS), **change)
    save_file(dict(network.state_dict()), path, metadata={"ppfr_card": card.to_json()})
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_cards_are_json_with_a_format_number():
    card = card_for(_small(), name="mine", **FACTS)
    assert ModelCard.from_json(card.to_json()) == card
    fields = json.loads(card.to_json())
    for text, message in (
        ("{", "not JSON"),
        (json.dumps({**fields, "format": 2}), "not have format 1"),
        (json.dumps({**fields, "mood": "good"}), "unknown mood"),
        (json.dumps({key: value for key, value in fields.items() if key != "licence"}), "lacks licence"),
    ):
        with pytest.raises(CheckpointError, match=message):
            ModelCard.from_json(text)


def test_custom_stem_cannot_be_saved():
    body = MobileFaceNet(variant="small", seed=0)
    network = StemAdapter(torch.nn.Conv2d(3, 32, 1), body, "down28", in_shape=(3, 28, 28))
    with pytest.raises(InvalidInputError, match="build it with conv_stem"):
        card_for(network, name="mine", **FACTS)


def test_build_network_restores_the_architecture():
    network = _stem_adapter()
    again = build_network("StemAdapter", json.loads(json.dumps(network.config())), seed=3)
    assert again.config() == network.config()
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in network.state_dict().items()}
