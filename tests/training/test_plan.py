"""Training plans: the schedule in closed form, and rejected values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppfr.core import ProblemsError
from ppfr.training import OptimizerSettings, Plan


def test_cosine_schedule_with_warmup_and_end_factor():
    plan = Plan(epochs=4, batch_size=10, warmup_steps=5, end_factor=0.1)
    assert plan.num_steps(259) == 100
    factors = [plan.rate_factor(step, num_images=259) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    for step in (5, 30, 99):
        assert factors[step] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * (step - 5) / 95)) / 2)


def test_step_schedule_at_epochs():
    plan = Plan(epochs=24, batch_size=64, schedule="step", milestones=(10, 18, 22))
    at = {epoch: plan.rate_factor(epoch * 10, num_images=640) for epoch in (0, 9, 10, 17, 18, 22, 23)}
    assert at == pytest.approx({0: 1, 9: 1, 10: 0.1, 17: 0.1, 18: 0.01, 22: 0.001, 23: 0.001})
    assert plan.rate_factor(10 * 10 - 1, num_images=640) == 1


def test_max_steps_shortens_run_and_schedule():
    plan = Plan(epochs=100, batch_size=10, max_steps=20)
    assert plan.num_steps(1000) == 20
    assert plan.rate_factor(10, num_images=1000) == pytest.approx(0.5)


@settings(deadline=None, max_examples=50)
@given(
    schedule=st.sampled_from(["cosine", "constant"]),
    warmup=st.integers(0, 40),
    epochs=st.integers(1, 5),
    num_images=st.integers(8, 200),
)
def test_rate_factor_is_in_unit_interval_and_decreases_after_warmup(schedule, warmup, epochs, num_images):
    plan = Plan(epochs=epochs, batch_size=8, schedule=schedule, warmup_steps=warmup)
    factors = [plan.rate_factor(step, num_images=num_images) for step in range(plan.num_steps(num_images))]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


def test_plan_reports_all_problems_at_once():
    with pytest.raises(ProblemsError) as caught:
        Plan(epochs=0, batch_size=0, schedule="linear", precision="8-bit", clip_norm=-1.0, flip=1.5, milestones=(3, 2))
    text = str(caught.value)
    for part in ("epochs=0", "batch_size=0", "'linear'", "'8-bit'", "clip_norm=-1.0", "flip=1.5", "milestones=(3, 2)"):
        assert part in text
    with pytest.raises(ProblemsError, match=r"milestones=.*schedule='step'"):
        Plan(epochs=2, batch_size=4, schedule="step")
    with pytest.raises(ProblemsError, match="optimizer='lion'"):
        OptimizerSettings(optimizer="lion", lr=0)
