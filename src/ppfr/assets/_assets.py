"""Assets: files known by name and checksum, and finding them in the directories a user names."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppfr.core import ChecksumError, InvalidInputError, MissingAssetError

_CHUNK_BYTES = 1 << 20
_verified: dict[Path, tuple[int, int, str]] = {}
_verified_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that the package can use but does not ship.

    Attributes:
        name: file name, also the path below the directories it is looked for in.
        sha256: checksum of its bytes, 64 lower-case hexadecimal digits.
        size_bytes: its size where known; a download that grows past it is stopped.
        urls: public sources, tried in order; empty if it can only be had by hand (`note` says how).
        licence: the source's own terms, for the user to judge.
        note: what it is, and how to get it where no URL serves it.
    """

    name: str
    sha256: str
    size_bytes: int | None = None
    urls: tuple[str, ...] = ()
    licence: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise InvalidInputError(
                f"asset {self.name!r} needs a sha256 of 64 lower-case hexadecimal digits; `sha256sum FILE` prints it"
            )
        path = Path(self.name)
        if not self.name or path.is_absolute() or ".." in path.parts:
            raise InvalidInputError(f"asset name {self.name!r} must be a relative path without '..'")
        for url in self.urls:
            if not url.startswith(("https://", "http://")):
                raise InvalidInputError(f"asset {self.name!r} has the URL {url!r}; only http and https are fetched")


def sha256_of(path: Path) -> str:
    """Checksum of a file's bytes as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def verify_asset(asset: Asset, path: Path, *, again: bool = False) -> None:
    """Check that `path` holds the asset's bytes.

    The result is remembered for this process under the file's size and time of change, so asking often is free.

    Args:
        asset: what should be there.
        path: the file.
        again: read the file even if it was verified before.

    Raises:
        ChecksumError: other bytes; names both checksums.
    """
    path = Path(path).resolve()
    facts = path.stat()
    stamp = (facts.st_size, facts.st_mtime_ns, asset.sha256)
    with _verified_lock:
        if not again and _verified.get(path) == stamp:
            return
    found = sha256_of(path)
    if found != asset.sha256:
        raise ChecksumError(
            f"{path} has sha256 {found}, but {asset.name} is known as {asset.sha256}; the file is damaged or another"
            " version: remove it and fetch it again"
        )
    with _verified_lock:
        _verified[path] = stamp


def find_asset(
    asset: Asset,
    dirs: Sequence[Path],
    *,
    remedy: str,
    error: type[MissingAssetError] = MissingAssetError,
    verify_again: bool = False,
) -> Path:
    """The first of `dirs` that holds the asset, verified by checksum.

    Args:
        asset: what to look for; at `dir / asset.name`.
        dirs: directories, in order of preference.
        remedy: the command or option that gets it, for the message if it is absent.
        error: class to raise if it is absent, such as `MissingWeightsError`.
        verify_again: read the file even if this process has verified it before.

    Raises:
        MissingAssetError: in none of `dirs`; names file, checksum, places and remedy.
        ChecksumError: a file of that name holds other bytes.
    """
    for directory in dirs:
        path = Path(directory) / asset.name
        if path.is_file():
            verify_asset(asset, path, again=verify_again)
            return path
    by_hand = f" {asset.note}" if asset.note and not asset.urls else ""
    raise error(asset.name, looked_in=[str(place) for place in dirs], remedy=remedy + by_hand, sha256=asset.sha256)
