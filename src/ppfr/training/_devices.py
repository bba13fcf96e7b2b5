"""Device set-up through Fabric, deterministic kernels, and facts about the device."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from ppfr.core import DeviceError, InvalidInputError, choose_device
from ppfr.training._plan import Plan

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def make_fabric(*, device: str, num_devices: int, plan: Plan) -> Fabric:
    """A Fabric for exactly the requested devices and precision.

    Raises:
        DeviceError: the devices are not available, or do not support the precision of the plan.
        InvalidInputError: the device name is unknown, or settings contradict each other.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    chosen = choose_device(device)
    if num_devices < 1 or plan.batch_size % num_devices:
        raise InvalidInputError(
            f"num_devices={num_devices} with batch_size={plan.batch_size}; num_devices must be positive and "
            "divide batch_size"
        )
    if plan.precision == "16-mixed" and chosen.type == "cpu":
        raise DeviceError("precision '16-mixed' requires a GPU, but the device is cpu; use bf16-mixed or 32-true")
    if plan.sync_batchnorm and (chosen.type != "cuda" or num_devices == 1):
        raise InvalidInputError(
            f"sync_batchnorm requires several CUDA devices, but the run has {num_devices} of type {chosen.type}; "
            "use sync_batchnorm=False"
        )
    with ignored_fabric_warnings():
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


def _check_several(chosen: torch.device, requested: str, num_devices: int) -> None:
    if chosen.type == "mps" or (chosen.type == "cuda" and ":" in requested):
        raise InvalidInputError(
            f"device {requested!r} is a single device, but num_devices={num_devices}; use cuda or cpu, or num_devices=1"
        )
    if chosen.type == "cuda" and torch.cuda.device_count() < num_devices:
        raise DeviceError(f"num_devices={num_devices}, but this machine has {torch.cuda.device_count()} CUDA device(s)")


@contextlib.contextmanager
def ignored_fabric_warnings() -> Iterator[None]:
    """Suppress the warnings of Fabric about the machine, such as unused accelerators or batch systems on the path."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\.fabric")
        yield


@contextlib.contextmanager
def deterministic_kernels(is_enabled: bool) -> Iterator[None]:
    """Use deterministic kernels within the block, and restore the previous settings afterwards.

    An operation without a deterministic kernel still runs, and torch warns about it.
    """
    if not is_enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    # cuBLAS reads this variable when it starts. Without it, deterministic matrix products raise an error.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new tensors only helps to find reads of uninitialised memory. It costs time and does not change results.
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = benchmark


def device_name(device: torch.device) -> str:
    """The name of the hardware."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s)"


def peak_memory_bytes(device: torch.device) -> int:
    """On CUDA the maximum that torch allocated; otherwise the maximum resident size of the process (0 if unknown)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
