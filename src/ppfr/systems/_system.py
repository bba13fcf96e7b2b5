"""A trained masked recogniser on disk: network and card, the masker's public parameters, and apart the secret."""

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

NETWORK_FILE, MASKER_FILE, SECRET_FILE = "network.safetensors", "masker.json", "secret.key"
ARRAYS_FILE = "masker.safetensors"
_FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskedSystem:
    """A masker and the network trained on its output.

    Attributes:
        masker: the client's side.
        network: the server's side: masked image -> embedding.
        card: what the network is and what it learnt from.
    """

    masker: ImageMasker
    network: Backbone
    card: ModelCard


def save_system(directory: Path, system: MaskedSystem) -> ModelCard:
    """Write network, card and the masker's public parameters; the secret is not written here.

    Raises:
        StorageError: the directory cannot be written.
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
    return card


def load_system(directory: Path, *, secret_path: Path | None = None) -> MaskedSystem:
    """Read what `save_system` wrote, with the secret from its own file.

    Args:
        directory: where the system was saved.
        secret_path: the deployment's secret; by default `directory`/secret.key.

    Raises:
        MissingWeightsError: no network, masker or secret there.
        CheckpointError: the files are damaged or do not belong together.
    """
    path = directory / MASKER_FILE
    if not path.is_file():
        raise MissingWeightsError(
            MASKER_FILE, looked_in=[str(directory)], remedy="Name the directory that `ppfr train --out` wrote."
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        name, config, arrays_sha256 = facts["name"], facts["config"], facts.get("arrays_sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); train again or restore it") from error
    arrays = None if arrays_sha256 is None else _read_arrays(directory / ARRAYS_FILE, arrays_sha256)
    try:
        is_keyed = needs_secret(name, config)
    except InvalidInputError as error:
        raise CheckpointError(f"{path} names no masker that this version has: {error}") from error
    secret = None
    if is_keyed:
        where = secret_path or directory / SECRET_FILE
        if not where.is_file():
            raise MissingWeightsError(
                where.name, looked_in=[str(where.parent)], remedy="Give --secret FILE, the deployment's secret."
            )
        secret, _ = read_or_create_secret(where)
    try:
        masker = make_masker(name, secret=secret, config=config, arrays=arrays)
    except InvalidInputError as error:
        raise CheckpointError(f"{path} describes no masker that can be made: {error}") from error
    network, card = load_model(directory / NETWORK_FILE)
    if tuple(network.in_shape) != tuple(masker.spec.out_shape):
        raise CheckpointError(
            f"the network takes {tuple(network.in_shape)}, the masker gives {tuple(masker.spec.out_shape)}: "
            "the files of two systems are mixed up"
        )
    return MaskedSystem(masker=masker, network=network, card=card)


def _read_arrays(path: Path, sha256: Any) -> Mapping[str, np.ndarray]:
    """The masker's arrays.

    Raises:
        CheckpointError: not there, damaged, or another system's.
    """
    remedy = "restore it from where the system was copied from, or train again"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, and {MASKER_FILE} says that the masker needs it; {remedy}")
    if sha256_of(path) != sha256:
        raise CheckpointError(
            f"{path} is damaged or another system's: its sha256 is not that of {MASKER_FILE}; {remedy}"
        )
    try:
        arrays: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {remedy}") from error
    return arrays


def read_recogniser(model: str, *, secret_path: Path | None = None, weights: Path | None = None) -> MaskedSystem:
    """A recogniser by the word that a person gives: a public network of plain faces, or the directory of a system.

    Raises:
        InvalidInputError: neither.
        MissingWeightsError: its files are not there.
        CheckpointError: they are damaged or do not belong together.
    """
    if model in PRETRAINED:
        network, card = load_pretrained(model, weights_dir=weights)
        return MaskedSystem(masker=Unprotected(), network=network, card=card)
    if Path(model).is_dir():
        return load_system(Path(model), secret_path=secret_path)
    raise InvalidInputError(
        f"{model!r} is no public network ({', '.join(PRETRAINED)}) and no directory that `ppfr train --out` wrote"
    )
