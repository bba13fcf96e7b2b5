"""An authority of one's own, and certificates of parties and clients: for trials, and for operators who have none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppfr.assets import write_atomically
from ppfr.core import InvalidInputError
from ppfr.secure._certificates import certified, modules, new_authority, pem_of, pem_of_key
from ppfr.secure._channel import NUM_PARTIES
from ppfr.service._parties._links import party_name

_DAYS = 825


def make_certificates(directory: Path, *, clients: Sequence[str], days: int = _DAYS) -> dict[str, list[Path]]:
    """An authority, if there is none, and under it a key and certificate of each party and client that has none.

    Writes ca.crt, ca.key, party-0.crt, party-0.key and so on, NAME.crt, NAME.key. The authority's key makes
    certificates of any name: keep it apart, and put on each host its own certificate, its key and ca.crt.

    Args:
        directory: where the files are written.
        clients: names; each becomes the name in its certificate.
        days: that certificates are good for.

    Returns:
        "made" and "kept": certificates' files.

    Raises:
        InvalidInputError: a client's name that cannot be one.
        StorageError: the directory cannot be written.
        MissingExtraError: `cryptography` is not installed.
    """
    for name in clients:
        is_plain = name.replace("-", "").replace(".", "").isalnum() and name.isascii() and name == name.lower()
        if not is_plain or name in ("ca", *map(party_name, range(NUM_PARTIES))) or len(name) > 63:
            raise InvalidInputError(f"{name!r} cannot be a client's name; take small letters, digits, hyphens and dots")
    authority = _authority(directory, days)
    told: dict[str, list[Path]] = {"made": [], "kept": []}
    for name, is_party in [*((party_name(i), True) for i in range(NUM_PARTIES)), *((name, False) for name in clients)]:
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        if certificate.is_file() and key.is_file():
            told["kept"].append(certificate)
            continue
        certificate_pem, key_pem = certified(authority, name, is_party=is_party, days=days)
        _write(key, key_pem)
        _write(certificate, certificate_pem)
        told["made"].append(certificate)
    return told


def _authority(directory: Path, days: int) -> tuple[Any, Any]:
    """Certificate and key."""
    x509, _, serialization = modules()
    certificate_path, key_path = directory / "ca.crt", directory / "ca.key"
    if certificate_path.is_file() != key_path.is_file():
        missing = key_path if certificate_path.is_file() else certificate_path
        raise InvalidInputError(f"{missing} is not there, its partner is; restore it, or begin in an empty directory")
    if certificate_path.is_file():
        try:
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
            return x509.load_pem_x509_certificate(certificate_path.read_bytes()), key
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"{certificate_path} and {key_path} are no certificate and key in PEM") from error
    certificate, key = new_authority("ppfr parties", days=days)
    _write(certificate_path, pem_of(certificate))
    _write(key_path, pem_of_key(key))
    return certificate, key


def _write(path: Path, data: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)
