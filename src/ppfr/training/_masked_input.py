"""Functions that several tasks use: masking a batch, distances to a teacher, checks, and descriptions for records.

Shapes: `B` batch, `C H W` plain image, `K P Q` masked image, `C P Q` feature map, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import CheckpointError, ImageMasker, InvalidInputError, ShapeError, as_json, derive_seed
from ppfr.models import Backbone, MarginHead, ModelCard


def mask_images(masker: ImageMasker, images_BCHW: Tensor, *, rng: torch.Generator) -> Tensor:
    """Mask in float32, with gradients only if the masker is trained."""
    has_gradient = masker.spec.is_trainable and torch.is_grad_enabled()
    with torch.autocast(images_BCHW.device.type, enabled=False), torch.set_grad_enabled(has_gradient):
        return masker.mask(images_BCHW.contiguous(), rng=rng)


def masked_probe(masker: ImageMasker, *, purpose: str = "training") -> Tensor:
    """One fixed noise image, masked with a fixed `rng`, (K, P, Q). It differs between two secrets.

    Args:
        masker: what is probed.
        purpose: label of the random stream. Checkpoints and run fingerprints use different streams.
    """
    rng = torch.Generator().manual_seed(derive_seed(0, purpose, "probe"))
    with torch.no_grad():
        return masker.mask(torch.rand(1, *masker.spec.in_shape, generator=rng), rng=rng)[0]


def check_probe(probe_KPQ: Tensor, masker: ImageMasker) -> None:
    """Reject weights that were trained under another secret than that of `masker`.

    Raises:
        CheckpointError: the secret differs.
    """
    if not torch.allclose(probe_KPQ.cpu(), masked_probe(masker), rtol=1e-3, atol=1e-3):
        raise CheckpointError(
            f"the checkpoint was trained under another secret of {masker.name!r}; use that secret, or choose another "
            "run directory"
        )


def masker_parameters(masker: ImageMasker) -> list[nn.Parameter]:
    """The parameters of a masker that is trained with the recogniser; otherwise empty."""
    return list(masker.parameters()) if isinstance(masker, nn.Module) and masker.spec.is_trainable else []


def frozen_masker(masker: ImageMasker) -> tuple[str, ...]:
    """("masker",) if the masker is a module that is not trained; otherwise empty."""
    return ("masker",) if isinstance(masker, nn.Module) and not masker.spec.is_trainable else ()


def embedding_error(embedding_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean of 1 - cosine similarity, float32."""
    with torch.autocast(embedding_BD.device.type, enabled=False):
        return (1 - functional.cosine_similarity(embedding_BD.float(), teacher_BD.float())).mean()


def feature_error(features_BCPQ: Tensor, teacher_BCPQ: Tensor) -> Tensor:
    """Mean squared error divided by the variance of the teacher within its channels, float32.

    0 is a perfect match; 1 is the error of predicting the mean of each channel. The scale does not depend on the tap or
    the network, so one weight serves all of them.
    """
    with torch.autocast(features_BCPQ.device.type, enabled=False):
        wanted = teacher_BCPQ.float()
        spread = (wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
        return (features_BCPQ.float() - wanted).square().mean() / spread.clamp_min(1e-12)


def check_input(masker: ImageMasker, network: Backbone) -> None:
    """Check that the network takes the output of the masker.

    Raises:
        ShapeError: the shapes differ.
    """
    if tuple(network.in_shape) != tuple(masker.spec.out_shape):
        raise ShapeError(
            f"the network takes inputs of shape {tuple(network.in_shape)}, but the output of masker {masker.name} is "
            f"{tuple(masker.spec.out_shape)}; build the network with in_shape=masker.spec.out_shape"
        )


def check_teacher(masker: ImageMasker, teacher: Backbone) -> None:
    """Check that the teacher takes the same plain crops as the masker.

    Raises:
        ShapeError: the shapes differ.
    """
    if tuple(teacher.in_shape) != tuple(masker.spec.in_shape):
        raise ShapeError(
            f"the teacher takes crops of shape {tuple(teacher.in_shape)}, but the masker takes "
            f"{tuple(masker.spec.in_shape)}; use a teacher that takes the same plain crops"
        )


def check_head(head: MarginHead | None, network: Backbone, *, num_classes: int | None = None) -> None:
    """Check that the head fits the network, and the data if `num_classes` is given.

    Raises:
        ShapeError: the embedding lengths differ.
        InvalidInputError: the numbers of classes differ.
    """
    if head is None:
        return
    if head.dim != network.dim:
        raise ShapeError(
            f"the head takes embeddings of length {head.dim}, but the network outputs length {network.dim}; build the "
            f"head with dim={network.dim}"
        )
    if num_classes is not None and head.num_classes != num_classes:
        raise InvalidInputError(
            f"the head has {head.num_classes} classes, but the training set has {num_classes} subjects; "
            f"build the head with num_classes={num_classes}"
        )


def check_weights(**weights: float) -> None:
    """Check that no loss weight is negative and at least one is positive.

    Raises:
        InvalidInputError: otherwise.
    """
    if any(not 0 <= value < float("inf") for value in weights.values()) or not any(weights.values()):
        given = ", ".join(f"{name}={value}" for name, value in weights.items())
        raise InvalidInputError(f"{given}; weights must be finite and 0 or more, and at least one must be positive")


def describe_masker(masker: ImageMasker) -> dict[str, Any]:
    """Name and public parameters."""
    return {"name": masker.name, "config": as_json(masker.public_config())}


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Class name, constructor arguments if the module provides them, and shapes."""
    facts: dict[str, Any] = {"kind": type(module).__name__}
    if isinstance(module, Backbone):
        try:
            facts["config"] = as_json(module.config())
        except InvalidInputError:
            # A network around a custom module. The names and shapes of its weights are checked on resuming.
            facts["config"] = "not stated"
        facts |= {"in_shape": list(module.in_shape), "dim": module.dim}
    else:
        plain = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
        facts["config"] = {name: v for name, v in plain.items() if isinstance(v, str | int | float | bool)}
    return facts


def describe_provenance(cards: Mapping[str, Sequence[ModelCard]]) -> list[dict[str, Any]]:
    """The pretrained networks by role, with their training data and known overlaps with test data."""
    return [{"role": role, **as_json(card)} for role, found in cards.items() for card in found]
