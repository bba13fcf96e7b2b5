"""One of three servers: holds one share of a gallery and answers queries together with the other two.

Suffixes: B probes, N claims, R references of a claim, M references, W words.
"""

from __future__ import annotations

import hashlib
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ppfr.core import InvalidInputError, RangeError
from ppfr.secure import _circuits
from ppfr.secure._answers import Answer, Query
from ppfr.secure._channel import Channel
from ppfr.secure._input_check import InputCheck
from ppfr.secure._inputs import SharedInputs
from ppfr.secure._keystream import PairwiseKeys, ZeroShares
from ppfr.secure._products import NumbaProducts, RingProducts, probe_words
from ppfr.secure._rounds import Rounds, Traffic, Words, filled_lanes
from ppfr.secure._sharing import SharedRows, SharedThreshold

_PROTOCOL = b"ppfr three-party matching 2"
_LANE_0 = np.uint64(1)


@final
class Party:
    """A server of the three-party protocol; it sees shares and learns neither embeddings, scores nor decisions.

    It answers one query at a time. Memory for a query, besides the gallery: about 50 bytes per pair of probe and
    reference for "int8", twice that for "int16".

    Args:
        gallery: the party's shares.
        keys: shared with the other two parties in this session.
        channel: to the other two parties.
        products: computes inner products with the gallery's rows; None for compiled loops on one core.

    Privacy:
        Semi-honest security with an honest majority: one party that follows the protocol learns only sizes from all
        that it receives. Two colluding parties can read everything. A party that deviates can make answers wrong.
    """

    def __init__(
        self, gallery: SharedRows, keys: PairwiseKeys, channel: Channel, *, products: RingProducts | None = None
    ) -> None:
        self._gallery = gallery
        self._keys = keys
        self._channel = channel
        self._products: RingProducts = NumbaProducts(gallery.words_NW) if products is None else products
        self._gallery_digest = gallery.digest()
        self._last_number = -1
        self.traffic = Traffic()

    def answer(self, query: Query, *, number: int, challenge: bytes) -> Answer:
        """Compute this party's share of an answer; the other two parties must process the same query.

        Args:
            query: the party's share.
            number: must be larger than that of every earlier request of the session; the masks are derived from it.
            challenge: 32 random bytes for the check of the probes, equal at the three parties. One of the parties must
                draw them after all three have received the query.

        Raises:
            InvalidInputError: shares of another party or of other parameters, an empty gallery, or a reused number.
            RangeError: a reference index outside the gallery.
            InputCheckError: the probes are not shares of embeddings of norm 1. The parties remain in step.
            PartyError: another party disconnected, timed out, or processes another query; the error names it.
        """
        self._check(query, number)
        self._last_number = number
        rounds = Rounds(self._gallery.party, self._channel, ZeroShares(self._keys, number))
        check = InputCheck(query.probes, rounds, challenge)
        statement = self._statement(query, number, challenge)
        check.open(statement)
        additive_BN = self._products_of(query)
        check.receive_opening(statement)
        rounds.attach(check.sums())
        scores_2BN = rounds.reshare(additive_BN)
        rounds.attach(check.hash_of_lacking(rounds.attachment()))
        words = _decided(rounds, self._minus_threshold(rounds, scores_2BN, query), query)
        check.compare_sums(rounds.attachment())
        self.traffic = rounds.traffic
        check.conclude()
        return Answer(party=self._gallery.party, kind=query.kind, num_values=additive_BN.shape[1], words=words)

    def _check(self, query: Query, number: int) -> None:
        mine = self._gallery.party
        if query.party != mine or query.probes.party != mine:
            raise InvalidInputError(f"The query has shares of party {query.probes.party}; pass party {mine} its own.")
        if query.probes.fixed_point != self._gallery.fixed_point:
            raise InvalidInputError(
                f"The probes use {query.probes.fixed_point}, but the gallery uses {self._gallery.fixed_point}."
            )
        if isinstance(query.threshold, SharedThreshold) and query.threshold.fixed_point != self._gallery.fixed_point:
            raise InvalidInputError("The threshold uses other fixed-point parameters than the gallery.")
        if len(self._gallery) == 0:
            raise InvalidInputError("The gallery is empty. Enrol references before searching.")
        if len(query.probes) == 0:
            raise InvalidInputError("The query contains no probes. Pass at least one.")
        if number <= self._last_number:
            raise InvalidInputError(
                f"Query number {number} must be larger than {self._last_number}; a number is used only once."
            )
        if (
            query.references_NR is not None
            and not ((query.references_NR >= 0) & (query.references_NR < len(self._gallery))).all()
        ):
            raise RangeError(f"Reference indices must be in 0..{len(self._gallery) - 1}.")

    def _statement(self, query: Query, number: int, challenge: bytes) -> bytes:
        """32 bytes that must be equal at all three parties; a hash of public values only."""
        threshold = query.threshold.sharing if isinstance(query.threshold, SharedThreshold) else query.threshold
        statement = hashlib.sha256(_PROTOCOL + self._gallery_digest + query.probes.digest())
        statement.update(repr((query.kind, number, challenge, threshold)).encode())
        if query.references_NR is not None:
            statement.update(repr(query.references_NR.shape).encode() + query.references_NR.astype("<i8").tobytes())
        return statement.digest()

    def _products_of(self, query: Query) -> NDArray[Any]:
        """(B, M) additive shares of scores, or (R, N) for claims."""
        words_BW = probe_words(query.probes.rows().words_NW)
        if query.references_NR is None:
            return self._products.of_all(words_BW)
        return np.stack([self._products.of_pairs(words_BW, of_claim_N) for of_claim_N in query.references_NR.T])

    def _minus_threshold(self, rounds: Rounds, scores_2BN: Words, query: Query) -> Words:
        if isinstance(query.threshold, SharedThreshold):
            return np.asarray(scores_2BN - query.threshold.words_2[:, None, None])
        return rounds.minus_integer(scores_2BN, query.threshold)

    def __repr__(self) -> str:
        return f"Party({self._gallery!r})"


def check_inputs(inputs: SharedInputs, keys: PairwiseKeys, channel: Channel, *, number: int, challenge: bytes) -> None:
    """Check the inputs of an enrolment together with the other two parties; nothing is computed with them.

    Args:
        inputs: the party's shares.
        keys: of the session.
        channel: to the other two parties.
        number: as in `Party.answer`; no query of the session may have it.
        challenge: as in `Party.answer`.

    Raises:
        InputCheckError: they are not shares of embeddings of norm 1. The parties remain in step.
        PartyError: another party disconnected, timed out, or checks other inputs; the error names it.
    """
    rounds = Rounds(inputs.party, channel, ZeroShares(keys, number))
    statement = hashlib.sha256(_PROTOCOL + b" enrolment " + inputs.digest() + repr((number, challenge)).encode())
    InputCheck(inputs, rounds, challenge).run_alone(statement.digest())


def _decided(rounds: Rounds, above_2BN: Words, query: Query) -> NDArray[np.uint64]:
    """This party's two components of the answer's bits; lanes that the client does not need are zero."""
    x, y = rounds.to_summands(above_2BN)
    filled_W = filled_lanes(above_2BN.shape[2])
    if query.kind == "best":
        return np.asarray(_circuits.best_not_negative(rounds, x, y, filled_W) & _LANE_0)
    accepted = _circuits.not_negative(rounds, x, y) & filled_W
    if query.kind == "verify":
        accepted = _circuits.any_probe(rounds, accepted) & filled_W
    if query.kind == "any":
        none = _circuits.all_lanes(rounds, rounds.inverted(accepted))
        return np.asarray(rounds.inverted(none)[:, 0] & _LANE_0)
    return np.asarray(accepted[:, 0])
