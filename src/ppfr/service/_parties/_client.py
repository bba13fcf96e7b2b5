"""Client of the three parties: splits embeddings into shares and opens the answers.

Suffixes: B probes, N claims or new references, R references of a claim, M references, D embedding.
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
from ppfr.secure import (
    NUM_PARTIES,
    Answer,
    Buffer,
    FixedPoint,
    Kind,
    State,
    normalised_subjects,
    open_answers,
    padded_references,
    seeded_inputs,
)
from ppfr.service._parties._exchange import Exchange
from ppfr.service._parties._messages import Message, array_of, buffer_of, inputs_to_buffers
from ppfr.service._parties._node import StaleGalleryError
from ppfr.service._parties._settings import ClientSettings
from ppfr.service._parties._snapshot import GallerySnapshot

_BATCH_BYTES = 8 << 20
_HEAD_BYTES = 1 << 16
_MAX_ATTEMPTS = 5
_POLL_S = 0.2
_T = TypeVar("_T")


@final
class SecureGalleryClient:
    """A gallery that three parties hold and none of them can read: enrol, remove, verify, identify.

    Use it as a context manager, or call `close`. It is not thread-safe. It connects on first use, and again after an
    error or a long pause.

    Args:
        settings: addresses of the parties, and the client's TLS credentials.

    Raises:
        InvalidInputError: certificate, key and authority do not belong together.

    Privacy:
        No party sees embeddings, scores or decisions. Every party sees: the time, the client, the kind and the number
        of probes of each query; the claimed references of `verify`; the threshold, or the name of a hidden one;
        the subjects that are enrolled, so use pseudonyms. The client learns its decisions, and all subjects.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._exchange = Exchange(settings)
        self._snapshot: GallerySnapshot | None = None

    @classmethod
    def open(cls, config: Path | str) -> SecureGalleryClient:
        """Create a client from a configuration file.

        Raises:
            InvalidInputError, ProblemsError: as for `ClientSettings.read`.
        """
        return cls(ClientSettings.read(Path(config)))

    @property
    def fixed_point(self) -> FixedPoint:
        """Format of embeddings as integers; raises as `verify`."""
        return self._exchange.terms().parameters.fixed_point

    @property
    def dim(self) -> int:
        """D; raises as `verify`."""
        return self.fixed_point.dim

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of the M references, in the order of the parties; repeated for a subject with several references."""
        return self._current().index.subjects

    @property
    def traffic(self) -> dict[str, Any]:
        """Bytes of the last request and its replies, and bytes that each party sent for it; without TLS overhead."""
        return self._exchange.traffic

    def enrol(self, embeddings_ND: ArrayLike, subjects: Sequence[str]) -> tuple[bytes, ...]:
        """Share references among the parties; on return they are on disk at all three.

        Large enrolments are split into requests of some MB. Each request is executed completely or not at all.

        Args:
            embeddings_ND: (N, D) of L2 norm 1.
            subjects: N pseudonyms; see `normalised_subject`.

        Returns:
            The ids of the references, 16 bytes each.

        Raises:
            ShapeError, RangeError, InvalidInputError: invalid input; nothing was enrolled.
            PartyError: a party cannot be reached or timed out. The message names it, and says whether the references
                were enrolled, as far as this is known.
        """
        array_ND = np.asarray(embeddings_ND)
        point = self.fixed_point
        names = normalised_subjects(subjects)
        if array_ND.ndim != 2 or len(array_ND) != len(subjects):
            raise ShapeError(
                f"Expected embeddings of shape (N, D) and N subjects, got {array_ND.shape} and {len(subjects)}."
            )
        point.quantise(array_ND)  # checks everything before the first request is sent
        limit_bytes = min(self._exchange.terms().max_request_bytes, _BATCH_BYTES)
        num_per_request = max(1, limit_bytes // (_bytes_per_input(point) + 256))
        ids: list[bytes] = []
        for start in range(0, len(array_ND), num_per_request):
            part = slice(start, start + num_per_request)
            shares = seeded_inputs(array_ND[part], point)
            listed = json.dumps(names[part]).encode()
            num = len(shares[0].ids_N16)
            try:
                self._change("enrol", [[*inputs_to_buffers(share), listed] for share in shares], {"num": num})
            except PartyError as error:
                if start:
                    raise PartyError(
                        f"The first {start} references were enrolled, the others were not. {error}", party=error.party
                    ) from error
                raise
            ids += [row.tobytes() for row in shares[0].ids_N16]
        return tuple(ids)

    def remove(self, subjects: Sequence[str]) -> int:
        """Erase all references of these subjects at all three parties, and return their number.

        Raises:
            InvalidInputError: no subject, or a subject that is not enrolled; nothing was removed.
            PartyError: as for `enrol`.
        """
        if not subjects:
            raise InvalidInputError("No subject was given. Name at least one.")
        snapshot = self._current()
        chosen = sorted(
            {index for of_subject in snapshot.index.indices_of(normalised_subjects(subjects)) for index in of_subject}
        )
        ids = snapshot.ids_M16[chosen].tobytes()
        self._change("remove", [[ids]] * NUM_PARTIES, {})
        return len(chosen)

    def refresh(self) -> None:
        """Have the parties draw new randomness for all shares: the same references, a new epoch.

        Afterwards a share file of an earlier epoch, such as a stolen backup, is of no use together with another party's
        present file. Needs the permission "maintain".

        Raises:
            InvalidInputError: a missing permission.
            PartyError: as for `enrol`.
        """
        self._change("refresh", [[]] * NUM_PARTIES, {})

    def outcome(self, change_id: str) -> Literal["made", "not made", "open"]:
        """Whether an enrolment or removal was made; `change_id` is named in the error that left it open.

        Raises:
            PartyError: a party cannot be reached.
        """
        message = Message(fields={"type": "outcome", "id": change_id})
        states: list[State] = [reply.fields["state"] for reply in self._exchange.all_of([message] * NUM_PARTIES)]
        if "committed" in states:
            return "made"
        return "not made" if "aborted" in states or set(states) == {"unknown"} else "open"

    def verify(self, probes_ND: ArrayLike, subjects: Sequence[str], *, threshold: float | str) -> NDArray[np.bool_]:
        """Decide for each probe whether it is accepted against any reference of the subject that it claims to be.

        Args:
            probes_ND: (N, D) of L2 norm 1.
            subjects: N claimed subjects.
            threshold: in [-1, 1]; or the name of a hidden threshold, which the operators chose and no party knows.

        Returns:
            (N,).

        Raises:
            ShapeError, RangeError, InvalidInputError: invalid input, a subject that is not enrolled, a spent query
                budget, or a missing permission.
            PartyError: a party cannot be reached, timed out, or has no session with the others; names it.
        """
        array_ND = np.asarray(probes_ND)
        if array_ND.ndim == 2:
            self.fixed_point.quantise(array_ND, "probes")
        claimed = normalised_subjects(subjects)

        def run(snapshot: GallerySnapshot) -> NDArray[np.bool_]:
            references_NR = padded_references(snapshot.index.references_of(array_ND, claimed))
            return self._query("verify", array_ND, snapshot, threshold=threshold, references_NR=references_NR)

        return self._with_current(run)

    def match_any(self, probes_BD: ArrayLike, *, threshold: float | str) -> NDArray[np.bool_]:
        """Decide for each probe whether any reference is accepted; opens one bit per probe.

        Args:
            probes_BD: (B, D) of L2 norm 1.
            threshold: as in `verify`.

        Returns:
            (B,). Raises as `verify`.
        """
        return self._with_current(lambda snapshot: self._query("any", probes_BD, snapshot, threshold=threshold))

    def match_all(self, probes_BD: ArrayLike, *, threshold: float | str) -> tuple[tuple[str, ...], ...]:
        """All accepted subjects of each probe, each once, sorted. See `match_any`."""
        return self._with_current(
            lambda snapshot: snapshot.index.all_of(self._query("set", probes_BD, snapshot, threshold=threshold))
        )

    def identify(self, probes_BD: ArrayLike, *, threshold: float | str) -> tuple[str | None, ...]:
        """The accepted subject with the highest score of each probe, or None. See `match_any`."""
        return self._with_current(
            lambda snapshot: snapshot.index.best_of(self._query("best", probes_BD, snapshot, threshold=threshold))
        )

    def status(self) -> list[dict[str, Any]]:
        """The status of each party.

        Returns:
            For each party "name" and "problem": why it cannot execute requests, empty if it can. A party that can be
            reached also has "references", "gallery", "permissions", "bits_left" (of the query budget), "dim", "values".
        """
        return self._exchange.status()

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()

    def __enter__(self) -> SecureGalleryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _current(self) -> GallerySnapshot:
        if self._snapshot is None:
            self._snapshot = GallerySnapshot.fetch(self._exchange)
        return self._snapshot

    def _with_current(self, run: Callable[[GallerySnapshot], _T]) -> _T:
        """Run a query on the current gallery; repeat it if the gallery changes in between."""
        for _ in range(_MAX_ATTEMPTS):
            try:
                return run(self._current())
            except StaleGalleryError:
                self._snapshot = None
        raise PartyError(f"The gallery changed during each of {_MAX_ATTEMPTS} attempts. Repeat the request.")

    def _query(
        self,
        kind: Kind,
        probes_BD: ArrayLike,
        snapshot: GallerySnapshot,
        *,
        threshold: float | str,
        references_NR: NDArray[np.int64] | None = None,
    ) -> NDArray[Any]:
        """Send a query, split into as many requests as the limits of the parties need."""
        array_BD = np.asarray(probes_BD)
        terms = self._exchange.terms()
        if array_BD.ndim != 2:
            raise ShapeError(f"Expected probes of shape (B, {self.dim}), got {array_BD.shape}.")
        num_references = max(1, len(snapshot.ids_M16) if references_NR is None else references_NR.shape[1])
        row_bytes = _bytes_per_input(terms.parameters.fixed_point) + 8 * num_references * (kind == "verify") + 64
        num_per_request = max(
            1, min(terms.max_comparisons // num_references, (terms.max_request_bytes - _HEAD_BYTES) // row_bytes)
        )
        return np.concatenate(
            [
                self._request(
                    kind,
                    array_BD[start : start + num_per_request],
                    snapshot,
                    threshold=threshold,
                    references_NR=None if references_NR is None else references_NR[start : start + num_per_request],
                )
                for start in range(0, max(1, len(array_BD)), num_per_request)
            ]
        )

    def _request(
        self,
        kind: Kind,
        probes_BD: NDArray[Any],
        snapshot: GallerySnapshot,
        *,
        threshold: float | str,
        references_NR: NDArray[np.int64] | None,
    ) -> NDArray[Any]:
        point = self.fixed_point
        shares = seeded_inputs(probes_BD, point)
        fields: dict[str, Any] = {
            "type": "query",
            "id": secrets.token_hex(16),
            "kind": kind,
            "num": len(probes_BD),
            "gallery": snapshot.digest,
            "threshold": {"name": threshold} if isinstance(threshold, str) else point.integer_threshold(threshold),
        }
        if references_NR is not None:
            fields["num_references"] = references_NR.shape[1]
        references = b"" if references_NR is None else buffer_of(references_NR.astype(np.int64))
        replies = self._exchange.all_of(
            [Message(fields=fields, buffers=[*inputs_to_buffers(share), references]) for share in shares]
        )
        return open_answers([_answer_of(party, kind, reply) for party, reply in enumerate(replies)])

    def _change(self, kind: str, buffers: Sequence[list[Buffer]], fields: dict[str, Any]) -> None:
        """Have all parties make a change; return once all of them have made it, or are certain to make it."""
        change_id = secrets.token_hex(16)
        head = fields | {"type": kind, "id": change_id}
        deadline = time.monotonic() + self._settings.timeout_s
        self._snapshot = None
        replies, error = self._exchange.replies([Message(fields=head, buffers=part) for part in buffers])
        # Committed at one party implies prepared at all three: the others have made it, or do so when they are back.
        if any(reply is not None and reply.fields.get("state") == "committed" for reply in replies):
            return
        if error is None:
            raise PartyError("Protocol error: no party committed the change. Check which programs run at the parties.")
        if not isinstance(error, PartyError):
            raise error
        outcome = self._wait_for_outcome(change_id, deadline)
        if outcome == "made":
            return
        consequence = {
            "not made": "Nothing was changed.",
            "open": "It is not known yet whether the change was made. Call "
            f"outcome({change_id!r}) when all parties run again.",
        }[outcome]
        raise PartyError(f"{error} {consequence}", party=error.party) from error

    def _wait_for_outcome(self, change_id: str, deadline: float) -> Literal["made", "not made", "open"]:
        """Query the outcome of a change until it is known or the deadline has passed."""
        while True:
            with contextlib.suppress(PartyError):
                outcome = self.outcome(change_id)
                if outcome != "open":
                    return outcome
            if time.monotonic() > deadline:
                return "open"
            time.sleep(_POLL_S)


def _bytes_per_input(point: FixedPoint) -> int:
    return (point.dim + len(point.slack_weights)) * point.wide_dtype.itemsize


def _answer_of(party: int, kind: Kind, reply: Message) -> Answer:
    shape = tuple(int(size) for size in reply.fields["shape"])
    return Answer(
        party=party,
        kind=kind,
        num_values=reply.integer("num_values"),
        words=array_of(reply.buffer(0), shape, np.dtype(np.uint64)),
    )
