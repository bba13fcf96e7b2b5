"""Margin heads: ArcFace, CosFace, AdaFace, for plain and for mixed labels.

Shapes: `B` batch, `k` mixed images a row, `C` classes, `D` embedding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import InvalidInputError, RangeError, ShapeError

# Beyond these cosines the derivative of the angle has no meaning in float32.
_COSINE_LIMIT = 1.0 - 1e-7
_SUM_TOLERANCE = 1e-3


class MarginHead(nn.Module, ABC):
    """Cosine classifier whose true class is handicapped by a margin; what a recogniser is trained with.

    Cosines, angles and the loss are computed in float32 whatever the embedding's type, also under autocast.

    For mixed rows it is MixUp-ArcFace (methods A.4, Algorithm 1): with the cosines t of a row, every true class i gets
    its share lam_i of the handicap, `t_i + lam_i * (margin(t_i) - t_i)`, and the loss is the cross-entropy with the
    soft label that has lam_i at class i. A class drawn twice counts with the sum of its shares. With k = 1 this is the
    plain head.

    Attributes:
        num_classes: C.
        dim: D.
        scale: factor of the cosines before the softmax.
        weight_CD: class centres, not normalised; drawn from N(0, 0.01).
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float, seed: int) -> None:
        super().__init__()
        if num_classes < 1 or dim < 1 or not scale > 0:
            raise InvalidInputError(
                f"num_classes={num_classes}, dim={dim}, scale={scale}: each must be positive; num_classes is the "
                "number of subjects trained on, dim the network's"
            )
        self.num_classes, self.dim, self.scale = num_classes, dim, scale
        generator = torch.Generator().manual_seed(seed)
        self.weight_CD = nn.Parameter(torch.randn(num_classes, dim, generator=generator) * 0.01)

    @abstractmethod
    def handicapped(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """The true classes' cosines with the margin applied.

        Args:
            cosine_Bk: cosines of the true classes, float32, in [-1, 1].
            norm_B1: L2 norms of the embeddings, float32, without gradient.

        Returns:
            (B, k) float32.
        """

    def forward(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None = None) -> Tensor:
        """`loss`, so that wrappers which count on `forward` (DDP, torch.compile) work."""
        return self.loss(embedding_BD, labels_Bk, weights_Bk)

    def loss(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None = None) -> Tensor:
        """Mean soft-label cross-entropy over the batch, a float32 scalar.

        Args:
            embedding_BD: embeddings, not normalised, of any floating type.
            labels_Bk: class indices, integer, (B,) or (B, k).
            weights_Bk: mixing weights, rows sum to 1; may be left out for k = 1.

        Raises:
            ShapeError: shapes that do not belong together.
            RangeError: labels outside 0..C-1, or weights that are negative or do not sum to 1.
        """
        labels, shares = self._check(embedding_BD, labels_Bk, weights_Bk)
        # Disabled inside, or autocast would turn the matrix product back into half precision.
        with torch.autocast(embedding_BD.device.type, enabled=False):
            logits_BC = self._logits(embedding_BD, labels, shares)
            true_Bk = logits_BC.gather(1, labels)
            return (logits_BC.logsumexp(dim=1) - (shares * true_Bk).sum(dim=1)).mean()

    def logits(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None = None) -> Tensor:
        """(B, C) float32, scaled and handicapped; arguments and errors as for `loss`."""
        labels, shares = self._check(embedding_BD, labels_Bk, weights_Bk)
        with torch.autocast(embedding_BD.device.type, enabled=False):
            return self._logits(embedding_BD, labels, shares)

    def cosines(self, embedding_BD: Tensor) -> Tensor:
        """(B, C) float32 cosines to the class centres, without margin or scale: for the accuracy on training data."""
        with torch.autocast(embedding_BD.device.type, enabled=False):
            unit_BD = functional.normalize(embedding_BD.float(), dim=1)
            return unit_BD @ functional.normalize(self.weight_CD.float(), dim=1).T

    def _logits(self, embedding_BD: Tensor, labels_Bk: Tensor, shares_Bk: Tensor) -> Tensor:
        cosine_BC = self.cosines(embedding_BD)
        norm_B1 = embedding_BD.detach().float().norm(dim=1, keepdim=True)
        true_Bk = cosine_BC.gather(1, labels_Bk)
        penalty_Bk = self.handicapped(true_Bk, norm_B1) - true_Bk
        return self.scale * cosine_BC.scatter_add(1, labels_Bk, shares_Bk * penalty_Bk)

    def _check(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None) -> tuple[Tensor, Tensor]:
        labels = labels_Bk[:, None] if labels_Bk.ndim == 1 else labels_Bk
        if embedding_BD.ndim != 2 or embedding_BD.shape[1] != self.dim:
            raise ShapeError(f"embeddings have shape {tuple(embedding_BD.shape)}; this head takes (B, {self.dim})")
        if labels.ndim != 2 or len(labels) != len(embedding_BD) or labels.is_floating_point():
            raise ShapeError(
                f"labels are {labels_Bk.dtype} of shape {tuple(labels_Bk.shape)}; allowed are integer class indices, "
                f"(B,) or (B, k) with B = {len(embedding_BD)}"
            )
        labels = labels.long()
        outside = int(((labels < 0) | (labels >= self.num_classes)).sum())
        if outside:
            raise RangeError(
                f"{outside} of {labels.numel()} labels lie outside 0..{self.num_classes - 1}; "
                "make the head with as many classes as the training data has subjects"
            )
        if weights_Bk is None:
            if labels.shape[1] != 1:
                raise ShapeError(f"{labels.shape[1]} labels a row need weights_Bk of shape {tuple(labels.shape)}")
            return labels, torch.ones_like(labels, dtype=torch.float32)
        shares = (weights_Bk[:, None] if weights_Bk.ndim == 1 else weights_Bk).float()
        if shares.shape != labels.shape:
            raise ShapeError(f"weights have shape {tuple(shares.shape)}, labels {tuple(labels.shape)}; they must agree")
        if not bool(((shares >= 0).all(dim=1) & ((shares.sum(dim=1) - 1).abs() < _SUM_TOLERANCE)).all()):
            raise RangeError("mixing weights must be at least 0 and sum to 1 in every row; normalise them")
        return labels, shares


class ArcFace(MarginHead):
    """Additive angular margin: cos(theta + m), and where theta > pi - m the straight line cos - m sin(pi - m).

    Args:
        num_classes: C.
        dim: D.
        scale: s.
        margin: m in radians, 0 up to (not including) pi / 2.
        seed: of the class centres.

    References:
        Deng et al., CVPR 2019; no easy margin.
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float = 64.0, margin: float = 0.5, seed: int) -> None:
        super().__init__(num_classes, dim, scale=scale, seed=seed)
        self.margin = _check_margin(margin, math.pi / 2)

    def handicapped(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """cos(theta + m), continued so that it falls all the way to theta = pi."""
        clamped = cosine_Bk.clamp(-_COSINE_LIMIT, _COSINE_LIMIT)
        sine = (1.0 - clamped.square()).sqrt()
        shifted = clamped * math.cos(self.margin) - sine * math.sin(self.margin)
        line = cosine_Bk - self.margin * math.sin(math.pi - self.margin)
        return torch.where(cosine_Bk > math.cos(math.pi - self.margin), shifted, line)


class CosFace(MarginHead):
    """Additive cosine margin: cos(theta) - m.

    Args:
        num_classes: C.
        dim: D.
        scale: s.
        margin: m, 0 up to (not including) 1.
        seed: of the class centres.

    References:
        Wang et al., CVPR 2018.
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float = 64.0, margin: float = 0.35, seed: int) -> None:
        super().__init__(num_classes, dim, scale=scale, seed=seed)
        self.margin = _check_margin(margin, 1.0)

    def handicapped(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """Cosine less m."""
        return cosine_Bk - self.margin


class AdaFace(MarginHead):
    """Margin by image quality, for which the embedding's norm stands: cos(theta - m z) - (m + m z).

    z is the norm, standardised by a running mean and deviation over batches, times `spread`, cut to [-1, 1]: a good
    image is pushed by a cosine margin, a bad one by a negative angular one. The running statistics are buffers, so a
    resumed training goes on with them; they move in training mode only.

    Args:
        num_classes: C.
        dim: D.
        scale: s.
        margin: m, 0 up to (not including) 1.
        spread: h, how much of the standardised norm's range is used.
        momentum: weight of the new batch in the running statistics.
        seed: of the class centres.

    References:
        Kim, Jain, Liu: "AdaFace", CVPR 2022, eq. 14 to 16; norms are cut to [0.001, 100] as there.
    """

    norm_mean: Tensor
    norm_std: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        spread: float = 1.0 / 3.0,
        momentum: float = 0.01,
        seed: int,
    ) -> None:
        super().__init__(num_classes, dim, scale=scale, seed=seed)
        self.margin = _check_margin(margin, 1.0)
        if not 0 < momentum <= 1 or not spread > 0:
            raise RangeError(f"momentum={momentum} must lie in (0, 1], spread={spread} must be positive")
        self.spread, self.momentum = spread, momentum
        # The first batches move these by `momentum` each; so wide a deviation means z = 0 until they have settled.
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def handicapped(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """Both margins, by the row's norm."""
        norm_B1 = norm_B1.clamp(0.001, 100.0)
        if self.training and len(norm_B1) > 1:
            self._update(norm_B1)
        z_B1 = ((norm_B1 - self.norm_mean) / (self.norm_std + 1e-3) * self.spread).clamp(-1.0, 1.0)
        theta_Bk = cosine_Bk.clamp(-_COSINE_LIMIT, _COSINE_LIMIT).arccos()
        turned = (theta_Bk - self.margin * z_B1).clamp(1e-3, math.pi - 1e-3)
        return turned.cos() - self.margin * (1.0 + z_B1)

    @torch.no_grad()
    def _update(self, norm_B1: Tensor) -> None:
        self.norm_mean.lerp_(norm_B1.mean(), self.momentum)
        self.norm_std.lerp_(norm_B1.std(), self.momentum)


def _check_margin(margin: float, limit: float) -> float:
    if not 0 <= margin < limit:
        raise RangeError(f"margin={margin} must lie in [0, {limit:.4g})")
    return margin
