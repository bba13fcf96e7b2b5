"""Ciphertext-only channel alignment: information about a secret from many faces masked with it.

An adversary without the secret still sees thousands of faces that were masked with it. All of them are aligned, so the
mean of a channel over people shows which part of a face the channel describes. Second moments between channels, by
position and by shift, reveal the channels' frequencies and their relations. The adversary masks its own faces with a
secret of its own (the surrogate), and searches the linear map of channels that turns the statistics of the observed
images into those of the surrogate. The code is independent of any concrete protection. It assumes that two secrets
differ, at least approximately, by a linear map of the channels that is the same for all faces and positions.

Shape suffixes: B batch, N faces, K L masked channels, P Q masked grid, S positions of the grid, G cells and shifts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch.nn import functional

from ppfr.attacks._fresh_secret import FreshSecret
from ppfr.core import ImageMasker, MaskSpec, draws_from

if TYPE_CHECKING:
    from torch import Generator, Tensor

NUM_CELLS = 7
MAX_SHIFT = 3
MAX_PRODUCTS = 1e12


@final
class ChannelAlignment:
    """Estimates the map of channels from masked faces under an unknown secret to the surrogate's channels.

    The starting point is a ridge regression of the surrogate's mean images on the observed ones. L-BFGS then minimises
    the mismatch of the mean images, of the second moments in 7x7 cells, and of the second moments between each position
    and its neighbours up to 3 positions away.

    Args:
        reference_NKPQ: public faces masked with the surrogate secret; a few hundred.
        num_steps: maximum number of L-BFGS steps. More steps fit noise of the sample.
        ridge: penalty of the regression, relative to the mean square of the observed mean images.
    """

    def __init__(self, reference_NKPQ: Tensor, *, num_steps: int = 200, ridge: float = 1e-3) -> None:
        self.num_steps, self.ridge = num_steps, ridge
        self._wanted = _statistics(reference_NKPQ)

    def matrix_for(self, seen_NKPQ: Tensor) -> Tensor:
        """(L, K): surrogate channels from the observed ones, as in `einsum("lk,bkpq->blpq", matrix, seen)`.

        Args:
            seen_NKPQ: masked faces under one unknown secret, hundreds or more.
        """
        found = _statistics(seen_NKPQ)
        gram = found.mean_KS @ found.mean_KS.T
        damping = self.ridge * gram.diagonal().mean().clamp_min(1e-12)
        eye = torch.eye(len(gram), dtype=gram.dtype)
        start_LK = torch.linalg.solve(gram + damping * eye, found.mean_KS @ self._wanted.mean_KS.T).T
        return self._descend(start_LK, found).float()

    def _descend(self, start_LK: Tensor, found: Statistics) -> Tensor:
        """Minimise the mismatch of the statistics, each relative to the magnitude of the surrogate's."""
        matrix_LK = start_LK.clone().requires_grad_(True)
        optimiser = torch.optim.LBFGS(
            [matrix_LK], max_iter=self.num_steps, history_size=30, line_search_fn="strong_wolfe"
        )

        def misfit() -> Tensor:
            optimiser.zero_grad()
            value = _misfit(self._wanted.mean_KS, matrix_LK @ found.mean_KS)
            for wanted_GKK, found_GKK in zip(self._wanted.moments(), found.moments(), strict=True):
                value = value + _misfit(wanted_GKK, matrix_LK @ found_GKK @ matrix_LK.T)
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(misfit)
        return matrix_LK.detach()


@final
class AlignedDeployments(ImageMasker):
    """Simulated deployments, each mapped to the surrogate's channels with statistics of its own masked faces.

    An attack trained on it sees the same alignment errors as at the real deployment.

    Args:
        masker: simulates deployments.
        sample_NCHW: public faces from which the alignments are computed.
        num_deployments: number of simulated secrets in addition to the surrogate; each call of `mask` uses one secret.
        rng: draws the secrets.
    """

    def __init__(self, masker: FreshSecret, sample_NCHW: Tensor, *, num_deployments: int, rng: Generator) -> None:
        self._name, self._config, self._spec = masker.name, masker.public_config(), masker.spec
        surrogate = masker.draw(rng=rng)
        self.alignment = ChannelAlignment(_mask_in_parts(surrogate, sample_NCHW, rng=rng))
        eye = torch.eye(surrogate.spec.out_shape[0])
        self._deployments: list[tuple[ImageMasker, Tensor]] = [(surrogate, eye)]
        for _ in range(num_deployments):
            deployment = masker.draw(rng=rng)
            seen = _mask_in_parts(deployment, sample_NCHW, rng=rng)
            self._deployments.append((deployment, self.alignment.matrix_for(seen)))

    @property
    def name(self) -> str:
        """The simulated masker's name, with a note that its channels are aligned."""
        return f"{self._name}, channels aligned"

    @property
    def spec(self) -> MaskSpec:
        """Specification of the simulated masker."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator | None = None) -> Tensor:
        """Mask with one of the simulated secrets, chosen by `rng`, and align; see `ImageMasker.mask`."""
        chosen = draws_from(rng).below(len(self._deployments))
        deployment, matrix = self._deployments[chosen]
        return apply_matrix(matrix, deployment.mask(image_BCHW, rng=rng))

    def public_config(self) -> Mapping[str, Any]:
        """Configuration of the simulated masker, and the number of secrets."""
        return {**self._config, "num_deployments": len(self._deployments)}


def apply_matrix(matrix_LK: Tensor, masked_BKPQ: Tensor) -> Tensor:
    """Apply a linear map of the channels, the same at every position."""
    return torch.einsum("lk,bkpq->blpq", matrix_LK.to(masked_BKPQ.device), masked_BKPQ.float())


def _mask_in_parts(masker: ImageMasker, image_NCHW: Tensor, *, rng: Generator) -> Tensor:
    parts: Sequence[Tensor] = image_NCHW.split(64)
    return torch.cat([masker.mask(part, rng=rng) for part in parts])


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of masked faces under one secret, in float64.

    Attributes:
        mean_KS: the mean image of each channel.
        cell_GKK: mean of x_k x_l over faces and the positions of each cell.
        shift_GKK: mean of x_k(s) x_l(s + shift) over faces and positions, for each shift of the upper half plane.
    """

    mean_KS: Tensor
    cell_GKK: Tensor
    shift_GKK: Tensor

    def moments(self) -> tuple[Tensor, Tensor]:
        """Both kinds of second moments M. A map A of the channels turns them into A M A^T."""
        return self.cell_GKK, self.shift_GKK


def _misfit(wanted: Tensor, found: Tensor) -> Tensor:
    return (wanted - found).square().sum() / wanted.square().sum().clamp_min(1e-12)


def _statistics(masked_NKPQ: Tensor) -> Statistics:
    """Statistics of as many faces as the limit on work allows (about ten thousand on a 28x28x36 grid)."""
    _, channels, rows, columns = masked_NKPQ.shape
    shifts = _shifts(rows, columns)
    products_per_face = (1 + len(shifts)) * channels**2 * rows * columns
    masked_NKPQ = masked_NKPQ[: max(16, int(MAX_PRODUCTS / products_per_face))]
    cells = (min(NUM_CELLS, rows), min(NUM_CELLS, columns))
    index_S = _cell_of_position(rows, columns, cells)
    mean_KPQ = torch.zeros(channels, rows, columns, dtype=torch.float64)
    cell_GKK = torch.zeros(cells[0] * cells[1], channels, channels, dtype=torch.float64)
    shift_GKK = torch.zeros(len(shifts), channels, channels, dtype=torch.float64)
    for part_BKPQ in masked_NKPQ.split(64):
        share = len(part_BKPQ) / len(masked_NKPQ)
        mean_KPQ += part_BKPQ.mean(dim=0, dtype=torch.float64) * share
        x_KBPQ = part_BKPQ.float().transpose(0, 1).contiguous()
        flat_KBS = x_KBPQ.flatten(2)
        for cell in range(len(cell_GKK)):
            inside = flat_KBS[:, :, index_S == cell]
            cell_GKK[cell] += _moment(inside, inside) * share
        for i, (down, right) in enumerate(shifts):
            here = x_KBPQ[:, :, : rows - down, max(0, -right) : columns - max(0, right)]
            there = x_KBPQ[:, :, down:, max(0, right) : columns - max(0, -right)]
            shift_GKK[i] += _moment(here, there) * share
    return Statistics(mean_KPQ.flatten(1), cell_GKK, shift_GKK)


def _moment(x_KN: Tensor, y_KN: Tensor) -> Tensor:
    """(K, K): mean of the products, over all but the first axis."""
    x, y = x_KN.flatten(1), y_KN.flatten(1)
    return (x @ y.T).double() / x.shape[1]


def _shifts(rows: int, columns: int) -> list[tuple[int, int]]:
    """Shifts (down, right) of the upper half plane; the other half gives the transposed moments."""
    down, right = min(MAX_SHIFT, rows - 1), min(MAX_SHIFT, columns - 1)
    return [(y, x) for y in range(down + 1) for x in range(-right, right + 1) if y > 0 or x >= 0]


def _cell_of_position(rows: int, columns: int, cells: tuple[int, int]) -> Tensor:
    """(S,) index of the cell of each position of the grid."""
    numbers = torch.arange(cells[0] * cells[1], dtype=torch.float32).view(1, 1, *cells)
    return functional.interpolate(numbers, size=(rows, columns), mode="nearest").flatten().long()
