"""Write all files of three parties (certificates, configurations, stores) for a trial or as a start for three hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ppfr.assets import write_atomically
from ppfr.core import InvalidInputError
from ppfr.secure import NUM_PARTIES
from ppfr.service._parties._certificates import make_certificates
from ppfr.service._parties._credentials import party_name
from ppfr.service._parties._settings import PartySettings
from ppfr.service._parties._stores import create_store

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
    """Write certificates, configurations and empty stores of three parties, and the configuration of a client.

    Args:
        directory: where party-0.toml, party-1.toml, party-2.toml, client.toml and the other files are written.
        dim: D of the embeddings.
        values: integer format of the embeddings.
        addresses: "HOST:PORT" of the three parties.
        gallery: name of the gallery.
        client: name of the client, which may enrol and query without limit.
        timeout_s: time limit for another party.

    Returns:
        The configuration files and certificates.

    Raises:
        InvalidInputError: a configuration exists already, or not three addresses.
        ProblemsError: values that are not valid in a configuration.
        StorageError: the directory cannot be written.
    """
    if len(addresses) != NUM_PARTIES:
        raise InvalidInputError(f"Expected three addresses, got {len(addresses)}: {', '.join(addresses)}.")
    configs = [directory / f"{party_name(party)}.toml" for party in range(NUM_PARTIES)]
    for path in (*configs, directory / CLIENT_FILE):
        if path.exists():
            raise InvalidInputError(f"{path} already exists. Delete it, or choose another directory.")
    made = make_certificates(directory, clients=[client])
    listed = ", ".join(f'"{address}"' for address in addresses)
    for party, path in enumerate(configs):
        lines = [
            f"party = {party}",
            f'listen = "{addresses[party]}"',
            f"parties = [{listed}]",
            *_credentials(party_name(party)),
            f'store = "{party_name(party)}.shares"',
            f'audit_log = "{party_name(party)}.audit.jsonl"',
            "",
            "# equal at all three parties",
            f'gallery = "{gallery}"',
            f"dim = {dim}",
            f'values = "{values}"',
            f"timeout_s = {timeout_s:g}",
            "",
            "# subject_budget_bits = 100  # total bits of answers to `verify` about one subject, over all clients",
            "# search_budget_bits = 100000  # total bits of answers to searches, over all clients",
            f'# thresholds = ["{party_name(party)}.door.threshold"]  # hidden ones, from `ppfr party thresholds`',
            "",
            *_client_table(client),
        ]
        _write(path, lines)
        create_store(PartySettings.read(path)).close()
    _write(directory / CLIENT_FILE, [f"parties = [{listed}]", *_credentials(client), f"timeout_s = {2 * timeout_s:g}"])
    return [*configs, directory / CLIENT_FILE, *made["made"]]


def _client_table(name: str) -> list[str]:
    return [
        f'[clients."{name}"]',
        'permissions = ["enrol", "query", "maintain"]',
        "# budget_bits = 100000  # total bits of answers that it may receive",
        "# min_threshold = 0.3  # lower thresholds are refused; hidden ones are the choice of the operators",
    ]


def _credentials(name: str) -> list[str]:
    return [f'certificate = "{name}.crt"', f'key = "{name}.key"', 'authority = "ca.crt"']


def _write(path: Path, lines: list[str]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
