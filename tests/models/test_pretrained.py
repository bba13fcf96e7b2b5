from __future__ import annotations

import numpy as np
import pytest
import torch

from ppfr.core import CheckpointError, ChecksumError, InvalidInputError, MissingWeightsError
from ppfr.data import read_cfp, read_lfw
from ppfr.metrics import ten_fold_accuracy
from ppfr.models import PRETRAINED, MobileFaceNet, NetworkEmbedder, for_inference, load_pretrained
from ppfr.models._foreign import _LAST, _names, to_own_names
from ppfr.models._store import load_tensors
from reference import mobilefacenet

# Accuracy (%) on LFW's 6,000 pairs, one crop, as the sources' weights are known to reach.
LFW = {"mobilefacenet-y1": 99.37, "mobilefacenet-casia": 98.27, "mobilefacenet-casia-112x96": 98.78}
CFP_Y1 = {"FF": 99.40, "FP": 88.57}


def _noise_checkpoint(network, source, noisy):
    """A checkpoint with public tensor names and random values; the gain is 1 where that of the network is fixed."""
    state = noisy(network).state_dict()
    foreign = {theirs: state[own].clone() for own, theirs in _names(network, source)}
    if source == "y1":
        foreign["fc1_gamma"] = torch.ones(128)
    else:
        linear = _LAST[source]["linear.weight"]
        foreign[linear] = foreign[linear][:, :, None, None]
    return foreign


@pytest.mark.parametrize("source", ["y1", "casia", "casia_112x96"])
def test_each_variant_equals_the_public_network(noisy, source):
    foreign = _noise_checkpoint(MobileFaceNet(variant=source, seed=0), source, noisy)
    network = MobileFaceNet(variant=source, seed=1).eval()
    load_tensors(network, to_own_names(foreign, network, source), "noise")
    x = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    doubled = {name: tensor.double() for name, tensor in foreign.items()}
    with torch.no_grad():
        expected = mobilefacenet.embed(source, doubled, x)
        torch.testing.assert_close(network.double()(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("source", ["y1", "casia", "casia_112x96"])
def test_to_own_names_rejects_missing_and_extra_tensors(noisy, source):
    network = MobileFaceNet(variant=source, seed=0)
    foreign = _noise_checkpoint(network, source, noisy)
    name = next(iter(foreign))
    with pytest.raises(CheckpointError, match=f"missing {name}; left over none"):
        to_own_names({key: tensor for key, tensor in foreign.items() if key != name}, network, source)
    with pytest.raises(CheckpointError, match="left over fc9_weight"):
        to_own_names({**foreign, "fc9_weight": torch.zeros(1)}, network, source)
    own = to_own_names({**foreign, name: torch.zeros(1)}, network, source)
    with pytest.raises(CheckpointError, match="wrong shape"):
        load_tensors(network, own, "noise")


@pytest.mark.parametrize("name", PRETRAINED)
def test_missing_weights_error_names_file_and_remedy(tmp_path, monkeypatch, name):
    asset = PRETRAINED[name].asset
    with pytest.raises(MissingWeightsError) as caught:
        load_pretrained(name, weights_dir=tmp_path)
    for part in (asset.name, asset.sha256, str(tmp_path), "--weights DIR", "PPFR_WEIGHTS", "github.com/"):
        assert part in str(caught.value)
    monkeypatch.delenv("PPFR_WEIGHTS", raising=False)
    with pytest.raises(MissingWeightsError, match=r"PPFR_WEIGHTS \(not set\)"):
        load_pretrained(name)


def test_load_pretrained_rejects_wrong_checksum_and_unknown_name(tmp_path):
    asset = PRETRAINED["mobilefacenet-y1"].asset
    (tmp_path / asset.name).write_bytes(b"something else")
    with pytest.raises(ChecksumError, match=rf"expected {asset.sha256}(?s:.*)download it again"):
        load_pretrained("mobilefacenet-y1", weights_dir=tmp_path)
    with pytest.raises(InvalidInputError, match="available: mobilefacenet-y1, mobilefacenet-casia"):
        load_pretrained("resnet", weights_dir=tmp_path)


def test_cards_state_overlaps_with_test_data():
    for name, entry in PRETRAINED.items():
        assert entry.card.name == name
        assert entry.card.sha256 == entry.asset.sha256
        assert entry.card.licence
        assert any(seen.startswith("LFW") for seen in entry.card.may_have_seen)
        network = MobileFaceNet(variant=entry.variant, seed=0)
        assert (network.config(), network.dim, network.in_shape) == (
            dict(entry.card.config),
            entry.card.dim,
            entry.card.in_shape,
        )


def _scores(name, weights_root, protocol, rows):
    """Scores of the pairs `rows` of a protocol, from one crop without mirroring."""
    network, _ = load_pretrained(name, weights_dir=weights_root)
    embedder = NetworkEmbedder(for_inference(network), channels_last=True)
    used, places = np.unique(np.stack([protocol.first[rows], protocol.second[rows]]), return_inverse=True)
    embedding_ND = np.concatenate(
        [
            embedder.embed(torch.from_numpy(protocol.images.read(part.tolist())).permute(0, 3, 1, 2).float() / 255)
            for part in np.array_split(used, -(-len(used) // 256))
        ]
    )
    first, second = places.reshape(2, -1)
    return (embedding_ND[first] * embedding_ND[second]).sum(axis=1)


@pytest.mark.real_data
@pytest.mark.parametrize("name", LFW)
def test_pretrained_networks_separate_faces(data_root, weights_root, name):
    # 20 genuine and 20 impostor pairs of each of two folds. The slow test below uses the whole protocol.
    protocol = read_lfw(data_root)
    rows = np.concatenate(
        [
            np.flatnonzero((protocol.fold == fold) & (protocol.is_genuine == genuine))[:20]
            for fold in (0, 1)
            for genuine in (True, False)
        ]
    )
    score_N = _scores(name, weights_root, protocol, rows)
    accuracy = ten_fold_accuracy(score_N, protocol.is_genuine[rows], protocol.fold[rows]).mean
    assert accuracy >= 0.95


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", LFW)
def test_lfw_accuracy_equals_the_known_value(data_root, weights_root, name):
    protocol = read_lfw(data_root)
    score_N = _scores(name, weights_root, protocol, np.arange(len(protocol)))
    accuracy = ten_fold_accuracy(score_N, protocol.is_genuine, protocol.fold)
    assert accuracy.n == 6000
    assert 100 * accuracy.mean == pytest.approx(LFW[name], abs=0.2)


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("kind", CFP_Y1)
def test_cfp_accuracy_equals_the_known_value(data_root, weights_root, kind):
    protocol = read_cfp(data_root, kind)
    score_N = _scores("mobilefacenet-y1", weights_root, protocol, np.arange(len(protocol)))
    accuracy = ten_fold_accuracy(score_N, protocol.is_genuine, protocol.fold)
    assert 100 * accuracy.mean == pytest.approx(CFP_Y1[kind], abs=0.2)
