"""A certificate authority, and certificates of parties and clients, for operators without their own authority."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppfr.assets import create_private, write_atomically
from ppfr.core import InvalidInputError
from ppfr.secure import NUM_PARTIES, CertificateAuthority
from ppfr.service._parties._credentials import party_name

_VALID_DAYS = 825
_MAX_NAME_CHARS = 63


def make_certificates(directory: Path, *, clients: Sequence[str], days: int = _VALID_DAYS) -> dict[str, list[Path]]:
    """Create a certificate authority, and keys and certificates of the parties and clients; existing files are kept.

    Writes ca.crt and ca.key, party-0.crt and party-0.key (and so on), and NAME.crt and NAME.key per client. Only the
    owner of the files can read the keys; a key without a certificate is never replaced. The key of
    the authority can certify any name: store it separately. A host needs its own certificate and key, and ca.crt.

    Args:
        directory: where the files are written.
        clients: names of the clients, as in their certificates.
        days: validity of new certificates.

    Returns:
        "made" and "kept": certificate files.

    Raises:
        InvalidInputError: an invalid client name, a damaged or incomplete authority, or a key without a certificate.
        StorageError: the directory cannot be written.
    """
    for name in clients:
        is_plain = name.replace("-", "").replace(".", "").isalnum() and name.isascii() and name == name.lower()
        is_reserved = name in ("ca", *map(party_name, range(NUM_PARTIES)))
        if not is_plain or is_reserved or len(name) > _MAX_NAME_CHARS:
            raise InvalidInputError(
                f"{name!r} is not allowed as the name of a client. Use at most {_MAX_NAME_CHARS} lower-case letters, "
                "digits, hyphens and dots, and not the name of a party or of the authority."
            )
    authority = _authority(directory, days)
    result: dict[str, list[Path]] = {"made": [], "kept": []}
    for name, is_party in [*((party_name(i), True) for i in range(NUM_PARTIES)), *((name, False) for name in clients)]:
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        if certificate.is_file() and key.is_file():
            result["kept"].append(certificate)
            continue
        certificate_pem, key_pem = authority.issue(name, is_party=is_party, days=days)
        create_private(key, key_pem)
        _write(certificate, certificate_pem)
        result["made"].append(certificate)
    return result


def _authority(directory: Path, days: int) -> CertificateAuthority:
    """The authority of the directory; created if there is none."""
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if certificate.is_file() != key.is_file():
        missing = key if certificate.is_file() else certificate
        raise InvalidInputError(
            f"{missing} is missing, but the other file of the authority exists. Restore it, or use an empty directory."
        )
    if certificate.is_file():
        try:
            return CertificateAuthority.from_pem(certificate.read_bytes(), key.read_bytes())
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{certificate} and {key} are not a certificate and a private key in PEM. Restore them, or use an "
                "empty directory."
            ) from error
    authority = CertificateAuthority.create("ppfr parties", days=days)
    _write(certificate, authority.certificate_pem)
    create_private(key, authority.key_pem)
    return authority


def _write(path: Path, data: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)
