"""What the command line can name: maskers, image sets, protocols. The one place where words become objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ppfr.assets import data_root, write_atomically
from ppfr.core import ImageMasker, InvalidInputError
from ppfr.data import (
    PairProtocol,
    StoredImageSet,
    SyntheticFaces,
    read_cfp,
    read_folder,
    read_insightface_bin,
    read_lfw,
    read_rec,
    read_shards,
    synthetic_pairs,
    training_split_for_cfp,
    training_split_for_lfw,
)
from ppfr.masking import Constant, PpfrFd, Unprotected

PROTOCOLS = ("lfw", "cfp-ff", "cfp-fp", "synthetic")
SYNTHETIC_SEED = 20261121
_SECRET_BYTES = 32


def _unkeyed(kind: Callable[..., ImageMasker]) -> Callable[..., ImageMasker]:
    def make(*, secret: bytes | None, **config: Any) -> ImageMasker:
        del secret
        return kind(**config)

    return make


MASKERS: Mapping[str, Callable[..., ImageMasker]] = MappingProxyType(
    {"unprotected": _unkeyed(Unprotected), "constant": _unkeyed(Constant), "ppfr-fd": PpfrFd}
)


def make_masker(name: str, *, secret: bytes | None, config: Mapping[str, Any] | None = None) -> ImageMasker:
    """A masker by name.

    Args:
        name: a key of `MASKERS`.
        secret: the deployment's 32 bytes, for the keyed maskers; the others ignore it.
        config: keyword arguments of its constructor, as `public_config()` gives them.

    Raises:
        InvalidInputError: unknown name, or arguments that the masker does not take.
    """
    if name not in MASKERS:
        raise InvalidInputError(f"no masker is named {name!r}; there are {', '.join(MASKERS)}")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in (config or {}).items()}
    try:
        return MASKERS[name](secret=secret, **arguments)
    except TypeError as error:
        raise InvalidInputError(f"{name} does not take these arguments: {error}") from error


def needs_secret(name: str, config: Mapping[str, Any] | None = None) -> bool:
    """Whether the masker of that name is configured by a secret."""
    return name == "ppfr-fd" and (config or {}).get("permutation", "fixed") == "fixed"


def read_or_create_secret(path: Path) -> tuple[bytes, bool]:
    """The 32-byte secret in `path`; drawn from the operating system and written (mode 0600) if there is none.

    Returns:
        The secret, and whether it was created now.

    Raises:
        InvalidInputError: the file holds something else.
        StorageError: it cannot be written.
    """
    if path.exists():
        secret = path.read_bytes()
        if len(secret) != _SECRET_BYTES:
            raise InvalidInputError(
                f"{path} holds {len(secret)} bytes, a secret has {_SECRET_BYTES}; "
                "name another file, or a new one to draw a secret"
            )
        return secret, False
    secret = PpfrFd.new_secret()
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
        return read_cfp(data_root(data), name.removeprefix("cfp-").upper())
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
    people = SyntheticFaces(num_subjects, 6, seed=SYNTHETIC_SEED, first_subject=1_000_000)
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
        return read_shards([path])
    raise InvalidInputError(
        f"no images are named {name!r}; there are lfw-train, cfp-train, synthetic:SUBJECTSxIMAGES, and paths of a "
        "folder with a folder per subject, a .rec file or a .tar shard"
    )


def _whole_number(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInputError(f"{name!r} needs whole numbers from 1, as in synthetic:1000 or synthetic:500x20")
    return int(text)
