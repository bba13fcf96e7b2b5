"""Margin heads for plain and mixed labels: ArcFace, CosFace and AdaFace.

Shapes: `B` batch, `k` images per mixture, `C` classes, `D` embedding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.core import InvalidInputError, RangeError, ShapeError

# Beyond these cosines, the derivative of the angle is meaningless in float32.
_COSINE_LIMIT = 1.0 - 1e-7
_SUM_TOLERANCE = 1e-3


class MarginHead(nn.Module, ABC):
    """Cosine classifier with a margin that reduces the logit of the true class.

    Cosines, angles and the loss are computed in float32 for every embedding type, also under autocast.

    On mixtures it is MixUp-ArcFace (methods A.4, Algorithm 1). With the cosines t of a row, every true class i receives
    its share lam_i of the margin, `t_i + lam_i * (margin(t_i) - t_i)`, and the loss is the cross-entropy with the soft
    label lam_i of class i. A class that occurs twice has the sum of its shares. With k = 1 this is the plain head.

    Attributes:
        num_classes: C.
        dim: D.
        scale: factor of the cosines before the softmax.
        weight_CD: class centres, not normalised, initialised with standard deviation 0.01.
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float, seed: int) -> None:
        super().__init__()
        if num_classes < 1 or dim < 1 or not scale > 0:
            raise InvalidInputError(
                f"num_classes={num_classes}, dim={dim}, scale={scale}: all must be positive; num_classes is the "
                "number of training subjects, dim the embedding length of the network"
            )
        self.num_classes, self.dim, self.scale = num_classes, dim, scale
        generator = torch.Generator().manual_seed(seed)
        self.weight_CD = nn.Parameter(torch.randn(num_classes, dim, generator=generator) * 0.01)

    @abstractmethod
    def apply_margin(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """The cosines of the true classes with the margin applied.

        Args:
            cosine_Bk: cosines of the true classes, float32, in [-1, 1].
            norm_B1: L2 norms of the embeddings, float32, without gradient.

        Returns:
            (B, k) float32.
        """

    def forward(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None = None) -> Tensor:
        """`loss`, for wrappers that call `forward` (DDP, torch.compile)."""
        return self.loss(embedding_BD, labels_Bk, weights_Bk)

    def loss(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None = None) -> Tensor:
        """Mean soft-label cross-entropy over the batch, a float32 scalar.

        Args:
            embedding_BD: embeddings, not normalised, of any floating type.
            labels_Bk: class indices, integer, (B,) or (B, k).
            weights_Bk: mixing weights, whose rows sum to 1; optional for k = 1.

        Raises:
            ShapeError: the shapes do not match.
            RangeError: labels are outside 0..C-1, or weights are negative or do not sum to 1.
        """
        labels, shares = self._check(embedding_BD, labels_Bk, weights_Bk)
        # Disable autocast, which would compute the matrix product in half precision.
        with torch.autocast(embedding_BD.device.type, enabled=False):
            logits_BC = self._logits(embedding_BD, labels, shares)
            true_Bk = logits_BC.gather(1, labels)
            return (logits_BC.logsumexp(dim=1) - (shares * true_Bk).sum(dim=1)).mean()

    def logits(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None = None) -> Tensor:
        """(B, C) float32 logits, scaled and with margin; arguments and errors as for `loss`."""
        labels, shares = self._check(embedding_BD, labels_Bk, weights_Bk)
        with torch.autocast(embedding_BD.device.type, enabled=False):
            return self._logits(embedding_BD, labels, shares)

    def cosines(self, embedding_BD: Tensor) -> Tensor:
        """(B, C) float32 cosines to the class centres, without margin and scale, for the accuracy on training data."""
        with torch.autocast(embedding_BD.device.type, enabled=False):
            unit_BD = functional.normalize(embedding_BD.float(), dim=1)
            return unit_BD @ functional.normalize(self.weight_CD.float(), dim=1).T

    def _logits(self, embedding_BD: Tensor, labels_Bk: Tensor, shares_Bk: Tensor) -> Tensor:
        cosine_BC = self.cosines(embedding_BD)
        norm_B1 = embedding_BD.detach().float().norm(dim=1, keepdim=True)
        true_Bk = cosine_BC.gather(1, labels_Bk)
        penalty_Bk = self.apply_margin(true_Bk, norm_B1) - true_Bk
        return self.scale * cosine_BC.scatter_add(1, labels_Bk, shares_Bk * penalty_Bk)

    def _check(self, embedding_BD: Tensor, labels_Bk: Tensor, weights_Bk: Tensor | None) -> tuple[Tensor, Tensor]:
        labels = labels_Bk[:, None] if labels_Bk.ndim == 1 else labels_Bk
        if embedding_BD.ndim != 2 or embedding_BD.shape[1] != self.dim:
            raise ShapeError(f"embeddings have shape {tuple(embedding_BD.shape)}; expected (B, {self.dim})")
        if labels.ndim != 2 or len(labels) != len(embedding_BD) or labels.is_floating_point():
            raise ShapeError(
                f"labels are {labels_Bk.dtype} of shape {tuple(labels_Bk.shape)}; expected integer class indices, "
                f"(B,) or (B, k) with B = {len(embedding_BD)}"
            )
        labels = labels.long()
        outside = int(((labels < 0) | (labels >= self.num_classes)).sum())
        if outside:
            raise RangeError(
                f"{outside} of {labels.numel()} labels are outside 0..{self.num_classes - 1}; "
                "build the head with one class per training subject"
            )
        if weights_Bk is None:
            if labels.shape[1] != 1:
                raise ShapeError(f"{labels.shape[1]} labels per row require weights_Bk of shape {tuple(labels.shape)}")
            return labels, torch.ones_like(labels, dtype=torch.float32)
        shares = (weights_Bk[:, None] if weights_Bk.ndim == 1 else weights_Bk).float()
        if shares.shape != labels.shape:
            raise ShapeError(
                f"weights have shape {tuple(shares.shape)}, labels {tuple(labels.shape)}; they must be equal"
            )
        if not bool(((shares >= 0).all(dim=1) & ((shares.sum(dim=1) - 1).abs() < _SUM_TOLERANCE)).all()):
            raise RangeError("mixing weights must be at least 0 and sum to 1 per row; normalise them")
        return labels, shares


class ArcFace(MarginHead):
    """Additive angular margin: cos(theta + m), or cos(theta) - m sin(pi - m) where theta > pi - m.

    Args:
        num_classes: C.
        dim: D.
        scale: scale s.
        margin: margin m in radians, in [0, pi / 2).
        seed: seeds the class centres.

    References:
        Deng et al., CVPR 2019; no easy margin.
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float = 64.0, margin: float = 0.5, seed: int) -> None:
        super().__init__(num_classes, dim, scale=scale, seed=seed)
        self.margin = _check_margin(margin, math.pi / 2)

    def apply_margin(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """cos(theta + m), extended so that it decreases up to theta = pi."""
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
        scale: scale s.
        margin: margin m, in [0, 1).
        seed: seeds the class centres.

    References:
        Wang et al., CVPR 2018.
    """

    def __init__(self, num_classes: int, dim: int, *, scale: float = 64.0, margin: float = 0.35, seed: int) -> None:
        super().__init__(num_classes, dim, scale=scale, seed=seed)
        self.margin = _check_margin(margin, 1.0)

    def apply_margin(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """cos(theta) - m."""
        return cosine_Bk - self.margin


class AdaFace(MarginHead):
    """Margin that depends on image quality, estimated by the embedding norm: cos(theta - m z) - (m + m z).

    z is the norm, standardised by a running mean and standard deviation over batches, times `spread`, and clamped to
    [-1, 1]. High-quality images get a cosine margin, low-quality images a negative angular margin. The running
    statistics are buffers, so a resumed run restores them. They are updated only in training mode.

    Args:
        num_classes: C.
        dim: D.
        scale: scale s.
        margin: margin m, in [0, 1).
        spread: h, the factor of the standardised norm.
        momentum: weight of the current batch in the running statistics.
        seed: seeds the class centres.

    References:
        Kim, Jain, Liu: "AdaFace", CVPR 2022, eq. 14 to 16; norms are clamped to [0.001, 100] as in the paper.
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
            raise RangeError(f"momentum={momentum} must be in (0, 1], and spread={spread} must be positive")
        self.spread, self.momentum = spread, momentum
        # Each batch changes these by `momentum`. The large initial deviation keeps z near 0 until they have converged.
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def apply_margin(self, cosine_Bk: Tensor, norm_B1: Tensor) -> Tensor:
        """The cosine with both margins, which depend on the norm of the row."""
        norm_B1 = norm_B1.clamp(0.001, 100.0)
        if self.training and len(norm_B1) > 1:
            self._update(norm_B1)
        z_B1 = ((norm_B1 - self.norm_mean) / (self.norm_std + 1e-3) * self.spread).clamp(-1.0, 1.0)
        theta_Bk = cosine_Bk.clamp(-_COSINE_LIMIT, _COSINE_LIMIT).arccos()
        shifted = (theta_Bk - self.margin * z_B1).clamp(1e-3, math.pi - 1e-3)
        return shifted.cos() - self.margin * (1.0 + z_B1)

    @torch.no_grad()
    def _update(self, norm_B1: Tensor) -> None:
        self.norm_mean.lerp_(norm_B1.mean(), self.momentum)
        self.norm_std.lerp_(norm_B1.std(), self.momentum)


def _check_margin(margin: float, limit: float) -> float:
    if not 0 <= margin < limit:
        raise RangeError(f"margin={margin} must be in [0, {limit:.4g})")
    return margin
