"""Random draws from the operating system, or from a seeded generator that an experiment passes instead."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

from ppfr.core._keystream import Keystream

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from torch import Tensor

_KEY_BYTES = 32
_DOUBLE_BITS = 53


def protective_stream() -> Keystream:
    """A stream of words for randomness that protects people: AES-256 in counter mode.

    Each call takes a new key of 32 bytes from the operating system.
    """
    return Keystream(os.urandom(_KEY_BYTES), 0)


def protective_streams(num: int) -> list[Keystream]:
    """`num` independent streams under one new key of the operating system; see `protective_stream`."""
    key = os.urandom(_KEY_BYTES) if num else b""
    return [Keystream(key, number) for number in range(num)]


def draws_from(rng: torch.Generator | None) -> Draws:
    """The draws of a masker or mixer: from the operating system if `rng` is None, else from that CPU generator."""
    return _SystemDraws() if rng is None else _SeededDraws(rng)


class Draws(ABC):
    """Random tensors on the CPU."""

    @abstractmethod
    def uniform(self, *shape: int) -> Tensor:
        """Float64 in [0, 1), multiples of 2^-53."""

    @abstractmethod
    def normal(self, *shape: int) -> Tensor:
        """Float64 from N(0, 1)."""

    @abstractmethod
    def bits(self, *shape: int) -> Tensor:
        """Int8, 0 or 1."""

    @abstractmethod
    def below(self, end: int) -> int:
        """An integer in 0..end - 1."""

    @abstractmethod
    def permutation(self, num: int) -> Tensor:
        """(num,) int64: the integers 0..num - 1 in random order."""

    @abstractmethod
    def choices(self, shares: Sequence[float], num: int) -> Tensor:
        """(num,) int64: indices of `shares`, each drawn with the probability that it has there."""

    @abstractmethod
    def secret(self, num_bytes: int) -> bytes:
        """Bytes for the secret of a masker."""


@final
class _SystemDraws(Draws):
    def __init__(self) -> None:
        self._stream = protective_stream()

    def _words(self, shape: tuple[int, ...]) -> np.ndarray:
        import numpy as np

        return self._stream.words(shape, np.uint64)

    def uniform(self, *shape: int) -> Tensor:
        import torch

        return torch.from_numpy((self._words(shape) >> (64 - _DOUBLE_BITS)) * 2.0**-_DOUBLE_BITS)

    def normal(self, *shape: int) -> Tensor:
        import torch

        # Inversion at the middle of each interval, so that neither 0 nor 1 occurs.
        drawn: Tensor = torch.special.ndtri(self.uniform(*shape) + 2.0 ** -(_DOUBLE_BITS + 1))
        return drawn

    def bits(self, *shape: int) -> Tensor:
        import numpy as np
        import torch

        return torch.from_numpy(self._stream.words(shape, np.int8) & np.int8(1))

    def below(self, end: int) -> int:
        import secrets

        return secrets.randbelow(end)

    def permutation(self, num: int) -> Tensor:
        return self.uniform(num).argsort(stable=True)  # equal keys have odds of num^2 / 2^54

    def choices(self, shares: Sequence[float], num: int) -> Tensor:
        import torch

        edges = torch.tensor(shares, dtype=torch.float64).cumsum(0)
        return torch.searchsorted(edges[:-1] / edges[-1], self.uniform(num), right=True)

    def secret(self, num_bytes: int) -> bytes:
        return os.urandom(num_bytes)


@final
class _SeededDraws(Draws):
    """Each method is one call of PyTorch, so that experiments keep the draws that they have always had."""

    def __init__(self, rng: torch.Generator) -> None:
        self._rng = rng

    def uniform(self, *shape: int) -> Tensor:
        import torch

        return torch.rand(*shape, generator=self._rng, dtype=torch.float64)

    def normal(self, *shape: int) -> Tensor:
        import torch

        return torch.randn(*shape, generator=self._rng, dtype=torch.float64)

    def bits(self, *shape: int) -> Tensor:
        import torch

        return torch.randint(0, 2, shape, generator=self._rng, dtype=torch.int8)

    def below(self, end: int) -> int:
        import torch

        return int(torch.randint(end, (1,), generator=self._rng))

    def permutation(self, num: int) -> Tensor:
        import torch

        return torch.randperm(num, generator=self._rng)

    def choices(self, shares: Sequence[float], num: int) -> Tensor:
        import torch

        return torch.multinomial(torch.tensor(shares), num, replacement=True, generator=self._rng)

    def secret(self, num_bytes: int) -> bytes:
        import torch

        return bytes(torch.randint(0, 256, (num_bytes,), generator=self._rng).tolist())
