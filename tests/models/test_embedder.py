from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ppfr.core import Embedder, InvalidInputError, RangeError, ShapeError
from ppfr.models import IResNet, MobileFaceNet, NetworkEmbedder, StemAdapter, conv_stem, for_inference


@pytest.fixture(scope="module")
def network(noisy):
    return noisy(MobileFaceNet((3, 28, 28), variant="small", seed=0))


@pytest.fixture(scope="module")
def images():
    # Brighter to the right, so that the mirrored image differs even for an untrained network.
    return torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 28)


def test_embeddings_have_unit_norm_and_do_not_depend_on_batch_size(network, images):
    embedder = NetworkEmbedder(network, batch_size=2)
    assert isinstance(embedder, Embedder)
    found = embedder.embed(images)
    with torch.no_grad():
        expected = functional.normalize(network(images), dim=1)
    assert found.dtype is torch.float32
    assert not found.is_inference()
    assert embedder.dim == found.shape[1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    assert embedder.embed(images[:0]).shape == (0, embedder.dim)


def test_flip_makes_image_and_mirror_image_equal(network, images):
    embedder = NetworkEmbedder(network, flip=True)
    torch.testing.assert_close(embedder.embed(images), embedder.embed(images.flip(-1)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(embedder.embed(images), NetworkEmbedder(network).embed(images), atol=1e-4)


def test_embed_uses_evaluation_mode_and_restores_training_mode(noisy, images):
    network = noisy(MobileFaceNet((3, 28, 28), variant="small", seed=0)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    single = NetworkEmbedder(network).embed(images[:1])
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(single, NetworkEmbedder(network.eval()).embed(images)[:1], rtol=1e-4, atol=1e-5)


def test_masked_inputs_cannot_be_flipped_and_are_not_range_checked(noisy):
    masked = noisy(MobileFaceNet((4, 28, 28), variant="small", seed=0))
    with pytest.raises(InvalidInputError, match="a mirrored masked image is not the mask"):
        NetworkEmbedder(masked, flip=True)
    assert NetworkEmbedder(masked).embed(torch.full((1, 4, 28, 28), -30.0)).shape == (1, 128)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x * 255, RangeError, "divide uint8 crops by 255"),
        (lambda x: x.index_fill(0, torch.tensor([1]), float("nan")), RangeError, "not finite"),
        (lambda x: x[:, :, :-1], ShapeError, r"\(B, 3, 28, 28\)"),
    ],
)
def test_embed_rejects_invalid_input(network, images, change, error, message):
    with pytest.raises(error, match=message):
        NetworkEmbedder(network).embed(change(images))
    with pytest.raises(InvalidInputError, match="batch_size=0"):
        NetworkEmbedder(network, batch_size=0)


@pytest.mark.parametrize("channels_last", [True, False])
def test_folded_network_gives_equal_embeddings(noisy, channels_last):
    body = MobileFaceNet(variant="small", seed=0)
    networks = [
        MobileFaceNet((3, 28, 28), seed=0),
        IResNet((6, 14, 14), widths=(4, 4, 8, 8), dim=16, has_se=True, seed=0),
        StemAdapter(conv_stem((36, 28, 28), (32, 28, 28), width=8, depth=2, seed=0), body, "down28"),
    ]
    for network in networks:
        exact = noisy(network).double()
        folded = for_inference(exact, channels_last=channels_last)
        x = torch.rand(2, *network.in_shape, generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():
            torch.testing.assert_close(folded(x), exact(x), rtol=1e-9, atol=1e-9)
        assert len(folded.state_dict()) < len(exact.state_dict())
        assert not any(parameter.requires_grad for parameter in folded.parameters())
