"""One of three servers: holds one share of a gallery, and answers queries together with the other two.

Suffixes: B probes, N pairs, M references, W words.
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
from ppfr.secure._keystream import PairwiseKeys, ZeroShares
from ppfr.secure._products import NumbaProducts, RingProducts, probe_words
from ppfr.secure._rounds import Rounds, Traffic, Words, filled_lanes
from ppfr.secure._sharing import SharedRows, SharedThreshold

_PROTOCOL = b"ppfr three-party matching 1"
_LANE_0 = np.uint64(1)


@final
class Party:
    """A server of the three-party protocol; sees shares, and learns neither embeddings, scores nor decisions.

    It answers one query at a time. Memory for a query, beside the gallery: some 50 bytes for each probe and reference
    ("int8"; twice that for "int16").

    Args:
        gallery: its shares.
        keys: of this session with the other two.
        channel: to them.
        products: the gallery's rows where inner products are computed; None for compiled loops on one core.

    Privacy:
        Against one party that follows the protocol but looks at all it receives (semi-honest, honest majority), nothing
        but sizes leaks. Two parties together can read everything. A party that deviates can make answers wrong.
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

    def answer(self, query: Query) -> Answer:
        """Compute this party's part of an answer; the other two must be at the same query.

        Raises:
            InvalidInputError: shares that are not this party's or not of these parameters, an empty gallery, or a query
                number that was used.
            RangeError: a reference that is not in the gallery.
            PartyError: another party is gone, late, or on another query; names it.
        """
        self._check(query)
        self._last_number = query.number
        rounds = Rounds(self._gallery.party, self._channel, ZeroShares(self._keys, query.number))
        statement = self._statement(query)
        rounds.tell(statement)
        additive_BN = self._products_of(query)
        rounds.hear(statement)
        above_2BN = self._less_threshold(rounds, rounds.reshare(additive_BN), query)
        words = _decided(rounds, above_2BN, query)
        self.traffic = rounds.traffic
        return Answer(
            party=self._gallery.party,
            number=query.number,
            kind=query.kind,
            num_values=additive_BN.shape[1],
            words=words,
        )

    def _check(self, query: Query) -> None:
        mine = self._gallery.party
        if query.party != mine or query.probes.party != mine:
            raise InvalidInputError(f"the query holds shares of party {query.probes.party}; give party {mine} its own")
        if query.probes.fixed_point != self._gallery.fixed_point:
            raise InvalidInputError(
                f"probes are shared under {query.probes.fixed_point}; the gallery is under {self._gallery.fixed_point}"
            )
        if isinstance(query.threshold, SharedThreshold) and query.threshold.fixed_point != self._gallery.fixed_point:
            raise InvalidInputError("the threshold is shared under other fixed-point parameters than the gallery")
        if len(self._gallery) == 0:
            raise InvalidInputError("the gallery is empty; enrol references before searching in it")
        if len(query.probes) == 0:
            raise InvalidInputError("the query holds no probe; give at least one")
        if query.number <= self._last_number:
            raise InvalidInputError(
                f"query number {query.number} was used, or comes late; numbers of a session only ever grow"
            )
        if (
            query.references_N is not None
            and not ((query.references_N >= 0) & (query.references_N < len(self._gallery))).all()
        ):
            raise RangeError(f"references are outside 0..{len(self._gallery) - 1}; give indices of this gallery")

    def _statement(self, query: Query) -> bytes:
        """32 bytes that all three parties must agree on; of public things alone."""
        threshold = query.threshold.sharing if isinstance(query.threshold, SharedThreshold) else query.threshold
        said = hashlib.sha256(_PROTOCOL + self._gallery_digest + query.probes.digest())
        said.update(repr((query.kind, query.number, threshold)).encode())
        if query.references_N is not None:
            said.update(query.references_N.astype("<i8").tobytes())
        return said.digest()

    def _products_of(self, query: Query) -> NDArray[Any]:
        """(B, M) additive shares of scores, or (1, N) for pairs."""
        words_BW = probe_words(query.probes.words_NW)
        if query.references_N is None:
            return self._products.of_all(words_BW)
        return self._products.of_pairs(words_BW, query.references_N)[None]

    def _less_threshold(self, rounds: Rounds, scores_2BN: Words, query: Query) -> Words:
        if isinstance(query.threshold, SharedThreshold):
            return np.asarray(scores_2BN - query.threshold.words_2[:, None, None])
        return rounds.less_integer(scores_2BN, query.threshold)

    def __repr__(self) -> str:
        return f"Party({self._gallery!r})"


def _decided(rounds: Rounds, above_2BN: Words, query: Query) -> NDArray[np.uint64]:
    """The own component of the answer's bits; lanes that the asker has no use for are zero."""
    x, y = rounds.to_summands(above_2BN)
    filled_W = filled_lanes(above_2BN.shape[2])
    if query.kind == "best":
        return np.asarray(_circuits.best_not_negative(rounds, x, y, filled_W)[0] & _LANE_0)
    accepted = _circuits.not_negative(rounds, x, y) & filled_W
    if query.kind == "any":
        none = _circuits.all_lanes(rounds, rounds.inverted(accepted))
        return np.asarray(rounds.inverted(none)[0, 0] & _LANE_0)
    return np.asarray(accepted[0, 0])
