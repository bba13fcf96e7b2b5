"""Saving and loading networks as safetensors files (no pickle) with the model card in the file header."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ppfr.assets import sha256_of, write_atomically
from ppfr.core import CheckpointError, InvalidInputError, MissingWeightsError
from ppfr.models._backbone import Backbone
from ppfr.models._cards import ModelCard
from ppfr.models._foreign import shown
from ppfr.models._iresnet import IResNet
from ppfr.models._mobilefacenet import MobileFaceNet
from ppfr.models._stem_adapter import StemAdapter, conv_stem

_CARD_KEY = "ppfr_card"


def build_network(architecture: str, config: Mapping[str, Any], *, seed: int) -> Backbone:
    """Build a network from the architecture and config of a card, with initial weights drawn from `seed`.

    Raises:
        CheckpointError: the architecture is unknown, or does not accept the arguments.
    """
    if architecture not in _ARCHITECTURES:
        raise CheckpointError(
            f"unknown architecture {architecture!r}; this version of ppfr has {', '.join(_ARCHITECTURES)}"
        )
    try:
        return _ARCHITECTURES[architecture](dict(config), seed)
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{architecture} does not accept the given arguments: {error}") from error


def card_for(
    network: Backbone,
    *,
    name: str,
    training_data: str,
    licence: str,
    source: str,
    may_have_seen: tuple[str, ...] = (),
    notes: str = "",
) -> ModelCard:
    """A card for `network`. Architecture and shapes are read from the network."""
    return ModelCard(
        name=name,
        architecture=type(network).__name__,
        config=network.config(),
        dim=network.dim,
        in_shape=network.in_shape,
        training_data=training_data,
        may_have_seen=may_have_seen,
        licence=licence,
        source=source,
        notes=notes,
    )


def save_model(path: Path, network: Backbone, card: ModelCard) -> ModelCard:
    """Write weights and card to one safetensors file, atomically.

    Returns:
        The card with the sha256 of the file.

    Raises:
        InvalidInputError: the card describes another network, or the path does not end in .safetensors.
        StorageError: the disk is full or the directory is not writable.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InvalidInputError(f"{path.name} must end in .safetensors, the only supported format")
    described = (card.architecture, json.dumps(dict(card.config), sort_keys=True))
    actual = (type(network).__name__, json.dumps(network.config(), sort_keys=True))
    if described != actual:
        raise InvalidInputError(
            f"the card describes {described}, but the network is {actual}; create the card with card_for"
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    unsigned = dataclasses.replace(card, sha256="")
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={_CARD_KEY: unsigned.to_json()})
    return dataclasses.replace(card, sha256=sha256_of(path))


def load_model(path: Path) -> tuple[Backbone, ModelCard]:
    """Load a network that `save_model` wrote, on the CPU and in evaluation mode.

    Raises:
        MissingWeightsError: the file does not exist.
        CheckpointError: the file is damaged, has no card, or its tensors do not match the architecture of the card.
    """
    path = Path(path)
    card = read_card(path)
    network = build_network(card.architecture, card.config, seed=0)
    if (network.dim, network.in_shape) != (card.dim, card.in_shape):
        raise CheckpointError(f"the card of {path.name} contradicts itself: dim or in_shape differ from its config")
    load_tensors(network, read_tensors(path), path.name)
    return network.eval(), dataclasses.replace(card, sha256=sha256_of(path))


def read_card(path: Path) -> ModelCard:
    """The card of a saved network, read from the file header.

    Raises:
        MissingWeightsError: the file does not exist.
        CheckpointError: the file is damaged, or has no card.
    """
    path = Path(path)
    _check_exists(path)
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_CARD_KEY)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}); it is damaged or has another format"
        ) from error
    if text is None:
        raise CheckpointError(
            f"{path} has no model card, so it was not written by save_model; "
            "load pretrained networks by name (`ppfr models list`)"
        )
    return ModelCard.from_json(text)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file.

    Raises:
        MissingWeightsError: the file does not exist.
        CheckpointError: the file is damaged.
    """
    _check_exists(Path(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}); it is damaged or has another format"
        ) from error


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy `tensors` into `network`. Names and shapes must match exactly; otherwise nothing is changed.

    Raises:
        CheckpointError: they do not match; lists tensors that are missing, left over or have another shape.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in tensors]
    left_over = [name for name in tensors if name not in own]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if missing or left_over or misshaped:
        raise CheckpointError(
            f"{what} does not match {type(network).__name__}: missing {shown(missing)}; left over {shown(left_over)}; "
            f"wrong shape {shown(misshaped)}. Check that the file belongs to this network"
        )
    network.load_state_dict(tensors)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise MissingWeightsError(
            path.name,
            looked_in=[str(path.parent)],
            remedy="Give the path of a network that save_model wrote, or the name of a pretrained network "
            "(`ppfr models list`).",
        )


def _build_stem_adapter(config: dict[str, Any], seed: int) -> Backbone:
    stem = conv_stem(**config["stem"], seed=seed)
    body = build_network(config["body"]["architecture"], config["body"]["config"], seed=seed)
    return StemAdapter(stem, body, config["tap"], takes_image=config["takes_image"])


_ARCHITECTURES: Mapping[str, Callable[[dict[str, Any], int], Backbone]] = MappingProxyType(
    {
        "MobileFaceNet": lambda config, seed: MobileFaceNet(**config, seed=seed),
        "IResNet": lambda config, seed: IResNet(**config, seed=seed),
        "StemAdapter": _build_stem_adapter,
    }
)
