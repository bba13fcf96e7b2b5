"""Training from scratch: a network and a margin head on masked images.

Shapes: `B` batch, `k` images per mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ppfr.core import BatchMixer, ImageMasker, MixedBatch, as_json
from ppfr.models import Backbone, MarginHead, ModelCard
from ppfr.training._masked_input import (
    check_head,
    check_input,
    describe_masker,
    describe_module,
    describe_provenance,
    frozen_masker,
    masker_parameters,
)
from ppfr.training._recogniser import RECOGNISER, RecogniserTask, describe_mixer
from ppfr.training._task import Batch, OptimizerGroup, OptimizerSettings


class MarginTask(RecogniserTask):
    """Classification of masked images with a margin head. The only supervision is the labels.

    Args:
        masker: masks the images; the network sees only its output. Randomness is drawn anew for every image and epoch.
        network: takes inputs of shape `masker.spec.out_shape`.
        head: has one class per subject of the training set.
        mixer: mixes the masked batch and its labels; None trains on single images.
        optimizer: by default SGD with momentum and lr=0.1, as is common for face recognition (with batches of 512
            images).
        provenance: cards of the pretrained weights that the network starts from; part of every result.

    Raises:
        ShapeError: the shapes of masker, network and head do not match.
    """

    def __init__(
        self,
        masker: ImageMasker,
        network: Backbone,
        head: MarginHead,
        *,
        mixer: BatchMixer | None = None,
        optimizer: OptimizerSettings | None = None,
        provenance: Sequence[ModelCard] = (),
    ) -> None:
        super().__init__()
        check_input(masker, network)
        check_head(head, network)
        self.masker, self.network, self.head, self.mixer = masker, network, head, mixer
        self.optimizer = optimizer or OptimizerSettings()
        self.provenance = tuple(provenance)
        self.frozen = frozen_masker(masker)
        self.remember_secret()

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """One group: network, head, and a masker that is trained."""
        parameters = [*self.network.parameters(), *self.head.parameters(), *masker_parameters(self.masker)]
        return (OptimizerGroup(name=RECOGNISER, parameters=parameters, **self.optimizer.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """Check that the head has one class per subject."""
        check_head(self.head, self.network, num_classes=num_classes)

    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The loss of the head on the masked batch. On mixtures it is MixUp-ArcFace."""
        return {"loss": self.head.loss(self.network(mixed.values_BKPQ), mixed.labels_Bk, mixed.weights_Bk)}

    def describe(self) -> dict[str, Any]:
        """See `TrainingTask.describe`."""
        return {
            "kind": "margin",
            "masker": describe_masker(self.masker),
            "network": describe_module(self.network),
            "head": describe_module(self.head),
            "mixer": describe_mixer(self.mixer),
            "optimizer": as_json(self.optimizer.settings()),
            "provenance": describe_provenance({"initial weights": self.provenance}),
        }
