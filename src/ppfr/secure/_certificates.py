"""A certificate authority and certificates signed by it, for parties that communicate over TLS."""

from __future__ import annotations

import datetime
from typing import Any, Self, final

from ppfr.core import InvalidInputError

_DAY = datetime.timedelta(days=1)


@final
class CertificateAuthority:
    """Certificate and private key of an authority that may sign parties and clients, but no further authority.

    Create one with `create`, or read one with `from_pem`.
    """

    def __init__(self, certificate: Any, key: Any) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def create(cls, name: str, *, days: int) -> Self:
        """Create an authority that is valid for `days`."""
        x509, ec, _ = _modules()
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
        return cls(builder.add_extension(subject_key, critical=False).sign(key, _sha256()), key)

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes) -> Self:
        """Read an authority; the key has no password.

        Raises:
            InvalidInputError: the bytes are not a certificate and a private key in PEM.
        """
        x509, _, serialization = _modules()
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
            return cls(x509.load_pem_x509_certificate(certificate_pem), key)
        except (ValueError, TypeError) as error:
            raise InvalidInputError("Expected a certificate and a private key without password in PEM.") from error

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return _certificate_pem(self._certificate)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM, without a password."""
        return _key_pem(self._key)

    def issue(self, name: str, *, is_party: bool, days: int) -> tuple[bytes, bytes]:
        """Create certificate and key in PEM; a party's is valid for server and client, a client's for client only."""
        x509, ec, _ = _modules()
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        uses = [x509.ExtendedKeyUsageOID.CLIENT_AUTH] + [x509.ExtendedKeyUsageOID.SERVER_AUTH] * is_party
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = _builder(subject, self._certificate.subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        certificate = builder.add_extension(issuer_id, critical=False).sign(self._key, _sha256())
        return _certificate_pem(certificate), _key_pem(key)


def _certificate_pem(certificate: Any) -> bytes:
    _, _, serialization = _modules()
    pem: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return pem


def _key_pem(key: Any) -> bytes:
    _, _, serialization = _modules()
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def _modules() -> tuple[Any, Any, Any]:
    """Import x509, elliptic curves and serialization from `cryptography`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return x509, ec, serialization


def _builder(subject: Any, issuer: Any, public_key: Any, days: int) -> Any:
    x509, _, _ = _modules()
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
