"""Saving and loading networks: safetensors only (no pickle), the card in the file's header, strict on every tensor."""

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
    """A network from the name and the arguments in a card; its first weights are drawn from `seed`.

    Raises:
        CheckpointError: unknown architecture, or arguments that it does not take.
    """
    if architecture not in _ARCHITECTURES:
        raise CheckpointError(
            f"architecture {architecture!r} is unknown; this version of ppfr has {', '.join(_ARCHITECTURES)}"
        )
    try:
        return _ARCHITECTURES[architecture](dict(config), seed)
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"the arguments given for {architecture} are not its own: {error}") from error


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
    """The card of `network`: its architecture read off, the rest as given."""
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
    """Write weights and card into one safetensors file, whole or not at all.

    Returns:
        The card with the file's sha256.

    Raises:
        InvalidInputError: the card describes another network, or the path does not end in .safetensors.
        StorageError: the disk is full or the directory cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InvalidInputError(f"{path.name} must end in .safetensors: weights are stored in no other format")
    described = (card.architecture, json.dumps(dict(card.config), sort_keys=True))
    actual = (type(network).__name__, json.dumps(network.config(), sort_keys=True))
    if described != actual:
        raise InvalidInputError(f"the card describes {described}, the network is {actual}; make the card with card_for")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    unsigned = dataclasses.replace(card, sha256="")
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={_CARD_KEY: unsigned.to_json()})
    return dataclasses.replace(card, sha256=sha256_of(path))


def load_model(path: Path) -> tuple[Backbone, ModelCard]:
    """Read what `save_model` wrote; the network is on the CPU, in evaluation mode.

    Raises:
        MissingWeightsError: no such file.
        CheckpointError: damaged, without a card, or its tensors are not those of the card's architecture.
    """
    path = Path(path)
    card = read_card(path)
    network = build_network(card.architecture, card.config, seed=0)
    if (network.dim, network.in_shape) != (card.dim, card.in_shape):
        raise CheckpointError(f"the card of {path.name} contradicts itself: dim or in_shape are not its config's")
    load_tensors(network, read_tensors(path), path.name)
    return network.eval(), dataclasses.replace(card, sha256=sha256_of(path))


def read_card(path: Path) -> ModelCard:
    """The card of a stored network, read from the file's header alone.

    Raises:
        MissingWeightsError: no such file.
        CheckpointError: damaged, or without a card.
    """
    path = Path(path)
    _check_exists(path)
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_CARD_KEY)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file ({error}); it is damaged or of another kind") from error
    if text is None:
        raise CheckpointError(
            f"{path} has no model card, so it was not written by save_model; "
            "public networks are loaded by name (`ppfr models list`)"
        )
    return ModelCard.from_json(text)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file.

    Raises:
        MissingWeightsError: no such file.
        CheckpointError: damaged.
    """
    _check_exists(Path(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file ({error}); it is damaged or of another kind") from error


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy `tensors` into `network`: every one is used, none is missing, each has its shape; else nothing is changed.

    Raises:
        CheckpointError: a checkpoint of another model; lists what is missing, left over and mis-shaped.
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
            f"{what} is a checkpoint of another model than {type(network).__name__}: missing {shown(missing)}; "
            f"left over {shown(left_over)}; mis-shaped {shown(misshaped)}. Check that file and network belong together"
        )
    network.load_state_dict(tensors)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise MissingWeightsError(
            path.name,
            looked_in=[str(path.parent)],
            remedy="Give the path of a network stored with save_model, or the name of a public one "
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
