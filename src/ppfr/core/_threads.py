"""How the threads of OpenMP, which torch computes with, wait for each other."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Torch uses GNU OpenMP on Linux and LLVM's elsewhere. With GNU OpenMP, a short spin costs nothing on a quiet machine,
# and a passive policy in addition does: benchmarks/waiting_threads.py.
_BRIEF = {"GOMP_SPINCOUNT": "1000"} if sys.platform == "linux" else {"OMP_WAIT_POLICY": "PASSIVE"}


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads of OpenMP sleep after a short time, unless the environment already says how they wait.

    By default a thread that waits for the others keeps its core busy. If another process needs that core, every
    parallel region of torch waits for the scheduler, and training becomes several times slower.

    OpenMP reads its variables when it is loaded: call this before the first import of torch. Processes that are started
    later inherit them. On Linux, where torch uses GNU OpenMP, the variable is `GOMP_SPINCOUNT=1000`: threads spin for
    about a microsecond, then sleep. Elsewhere it is `OMP_WAIT_POLICY=PASSIVE`.

    Args:
        environment: the environment to change. Nothing is changed if it contains `OMP_WAIT_POLICY`, `GOMP_SPINCOUNT` or
            `KMP_BLOCKTIME`.

    References:
        OpenMP 5.2, section 21.7 (`OMP_WAIT_POLICY`); GNU libgomp manual (`GOMP_SPINCOUNT`).

    >>> environment = {"KMP_BLOCKTIME": "0"}
    >>> limit_spinning(environment)  # the user has chosen
    >>> environment
    {'KMP_BLOCKTIME': '0'}
    """
    if not any(name in environment for name in _CHOICES):
        environment.update(_BRIEF)


def spinning_in_words(environment: MutableMapping[str, str] = os.environ) -> str:
    """How waiting threads behave under this environment, for people.

    >>> spinning_in_words({"OMP_WAIT_POLICY": "ACTIVE"})
    'OMP_WAIT_POLICY=ACTIVE'
    """
    chosen = [f"{name}={environment[name]}" for name in _CHOICES if name in environment]
    return ", ".join(chosen) or "default of OpenMP: threads keep their core busy while they wait"
