"""Optimizer groups: no group changes the parameters of another, and every parameter is in exactly one group."""

from __future__ import annotations

import pytest
import torch

from ppfr.core import InvalidInputError, ProblemsError
from ppfr.training import OptimizerGroup, ParameterGroup, Plan, TrainingTask
from support.toy_training import ToyGan, ToyTask, run_fit, weights

PLAN = Plan(epochs=1, batch_size=8)


def _fit(task, run_dir=None, **options):
    return run_fit(task, run_dir, plan=PLAN, **options)


def test_group_update_changes_only_its_own_parameters():
    class Idle(ToyGan):
        """The loss of one group is constant, so its parameters could only be changed by the other group."""

        def __init__(self, idle):
            super().__init__()
            self.idle = idle

        def loss(self, group, batch, *, rng, progress):
            terms = super().loss(group, batch, rng=rng, progress=progress)
            return {"loss": terms["loss"] * (0.0 if group == self.idle else 1.0)}

    for idle, trained in (("critic", "painter"), ("painter", "critic")):
        task = Idle(idle)
        # Weight decay would change them without any gradient.
        task.optimizer_groups = lambda task=task: tuple(
            OptimizerGroup(name=name, parameters=list(getattr(task, name).parameters()), lr=0.01, weight_decay=0.0)
            for name in ("critic", "painter")
        )
        before = {name: weights(getattr(task, name)) for name in ("critic", "painter")}
        _fit(task)
        assert torch.equal(weights(getattr(task, idle)), before[idle])
        assert not torch.equal(weights(getattr(task, trained)), before[trained])


def test_group_update_leaves_no_gradients_on_other_groups():
    task = ToyGan()
    record = _fit(task)
    updates = task.grads_seen
    assert [update[0] for update in updates[:4]] == ["critic", "painter", "critic", "painter"]
    # When the painter is updated first, the critic has changed, but the painter received no gradient from it.
    assert updates[0][1:] == (False, False)
    assert updates[1][1:] == (False, True)
    assert set(record.losses) == {"critic/loss", "painter/loss", "painter/likeness"}
    assert record.num_parameters == {"critic": 369, "painter": 84}


def test_fit_rejects_parameters_in_no_or_several_optimizer_groups():
    class Odd(ToyTask):
        def optimizer_groups(self):
            shared = self.network[0].weight
            return (
                OptimizerGroup(name="a", parameters=[shared, torch.nn.Parameter(torch.zeros(2))]),
                OptimizerGroup(name="b", parameters=[shared]),
            )

    with pytest.raises(ProblemsError) as caught:
        _fit(Odd())
    text = str(caught.value)
    assert "network.0.weight: in optimizer groups a, b" in text
    assert "network.5.bias: in no optimizer group" in text
    assert "a parameter outside the task" in text


def test_frozen_part_is_not_trained_and_stays_in_evaluation_mode(tmp_path):
    class WithTeacher(ToyTask):
        frozen = ("teacher",)

        def __init__(self, value=1.0):
            super().__init__()
            self.teacher = torch.nn.BatchNorm2d(3)
            torch.nn.init.constant_(self.teacher.weight, value)

        def loss(self, group, batch, *, rng, progress):
            assert self.network.training
            assert not self.teacher.training
            assert not self.teacher(batch.images_BCHW).requires_grad
            return super().loss(group, batch, rng=rng, progress=progress)

    task = WithTeacher()
    before = weights(task.teacher)
    _fit(task, tmp_path)
    assert torch.equal(weights(task.teacher), before)
    from safetensors import safe_open

    with safe_open(next((tmp_path / "checkpoints").iterdir()), framework="pt") as file:
        assert not [name for name in file.keys() if "teacher" in name]  # noqa: SIM118
    from ppfr.core import CheckpointError

    with pytest.raises(CheckpointError, match="frozen_weights_sha256"):
        _fit(WithTeacher(2.0), tmp_path, resumes=True)


def test_weight_decay_skips_vectors_and_parameter_groups_have_own_learning_rate():
    linear, norm = torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)
    groups = [
        ParameterGroup(parameters=list(linear.parameters())),
        ParameterGroup(parameters=list(norm.parameters()), lr_scale=0.1),
    ]
    optimizer = OptimizerGroup(
        name="p", parameters=groups, optimizer="adamw", lr=0.5, weight_decay=0.2
    ).make_optimizer()
    facts = [(len(g["params"]), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert facts == [(1, 0.5, 0.2), (1, 0.5, 0.0), (2, 0.05, 0.0)]
    with pytest.raises(InvalidInputError, match="at least one"):
        OptimizerGroup(name="p", parameters=[]).make_optimizer()


def test_fit_rejects_losses_without_key_loss():
    class Nameless(ToyTask):
        def loss(self, group, batch, *, rng, progress):
            return {"error": super().loss(group, batch, rng=rng, progress=progress)["loss"]}

    with pytest.raises(InvalidInputError, match=r"returned error .*'net'.*'loss'"):
        _fit(Nameless())


def test_training_task_is_abstract():
    with pytest.raises(TypeError):
        TrainingTask()
