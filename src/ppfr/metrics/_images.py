"""Image similarity: PSNR, SSIM, and LPIPS with a network given by the caller.

Images are (N, C, H, W), RGB or grey, in [0, 1]. Each function returns one value per pair of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.metrics._estimate import Floats

Images = NDArray[np.floating[Any]]
Network = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.floating[Any]]]

WINDOW_PX, SIGMA_PX = 11, 1.5  # Wang et al. 2004
PSNR_CEILING_DB = 100.0
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # BT.601, as JPEG's Y
_CHUNK_SIZE = 64


def _checked_pair(image_a_NCHW: Images, image_b_NCHW: Images) -> tuple[Images, Images]:
    image_a, image_b = np.asarray(image_a_NCHW), np.asarray(image_b_NCHW)
    if image_a.shape != image_b.shape or image_a.ndim != 4 or image_a.size == 0:
        raise ShapeError(
            f"images have shapes {image_a.shape} and {image_b.shape}; pass two non-empty (N, C, H, W) of the same shape"
        )
    for image in (image_a, image_b):
        if not np.issubdtype(image.dtype, np.floating):
            raise RangeError(f"images are {image.dtype}; pass floating-point values in [0, 1] (uint8: divide by 255)")
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise RangeError("images contain values outside [0, 1] or not finite; clamp recovered images first")
    return image_a, image_b


def psnr(image_a_NCHW: Images, image_b_NCHW: Images) -> Floats:
    """Peak signal-to-noise ratio of each pair in dB, over all channels and pixels.

    Args:
        image_a_NCHW: (N, C, H, W) in [0, 1].
        image_b_NCHW: the same shape and range.

    Returns:
        (N,) dB, at most `PSNR_CEILING_DB` (100), the value of identical images, so that a mean stays finite.

    Raises:
        ShapeError: the shapes differ.
        RangeError: values are outside [0, 1], not finite, or integers.
    """
    image_a, image_b = _checked_pair(image_a_NCHW, image_b_NCHW)
    result_N = np.empty(len(image_a))
    for start in range(0, len(image_a), _CHUNK_SIZE):
        rows = slice(start, start + _CHUNK_SIZE)
        error = np.subtract(image_a[rows], image_b[rows], dtype=np.float64)
        result_N[rows] = np.mean(np.square(error), axis=(1, 2, 3))
    return -10 * np.log10(np.maximum(result_N, 10 ** (-PSNR_CEILING_DB / 10)))


def ssim(image_a_NCHW: Images, image_b_NCHW: Images, *, colours: str = "rgb") -> Floats:
    """Structural similarity of each pair.

    Gaussian window of 11 pixels and sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03, only windows that lie
    completely inside the image. With these options scikit-image computes the SSIM of the paper, too.

    Args:
        image_a_NCHW: (N, C, H, W) in [0, 1], at least 11 pixels per side.
        image_b_NCHW: the same shape and range.
        colours: "rgb", the mean of the channels' SSIM; or "grey", the SSIM of the BT.601 luma (C = 3).

    Returns:
        (N,) in [-1, 1]; 1 for identical images.

    Raises:
        ShapeError: shapes differ, are smaller than the window, or `colours="grey"` without 3 channels.
        RangeError: values are outside [0, 1], not finite, or integers.
        InvalidInputError: `colours` is unknown.

    References:
        Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to
        structural similarity", IEEE TIP 13(4), 2004, Eq. 13.
    """
    image_a, image_b = _checked_pair(image_a_NCHW, image_b_NCHW)
    if min(image_a.shape[2:]) < WINDOW_PX:
        raise ShapeError(
            f"images of {image_a.shape[2:]} pixels are smaller than the window of {WINDOW_PX}; use larger images"
        )
    if colours not in ("rgb", "grey"):
        raise InvalidInputError(f'colours={colours!r} is unknown; use "rgb" or "grey"')
    if colours == "grey" and image_a.shape[1] != 3:
        raise ShapeError(f'colours="grey" needs 3 channels, got {image_a.shape[1]}')
    result_N = np.empty(len(image_a))
    for start in range(0, len(image_a), _CHUNK_SIZE):
        rows = slice(start, start + _CHUNK_SIZE)
        a, b = image_a[rows].astype(np.float32), image_b[rows].astype(np.float32)
        if colours == "grey":
            a, b = (np.einsum("nchw,c->nhw", x, _LUMA)[:, None] for x in (a, b))
        result_N[rows] = _ssim_of_block(a, b)
    return result_N


def _ssim_of_block(a_NCHW: NDArray[np.float32], b_NCHW: NDArray[np.float32]) -> Floats:
    num, channels = a_NCHW.shape[:2]
    c1, c2 = 0.01**2, 0.03**2
    # Variances do not depend on an offset, and float32 is more precise around 0 than around 1.
    a, b = a_NCHW - np.float32(0.5), b_NCHW - np.float32(0.5)
    mean_a, mean_b = _windowed(a), _windowed(b)
    squares = _windowed(a * a + b * b)
    product = _windowed(a * b)
    mean_product = mean_a * mean_b
    mean_squares = mean_a * mean_a + mean_b * mean_b
    variances = squares - mean_squares  # sum over both images: SSIM needs only the sum
    covariance = product - mean_product
    # Means of the images themselves: (m_a + 1/2)(m_b + 1/2) and (m_a + 1/2)^2 + (m_b + 1/2)^2.
    half_sum = 0.5 * (mean_a + mean_b)
    luminance = (2 * (mean_product + half_sum + 0.25) + c1) / (mean_squares + 2 * half_sum + 0.5 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    per_plane = (luminance * structure).mean(axis=(1, 2), dtype=np.float64)
    return np.asarray(per_plane.reshape(num, channels).mean(axis=1))


def _windowed(plane_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian mean of every window that lies inside its plane: (N * C, H - 10, W - 10).

    The planes are stacked into one tall image and filtered by one call. Windows across the seams are discarded.
    """
    num, channels, height, width = plane_NCHW.shape
    tall = np.ascontiguousarray(plane_NCHW).reshape(num * channels * height, width)
    kernel = cv2.getGaussianKernel(WINDOW_PX, SIGMA_PX, cv2.CV_32F)
    smooth = np.asarray(cv2.sepFilter2D(tall, cv2.CV_32F, kernel, kernel), dtype=np.float32)
    edge = WINDOW_PX // 2
    return smooth.reshape(num * channels, height, width)[:, edge:-edge, edge:-edge]


def lpips(image_a_NCHW: Images, image_b_NCHW: Images, network: Network, *, batch_size: int = 64) -> Floats:
    """Learned perceptual distance of each pair; 0 for identical images, larger means less similar.

    Args:
        image_a_NCHW: (N, 3, H, W) RGB in [0, 1].
        image_b_NCHW: the same shape and range.
        network: maps two float32 batches in [0, 1] to one distance per pair, as `ppfr.models.Lpips.distance` does.
        batch_size: number of pairs per call of the network.

    Raises:
        ShapeError: the shapes differ, or the network does not return one distance per pair.
        RangeError: values are outside [0, 1], not finite, or integers.
    """
    image_a, image_b = _checked_pair(image_a_NCHW, image_b_NCHW)
    if batch_size < 1:
        raise InvalidInputError(f"batch_size={batch_size} is too small; it must be at least 1")
    result_N = np.empty(len(image_a))
    for start in range(0, len(image_a), batch_size):
        rows = slice(start, min(start + batch_size, len(image_a)))
        distance = np.asarray(network(image_a[rows].astype(np.float32), image_b[rows].astype(np.float32)))
        if distance.shape != (rows.stop - start,):
            raise ShapeError(
                f"the network returned shape {distance.shape} for {rows.stop - start} pairs; return one value each"
            )
        result_N[rows] = distance
    return result_N
