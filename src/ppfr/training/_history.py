"""The loss history of a run: finiteness check, loss curve, final averages, and state for resuming."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ppfr.core import RangeError
from ppfr.training._plan import Plan

_NUM_CURVE_POINTS = 200
_NUM_LAST_STEPS = 50
# The fp16 scaler starts at 2**16 and halves its scale at each overflow. After 25 overflows in a row, the scale cannot
# be the cause.
_MAX_OVERFLOWS_IN_A_ROW = 25


class LossHistory:
    """Losses by step.

    Reading a loss from a GPU waits for the step to finish. Losses are therefore kept as tensors and read `read_every`
    at a time.
    """

    def __init__(
        self, *, plan: Plan, num_steps: int, read_every: int, rates: Mapping[str, float], charted: Collection[str]
    ) -> None:
        self._plan, self._rates, self._read_every = plan, dict(rates), read_every
        self._charted = {f"{name}/loss" for name in charted}
        self._stride = max(1, math.ceil(num_steps / _NUM_CURVE_POINTS))
        self._unread: list[tuple[int, list[str], Tensor]] = []
        self._num_overflows = 0
        self._curve: list[list[float]] = []
        self._last: list[dict[str, float]] = []

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of one step, named "group/term"."""
        self._unread.append((step, list(losses), torch.stack([value.detach().float() for value in losses.values()])))

    def is_due(self) -> bool:
        """Whether enough steps are unread."""
        return len(self._unread) >= self._read_every

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """The losses of the unread steps as numbers.

        Raises:
            RangeError: a loss is not finite; names the optimizer group, the step and the remedies.
        """
        rows: list[tuple[int, dict[str, float]]] = []
        for step, names, values in self._unread:
            row = dict(zip(names, values.tolist(), strict=True))
            self._check(step, row)
            rows.append((step, row))
            self._last = [*self._last[1 - _NUM_LAST_STEPS :], row]
            total = sum(value for name, value in row.items() if name in self._charted)
            if step % self._stride == 0 and math.isfinite(total):
                self._curve.append([step, total])
        self._unread = []
        return rows

    def _check(self, step: int, row: Mapping[str, float]) -> None:
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        self._num_overflows = self._num_overflows + 1 if bad else 0
        is_tolerated = self._plan.precision == "16-mixed" and self._num_overflows < _MAX_OVERFLOWS_IN_A_ROW
        if not bad or is_tolerated:
            return
        group = bad[0].split("/")[0]
        clip = "no clipping" if self._plan.clip_norm is None else f"clip_norm {self._plan.clip_norm}"
        raise RangeError(
            f"{', '.join(bad)} is not finite at step {step}. Lower the learning rate of optimizer group {group!r} (now "
            f"{self._rates[group]:g}), lengthen the warm-up (now {self._plan.warmup_steps} steps), clip gradients "
            f"(now {clip}), or use precision 32-true (now {self._plan.precision}). Earlier checkpoints are valid"
        )

    def final(self) -> dict[str, float]:
        """Mean of each loss over those of the last steps that have it; some groups are not updated at every step."""
        rows = [row for row in self._last if all(math.isfinite(v) for v in row.values())] or self._last
        found: dict[str, list[float]] = {}
        for row in rows:
            for name, value in row.items():
                found.setdefault(name, []).append(value)
        return {name: sum(values) / len(values) for name, values in found.items()}

    def curve(self) -> list[list[float]]:
        """[step, sum of the losses of the charted optimizer groups], at most 200 points."""
        return [list(point) for point in self._curve]

    def state(self) -> dict[str, Any]:
        """JSON-ready state. All steps must have been read."""
        assert not self._unread
        return {"curve": self.curve(), "last": self._last}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._curve, self._last = [list(p) for p in state["curve"]], [dict(row) for row in state["last"]]
