"""Device choice: the requested device or an error, never a silent fallback. Torch is imported on use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppfr.core._errors import DeviceError, InvalidInputError

if TYPE_CHECKING:
    import torch


def choose_device(requested: str = "auto") -> torch.device:
    """The device of this machine that was requested.

    Args:
        requested: "auto", "cpu", "cuda", "cuda:N" or "mps". "auto" is the first CUDA device, or the CPU if there is
            none.

    Raises:
        InvalidInputError: unknown name.
        DeviceError: this machine has no such device.
    """
    import torch

    if requested == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise InvalidInputError(f"device {requested!r} is unknown; use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise DeviceError(
            f"device {requested!r} was requested, but this machine has {found} CUDA device(s); use cpu or auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' was requested, but this machine has none; use cpu or auto")
    if device.type not in {"cpu", "cuda", "mps"}:
        raise InvalidInputError(f"device {requested!r} is not supported; use auto, cpu, cuda, cuda:N or mps")
    return device
