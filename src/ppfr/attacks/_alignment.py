"""Ciphertext-only channel alignment: what many masked faces under one secret say about that secret.

An adversary who lacks the secret still sees thousands of faces masked under it. All are aligned faces, so the average
of a channel over people is a picture of that channel's meaning, and so are the channels' second moments by place. He
masks faces of his own under a secret of his own (the surrogate) and looks for the linear map of channels that turns
the statistics of what he sees into those of his surrogate. Nothing here knows a concrete protection; what is assumed
is that two secrets differ (about) by a linear map of the channels, the same for all faces and places.

Shape suffixes: B batch, N faces, K L masked channels, P Q masked grid, G cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch.nn import functional

from ppfr.attacks._fresh_secret import FreshSecret
from ppfr.core import ImageMasker, MaskSpec

if TYPE_CHECKING:
    from torch import Generator, Tensor

NUM_CELLS = 7


@final
class ChannelAlignment:
    """Finds the map of channels from masked faces under an unknown secret to the surrogate's channels.

    First a ridge regression of the surrogate's mean pictures on the observed ones, then descent on the mismatch of
    mean pictures and of second moments in 7x7 cells.

    Args:
        reference_NKPQ: public faces masked under the surrogate secret; a few hundred.
        num_steps: steps of the descent (Adam at 1e-2, falling).
        ridge: of the regression, relative to the observed pictures' mean square.
    """

    def __init__(self, reference_NKPQ: Tensor, *, num_steps: int = 300, ridge: float = 1e-2) -> None:
        self.num_steps, self.ridge = num_steps, ridge
        self._mean_KS, self._moment_GKK = _statistics(reference_NKPQ)

    def matrix_for(self, seen_NKPQ: Tensor) -> Tensor:
        """(L, K): surrogate channels from the observed ones, as in `einsum("lk,bkpq->blpq", matrix, seen)`.

        Args:
            seen_NKPQ: masked faces under one unknown secret; the more, the better (hundreds).
        """
        mean_KS, moment_GKK = _statistics(seen_NKPQ)
        eye = torch.eye(len(mean_KS), dtype=mean_KS.dtype)
        gram = mean_KS @ mean_KS.T
        damping = self.ridge * gram.diagonal().mean().clamp_min(1e-12)
        start = torch.linalg.solve(gram + damping * eye, mean_KS @ self._mean_KS.T).T
        return self._descend(start, mean_KS, moment_GKK).float()

    def _descend(self, start_LK: Tensor, mean_KS: Tensor, moment_GKK: Tensor) -> Tensor:
        """Lower the mismatch of both statistics, each relative to the size of the surrogate's."""
        matrix = start_LK.clone().requires_grad_(True)
        size_mean = self._mean_KS.square().sum().clamp_min(1e-12)
        size_moment = self._moment_GKK.square().sum().clamp_min(1e-12)
        optimiser = torch.optim.Adam([matrix], lr=1e-2)
        with torch.enable_grad():
            for step in range(self.num_steps):
                optimiser.param_groups[0]["lr"] = 1e-2 * (1.0 - step / self.num_steps)
                optimiser.zero_grad()
                misfit_mean = (self._mean_KS - matrix @ mean_KS).square().sum() / size_mean
                misfit_moment = (self._moment_GKK - matrix @ moment_GKK @ matrix.T).square().sum() / size_moment
                (misfit_mean + misfit_moment).backward()
                optimiser.step()
        return matrix.detach()


@final
class AlignedDeployments(ImageMasker):
    """Simulated deployments, each brought to the surrogate's channels by what its own masked faces give away.

    An attack trained on it sees the errors of alignment that it will meet at the real deployment.

    Args:
        masker: simulates deployments.
        sample_NCHW: public faces from which the alignments are computed.
        num_deployments: simulated secrets beside the surrogate; each call of `mask` uses one of them.
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
        """The simulated masker's name, and that its channels are aligned."""
        return f"{self._name}, channels aligned"

    @property
    def spec(self) -> MaskSpec:
        """The simulated masker's."""
        return self._spec

    def mask(self, image_BCHW: Tensor, *, rng: Generator) -> Tensor:
        """Mask under one of the simulated secrets, chosen by `rng`, and align; see `ImageMasker.mask`."""
        chosen = int(torch.randint(len(self._deployments), (1,), generator=rng))
        deployment, matrix = self._deployments[chosen]
        return apply_matrix(matrix, deployment.mask(image_BCHW, rng=rng))

    def public_config(self) -> Mapping[str, Any]:
        """What is simulated, and how many secrets."""
        return {**self._config, "num_deployments": len(self._deployments)}


def apply_matrix(matrix_LK: Tensor, masked_BKPQ: Tensor) -> Tensor:
    """A linear map of the channels, the same at every place."""
    return torch.einsum("lk,bkpq->blpq", matrix_LK.to(masked_BKPQ.device), masked_BKPQ.float())


def _mask_in_parts(masker: ImageMasker, image_NCHW: Tensor, *, rng: Generator) -> Tensor:
    parts: Sequence[Tensor] = image_NCHW.split(64)
    return torch.cat([masker.mask(part, rng=rng) for part in parts])


def _statistics(masked_NKPQ: Tensor) -> tuple[Tensor, Tensor]:
    """Mean picture of each channel (K, S), and second moments between channels in cells of the grid (G, K, K)."""
    num, channels, rows, columns = masked_NKPQ.shape
    mean_KPQ = torch.zeros(channels, rows, columns, dtype=torch.float64)
    cells = (min(NUM_CELLS, rows), min(NUM_CELLS, columns))
    index_S = _cell_of_place(rows, columns, cells)
    moment_GKK = torch.zeros(cells[0] * cells[1], channels, channels, dtype=torch.float64)
    for part_BKPQ in masked_NKPQ.split(64):
        mean_KPQ += part_BKPQ.sum(dim=0, dtype=torch.float64)
        flat_KBS = part_BKPQ.float().flatten(2).transpose(0, 1)
        for cell in range(len(moment_GKK)):
            x = flat_KBS[:, :, index_S == cell].flatten(1)
            moment_GKK[cell] += (x @ x.T).double() / x.shape[1] * len(part_BKPQ)
    return (mean_KPQ / num).flatten(1), moment_GKK / num


def _cell_of_place(rows: int, columns: int, cells: tuple[int, int]) -> Tensor:
    """(S,) index of the cell that each place of the grid lies in."""
    numbers = torch.arange(cells[0] * cells[1], dtype=torch.float32).view(1, 1, *cells)
    return functional.interpolate(numbers, size=(rows, columns), mode="nearest").flatten().long()
