"""Provenance of a record: versions, commit, machine, data. It contains no host name, user name or path."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from ppfr.core import DataEntry, ImageSet, MachineEntry, SoftwareEntry
from ppfr.evaluation._measure import DataUse

_PACKAGES = ("torch", "lightning", "numpy", "scipy", "opencv-python-headless", "safetensors")
_NUM_FINGERPRINTED = 256
_GIT_TIMEOUT_S = 20


def software() -> SoftwareEntry:
    """Versions of ppfr, Python and the packages that figures depend on, and the commit if ppfr runs from a checkout."""
    commit, is_modified = _commit(Path(__file__).resolve())
    return SoftwareEntry(
        ppfr=metadata.version("ppfr"),
        commit=commit,
        is_modified=is_modified,
        python=platform.python_version(),
        packages={name: version for name in _PACKAGES if (version := _version(name))},
    )


def machine(device: torch.device) -> MachineEntry:
    """Hardware and operating system of this machine."""
    is_cuda = device.type == "cuda"
    return MachineEntry(
        system=platform.system(),
        architecture=platform.machine(),
        num_cores=os.cpu_count() or 1,
        num_threads=torch.get_num_threads(),
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if is_cuda else device.type,
        memory_bytes=_memory_bytes(),
        peak_memory_bytes=peak_memory_bytes(),
    )


def peak_memory_bytes() -> int | None:
    """Peak resident memory of this process so far; None if the operating system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(largest if sys.platform == "darwin" else largest * 1024)


def fingerprint(images: ImageSet) -> str:
    """SHA-256 over every subject id and the pixels of up to 256 images at even distances.

    Distinguishes data sets without reading all images. Equal fingerprints do not prove that every image is the same.
    """
    digest = hashlib.sha256(f"{len(images)}\n".encode())
    digest.update("\n".join(images.subject_ids).encode())
    spread = np.unique(np.linspace(0, len(images) - 1, min(_NUM_FINGERPRINTED, len(images))).astype(int))
    for start in range(0, len(spread), 64):
        digest.update(np.ascontiguousarray(images.read(spread[start : start + 64].tolist())).tobytes())
    return digest.hexdigest()


def describe_data(use: DataUse) -> DataEntry:
    """Counts and fingerprint of an image set."""
    return DataEntry(
        role=use.role,
        name=use.name or use.images.name,
        num_images=len(use.images),
        num_subjects=len(set(use.images.subject_ids)),
        fingerprint=fingerprint(use.images),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _commit(source: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that tracks `source`, and whether tracked files differ from it."""
    git = shutil.which("git")
    if git is None:
        return None, None

    def output_of(*words: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603
                [git, "-C", str(source.parent), *words],
                capture_output=True,
                text=True,
                timeout=_GIT_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # If ppfr is installed inside the checkout of another project, that commit is not the commit of ppfr.
    if output_of("ls-files", "--error-unmatch", source.name) is None:
        return None, None
    commit, changes = output_of("rev-parse", "HEAD"), output_of("status", "--porcelain", "--untracked-files=no")
    return (commit, bool(changes)) if commit is not None and changes is not None else (None, None)
