from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ppfr.core import CheckpointError, InvalidInputError, MissingExtraError
from ppfr.models import MobileFaceNet, ModelCard, NetworkEmbedder, _onnx, card_for, export_onnx


@pytest.fixture(scope="module")
def network(noisy):
    return noisy(MobileFaceNet((3, 28, 28), variant="small", seed=0))


@pytest.fixture(scope="module")
def card(network):
    return card_for(network, name="mine", training_data="none", licence="MIT", source="a test")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, network, card):
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    return path, export_onnx(network, path, card=card)


def test_exported_file_equals_the_network_for_all_batch_sizes(exported, network, card):
    path, difference = exported
    assert 0 <= difference <= 1e-4
    assert [entry.name for entry in path.parent.iterdir()] == ["net.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for num in (1, 7):
        x = torch.rand(num, 3, 28, 28, generator=torch.Generator().manual_seed(num))
        (found,) = session.run(["embedding"], {"input": x.numpy()})
        np.testing.assert_allclose(found, NetworkEmbedder(network).embed(x).numpy(), atol=1e-4)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert ModelCard.from_json(properties["ppfr_card"]) == card


def test_export_with_different_output_is_rejected_and_not_written(tmp_path, exported, monkeypatch):
    # The patched exporter writes the network of the fixture instead of one with other weights.
    other = MobileFaceNet((3, 28, 28), variant="small", seed=1)
    monkeypatch.setattr(_onnx, "_export", lambda unit, path, opset: shutil.copyfile(exported[0], path))
    with pytest.raises(CheckpointError, match=r"differs from the original by up to .* Nothing was written"):
        export_onnx(other, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_names_missing_extra_and_wrong_suffix(tmp_path, network, monkeypatch):
    with pytest.raises(InvalidInputError, match=r"must end in \.onnx"):
        export_onnx(network, tmp_path / "net.bin")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'ppfr\[onnx\]'"):
        export_onnx(network, tmp_path / "net.onnx")
