"""A certificate authority and certificates signed by it, for parties that communicate over TLS."""

from __future__ import annotations

import datetime
from typing import Any

from ppfr.core import MissingExtraError

_DAY = datetime.timedelta(days=1)


def new_authority(name: str, *, days: int) -> tuple[Any, Any]:
    """Create certificate and key of an authority that may sign parties and clients, but no further authority.

    Raises:
        MissingExtraError: `cryptography` is not installed.
    """
    x509, ec, _ = modules()
    key = ec.generate_private_key(ec.SECP256R1())
    full_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(full_name, full_name, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(subject_key, critical=False).sign(key, _sha256()), key


def certified(authority: tuple[Any, Any], name: str, *, is_party: bool, days: int) -> tuple[bytes, bytes]:
    """Create certificate and key in PEM; a party's is valid for server and client, a client's for client only."""
    x509, ec, _ = modules()
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
    return pem_of(certificate), pem_of_key(key)


def pem_of(certificate: Any) -> bytes:
    """Encode a certificate as PEM."""
    _, _, serialization = modules()
    pem: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return pem


def pem_of_key(key: Any) -> bytes:
    """Encode a key as PEM, without a password."""
    _, _, serialization = modules()
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def modules() -> tuple[Any, Any, Any]:
    """Import x509, elliptic curves and serialization from `cryptography`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtraError("mpc", "certificates") from error
    return x509, ec, serialization


def _builder(subject: Any, issuer: Any, public_key: Any, days: int) -> Any:
    x509, _, _ = modules()
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + days * _DAY)
    )


def _sha256() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()
