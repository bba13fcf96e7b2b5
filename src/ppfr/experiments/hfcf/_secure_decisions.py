"""Secure and plain decisions on the pairs of a protocol: the effect of quantisation, and every decision it changes.

Suffixes: N pairs, K embedding or template values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppfr.data import PairProtocol
from ppfr.evaluation import DecisionsAtFar, FormatFigures, QueryTraffic, TurnedDecision
from ppfr.metrics import Comparisons, paired_accuracy_gap, verification_report
from ppfr.secure import FixedPoint, ThreePartyMatcher

Format = Literal["int8", "int16"]


def secure_decisions(
    protocol: PairProtocol,
    enrolled_NK: NDArray[Any],
    probes_NK: NDArray[Any],
    seed: int,
    *,
    formats: Sequence[Format] = ("int8", "int16"),
    fars: Sequence[float] = (1e-2, 1e-3),
    num_resamples: int = 1000,
) -> list[FormatFigures]:
    """Decide every pair under secret sharing, at the thresholds of the float scores.

    Args:
        protocol: pairs and folds.
        enrolled_NK: (N, K) enrolled row of each pair.
        probes_NK: (N, K) presented row of each pair: an embedding, or a template under the claimed key.
        seed: seed of the bootstrap.
        formats: fixed-point formats.
        fars: false accept rates of the float scores whose thresholds are used.
        num_resamples: bootstrap resamples per interval.

    Returns:
        Per format: accuracy, EER, and the gap in accuracy to float scores; the traffic of queries; and at each
        threshold the number of secure decisions that differ from those by integer scores in the clear (which should
        be 0), and each pair whose decision differs from that by the float score, with its distances from the
        threshold.
    """
    first_NK, second_NK = (np.asarray(side, dtype=np.float64) for side in (probes_NK, enrolled_NK))
    first_NK, second_NK = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (first_NK, second_NK))
    exact = _comparisons(protocol, np.einsum("nk,nk->n", first_NK, second_NK))
    curve = exact.roc()
    # Where every score accepts too many, the threshold is infinite. Parties take at most 1, which no score exceeds.
    thresholds = {far: min(1.0, float(curve.threshold_at_far(far))) for far in fars}
    found = []
    for name in formats:
        point = FixedPoint(dim=first_NK.shape[1], values=name)
        integers = [point.signed(point.quantise(side)) for side in (first_NK, second_NK)]
        score_N = np.einsum("nk,nk->n", *integers) / point.scale**2
        rounded = _comparisons(protocol, score_N)
        with ThreePartyMatcher(second_NK, values=name) as matcher:
            decisions = [
                _decisions(matcher, first_NK, exact, score_N, far=far, threshold=threshold)
                for far, threshold in thresholds.items()
            ]
        error_N = score_N - np.asarray(exact.scores)
        report = verification_report(rounded, fars=tuple(fars), seed=seed, num_resamples=num_resamples)
        assert report.accuracy is not None  # pair protocols have folds
        found.append(
            FormatFigures(
                values=name,
                scale=point.scale,
                ring_bits=point.ring_bits,
                rms_error=float(np.sqrt(np.square(error_N).mean())),
                largest_error=float(np.abs(error_N).max()),
                error_bound=point.largest_error,
                accuracy=report.accuracy,
                eer=report.eer,
                accuracy_gap_to_float=paired_accuracy_gap(rounded, exact, seed=seed),
                decisions=decisions,
                queries=_queries(name, enrolled_NK),
            )
        )
    return found


def _comparisons(protocol: PairProtocol, score_N: NDArray[np.float64]) -> Comparisons:
    subjects = np.asarray(protocol.images.subject_ids)
    return Comparisons(
        scores=score_N,
        is_genuine=protocol.is_genuine,
        subject_a=subjects[protocol.first],
        subject_b=subjects[protocol.second],
        fold=protocol.fold,
    )


def _decisions(
    matcher: ThreePartyMatcher,
    first_NK: NDArray[np.float64],
    exact: Comparisons,
    rounded_N: NDArray[np.float64],
    *,
    far: float,
    threshold: float,
) -> DecisionsAtFar:
    secure_N = matcher.verify(first_NK, matcher.subjects, threshold=threshold)
    exact_N, genuine_N = np.asarray(exact.scores), np.asarray(exact.is_genuine)
    return DecisionsAtFar(
        far=far,
        threshold=threshold,
        num_differ_from_integers_in_the_clear=int((secure_N != (rounded_N >= threshold)).sum()),
        differ_from_float=[
            TurnedDecision(
                pair=int(n),
                is_genuine=bool(genuine_N[n]),
                accepted=bool(secure_N[n]),
                float_score_less_threshold=float(exact_N[n] - threshold),
                score_less_threshold=float(rounded_N[n] - threshold),
            )
            for n in np.flatnonzero(secure_N != (exact_N >= threshold))
        ],
    )


def _queries(values: Format, enrolled_NK: NDArray[Any]) -> list[QueryTraffic]:
    """Bytes and rounds of each kind of query: one probe, against one reference or all of them."""
    probe_1K = enrolled_NK[:1]
    rows = []
    with ThreePartyMatcher(enrolled_NK, values=values) as matcher:
        queries = {
            "verify": lambda: matcher.verify(probe_1K, ["0"], threshold=0.5),
            "any": lambda: matcher.match_any(probe_1K, threshold=0.5),
            "set": lambda: matcher.match_all(probe_1K, threshold=0.5),
            "best": lambda: matcher.identify(probe_1K, threshold=0.5),
        }
        for kind, query in queries.items():
            query()
            rows.append(
                QueryTraffic(
                    kind=kind,
                    num_references=1 if kind == "verify" else matcher.num_references,
                    bytes_sent=[traffic.bytes_sent for traffic in matcher.traffic],
                    num_rounds=matcher.traffic[0].num_rounds,
                )
            )
    return rows
