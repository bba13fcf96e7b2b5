"""What the three ways to a recogniser share: mask the batch, perhaps mix it, then a loss on what came of it.

Shapes: `B` batch, `k` mixed images a row, `D` embedding.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ppfr.core import BatchMixer, ImageMasker, MixedBatch
from ppfr.training._masked_input import check_probe, mask_images, masked_probe
from ppfr.training._objective import Batch, Objective, as_json

RECOGNISER = "recogniser"


class RecogniserObjective(Objective):
    """An objective that learns from masked, perhaps mixed, images, and can be asked for its loss on a mixture.

    Attributes:
        masker: its output is all that the network sees.
        mixer: mixes the masked batch and its labels; None trains on the images one by one.
    """

    masker: ImageMasker
    mixer: BatchMixer | None
    probe_KPQ: Tensor

    def remember_secret(self) -> None:
        """To be called when `masker` is set: what it makes of a noise image travels in checkpoints.

        So a training is never taken up again under another secret, which a network would take for noise.
        """
        if self.masker.spec.is_keyed and not self.masker.spec.is_trainable:
            self.register_buffer("probe_KPQ", masked_probe(self.masker))

    def check_restored(self) -> None:
        """Refuse a checkpoint that was trained under another secret.

        Raises:
            CheckpointError: it was.
        """
        if self.masker.spec.is_keyed and not self.masker.spec.is_trainable:
            check_probe(self.probe_KPQ, self.masker)

    @abstractmethod
    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The losses on a masked batch that was mixed already; with k = 1 on the images themselves.

        Args:
            mixed: what the network sees, with the labels, weights and rows that went into each row.
            batch: the plain images it was made of.
            progress: share of the run that is done.

        Returns:
            As `Objective.loss`.
        """

    def forward(self, mixed: MixedBatch, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`mixture_loss`, so that `torch.func.functional_call` can try it with other weights."""
        return self.mixture_loss(mixed, batch, progress=progress)

    def loss(self, player: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """The losses on the batch as `masker` and `mixer` leave it."""
        masked_BKPQ = mask_images(self.masker, batch.images_BCHW, rng=rng)
        if self.mixer is None:
            mixed = unmixed(masked_BKPQ, batch.labels_B)
        else:
            mixed = self.mixer.mix(masked_BKPQ, batch.labels_B, rng=rng)
        return self.mixture_loss(mixed, batch, progress=progress)


def unmixed(masked_BKPQ: Tensor, labels_B: Tensor) -> MixedBatch:
    """Every image for itself: k = 1, weight 1."""
    labels_B1 = labels_B[:, None]
    return MixedBatch(
        values_BKPQ=masked_BKPQ,
        labels_Bk=labels_B1,
        weights_Bk=torch.ones(labels_B1.shape, device=labels_B1.device),
        partners_Bk=torch.arange(len(labels_B), device=labels_B.device)[:, None],
    )


def mixed_rows(rows_BN: Tensor, mixed: MixedBatch) -> Tensor:
    """The same weighted sums of other rows, as a teacher's features, (B, ...); the rows themselves where k = 1."""
    if mixed.partners_Bk.shape[1] == 1:
        return rows_BN
    with torch.autocast(rows_BN.device.type, enabled=False):
        flat = functional.embedding_bag(
            mixed.partners_Bk, rows_BN.flatten(1).float(), mode="sum", per_sample_weights=mixed.weights_Bk.float()
        )
    return flat.view(rows_BN.shape)


def mixed_embeddings(embedding_BD: Tensor, mixed: MixedBatch) -> Tensor:
    """What a teacher would say of a mixture: the weighted sum of its unit embeddings."""
    if mixed.partners_Bk.shape[1] == 1:
        return embedding_BD
    return mixed_rows(functional.normalize(embedding_BD.float(), dim=1), mixed)


def describe_mixer(mixer: BatchMixer | None) -> dict[str, Any] | None:
    """Name and parameters."""
    return None if mixer is None else {"name": mixer.name, "config": as_json(mixer.public_config())}
