"""Which library a `ProcessMatcher` runs, with how many parties, and what it promises."""

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
    "SPU needs NumPy 1 and so an environment of its own: python3.11 -m venv spu && spu/bin/pip install "
    f"-r requirements/spu.txt, then set {SPU_PYTHON} to that environment's python, or give Spu(python=...)"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spu:
    """SecretFlow's SPU 0.9.5, in an environment of its own.

    Attributes:
        protocol: "aby3" (three servers, of whom one may be curious) or "cheetah" (two servers, of whom either may be;
            homomorphic encryption and oblivious transfer instead of a third) or "semi2k" (two servers and a dealer of
            correlated randomness, who must not be in league with either).
        python: interpreter of SPU's environment; None for the one that PPFR_SPU_PYTHON names.
        tls: mutual TLS between the parties, under keys of the session.

    Raises:
        InvalidInputError: another protocol.
    """

    protocol: SpuProtocol = "aby3"
    python: str | os.PathLike[str] | None = None
    tls: bool = True

    def __post_init__(self) -> None:
        if self.protocol not in get_args(SpuProtocol):
            raise InvalidInputError(f"protocol={self.protocol!r} is not one of {', '.join(get_args(SpuProtocol))}")

    @property
    def num_parties(self) -> int:
        """Servers that hold shares."""
        return 3 if self.protocol == "aby3" else 2

    @property
    def has_dealer(self) -> bool:
        """Whether a further process makes correlated randomness."""
        return self.protocol == "semi2k"

    def interpreter(self) -> str:
        """Path of SPU's interpreter.

        Raises:
            MissingEnvironmentError: none is named, or there is none under that name.
        """
        named = self.python or os.environ.get(SPU_PYTHON)
        if not named:
            raise MissingEnvironmentError("SPU", f"no interpreter was named. {_SPU_REMEDY}")
        found = shutil.which(named)
        if found is None:
            raise MissingEnvironmentError("SPU", f"{os.fspath(named)} is not a program. {_SPU_REMEDY}")
        return str(Path(found).absolute())  # a link is kept: an environment is known by it

    def missing(self, module: str) -> MissingEnvironmentError:
        """What to raise where the interpreter lacks a module."""
        return MissingEnvironmentError("SPU", f"the interpreter has no module {module}. {_SPU_REMEDY}")

    def setup(self, ring_bits: int) -> dict[str, Any]:
        """What its workers are told first."""
        del ring_bits  # both formats fit SPU's smallest ring
        return {"engine": "spu", "protocol": self.protocol.upper()}

    def tls_name(self, party: int) -> str:
        """What a party's certificate is made out to."""
        return f"party {party}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mpyc:
    """MPyC: Shamir sharing among an odd number of servers, a minority of whom may be curious.

    Attributes:
        num_parties: odd. 1 computes on values in the clear, and is of use in tests alone.
        tls: mutual TLS between the parties, under keys of the session.

    Raises:
        RangeError: an even number of parties, or fewer than 1.
    """

    num_parties: int = 3
    tls: bool = True

    def __post_init__(self) -> None:
        if self.num_parties < 1 or self.num_parties % 2 == 0:
            raise RangeError(f"num_parties={self.num_parties} is not an odd number from 1")

    @property
    def has_dealer(self) -> bool:
        """Whether a further process makes correlated randomness."""
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
        """What to raise where the interpreter lacks a module."""
        del module
        return MissingExtraError("mpyc", "the MPyC back end")

    def setup(self, ring_bits: int) -> dict[str, Any]:
        """What its workers are told first."""
        return {"engine": "mpyc", "ring_bits": ring_bits}

    def tls_name(self, party: int) -> str:
        """What a party's certificate is made out to: the name that MPyC looks for."""
        return f"MPyC party {party}"
