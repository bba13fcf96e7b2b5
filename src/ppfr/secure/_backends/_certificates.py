"""Keys of the parties of one session, for libraries that read them from files."""

from __future__ import annotations

import os
from pathlib import Path

from ppfr.secure._certificates import CertificateAuthority

_DAYS = 7


def write_certificates(directory: Path, names: list[str]) -> None:
    """Create an authority, and a key and a certificate for each name: `authority.crt`, `0.key`, `0.crt`, ...

    The authority's own key is discarded, so no further party can be admitted.
    """
    authority = CertificateAuthority.create("ppfr session", days=_DAYS)
    (directory / "authority.crt").write_bytes(authority.certificate_pem)
    for number, name in enumerate(names):
        certificate, key = authority.issue(name, is_party=True, days=_DAYS)
        descriptor = os.open(directory / f"{number}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        (directory / f"{number}.crt").write_bytes(certificate)
