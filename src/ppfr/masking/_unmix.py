"""Inversion of PPFR-FD with its secret: recovers each frequency channel up to an affine map."""

from __future__ import annotations

import torch
from torch import Tensor

from ppfr.core import ShapeError, UnsupportableError
from ppfr.masking._ppfr_fd import PpfrFd

_MAX_STEPS = 200


def unmix(masked_BMPQ: Tensor, masker: PpfrFd) -> Tensor:
    """Recover the frequency channels of each image from the output of PPFR-FD, given its secret.

    Inverting shuffle 2 gives w_i = (z_i + z_{i+1}) / c_i, where z are the self-normalised channels in the order of
    shuffle 1 and the scale c_i = std(z_i + z_{i+1}) is unknown. The scales are computed from the data. With an odd
    number of channels, every z_i has variance 1 (M equations in M unknowns). With an even number, the alternating sum
    of c_i w_i vanishes (null vector of the covariance). Then the mixing is inverted.

    With an odd M the result is exact up to rounding. With an even M the mixing has one null direction: a field that is
    added to every second channel and subtracted from the others is lost and set to zero. Each channel is then recovered
    with a correlation of about sqrt(1 - 1/M) (0.986 at M = 36). This holds if every channel carries information, as in
    the block front end. In the upsampled front end, the neighbours of a pixel determine all its channels and many high
    channels are zero. With more than about 20 channels, some of them are not recovered.

    Args:
        masked_BMPQ: output of `masker.mask`, (B, M, P, Q).
        masker: the masker itself, holding the secret.

    Returns:
        (B, M, P, Q) float32: channel `colour*num_channels + k` estimates frequency `masker.kept_channels[k]` of plane
        `colour`, with mean 0 and std 1. Means and scales of the channels cannot be recovered.

    Raises:
        ShapeError: the shape is not the masker's output shape.
        UnsupportableError: the masker draws permutations per image and does not store them.

    Threat model:
        The adversary sees masked images, and knows the method and the secret.
    """
    if masker._shuffles is None:
        raise UnsupportableError(
            "permutation='per_image' has no secret to unmix with; use an attack without the secret"
        )
    if masked_BMPQ.ndim != 4 or tuple(masked_BMPQ.shape[1:]) != masker.spec.out_shape:
        raise ShapeError(
            f"masked has shape {tuple(masked_BMPQ.shape)}; the output of this masker is (B, "
            f"{', '.join(map(str, masker.spec.out_shape))}): unmix with the masker that made it"
        )
    first, second = (torch.tensor(order, device=masked_BMPQ.device) for order in masker._shuffles)
    batch, num = masked_BMPQ.shape[:2]
    mixed_BMS = torch.empty(batch, num, masked_BMPQ[0, 0].numel(), dtype=torch.float64, device=masked_BMPQ.device)
    mixed_BMS[:, second] = masked_BMPQ.flatten(2).double()
    covariance_BMM = mixed_BMS @ mixed_BMS.transpose(1, 2) / mixed_BMS.shape[-1]
    scales_BM = _scales_odd(covariance_BMM) if num % 2 else _scales_even(covariance_BMM)
    mixing = torch.eye(num, dtype=torch.float64, device=masked_BMPQ.device)
    mixing = mixing + mixing.roll(1, dims=1)  # row i adds channels i and i+1
    channels = torch.linalg.pinv(mixing) @ (scales_BM[..., None] * mixed_BMS)
    channels = channels / channels.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
    result = torch.empty_like(channels)
    result[:, first] = channels
    return result.view_as(masked_BMPQ).float()


def _scales_even(covariance_BMM: Tensor) -> Tensor:
    """The null vector of the mixed channels' covariance, up to one factor for each image."""
    null_BM = torch.linalg.eigh(covariance_BMM).eigenvectors[..., 0].abs()
    result: Tensor = null_BM * (2.0 / null_BM.square().mean(-1, keepdim=True)).sqrt()
    return result


def _scales_odd(covariance_BMM: Tensor) -> Tensor:
    """Solve var(z_i) = 1 for the scales c, z_i = half the alternating sum of c_j w_j from j = i on.

    Levenberg-Marquardt from c = sqrt(2), the scale of uncorrelated channels: a plain Newton step may converge to
    another root.
    """
    num = covariance_BMM.shape[-1]
    place = torch.arange(num, device=covariance_BMM.device)
    signs_MM = 1.0 - 2.0 * ((place[None, :] - place[:, None]) % num % 2).double()
    identity = torch.eye(num, dtype=torch.float64, device=covariance_BMM.device)

    def excess(scales_BM: Tensor) -> tuple[Tensor, Tensor]:
        terms_BMM = signs_MM * scales_BM[:, None, :]
        along_BMM = terms_BMM @ covariance_BMM
        return (along_BMM * terms_BMM).sum(-1) / 4 - 1, signs_MM * along_BMM / 2

    scales_BM = torch.full(covariance_BMM.shape[:2], 2**0.5, dtype=torch.float64, device=covariance_BMM.device)
    damping_B = scales_BM.new_full((len(scales_BM),), 1e-2)
    excess_BM, jacobian_BMM = excess(scales_BM)
    for _ in range(_MAX_STEPS):
        normal = jacobian_BMM.mT @ jacobian_BMM + damping_B[:, None, None] * identity
        step_BM = torch.linalg.solve(normal, jacobian_BMM.mT @ excess_BM[..., None])[..., 0]
        tried_BM = (scales_BM - step_BM).clamp(1e-3, 2.0)  # the std of a sum of two unit channels is at most 2
        tried_excess_BM, tried_jacobian_BMM = excess(tried_BM)
        is_better_B = tried_excess_BM.square().sum(-1) < excess_BM.square().sum(-1)
        scales_BM = torch.where(is_better_B[:, None], tried_BM, scales_BM)
        excess_BM = torch.where(is_better_B[:, None], tried_excess_BM, excess_BM)
        jacobian_BMM = torch.where(is_better_B[:, None, None], tried_jacobian_BMM, jacobian_BMM)
        damping_B = torch.where(is_better_B, damping_B * 0.3, damping_B * 3.0).clamp(1e-14, 1e6)
        if float(excess_BM.abs().max()) < 1e-9:
            break
    return scales_BM
