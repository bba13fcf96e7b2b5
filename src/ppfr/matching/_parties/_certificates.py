"""An authority of one's own, and certificates of parties and clients: for trials, and for operators who have none."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppfr.assets import write_atomically
from ppfr.core import InvalidInputError, MissingExtraError
from ppfr.matching._parties._links import party_name
from ppfr.matching._secure._channel import NUM_PARTIES

_DAYS = 825
_A_DAY = datetime.timedelta(days=1)


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
        _certify(authority, name, certificate, key, is_party=is_party, days=days)
        told["made"].append(certificate)
    return told


def _authority(directory: Path, days: int) -> tuple[Any, Any]:
    """Certificate and key."""
    x509, ec, serialization = _modules()
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
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ppfr parties")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(name, name, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = builder.add_extension(subject_key, critical=False).sign(key, _sha256())
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
    _write(key_path, _pem(key))
    return certificate, key


def _certify(
    authority: tuple[Any, Any], name: str, certificate_path: Path, key_path: Path, *, is_party: bool, days: int
) -> None:
    """A party's certificate serves both ends of a connection, a client's the dialling end alone."""
    x509, ec, serialization = _modules()
    issuer, issuer_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    uses = [x509.ExtendedKeyUsageOID.CLIENT_AUTH] + [x509.ExtendedKeyUsageOID.SERVER_AUTH] * is_party
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = _builder(subject, issuer.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    certificate = builder.add_extension(issuer_id, critical=False).sign(issuer_key, _sha256())
    _write(key_path, _pem(key))
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))


def _builder(subject: Any, issuer: Any, public_key: Any, days: int) -> Any:
    x509, _, _ = _modules()
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _A_DAY)
        .not_valid_after(now + days * _A_DAY)
    )


def _pem(key: Any) -> bytes:
    _, _, serialization = _modules()
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def _write(path: Path, data: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def _sha256() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _modules() -> tuple[Any, Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtraError("mpc", "certificates") from error
    return x509, ec, serialization
