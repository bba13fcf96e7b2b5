"""The contract of the training loop: a task with losses, and the optimizer groups that minimise them.

Shapes: `B` batch, `C H W` colours and pixels.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ppfr.core import InvalidInputError, ProblemsError

OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """The images of one step, on the training device.

    Attributes:
        images_BCHW: plain aligned crops, RGB in [0, 1], float32; a share of them is mirrored, as the plan says.
        labels_B: int64 class of each image: the index of its subject among the sorted subjects of the set.
        indices_B: int64 index of each image in the set, on the CPU.
    """

    images_BCHW: Tensor
    labels_B: Tensor
    indices_B: Tensor

    def __len__(self) -> int:
        return len(self.labels_B)

    def __repr__(self) -> str:
        return f"Batch(num={len(self)}, values=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """An optimizer and its hyperparameters. The schedule of the plan multiplies `lr`.

    Attributes:
        optimizer: "sgd", "adam" or "adamw".
        lr: learning rate.
        weight_decay: applied only to parameters with two or more dimensions, never to biases, norms or PReLU slopes.
        momentum: for "sgd".
        betas: for "adam" and "adamw".

    Raises:
        ProblemsError: fields are out of range; lists all of them.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        requirements = [
            (self.optimizer in OPTIMIZERS, f"optimizer={self.optimizer!r}; allowed: {', '.join(OPTIMIZERS)}"),
            (self.lr > 0, f"lr={self.lr}; must be positive"),
            (self.weight_decay >= 0, f"weight_decay={self.weight_decay}; must be 0 or more"),
            (0 <= self.momentum < 1, f"momentum={self.momentum}; must satisfy 0 <= momentum < 1"),
            (all(0 <= b < 1 for b in self.betas), f"betas={self.betas}; both must satisfy 0 <= beta < 1"),
        ]
        problems = [text for holds, text in requirements if not holds]
        if problems:
            raise ProblemsError("invalid optimizer settings", problems)

    def settings(self) -> dict[str, Any]:
        """The fields as keyword arguments: `OptimizerGroup(name=..., parameters=..., **settings.settings())`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(OptimizerSettings)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParameterGroup:
    """Parameters that are trained at `lr_scale` times the learning rate of their optimizer group."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OptimizerGroup(OptimizerSettings):
    """Parameters that share one optimizer and one loss. Most tasks have one group; a GAN has two.

    Attributes:
        name: passed to `TrainingTask.loss`.
        parameters: parameters, or parameter groups with learning rates of their own.
        every_steps: the group is updated at step 0 and then once per `every_steps` steps.
        is_charted: whether the loss is part of the run's loss curve. Set it to False for a loss that does not measure
            progress, such as that of REINFORCE.
    """

    name: str
    parameters: Sequence[nn.Parameter] | Sequence[ParameterGroup]
    every_steps: int = 1
    is_charted: bool = True

    def __post_init__(self) -> None:
        OptimizerSettings.__post_init__(self)
        if self.every_steps < 1:
            raise InvalidInputError(
                f"optimizer group {self.name!r} has every_steps={self.every_steps}; must be 1 or more"
            )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The parameters as parameter groups."""
        found = list(self.parameters)
        groups = [g for g in found if isinstance(g, ParameterGroup)]
        plain = [p for p in found if isinstance(p, nn.Parameter)]
        if len(groups) + len(plain) != len(found) or not (groups or plain):
            raise InvalidInputError(
                f"optimizer group {self.name!r} needs at least one nn.Parameter or ParameterGroup, and nothing else"
            )
        return [*([ParameterGroup(parameters=plain)] if plain else []), *groups]

    def all_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of every parameter group."""
        for group in self.parameter_groups():
            yield from group.parameters

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer. Each of its parameter groups has `full_lr`, the learning rate before the schedule."""
        torch_groups: list[dict[str, Any]] = []
        for group in self.parameter_groups():
            lr = self.lr * group.lr_scale
            for decay, members in (
                (self.weight_decay, [p for p in group.parameters if p.ndim >= 2]),
                (0.0, [p for p in group.parameters if p.ndim < 2]),
            ):
                if members:
                    torch_groups.append({"params": members, "lr": lr, "full_lr": lr, "weight_decay": decay})
        if self.optimizer == "sgd":
            return torch.optim.SGD(torch_groups, lr=self.lr, momentum=self.momentum)
        optimizer_class = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return optimizer_class(torch_groups, lr=self.lr, betas=self.betas)


class TrainingTask(nn.Module, ABC):
    """Networks and the losses that train them.

    The loop calls `optimizer_groups()` once, on the training device. For each batch it calls `begin_step`, then for
    each optimizer group in order `loss`, backward, gradient clipping and the optimizer step, and finally `end_step`.
    While one group is updated, the parameters of the other groups do not require gradients, so a graph cannot be kept
    from one group for the next.

    All state that a resumed run needs must live in parameters and buffers. All randomness must come from `rng`, or from
    torch's global generators (dropout), which the loop seeds for each step.

    Attributes:
        frozen: names of submodules that are never trained. They stay in evaluation mode, do not require gradients and
            are left out of checkpoints, which store a checksum of their weights instead.
    """

    frozen: tuple[str, ...] = ()

    @abstractmethod
    def optimizer_groups(self) -> tuple[OptimizerGroup, ...]:
        """The optimizer groups. Every parameter outside `frozen` must belong to exactly one group."""

    @abstractmethod
    def loss(self, group: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """The losses of one optimizer group on one batch.

        Args:
            group: name of the optimizer group that is updated.
            batch: plain images. The task masks them itself.
            rng: CPU generator of this step; the same object for every group.
            progress: share of the run that is done, in [0, 1).

        Returns:
            Scalars. "loss" is minimised, the others are logged.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The configuration and the pretraining provenance, JSON-ready and without secrets.

        It is stored in checkpoints and results.
        """

    def check_restored(self) -> None:
        """Called after a checkpoint was loaded, to reject one that does not match in ways the configuration omits."""

    def outcome(self) -> dict[str, Any]:
        """Results of the training other than weights, JSON-ready, for the record. Empty by default."""
        return {}

    def begin_step(self, step: int, progress: float) -> None:
        """Called before the optimizer groups are updated, to change the phase. It may depend only on its arguments."""

    def end_step(self, step: int, progress: float) -> None:
        """Called after the last optimizer group was updated."""

    def check_data(self, *, num_classes: int) -> None:
        """Reject a data set that does not fit, for example a margin head with another number of classes."""

    def train(self, mode: bool = True) -> Self:
        """Set training mode for all parts that are not frozen."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def freeze(self) -> None:
        """Set the frozen parts to evaluation mode, without gradients."""
        for name in self.frozen:
            self.get_submodule(name).eval().requires_grad_(False)

    def learned_state(self) -> dict[str, Tensor]:
        """`state_dict` without the frozen parts: the weights that a checkpoint holds."""
        return {name: value for name, value in self.state_dict().items() if not self._is_frozen(name)}

    def frozen_state(self) -> dict[str, Tensor]:
        """`state_dict` of the frozen parts."""
        return {name: value for name, value in self.state_dict().items() if self._is_frozen(name)}

    def _is_frozen(self, name: str) -> bool:
        return any(name.startswith(f"{prefix}.") for prefix in self.frozen)


def check_optimizer_groups(task: TrainingTask, groups: Sequence[OptimizerGroup]) -> None:
    """Check that every trainable parameter is in exactly one optimizer group, and no frozen parameter in any.

    Raises:
        ProblemsError: otherwise; names the parameters.
    """
    names = {id(p): name for name, p in task.named_parameters()}
    owners: dict[int, list[str]] = {}
    for group in groups:
        for parameter in group.all_parameters():
            owners.setdefault(id(parameter), []).append(group.name)
    frozen = {key for key, name in names.items() if task._is_frozen(name)}
    problems = [
        f"{names.get(key, 'a parameter outside the task')}: in optimizer groups {', '.join(found)}; keep it in one"
        for key, found in owners.items()
        if len(found) > 1
    ]
    problems += [f"{names[key]}: frozen, but in optimizer group {owners[key][0]}" for key in frozen & owners.keys()]
    problems += [
        "an optimizer group has a parameter outside the task; register its module" for key in owners.keys() - names
    ]
    problems += [f"{names[key]}: in no optimizer group" for key in names if key not in owners and key not in frozen]
    if len({group.name for group in groups}) != len(groups) or not groups:
        problems.append("a task needs at least one optimizer group, and their names must be distinct")
    if problems:
        raise ProblemsError("the optimizer groups do not partition the parameters of the task", problems)
