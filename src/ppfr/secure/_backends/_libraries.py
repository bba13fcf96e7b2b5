"""The libraries that a `ProcessMatcher` can run, their numbers of parties and security models."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from ppfr.core import InvalidInputError, MissingEnvironmentError, MissingExtraError, RangeError

SpuProtocol = Literal["aby3", "cheetah", "semi2k"]
SPU_PYTHON = "PPFR_SPU_PYTHON"
_SPU_REMEDY = (
    "SPU needs NumPy 1 and therefore an environment of its own: python3.11 -m venv spu && spu/bin/pip install "
    f"-r requirements/spu.txt, then set {SPU_PYTHON} to its python, or pass Spu(python=...)"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spu:
    """SecretFlow's SPU 0.9.5, in an environment of its own.

    Attributes:
        protocol: "aby3" (three servers, one of which may be semi-honest), "cheetah" (two servers, either of which may
            be; homomorphic encryption and oblivious transfer replace a third server) or "semi2k" (two servers and a
            dealer of correlated randomness, which must not collude with either).
        python: interpreter of SPU's environment; None for the value of PPFR_SPU_PYTHON.
        tls: mutual TLS between the parties, with keys of the session.

    Raises:
        InvalidInputError: unknown protocol.
    """

    protocol: SpuProtocol = "aby3"
    python: str | os.PathLike[str] | None = None
    tls: bool = True

    def __post_init__(self) -> None:
        if self.protocol not in get_args(SpuProtocol):
            raise InvalidInputError(
                f"protocol must be one of {', '.join(get_args(SpuProtocol))}, got {self.protocol!r}."
            )

    @property
    def num_parties(self) -> int:
        """Number of servers that hold shares."""
        return 3 if self.protocol == "aby3" else 2

    @property
    def has_dealer(self) -> bool:
        """Whether a further process generates correlated randomness."""
        return self.protocol == "semi2k"

    def interpreter(self) -> str:
        """Path of SPU's interpreter.

        Raises:
            MissingEnvironmentError: no interpreter is configured, or it does not exist.
        """
        configured = self.python or os.environ.get(SPU_PYTHON)
        if not configured:
            raise MissingEnvironmentError("SPU", f"no interpreter is configured. {_SPU_REMEDY}")
        found = shutil.which(configured)
        if found is None:
            raise MissingEnvironmentError("SPU", f"{os.fspath(configured)} is not an executable. {_SPU_REMEDY}")
        return str(Path(found).absolute())  # not resolved: a virtual environment is identified by the link

    def missing(self, module: str) -> MissingEnvironmentError:
        """The error to raise if the interpreter lacks a module."""
        return MissingEnvironmentError("SPU", f"the interpreter has no module {module}. {_SPU_REMEDY}")

    def setup(self, ring_bits: int) -> dict[str, Any]:
        """First message to the library's workers."""
        del ring_bits  # both formats fit SPU's smallest ring
        return {"engine": "spu", "protocol": self.protocol.upper()}

    def tls_name(self, party: int) -> str:
        """Name in a party's certificate."""
        return f"party {party}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mpyc:
    """MPyC: Shamir sharing among an odd number of servers, a minority of which may be semi-honest.

    Attributes:
        num_parties: odd. 1 computes on values in the clear and is for tests only.
        tls: mutual TLS between the parties, with keys of the session.

    Raises:
        RangeError: an even number of parties, or fewer than 1.
    """

    num_parties: int = 3
    tls: bool = True

    def __post_init__(self) -> None:
        if self.num_parties < 1 or self.num_parties % 2 == 0:
            raise RangeError(f"num_parties must be odd and at least 1, got {self.num_parties}.")

    @property
    def has_dealer(self) -> bool:
        """Whether a further process generates correlated randomness."""
        return False

    def interpreter(self) -> str:
        """This interpreter.

        Raises:
            MissingExtraError: MPyC is not installed.
        """
        if importlib.util.find_spec("mpyc") is None:
            raise self.missing("mpyc")
        return sys.executable

    def missing(self, module: str) -> MissingExtraError:
        """The error to raise if the interpreter lacks a module."""
        del module
        return MissingExtraError("mpyc", "the MPyC back end")

    def setup(self, ring_bits: int) -> dict[str, Any]:
        """First message to the library's workers."""
        return {"engine": "mpyc", "ring_bits": ring_bits}

    def tls_name(self, party: int) -> str:
        """Name in a party's certificate; MPyC expects this form."""
        return f"MPyC party {party}"
