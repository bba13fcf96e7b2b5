"""Configuration files: a party's and a client's, in TOML; paths in them are relative to the file."""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ppfr.core import InvalidInputError, ProblemsError
from ppfr.secure._channel import NUM_PARTIES
from ppfr.secure._fixed_point import FixedPoint
from ppfr.service._parties._handshake import Parameters
from ppfr.service._parties._links import TlsCredentials

Permission = Literal["enrol", "query"]
Address = tuple[str, int]
_MEBI = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientRights:
    """What a client may do.

    Attributes:
        permissions: "enrol" (enrol and remove references), "query" (verify and identify), or both.
        budget_bits: of answers that may be opened for it, ever; None for no limit.
        min_threshold: no lower one may be asked with, nor a hidden one; None for any. Who may choose the threshold
            gets scores out of decisions.
    """

    permissions: frozenset[Permission]
    budget_bits: int | None = None
    min_threshold: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PartySettings:
    """One party's server.

    Attributes:
        party: 0..2.
        parameters: of the gallery.
        listen: where it listens.
        addresses: where the three parties are reached, by index; the own one is not used.
        store: its share store.
        credentials: its certificate, key and authority.
        clients: by the name in their certificates.
        timeout_s: how long it waits for a message of another party.
        max_request_bytes: of one request of a client.
        max_comparisons: probes times references of one query: it bounds memory.
        max_connections: at once.
        device: "compiled" for inner products by compiled loops, else a PyTorch device.
    """

    party: int
    parameters: Parameters
    listen: Address
    addresses: tuple[Address, Address, Address]
    store: Path
    credentials: TlsCredentials
    clients: Mapping[str, ClientRights]
    timeout_s: float = 30.0
    max_request_bytes: int = 64 * _MEBI
    max_comparisons: int = 4_000_000
    max_connections: int = 64
    device: str = "compiled"

    @property
    def budget_file(self) -> Path:
        """Where spent budgets are kept."""
        return self.store.with_name(self.store.name + ".budgets.json")

    @classmethod
    def read(cls, path: Path) -> PartySettings:
        """From a file.

        Raises:
            ProblemsError: all that is wrong with it.
            InvalidInputError: not there, or no TOML.
        """
        table = _Table(path, _toml(path))
        party = table.take("party", int, lambda value: value in range(NUM_PARTIES), "0, 1 or 2")
        dim = table.take("dim", int, lambda value: 1 <= value <= 4096, "1..4096")
        values = table.take("values", str, lambda value: value in ("int8", "int16"), "int8 or int16", "int16")
        gallery = table.take("gallery", str, lambda value: 0 < len(value) <= 100, "a name of 1..100 characters")
        settings = {
            "listen": table.address("listen"),
            "addresses": table.addresses("parties"),
            "store": table.path("store"),
            "credentials": table.credentials(),
            "clients": table.clients(),
            "timeout_s": table.take("timeout_s", float, lambda value: 0 < value <= 3600, "seconds, up to 3600", 30.0),
            "max_request_bytes": table.take(
                "max_request_bytes", int, lambda v: v >= _MEBI, "1 MiB or more", 64 * _MEBI
            ),
            "max_comparisons": table.take("max_comparisons", int, lambda v: v >= 1, "1 or more", 4_000_000),
            "max_connections": table.take("max_connections", int, lambda v: v >= 8, "8 or more", 64),
            "device": table.take("device", str, bool, "compiled, cpu, cuda, cuda:N or mps", "compiled"),
        }
        table.finish()
        point = FixedPoint(dim=dim, values=values)
        return cls(
            party=party,
            parameters=Parameters(fixed_point=point, gallery_id=gallery_id_of(gallery)),
            **settings,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Who asks, and whom.

    Attributes:
        addresses: of the three parties, by index.
        credentials: the client's certificate, key and authority.
        timeout_s: how long a request may take altogether.
    """

    addresses: tuple[Address, Address, Address]
    credentials: TlsCredentials
    timeout_s: float = 60.0

    @classmethod
    def read(cls, path: Path) -> ClientSettings:
        """From a file; errors as for `PartySettings.read`."""
        table = _Table(path, _toml(path))
        addresses, credentials = table.addresses("parties"), table.credentials()
        timeout_s = table.take("timeout_s", float, lambda value: 0 < value <= 3600, "seconds, up to 3600", 60.0)
        table.finish()
        return cls(addresses=addresses, credentials=credentials, timeout_s=timeout_s)


def gallery_id_of(name: str) -> bytes:
    """16 bytes of a gallery's name: operators agree on a name rather than on a number."""
    return hashlib.sha256(b"ppfr gallery " + name.encode()).digest()[:16]


class _Table:
    """A TOML table that is read field by field; every problem is kept, and told at the end."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self._path, self._left = path, dict(table)
        self._problems: list[str] = []

    def take(self, name: str, kind: type[Any], fits: Callable[[Any], Any], allowed: str, default: Any = None) -> Any:
        value = self._left.pop(name, default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if value is None:
            self._problems.append(f"{name} is missing; give {allowed}")
        elif not isinstance(value, kind) or isinstance(value, bool) or not fits(value):
            self._problems.append(f"{name} = {value!r} is not {allowed}")
        return value

    def path(self, name: str) -> Path:
        value = self.take(name, str, bool, "a path")
        return self._path.parent / value if isinstance(value, str) else self._path

    def credentials(self) -> TlsCredentials:
        return TlsCredentials(
            certificate=self.path("certificate"), key=self.path("key"), authority=self.path("authority")
        )

    def address(self, name: str) -> Address:
        return self._address(name, self.take(name, str, bool, '"HOST:PORT"'))

    def addresses(self, name: str) -> Any:
        given = self.take(name, list, lambda value: len(value) == NUM_PARTIES, 'three times "HOST:PORT", of 0, 1 and 2')
        return tuple(self._address(name, value) for value in given) if isinstance(given, list) else ()

    def clients(self) -> dict[str, ClientRights]:
        given = self._left.pop("clients", {})
        found: dict[str, ClientRights] = {}
        for name, entry in given.items() if isinstance(given, dict) else ():
            rights = dict(entry) if isinstance(entry, dict) else {}
            may, budget, least = (rights.pop(key, None) for key in ("permissions", "budget_bits", "min_threshold"))
            if not isinstance(may, list) or not may or not set(map(str, may)) <= set(get_args(Permission)):
                self._problems.append(
                    f'clients.{name}: permissions is {may!r}; give a list of "enrol", "query" or both'
                )
            elif budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 0):
                self._problems.append(
                    f"clients.{name}: budget_bits is {budget!r}; give a number of bits, or leave it out"
                )
            elif least is not None and (
                isinstance(least, bool) or not isinstance(least, int | float) or abs(least) > 1
            ):
                self._problems.append(f"clients.{name}: min_threshold is {least!r}; give a cosine, or leave it out")
            elif rights:
                known = "permissions, budget_bits and min_threshold are"
                self._problems.append(f"clients.{name}: {', '.join(rights)} is not known; {known}")
            else:
                found[name] = ClientRights(permissions=frozenset(may), budget_bits=budget, min_threshold=least)
        return found

    def finish(self) -> None:
        """Raise what was found."""
        self._problems += [f"{name} is not known" for name in self._left]
        if self._problems:
            raise ProblemsError(f"{self._path} cannot be used", self._problems)

    def _address(self, name: str, value: Any) -> Address:
        host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if colon and host and port.isdecimal() and 0 < int(port) < 1 << 16:
            return host.removeprefix("[").removesuffix("]"), int(port)
        if value is not None:
            self._problems.append(f'{name}: {value!r} is not "HOST:PORT"')
        return "", 0


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidInputError(f"{path} is not there; `ppfr party trial` writes one to begin with") from error
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read as TOML: {error}") from error
