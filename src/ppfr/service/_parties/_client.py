"""The client's side: embeddings into shares, one part to each party, and answers put together here and nowhere else.

Suffixes: B probes, N pairs or new references, M references, D embedding.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, PartyError, ShapeError
from ppfr.secure._answers import Answer, Kind, open_answers
from ppfr.secure._changes import State
from ppfr.secure._channel import NUM_PARTIES, Buffer
from ppfr.secure._fixed_point import FixedPoint
from ppfr.secure._sharing import seeded_rows, share_threshold
from ppfr.service._parties._directory import Directory
from ppfr.service._parties._exchange import Exchange
from ppfr.service._parties._member import StaleGalleryError
from ppfr.service._parties._messages import Message, array_of, buffer_of, rows_to_buffers
from ppfr.service._parties._settings import ClientSettings

_BATCH_BYTES = 8 << 20
_HEAD_BYTES = 1 << 16
_MOST_LOOKS = 5
_POLL_S = 0.2
_T = TypeVar("_T")


@final
class SecureGalleryClient:
    """A gallery at three parties, none of which can read it: enrol, remove, verify, identify.

    Use it as a context manager, or `close` it; from one thread at a time. It connects when it first needs to, and
    again after an error.

    Args:
        settings: who asks, and whom.

    Raises:
        InvalidInputError: certificate, key and authority do not go together.

    Privacy:
        No party sees embeddings, scores or decisions. Every party sees when this client asks what kind of question on
        how many probes, the claimed references of `verify`, a threshold unless `hides_threshold`, and subjects as they
        are enrolled: use pseudonyms. This client learns the decisions it asks for, and all subjects.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._exchange = Exchange(settings)
        self._directory: Directory | None = None

    @classmethod
    def open(cls, config: Path | str) -> SecureGalleryClient:
        """From a configuration file.

        Raises:
            InvalidInputError, ProblemsError: as for `ClientSettings.read`.
        """
        return cls(ClientSettings.read(Path(config)))

    @property
    def fixed_point(self) -> FixedPoint:
        """How the parties have embeddings as integers; errors as for `verify`."""
        return self._exchange.terms().parameters.fixed_point

    @property
    def dim(self) -> int:
        """D; errors as for `verify`."""
        return self.fixed_point.dim

    @property
    def subjects(self) -> tuple[str, ...]:
        """Of the M references, in the parties' order; one that has several references comes several times."""
        return self._looked().subjects

    @property
    def traffic(self) -> dict[str, Any]:
        """Bytes of the last request and its replies, without TLS's own, and what each party sent to another for it."""
        return self._exchange.traffic

    def enrol(self, embeddings_ND: ArrayLike, subjects: Sequence[str]) -> tuple[bytes, ...]:
        """Share references among the parties; when this returns they are on disk at all three.

        Large enrolments go in parts of some MB, each whole or not at all.

        Args:
            embeddings_ND: (N, D) of L2 norm 1.
            subjects: whose they are: N pseudonyms of 1 to 100 bytes.

        Returns:
            The references' ids, 16 bytes each.

        Raises:
            ShapeError, RangeError, InvalidInputError: what cannot be enrolled; nothing was.
            PartyError: a party is gone or late; names it, and says what is known of the enrolment.
        """
        array_ND = np.asarray(embeddings_ND)
        point = self.fixed_point
        if array_ND.ndim != 2 or len(array_ND) != len(subjects):
            raise ShapeError(f"embeddings have shape {array_ND.shape} with {len(subjects)} subjects; give (N, D) and N")
        point.quantise(array_ND)  # all of it is looked at before any of it is sent
        limit_bytes = min(self._exchange.terms().max_request_bytes, _BATCH_BYTES)
        at_once = max(1, limit_bytes // (point.dim * point.dtype.itemsize + 256))
        ids: list[bytes] = []
        for start in range(0, len(array_ND), at_once):
            part = slice(start, start + at_once)
            shares = seeded_rows(array_ND[part], point)
            texts = json.dumps(list(subjects[part])).encode()
            num = len(shares[0].ids_N16)
            try:
                self._changed("enrol", [[*rows_to_buffers(share), texts] for share in shares], {"num": num})
            except PartyError as error:
                if start:
                    raise PartyError(f"the first {start} were enrolled; then: {error}", party=error.party) from error
                raise
            ids += [row.tobytes() for row in shares[0].ids_N16]
        return tuple(ids)

    def remove(self, subjects: Sequence[str]) -> int:
        """Erase all references of these subjects at all three parties; how many there were.

        Raises:
            InvalidInputError: one of them is not enrolled; nothing was removed.
            PartyError: as for `enrol`.
        """
        if not subjects:
            raise InvalidInputError("no subject was given; name at least one")
        directory = self._looked()
        chosen = sorted({int(index) for subject in subjects for index in directory.references_of(subject)})
        ids = directory.ids_M16[chosen].tobytes()
        self._changed("remove", [[ids]] * NUM_PARTIES, {})
        return len(chosen)

    def outcome(self, change_id: str) -> Literal["made", "not made", "open"]:
        """What became of an enrolment or removal whose id an error named.

        Raises:
            PartyError: a party cannot be asked.
        """
        asked = Message(fields={"do": "outcome", "id": change_id})
        states: list[State] = [reply.fields["state"] for reply in self._exchange.all_of([asked] * NUM_PARTIES)]
        if "committed" in states:
            return "made"
        return "not made" if "aborted" in states or set(states) == {"unknown"} else "open"

    def verify(
        self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float, hides_threshold: bool = False
    ) -> NDArray[np.bool_]:
        """Whether each probe is accepted as the subject it claims to be: against any of the subject's references.

        Args:
            probes_ND: (N, D) of L2 norm 1.
            subjects: claimed, N.
            threshold: in [-1, 1].
            hides_threshold: share it, so that no party knows it.

        Returns:
            (N,).

        Raises:
            ShapeError, RangeError, InvalidInputError: what cannot be asked, a subject that is not enrolled, a spent
                budget, a right that the client lacks.
            PartyError: a party is gone, late, or in no session with the others; names it.
        """
        array_ND = np.asarray(probes_ND)
        if array_ND.ndim != 2 or len(array_ND) != len(subjects):
            raise ShapeError(f"probes have shape {array_ND.shape} with {len(subjects)} subjects; give (N, D) and N")
        self.fixed_point.quantise(array_ND, "probes")

        def asked(directory: Directory) -> NDArray[np.bool_]:
            found = [directory.references_of(subject) for subject in subjects]
            pair_N = np.repeat(np.arange(len(found)), [len(references) for references in found])
            accepted = self._questions(
                "verify",
                array_ND[pair_N],
                directory,
                threshold=threshold,
                hides=hides_threshold,
                references_N=np.concatenate(found),
            )
            return np.bincount(pair_N[np.concatenate(accepted)], minlength=len(found)) > 0

        return self._looking(asked)

    def match_any(self, probes_BD: ArrayLike, *, threshold: float, hides_threshold: bool = False) -> NDArray[np.bool_]:
        """(B,): whether anybody enrolled is accepted; one bit a probe is opened. Errors as for `verify`."""
        return self._looking(
            lambda known: np.concatenate(
                self._questions("any", probes_BD, known, threshold=threshold, hides=hides_threshold)
            )
        )

    def match_all(
        self, probes_BD: ArrayLike, *, threshold: float, hides_threshold: bool = False
    ) -> tuple[tuple[str, ...], ...]:
        """Of each probe all subjects that are accepted, each once, by name. Errors as for `verify`."""

        def asked(directory: Directory) -> tuple[tuple[str, ...], ...]:
            rows = np.concatenate(
                self._questions("set", probes_BD, directory, threshold=threshold, hides=hides_threshold)
            )
            return tuple(tuple(sorted({directory.subjects[index] for index in np.flatnonzero(row)})) for row in rows)

        return self._looking(asked)

    def identify(
        self, probes_BD: ArrayLike, *, threshold: float, hides_threshold: bool = False
    ) -> tuple[str | None, ...]:
        """Of each probe the accepted subject whose reference scores highest, or None. Errors as for `verify`."""

        def asked(directory: Directory) -> tuple[str | None, ...]:
            best = np.concatenate(
                self._questions("best", probes_BD, directory, threshold=threshold, hides=hides_threshold)
            )
            return tuple(None if index < 0 else directory.subjects[index] for index in best.tolist())

        return self._looking(asked)

    def status(self) -> list[dict[str, Any]]:
        """Of each party: what keeps it from computing (nothing, if empty), references, rights, and bits that are left.

        A party that cannot be asked is told so in its place; no error is raised for it.
        """
        return self._exchange.status()

    def close(self) -> None:
        """End the connections."""
        self._exchange.close()

    def __enter__(self) -> SecureGalleryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _looked(self) -> Directory:
        if self._directory is None:
            self._directory = Directory.ask(self._exchange)
        return self._directory

    def _looking(self, asked: Callable[[Directory], _T]) -> _T:
        """Ask by what the gallery holds; where it changed in between, look again."""
        for _ in range(_MOST_LOOKS):
            try:
                return asked(self._looked())
            except StaleGalleryError:
                self._directory = None
        raise PartyError(f"the gallery changed {_MOST_LOOKS} times while it was asked; ask again")

    def _questions(
        self,
        kind: Kind,
        probes_BD: ArrayLike,
        directory: Directory,
        *,
        threshold: float,
        hides: bool,
        references_N: NDArray[np.int64] | None = None,
    ) -> list[NDArray[Any]]:
        """As many questions as the parties' limits ask for."""
        array_BD = np.asarray(probes_BD)
        terms = self._exchange.terms()
        if array_BD.ndim != 2:
            raise ShapeError(f"probes have shape {array_BD.shape}; give (B, {self.dim})")
        num_each = 1 if kind == "verify" else max(1, len(directory.subjects))
        row_bytes = terms.parameters.fixed_point.dim * terms.parameters.fixed_point.dtype.itemsize + 64
        at_once = max(1, min(terms.max_comparisons // num_each, (terms.max_request_bytes - _HEAD_BYTES) // row_bytes))
        return [
            self._question(
                kind,
                array_BD[start : start + at_once],
                directory,
                threshold=threshold,
                hides=hides,
                references_N=None if references_N is None else references_N[start : start + at_once],
            )
            for start in range(0, max(1, len(array_BD)), at_once)
        ]

    def _question(
        self,
        kind: Kind,
        probes_BD: NDArray[Any],
        directory: Directory,
        *,
        threshold: float,
        hides: bool,
        references_N: NDArray[np.int64] | None,
    ) -> NDArray[Any]:
        point = self.fixed_point
        shares = seeded_rows(probes_BD, point)
        fields: dict[str, Any] = {
            "do": "ask",
            "id": secrets.token_hex(16),
            "kind": kind,
            "num": len(probes_BD),
            "gallery": directory.digest,
        }
        references = b"" if references_N is None else buffer_of(references_N.astype(np.int64))
        hidden: list[list[Buffer]] = [[] for _ in range(NUM_PARTIES)]
        if hides:
            parts = share_threshold(threshold, point)
            fields["threshold"] = parts[0].sharing.hex()
            hidden = [[buffer_of(part.words_2)] for part in parts]
        else:
            fields["threshold"] = point.integer_threshold(threshold)
        replies = self._exchange.all_of(
            [
                Message(fields=fields, buffers=[*rows_to_buffers(share), references, *more])
                for share, more in zip(shares, hidden, strict=True)
            ]
        )
        return open_answers([self._answer(party, kind, reply) for party, reply in enumerate(replies)])

    def _answer(self, party: int, kind: Kind, reply: Message) -> Answer:
        """A party's part of an answer."""
        shape = tuple(int(size) for size in reply.fields["shape"])
        return Answer(
            party=party,
            number=reply.integer("number"),
            kind=kind,
            num_values=reply.integer("num_values"),
            words=array_of(reply.buffer(0), shape, np.dtype(np.uint64)),
        )

    def _changed(self, do: str, buffers: Sequence[list[Buffer]], fields: dict[str, Any]) -> None:
        """Have all parties make a change; returns once it is certain that all have or will have it."""
        change_id = secrets.token_hex(16)
        head = fields | {"do": do, "id": change_id}
        deadline = time.monotonic() + self._settings.timeout_s
        self._directory = None
        replies, error = self._exchange.replies([Message(fields=head, buffers=part) for part in buffers])
        # Committed at one party means prepared at all three: the others have it, or will once they are back.
        if any(reply is not None and reply.fields.get("state") == "committed" for reply in replies):
            return
        if error is None:
            raise PartyError("a party's reply to a change is none; see which program is there")
        if not isinstance(error, PartyError):
            raise error
        known = self._learnt(change_id, deadline)
        if known == "made":
            return
        told = {
            "not made": "nothing was changed",
            "open": f"whether the change was made is not known yet; ask outcome({change_id!r}) once all are up",
        }[known]
        raise PartyError(f"{error}; {told}", party=error.party) from error

    def _learnt(self, change_id: str, deadline: float) -> Literal["made", "not made", "open"]:
        """Ask what became of a change until it is known, or time is up."""
        while True:
            with contextlib.suppress(PartyError):
                known = self.outcome(change_id)
                if known != "open":
                    return known
            if time.monotonic() > deadline:
                return "open"
            time.sleep(_POLL_S)
