"""A Fabric for the device that was asked for, deterministic kernels, and what the device says of itself."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from ppfr.core import DeviceError, InvalidInputError, choose_device
from ppfr.training._plan import Plan


def make_fabric(*, device: str, num_devices: int, plan: Plan) -> Fabric:
    """The device(s) and precision, or an error; never another device than was asked for.

    Raises:
        DeviceError: the device, or so many of them, is not there; or cannot compute in the plan's precision.
        InvalidInputError: an unknown device word, or settings that contradict each other.
    """
    chosen = choose_device(device)
    if num_devices < 1 or plan.batch_size % num_devices:
        raise InvalidInputError(
            f"num_devices={num_devices} with batch_size={plan.batch_size}; allowed is 1 or more that divides the batch"
        )
    if plan.precision == "16-mixed" and chosen.type == "cpu":
        raise DeviceError("precision '16-mixed' needs a GPU and the device is cpu; use bf16-mixed or 32-true")
    if plan.sync_batchnorm and (chosen.type != "cuda" or num_devices == 1):
        raise InvalidInputError(
            f"sync_batchnorm needs several CUDA devices; the run has {num_devices} of {chosen.type}: turn it off"
        )
    with fabric_notes_unheard():
        if num_devices == 1:
            devices: Any = [chosen.index or 0] if chosen.type == "cuda" else 1
            return Fabric(accelerator=chosen.type, devices=devices, precision=plan.precision)  # type: ignore[arg-type]
        _check_several(chosen, device, num_devices)
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        strategy = DDPStrategy(start_method="spawn", process_group_backend=backend)
        return Fabric(
            accelerator=chosen.type,
            devices=num_devices,
            strategy=strategy,
            precision=plan.precision,  # type: ignore[arg-type]
        )


def _check_several(chosen: torch.device, asked: str, num_devices: int) -> None:
    if chosen.type == "mps" or (chosen.type == "cuda" and ":" in asked):
        raise InvalidInputError(
            f"device {asked!r} names one device and num_devices={num_devices}; use cuda or cpu, or num_devices=1"
        )
    if chosen.type == "cuda" and torch.cuda.device_count() < num_devices:
        raise DeviceError(
            f"num_devices={num_devices} were asked for, but this machine has {torch.cuda.device_count()} CUDA device(s)"
        )


@contextlib.contextmanager
def fabric_notes_unheard() -> Iterator[None]:
    """Fabric's remarks on the machine (an unused accelerator, a batch system on the path) are not ours to pass on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\.fabric")
        yield


@contextlib.contextmanager
def deterministic_kernels(is_wanted: bool) -> Iterator[None]:
    """Deterministic kernels within the block; the process's settings are as before afterwards.

    An operation that has no deterministic kernel still runs, and torch warns of it by name.
    """
    if not is_wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    # Read by cuBLAS when it starts; without it, deterministic matrix products are refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every fresh tensor guards against reading what was never written; it costs time and makes no result.
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = benchmark


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s)"


def peak_memory_bytes(device: torch.device) -> int:
    """CUDA: most bytes that torch allocated; else the process's largest resident size so far (0 where unknown)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
