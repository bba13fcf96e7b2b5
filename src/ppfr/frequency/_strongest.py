"""For each frequency at each place, the coefficient of largest magnitude among the colour planes.

Shape suffixes: B batch, C colour planes, K frequency channels, H W pixels, P Q block grid, S = P*Q.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppfr.core import InvalidInputError, ShapeError
from ppfr.frequency._banded import BLOCK, taps
from ppfr.frequency._checks import check_channels, check_planes, check_unit_range
from ppfr.frequency._colour import centred_ycbcr
from ppfr.frequency._memory import empty_large
from ppfr.frequency._upsampled import bdct_upsampled


def bdct_upsampled_strongest(
    image_BCHW: Tensor,
    *,
    channels: Sequence[int] | None = None,
    scale: float = 1.0,
    out: Tensor | None = None,
    checks_range: bool = True,
) -> Tensor:
    """`strongest_colour(bdct_upsampled(image))`, on a CPU without storing the coefficients of all three colours.

    Differentiable. With a gradient, or on another device, the coefficients of all colours are stored. If two colours
    have equal magnitude up to rounding, either may be selected.

    Args:
        image_BCHW: RGB in [0, 1], (B, 3, H, W), float32 or float64, H and W at least 2.
        channels: frequency channels c = 8u + v, in this order; None for all 64.
        scale: factor on the result.
        out: output tensor, (B, K, H, W) of the image's dtype, each image contiguous; only without gradient.
        checks_range: whether to reject values outside [0, 1].

    Returns:
        (B, K, H, W), K = len(channels); values in [-1024, 1016] times `scale`, up to a rounding error.

    Raises:
        ShapeError: the shape is not (B, 3, H, W), or `out` has another shape.
        RangeError: values are outside [0, 1] or not finite, or a channel is invalid.
        InvalidInputError: `out` was given although a gradient is needed.
    """
    check_planes(image_BCHW, what="image", num_channels=3, min_size=2)
    chosen = check_channels(channels, num=BLOCK * BLOCK)
    if checks_range:
        check_unit_range(image_BCHW, what="image")
    batch, _, height, width = image_BCHW.shape
    shape, device, dtype = (batch, len(chosen), height, width), image_BCHW.device, image_BCHW.dtype
    _check_out(out, shape, dtype)
    needs_gradient = torch.is_grad_enabled() and image_BCHW.requires_grad
    if needs_gradient and out is not None:
        raise InvalidInputError("out is not supported if a gradient is needed; omit it or use torch.no_grad()")
    if needs_gradient or device.type != "cpu" or dtype != torch.float32:
        found = strongest_colour(bdct_upsampled(image_BCHW, channels=chosen, checks_range=False)) * scale
        return found if out is None else out.copy_(found)
    planes = centred_ycbcr(image_BCHW, scale=255.0 * scale)
    planes_NCHW = torch.cat([planes[:, :1] - 128.0 * scale, planes[:, 1:]], 1).detach().numpy()
    weights = taps(height, device, dtype).numpy(), taps(width, device, dtype).numpy()
    frequencies_2K = np.stack(np.divmod(np.array(chosen), BLOCK))
    result = empty_large(image_BCHW, shape) if out is None else out
    target, kernel = result.detach().numpy(), _compiled(_strongest_rows)
    _for_each(batch, lambda i: kernel(planes_NCHW[i], weights, frequencies_2K, target[i]))
    return result


def _check_out(out: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if out is not None and (tuple(out.shape) != shape or out.dtype != dtype or not out[:1].is_contiguous()):
        raise ShapeError(
            f"out is {out.dtype} {tuple(out.shape)}; it must be {dtype} {shape}, with each image contiguous"
        )


def strongest_colour(coefficients_BKPQ: Tensor, *, num_colours: int = 3) -> Tensor:
    """The coefficient of largest magnitude among the colour planes, with its sign. Ties select the first plane.

    Args:
        coefficients_BKPQ: (B, C*K, P, Q), colour-major, as returned by the block DCTs.
        num_colours: C.

    Returns:
        (B, K, P, Q); differentiable; the gradient flows to the selected plane.

    Raises:
        ShapeError: the number of channels is not a multiple of C.

    >>> strongest_colour(torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1)).item()
    -3.0
    """
    check_planes(coefficients_BKPQ, what="coefficients")
    batch, num, *grid = coefficients_BKPQ.shape
    if num_colours < 1 or num % num_colours:
        raise ShapeError(
            f"coefficients have {num} channels, which is not a multiple of num_colours={num_colours}; pass another"
        )
    planes_BCKPQ = coefficients_BKPQ.reshape(batch, num_colours, num // num_colours, *grid)
    needs_gradient = torch.is_grad_enabled() and coefficients_BKPQ.requires_grad
    if needs_gradient or coefficients_BKPQ.device.type != "cpu":
        with torch.no_grad():
            strongest = planes_BCKPQ.abs().argmax(1, keepdim=True)
        return planes_BCKPQ.gather(1, strongest).squeeze(1)
    out = coefficients_BKPQ.new_empty(batch, num // num_colours, *grid)
    source, target = planes_BCKPQ.detach().contiguous().numpy(), out.numpy()
    kernel = _compiled(_strongest_values)
    _for_each(batch, lambda i: kernel(source[i].reshape(num_colours, -1), target[i].reshape(-1)))
    return out


@functools.cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """The function compiled by numba without the GIL, cached on disk if possible."""
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable cache directory
        compiled = numba.njit(**options)(function)
    return compiled  # type: ignore[no-any-return]


def _for_each(num: int, work: Callable[[int], None]) -> None:
    """Call `work` on 0..num-1, with as many threads as torch uses."""
    threads = min(torch.get_num_threads(), num, os.cpu_count() or 1)
    if threads <= 1:
        for i in range(num):
            work(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(num)))


def _strongest_values(planes_CS: np.ndarray, out_S: np.ndarray) -> None:
    """One pass per plane, which the compiler can vectorise."""
    out_S[:] = planes_CS[0]
    for c in range(1, planes_CS.shape[0]):
        plane_S = planes_CS[c]
        for s in range(out_S.size):
            out_S[s] = plane_S[s] if abs(plane_S[s]) > abs(out_S[s]) else out_S[s]


def _strongest_rows(
    planes_CHW: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    frequencies_2K: np.ndarray,
    out_KHW: np.ndarray,
) -> None:
    """The operator of `BandedDct` row by row for three planes at once, writing the value of largest magnitude.

    `t` holds the horizontal pass of the rows above, at and below the output row, in a ring buffer of three.
    """
    _, height, width = planes_CHW.shape
    rows, columns = weights
    vertical_K, horizontal_K = frequencies_2K[0], frequencies_2K[1]
    t = np.zeros((3, 3, BLOCK, width), planes_CHW.dtype)
    for below in range(height + 1):
        for c in range(3):
            if below == height:
                t[below % 3, c] = 0
                continue
            pixels = planes_CHW[c, below]
            for v in range(BLOCK):
                into = t[below % 3, c, v]
                for w in range(width):
                    into[w] = pixels[w] * columns[v, 1, w]
                for w in range(1, width):
                    into[w] += pixels[w - 1] * columns[v, 0, w]
                for w in range(width - 1):
                    into[w] += pixels[w + 1] * columns[v, 2, w]
        if below == 0:
            continue
        h = below - 1
        for k in range(vertical_K.size):
            u, v = vertical_K[k], horizontal_K[k]
            a, b, c = rows[u, 0, h], rows[u, 1, h], rows[u, 2, h]
            up, at, down = t[(h + 2) % 3, :, v], t[h % 3, :, v], t[(h + 1) % 3, :, v]
            line = out_KHW[k, h]
            for w in range(width):
                best = a * up[0, w] + b * at[0, w] + c * down[0, w]
                blue = a * up[1, w] + b * at[1, w] + c * down[1, w]
                red = a * up[2, w] + b * at[2, w] + c * down[2, w]
                best = blue if abs(blue) > abs(best) else best
                line[w] = red if abs(red) > abs(best) else best
