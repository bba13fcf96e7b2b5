"""Subject-specific mapping of embeddings by keyed polynomials, as in PolyProtect and HFCF.

Suffixes: N rows, D embedding, K template values, M keys, m terms.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import (
    CorruptTemplateError,
    PolynomialKeys,
    PolynomialShape,
    RangeError,
    ShapeError,
    SubjectKey,
    UnknownSchemeError,
    unit_rows,
)
from ppfr.templates._polynomial_draws import draw_polynomial_keys
from ppfr.templates._polynomial_mapping import PolynomialMapping
from ppfr.templates._recorded import Payload, RecordedScheme, padded
from ppfr.templates._records import Record

_PARAMETERS = struct.Struct("<IHHd")
_ROWS_AT_ONCE = 4096


@final
class IdentityMapping(RecordedScheme):
    """Maps successive windows of the embedding by a polynomial that is specific to the subject.

    p_j = sum_i c_i * (scale * v[j * (m - o) + i]) ** e_i, normalised to norm 1. In verification, a probe is mapped by
    the polynomial of the claimed subject, and the two templates are compared by cosine similarity. In identification,
    the probe is mapped by the polynomial of every subject in the gallery (`ppfr.matching.KeyedMatcher`).

    A key consists of m distinct non-zero integers of magnitude at most `coefficient_bound`, drawn uniformly, and a
    permutation of the exponents 1..m: 40 bits of entropy for m = 5 and bound 50. At scale 1 a template depends on
    little more than the position and sign of the linear term, 2 m possibilities.

    Args:
        dim: n, length of the embeddings.
        num_terms: m, elements per window; 5 in PolyProtect.
        overlap: o, elements that neighbouring windows share, 0..m-1. A larger overlap gives longer templates, better
            recognition and easier inversion.
        coefficient_bound: largest magnitude of a coefficient, at most 127.
        scale: factor of the unit embedding; None for sqrt(n), so that elements have a magnitude of about 1 and their
            powers do not underflow. The smaller the scale, the more the term with exponent 1 dominates.
        payload: precision of stored values.

    Raises:
        RangeError: an argument is out of range.

    Privacy:
        Claims irreversibility, unlinkability of templates under two keys, and renewability. Irreversibility is weak: an
        adversary who has the template and the key can solve for an embedding, more easily with a larger overlap
        (`ppfr.attacks.MappingInversion`, docs/methods/identity-mapping.md). Unlinkability is weak as well: with
        probability 1/m, two keys have the dominant exponent at the same position, and the two templates of one face
        are then similar or opposite. Without the key, a template is protected by at most the 40 bits of the key, and at
        scale 1 by a few.

    References:
        V. Krivokuca Hahn, S. Marcel, "Towards protecting face embeddings in mobile face verification scenarios",
        IEEE T-BIOM 2022 (PolyProtect). V. Krivokuca Hahn, J. Maceiras, S. Marcel, arXiv 2605.03857 (normalised
        embeddings, key selection). D. Han, Y. Li, J. Denzler, VISAPP 2024 (HFCF). Deviations are in
        docs/methods/identity-mapping.md.
    """

    SCHEME_ID = "identity-mapping"
    VERSION = 1

    def __init__(
        self,
        *,
        dim: int = 512,
        num_terms: int = 5,
        overlap: int = 0,
        coefficient_bound: int = 50,
        scale: float | None = None,
        payload: Payload = "float32",
    ) -> None:
        super().__init__(payload=payload)
        self._shape = PolynomialShape(dim=dim, num_terms=num_terms, overlap=overlap, scale=scale)
        min_bound = -(-num_terms // 2)
        if not min_bound <= coefficient_bound <= 127:
            raise RangeError(
                f"coefficient_bound={coefficient_bound}; must be from {min_bound} to 127, since the {num_terms} "
                "coefficients are distinct, non-zero, and stored in one byte each"
            )
        self._bound = coefficient_bound

    @classmethod
    def of_record(cls, record: Record) -> IdentityMapping:
        """The scheme with the parameters of a record.

        Raises:
            UnknownSchemeError: the parameters are not valid for this scheme.
        """
        dim, num_terms, overlap, scale = _PARAMETERS.unpack_from(record.parameters)
        payload: Payload = "float16" if record.payload_kind == "float16" else "float32"
        try:
            given = None if scale == dim**0.5 else scale
            return cls(dim=dim, num_terms=num_terms, overlap=overlap, scale=given, payload=payload)
        except RangeError as error:
            raise UnknownSchemeError(
                "the parameters of the record are not valid for this scheme; enrol again"
            ) from error

    @property
    def scheme_id(self) -> str:
        """Name in tables and records."""
        return self.SCHEME_ID

    @property
    def version(self) -> int:
        """Version of the record contents."""
        return self.VERSION

    @property
    def shape(self) -> PolynomialShape:
        """Windows and scale, as `ppfr.matching.KeyedGallery` takes them."""
        return self._shape

    @property
    def in_dim(self) -> int:
        """D = n."""
        return self._shape.dim

    @property
    def out_dim(self) -> int:
        """K = ceil((n - m) / (m - o)) + 1."""
        return self._shape.num_windows

    def public_config(self) -> Mapping[str, int | float | str]:
        """Constructor arguments. They are not secret."""
        return {
            "dim": self._shape.dim,
            "num_terms": self._shape.num_terms,
            "overlap": self._shape.overlap,
            "coefficient_bound": self._bound,
            "scale": self._shape.factor,
            "payload": self._payload,
        }

    def _parameters(self) -> bytes:
        shape = self._shape
        return padded(_PARAMETERS.pack(shape.dim, shape.num_terms, shape.overlap, shape.factor))

    def _new_material(self) -> bytes:
        keys = self.draw_packed(1)
        return keys.coefficients_Mm.tobytes() + keys.exponents_Mm.tobytes()

    def _check_material(self, material: bytes) -> None:
        try:
            self._unpacked([material]).check()
        except (RangeError, ShapeError, ValueError) as error:
            raise CorruptTemplateError("the key is not a key of this scheme; enrol again under a new key") from error

    def _unpacked(self, materials: Sequence[bytes]) -> PolynomialKeys:
        num_terms = self._shape.num_terms
        bytes_M2m = np.frombuffer(b"".join(materials), dtype=np.uint8).reshape(len(materials), 2 * num_terms)
        return PolynomialKeys(
            coefficients_Mm=np.ascontiguousarray(bytes_M2m[:, :num_terms]).view(np.int8),
            exponents_Mm=np.ascontiguousarray(bytes_M2m[:, num_terms:]),
        )

    def _values(self, unit_D: NDArray[np.float64], material: bytes) -> NDArray[np.float64]:
        mapping = PolynomialMapping(self._shape, self._unpacked([material]), is_deployed=True)
        return np.asarray(mapping.apply(unit_D[None])[0])

    def key_of_packed(self, keys: PolynomialKeys) -> list[SubjectKey]:
        """Subject keys from packed keys, each with a new binding."""
        keys.check()
        rows = zip(keys.coefficients_Mm, keys.exponents_Mm, strict=True)
        return [self._key_of(coefficients.tobytes() + exponents.tobytes()) for coefficients, exponents in rows]

    def draw_packed(self, num_keys: int) -> PolynomialKeys:
        """New keys for many subjects from the operating system's generator, packed as in a keyed gallery."""
        if num_keys < 1:
            raise RangeError(f"num_keys={num_keys}; must be 1 or more")
        return draw_polynomial_keys(num_keys, num_terms=self._shape.num_terms, coefficient_bound=self._bound)

    def packed(self, keys: Sequence[SubjectKey]) -> PolynomialKeys:
        """The part of the keys that the mapping needs, packed for a keyed gallery, without the bindings to records.

        Raises:
            UnknownSchemeError: a key has another scheme or other parameters.
        """
        for key in keys:
            self._check_key(key)
        return self._unpacked([key.material for key in keys])

    def values_of(self, embeddings_ND: ArrayLike, keys: PolynomialKeys) -> NDArray[np.float32]:
        """(N, K) template values of norm 1 of many subjects, as a keyed gallery stores them.

        Args:
            embeddings_ND: (N, D) of L2 norm 1, one row per subject.
            keys: N packed keys.

        Raises:
            ShapeError, RangeError: as for `enrol`.
        """
        array_ND = np.asarray(embeddings_ND)
        if len(array_ND) != len(keys):
            raise ShapeError(f"got {len(array_ND)} embeddings and {len(keys)} keys; give one key per embedding")
        out_NK = np.empty((len(array_ND), self.out_dim), dtype=np.float32)
        for start in range(0, len(array_ND), _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, len(array_ND)))
            part = PolynomialKeys(coefficients_Mm=keys.coefficients_Mm[rows], exponents_Mm=keys.exponents_Mm[rows])
            mapped_NK = PolynomialMapping(self._shape, part, is_deployed=True).apply(
                unit_rows(array_ND[rows], self.in_dim, "embeddings")
            )
            norm_N1 = np.linalg.norm(mapped_NK, axis=1, keepdims=True)
            if not (norm_N1 > 0).all():
                raise RangeError("an embedding is mapped to zero under its key; draw new keys")
            out_NK[rows] = (mapped_NK / norm_N1).astype(self._payload)
        return out_NK

    def mapping(self, keys: Sequence[SubjectKey]) -> PolynomialMapping:
        """The mapping that a holder of these keys can compute, one row per key."""
        return PolynomialMapping(self._shape, self.packed(keys), is_deployed=True)

    def guessed_mapping(self, num_rows: int) -> PolynomialMapping:
        """The mapping under new keys, as drawn by an adversary who does not have the deployment's keys."""
        return PolynomialMapping(self._shape, self.draw_packed(num_rows), is_deployed=False)
