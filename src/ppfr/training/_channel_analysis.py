"""Channel analysis: separates the channels that recognition needs from those that only make the face visible.

Shapes: `B` batch, `K` channels, `P Q` grid, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppfr.core import ImageMasker, InvalidInputError, as_json
from ppfr.models import Backbone, MarginHead, ModelCard
from ppfr.training._masked_input import (
    check_head,
    check_input,
    check_teacher,
    describe_masker,
    describe_module,
    describe_provenance,
    embedding_error,
    frozen_masker,
    mask_images,
)
from ppfr.training._task import Batch, OptimizerGroup, OptimizerSettings, ParameterGroup, TrainingTask

ANALYST = "analyst"
_MIN_ENERGY = 1e-12


class ChannelAnalysisTask(TrainingTask):
    """Trains one gate per channel together with a recogniser on the gated channels.

    A penalty on the energy that passes the gates closes every channel whose contribution to recognition is smaller.

    The gate of channel c is a_c = sigmoid(alpha_c / T). In training it is drawn, for each image and channel, from the
    binary concrete distribution, sigmoid((alpha_c + L) / T) with L logistic noise. It is then open with probability
    sigmoid(alpha_c), and the network cannot compensate for a half-open gate with larger weights. In evaluation there is
    no noise. A closed gate replaces its channel by the mean of the channel over the data, which does not depend on the
    image: x_c -> mean_c + a_c * (x_c - mean_c).

    loss = task + penalty_weight * penalty, with penalty = sum_c a_c * E_c / sum_c E_c (noiseless gates) and
    E_c = mean |coefficient| of channel c. Energies and means are running averages over all images of the training.

    The task loss is either that of `head` on the labels or, for small training sets, mean(1 - cos) to the embedding of
    a frozen pretrained `teacher` on the plain image. The scales of the two losses differ, so a penalty weight is valid
    for one of them only.

    Args:
        masker: outputs the channels to analyse, one gate each. A masker that shuffles channels anew for every image
            cannot be analysed.
        network: takes inputs of shape `masker.spec.out_shape`; untrained, or trained on all channels (gates start
            open).
        head: margin head with one class per subject of the training set. Give either `head` or `teacher`.
        teacher: recogniser on plain crops. It is frozen and not stored in checkpoints.
        teacher_card: training data of the teacher; required with `teacher`.
        penalty_weight: lambda. With 0, only channels that harm the task loss are closed.
        temperature: T. A smaller value moves the drawn gates closer to 0 and 1 and makes gradients noisier.
        initial_gate: initial a_c of every channel.
        gate_lr_scale: learning rate of the gates as a multiple of that of the network; gates change more than weights.
        optimizer: by default AdamW with lr=1e-3. With Adam, alpha_c changes by about `lr * gate_lr_scale` per step.
        provenance: cards of the pretrained weights that the network starts from.

    Raises:
        ShapeError: the shapes of masker, network, head and teacher do not match.
        InvalidInputError: neither or both of head and teacher are given, a teacher has no card, the masker is
            trainable, or numbers are out of range.

    References:
        Wang, Liu, Luo, Yang, Wang: "Privacy-Preserving Face Recognition in the Frequency Domain", AAAI 2022, states
        "recognition loss + lambda * face visualisation penalty, trained end to end". Gate, noise, penalty and task loss
        are our assumptions; see docs/methods/ppfr-fd.md.
    """

    energy_K: Tensor
    mean_K: Tensor
    num_measured: Tensor

    def __init__(
        self,
        masker: ImageMasker,
        network: Backbone,
        *,
        head: MarginHead | None = None,
        teacher: Backbone | None = None,
        teacher_card: ModelCard | None = None,
        penalty_weight: float,
        temperature: float = 0.5,
        initial_gate: float = 0.95,
        gate_lr_scale: float = 20.0,
        optimizer: OptimizerSettings | None = None,
        provenance: Sequence[ModelCard] = (),
    ) -> None:
        super().__init__()
        _check_task(masker, head, teacher, teacher_card)
        _check_numbers(penalty_weight, temperature, initial_gate, gate_lr_scale)
        check_input(masker, network)
        check_head(head, network)
        if teacher is not None:
            check_teacher(masker, teacher)
            _check_length(network, teacher)
        self.masker, self.network, self.head, self.teacher = masker, network, head, teacher
        self.teacher_card, self.provenance = teacher_card, tuple(provenance)
        self.penalty_weight, self.temperature = penalty_weight, temperature
        self.initial_gate, self.gate_lr_scale = initial_gate, gate_lr_scale
        self.optimizer = optimizer or OptimizerSettings(optimizer="adamw", lr=1e-3)
        self.frozen = (*(() if teacher is None else ("teacher",)), *frozen_masker(masker))
        num = masker.spec.out_shape[0]
        alpha = temperature * math.log(initial_gate / (1 - initial_gate))
        self.alpha_K = nn.Parameter(torch.full((num,), alpha))
        self.register_buffer("energy_K", torch.zeros(num))
        self.register_buffer("mean_K", torch.zeros(num))
        self.register_buffer("num_measured", torch.zeros((), dtype=torch.int64))

    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """One optimizer group: network and head, and the gates as a parameter group with a learning rate of its own."""
        trained = [*self.network.parameters(), *([] if self.head is None else self.head.parameters())]
        groups = [
            ParameterGroup(parameters=trained),
            ParameterGroup(parameters=[self.alpha_K], lr_scale=self.gate_lr_scale),
        ]
        return (OptimizerGroup(name=ANALYST, parameters=groups, **self.optimizer.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """Check that the head, if any, has one class per subject."""
        check_head(self.head, self.network, num_classes=num_classes)

    def loss(self, group: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """The weighted sum as "loss", its terms, and the share of gates above 0.5 as "open"."""
        masked_BKPQ = mask_images(self.masker, batch.images_BCHW, rng=rng)
        if self.training:
            self._measure(masked_BKPQ)
            gates_BK = self._drawn_gates(len(batch), rng)
        else:
            gates_BK = self._gates().expand(len(batch), -1)
        embedding_BD = self._embeddings(masked_BKPQ, gates_BK)
        task, penalty = self._task_loss(embedding_BD, batch.labels_B, self._target(batch)), self.penalty()
        open_share = (self.alpha_K.detach() > 0).float().mean()
        return {"loss": task + self.penalty_weight * penalty, "task": task, "penalty": penalty, "open": open_share}

    def penalty(self) -> Tensor:
        """sum_c a_c * E_c / sum_c E_c: the share of the energy that passes the gates, in [0, 1]."""
        return (self._gates() * self.energy_K).sum() / self.energy_K.sum().clamp_min(_MIN_ENERGY)

    def gates(self) -> tuple[float, ...]:
        """a_c of each channel, without noise."""
        return tuple(self._gates().detach().tolist())

    def energies(self) -> tuple[float, ...]:
        """E_c of each channel over the images seen so far; zeros before the first step."""
        return tuple(self.energy_K.tolist())

    def channels_kept(self, threshold: float = 0.5) -> tuple[int, ...]:
        """Indices of the masker channels whose gate is above the threshold, in ascending order."""
        return tuple(channel for channel, gate in enumerate(self.gates()) if gate > threshold)

    def energy_share(self, channels: Iterable[int]) -> float:
        """The share of the total energy in the given channels, in [0, 1]."""
        energies = self.energies()
        return sum(energies[channel] for channel in set(channels)) / max(sum(energies), _MIN_ENERGY)

    @torch.no_grad()
    def task_losses_with(self, channels: Iterable[int], batch: Batch, *, rng: torch.Generator) -> Tensor:
        """The task loss of each image with exactly the given channels open.

        Call it in evaluation mode. It changes neither weights nor energies.

        Returns:
            (B,) float32.
        """
        gates_K = torch.zeros_like(self.alpha_K)
        gates_K[sorted(set(channels))] = 1.0
        masked_BKPQ = mask_images(self.masker, batch.images_BCHW, rng=rng)
        given_BD = self._embeddings(masked_BKPQ, gates_K.expand(len(batch), -1))
        target_BD = self._target(batch)
        rows = [slice(row, row + 1) for row in range(len(batch))]
        return torch.stack(
            [self._task_loss(given_BD[r], batch.labels_B[r], None if target_BD is None else target_BD[r]) for r in rows]
        )

    def outcome(self) -> dict[str, Any]:
        """The channels kept, their share of the energy, and all gates and energies."""
        kept = self.channels_kept()
        return {
            "channels_kept": list(kept),
            "energy_share_kept": self.energy_share(kept),
            "gates": list(self.gates()),
            "energies": list(self.energies()),
        }

    def describe(self) -> dict[str, Any]:
        """See `TrainingTask.describe`."""
        return {
            "kind": "channel-analysis",
            "masker": describe_masker(self.masker),
            "network": describe_module(self.network),
            "head": None if self.head is None else describe_module(self.head),
            "teacher": None if self.teacher is None else describe_module(self.teacher),
            "penalty_weight": self.penalty_weight,
            "temperature": self.temperature,
            "initial_gate": self.initial_gate,
            "gate_lr_scale": self.gate_lr_scale,
            "optimizer": as_json(self.optimizer.settings()),
            "provenance": describe_provenance(
                {
                    "teacher": [] if self.teacher_card is None else [self.teacher_card],
                    "initial weights": self.provenance,
                }
            ),
        }

    def _gates(self) -> Tensor:
        return torch.sigmoid(self.alpha_K / self.temperature)

    def _drawn_gates(self, num: int, rng: torch.Generator) -> Tensor:
        """(B, K) draws of the binary concrete distribution."""
        # Exclude 0 and 1, where the logit is infinite.
        uniform_BK = torch.rand(num, len(self.alpha_K), generator=rng).clamp(1e-6, 1 - 1e-6).to(self.alpha_K.device)
        return torch.sigmoid((self.alpha_K + torch.logit(uniform_BK)) / self.temperature)

    def _embeddings(self, masked_BKPQ: Tensor, gates_BK: Tensor) -> Tensor:
        """Embeddings of the gated channels, (B, D)."""
        mean_K11 = self.mean_K[:, None, None]
        embedding_BD: Tensor = self.network(mean_K11 + gates_BK[:, :, None, None] * (masked_BKPQ - mean_K11))
        return embedding_BD

    @torch.no_grad()
    def _target(self, batch: Batch) -> Tensor | None:
        """Embeddings of the plain images by the teacher, (B, D); None without a teacher."""
        return None if self.teacher is None else self.teacher(batch.images_BCHW)

    def _task_loss(self, embedding_BD: Tensor, labels_B: Tensor, target_BD: Tensor | None) -> Tensor:
        """The task loss, a scalar."""
        if target_BD is not None:
            return embedding_error(embedding_BD, target_BD)
        assert self.head is not None
        return self.head.loss(embedding_BD, labels_B)

    @torch.no_grad()
    def _measure(self, masked_BKPQ: Tensor) -> None:
        """Update the running averages with the batch. Every image seen so far has the same weight."""
        self.num_measured += len(masked_BKPQ)
        weight = len(masked_BKPQ) / self.num_measured
        self.energy_K.lerp_(masked_BKPQ.abs().mean((0, 2, 3)), weight)
        self.mean_K.lerp_(masked_BKPQ.mean((0, 2, 3)), weight)


def _check_task(
    masker: ImageMasker, head: MarginHead | None, teacher: Backbone | None, teacher_card: ModelCard | None
) -> None:
    if (head is None) == (teacher is None):
        given = "neither" if head is None else "both"
        raise InvalidInputError(
            f"{given} of head and teacher given; give exactly one: head=... to learn from labels, or teacher=... with "
            "teacher_card=... to learn the embeddings of a pretrained network"
        )
    if (teacher is None) != (teacher_card is None):
        raise InvalidInputError("only one of teacher and teacher_card given; give both, or neither")
    if masker.spec.is_trainable:
        raise InvalidInputError(
            f"the masker {masker.name} is trainable, so its channels would change during the analysis; use a "
            "fixed masker"
        )


def _check_numbers(penalty_weight: float, temperature: float, initial_gate: float, gate_lr_scale: float) -> None:
    is_good = (
        0 <= penalty_weight < math.inf
        and 0 < temperature < math.inf
        and 0.5 < initial_gate < 1
        and 0 < gate_lr_scale < math.inf
    )
    if not is_good:
        raise InvalidInputError(
            f"penalty_weight={penalty_weight}, temperature={temperature}, initial_gate={initial_gate}, "
            f"gate_lr_scale={gate_lr_scale}; penalty_weight must be 0 or more, temperature and gate_lr_scale above 0, "
            "initial_gate between 0.5 and 1, and all of them finite"
        )


def _check_length(network: Backbone, teacher: Backbone) -> None:
    if network.dim != teacher.dim:
        raise InvalidInputError(
            f"the network has embeddings of length {network.dim}, but the teacher has length {teacher.dim}; build the "
            f"network with dim={teacher.dim}"
        )
