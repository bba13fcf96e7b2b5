"""Channel analysis: which channels recognition needs, and which only make the face visible.

Shapes: `B` batch, `K` channels, `P Q` grid, `D` embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ppfr.core import ImageMasker, InvalidInputError
from ppfr.models import Backbone, MarginHead, ModelCard
from ppfr.training._masked_input import (
    check_head,
    check_input,
    check_teacher,
    describe_knowledge,
    describe_masker,
    describe_module,
    embedding_error,
    frozen_masker,
    mask_images,
)
from ppfr.training._objective import Batch, Objective, OptimiserSettings, ParameterGroup, Player, as_json

ANALYST = "analyst"
_LEAST_ENERGY = 1e-12


class ChannelAnalysisObjective(Objective):
    """A gate per channel and a recogniser behind the gates; what a channel shows is charged, what it identifies pays.

    The gate of channel c is a_c = sigmoid(alpha_c / T). In training it is drawn, for each image and channel, from the
    binary concrete distribution, sigmoid((alpha_c + L) / T) with L logistic noise, so that it is open with probability
    sigmoid(alpha_c) and the network cannot make up for a half-open gate with larger weights. In evaluation there is no
    noise. A closed gate replaces its channel by the channel's mean over the data, a number that says nothing of the
    image: x_c -> mean_c + a_c * (x_c - mean_c).

    loss = task + penalty_weight * penalty, with penalty = sum_c a_c * E_c / sum_c E_c (noiseless gates) and
    E_c = mean |coefficient| of channel c. Energies and means are running averages over all images trained on.

    There is one task: the labels through `head`, or, for little data, the embedding of a frozen pretrained `teacher` on
    the plain image (mean of 1 - cos). The two losses have other scales, so a penalty weight is good for one of them.

    Args:
        masker: gives the plain channels that are judged, one gate for each; one that shuffles them afresh for every
            image gives no channel that could be judged.
        network: takes `masker.spec.out_shape`; random, or already trained on all channels (gates start open).
        head: with as many classes as the training set has subjects; or
        teacher: a recogniser on plain crops; frozen, not stored in checkpoints.
        teacher_card: what the teacher learned from; goes with `teacher`.
        penalty_weight: lambda; 0 closes nothing but what disturbs the task.
        temperature: T; smaller makes drawn gates nearer to 0 and 1, and gradients noisier.
        initial_gate: a_c at the start, for every channel.
        gate_lr_scale: the gates' rate as a multiple of the network's; gates have to travel further than weights.
        optimiser: AdamW at 1e-3 by default. With Adam a gate travels about `lr * gate_lr_scale` a step.
        knowledge: cards of whatever pretrained weights the network starts from.

    Raises:
        ShapeError: masker, network, head and teacher do not fit together.
        InvalidInputError: no task or two, a teacher without its card, a trainable masker, numbers out of range.

    References:
        Wang, Liu, Luo, Yang, Wang: "Privacy-Preserving Face Recognition in the Frequency Domain", AAAI 2022, states
        "recognition loss + lambda * face visualisation penalty, trained end to end". Gate, noise, penalty and task are
        guesses; see docs/methods/ppfr-fd.md.
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
        optimiser: OptimiserSettings | None = None,
        knowledge: Sequence[ModelCard] = (),
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
        self.teacher_card, self.knowledge = teacher_card, tuple(knowledge)
        self.penalty_weight, self.temperature = penalty_weight, temperature
        self.initial_gate, self.gate_lr_scale = initial_gate, gate_lr_scale
        self.optimiser = optimiser or OptimiserSettings(optimiser="adamw", lr=1e-3)
        self.frozen = (*(() if teacher is None else ("teacher",)), *frozen_masker(masker))
        num = masker.spec.out_shape[0]
        alpha = temperature * math.log(initial_gate / (1 - initial_gate))
        self.alpha_K = nn.Parameter(torch.full((num,), alpha))
        self.register_buffer("energy_K", torch.zeros(num))
        self.register_buffer("mean_K", torch.zeros(num))
        self.register_buffer("num_measured", torch.zeros((), dtype=torch.int64))

    def players(self) -> tuple[Player, ...]:
        """One: network and head, and the gates as a group at a rate of their own."""
        learners = [*self.network.parameters(), *([] if self.head is None else self.head.parameters())]
        groups = [
            ParameterGroup(parameters=learners),
            ParameterGroup(parameters=[self.alpha_K], lr_scale=self.gate_lr_scale),
        ]
        return (Player(name=ANALYST, parameters=groups, **self.optimiser.settings()),)

    def check_data(self, *, num_classes: int) -> None:
        """A head must have as many classes as the set has subjects."""
        check_head(self.head, self.network, num_classes=num_classes)

    def loss(self, player: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """The weighted sum under "loss", its terms, and the share of gates that are more open than closed."""
        masked_BKPQ = mask_images(self.masker, batch.images_BCHW, rng=rng)
        if self.training:
            self._measure(masked_BKPQ)
            gates_BK = self._drawn_gates(len(batch), rng)
        else:
            gates_BK = self._gates().expand(len(batch), -1)
        embedding_BD = self._embeddings(masked_BKPQ, gates_BK)
        task, penalty = self._compared(embedding_BD, batch.labels_B, self._wanted(batch)), self.penalty()
        open_share = (self.alpha_K.detach() > 0).float().mean()
        return {"loss": task + self.penalty_weight * penalty, "task": task, "penalty": penalty, "open": open_share}

    def penalty(self) -> Tensor:
        """sum_c a_c * E_c / sum_c E_c: the share of the channels' energy that the gates let through, in [0, 1]."""
        return (self._gates() * self.energy_K).sum() / self.energy_K.sum().clamp_min(_LEAST_ENERGY)

    def gates(self) -> tuple[float, ...]:
        """a_c of each channel, without noise."""
        return tuple(self._gates().detach().tolist())

    def energies(self) -> tuple[float, ...]:
        """E_c of each channel over the images trained on so far; zeros before the first."""
        return tuple(self.energy_K.tolist())

    def channels_kept(self, threshold: float = 0.5) -> tuple[int, ...]:
        """Channels of the masker's output whose gate is above the threshold, ascending."""
        return tuple(channel for channel, gate in enumerate(self.gates()) if gate > threshold)

    def energy_share(self, channels: Iterable[int]) -> float:
        """The share of all channels' energy that these hold, in [0, 1]."""
        energies = self.energies()
        return sum(energies[channel] for channel in set(channels)) / max(sum(energies), _LEAST_ENERGY)

    @torch.no_grad()
    def task_losses_with(self, channels: Iterable[int], batch: Batch, *, rng: torch.Generator) -> Tensor:
        """Each image's task loss where exactly these channels are let through, the network as it is.

        Call it in evaluation mode. Learns nothing and measures no energy.

        Returns:
            (B,) float32.
        """
        gates_K = torch.zeros_like(self.alpha_K)
        gates_K[sorted(set(channels))] = 1.0
        masked_BKPQ = mask_images(self.masker, batch.images_BCHW, rng=rng)
        given_BD = self._embeddings(masked_BKPQ, gates_K.expand(len(batch), -1))
        wanted_BD = self._wanted(batch)
        rows = [slice(row, row + 1) for row in range(len(batch))]
        return torch.stack(
            [self._compared(given_BD[r], batch.labels_B[r], None if wanted_BD is None else wanted_BD[r]) for r in rows]
        )

    def outcome(self) -> dict[str, Any]:
        """What the gates decided."""
        kept = self.channels_kept()
        return {
            "channels_kept": list(kept),
            "energy_share_kept": self.energy_share(kept),
            "gates": list(self.gates()),
            "energies": list(self.energies()),
        }

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
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
            "optimiser": as_json(self.optimiser.settings()),
            "knowledge": describe_knowledge(
                {
                    "teacher": [] if self.teacher_card is None else [self.teacher_card],
                    "initial weights": self.knowledge,
                }
            ),
        }

    def _gates(self) -> Tensor:
        return torch.sigmoid(self.alpha_K / self.temperature)

    def _drawn_gates(self, num: int, rng: torch.Generator) -> Tensor:
        """(B, K) draws of the binary concrete distribution."""
        # Kept off 0 and 1, where the logit is infinite.
        uniform_BK = torch.rand(num, len(self.alpha_K), generator=rng).clamp(1e-6, 1 - 1e-6).to(self.alpha_K.device)
        return torch.sigmoid((self.alpha_K + torch.logit(uniform_BK)) / self.temperature)

    def _embeddings(self, masked_BKPQ: Tensor, gates_BK: Tensor) -> Tensor:
        """What the network makes of the channels behind their gates, (B, D)."""
        mean_K11 = self.mean_K[:, None, None]
        embedding_BD: Tensor = self.network(mean_K11 + gates_BK[:, :, None, None] * (masked_BKPQ - mean_K11))
        return embedding_BD

    @torch.no_grad()
    def _wanted(self, batch: Batch) -> Tensor | None:
        """The teacher's embeddings of the plain images, (B, D); None where labels are the task."""
        return None if self.teacher is None else self.teacher(batch.images_BCHW)

    def _compared(self, embedding_BD: Tensor, labels_B: Tensor, wanted_BD: Tensor | None) -> Tensor:
        """The task's loss, a scalar."""
        if wanted_BD is not None:
            return embedding_error(embedding_BD, wanted_BD)
        assert self.head is not None
        return self.head.loss(embedding_BD, labels_B)

    @torch.no_grad()
    def _measure(self, masked_BKPQ: Tensor) -> None:
        """Take the batch into the averages, so that each image seen so far weighs the same."""
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
            f"{given} of head and teacher given; allowed is one: head=... to learn from labels, or teacher=... with "
            "teacher_card=... to learn a pretrained network's embeddings"
        )
    if (teacher is None) != (teacher_card is None):
        raise InvalidInputError("teacher and teacher_card go together: give both, or neither")
    if masker.spec.is_trainable:
        raise InvalidInputError(
            f"the masker {masker.name} is trained, so its channels change under the analysis; analyse a fixed one"
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
            f"gate_lr_scale={gate_lr_scale}; allowed are 0 or more, above 0, between 0.5 and 1, and above 0"
        )


def _check_length(network: Backbone, teacher: Backbone) -> None:
    if network.dim != teacher.dim:
        raise InvalidInputError(
            f"the network gives embeddings of {network.dim}, the teacher of {teacher.dim}; build the network with "
            "dim=teacher.dim"
        )
