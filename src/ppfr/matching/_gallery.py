"""A keyed gallery: templates and packed keys of many subjects, in memory or in two memory-mapped files.

Suffixes: M references, K template values, C selected references.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import (
    ID_BYTES,
    CorruptTemplateError,
    InvalidInputError,
    PolynomialKeys,
    PolynomialShape,
    ProblemsError,
    RangeError,
    ShapeError,
    UnsupportableError,
    new_reference_ids,
    unit_norms,
)
from ppfr.matching._gallery_files import GalleryFiles, Values, row_bytes_of
from ppfr.matching._scanning import quantised

_ROWS_AT_ONCE = 1 << 16
_NORM_TOLERANCE = 2e-3


@final
class KeyedGallery:
    """Templates of norm 1 and, stored separately, the packed keys under which they were made, by index.

    Create one with `in_memory`, `create` or `open`. References can only be appended, so indices are stable. To delete
    references, write the others to a new gallery (`copy_to`).

    Privacy:
        An adversary who has both files has the keys of all templates. Store the file of keys where only the matcher can
        read it. The checksums detect damage, not forgery. Records (`TemplateScheme.to_bytes`), in contrast, are bound
        to their keys.
    """

    def __init__(
        self,
        shape: PolynomialShape,
        values: Values,
        template_rows: NDArray[np.uint8],
        key_rows: NDArray[np.uint8],
        on_disk: GalleryFiles | None = None,
    ) -> None:
        self._shape, self._values, self._on_disk = shape, values, on_disk
        self._template_rows, self._key_rows = template_rows, key_rows
        self._sorted_ids: NDArray[np.bytes_] | None = None  # built on the first append

    @classmethod
    def in_memory(
        cls,
        shape: PolynomialShape,
        values_MK: ArrayLike,
        keys: PolynomialKeys,
        *,
        ids: NDArray[np.uint8] | None = None,
        values: Values = "float32",
    ) -> KeyedGallery:
        """A gallery in memory.

        Args:
            shape: windows and scale of the scheme.
            values_MK: (M, K) templates of norm 1.
            keys: M packed keys.
            ids: (M, 16) uint8, distinct; None draws them.
            values: "float32", or "int8" for a quarter of the memory.

        Raises:
            ShapeError, RangeError, ProblemsError: as for `append`.
        """
        _check_values_kind(values)
        empty = np.empty((0, row_bytes_of(values, shape.num_windows)), dtype=np.uint8)
        gallery = cls(shape, values, empty, np.empty((0, 2 * shape.num_terms), dtype=np.uint8))
        gallery.append(values_MK, keys, ids=ids)
        gallery._sorted_ids = None
        return gallery

    @classmethod
    def create(
        cls, templates_path: Path, keys_path: Path, *, shape: PolynomialShape, values: Values = "float32"
    ) -> KeyedGallery:
        """An empty gallery in two new files, which only their owner may read.

        Raises:
            InvalidInputError: a file exists, or both paths are the same.
            StorageError: the files cannot be written.
        """
        _check_values_kind(values)
        templates_path, keys_path = Path(templates_path), Path(keys_path)
        if templates_path.resolve() == keys_path.resolve():
            raise InvalidInputError(f"{templates_path} is given for templates and for keys; use two different files")
        GalleryFiles.create(templates_path, keys_path, shape=shape, values=values)
        return cls.open(templates_path, keys_path)

    @classmethod
    def open(cls, templates_path: Path, keys_path: Path, *, verifies: bool = True) -> KeyedGallery:
        """A gallery from its files, memory-mapped read-only. Rows that are not searched take no memory.

        Args:
            templates_path: the file of templates.
            keys_path: the file of keys.
            verifies: read all rows once and compare them with the checksums. If False, only headers, sizes and the
                validity of keys are checked.

        Raises:
            CorruptTemplateError: a file is absent, truncated, damaged or not a gallery file, or the two files do not
                belong together.
            OutdatedTemplateError: this release does not read the version.
        """
        templates_path, keys_path = Path(templates_path), Path(keys_path)
        on_disk = GalleryFiles.open(templates_path, keys_path)
        template_rows, key_rows = on_disk.mapped(verifies=verifies)
        gallery = cls(on_disk.shape, on_disk.values, template_rows, key_rows, on_disk)
        gallery._check_keys()
        return gallery

    @property
    def shape(self) -> PolynomialShape:
        """Windows and scale."""
        return self._shape

    @property
    def values(self) -> Values:
        """How template values are stored."""
        return self._values

    def __len__(self) -> int:
        return len(self._template_rows)

    @property
    def num_bytes(self) -> int:
        """Size of templates, ids and keys, in memory or mapped."""
        return self._template_rows.size + self._key_rows.size

    def append(
        self, values_MK: ArrayLike, keys: PolynomialKeys, *, ids: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Append references, all or none. Files are extended without rewriting existing rows.

        Args:
            values_MK: (M, K) templates of norm 1.
            keys: M packed keys.
            ids: (M, 16) uint8; None draws them.

        Returns:
            The ids.

        Raises:
            ShapeError: the shapes do not match.
            RangeError: values are not finite or not of norm 1, or keys are not valid.
            ProblemsError: ids occur twice or are already in the gallery; lists all of them. Nothing was added.
            StorageError: the files cannot be written. Nothing was added.
        """
        unit_MK = self._checked(values_MK, keys)
        ids_M16 = new_reference_ids(len(unit_MK)) if ids is None else np.ascontiguousarray(ids, dtype=np.uint8)
        if ids_M16.shape != (len(unit_MK), ID_BYTES):
            raise ShapeError(f"ids have shape {ids_M16.shape}; must be ({len(unit_MK)}, {ID_BYTES}) bytes")
        template_rows = self._packed(unit_MK, ids_M16)
        key_rows = np.concatenate([keys.coefficients_Mm.view(np.uint8), keys.exponents_Mm], axis=1)
        if self._on_disk is None:
            self._reject_duplicates(ids_M16)
            self._template_rows = _joined(self._template_rows, template_rows)
            self._key_rows = _joined(self._key_rows, key_rows)
        else:
            with self._on_disk.appending() as append:
                self._refresh(self._on_disk)
                self._reject_duplicates(ids_M16)
                append(template_rows, key_rows, ids_M16)
            self._refresh(self._on_disk)
        assert self._sorted_ids is not None  # built by the search for duplicates
        new_M = np.sort(_comparable(ids_M16))
        self._sorted_ids = np.insert(self._sorted_ids, np.searchsorted(self._sorted_ids, new_M), new_M)
        return ids_M16

    def ids_of(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """(C, 16) ids of references by index."""
        return np.ascontiguousarray(self._template_rows[np.asarray(indices), -ID_BYTES:])

    def keys_of(self, indices: ArrayLike) -> PolynomialKeys:
        """Packed keys of references by index."""
        rows, num_terms = self._key_rows[np.asarray(indices)], self._shape.num_terms
        return PolynomialKeys(
            coefficients_Mm=np.ascontiguousarray(rows[:, :num_terms]).view(np.int8),
            exponents_Mm=np.ascontiguousarray(rows[:, num_terms:]),
        )

    def templates_of(self, indices: ArrayLike) -> NDArray[np.float64]:
        """(C, K) templates by index, normalised in double precision; dequantised if stored as int8."""
        rows, num_values = self._template_rows[np.asarray(indices)], self._shape.num_windows
        if self._values == "int8":
            stored_CK = np.ascontiguousarray(rows[:, :num_values]).view(np.int8).astype(np.float64)
        else:
            stored_CK = np.ascontiguousarray(rows[:, : 4 * num_values]).view("<f4").astype(np.float64)
        return np.asarray(stored_CK / np.linalg.norm(stored_CK, axis=1, keepdims=True))

    def copy_to(
        self,
        templates_path: Path,
        keys_path: Path,
        *,
        without: Sequence[bytes] = (),
        values: Values | None = None,
    ) -> KeyedGallery:
        """Write this gallery to new files, optionally without some references or with another kind of values.

        Args:
            templates_path: new file of templates.
            keys_path: new file of keys.
            without: ids of references to omit, for deletion or renewal.
            values: kind of values in the copy; None keeps it.

        Raises:
            InvalidInputError: an id is not in the gallery, or a file exists.
            StorageError: the files cannot be written.
        """
        dropped = set(map(bytes, without))
        ids_M16 = np.ascontiguousarray(self._template_rows[:, -ID_BYTES:])
        is_kept_M = np.array([bytes(row) not in dropped for row in ids_M16], dtype=bool)
        if int((~is_kept_M).sum()) != len(dropped):
            num_unknown = len(dropped) - int((~is_kept_M).sum())
            raise InvalidInputError(
                f"{num_unknown} of the {len(dropped)} ids in `without` are not in the gallery; give ids from `ids_of`"
            )
        kept_C = np.flatnonzero(is_kept_M)
        copy = KeyedGallery.create(
            templates_path, keys_path, shape=self._shape, values=self._values if values is None else values
        )
        for start in range(0, len(kept_C), _ROWS_AT_ONCE):
            some_C = kept_C[start : start + _ROWS_AT_ONCE]
            copy.append(self.templates_of(some_C).astype(np.float32), self.keys_of(some_C), ids=ids_M16[some_C])
        return copy

    def buffers(self) -> tuple[NDArray[np.int8], NDArray[np.generic], NDArray[np.float32], tuple[int, int, int, int]]:
        """Keys, values, inverse norms and their layout for `_kernels.scan_keyed`, without copying."""
        rows = self._template_rows
        flat, row_bytes = rows.reshape(-1), rows.shape[1]
        keys = self._key_rows.reshape(-1).view(np.int8)
        if self._values == "float32":
            return keys, flat.view("<f4"), np.empty(0, np.float32), (row_bytes // 4, 0, 0, self._shape.num_terms)
        norm_at = (row_bytes - ID_BYTES) // 4 - 1
        layout = (row_bytes, norm_at, row_bytes // 4, self._shape.num_terms)
        return keys, flat.view(np.int8), flat.view("<f4"), layout

    def _checked(self, values_MK: ArrayLike, keys: PolynomialKeys) -> NDArray[np.float32]:
        array_MK = np.asarray(values_MK, dtype=np.float32)
        if array_MK.ndim != 2 or array_MK.shape[1] != self._shape.num_windows or len(array_MK) == 0:
            raise ShapeError(
                f"templates have shape {array_MK.shape}; must be (M, {self._shape.num_windows}) with M >= 1"
            )
        if keys.coefficients_Mm.shape != (len(array_MK), self._shape.num_terms):
            raise ShapeError(
                f"keys have shape {keys.coefficients_Mm.shape}; must be ({len(array_MK)}, {self._shape.num_terms}), "
                "one key per template"
            )
        keys.check()
        norm_M = np.concatenate(
            [unit_norms(array_MK[rows], "templates", tolerance=_NORM_TOLERANCE) for rows in _chunks(len(array_MK))]
        )
        is_off_M = np.abs(norm_M - 1) > 1e-6  # for example from float16 records; other rows keep their exact bits
        if is_off_M.any():
            array_MK = array_MK.copy()
            array_MK[is_off_M] /= norm_M[is_off_M, None].astype(np.float32)
        return array_MK

    def _packed(self, unit_MK: NDArray[np.float32], ids_M16: NDArray[np.uint8]) -> NDArray[np.uint8]:
        num_values = self._shape.num_windows
        rows = np.zeros((len(unit_MK), row_bytes_of(self._values, num_values)), dtype=np.uint8)
        rows[:, -ID_BYTES:] = ids_M16
        for part in _chunks(len(unit_MK)):  # temporary arrays are only as large as one part
            if self._values == "float32":
                rows[part, : 4 * num_values] = np.ascontiguousarray(unit_MK[part], dtype="<f4").view(np.uint8)
                continue
            bytes_MK, inverse_norm_M = quantised(unit_MK[part])
            rows[part, :num_values] = bytes_MK.view(np.uint8)
            rows[part, -ID_BYTES - 4 : -ID_BYTES] = inverse_norm_M.astype("<f4").view(np.uint8).reshape(-1, 4)
        return rows

    def _reject_duplicates(self, ids_M16: NDArray[np.uint8]) -> None:
        new_M = _comparable(ids_M16)
        if self._sorted_ids is None or len(self._sorted_ids) != len(self):
            self._sorted_ids = np.sort(_comparable(self._template_rows[:, -ID_BYTES:]))
        at_M = np.minimum(np.searchsorted(self._sorted_ids, new_M), max(len(self._sorted_ids) - 1, 0))
        is_known_M = self._sorted_ids[at_M] == new_M if len(self._sorted_ids) else np.zeros(len(new_M), dtype=bool)
        _, first = np.unique(new_M, return_index=True)
        is_first_M = np.isin(np.arange(len(new_M)), first)
        problems = [
            f"entry {place}: its id "
            + ("is already in the gallery" if is_known_M[place] else "occurs more than once in the given ids")
            for place in np.flatnonzero(is_known_M | ~is_first_M)
        ]
        if problems:
            raise ProblemsError("nothing was added to the gallery", problems)

    def _refresh(self, on_disk: GalleryFiles) -> None:
        """Map the rows that this or another process has appended."""
        if on_disk.num_rows() != len(self):
            self._template_rows, self._key_rows = on_disk.mapped(verifies=False)

    def _check_keys(self) -> None:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            try:
                self.keys_of(np.arange(start, min(start + _ROWS_AT_ONCE, len(self)))).check()
            except RangeError as error:
                raise CorruptTemplateError(
                    "the file of keys of the gallery contains invalid keys; restore it, or enrol again"
                ) from error

    def __repr__(self) -> str:
        return f"KeyedGallery(num_references={len(self)}, values={self._values!r}, contents=<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise UnsupportableError(
            "a gallery contains templates and keys and cannot be pickled; store it in files with copy_to"
        )


def _check_values_kind(values: str) -> None:
    if values not in ("float32", "int8"):
        raise InvalidInputError(f"values={values!r}; allowed: float32, int8")


def _chunks(num_rows: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS_AT_ONCE, num_rows)) for start in range(0, num_rows, _ROWS_AT_ONCE))


def _comparable(ids_M16: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """(M,) ids as one value each. All have the same length, so stripped trailing zeros cannot make two ids equal."""
    return np.ascontiguousarray(ids_M16).view(f"S{ID_BYTES}").reshape(-1)


def _joined(rows: NDArray[np.uint8], more: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([rows, more]) if len(rows) else more
