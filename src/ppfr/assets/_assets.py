"""Assets: files known by name and checksum, and their lookup in user-defined directories."""

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
    """A file that the package can use but does not contain.

    Attributes:
        name: file name; relative path below the searched directories.
        sha256: checksum of its bytes, 64 lower-case hexadecimal digits.
        size_bytes: its size if known; a longer download is stopped.
        urls: public sources, tried in order; empty if the file must be obtained manually (`note` describes how).
        licence: terms of the source.
        note: description, and how to get the file if no URL serves it.
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
                f"Asset {self.name!r} needs a sha256 of 64 lower-case hexadecimal digits. `sha256sum FILE` prints it."
            )
        path = Path(self.name)
        if not self.name or path.is_absolute() or ".." in path.parts:
            raise InvalidInputError(f"Asset name {self.name!r} must be a relative path without '..'.")
        for url in self.urls:
            if not url.startswith(("https://", "http://")):
                raise InvalidInputError(f"Asset {self.name!r} has the URL {url!r}; only http and https are supported.")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def verify_asset(asset: Asset, path: Path, *, again: bool = False) -> None:
    """Check that the file at `path` is the asset.

    The result is cached per process under the file's size and modification time, so repeated calls are cheap.

    Args:
        asset: the expected file.
        path: the file to check.
        again: read the file even if it was verified before.

    Raises:
        ChecksumError: the checksum differs; the message contains both.
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
            f"{path} has sha256 {found}, expected {asset.sha256} for {asset.name}. The file is damaged or of another"
            " version. Remove it and download it again."
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
    """Find the asset in the first of `dirs` that contains it, and verify its checksum.

    Args:
        asset: the file to find, as `dir / asset.name`.
        dirs: directories, in order of preference.
        remedy: command or option that provides the file, for the error message.
        error: class to raise if the file is absent, such as `MissingWeightsError`.
        verify_again: read the file even if this process has verified it before.

    Raises:
        MissingAssetError: the file is in none of `dirs`; the message contains name, checksum, directories and remedy.
        ChecksumError: a file of that name has another checksum.
    """
    for directory in dirs:
        path = Path(directory) / asset.name
        if path.is_file():
            verify_asset(asset, path, again=verify_again)
            return path
    by_hand = f" {asset.note}" if asset.note and not asset.urls else ""
    raise error(asset.name, looked_in=[str(place) for place in dirs], remedy=remedy + by_hand, sha256=asset.sha256)
