"""Control schemes for attacks: unprotected templates, and constant templates.

Suffixes: N rows, D embedding, K template values.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from ppfr.core import CorruptTemplateError, RangeError, ShapeError, SubjectKey
from ppfr.templates._recorded import Payload, RecordedScheme, padded
from ppfr.templates._records import Record

Floats = NDArray[np.float64]
_PARAMETERS = struct.Struct("<II")


class _KeylessScheme(RecordedScheme):
    """A scheme whose mapping does not depend on the key. Keys still bind records to their subjects."""

    def __init__(self, *, dim: int, out_dim: int, payload: Payload) -> None:
        super().__init__(payload=payload)
        for name, value in (("dim", dim), ("out_dim", out_dim)):
            if not 1 <= value <= 1 << 20:
                raise RangeError(f"{name}={value}; must be from 1 to {1 << 20}")
        self._dim, self._out_dim = dim, out_dim

    @property
    def version(self) -> int:
        """Version of the record contents."""
        return 1

    @property
    def in_dim(self) -> int:
        """D."""
        return self._dim

    @property
    def out_dim(self) -> int:
        """K."""
        return self._out_dim

    def _parameters(self) -> bytes:
        return padded(_PARAMETERS.pack(self._dim, self._out_dim))

    def _new_material(self) -> bytes:
        return b""

    def _check_material(self, material: bytes) -> None:
        if material:
            raise CorruptTemplateError("the key is not a key of this scheme; enrol again under a new key")

    def _values(self, unit_D: Floats, material: bytes) -> Floats:
        return np.asarray(self._mapping_of(1, is_deployed=True).apply(unit_D[None])[0])

    @abstractmethod
    def _mapping_of(self, num_rows: int, *, is_deployed: bool) -> _KeylessMapping:
        """The mapping of `num_rows` rows."""

    def mapping(self, keys: Sequence[SubjectKey]) -> _KeylessMapping:
        """The mapping, which does not depend on the keys."""
        for key in keys:
            self._check_key(key)
        return self._mapping_of(len(keys), is_deployed=True)

    def guessed_mapping(self, num_rows: int) -> _KeylessMapping:
        """The same mapping, marked as not deployed."""
        return self._mapping_of(num_rows, is_deployed=False)


@final
class _KeylessMapping:
    """A `TemplateMapping`: to the embedding of norm 1, or to a constant."""

    def __init__(self, num_rows: int, in_dim: int, out_dim: int, *, is_constant: bool, is_deployed: bool) -> None:
        self._num_rows, self._in_dim, self._out_dim = num_rows, in_dim, out_dim
        self._is_constant, self._is_deployed = is_constant, is_deployed

    @property
    def num_rows(self) -> int:
        """N."""
        return self._num_rows

    @property
    def in_dim(self) -> int:
        """D."""
        return self._in_dim

    @property
    def out_dim(self) -> int:
        """K."""
        return self._out_dim

    @property
    def is_deployed(self) -> bool:
        """The argument of the constructor. There are no keys."""
        return self._is_deployed

    def apply(self, embeddings_ND: Floats) -> Floats:
        """(N, D) -> (N, K)."""
        array_ND, norm_N1 = self._checked(embeddings_ND)
        if self._is_constant:
            return np.ones((self._num_rows, self._out_dim))
        return np.asarray(array_ND / norm_N1)

    def pullback(self, embeddings_ND: Floats, gradient_NK: Floats) -> Floats:
        """(N, D): gradient with respect to the embeddings."""
        array_ND, norm_N1 = self._checked(embeddings_ND)
        if self._is_constant:
            return np.zeros_like(array_ND)
        unit_ND = array_ND / norm_N1
        return np.asarray((gradient_NK - (gradient_NK * unit_ND).sum(axis=1, keepdims=True) * unit_ND) / norm_N1)

    def rows(self, indices: Sequence[int]) -> _KeylessMapping:
        """The mapping of `len(indices)` rows."""
        return _KeylessMapping(
            len(indices), self._in_dim, self._out_dim, is_constant=self._is_constant, is_deployed=self._is_deployed
        )

    def _checked(self, embeddings_ND: Floats) -> tuple[Floats, Floats]:
        array_ND = np.asarray(embeddings_ND, dtype=np.float64)
        if array_ND.shape != (self._num_rows, self._in_dim):
            raise ShapeError(
                f"embeddings have shape {array_ND.shape}; this mapping takes ({self._num_rows}, {self._in_dim})"
            )
        norm_N1 = np.linalg.norm(array_ND, axis=1, keepdims=True)
        if not (np.isfinite(norm_N1).all() and (norm_N1 > 0).all()):
            raise RangeError(
                "embeddings have rows of zeros or non-finite values; every row must be finite and non-zero"
            )
        return array_ND, norm_N1


@final
class UnprotectedTemplates(_KeylessScheme):
    """Control: the template is the embedding.

    Every attack must succeed against it. Otherwise the result of the attack is void.

    Args:
        dim: D = K.
        payload: precision of stored values.

    Privacy:
        None.
    """

    def __init__(self, *, dim: int = 512, payload: Payload = "float32") -> None:
        super().__init__(dim=dim, out_dim=dim, payload=payload)

    @classmethod
    def of_record(cls, record: Record) -> UnprotectedTemplates:
        """The scheme with the parameters of a record."""
        return cls(dim=_PARAMETERS.unpack_from(record.parameters)[0])

    @property
    def scheme_id(self) -> str:
        """Name in tables and records."""
        return "unprotected"

    def public_config(self) -> Mapping[str, int | float | str]:
        """Constructor arguments."""
        return {"dim": self._dim, "payload": self._payload}

    def _mapping_of(self, num_rows: int, *, is_deployed: bool) -> _KeylessMapping:
        return _KeylessMapping(num_rows, self._dim, self._dim, is_constant=False, is_deployed=is_deployed)


@final
class ConstantTemplates(_KeylessScheme):
    """Control: all templates are equal.

    An attack that exceeds chance level against it is faulty.

    Args:
        dim: D.
        out_dim: K.
        payload: precision of stored values.

    Privacy:
        Templates carry no information about the embedding. Recognition is impossible.
    """

    def __init__(self, *, dim: int = 512, out_dim: int = 103, payload: Payload = "float32") -> None:
        super().__init__(dim=dim, out_dim=out_dim, payload=payload)

    @classmethod
    def of_record(cls, record: Record) -> ConstantTemplates:
        """The scheme with the parameters of a record."""
        dim, out_dim = _PARAMETERS.unpack_from(record.parameters)
        return cls(dim=dim, out_dim=out_dim)

    @property
    def scheme_id(self) -> str:
        """Name in tables and records."""
        return "constant"

    def public_config(self) -> Mapping[str, int | float | str]:
        """Constructor arguments."""
        return {"dim": self._dim, "out_dim": self._out_dim, "payload": self._payload}

    def _mapping_of(self, num_rows: int, *, is_deployed: bool) -> _KeylessMapping:
        return _KeylessMapping(num_rows, self._dim, self._out_dim, is_constant=True, is_deployed=is_deployed)
