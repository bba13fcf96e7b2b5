"""One recogniser on one protocol, outside any experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ppfr.core import Embedder, ImageMasker
from ppfr.evaluation._embedding import Embedding, pair_comparisons
from ppfr.evaluation.measures._verification import VerificationRow, verification_row

if TYPE_CHECKING:
    from ppfr.data import PairProtocol


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """How figures are made.

    Attributes:
        seed: root of the masks' and the bootstrap's draws.
        fars: false accept rates to report at.
        num_resamples: bootstrap resamples behind each interval.
        batch_size: images masked and embedded at a time.
        adds_mirrored: add the embedding of the mirrored image, masked apart.
    """

    seed: int
    fars: Sequence[float] = (1e-2, 1e-3, 1e-4)
    num_resamples: int = 1000
    batch_size: int = 64
    adds_mirrored: bool = False


def evaluate(
    masker: ImageMasker,
    embedder: Embedder,
    protocol: PairProtocol,
    *,
    settings: EvaluationSettings,
    device: str = "cpu",
) -> VerificationRow:
    """Mask every image of a protocol, embed it, and verify the pairs.

    Args:
        masker: the client's side; `Unprotected` for plain images.
        embedder: the server's side, on `device`.
        protocol: pairs and folds.
        settings: seed, rates and resamples.
        device: where images are masked.

    Returns:
        The same figures as in a result record: accuracy, EER, AUC and TAR at FAR with n and interval, the spread over
        folds, and the ROC.

    Raises:
        ShapeError: masker and embedder do not fit together.
    """
    embedding = Embedding(settings, device=torch.device(device))
    rows_ND = embedding.masked(
        masker, embedder, protocol.images, protocol.used().tolist(), purpose=f"evaluate/{protocol.name}"
    )
    return verification_row(
        settings,
        protocol,
        pair_comparisons(protocol, rows_ND),
        source="system",
        name=masker.name,
        fars=settings.fars,
    )
