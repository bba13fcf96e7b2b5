"""A trained masked recogniser on disk: network with card, public masker parameters, training sets, separate secret."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ppfr.assets import sha256_of, write_atomically
from ppfr.core import CheckpointError, ImageMasker, InvalidInputError, MissingWeightsError
from ppfr.masking import Unprotected
from ppfr.models import PRETRAINED, Backbone, ModelCard, load_model, load_pretrained, save_model
from ppfr.systems._catalogue import make_masker, needs_secret, read_or_create_secret
from ppfr.systems._training_sets import TrainingSet, read_training_sets, write_training_sets

NETWORK_FILE, MASKER_FILE, SECRET_FILE = "network.safetensors", "masker.json", "secret.key"
ARRAYS_FILE = "masker.safetensors"
_FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskedSystem:
    """A masker and the network trained on its output.

    Attributes:
        masker: runs on the client.
        network: runs on the server; masked image -> embedding.
        card: architecture and training data of the network.
        trained_on: the data sets that the network and its pretrained parts were trained on; empty if unknown.
    """

    masker: ImageMasker
    network: Backbone
    card: ModelCard
    trained_on: tuple[TrainingSet, ...] = ()


def save_system(directory: Path, system: MaskedSystem, *, lists_subjects: bool = True) -> ModelCard:
    """Write the network, its card, the public parameters of the masker and the training sets, but not the secret.

    Args:
        directory: where to save the system.
        system: what to save.
        lists_subjects: list the people of the training sets as hashes of their names in trained-on.json, so that a
            test on the same people can be refused.

    Privacy: anyone who has trained-on.json can find out whether a person of a given name was in the training set. With
        `lists_subjects` False, the file has only the names of the sets and numbers of people and images.

    Raises:
        StorageError: the directory is not writable.
    """
    card = save_model(directory / NETWORK_FILE, system.network, system.card)
    facts = {"format": _FORMAT, "name": system.masker.name, "config": dict(system.masker.public_config())}
    arrays = {name: np.ascontiguousarray(array) for name, array in system.masker.public_arrays().items()}
    if arrays:
        with write_atomically(directory / ARRAYS_FILE) as temporary:
            save_file(arrays, temporary)
        facts["arrays_sha256"] = sha256_of(directory / ARRAYS_FILE)
    with write_atomically(directory / MASKER_FILE) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    sets = system.trained_on if lists_subjects else [each.unlisted() for each in system.trained_on]
    write_training_sets(directory, sets, network_sha256=card.sha256)
    return card


def load_system(directory: Path, *, secret_path: Path | None = None) -> MaskedSystem:
    """Load a system that `save_system` wrote, with the secret from its own file.

    Args:
        directory: where the system was saved.
        secret_path: file of the secret of the deployment; by default `directory`/secret.key.

    Raises:
        MissingWeightsError: the file of the network, masker or secret is missing.
        CheckpointError: the files are damaged or do not belong together. Without trained-on.json, the training data of
            the system counts as unknown.
    """
    path = directory / MASKER_FILE
    if not path.is_file():
        raise MissingWeightsError(
            MASKER_FILE, looked_in=[str(directory)], remedy="Give the directory that `ppfr train --out` wrote."
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        name, config, arrays_sha256 = facts["name"], facts["config"], facts.get("arrays_sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore it, or train again") from error
    arrays = None if arrays_sha256 is None else _read_arrays(directory / ARRAYS_FILE, arrays_sha256)
    try:
        is_keyed = needs_secret(name, config)
    except InvalidInputError as error:
        raise CheckpointError(f"{path} names a masker that this version does not have: {error}") from error
    secret = None
    if is_keyed:
        where = secret_path or directory / SECRET_FILE
        if not where.is_file():
            raise MissingWeightsError(
                where.name,
                looked_in=[str(where.parent)],
                remedy="Give the secret of the deployment with --secret FILE.",
            )
        secret, _ = read_or_create_secret(where)
    try:
        masker = make_masker(name, secret=secret, config=config, arrays=arrays)
    except InvalidInputError as error:
        raise CheckpointError(f"{path} does not describe a valid masker: {error}") from error
    network, card = load_model(directory / NETWORK_FILE)
    if tuple(network.in_shape) != tuple(masker.spec.out_shape):
        raise CheckpointError(
            f"the network takes {tuple(network.in_shape)}, but the output of the masker is "
            f"{tuple(masker.spec.out_shape)}: "
            f"the files of two systems are mixed up; restore the files in {directory}"
        )
    trained_on = read_training_sets(directory, network_sha256=card.sha256)
    return MaskedSystem(masker=masker, network=network, card=card, trained_on=trained_on)


def training_set_of(card: ModelCard) -> TrainingSet:
    """The training data that the card of a public network states. Its people are not listed."""
    return TrainingSet(name=f"{card.name}: {card.training_data}")


def _read_arrays(path: Path, sha256: Any) -> Mapping[str, np.ndarray]:
    """The arrays of the masker.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another system.
    """
    remedy = "restore it from the original system, or train again"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, but {MASKER_FILE} requires it; {remedy}")
    if sha256_of(path) != sha256:
        raise CheckpointError(
            f"{path} is damaged or belongs to another system: its sha256 differs from that in {MASKER_FILE}; {remedy}"
        )
    try:
        arrays: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {remedy}") from error
    return arrays


def read_recogniser(model: str, *, secret_path: Path | None = None, weights: Path | None = None) -> MaskedSystem:
    """Load a recogniser: a pretrained network of plain faces by name, or a trained system by directory.

    Raises:
        InvalidInputError: `model` is neither.
        MissingWeightsError: its files are missing.
        CheckpointError: its files are damaged or do not belong together.
    """
    if model in PRETRAINED:
        network, card = load_pretrained(model, weights_dir=weights)
        return MaskedSystem(masker=Unprotected(), network=network, card=card, trained_on=(training_set_of(card),))
    if Path(model).is_dir():
        return load_system(Path(model), secret_path=secret_path)
    raise InvalidInputError(
        f"{model!r} is neither a pretrained network ({', '.join(PRETRAINED)}) nor a directory that `ppfr train "
        "--out` wrote"
    )
