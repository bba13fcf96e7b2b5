"""Identity-specific mapping of embeddings by keyed polynomials (PolyProtect; HFCF maps each identity by its own)."""

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
    """A template is what the subject's own polynomial makes of successive windows of the embedding.

    p_j = sum_i c_i * (scale * v[j * (m - o) + i]) ** e_i, brought to norm 1; a probe goes through the polynomial of the
    identity that is claimed, and the two are compared by cosine. In 1:N every gallery identity has its own polynomial
    and the probe goes through all of them (`ppfr.matching.KeyedMatcher`).

    A key is m distinct non-zero integers of magnitude at most `coefficient_bound`, uniformly drawn, and an order of the
    exponents 1..m: about 40 bits for m = 5 and bound 50, so a key is a parameter to be kept, not a password to guess.

    Args:
        dim: n, length of the embeddings.
        num_terms: m, elements in a window; 5 is usual.
        overlap: o, elements that neighbouring windows share, 0..m-1: more gives longer templates, better recognition
            and easier inversion.
        coefficient_bound: largest magnitude of a coefficient, at most 127.
        scale: what the unit embedding is multiplied by; None for sqrt(n), so that elements are of size 1 and no power
            of them underflows. The smaller the scale, the more the term with exponent 1 outweighs the others.
        payload: precision of stored values.

    Raises:
        RangeError: an argument outside what is stated.

    Privacy:
        Claims that a template does not give the embedding back (irreversibility), that templates of one face under two
        keys cannot be told to be of one face (unlinkability), and that it can be replaced (renewability). The first is
        weak: who has template and key solves for an embedding, the more easily the larger the overlap
        (`ppfr.attacks.MappingInversion`, docs/methods/identity-mapping.md). So is the second: two keys agree with
        chance 1/m in the place of the exponent that dominates, and then the two templates are alike or opposite.
        Without the key a template is protected by the key's 40 bits at best.

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
        least = -(-num_terms // 2)
        if not least <= coefficient_bound <= 127:
            raise RangeError(
                f"coefficient_bound={coefficient_bound} is not in {least}..127: {num_terms} coefficients are distinct, "
                "not zero, and stored in a byte each"
            )
        self._bound = coefficient_bound

    @classmethod
    def of_record(cls, record: Record) -> IdentityMapping:
        """The scheme that made a record.

        Raises:
            UnknownSchemeError: its parameters are none of this scheme.
        """
        dim, num_terms, overlap, scale = _PARAMETERS.unpack_from(record.parameters)
        payload: Payload = "float16" if record.payload_kind == "float16" else "float32"
        try:
            kept = None if scale == dim**0.5 else scale
            return cls(dim=dim, num_terms=num_terms, overlap=overlap, scale=kept, payload=payload)
        except RangeError as error:
            raise UnknownSchemeError("the record's parameters are none of this release; enrol again") from error

    @property
    def scheme_id(self) -> str:
        """Name for tables and records."""
        return self.SCHEME_ID

    @property
    def version(self) -> int:
        """Version of what records hold."""
        return self.VERSION

    @property
    def shape(self) -> PolynomialShape:
        """Windows and scale; a keyed matcher is made for it."""
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
        """Constructor arguments; none is secret."""
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
            raise CorruptTemplateError("the key is none of this scheme; enrol again under a fresh key") from error

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
        """Subject keys of packed ones, each with a fresh binding."""
        keys.check()
        rows = zip(keys.coefficients_Mm, keys.exponents_Mm, strict=True)
        return [self._key_of(coefficients.tobytes() + exponents.tobytes()) for coefficients, exponents in rows]

    def draw_packed(self, num_keys: int) -> PolynomialKeys:
        """Fresh keys of many identities from the operating system's generator, packed as a keyed gallery holds them."""
        if num_keys < 1:
            raise RangeError(f"num_keys={num_keys}; draw at least one")
        return draw_polynomial_keys(num_keys, num_terms=self._shape.num_terms, coefficient_bound=self._bound)

    def packed(self, keys: Sequence[SubjectKey]) -> PolynomialKeys:
        """The part of keys that the mapping needs, packed for a keyed gallery; what binds them to records is left out.

        Raises:
            UnknownSchemeError: a key of another scheme or other parameters.
        """
        for key in keys:
            self._check_key(key)
        return self._unpacked([key.material for key in keys])

    def values_of(self, embeddings_ND: ArrayLike, keys: PolynomialKeys) -> NDArray[np.float32]:
        """(N, K) template values of many identities at once, of norm 1, as a keyed gallery holds them.

        Args:
            embeddings_ND: (N, D) of L2 norm 1, one an identity.
            keys: N packed keys.

        Raises:
            ShapeError, RangeError: as for `enrol`.
        """
        array_ND = np.asarray(embeddings_ND)
        if len(array_ND) != len(keys):
            raise ShapeError(f"{len(array_ND)} embeddings and {len(keys)} keys; give one key for each")
        out_NK = np.empty((len(array_ND), self.out_dim), dtype=np.float32)
        for start in range(0, len(array_ND), _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, len(array_ND)))
            part = PolynomialKeys(coefficients_Mm=keys.coefficients_Mm[rows], exponents_Mm=keys.exponents_Mm[rows])
            mapped_NK = PolynomialMapping(self._shape, part, is_deployed=True).apply(
                unit_rows(array_ND[rows], self.in_dim, "embeddings")
            )
            norm_N1 = np.linalg.norm(mapped_NK, axis=1, keepdims=True)
            if not (norm_N1 > 0).all():
                raise RangeError("an embedding is mapped to nothing under its key; draw other keys")
            out_NK[rows] = (mapped_NK / norm_N1).astype(self._payload)
        return out_NK

    def mapping(self, keys: Sequence[SubjectKey]) -> PolynomialMapping:
        """What someone who holds these keys can compute, one row a key."""
        return PolynomialMapping(self._shape, self.packed(keys), is_deployed=True)

    def guessed_mapping(self, num_rows: int) -> PolynomialMapping:
        """The same under fresh keys, as someone without the deployment's draws them."""
        return PolynomialMapping(self._shape, self.draw_packed(num_rows), is_deployed=False)
