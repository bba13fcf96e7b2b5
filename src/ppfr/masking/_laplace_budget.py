"""A total privacy budget that is divided among coefficients, and the Laplace noise that follows from each share.

Shape suffixes: B images, K frequency channels, P Q block grid, N = K*P*Q.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.masking._front_end import check_choice
from ppfr.masking._grid_noise import STEPS_PER_SCALE, Grid, SentValue, SystemNoise
from ppfr.masking._noise import ImageNoise
from ppfr.masking._sensitivities import (
    SCALE,
    NoisyFrontEnd,
    Sensitivities,
    as_sensitivities,
    built_in_origin,
    built_in_sensitivities,
)

Shares = Literal["coefficient", "channel"]

LARGEST_OUTPUT = 2.0**15
"""Noisy values are clamped to +-this value, which float16 can hold. This post-processing costs no privacy."""

_LARGEST_SCALE = 1e30
_PIECE_FLOATS = 1 << 18
_UNIT = 1 / SCALE  # one unit of the coefficients before they are divided


@final
class LaplaceBudget(nn.Module):
    """eps_i = softmax(rho)_i * B with B = eps_mean * N; coefficient i gets Laplace noise of scale S_i / eps_i.

    rho starts at zero, where every coefficient has eps_mean. Noise is reparameterised, y = clip(x) + scale * n with
    n ~ Laplace(0, 1), so that a loss on y has a gradient with respect to rho. The shares sum to one: a step moves
    budget from one coefficient to another and never increases the total. The gradient of the recogniser's loss is d
    loss / d rho_j = -a_j + p_j * sum(a) with a_i = (d loss / d y_i) * n_i * scale_i and p = softmax(rho). Budget moves
    to coefficients whose noise costs the recogniser more than their share of the budget, and away from those that the
    recogniser does not use. No term of the loss accounts for what an attacker can use.

    Args:
        front_end: computes the coefficients; (K, P, Q) is its `out_shape`.
        eps_mean: mean privacy parameter of a coefficient, above 0; infinity means no noise and no clipping.
        sensitivities: the ranges of the coefficients; None for those of the built-in synthetic faces, which are
            measured at first use.
        sensitivities_sha256: expected checksum of the sensitivities; others are rejected.
        is_measured: False for the published settings: S = 1 on coefficients in [-1024, 1016], no clipping, and a
            learned shift.
        shares: "coefficient": each has its own rho, as in the paper. "channel": one rho for all places of a channel,
            which a short training can learn: its gradient is a sum over the grid.
        lr_scale: learning rate of rho as a multiple of the optimizer's, for optimizers of the Adam family. During
            training the stored parameter is rho / lr_scale.
        learns: whether gradients reach rho (and loc).
        learned: values of rho (and loc) to start from, (K, P, Q) each; (K, 1, 1) for the rho of channels.
        learned_sha256: expected checksum of the learned values; others are rejected.

    Raises:
        RangeError: eps_mean is 0 or below, or learned values are not finite.
        ShapeError: learned values have another shape.
        InvalidInputError: sensitivities or learned values have another checksum than expected.
    """

    def __init__(
        self,
        front_end: NoisyFrontEnd,
        *,
        eps_mean: float | str,
        sensitivities: Sensitivities | Mapping[str, np.ndarray] | None = None,
        sensitivities_sha256: str | None = None,
        is_measured: bool = True,
        shares: Shares = "coefficient",
        lr_scale: float = 1.0,
        learns: bool = True,
        learned: Mapping[str, np.ndarray] | None = None,
        learned_sha256: str | None = None,
    ) -> None:
        super().__init__()
        self.rho: nn.Parameter | None
        self.loc: nn.Parameter | None
        self.eps_mean, self.shape = _checked_eps(eps_mean), front_end.out_shape
        self._reference = self._checked_reference(front_end, sensitivities, is_measured=is_measured)
        check_choice("shares", shares, ("coefficient", "channel"))
        if not 0 < lr_scale < math.inf:
            raise RangeError(f"lr_scale is {lr_scale}; it must be above 0 and finite: 1 keeps the optimizer's rate")
        self.shares, self.lr_scale = shares, float(lr_scale)
        self._shapes = {"rho": self.shape if shares == "coefficient" else (self.shape[0], 1, 1), "loc": self.shape}
        names = () if not self.has_noise else ("rho",) if is_measured else ("rho", "loc")
        start = _learned_values(learned, {name: self._shapes[name] for name in names})
        # One axis: the training loop applies weight decay to parameters with two or more axes, and it would pull rho to
        # zero.
        with torch.inference_mode(False):
            for name in ("rho", "loc"):
                values = start.get(name, torch.zeros(math.prod(self._shapes[name])))
                values = values / self.lr_scale if name == "rho" else values
                parameter = nn.Parameter(values, requires_grad=bool(learns)) if name in names else None
                self.register_parameter(name, parameter)
        self.learns = bool(learns)
        self._ranges_on: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}
        self._constants_on: dict[torch.device, tuple[Any, Tensor, Tensor | None]] = {}
        self._grids_on: dict[torch.device, tuple[Any, Grid]] = {}
        _check_sha256("sensitivities", self.sensitivities_sha256, sensitivities_sha256)
        _check_sha256("learned values", self.learned_sha256() if learned_sha256 else None, learned_sha256)

    def _checked_reference(
        self,
        front_end: NoisyFrontEnd,
        sensitivities: Sensitivities | Mapping[str, np.ndarray] | None,
        *,
        is_measured: bool,
    ) -> Sensitivities | NoisyFrontEnd | None:
        if not is_measured:
            if sensitivities is not None:
                raise InvalidInputError(
                    "settings='published' uses sensitivity 1 everywhere: omit sensitivities, or use 'corrected'"
                )
            return None
        if sensitivities is None and not self.has_noise:
            return None  # without noise there is no clipping either
        return as_sensitivities(sensitivities, front_end)

    @property
    def sensitivities(self) -> Sensitivities | None:
        """The ranges. The built-in ones are measured at first use."""
        if isinstance(self._reference, NoisyFrontEnd):
            return built_in_sensitivities(self._reference)
        return self._reference

    @property
    def sensitivities_sha256(self) -> str | None:
        """Checksum of the ranges, known before built-in ones are measured; None if there are no ranges."""
        if isinstance(self._reference, NoisyFrontEnd):
            return built_in_origin(self._reference).hex()
        return None if self._reference is None else self._reference.sha256

    @property
    def has_noise(self) -> bool:
        """Whether the budget is finite."""
        return math.isfinite(self.eps_mean)

    @property
    def total_eps(self) -> float:
        """B, the sum of all eps_i."""
        return self.eps_mean * math.prod(self.shape)

    def eps(self) -> Tensor:
        """eps_i, (K, P, Q) float32, infinite without noise. Has a gradient if rho does."""
        if self.rho is None:
            return torch.full(self.shape, math.inf)
        return self._log_eps(self.rho).exp().view(self.shape)

    def accounted_eps(self) -> np.ndarray:
        """`eps` in double precision for the accountant: (K, P, Q) float64, from the current rho."""
        if self.rho is None:
            return np.full(self.shape, math.inf)
        return self._log_eps(self.rho.detach().cpu().double()).exp().view(self.shape).numpy()

    def _log_eps(self, stored: Tensor) -> Tensor:
        rho_N = stored * self.lr_scale
        if self.shares == "channel":
            num, *grid = self.shape
            rho_N = rho_N.view(num, 1).expand(num, math.prod(grid)).reshape(-1)
        # Not log_softmax, which adds the terms one by one on a CPU and is off by 2e-4 for 2.4 million terms.
        return rho_N - torch.logsumexp(rho_N, 0) + math.log(self.total_eps)

    def scale(self, device: torch.device) -> Tensor:
        """S_i / eps_i, (N,) float32, in units of the coefficients."""
        assert self.rho is not None
        inverse_N = self._log_eps(self.rho.to(device)).neg().exp()
        # At this scale a draw exceeds the output range except with probability 1e-25, so a larger scale changes
        # nothing.
        return (self._ranges(device)[2] * inverse_N).clamp(max=_LARGEST_SCALE)

    def add_noise(self, values_BKPQ: Tensor, noise: ImageNoise | SystemNoise) -> Tensor:
        """Clip values to their ranges, add noise, and clamp to +-LARGEST_OUTPUT, which is post-processing.

        Under `SystemNoise` the clipped values are rounded to a grid of 256 steps per noise scale, and the noise is a
        whole number of steps. Seeded noise is added in floating point.

        Args:
            values_BKPQ: coefficients; overwritten if they require no gradient.
            noise: source of the draws; one row per image, or one row for all.
        """
        if self.rho is None or len(values_BKPQ) == 0:
            return values_BKPQ
        if isinstance(noise, SystemNoise):
            return self._on_grid(values_BKPQ.flatten(1), noise).view(values_BKPQ.shape)
        values_BN, device = values_BKPQ.flatten(1), values_BKPQ.device
        if torch.is_grad_enabled() and (values_BN.requires_grad or self.rho.requires_grad):
            return self._noisy(values_BN, noise.laplace(values_BN.shape[1], device)).view(values_BKPQ.shape)
        low_N, high_N, _ = self._ranges(device)
        _, scale_N, shift_N = self._constants_with_version(device)
        for part_BN, drawn_BN in _with_draws(values_BN, noise):
            if self._reference is not None:
                part_BN.clamp_(low_N, high_N)
            part_BN.addcmul_(drawn_BN, scale_N)
            self._finish(part_BN, shift_N)
        return values_BKPQ

    def centre(self, values_BKPQ: Tensor) -> Tensor:
        """What `add_noise` sends if every draw is zero, up to the rounding to a grid; without gradient."""
        if self.rho is None:
            return values_BKPQ
        low_N, high_N, _ = self._ranges(values_BKPQ.device)
        _, _, shift_N = self._constants_with_version(values_BKPQ.device)
        clipped_BN = torch.minimum(torch.maximum(values_BKPQ.flatten(1), low_N), high_N)
        return self._finish(clipped_BN, shift_N).view(values_BKPQ.shape)

    def _on_grid(self, values_BN: Tensor, noise: SystemNoise) -> Tensor:
        """`add_noise` on the grid; the same values with and without gradient."""
        device, (_, _, shift_N) = values_BN.device, self._constants_with_version(values_BN.device)
        grid = self._grid(device)
        needs_gradient = torch.is_grad_enabled() and (
            values_BN.requires_grad or (self.rho is not None and self.rho.requires_grad)
        )
        if not needs_gradient:
            with torch.no_grad():
                for part_BN, steps_BN in _with_draws(values_BN, noise):
                    self._finish(grid.send(part_BN, steps_BN), shift_N)
            return values_BN
        steps_BN = noise.steps(values_BN.shape[1], device)
        with torch.no_grad():
            sent_BN = self._finish(grid.send(values_BN.detach().clone(), steps_BN), shift_N)
        continuous_BN = self._noisy(values_BN, steps_BN / STEPS_PER_SCALE)
        sent: Tensor = SentValue.apply(continuous_BN, sent_BN)
        return sent

    @staticmethod
    def _finish(noisy_BN: Tensor, shift_N: Tensor | None) -> Tensor:
        """Shift and clamp, in place."""
        if shift_N is not None:
            noisy_BN.add_(shift_N)
        return noisy_BN.clamp_(-LARGEST_OUTPUT, LARGEST_OUTPUT)

    def _grid(self, device: torch.device) -> Grid:
        """The grid on a device, cached until rho changes."""
        version, scale_N, _ = self._constants_with_version(device)
        if device not in self._grids_on or self._grids_on[device][0] != version:
            with torch.inference_mode(False), torch.no_grad():
                low_N, _, range_N = self._ranges(device)
                if self._reference is None:
                    grid = Grid.without_ranges(scale_N, largest=1.0)
                else:
                    eps_N = torch.from_numpy(self.accounted_eps()).flatten()
                    grid = Grid.of_ranges(low_N, range_N, scale_N, eps_N)
                self._grids_on[device] = (version, grid)
        return self._grids_on[device][1]

    def _noisy(self, values_BN: Tensor, noise_BN: Tensor) -> Tensor:
        """`add_noise` with gradient."""
        device = values_BN.device
        low_N, high_N, _ = self._ranges(device)
        clipped_BN = torch.minimum(torch.maximum(values_BN, low_N), high_N)
        noisy_BN = torch.addcmul(clipped_BN, noise_BN, self.scale(device))
        if self.loc is not None:
            noisy_BN = noisy_BN + self.loc.to(device) * _UNIT
        return noisy_BN.clamp(-LARGEST_OUTPUT, LARGEST_OUTPUT)

    def _ranges(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """low, high and S on a device, cached per device."""
        if device not in self._ranges_on:
            with torch.inference_mode(False), torch.no_grad():
                found = self.sensitivities
                if found is None:
                    bound, unit = (torch.full((1,), value, device=device) for value in (math.inf, _UNIT))
                    self._ranges_on[device] = (-bound, bound, unit)
                else:
                    low, high = (torch.tensor(part, device=device).flatten() for part in (found.low, found.high))
                    self._ranges_on[device] = (low, high, high - low)
        return self._ranges_on[device]

    def _constants_with_version(self, device: torch.device) -> tuple[Any, Tensor, Tensor | None]:
        """The version of rho and loc, and scale and shift on a device, cached until rho or loc change."""
        version = tuple((part.data_ptr(), part._version) for part in (self.rho, self.loc) if part is not None)
        if device not in self._constants_on or self._constants_on[device][0] != version:
            with torch.inference_mode(False), torch.no_grad():
                shift = None if self.loc is None else torch.mul(self.loc.to(device), _UNIT)
                self._constants_on[device] = (version, self.scale(device), shift)
        return self._constants_on[device]

    def learned(self) -> dict[str, np.ndarray]:
        """The learned parameters by name, float32; empty without noise."""
        found = {"rho": None if self.rho is None else self.rho * self.lr_scale, "loc": self.loc}
        return {
            name: part.detach().cpu().view(self._shapes[name]).numpy().copy()
            for name, part in found.items()
            if part is not None
        }

    def learned_sha256(self) -> str:
        """Checksum of the learned parameters."""
        digest = hashlib.sha256(b"laplace-budget/1")
        for name, array in self.learned().items():
            digest.update(repr((name, array.shape)).encode() + array.tobytes())
        return digest.hexdigest()

    def config(self) -> dict[str, Any]:
        """The budget's part of a masker's `public_config`. Without the learned parameters while `learns`."""
        return {
            "eps_mean": self.eps_mean if self.has_noise else "inf",  # JSON has no infinity
            "sensitivities_sha256": self.sensitivities_sha256,
            "shares": self.shares,
            "lr_scale": self.lr_scale,
            "learns": self.learns,
            "learned_sha256": self.learned_sha256() if self.has_noise and not self.learns else None,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The budget's part of a masker's `public_arrays`."""
        sensitivities = self.sensitivities
        given = {} if sensitivities is None else sensitivities.arrays()
        return {f"sensitivities.{part}": array for part, array in given.items()} | {
            f"learned.{part}": array for part, array in self.learned().items()
        }

    def deployed(self) -> dict[str, Any]:
        """Constructor arguments of a masker with the same budget, frozen."""
        given = self._reference if isinstance(self._reference, Sensitivities) else None
        return self.config() | {
            "sensitivities": given,
            "lr_scale": 1.0,  # a frozen budget stores rho itself
            "learns": False,
            "learned": self.learned() or None,
            "learned_sha256": None,
        }

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_ranges_on": {}, "_constants_on": {}, "_grids_on": {}}


def _checked_eps(eps_mean: float | str) -> float:
    try:
        eps = float(eps_mean)
    except (TypeError, ValueError):
        eps = math.nan
    if not eps > 0:
        raise RangeError(
            f"eps_mean is {eps_mean!r}; it must be a number above 0, smaller means more noise: 0.5 to 4 are common, "
            "float('inf') means no noise"
        )
    return eps


def _check_sha256(what: str, found: str | None, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise InvalidInputError(
            f"the {what} have checksum {(found or 'none')[:12]}..., expected {expected[:12]}...: pass the ones of the "
            "configuration. Those of another data set have other ranges, and the network was trained with other noise"
        )


def _learned_values(
    learned: Mapping[str, np.ndarray] | None, shapes: Mapping[str, tuple[int, int, int]]
) -> dict[str, Tensor]:
    """Check the learned parameters and return them as flat tensors."""
    if learned is None:
        return {}
    if set(learned) != set(shapes):
        raise InvalidInputError(
            f"learned contains {', '.join(sorted(learned)) or 'nothing'}; this masker expects "
            f"{' and '.join(shapes) or 'nothing'}: pass the learned parameters of a masker with the same settings"
        )
    for name, array in learned.items():
        if tuple(np.shape(array)) != shapes[name]:
            raise ShapeError(f"learned {name} has shape {np.shape(array)}; it must be {shapes[name]}")
        if not np.isfinite(array).all():
            raise RangeError(f"learned {name} contains values that are not finite; train again")
    return {name: torch.tensor(np.asarray(array, np.float32)).flatten() for name, array in learned.items()}


def _with_draws(values_BN: Tensor, noise: ImageNoise | SystemNoise) -> Iterator[tuple[Tensor, Tensor]]:
    """The batch in parts, each with its draws. On a CPU, small parts stay in cache and their draws reuse one buffer."""
    if isinstance(noise, SystemNoise):
        draw, draw_row = noise.steps, noise.steps_row
    else:
        draw, draw_row = noise.laplace, noise.laplace_row
    num, num_values = values_BN.shape
    if values_BN.device.type != "cpu" or noise.is_shared:
        yield values_BN, draw(num_values, values_BN.device)
        return
    piece = max(1, _PIECE_FLOATS // num_values)
    buffer_BN = values_BN.new_empty(piece, num_values)
    for start in range(0, num, piece):
        part_BN = values_BN[start : start + piece]
        drawn_BN = buffer_BN[: len(part_BN)]
        for row in range(len(part_BN)):
            draw_row(start + row, drawn_BN[row])
        yield part_BN, drawn_BN
