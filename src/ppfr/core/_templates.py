"""Template protection: what is stored of a person, the key it was made under, the contracts of schemes and matchers.

Vocabulary of ISO/IEC 24745: the record is the pseudonymous identifier, the key its auxiliary data. Suffixes:
D embedding, K protected template, N rows or probes, M references, C candidates.
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
    """A subject's key under one scheme; it shows itself nowhere and cannot be pickled.

    Attributes:
        scheme_id: the scheme it is for.
        version: that scheme's version.
        parameters: the scheme's public parameters, packed as in its records.
        material: what the scheme maps under.
        binding: 32 random bytes that bind records to the key. They are no part of the mapping, so that a record's
            tag says nothing of `material`, whose entropy may be small.
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
        """16 bytes by which a record names its key; they tell nothing of it and two keys' ids are unrelated."""
        return self._derived(b"ppfr/key-id/1")[:KEY_ID_BYTES]

    def tag(self, record: bytes) -> bytes:
        """16 bytes (HMAC-SHA-256, truncated) that nobody without the key can make for `record`."""
        return hmac.digest(self._derived(b"ppfr/record-tag/1"), record, "sha256")[:TAG_BYTES]

    def _derived(self, label: bytes) -> bytes:
        return hmac.digest(self.binding, label, hashlib.sha256)

    def __repr__(self) -> str:
        return f"SubjectKey(scheme_id={self.scheme_id!r}, version={self.version}, material=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError("a subject's key cannot be pickled or copied; keep it in a KeyStore")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ProtectedTemplate:
    """What a server may store of a person, or compare with what it stores; it holds no key.

    Attributes:
        scheme_id: the scheme that made it.
        version: that scheme's version.
        parameters: the scheme's public parameters, packed.
        values_K: (K,) float32, read-only.
        key_id: which key it was made under; see `SubjectKey.key_id`.
        tag: binds the record to the key; empty for a probe, which is never stored.
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
    """Embeddings to protected values, row i under key i, as whoever knows the algorithm and these keys computes them.

    It is what an adversary is granted: attacks differentiate it without knowing which scheme it belongs to.
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
        """The keys are the deployment's; False where an adversary drew them to make do without."""
        ...

    def apply(self, embeddings_ND: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, D) of any length but zero -> (N, K), before whatever normalisation the record applies."""
        ...

    def pullback(self, embeddings_ND: NDArray[np.float64], gradient_NK: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, D): the gradient with respect to the embeddings, from the gradient with respect to `apply`'s result."""
        ...

    def rows(self, indices: Sequence[int]) -> TemplateMapping:
        """The mapping under these keys alone, in this order."""
        ...


class TemplateScheme(ABC):
    """A template protection: irreversible, unlinkable and renewable as far as its page says.

    Configured by its constructor's keyword arguments and stateless between calls. Keys come from the operating system.
    """

    @property
    @abstractmethod
    def scheme_id(self) -> str:
        """Name for tables, and for records, as in "identity-mapping"; ASCII, at most 24 characters."""

    @property
    @abstractmethod
    def version(self) -> int:
        """Version of what its records hold; a release that changes their meaning counts it up."""

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
            embedding_D: (D,) with L2 norm 1; never changed in place.
            key: a key of this scheme; store it apart from the template.

        Raises:
            ShapeError: not (D,).
            RangeError: not finite, or not of norm 1.
            UnknownSchemeError: a key of another scheme or other parameters.
        """

    @abstractmethod
    def probe(self, embedding_D: NDArray[np.float32], *, key: SubjectKey, like: ProtectedTemplate) -> ProtectedTemplate:
        """Protect an embedding for one comparison with `like`, the template of the identity that is claimed.

        Raises:
            WrongKeyError: `like` was made under another key; nothing is mapped.
            CorruptTemplateError: `like` was made under this key, and altered since.
            ShapeError, RangeError, UnknownSchemeError: as for `enrol`.
        """

    @abstractmethod
    def score(self, probe: ProtectedTemplate, reference: ProtectedTemplate) -> float:
        """Similarity in [-1, 1], higher is more alike.

        Raises:
            WrongKeyError: the two were made under different keys.
            UnknownSchemeError: one of them is of another scheme or other parameters.
        """

    def renew(self, embedding_D: NDArray[np.float32]) -> tuple[ProtectedTemplate, SubjectKey]:
        """Enrol under a fresh key; then delete the earlier template and key, which are unrelated to these."""
        key = self.new_key()
        return self.enrol(embedding_D, key=key), key

    @abstractmethod
    def mapping(self, keys: Sequence[SubjectKey]) -> TemplateMapping:
        """What someone who holds these keys can compute, one row a key."""

    @abstractmethod
    def guessed_mapping(self, num_rows: int) -> TemplateMapping:
        """What someone without the keys can compute: the same under keys of his own drawing."""

    @abstractmethod
    def to_bytes(self, template: ProtectedTemplate) -> bytes:
        """The record of a template: versioned, self-describing, checksummed; holds no key."""

    @abstractmethod
    def from_bytes(self, record: bytes) -> ProtectedTemplate:
        """A template from its record.

        Raises:
            CorruptTemplateError: foreign, truncated, damaged.
            OutdatedTemplateError: a version that this release does not read.
            UnknownSchemeError: of another scheme or other parameters.
        """

    @abstractmethod
    def key_to_bytes(self, key: SubjectKey) -> bytes:
        """The record of a key; secret, and never stored beside the template's."""

    @abstractmethod
    def key_from_bytes(self, record: bytes) -> SubjectKey:
        """A key from its record; errors as for `from_bytes`."""


class TemplateAttack(ABC):
    """An adversary against protected templates; sees them, and the mapping that its threat model grants."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and records."""

    @property
    @abstractmethod
    def needs(self) -> ThreatModel:
        """What the adversary knows and sees."""

    @abstractmethod
    def run(self, seen: Templates, mapping: TemplateMapping, *, seed: int) -> AttackResult:
        """Act on templates; one row of the result for each row seen.

        Args:
            seen: N templates.
            mapping: N rows; under the deployment's keys if the adversary knows them, else under guessed ones.
            seed: root of every draw.

        Raises:
            ThreatModelError: another type of observation, or keys that the threat model does not grant.
            ShapeError: rows or lengths that do not belong together.
        """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TopMatches:
    """The best k references of each probe, best first; of equal scores the lower index.

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
    """All references at or above a threshold, by probe, then best first; of equal scores the lower index.

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
    """Probes against the gallery that it was made for: rows probes, columns references, higher is more alike."""

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
