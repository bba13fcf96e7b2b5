"""TLS credentials of parties and clients: files, names in certificates, fingerprints."""

from __future__ import annotations

import dataclasses
import hashlib
import ssl
from pathlib import Path

from ppfr.assets import check_private
from ppfr.core import InvalidInputError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TlsCredentials:
    """Files that authenticate a process, in PEM: certificate, private key, and the authority that it trusts."""

    certificate: Path
    key: Path
    authority: Path

    def context(self, *, is_server: bool) -> ssl.SSLContext:
        """A context for TLS 1.3 with certificates on both sides.

        Raises:
            InvalidInputError: a file is missing or invalid, or the files do not belong together.
            StorageError: other users can access the private key.
        """
        for path in (self.certificate, self.key, self.authority):
            if not path.is_file():
                raise InvalidInputError(
                    f"{path} does not exist. Create keys and certificates with `ppfr party certify`."
                )
        check_private(self.key, "private key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.authority)
            context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
        except (ssl.SSLError, OSError) as error:
            raise InvalidInputError(
                f"{self.certificate}, {self.key} and {self.authority} are not a certificate, its private key and its "
                f"authority ({getattr(error, 'reason', None) or type(error).__name__}). They must belong together."
            ) from error
        if is_server:
            context.num_tickets = 0  # sessions are not resumed, so a side that only sends never has to read
        return context


def _refuse_password() -> str:
    raise InvalidInputError(
        "The private key is encrypted. Give a key without a password, in a file that only its owner can read."
    )


def party_name(party: int) -> str:
    """The name in the certificate of a party."""
    return f"party-{party}"


def fingerprint_of(certificate_der: bytes) -> str:
    """SHA-256 of a certificate in DER, in hexadecimal."""
    return hashlib.sha256(certificate_der).hexdigest()


def fingerprint_of_file(certificate: Path) -> str:
    """The fingerprint of a certificate in a PEM file; of the first one, if the file contains a chain.

    Raises:
        InvalidInputError: the file does not exist or does not contain a certificate.
    """
    try:
        text = certificate.read_text(encoding="ascii")
        start, end = text.index(ssl.PEM_HEADER), text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        return fingerprint_of(ssl.PEM_cert_to_DER_cert(text[start:end]))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{certificate} is not a readable certificate in PEM.") from error
