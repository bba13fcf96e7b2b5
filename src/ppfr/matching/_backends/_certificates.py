"""Keys of one session's parties, for libraries that take them as files."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from ppfr.core import MissingExtraError

_LIFE = datetime.timedelta(days=7)


def write_certificates(directory: Path, names: list[str]) -> None:
    """A new authority, and a key and a certificate of it for each name: `authority.crt`, `0.key`, `0.crt`, ...

    The authority's own key is forgotten, so that no further party can be admitted.

    Raises:
        MissingExtraError: `cryptography` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtraError("mpc", "TLS between parties") from error
    now = datetime.datetime.now(datetime.UTC)

    def called(name: str) -> Any:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def certificate(name: str, key: Any, issuer_key: Any, *, is_authority: bool) -> bytes:
        made = (
            x509.CertificateBuilder()
            .subject_name(called(name))
            .issuer_name(called("ppfr session"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        return made.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = certificate("ppfr session", authority_key, authority_key, is_authority=True)
    (directory / "authority.crt").write_bytes(authority)
    for number, name in enumerate(names):
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        descriptor = os.open(directory / f"{number}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
        (directory / f"{number}.crt").write_bytes(certificate(name, key, authority_key, is_authority=False))
