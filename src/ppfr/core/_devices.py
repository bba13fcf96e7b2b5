"""Choosing a device: what was asked for, or an error; never a silent CPU run. Torch is imported on use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppfr.core._errors import DeviceError, InvalidInputError

if TYPE_CHECKING:
    import torch


def choose_device(asked: str = "auto") -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that exists.

    "auto" takes the first CUDA device, else the CPU; it is the one word by which a user leaves the choice to us.

    Raises:
        InvalidInputError: an unknown word.
        DeviceError: the device is not on this machine.
    """
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise InvalidInputError(f"device {asked!r} is unknown; use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise DeviceError(
            f"device {asked!r} was asked for, but this machine has {found} CUDA device(s); use cpu or auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' was asked for, but this machine has none; use cpu or auto")
    if device.type not in {"cpu", "cuda", "mps"}:
        raise InvalidInputError(f"device {asked!r} is not supported; use auto, cpu, cuda, cuda:N or mps")
    return device
