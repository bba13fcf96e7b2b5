"""What the loop trains: players with parameters, and a loss for each.

Shapes: `B` batch, `C H W` colours and pixels.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ppfr.core import InvalidInputError, ProblemsError

OPTIMISERS = ("sgd", "adam", "adamw")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One step's images, on the training device.

    Attributes:
        images_BCHW: plain aligned crops, RGB in [0, 1], float32, mirrored where the plan says so.
        labels_B: int64 class of each image: the rank of its subject among the set's sorted subjects.
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
class OptimiserSettings:
    """An optimiser and its constants; the plan's schedule multiplies `lr`.

    Attributes:
        optimiser: "sgd", "adam" or "adamw".
        lr: learning rate.
        weight_decay: on weights of two and more dimensions alone: never on biases, norms or activation slopes.
        momentum: for "sgd".
        betas: for "adam" and "adamw".

    Raises:
        ProblemsError: fields out of range, all of them at once.
    """

    optimiser: str = "sgd"
    lr: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        requirements = [
            (self.optimiser in OPTIMISERS, f"optimiser={self.optimiser!r}; allowed is {', '.join(OPTIMISERS)}"),
            (self.lr > 0, f"lr={self.lr}; allowed is a positive number"),
            (self.weight_decay >= 0, f"weight_decay={self.weight_decay}; allowed is 0 or more"),
            (0 <= self.momentum < 1, f"momentum={self.momentum}; allowed is 0 <= momentum < 1"),
            (all(0 <= b < 1 for b in self.betas), f"betas={self.betas}; allowed are two numbers, 0 <= beta < 1"),
        ]
        problems = [text for holds, text in requirements if not holds]
        if problems:
            raise ProblemsError("the optimiser settings cannot be used", problems)

    def settings(self) -> dict[str, Any]:
        """The optimiser's fields as keyword arguments: `Player(name=..., parameters=..., **settings.settings())`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(OptimiserSettings)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParameterGroup:
    """Parameters that learn at `lr_scale` times their player's rate."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Player(OptimiserSettings):
    """Parameters that one optimiser moves against one loss: one player for most, two for a GAN.

    Attributes:
        name: passed to `Objective.loss`.
        parameters: parameters, or groups of them with their own rate.
        every_steps: it has a turn at step 0 and at each such step from there.
        is_charted: its loss is part of the run's curve; false for one whose loss says nothing of success, as
            REINFORCE's.
    """

    name: str
    parameters: Sequence[nn.Parameter] | Sequence[ParameterGroup]
    every_steps: int = 1
    is_charted: bool = True

    def __post_init__(self) -> None:
        OptimiserSettings.__post_init__(self)
        if self.every_steps < 1:
            raise InvalidInputError(f"player {self.name!r} has every_steps={self.every_steps}; allowed is 1 or more")

    def groups(self) -> list[ParameterGroup]:
        """The parameters as groups."""
        found = list(self.parameters)
        groups = [g for g in found if isinstance(g, ParameterGroup)]
        plain = [p for p in found if isinstance(p, nn.Parameter)]
        if len(groups) + len(plain) != len(found) or not (groups or plain):
            raise InvalidInputError(f"player {self.name!r} needs parameters or ParameterGroups, at least one")
        return [*([ParameterGroup(parameters=plain)] if plain else []), *groups]

    def all_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of every group."""
        for group in self.groups():
            yield from group.parameters

    def make_optimiser(self) -> torch.optim.Optimizer:
        """The torch optimiser; each of its groups carries `full_lr`, the rate before the schedule."""
        torch_groups: list[dict[str, Any]] = []
        for group in self.groups():
            lr = self.lr * group.lr_scale
            for decay, members in (
                (self.weight_decay, [p for p in group.parameters if p.ndim >= 2]),
                (0.0, [p for p in group.parameters if p.ndim < 2]),
            ):
                if members:
                    torch_groups.append({"params": members, "lr": lr, "full_lr": lr, "weight_decay": decay})
        if self.optimiser == "sgd":
            return torch.optim.SGD(torch_groups, lr=self.lr, momentum=self.momentum)
        maker = torch.optim.Adam if self.optimiser == "adam" else torch.optim.AdamW
        return maker(torch_groups, lr=self.lr, betas=self.betas)


class Objective(nn.Module, ABC):
    """Networks, and the losses that train them.

    The loop asks for `players()` once, on the training device; then for each batch it calls `begin_step`, and for each
    player in order `loss`, backward, clipping and the optimiser's step; then `end_step`. In a player's turn the
    parameters of the other players do not require gradients, so keep no graph from one turn for the next.

    All state that matters for resuming lives in parameters and buffers. All randomness comes from `rng`, or from
    torch's global generators (dropout), which the loop seeds for each step.

    Attributes:
        frozen: names of submodules that are never trained: they stay in evaluation mode, need no gradient, and are left
            out of checkpoints (a checksum of their weights is kept instead).
    """

    frozen: tuple[str, ...] = ()

    @abstractmethod
    def players(self) -> tuple[Player, ...]:
        """Who learns what. Every parameter outside `frozen` belongs to exactly one player."""

    @abstractmethod
    def loss(self, player: str, batch: Batch, *, rng: torch.Generator, progress: float) -> dict[str, Tensor]:
        """The losses of one player on one batch.

        Args:
            player: the name of the player whose turn it is.
            batch: plain images; masking is the objective's first act.
            rng: CPU generator of this step, the same object in every player's turn.
            progress: share of the run that is done, in [0, 1).

        Returns:
            Scalars; "loss" is minimised, the others are logged.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-ready: what is trained, how, and from whose knowledge. Kept with checkpoints and results; no secrets."""

    def check_restored(self) -> None:
        """Called when a checkpoint was loaded: refuse one that the configuration cannot tell from the right one."""

    def outcome(self) -> dict[str, Any]:
        """JSON-ready: what the training found beside weights, for the record; nothing by default."""
        return {}

    def begin_step(self, step: int, progress: float) -> None:
        """Called before the players' turns: the place for a change of phase. It must depend on its arguments alone."""

    def end_step(self, step: int, progress: float) -> None:
        """Called after the last player's turn."""

    def check_data(self, *, num_classes: int) -> None:
        """Refuse a data set that does not fit, as a margin head of another number of classes."""

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen parts."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def freeze(self) -> None:
        """Put the frozen parts to rest: evaluation mode, no gradient."""
        for name in self.frozen:
            self.get_submodule(name).eval().requires_grad_(False)

    def learned_state(self) -> dict[str, Tensor]:
        """`state_dict` less the frozen parts: what a checkpoint holds."""
        return {name: value for name, value in self.state_dict().items() if not self._is_frozen(name)}

    def frozen_state(self) -> dict[str, Tensor]:
        """`state_dict` of the frozen parts."""
        return {name: value for name, value in self.state_dict().items() if self._is_frozen(name)}

    def _is_frozen(self, name: str) -> bool:
        return any(name.startswith(f"{prefix}.") for prefix in self.frozen)


def check_players(objective: Objective, players: Sequence[Player]) -> None:
    """Every trainable parameter in exactly one player, and no frozen one in any.

    Raises:
        ProblemsError: otherwise; names the parameters.
    """
    names = {id(p): name for name, p in objective.named_parameters()}
    owners: dict[int, list[str]] = {}
    for player in players:
        for parameter in player.all_parameters():
            owners.setdefault(id(parameter), []).append(player.name)
    frozen = {key for key, name in names.items() if objective._is_frozen(name)}
    problems = [
        f"{names.get(key, 'a parameter outside the objective')}: in players {', '.join(found)}; one is allowed"
        for key, found in owners.items()
        if len(found) > 1
    ]
    problems += [f"{names[key]}: frozen, and in player {owners[key][0]}" for key in frozen & owners.keys()]
    problems += ["a player has a parameter outside the objective; register its module" for key in owners.keys() - names]
    problems += [f"{names[key]}: in no player" for key in names if key not in owners and key not in frozen]
    if len({player.name for player in players}) != len(players) or not players:
        problems.append("players need distinct names, and there must be one at least")
    if problems:
        raise ProblemsError("the objective's players do not share out its parameters", problems)


def as_json(value: Any) -> Any:
    """Mappings, dataclasses and sequences as plain dicts and lists; bytes never, other objects as text."""
    if isinstance(value, bytes | bytearray):
        return "<redacted>"  # what a method keeps as bytes is a secret more often than not
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
