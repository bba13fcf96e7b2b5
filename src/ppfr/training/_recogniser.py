"""The common base of the recogniser tasks: mask the batch, optionally mix it, then compute a loss.

Shapes: `B` batch, `k` images per mixture, `D` embedding.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ppfr.core import BatchMixer, ImageMasker, MixedBatch, as_json
from ppfr.training._masked_input import check_probe, mask_images, masked_probe
from ppfr.training._task import Batch, TrainingTask

RECOGNISER = "recogniser"


class RecogniserTask(TrainingTask):
    """A task that trains on masked and optionally mixed images.

    `mixture_loss` is public so that adaptive mixing can evaluate it.

    Attributes:
        masker: masks the images; the network sees only its output.
        mixer: mixes the masked batch and its labels; None trains on single images.
    """

    masker: ImageMasker
    mixer: BatchMixer | None
    probe_KPQ: Tensor

    def remember_secret(self) -> None:
        """Register a masked noise image that is stored in checkpoints. Call it once `masker` is set.

        It prevents resuming under another secret, whose masked images the network cannot recognise.
        """
        if self.masker.spec.is_keyed and not self.masker.spec.is_trainable:
            self.register_buffer("probe_KPQ", masked_probe(self.masker))

    def check_restored(self) -> None:
        """Reject a checkpoint that was trained under another secret.

        Raises:
            CheckpointError: the secret differs.
        """
        if self.masker.spec.is_keyed and not self.masker.spec.is_trainable:
            check_probe(self.probe_KPQ, self.masker)

    @abstractmethod
    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The losses on a masked batch that is already mixed. With k = 1 there are single images instead of mixtures.

        Args:
            mixed: the input of the network, with the labels, weights and row indices of the images in each mixture.
            batch: the plain images of the mixtures.
            progress: share of the run that is done.

        Returns:
            See `TrainingTask.loss`.
        """

    def forward(self, mixed: MixedBatch, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`mixture_loss`, for `torch.func.functional_call` with other weights."""
        return self.mixture_loss(mixed, batch, progress=progress)

    def loss(self, group: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """The losses on the masked and optionally mixed batch."""
        masked_BKPQ = mask_images(self.masker, batch.images_BCHW, rng=rng)
        if self.mixer is None:
            mixed = unmixed(masked_BKPQ, batch.labels_B)
        else:
            mixed = self.mixer.mix(masked_BKPQ, batch.labels_B, rng=rng)
        return self.mixture_loss(mixed, batch, progress=progress)


def unmixed(masked_BKPQ: Tensor, labels_B: Tensor) -> MixedBatch:
    """Single images as mixtures with k = 1 and weight 1."""
    labels_B1 = labels_B[:, None]
    return MixedBatch(
        values_BKPQ=masked_BKPQ,
        labels_Bk=labels_B1,
        weights_Bk=torch.ones(labels_B1.shape, device=labels_B1.device),
        partners_Bk=torch.arange(len(labels_B), device=labels_B.device)[:, None],
    )


def mixed_rows(rows_BN: Tensor, mixed: MixedBatch) -> Tensor:
    """The same weighted sums of other rows, such as the features of a teacher; (B, ...). Unchanged if k = 1."""
    if mixed.partners_Bk.shape[1] == 1:
        return rows_BN
    with torch.autocast(rows_BN.device.type, enabled=False):
        flat = functional.embedding_bag(
            mixed.partners_Bk, rows_BN.flatten(1).float(), mode="sum", per_sample_weights=mixed.weights_Bk.float()
        )
    return flat.view(rows_BN.shape)


def mixed_embeddings(embedding_BD: Tensor, mixed: MixedBatch) -> Tensor:
    """The target of a mixture: the weighted sum of the unit embeddings of the teacher."""
    if mixed.partners_Bk.shape[1] == 1:
        return embedding_BD
    return mixed_rows(functional.normalize(embedding_BD.float(), dim=1), mixed)


def describe_mixer(mixer: BatchMixer | None) -> dict[str, Any] | None:
    """Name and public parameters, or None."""
    return None if mixer is None else {"name": mixer.name, "config": as_json(mixer.public_config())}
