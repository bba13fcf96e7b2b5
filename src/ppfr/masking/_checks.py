"""The input check that all maskers share."""

from __future__ import annotations

from torch import Tensor

from ppfr.core import MaskSpec, RangeError, ShapeError
from ppfr.frequency import check_unit_range


def check_image(image_BCHW: Tensor, spec: MaskSpec) -> Tensor:
    """Check a batch of images and return it as float32.

    Raises:
        ShapeError: the shape is not (B, *spec.in_shape).
        RangeError: the values are not floating-point, outside [0, 1] or not finite.
    """
    if image_BCHW.ndim != 4 or tuple(image_BCHW.shape[1:]) != spec.in_shape:
        raise ShapeError(
            f"image has shape {tuple(image_BCHW.shape)}; it must be (B, {', '.join(map(str, spec.in_shape))}): "
            "align and resize the face first, move colours to axis 1, or build the masker with another in_shape"
        )
    if not image_BCHW.is_floating_point():
        raise RangeError(f"image has dtype {image_BCHW.dtype}; it must be float in [0, 1]: use image.float() / 255")
    check_unit_range(image_BCHW, what="image")
    return image_BCHW.float()
