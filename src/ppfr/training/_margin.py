"""From scratch: a network and a margin head on masked images.

Shapes: `B` batch, `k` mixed images a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ppfr.core import BatchMixer, ImageMasker, MixedBatch
from ppfr.models import Backbone, MarginHead, ModelCard
from ppfr.training._masked_input import (
    check_head,
    check_input,
    describe_knowledge,
    describe_masker,
    describe_module,
    frozen_masker,
    masker_parameters,
)
from ppfr.training._objective import Batch, OptimiserSettings, Player, as_json
from ppfr.training._recogniser import RECOGNISER, RecogniserObjective, describe_mixer


class MarginObjective(RecogniserObjective):
    """Classification of masked images with a margin: the network learns from labels alone.

    Args:
        masker: its output is all that the network sees; drawn afresh for every image and pass.
        network: takes `masker.spec.out_shape`.
        head: with as many classes as the training set has subjects.
        mixer: mixes the masked batch and its labels; None trains on plain labels.
        optimiser: SGD with momentum at 0.1 by default, as in the field's papers (their batch is 512 images).
        knowledge: cards of whatever pretrained weights the network starts from; named in every result.

    Raises:
        ShapeError: masker, network and head do not fit together.
    """

    def __init__(
        self,
        masker: ImageMasker,
        network: Backbone,
        head: MarginHead,
        *,
        mixer: BatchMixer | None = None,
        optimiser: OptimiserSettings | None = None,
        knowledge: Sequence[ModelCard] = (),
    ) -> None:
        super().__init__()
        check_input(masker, network)
        check_head(head, network)
        self.masker, self.network, self.head, self.mixer = masker, network, head, mixer
        self.optimiser = optimiser or OptimiserSettings()
        self.knowledge = tuple(knowledge)
        self.frozen = frozen_masker(masker)
        self.remember_secret()

    def players(self) -> tuple[Player, ...]:
        """One: network and head."""
        parameters = [*self.network.parameters(), *self.head.parameters(), *masker_parameters(self.masker)]
        return (Player(name=RECOGNISER, parameters=parameters, **self.optimiser.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """The head must have as many classes as the set has subjects."""
        check_head(self.head, self.network, num_classes=num_classes)

    def mixture_loss(self, mixed: MixedBatch, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        """The head's loss on the masked, perhaps mixed, batch: MixUp-ArcFace where rows are mixtures."""
        return {"loss": self.head.loss(self.network(mixed.values_BKPQ), mixed.labels_Bk, mixed.weights_Bk)}

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": "margin",
            "masker": describe_masker(self.masker),
            "network": describe_module(self.network),
            "head": describe_module(self.head),
            "mixer": describe_mixer(self.mixer),
            "optimiser": as_json(self.optimiser.settings()),
            "knowledge": describe_knowledge({"initial weights": self.knowledge}),
        }
