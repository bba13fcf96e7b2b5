"""Several players: none moves another's parameters; parameters are shared out exactly once."""

from __future__ import annotations

import pytest
import torch
from toy_training import ToyGan, ToyImages, ToyObjective, weights

from ppfr.core import InvalidInputError, ProblemsError
from ppfr.training import Objective, ParameterGroup, Plan, Player, fit

PLAN = Plan(passes=1, batch_size=8)


def _fit(objective):
    return fit(objective, ToyImages(), plan=PLAN, seed=1, run_dir=None, device="cpu", progress=False)


def test_a_player_moves_its_own_parameters_alone():
    class Idle(ToyGan):
        """One player's loss is constant in its own parameters: only its own turn could move them."""

        def __init__(self, idle):
            super().__init__()
            self.idle = idle

        def loss(self, player, batch, *, rng, progress):
            terms = super().loss(player, batch, rng=rng, progress=progress)
            return {"loss": terms["loss"] * (0.0 if player == self.idle else 1.0)}

    for idle, moved in (("critic", "painter"), ("painter", "critic")):
        objective = Idle(idle)
        # Weight decay would move them without any gradient.
        objective.players = lambda objective=objective: tuple(
            Player(name=name, parameters=list(getattr(objective, name).parameters()), lr=0.01, weight_decay=0.0)
            for name in ("critic", "painter")
        )
        before = {name: weights(getattr(objective, name)) for name in ("critic", "painter")}
        _fit(objective)
        assert torch.equal(weights(getattr(objective, idle)), before[idle])
        assert not torch.equal(weights(getattr(objective, moved)), before[moved])


def test_a_turn_leaves_no_gradient_on_another_player():
    objective = ToyGan()
    record = _fit(objective)
    turns = objective.grads_seen
    assert [turn[0] for turn in turns[:4]] == ["critic", "painter", "critic", "painter"]
    # At the first step's painter turn the critic has moved; the painter got no gradient from it, and needed none.
    assert turns[0][1:] == (False, False)
    assert turns[1][1:] == (False, True)
    assert set(record.losses) == {"critic/loss", "painter/loss", "painter/likeness"}
    assert record.num_parameters == {"critic": 369, "painter": 84}


def test_parameters_without_a_player_or_with_two_are_refused():
    class Odd(ToyObjective):
        def players(self):
            shared = self.network[0].weight
            return (
                Player(name="a", parameters=[shared, torch.nn.Parameter(torch.zeros(2))]),
                Player(name="b", parameters=[shared]),
            )

    with pytest.raises(ProblemsError) as caught:
        _fit(Odd())
    text = str(caught.value)
    assert "network.0.weight: in players a, b" in text
    assert "network.5.bias: in no player" in text
    assert "a parameter outside the objective" in text


def test_a_frozen_part_is_not_trained_and_stays_in_evaluation_mode(tmp_path):
    class WithTeacher(ToyObjective):
        frozen = ("teacher",)

        def __init__(self, value=1.0):
            super().__init__()
            self.teacher = torch.nn.BatchNorm2d(3)
            torch.nn.init.constant_(self.teacher.weight, value)

        def loss(self, player, batch, *, rng, progress):
            assert self.network.training
            assert not self.teacher.training
            assert not self.teacher(batch.images_BCHW).requires_grad
            return super().loss(player, batch, rng=rng, progress=progress)

    objective = WithTeacher()
    before = weights(objective.teacher)
    fit(objective, ToyImages(), plan=PLAN, seed=1, run_dir=tmp_path, device="cpu", progress=False)
    assert torch.equal(weights(objective.teacher), before)
    from safetensors import safe_open

    with safe_open(next((tmp_path / "checkpoints").iterdir()), framework="pt") as file:
        assert not [name for name in file.keys() if "teacher" in name]  # noqa: SIM118
    from ppfr.core import CheckpointError

    with pytest.raises(CheckpointError, match="frozen_weights_sha256"):
        fit(WithTeacher(2.0), ToyImages(), plan=PLAN, seed=1, run_dir=tmp_path, device="cpu", resume=True)


def test_weight_decay_spares_vectors_and_groups_have_their_own_rate():
    linear, norm = torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)
    groups = [
        ParameterGroup(parameters=list(linear.parameters())),
        ParameterGroup(parameters=list(norm.parameters()), lr_scale=0.1),
    ]
    optimiser = Player(name="p", parameters=groups, optimiser="adamw", lr=0.5, weight_decay=0.2).make_optimiser()
    facts = [(len(g["params"]), g["lr"], g["weight_decay"]) for g in optimiser.param_groups]
    assert facts == [(1, 0.5, 0.2), (1, 0.5, 0.0), (2, 0.05, 0.0)]
    with pytest.raises(InvalidInputError, match="at least one"):
        Player(name="p", parameters=[]).make_optimiser()


def test_a_loss_without_the_name_loss_is_refused():
    class Nameless(ToyObjective):
        def loss(self, player, batch, *, rng, progress):
            return {"error": super().loss(player, batch, rng=rng, progress=progress)["loss"]}

    with pytest.raises(InvalidInputError, match="gives error; 'loss' must be among it"):
        _fit(Nameless())


def test_an_objective_is_abstract():
    with pytest.raises(TypeError):
        Objective()
