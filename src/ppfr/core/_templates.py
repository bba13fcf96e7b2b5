"""Template protection: templates, subject keys, and the contracts of schemes, attacks and matchers.

In the vocabulary of ISO/IEC 24745, the record is the pseudonymous identifier, and the key is its auxiliary data.
Suffixes: D embedding, K protected template, N rows or probes, M references, C candidates.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, runtime_checkable

from ppfr.core._errors import InvalidInputError, UnsupportableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ppfr.core._observations import Templates, ThreatModel
    from ppfr.core._types import AttackResult

BINDING_BYTES = 32
KEY_ID_BYTES = 16
TAG_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SubjectKey:
    """A subject's key under one scheme. It cannot be printed or pickled.

    Attributes:
        scheme_id: the scheme it is for.
        version: that scheme's version.
        parameters: the scheme's public parameters, packed as in its records.
        material: the secret parameters of the mapping.
        binding: 32 random bytes that bind records to the key. They are not part of the mapping, so a record's tag
            reveals nothing about `material`, whose entropy may be small.
    """

    scheme_id: str
    version: int
    parameters: bytes
    material: bytes
    binding: bytes

    def __post_init__(self) -> None:
        if len(self.binding) != BINDING_BYTES:
            raise InvalidInputError(f"a key is bound by {BINDING_BYTES} bytes, not {len(self.binding)}; draw a new key")

    @property
    def key_id(self) -> bytes:
        """16 bytes that identify the key in records. They reveal nothing about it; ids of two keys are unrelated."""
        return self._derived(b"ppfr/key-id/1")[:KEY_ID_BYTES]

    def tag(self, record: bytes) -> bytes:
        """16 bytes (HMAC-SHA-256, truncated) that cannot be computed for `record` without the key."""
        return hmac.digest(self._derived(b"ppfr/record-tag/1"), record, "sha256")[:TAG_BYTES]

    def _derived(self, label: bytes) -> bytes:
        return hmac.digest(self.binding, label, hashlib.sha256)

    def __repr__(self) -> str:
        return f"SubjectKey(scheme_id={self.scheme_id!r}, version={self.version}, material=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("a subject's key cannot be pickled or copied; keep it in a KeyStore")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ProtectedTemplate:
    """A template that a server may store, or compare with a stored one. It contains no key.

    Attributes:
        scheme_id: the scheme that computed it.
        version: that scheme's version.
        parameters: the scheme's public parameters, packed.
        values_K: (K,) float32, read-only.
        key_id: id of its key; see `SubjectKey.key_id`.
        tag: binds the record to the key. Empty for a probe, which is never stored.
    """

    scheme_id: str
    version: int
    parameters: bytes
    values_K: NDArray[np.float32]
    key_id: bytes
    tag: bytes

    def __repr__(self) -> str:
        return (
            f"ProtectedTemplate(scheme_id={self.scheme_id!r}, version={self.version}, "
            f"num_values={len(self.values_K)}, values=<redacted>)"
        )

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("a protected template cannot be pickled or copied; store the scheme's record of it")


@runtime_checkable
class TemplateMapping(Protocol):
    """Maps embeddings to protected values, row i under key i.

    Threat models grant it to adversaries. Attacks differentiate it without knowledge of the scheme behind it.
    """

    @property
    def num_rows(self) -> int:
        """N, the number of keys."""
        ...

    @property
    def in_dim(self) -> int:
        """D."""
        ...

    @property
    def out_dim(self) -> int:
        """K."""
        ...

    @property
    def is_deployed(self) -> bool:
        """Whether the keys are the deployment's. False if an adversary drew them because it does not know these."""
        ...

    def apply(self, embeddings_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, D) of any norm but zero -> (N, K), before the normalisation that records apply."""
        ...

    def pullback(self, embeddings_ND: NDArray[np.float64], gradient_NK: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, D): gradient with respect to the embeddings, given the gradient with respect to the result of `apply`."""
        ...

    def rows(self, indices: Sequence[int]) -> TemplateMapping:
        """The mapping restricted to these keys, in this order."""
        ...


class TemplateScheme(ABC):
    """A template protection. Its documentation states how far it is irreversible, unlinkable and renewable.

    It is configured by its constructor's keyword arguments and keeps no state between calls. Keys come from the
    operating system.
    """

    @property
    @abstractmethod
    def scheme_id(self) -> str:
        """Name for tables and records, as in "identity-mapping"; ASCII, at most 24 characters."""

    @property
    @abstractmethod
    def version(self) -> int:
        """Version of the records' content; it is incremented when their meaning changes."""

    @property
    @abstractmethod
    def in_dim(self) -> int:
        """D, length of an embedding."""

    @property
    @abstractmethod
    def out_dim(self) -> int:
        """K, length of a protected template."""

    @abstractmethod
    def public_config(self) -> Mapping[str, int | float | str]:
        """JSON-ready constructor arguments: what an adversary is told."""

    @abstractmethod
    def new_key(self) -> SubjectKey:
        """A fresh key from the operating system's generator."""

    @abstractmethod
    def enrol(self, embedding_D: NDArray[np.float32], *, key: SubjectKey) -> ProtectedTemplate:
        """Protect an embedding for storage.

        Args:
            embedding_D: (D,) with L2 norm 1; not modified.
            key: a key of this scheme; store it separately from the template.

        Raises:
            ShapeError: not (D,).
            RangeError: not finite, or not of norm 1.
            UnknownSchemeError: a key of another scheme or of other parameters.
        """

    @abstractmethod
    def probe(self, embedding_D: NDArray[np.float32], *, key: SubjectKey, like: ProtectedTemplate) -> ProtectedTemplate:
        """Protect an embedding for one comparison with `like`, the template of the claimed subject.

        Raises:
            WrongKeyError: `like` has another key; nothing is mapped.
            CorruptTemplateError: `like` has this key, but was altered.
            ShapeError, RangeError, UnknownSchemeError: as for `enrol`.
        """

    @abstractmethod
    def score(self, probe: ProtectedTemplate, reference: ProtectedTemplate) -> float:
        """Similarity in [-1, 1], higher is more alike.

        Raises:
            WrongKeyError: the two have different keys.
            UnknownSchemeError: one of them is of another scheme or of other parameters.
        """

    def renew(self, embedding_D: NDArray[np.float32]) -> tuple[ProtectedTemplate, SubjectKey]:
        """Enrol under a fresh key. Then delete the earlier template and key; the new ones are unrelated to them."""
        key = self.new_key()
        return self.enrol(embedding_D, key=key), key

    @abstractmethod
    def mapping(self, keys: Sequence[SubjectKey]) -> TemplateMapping:
        """The mapping under these keys, with one row per key."""

    @abstractmethod
    def guessed_mapping(self, num_rows: int) -> TemplateMapping:
        """The mapping under freshly drawn keys, which an adversary without the deployment's keys can compute."""

    @abstractmethod
    def to_bytes(self, template: ProtectedTemplate) -> bytes:
        """The record of a template: versioned, self-describing, with a checksum, without the key."""

    @abstractmethod
    def from_bytes(self, record: bytes) -> ProtectedTemplate:
        """A template from its record.

        Raises:
            CorruptTemplateError: truncated, damaged, or of another format.
            OutdatedTemplateError: a version that this release does not read.
            UnknownSchemeError: of another scheme or other parameters.
        """

    @abstractmethod
    def key_to_bytes(self, key: SubjectKey) -> bytes:
        """The record of a key. It is secret; never store it together with the template."""

    @abstractmethod
    def key_from_bytes(self, record: bytes) -> SubjectKey:
        """A key from its record; errors as for `from_bytes`."""


class TemplateAttack(ABC):
    """An adversary that sees protected templates and is granted a mapping."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and records."""

    @property
    @abstractmethod
    def needs(self) -> ThreatModel:
        """What the adversary knows and sees."""

    @property
    def num_templates(self) -> int:
        """R, templates of each subject that the attack uses together, under R keys; by default one."""
        return 1

    @abstractmethod
    def run(self, seen: Templates, mapping: TemplateMapping, *, seed: int) -> AttackResult:
        """Recover embeddings or faces; the result has one row per subject.

        Args:
            seen: N templates, the R templates of one subject after another.
            mapping: N rows, under the deployment's keys if the adversary knows them, otherwise under drawn ones.
            seed: root of every draw.

        Raises:
            ThreatModelError: another type of observation, or keys that the threat model does not grant.
            ShapeError: templates that do not fit the mapping.
        """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TopMatches:
    """The best k references of each probe, best first; at equal scores, the lower index first.

    Attributes:
        reference_Nk: (N, k) int64 index of each in the gallery.
        score_Nk: (N, k) float64, descending.
    """

    reference_Nk: NDArray[np.int64]
    score_Nk: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"TopMatches(shape={self.reference_Nk.shape}, values=<redacted>)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """All references at or above a threshold, by probe, then best first; at equal scores, the lower index first.

    Attributes:
        probe_C: (C,) int64 index of the probe.
        reference_C: (C,) int64 index of the reference in the gallery.
        score_C: (C,) float64.
    """

    probe_C: NDArray[np.int64]
    reference_C: NDArray[np.int64]
    score_C: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Matches(num={len(self.probe_C)}, values=<redacted>)"


@runtime_checkable
class Matcher(Protocol):
    """Compares probes (rows of scores) with the references of one gallery (columns); higher is more similar."""

    @property
    def dim(self) -> int:
        """D, length of a probe's embedding."""
        ...

    @property
    def num_references(self) -> int:
        """M."""
        ...

    def score_matrix(self, probes_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, D) of L2 norm 1 -> (N, M)."""
        ...

    def top_k(self, probes_ND: NDArray[np.float32], *, k: int) -> TopMatches:
        """The best min(k, M) of each probe, ranked by scores in double precision."""
        ...

    def at_least(self, probes_ND: NDArray[np.float32], *, threshold: float) -> Matches:
        """Every reference whose score, in double precision, is at least `threshold`."""
        ...
