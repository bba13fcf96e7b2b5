"""Evaluation of one recogniser on one protocol, without an experiment."""

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
    """Settings of `evaluate`.

    Attributes:
        seed: seeds the masker and the bootstrap.
        fars: false accept rates to report at.
        num_resamples: bootstrap resamples per interval.
        batch_size: images masked and embedded at a time.
        mirrors_input: also embed the mirrored input, computed from the one masked image by `ImageMasker.mirrored`,
            and add the embeddings. Not all maskers support it.
    """

    seed: int
    fars: Sequence[float] = (1e-2, 1e-3, 1e-4)
    num_resamples: int = 1000
    batch_size: int = 64
    mirrors_input: bool = False


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
        masker: runs on the client; `Unprotected` for plain images.
        embedder: runs on the server; on `device`.
        protocol: pairs and folds.
        settings: seed, rates and resamples.
        device: where images are masked.

    Returns:
        The same figures as in a result record: accuracy, EER, AUC and TAR at FAR with n and interval, the standard
        deviation over folds, and the ROC.

    Raises:
        ShapeError: the embedder does not accept the output of the masker.
        UnsupportableError: `settings.mirrors_input`, and the masker cannot mirror its output.
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
