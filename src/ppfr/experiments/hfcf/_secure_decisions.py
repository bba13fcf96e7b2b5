"""Secure decisions beside plain ones on a protocol's pairs: what quantisation costs, and every decision it turns.

Suffixes: N pairs, D embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppfr.data import PairProtocol
from ppfr.metrics import Comparisons, paired_accuracy_gap, verification_report
from ppfr.secure import FixedPoint, ThreePartyMatcher


def compare_secure_pairs(
    protocol: PairProtocol,
    probes_ND: NDArray[Any],
    references_ND: NDArray[Any],
    *,
    values: Sequence[Literal["int8", "int16"]] = ("int8", "int16"),
    fars: Sequence[float] = (1e-2, 1e-3),
    seed: int,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Decide every pair under sharing, at the thresholds of the float scores.

    Args:
        protocol: pairs and folds.
        probes_ND: (N, D), of each pair the row that asks: an embedding, or a template under the claimed key.
        references_ND: (N, D), of each pair the row that is enrolled.
        values: fixed-point formats.
        fars: false accept rates of the float scores whose thresholds are used.
        seed: of the bootstrap.
        num_resamples: behind each interval.

    Returns:
        Accuracy, EER and TAR at FAR of float scores and of each format's, the gap between their accuracies, and at each
        threshold: how many secure decisions differ from those of the integer scores in the clear (none should), and
        each pair whose decision differs from that of the float score, with its distance from the threshold.

    Raises:
        MissingExtraError: `cryptography` is not installed.
    """
    first_ND, second_ND = (np.asarray(side, dtype=np.float64) for side in (probes_ND, references_ND))
    first_ND, second_ND = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (first_ND, second_ND))
    exact = _comparisons(protocol, np.einsum("nd,nd->n", first_ND, second_ND))
    curve = exact.roc()
    thresholds = {f"{far:g}": curve.threshold_at_far(far) for far in fars}
    report = functools.partial(verification_report, fars=tuple(fars), seed=seed, num_resamples=num_resamples)
    found: dict[str, Any] = {
        "protocol": protocol.name,
        "num_pairs": len(protocol),
        "dim": first_ND.shape[1],
        "thresholds_at_far": thresholds,
        "float": report(exact).to_dict(),
    }
    for name in values:
        point = FixedPoint(dim=first_ND.shape[1], values=name)
        integers = [point.signed(point.quantise(side)) for side in (first_ND, second_ND)]
        score_N = np.einsum("nd,nd->n", *integers)
        rounded = _comparisons(protocol, score_N / point.scale**2)
        with ThreePartyMatcher(second_ND, values=name) as matcher:
            decided = {
                far: _decisions(matcher, first_ND, exact, score_N / point.scale**2, threshold)
                for far, threshold in thresholds.items()
            }
        error_N = np.asarray(rounded.scores) - np.asarray(exact.scores)
        found[name] = {
            "scale": point.scale,
            "ring_bits": point.ring_bits,
            "largest_error": float(np.abs(error_N).max()),
            "rms_error": float(np.sqrt(np.square(error_N).mean())),
            "error_bound": point.largest_error,
            **report(rounded).to_dict(),
            "accuracy_gap_to_float": paired_accuracy_gap(rounded, exact, seed=seed).to_dict(),
            "decisions_at_far": decided,
        }
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
    first_ND: NDArray[np.float64],
    exact: Comparisons,
    rounded_N: NDArray[np.float64],
    threshold: float,
) -> dict[str, Any]:
    secure_N = matcher.verify(first_ND, np.arange(len(first_ND)), threshold=threshold)
    exact_N, genuine_N = np.asarray(exact.scores), np.asarray(exact.is_genuine)
    turned = np.flatnonzero(secure_N != (exact_N >= threshold))
    return {
        "differ_from_integers_in_the_clear": int((secure_N != (rounded_N >= threshold)).sum()),
        "differ_from_float": [
            {
                "pair": int(n),
                "is_genuine": bool(genuine_N[n]),
                "accepted": bool(secure_N[n]),
                "float_score_less_threshold": float(exact_N[n] - threshold),
                "score_less_threshold": float(rounded_N[n] - threshold),
            }
            for n in turned
        ],
        "within_largest_error_of_threshold": int(
            (np.abs(exact_N - threshold) <= np.abs(rounded_N - exact_N).max()).sum()
        ),
        "bytes_sent": [traffic.bytes_sent for traffic in matcher.traffic],
        "num_rounds": matcher.traffic[0].num_rounds,
    }
