"""All files of three parties: certificates, configurations, stores; a trial on one machine, or a start for three."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ppfr.assets import write_atomically
from ppfr.core import InvalidInputError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._share_store import ShareStore
from ppfr.service._parties._certificates import make_certificates
from ppfr.service._parties._links import party_name
from ppfr.service._parties._settings import PartySettings

CLIENT_FILE = "client.toml"


def write_trial(
    directory: Path,
    *,
    dim: int,
    values: Literal["int8", "int16"] = "int16",
    addresses: Sequence[str] = ("127.0.0.1:7300", "127.0.0.1:7301", "127.0.0.1:7302"),
    gallery: str = "trial",
    client: str = "client",
    timeout_s: float = 30.0,
) -> list[Path]:
    """Certificates, three parties' configurations and empty stores, and a client's configuration; all that was written.

    Args:
        directory: where; party-0.toml, party-1.toml, party-2.toml and client.toml are the files to go on with.
        dim: D of the embeddings.
        values: how they become integers.
        addresses: "HOST:PORT" of the three parties.
        gallery: a name on which the parties agree.
        client: the one client's name; it may enrol and ask, without limit.
        timeout_s: how long a party waits for another.

    Raises:
        InvalidInputError: there are configurations already; not three addresses.
        ProblemsError: values that no party could be configured with.
        StorageError: the directory cannot be written.
        MissingExtraError: `cryptography` is not installed.
    """
    if len(addresses) != NUM_PARTIES:
        raise InvalidInputError(f"{len(addresses)} addresses were given; give three")
    configs = [directory / f"{party_name(party)}.toml" for party in range(NUM_PARTIES)]
    for path in (*configs, directory / CLIENT_FILE):
        if path.exists():
            raise InvalidInputError(f"{path} exists; remove it, or choose another directory")
    made = make_certificates(directory, clients=[client])
    listed = ", ".join(f'"{address}"' for address in addresses)
    for party, path in enumerate(configs):
        lines = [
            f"party = {party}",
            f'listen = "{addresses[party]}"',
            f"parties = [{listed}]",
            *_identity(party_name(party)),
            f'store = "{party_name(party)}.shares"',
            "",
            "# the same at all three",
            f'gallery = "{gallery}"',
            f"dim = {dim}",
            f'values = "{values}"',
            f"timeout_s = {timeout_s:g}",
            "",
            *_client(client),
        ]
        _write(path, lines)
        create_store(PartySettings.read(path)).close()
    _write(directory / CLIENT_FILE, [f"parties = [{listed}]", *_identity(client), f"timeout_s = {2 * timeout_s:g}"])
    return [*configs, directory / CLIENT_FILE, *made["made"]]


def _client(name: str) -> list[str]:
    return [
        f'[clients."{name}"]',
        'permissions = ["enrol", "query"]',
        "# budget_bits = 100000  # total bits of answers that it may receive",
        "# min_threshold = 0.3  # lower thresholds and hidden ones are refused",
    ]


def create_store(settings: PartySettings) -> ShareStore:
    """The empty store that a configuration asks for.

    Raises:
        InvalidInputError: it exists.
        StorageError: it cannot be written.
    """
    mine = settings.parameters
    return ShareStore.create(
        settings.store, party=settings.party, fixed_point=mine.fixed_point, gallery_id=mine.gallery_id
    )


def _identity(name: str) -> list[str]:
    return [f'certificate = "{name}.crt"', f'key = "{name}.key"', 'authority = "ca.crt"']


def _write(path: Path, lines: list[str]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
