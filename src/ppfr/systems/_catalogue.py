"""What the command line can name: maskers, image sets, protocols. The one place where words become objects."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ppfr import masking
from ppfr.assets import data_root, write_atomically
from ppfr.core import ImageMasker, InvalidInputError
from ppfr.data import (
    PairProtocol,
    StoredImageSet,
    read_cfp,
    read_folder,
    read_insightface_bin,
    read_lfw,
    read_rec,
    read_shards,
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
    """Every masker that `ppfr.masking` exports and that its arguments' defaults describe, under its own name."""
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
"""Name -> class of each masker; one that `ppfr.masking` exports is in here without being listed."""


def make_masker(
    name: str,
    *,
    secret: bytes | None,
    config: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> ImageMasker:
    """A masker by name.

    Args:
        name: a key of `MASKERS`.
        secret: the deployment's 32 bytes, for the keyed maskers; the others ignore it.
        config: keyword arguments of its constructor, as `public_config()` gives them.
        arrays: those that are too large for JSON, as `public_arrays()` gives them.

    Raises:
        InvalidInputError: unknown name, or arguments that the masker does not take.
    """
    kind = masker_class(name)
    keyed = {"secret": secret} if _takes_secret(kind) else {}
    try:
        return kind(**keyed, **_arguments(config), **_arrays_by_argument(arrays))
    except TypeError as error:
        raise InvalidInputError(f"{name} does not take these arguments: {error}") from error


def masker_class(name: str) -> Callable[..., ImageMasker]:
    """The class of a masker.

    Raises:
        InvalidInputError: unknown name.
    """
    if name not in MASKERS:
        raise InvalidInputError(f"no protection is named {name!r}; there are {', '.join(MASKERS)}")
    return MASKERS[name]


def needs_secret(name: str, config: Mapping[str, Any] | None = None) -> bool:
    """Whether the masker of that name, with these arguments, is configured by a secret.

    Raises:
        InvalidInputError: unknown name.
    """
    kind = masker_class(name)
    if not _takes_secret(kind):
        return False
    try:
        return kind(secret=bytes(masking.SECRET_BYTES), **_arguments(config)).spec.is_keyed
    except (InvalidInputError, TypeError):
        return False  # these arguments go with no secret, or not at all; making it without one tells which


def _arguments(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Constructor arguments from JSON, which has no tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in (config or {}).items()}


def _arrays_by_argument(arrays: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """Constructor arguments from arrays: one by its name, or a mapping of those named "argument.part"."""
    found: dict[str, Any] = {}
    for name, array in (arrays or {}).items():
        argument, _, part = name.partition(".")
        if part:
            found.setdefault(argument, {})[part] = array
        else:
            found[argument] = array
    return found


def read_or_create_secret(path: Path) -> tuple[bytes, bool]:
    """The 32-byte secret in `path`; drawn from the operating system and written (mode 0600) if there is none.

    Returns:
        The secret, and whether it was created now.

    Raises:
        InvalidInputError: the file holds something else.
        StorageError: it cannot be written.
    """
    if path.exists():
        if not path.is_file():
            raise InvalidInputError(f"{path} is no file; name the file that holds the secret, or a new one")
        secret = path.read_bytes()
        if len(secret) != masking.SECRET_BYTES:
            raise InvalidInputError(
                f"{path} holds {len(secret)} bytes, a secret has {masking.SECRET_BYTES}; "
                "name another file, or a new one to draw a secret"
            )
        return secret, False
    secret = secrets.token_bytes(masking.SECRET_BYTES)
    with write_atomically(path) as temporary:
        temporary.write_bytes(secret)
        temporary.chmod(0o600)
    return secret, True


def read_protocol(name: str, *, data: Path | None = None) -> PairProtocol:
    """A verification protocol: lfw, cfp-ff, cfp-fp, synthetic, synthetic:NUM (pairs), or the path of a .bin set.

    Raises:
        InvalidInputError: unknown name.
        MissingAssetError: its data is not there.
    """
    if name == "lfw":
        return read_lfw(data_root(data))
    if name in {"cfp-ff", "cfp-fp"}:
        return read_cfp(data_root(data), "FF" if name == "cfp-ff" else "FP")
    if name == "synthetic" or name.startswith("synthetic:"):
        num_pairs = _whole_number(name.partition(":")[2] or "1000", name)
        return synthetic_protocol(num_pairs=num_pairs)
    if name.endswith(".bin"):
        return read_insightface_bin(Path(name))
    raise InvalidInputError(
        f"no protocol is named {name!r}; there are lfw, cfp-ff, cfp-fp, synthetic, synthetic:NUM, "
        "and paths of .bin sets"
    )


def synthetic_protocol(*, num_pairs: int) -> PairProtocol:
    """Pairs of synthetic people (numbered from a million up, so that no training range reaches them)."""
    num_subjects = max(40, num_pairs // 10)
    people = SyntheticFaces(num_subjects, 6, seed=SYNTHETIC_SEED, first_subject=1_000_000).cached()
    return synthetic_pairs(people, num_pairs=num_pairs, num_folds=10, seed=SYNTHETIC_SEED)


def read_images(name: str, *, data: Path | None = None) -> StoredImageSet | SyntheticFaces:
    """Training or public images by name.

    Args:
        name: lfw-train (everybody of CFP and LFW who is in no LFW pair), cfp-train (LFW less CFP's people),
            synthetic:SUBJECTSxIMAGES, or a path: a folder with a folder per subject, a .rec file, a .tar shard.
        data: directory of the real data; by default the one in PPFR_DATA.

    Raises:
        InvalidInputError: unknown name.
        MissingAssetError: the data is not there.
    """
    if name == "lfw-train":
        return training_split_for_lfw(data_root(data))
    if name == "cfp-train":
        return training_split_for_cfp(data_root(data))
    if name.startswith("synthetic:"):
        subjects, _, images = name.removeprefix("synthetic:").partition("x")
        return SyntheticFaces(_whole_number(subjects, name), _whole_number(images, name), seed=SYNTHETIC_SEED)
    path = Path(name)
    if path.is_dir():
        return read_folder(path)
    if path.suffix == ".rec":
        return read_rec(path, path.with_suffix(".idx"))
    if path.suffix == ".tar":
        return read_shards([path], name=path.stem)
    raise InvalidInputError(
        f"no images are named {name!r}; there are lfw-train, cfp-train, synthetic:SUBJECTSxIMAGES, and paths of a "
        "folder with a folder per subject, a .rec file or a .tar shard"
    )


def _whole_number(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInputError(f"{name!r} needs whole numbers from 1, as in synthetic:1000 or synthetic:500x20")
    return int(text)
