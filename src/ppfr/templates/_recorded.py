"""The base class of all schemes: checks, normalisation, tags and records. A scheme adds its mapping.

Suffixes: D embedding, K template values.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import (
    CorruptTemplateError,
    InvalidInputError,
    OutdatedTemplateError,
    ProtectedTemplate,
    RangeError,
    ShapeError,
    SubjectKey,
    TemplateScheme,
    UnknownSchemeError,
    WrongKeyError,
    unit_rows,
)
from ppfr.templates._records import PARAMETER_BYTES, Kind, Record, parse_record

Payload = Literal["float32", "float16"]

BINDING_BYTES = 32


class RecordedScheme(TemplateScheme):
    """A scheme whose templates are vectors of norm 1, compared by cosine and stored in this package's record format.

    Args:
        payload: precision of stored values: "float32", or "float16" for half the size. Both kinds can be read.
    """

    def __init__(self, *, payload: Payload) -> None:
        if payload not in ("float32", "float16"):
            raise InvalidInputError(f"payload={payload!r}; allowed: float32, float16")
        self._payload: Payload = payload

    @abstractmethod
    def _parameters(self) -> bytes:
        """The parameters on which comparisons depend, packed in 32 bytes."""

    @abstractmethod
    def _new_material(self) -> bytes:
        """New key material from the operating system."""

    @abstractmethod
    def _check_material(self, material: bytes) -> None:
        """Raise CorruptTemplateError if the material is not a key of this scheme."""

    @abstractmethod
    def _values(self, unit_D: NDArray[np.float64], material: bytes) -> NDArray[np.float64]:
        """(K,) mapped values, before normalisation."""

    def new_key(self) -> SubjectKey:
        """A new key from the operating system's generator."""
        return self._key_of(self._new_material())

    def _key_of(self, material: bytes) -> SubjectKey:
        return SubjectKey(
            scheme_id=self.scheme_id,
            version=self.version,
            parameters=self._parameters(),
            material=material,
            binding=secrets.token_bytes(BINDING_BYTES),
        )

    def enrol(self, embedding_D: NDArray[np.float32], *, key: SubjectKey) -> ProtectedTemplate:
        """Protect an embedding for storage; see `TemplateScheme.enrol`."""
        template = self._template(embedding_D, key)
        tag = key.tag(self._record(template).tagged_part())
        return ProtectedTemplate(
            scheme_id=self.scheme_id,
            version=self.version,
            parameters=self._parameters(),
            values_K=template.values_K,
            key_id=template.key_id,
            tag=tag,
        )

    def probe(self, embedding_D: NDArray[np.float32], *, key: SubjectKey, like: ProtectedTemplate) -> ProtectedTemplate:
        """Protect an embedding for one comparison; see `TemplateScheme.probe`."""
        self._check_ours(like.scheme_id, like.version, like.parameters, "template")
        self._check_key(key)
        if not secrets.compare_digest(key.key_id, like.key_id):
            raise WrongKeyError(
                "the template was made under another key; nothing was compared. Use the key of the template"
            )
        if not any(
            secrets.compare_digest(key.tag(self._record(like, payload).tagged_part()), like.tag)
            for payload in ("float32", "float16")
        ):
            raise CorruptTemplateError("the template was altered after enrolment under this key; enrol again")
        return self._template(embedding_D, key)

    def score(self, probe: ProtectedTemplate, reference: ProtectedTemplate) -> float:
        """Cosine in [-1, 1]; see `TemplateScheme.score`."""
        for template in (probe, reference):
            self._check_ours(template.scheme_id, template.version, template.parameters, "template")
        if not secrets.compare_digest(probe.key_id, reference.key_id):
            raise WrongKeyError("probe and template were made under different keys; nothing was compared")
        a_K, b_K = probe.values_K.astype(np.float64), reference.values_K.astype(np.float64)
        length = float(np.sqrt((a_K @ a_K) * (b_K @ b_K)))
        return float(np.clip(a_K @ b_K / length, -1.0, 1.0)) if length > 0 else 0.0

    def _template(self, embedding_D: ArrayLike, key: SubjectKey) -> ProtectedTemplate:
        self._check_key(key)
        array = np.asarray(embedding_D)
        if array.ndim != 1:
            raise ShapeError(f"the embedding has shape {array.shape}; this scheme takes ({self.in_dim},)")
        values_K = self._values(unit_rows(array[None], self.in_dim, "embeddings")[0], key.material)
        length = float(np.linalg.norm(values_K))
        if length == 0:
            raise RangeError("the embedding is mapped to zero under this key; draw another key")
        stored_K = (values_K / length).astype(self._payload).astype(np.float32)
        stored_K.flags.writeable = False
        return ProtectedTemplate(
            scheme_id=self.scheme_id,
            version=self.version,
            parameters=self._parameters(),
            values_K=stored_K,
            key_id=key.key_id,
            tag=b"",
        )

    def _check_key(self, key: SubjectKey) -> None:
        self._check_ours(key.scheme_id, key.version, key.parameters, "key")
        self._check_material(key.material)

    def _check_ours(self, scheme_id: str, version: int, parameters: bytes, what: str) -> None:
        if scheme_id != self.scheme_id:
            raise UnknownSchemeError(
                f"the {what} has scheme {scheme_id!r}, but this scheme is {self.scheme_id!r}; use `scheme_of(record)`"
            )
        if version != self.version:
            raise OutdatedTemplateError(
                f"the {what} has version {version} of {scheme_id}, but this release reads {self.version}; enrol again, "
                "or use the release that wrote it"
            )
        if parameters != self._parameters():
            raise UnknownSchemeError(
                f"the {what} was made by {scheme_id} with other parameters than those of this scheme; "
                "get the matching scheme with `scheme_of(record)`"
            )

    def _record(self, template: ProtectedTemplate, payload: str | None = None) -> Record:
        payload = self._payload if payload is None else payload
        return Record(
            kind="template",
            scheme_id=template.scheme_id,
            scheme_version=template.version,
            parameters=template.parameters,
            payload_kind=payload,
            payload=template.values_K.astype("<f2" if payload == "float16" else "<f4").tobytes(),
            key_id=template.key_id,
            tag=template.tag or bytes(16),
        )

    def to_bytes(self, template: ProtectedTemplate) -> bytes:
        """The record of a template; see `TemplateScheme.to_bytes`."""
        self._check_ours(template.scheme_id, template.version, template.parameters, "template")
        if not template.tag:
            raise InvalidInputError("a probe cannot be stored; store the template that `enrol` returns")
        return self._record(template).to_bytes()

    def from_bytes(self, record: bytes) -> ProtectedTemplate:
        """A template from its record; see `TemplateScheme.from_bytes`."""
        parsed = self._parsed(record, "template")
        if parsed.payload_kind == "bytes":
            raise CorruptTemplateError("the record has no values; enrol again")
        values_K = np.frombuffer(parsed.payload, "<f2" if parsed.payload_kind == "float16" else "<f4")
        if len(values_K) != self.out_dim or not np.isfinite(values_K).all():
            raise CorruptTemplateError(
                f"the record has {len(values_K)} values, of which {int(np.isfinite(values_K).sum())} are finite, "
                f"but a template of this scheme has {self.out_dim} finite values; enrol again"
            )
        values_K = values_K.astype(np.float32)
        values_K.flags.writeable = False
        return ProtectedTemplate(
            scheme_id=parsed.scheme_id,
            version=parsed.scheme_version,
            parameters=parsed.parameters,
            values_K=values_K,
            key_id=parsed.key_id,
            tag=parsed.tag,
        )

    def key_to_bytes(self, key: SubjectKey) -> bytes:
        """The record of a key; see `TemplateScheme.key_to_bytes`."""
        self._check_key(key)
        return Record(
            kind="key",
            scheme_id=key.scheme_id,
            scheme_version=key.version,
            parameters=key.parameters,
            payload_kind="bytes",
            payload=key.material + key.binding,
            key_id=key.key_id,
        ).to_bytes()

    def key_from_bytes(self, record: bytes) -> SubjectKey:
        """A key from its record; see `TemplateScheme.key_from_bytes`."""
        parsed = self._parsed(record, "key")
        if len(parsed.payload) < BINDING_BYTES:
            raise CorruptTemplateError("the key record is too short; enrol again under a new key")
        key = SubjectKey(
            scheme_id=parsed.scheme_id,
            version=parsed.scheme_version,
            parameters=parsed.parameters,
            material=parsed.payload[:-BINDING_BYTES],
            binding=parsed.payload[-BINDING_BYTES:],
        )
        self._check_material(key.material)
        if not secrets.compare_digest(key.key_id, parsed.key_id):
            raise CorruptTemplateError(
                "the key record is inconsistent: its key id does not match; enrol again under a new key"
            )
        return key

    def _parsed(self, record: bytes, kind: Kind) -> Record:
        parsed = parse_record(record, kind=kind)
        self._check_ours(parsed.scheme_id, parsed.scheme_version, parsed.parameters, kind)
        return parsed


def padded(parameters: bytes) -> bytes:
    """Parameters, padded with zeros to their size in a record."""
    return parameters.ljust(PARAMETER_BYTES, b"\0")
