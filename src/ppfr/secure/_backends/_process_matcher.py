"""Secure matching by other libraries behind the `SecureMatcher` contract; every party is a process.

Suffixes: B probes, N claims, P pairs of a probe and a reference, M references, D embedding.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, ShapeError
from ppfr.secure._answers import Kind
from ppfr.secure._backends import _dealer, _worker
from ppfr.secure._backends._certificates import write_certificates
from ppfr.secure._backends._libraries import Mpyc, Spu
from ppfr.secure._backends._processes import Message, Worker, Workers, free_ports
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._subjects import SubjectIndex, any_per_claim, pairs_of

_BLOCK_BYTES = 1 << 25
Route = Callable[[int, int, int], int]
Request = tuple[Worker, dict[str, Any], dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinkTraffic:
    """Bytes on one party's connections so far, including framing and TLS.

    Attributes:
        bytes_sent: to the other parties.
        bytes_received: from the other parties.
        bytes_of_dealer: to and from the dealer, if there is one.
    """

    bytes_sent: int
    bytes_received: int
    bytes_of_dealer: int = 0

    def __sub__(self, earlier: LinkTraffic) -> LinkTraffic:
        return LinkTraffic(
            bytes_sent=self.bytes_sent - earlier.bytes_sent,
            bytes_received=self.bytes_received - earlier.bytes_received,
            bytes_of_dealer=self.bytes_of_dealer - earlier.bytes_of_dealer,
        )


@final
class ProcessMatcher:
    """Decisions on embeddings that the servers of another library hold in shares; no score is ever reconstructed.

    A `SecureMatcher`. Every server is a process on this machine and receives only its shares, through a pipe; the
    servers communicate over loopback. One more process acts as the client: it creates shares and opens the answers.
    Embeddings and threshold become the integers of `ThreePartyMatcher`, so decisions are equal, also for ties.

    Args:
        references_MD: (M, D) of L2 norm 1.
        library: `Spu` or `Mpyc`.
        subjects: the subject of each reference; by default the row numbers, "0" to "M - 1".
        values: "int16" or "int8", as for `ThreePartyMatcher`.
        timeout_s: maximum time of a party for a query, and of parties waiting for each other.
        route: for recorders and slow links in tests: (from party, to party, port) -> port to connect to instead.

    Raises:
        ShapeError, RangeError, InvalidInputError: invalid references or subjects, or an empty gallery.
        MissingEnvironmentError, MissingExtraError: the library is not installed; the message states how to install it.
        PartyError: a party failed; all processes are ended then.

    Privacy:
        The library's guarantee (docs/methods/secure-backends.md), against servers that follow the protocol. Here all
        processes belong to one user, so nothing is hidden from that user. The threshold is public.
    """

    def __init__(
        self,
        references_MD: ArrayLike,
        library: Spu | Mpyc,
        *,
        subjects: Sequence[str] | None = None,
        values: Literal["int8", "int16"] = "int16",
        timeout_s: float = 120.0,
        route: Route | None = None,
    ) -> None:
        array_MD = np.asarray(references_MD)
        if array_MD.ndim != 2:
            raise ShapeError(f"Expected references of shape (M, D), got {array_MD.shape}.")
        if len(array_MD) == 0:
            raise InvalidInputError("The gallery is empty. Pass at least one reference.")
        self.fixed_point = FixedPoint(dim=array_MD.shape[1], values=values)
        self._subjects = SubjectIndex(subjects, len(array_MD))
        self._library = library
        self._timeout_s = timeout_s
        words_MD = self.fixed_point.quantise(array_MD)
        self._workers = Workers()
        try:
            self._dealer_port = 0
            self._client, self._parties = self._started(route)
            block = max(1, _BLOCK_BYTES // (8 * self.dim))
            for start in range(0, len(words_MD), block):
                self._enrol(self.fixed_point.signed(words_MD[start : start + block]))
        except BaseException:
            self.close()
            raise

    @property
    def dim(self) -> int:
        """D."""
        return self.fixed_point.dim

    @property
    def num_references(self) -> int:
        """M."""
        return len(self._subjects.subjects)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of each reference."""
        return self._subjects.subjects

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Process ids of the parties."""
        return tuple(party.process_id for party in self._parties)

    def link_traffic(self) -> tuple[LinkTraffic, ...]:
        """Bytes on each party's connections so far; subtract two results to get the traffic of a query."""
        request = {"do": "count", "dealer_port": self._dealer_port}
        replies = self._send([(party, request, {}) for party in self._parties])
        return tuple(
            LinkTraffic(
                bytes_sent=header["parties"][0],
                bytes_received=header["parties"][1],
                bytes_of_dealer=sum(header["dealer"]),
            )
            for header, _ in replies
        )

    def verify(self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float) -> NDArray[np.bool_]:
        """See `SecureMatcher.verify`; the parties compute only the claimed pairs."""
        claim_P, reference_P = pairs_of(self._subjects.references_of(probes_ND, subjects))
        words_PD = self.fixed_point.quantise(np.asarray(probes_ND)[claim_P])
        opened = self._run_query("verify", words_PD, threshold, {"references": reference_P})
        return any_per_claim(opened.reshape(-1).astype(bool), claim_P, len(subjects))

    def match_any(self, probes_BD: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
        """See `SecureMatcher.match_any`; one bit per probe is opened."""
        return self._run_query("any", self.fixed_point.quantise(probes_BD), threshold).astype(bool)

    def match_all(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[tuple[str, ...], ...]:
        """See `SecureMatcher.match_all`; one bit per probe and reference is opened."""
        opened = self._run_query("set", self.fixed_point.quantise(probes_BD), threshold)
        return self._subjects.all_of(opened.astype(bool))

    def identify(self, probes_BD: ArrayLike, *, threshold: float) -> tuple[str | None, ...]:
        """See `SecureMatcher.identify`; of equal scores the first reference wins, and its index is opened."""
        opened = self._run_query("best", self.fixed_point.quantise(probes_BD), threshold)
        return self._subjects.best_of(opened.astype(np.int64))

    def close(self) -> None:
        """End the processes."""
        self._workers.close()

    def __enter__(self) -> ProcessMatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self, route: Route | None) -> tuple[Worker, list[Worker]]:
        """Start and connect the processes of the client and the parties."""
        library, num = self._library, self._library.num_parties
        command = [library.interpreter(), "-I", str(Path(_worker.__file__))]
        ports = free_ports(num)
        tls = self._certificates() if library.tls and num > 1 else [None] * (num + 1)
        setup = library.setup(self.fixed_point.ring_bits) | {
            "num_parties": num,
            "timeout_s": self._timeout_s,
            "dealer": self._dealer(tls[-1]) if library.has_dealer else None,
            "tls": None,
        }
        client = self._workers.start("the client", command)
        parties = [self._workers.start(f"party {i}", command) for i in range(num)]
        requests: list[Request] = [(client, setup | {"role": "client"}, {})]
        for i, party in enumerate(parties):
            reached = [port if route is None or i == j else route(i, j, port) for j, port in enumerate(ports)]
            own = {"role": "party", "rank": i, "addresses": [f"127.0.0.1:{port}" for port in reached], "tls": tls[i]}
            requests.append((party, setup | own, {}))
        for header, _ in self._send(requests):
            if "missing" in header:
                raise library.missing(header["missing"])
        return client, parties

    def _dealer(self, tls: dict[str, str] | None) -> dict[str, str]:
        """Start the dealer; return its address and the public key that encrypts seeds."""
        files = [] if tls is None else [tls["certificate"], tls["key"], tls["authority"]]
        dealer = self._workers.start("the dealer", [sys.executable, "-I", str(Path(_dealer.__file__)), *files])
        header, _ = dealer.receive(self._timeout_s)
        self._dealer_port = header["port"]
        return {"address": f"127.0.0.1:{header['port']}", "public_key": header["public_key"]}

    def _certificates(self) -> list[dict[str, str] | None]:
        """Create the keys of the session, the dealer's last; each in its own directory in the layout of MPyC."""
        directory, num = self._workers.directory, self._library.num_parties
        write_certificates(directory, [self._library.tls_name(i) for i in range(num + 1)])
        files: list[dict[str, str] | None] = []
        for i in range(num + 1):
            own = directory / f"tls-{i}" / ".config"
            own.mkdir(parents=True, mode=0o700)
            paths = {"certificate": own / f"party_{i}.crt", "key": own / f"party_{i}.key"}
            (directory / f"{i}.crt").rename(paths["certificate"])
            (directory / f"{i}.key").rename(paths["key"])
            (own / "mpyc_ca.crt").write_bytes((directory / "authority.crt").read_bytes())
            paths |= {"authority": own / "mpyc_ca.crt", "directory": own.parent}
            files.append({name: str(path) for name, path in paths.items()})
        return files

    def _shared(self, integers_ND: NDArray[np.int64]) -> list[tuple[str, NDArray[np.uint8]]]:
        """Create each party's share: metadata and bytes."""
        [(header, arrays)] = self._send([(self._client, {"do": "share"}, {"values": integers_ND})])
        return [(meta, arrays[str(i)]) for i, meta in enumerate(header["metas"])]

    def _enrol(self, integers_ND: NDArray[np.int64]) -> None:
        parts = self._shared(integers_ND)
        self._send(
            [
                (party, {"do": "enrol", "meta": meta}, {"share": share})
                for party, (meta, share) in zip(self._parties, parts, strict=True)
            ]
        )

    def _run_query(
        self, kind: Kind, words_BD: NDArray[Any], threshold: float, more: dict[str, NDArray[np.int64]] | None = None
    ) -> NDArray[Any]:
        """Share the probes, query the parties, and open their answers."""
        integer = self.fixed_point.integer_threshold(threshold)
        query = {"do": "answer", "kind": kind, "threshold": integer}
        parts = self._shared(self.fixed_point.signed(words_BD))
        replies = self._send(
            [
                (party, query | {"meta": meta}, {"share": share, **(more or {})})
                for party, (meta, share) in zip(self._parties, parts, strict=True)
            ]
        )
        answers = {str(i): arrays["share"] for i, (_, arrays) in enumerate(replies)}
        metas = [header["meta"] for header, _ in replies]
        [(_, opened)] = self._send([(self._client, {"do": "open", "metas": metas}, answers)])
        return np.asarray(opened["values"])

    def _send(self, requests: list[Request]) -> list[Message]:
        return self._workers.query(requests, self._timeout_s)

    def __repr__(self) -> str:
        return f"ProcessMatcher({self._library}, {self.fixed_point}, contents=<redacted>)"
