"""The catalogue of maskers, image sets and protocols: creates objects from their names on the command line."""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ppfr import masking
from ppfr.assets import create_private, data_root
from ppfr.core import ImageMasker, InvalidInputError
from ppfr.data import (
    PairProtocol,
    StoredImageSet,
    read_cfp,
    read_folder,
    read_insightface_bin,
    read_lfw,
    read_pair_list,
    read_rec,
    read_shards,
    shard_paths,
    training_split_for_cfp,
    training_split_for_lfw,
)
from ppfr.synthetic import SyntheticFaces, synthetic_pairs

PROTOCOLS = ("lfw", "cfp-ff", "cfp-fp", "synthetic")
IMAGE_SETS = ("lfw-train", "cfp-train", "synthetic:200x10")
SYNTHETIC_SEED = 20261121


def _takes_secret(kind: Callable[..., ImageMasker]) -> bool:
    return "secret" in inspect.signature(kind).parameters


def _discover() -> dict[str, Callable[..., ImageMasker]]:
    """Every masker that `ppfr.masking` exports and that needs no argument but a secret, by name."""
    found: dict[str, Callable[..., ImageMasker]] = {}
    for exported in vars(masking).values():
        if not (isinstance(exported, type) and issubclass(exported, ImageMasker)) or inspect.isabstract(exported):
            continue
        kind: Callable[..., ImageMasker] = exported
        needed = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
        if all(parameter.name == "secret" for parameter in needed):
            sample = kind(secret=bytes(masking.SECRET_BYTES)) if _takes_secret(kind) else kind()
            found[sample.name] = kind
    return dict(sorted(found.items()))


MASKERS: Mapping[str, Callable[..., ImageMasker]] = MappingProxyType(_discover())
"""Name -> class of each masker that `ppfr.masking` exports. New maskers need no entry here."""


def make_masker(
    name: str,
    *,
    secret: bytes | None,
    config: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> ImageMasker:
    """Create a masker by name.

    Args:
        name: a key of `MASKERS`.
        secret: the 32-byte secret of the deployment, for keyed maskers; other maskers ignore it.
        config: keyword arguments of the constructor, as returned by `public_config()`.
        arrays: arguments that are too large for JSON, as returned by `public_arrays()`.

    Raises:
        InvalidInputError: the name is unknown, or the masker does not accept the arguments.
    """
    kind = masker_class(name)
    keyed = {"secret": secret} if _takes_secret(kind) else {}
    try:
        return kind(**keyed, **_arguments(config), **_arrays_by_argument(arrays))
    except TypeError as error:
        raise InvalidInputError(f"{name} does not accept these arguments: {error}") from error


def masker_class(name: str) -> Callable[..., ImageMasker]:
    """The class of a masker.

    Raises:
        InvalidInputError: the name is unknown.
    """
    if name not in MASKERS:
        raise InvalidInputError(f"unknown protection {name!r}; available: {', '.join(MASKERS)}")
    return MASKERS[name]


def needs_secret(name: str, config: Mapping[str, Any] | None = None) -> bool:
    """Whether the masker of this name, with these arguments, has a secret.

    Raises:
        InvalidInputError: the name is unknown.
    """
    kind = masker_class(name)
    if not _takes_secret(kind):
        return False
    try:
        return kind(secret=bytes(masking.SECRET_BYTES), **_arguments(config)).spec.is_keyed
    except (InvalidInputError, TypeError):
        return False  # either valid only without a secret, or invalid: creating the masker without one decides


def _arguments(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Constructor arguments from JSON, which has no tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in (config or {}).items()}


def _arrays_by_argument(arrays: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """Constructor arguments from arrays: "argument", or a mapping for arrays named "argument.part"."""
    found: dict[str, Any] = {}
    for name, array in (arrays or {}).items():
        argument, _, part = name.partition(".")
        if part:
            found.setdefault(argument, {})[part] = array
        else:
            found[argument] = array
    return found


def read_or_create_secret(path: Path) -> tuple[bytes, bool]:
    """Read the 32-byte secret in `path`. If the file does not exist, draw a secret and write it with mode 0600.

    Returns:
        The secret, and whether it was created.

    Raises:
        InvalidInputError: the file does not hold a secret.
        StorageError: the file cannot be written.
    """
    if path.exists():
        if not path.is_file():
            raise InvalidInputError(
                f"{path} is not a file; give the file of the secret, or a new file name to create one"
            )
        secret = path.read_bytes()
        if len(secret) != masking.SECRET_BYTES:
            raise InvalidInputError(
                f"{path} has {len(secret)} bytes, but a secret has {masking.SECRET_BYTES}; "
                "give another file, or a new file name to create a secret"
            )
        return secret, False
    secret = secrets.token_bytes(masking.SECRET_BYTES)
    create_private(path, secret)
    return secret, True


def read_protocol(name: str, *, data: Path | None = None) -> PairProtocol:
    """A verification protocol by name.

    Args:
        name: lfw, cfp-ff, cfp-fp, synthetic, synthetic:NUM (pairs), or a path: a .bin set, or a list of pairs (.txt,
            .csv, .tsv) in the folder of its images, as `ppfr.data.read_pair_list` reads it.
        data: directory of the real data; by default the one in PPFR_DATA.

    Raises:
        InvalidInputError: the name is unknown.
        MissingAssetError: the data is not available.
    """
    if name == "lfw":
        return read_lfw(data_root(data))
    if name in {"cfp-ff", "cfp-fp"}:
        return read_cfp(data_root(data), "FF" if name == "cfp-ff" else "FP")
    if name == "synthetic" or name.startswith("synthetic:"):
        num_pairs = _whole_number(name.partition(":")[2] or "1000", name)
        return synthetic_protocol(num_pairs=num_pairs)
    if name.lower().endswith(".bin"):
        return read_insightface_bin(Path(name))
    if name.lower().endswith((".txt", ".csv", ".tsv")):
        return read_pair_list(Path(name))
    _refuse_archive(name)
    raise InvalidInputError(
        f"unknown protocol {name!r}; use lfw, cfp-ff, cfp-fp, synthetic, synthetic:NUM, or the path of a .bin set or of"
        " a list of pairs (.txt)"
    )


def _refuse_archive(name: str) -> None:
    if name.lower().endswith((".zip", ".tar.gz", ".tgz", ".7z", ".rar")):
        raise InvalidInputError(f"{name} is an archive; unpack it first and give the folder")


def synthetic_protocol(*, num_pairs: int) -> PairProtocol:
    """Pairs of synthetic subjects. Their numbers start at a million, so that no training set contains them."""
    num_subjects = max(40, num_pairs // 10)
    people = SyntheticFaces(num_subjects, 6, seed=SYNTHETIC_SEED, first_subject=1_000_000).cached()
    return synthetic_pairs(people, num_pairs=num_pairs, num_folds=10, seed=SYNTHETIC_SEED)


def read_images(name: str, *, data: Path | None = None) -> StoredImageSet | SyntheticFaces:
    """Training or public images by name.

    Args:
        name: lfw-train (subjects of CFP and LFW that are in no LFW pair), cfp-train (LFW without the subjects of CFP),
            synthetic:SUBJECTSxIMAGES, or a path: a folder with one folder per subject, a .rec file, a .tar
            shard, a folder of shards, or shards in a brace range (train-{0000..0012}.tar).
        data: directory of the real data; by default the one in PPFR_DATA.

    Raises:
        InvalidInputError: the name is unknown.
        MissingAssetError: the data is not available.
    """
    if name == "lfw-train":
        return training_split_for_lfw(data_root(data))
    if name == "cfp-train":
        return training_split_for_cfp(data_root(data))
    if name.startswith("synthetic:"):
        subjects, _, images = name.removeprefix("synthetic:").partition("x")
        return SyntheticFaces(_whole_number(subjects, name), _whole_number(images, name), seed=SYNTHETIC_SEED)
    path = Path(name)
    shards = [] if path.is_dir() and any(each.is_dir() for each in path.iterdir()) else shard_paths(name)
    if path.is_dir() and not shards:
        return read_folder(path)
    if path.suffix.lower() == ".rec":
        return read_rec(path)
    if path.is_dir() or path.suffix.lower() == ".tar":
        stem = path.resolve().name if path.is_dir() else re.sub(r"[-_.]*\{[^}]*\}", "", path.stem)
        return read_shards(shards, name=stem or path.resolve().parent.name)
    _refuse_archive(name)
    raise InvalidInputError(
        f"unknown images {name!r}; use lfw-train, cfp-train, synthetic:SUBJECTSxIMAGES, or the path of a folder with "
        "one folder per subject, a .rec file or a .tar shard"
    )


def _whole_number(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInputError(f"{name!r} needs positive whole numbers, such as synthetic:1000 or synthetic:500x20")
    return int(text)
