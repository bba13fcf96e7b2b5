"""Configuration files of parties and clients, in TOML; relative paths start at the directory of the file.

Environment variables override the file: PPFR_PARTY_TIMEOUT_S=60, or PPFR_CLIENT_TIMEOUT_S=60 for a client. Lists and
tables are JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import AfterValidator, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from ppfr.core import InvalidInputError, ProblemsError
from ppfr.secure import NUM_PARTIES, FixedPoint
from ppfr.service._parties._credentials import TlsCredentials
from ppfr.service._parties._handshake import Parameters

Permission = Literal["enrol", "query", "maintain"]
Address = tuple[str, int]
_MEBI = 1 << 20
EXPANSION = 4
"""Bytes of memory that a request of the client library takes at most, per byte sent: seeds are expanded into shares."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientRights:
    """What a client is allowed to do, and how much of a party it may use.

    Attributes:
        permissions: "enrol" (enrol and remove references), "query" (verify and identify), "maintain" (refresh the
            shares), or several.
        budget_bits: query budget: total bits of answers that the client may receive; None for no limit.
        min_threshold: lower thresholds are refused; None for any threshold. A client that chooses the threshold freely
            can compute scores from decisions. It does not apply to hidden thresholds, which the operators choose.
        max_connections: maximum number of its simultaneous connections.
        max_bytes_in_flight: maximum memory of its requests that are being received or executed.
        idle_s: time after which a connection without a request is closed.
        max_requests_per_s: rate of its requests; as many may follow each other without a pause.
    """

    permissions: frozenset[Permission]
    budget_bits: int | None = None
    min_threshold: float | None = None
    max_connections: int = 16
    max_bytes_in_flight: int = 64 * EXPANSION * _MEBI
    idle_s: float = 300.0
    max_requests_per_s: float = 500.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PartySettings:
    """Configuration of a party's server.

    Attributes:
        party: 0..2.
        parameters: of the gallery.
        listen: address of the listening socket.
        addresses: of the three parties, by index; the party's own one is not used.
        store: file of its shares.
        credentials: its TLS certificate, key and authority.
        clients: by the name in their certificates.
        revoked: fingerprints of certificates that are refused although the authority issued them.
        audit_log: file of the requests and refusals; None for no audit log.
        timeout_s: time limit for a message of another party.
        max_request_bytes: maximum size of a client's request.
        max_comparisons: maximum of probes times references per query; limits the memory.
        max_connections: maximum number of simultaneous client connections, and of simultaneous handshakes.
        subject_budget_bits: query budget of each subject: total bits of answers to `verify` about it, over all
            clients; None for no limit.
        search_budget_bits: query budget of searches: total bits of answers to `any`, `set` and `best`, over all
            clients; None for no limit.
        thresholds: files of the party's shares of hidden thresholds.
        device: "compiled" for inner products in compiled loops, otherwise a PyTorch device.
    """

    party: int
    parameters: Parameters
    listen: Address
    addresses: tuple[Address, Address, Address]
    store: Path
    credentials: TlsCredentials
    clients: Mapping[str, ClientRights]
    revoked: frozenset[str] = frozenset()
    audit_log: Path | None = None
    timeout_s: float = 30.0
    max_request_bytes: int = 64 * _MEBI
    max_comparisons: int = 4_000_000
    max_connections: int = 64
    subject_budget_bits: int | None = None
    search_budget_bits: int | None = None
    thresholds: tuple[Path, ...] = ()
    device: str = "compiled"

    @property
    def budget_file(self) -> Path:
        """File of the spent query budgets."""
        return self.store.with_name(self.store.name + ".budgets.sqlite")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a configuration file.

        Raises:
            ProblemsError: invalid, missing or unknown keys; all are listed.
            InvalidInputError: the file does not exist or is not TOML.
        """
        path = Path(path)
        found = _read(_PartyFile, path)
        clients = {name: found.rights(entry) for name, entry in found.clients.items()}
        half = found.max_connections // 2
        problems = [
            f"clients.{name}: {rights.max_connections} simultaneous connections are more than half of max_connections "
            f"({found.max_connections}). Set max_connections of the client or max_connections_per_client to at most "
            f"{half}, or raise max_connections."
            for name, rights in clients.items()
            if rights.max_connections > half
        ]
        if problems:
            raise ProblemsError(f"{path} is not a valid configuration", problems)
        point = FixedPoint(dim=found.dim, values=found.values)
        return cls(
            party=found.party,
            parameters=Parameters(fixed_point=point, gallery_id=gallery_id_of(found.gallery)),
            listen=_split_address(found.listen),
            addresses=found.addresses(),
            store=path.parent / found.store,
            credentials=found.credentials(path.parent),
            clients=clients,
            revoked=found.revoked,
            audit_log=None if found.audit_log is None else path.parent / found.audit_log,
            timeout_s=found.timeout_s,
            max_request_bytes=found.max_request_bytes,
            max_comparisons=found.max_comparisons,
            max_connections=found.max_connections,
            subject_budget_bits=found.subject_budget_bits,
            search_budget_bits=found.search_budget_bits,
            thresholds=tuple(path.parent / name for name in found.thresholds),
            device=found.device,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Configuration of a client.

    Attributes:
        addresses: of the three parties, by index.
        credentials: the client's TLS certificate, key and authority.
        revoked: fingerprints of certificates of parties that are refused although the authority issued them.
        timeout_s: time limit for a request.
    """

    addresses: tuple[Address, Address, Address]
    credentials: TlsCredentials
    revoked: frozenset[str] = frozenset()
    timeout_s: float = 60.0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a configuration file; raises as `PartySettings.read`."""
        path = Path(path)
        found = _read(_ClientFile, path)
        return cls(
            addresses=found.addresses(),
            credentials=found.credentials(path.parent),
            revoked=found.revoked,
            timeout_s=found.timeout_s,
        )


def gallery_id_of(name: str) -> bytes:
    """16 bytes derived from the name of a gallery, which operators can agree on more easily than on a number."""
    return hashlib.sha256(b"ppfr gallery " + name.encode()).digest()[:16]


def _split_address(value: str) -> Address:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError('Value is not "HOST:PORT"')
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_address(value: str) -> str:
    _split_address(value)
    return value


def _fingerprint(value: str) -> str:
    """A fingerprint in lower case without colons; `openssl x509 -fingerprint` writes capitals and colons."""
    digits = value.replace(":", "").lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError("Value is not a SHA-256 fingerprint")
    return digits


_HostPort = Annotated[str, AfterValidator(_check_address), Field(description='an address "HOST:PORT"')]
_Path = Annotated[str, Field(min_length=1, description="the path of a file")]
_Seconds = Annotated[float, Field(gt=0, le=3600)]
_Bits = Annotated[int, Field(ge=0, lt=1 << 62)]  # larger numbers do not fit in the file of the budgets
_IdleSeconds = Annotated[float, Field(gt=0, le=86400)]
_Rate = Annotated[float, Field(gt=0)]
_BytesInFlight = Annotated[int, Field(ge=EXPANSION * _MEBI)]
_Fingerprint = Annotated[str, AfterValidator(_fingerprint)]


class _ClientEntry(pydantic.BaseModel):
    """The table [clients.NAME] of a party's file."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    permissions: Annotated[
        frozenset[Permission], Field(min_length=1, strict=False, description='a list of "enrol", "query", "maintain"')
    ]
    budget_bits: _Bits | None = None
    min_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    max_connections: Annotated[int, Field(ge=1)] | None = None
    max_bytes_in_flight: _BytesInFlight | None = None
    idle_s: _IdleSeconds | None = None
    max_requests_per_s: _Rate | None = None


class _SettingsFile(BaseSettings):
    """Keys that the files of parties and clients share."""

    model_config = SettingsConfigDict(strict=True, extra="forbid")

    parties: Annotated[
        tuple[_HostPort, _HostPort, _HostPort],
        Field(strict=False, description='three addresses "HOST:PORT", of parties 0, 1 and 2'),
    ]
    certificate: _Path
    key: _Path
    authority: _Path
    revoked: Annotated[
        frozenset[_Fingerprint],
        Field(strict=False, description="a list of SHA-256 fingerprints, as `ppfr party fingerprint` prints them"),
    ] = frozenset()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables first, then the file, whose content `_read` passes to the constructor."""
        return env_settings, init_settings

    def addresses(self) -> tuple[Address, Address, Address]:
        first, second, third = map(_split_address, self.parties)
        return first, second, third

    def credentials(self, directory: Path) -> TlsCredentials:
        return TlsCredentials(
            certificate=directory / self.certificate, key=directory / self.key, authority=directory / self.authority
        )


class _PartyFile(_SettingsFile):
    model_config = SettingsConfigDict(env_prefix="PPFR_PARTY_")

    party: Annotated[int, Field(ge=0, lt=NUM_PARTIES, description="0, 1 or 2")]
    listen: _HostPort
    store: _Path
    gallery: Annotated[str, Field(min_length=1, max_length=100, description="a name of 1 to 100 characters")]
    dim: Annotated[int, Field(ge=1, le=4096, description="an integer in 1..4096")]
    values: Literal["int8", "int16"] = "int16"
    timeout_s: _Seconds = 30.0
    max_request_bytes: Annotated[int, Field(ge=_MEBI)] = 64 * _MEBI
    max_comparisons: Annotated[int, Field(ge=1)] = 4_000_000
    max_connections: Annotated[int, Field(ge=8)] = 64
    subject_budget_bits: _Bits | None = None
    search_budget_bits: _Bits | None = None
    thresholds: list[_Path] = []
    max_connections_per_client: Annotated[int, Field(ge=1)] | None = None
    max_bytes_in_flight: _BytesInFlight | None = None
    idle_s: _IdleSeconds = 300.0
    max_requests_per_s: _Rate = 500.0
    audit_log: _Path | None = None
    device: Annotated[str, Field(min_length=1)] = "compiled"
    clients: dict[str, _ClientEntry] = {}

    def rights(self, entry: _ClientEntry) -> ClientRights:
        """The rights of a client: its own keys, and the defaults of the party for the others."""
        defaults = {
            "max_connections": self.max_connections_per_client or self.max_connections // 4,
            "max_bytes_in_flight": self.max_bytes_in_flight or EXPANSION * self.max_request_bytes,
            "idle_s": self.idle_s,
            "max_requests_per_s": self.max_requests_per_s,
        }
        given = {name: value for name, value in entry if value is not None}
        return ClientRights(**(defaults | given))


class _ClientFile(_SettingsFile):
    model_config = SettingsConfigDict(env_prefix="PPFR_CLIENT_")

    timeout_s: _Seconds = 60.0


_File = TypeVar("_File", bound=_SettingsFile)


def _read(schema: type[_File], path: Path) -> _File:
    """Read and check a file and the environment variables that override it; all problems are reported together."""
    if not path.is_file():
        raise InvalidInputError(f"{path} does not exist. `ppfr party trial` writes configuration files.")
    try:
        table = TomlConfigSettingsSource(schema, path)()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} is not a readable TOML file: {error}") from error
    prefix = str(schema.model_config["env_prefix"])
    variables = sorted(name for name in os.environ if name.upper().startswith(prefix))
    unknown = [name for name in variables if name.upper().removeprefix(prefix).lower() not in schema.model_fields]
    problems = [f"{name} is not a known environment variable." for name in unknown]
    try:
        found = schema(**table)
    except SettingsError as error:
        raise InvalidInputError(f"An environment variable {prefix}* is not valid JSON: {error}.") from error
    except pydantic.ValidationError as error:
        problems += [_problem(each, schema) for each in error.errors()]
    if problems:
        source = f"{path}, overridden by {', '.join(variables)}," if variables else str(path)
        raise ProblemsError(f"{source} is not a valid configuration", problems)
    return found


def _problem(error: Any, schema: type[_SettingsFile]) -> str:
    """One problem as sentences: the key, the given value, what is allowed."""
    location = error["loc"]
    key = ".".join(map(str, location))
    is_client = location[0] == "clients" and len(location) > 2
    fields = _ClientEntry.model_fields if is_client else schema.model_fields
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key. Known keys: {', '.join(fields)}."
    field = fields.get(str(location[2] if is_client else location[0]))
    expected = f" Expected {field.description}." if field is not None and field.description else ""
    if error["type"] == "missing":
        return f"{key} is missing.{expected}"
    return f"{key} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}.{expected}"
