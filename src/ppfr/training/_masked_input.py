"""What the objectives share: masking a batch, comparing with a teacher, and saying what went in.

Shapes: `B` batch, `C H W` plain image, `K P Q` masked image, `C P Q` feature map, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import CheckpointError, ImageMasker, InvalidInputError, ShapeError, derive_seed
from ppfr.models import Backbone, MarginHead, ModelCard
from ppfr.training._objective import as_json


def mask_images(masker: ImageMasker, images_BCHW: Tensor, *, rng: torch.Generator) -> Tensor:
    """Mask in float32, with gradient only if the masker is trained."""
    has_gradient = masker.spec.is_trainable and torch.is_grad_enabled()
    with torch.autocast(images_BCHW.device.type, enabled=False), torch.set_grad_enabled(has_gradient):
        return masker.mask(images_BCHW.contiguous(), rng=rng)


def masked_probe(masker: ImageMasker) -> Tensor:
    """(K, P, Q): one fixed noise image, masked with a fixed `rng`: it tells two secrets apart."""
    rng = torch.Generator().manual_seed(derive_seed(0, "training", "probe"))
    with torch.no_grad():
        return masker.mask(torch.rand(1, *masker.spec.in_shape, generator=rng), rng=rng)[0]


def check_probe(probe_KPQ: Tensor, masker: ImageMasker) -> None:
    """Refuse weights that were trained under another secret than `masker` has now.

    Raises:
        CheckpointError: they were.
    """
    if not torch.allclose(probe_KPQ.cpu(), masked_probe(masker), rtol=1e-3, atol=1e-3):
        raise CheckpointError(
            f"the checkpoint was trained under another secret of {masker.name!r} than the one given now; choose "
            "another run directory, or give the masker its earlier secret"
        )


def masker_parameters(masker: ImageMasker) -> list[nn.Parameter]:
    """The parameters of a masker that is trained with the recogniser."""
    return list(masker.parameters()) if isinstance(masker, nn.Module) and masker.spec.is_trainable else []


def frozen_masker(masker: ImageMasker) -> tuple[str, ...]:
    """("masker",) if it is a module that is not trained."""
    return ("masker",) if isinstance(masker, nn.Module) and not masker.spec.is_trainable else ()


def embedding_error(embedding_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean of 1 - cosine, float32."""
    with torch.autocast(embedding_BD.device.type, enabled=False):
        return (1 - functional.cosine_similarity(embedding_BD.float(), teacher_BD.float())).mean()


def feature_error(features_BCPQ: Tensor, teacher_BCPQ: Tensor) -> Tensor:
    """Mean squared error over the teacher's variance within its channels, float32.

    1 is what each channel's mean would get, 0 is perfect; so one weight serves every tap and network.
    """
    with torch.autocast(features_BCPQ.device.type, enabled=False):
        wanted = teacher_BCPQ.float()
        spread = (wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
        return (features_BCPQ.float() - wanted).square().mean() / spread.clamp_min(1e-12)


def check_input(masker: ImageMasker, network: Backbone) -> None:
    """The network takes what the masker gives.

    Raises:
        ShapeError: it does not.
    """
    if tuple(network.in_shape) != tuple(masker.spec.out_shape):
        raise ShapeError(
            f"the network takes {tuple(network.in_shape)} and the masker {masker.name} gives "
            f"{tuple(masker.spec.out_shape)}; build the network with in_shape=masker.spec.out_shape"
        )


def check_teacher(masker: ImageMasker, teacher: Backbone) -> None:
    """The teacher takes the plain crops that the masker takes.

    Raises:
        ShapeError: it does not.
    """
    if tuple(teacher.in_shape) != tuple(masker.spec.in_shape):
        raise ShapeError(
            f"the teacher takes {tuple(teacher.in_shape)} and the masker's crops are {tuple(masker.spec.in_shape)}; "
            "use a teacher for the same plain crops"
        )


def check_head(head: MarginHead | None, network: Backbone, *, num_classes: int | None = None) -> None:
    """The head fits the network, and the data if `num_classes` is given.

    Raises:
        ShapeError: another embedding length.
        InvalidInputError: another number of classes.
    """
    if head is None:
        return
    if head.dim != network.dim:
        raise ShapeError(f"the head takes embeddings of {head.dim}, the network gives {network.dim}; make them agree")
    if num_classes is not None and head.num_classes != num_classes:
        raise InvalidInputError(
            f"the head has {head.num_classes} classes and the training set {num_classes} subjects; "
            f"make the head with num_classes={num_classes}"
        )


def check_weights(**weights: float) -> None:
    """Weights of loss terms: none negative, one positive at least.

    Raises:
        InvalidInputError: otherwise.
    """
    if any(not 0 <= value < float("inf") for value in weights.values()) or not any(weights.values()):
        given = ", ".join(f"{name}={value}" for name, value in weights.items())
        raise InvalidInputError(f"{given}; allowed are numbers of 0 or more, one of them positive")


def describe_masker(masker: ImageMasker) -> dict[str, Any]:
    """Name and public parameters."""
    return {"name": masker.name, "config": as_json(masker.public_config())}


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Kind, constructor arguments where the module can state them, size."""
    facts: dict[str, Any] = {"kind": type(module).__name__}
    if isinstance(module, Backbone):
        try:
            facts["config"] = as_json(module.config())
        except InvalidInputError:
            # A network around a module of the user's own; its weights' names and shapes are checked on resuming.
            facts["config"] = "not stated"
        facts |= {"in_shape": list(module.in_shape), "dim": module.dim}
    else:
        plain = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
        facts["config"] = {name: v for name, v in plain.items() if isinstance(v, str | int | float | bool)}
    return facts


def describe_knowledge(cards: Mapping[str, Sequence[ModelCard]]) -> list[dict[str, Any]]:
    """Pretrained networks that went in, by role: what they learned from and whom they may have seen."""
    return [{"role": role, **as_json(card)} for role, found in cards.items() for card in found]
