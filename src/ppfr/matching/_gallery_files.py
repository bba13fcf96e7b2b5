"""The two files of a keyed gallery, for templates and for keys, and their synchronisation. Suffix: M references."""

from __future__ import annotations

import contextlib
import secrets
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from ppfr.core import ID_BYTES, CorruptTemplateError, PolynomialShape, RangeError, StorageError
from ppfr.matching import _row_files as files
from ppfr.matching._row_files import Commit, RowHeader

Values = Literal["float32", "int8"]
Append = Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]], None]


def row_bytes_of(values: Values, num_values: int) -> int:
    """Size of a row: values, for int8 padding to a multiple of 4 and the inverse norm, then the id."""
    return ID_BYTES + (4 * num_values if values == "float32" else -(-num_values // 4) * 4 + 4)


class GalleryFiles:
    """A file of templates and a file of keys that belong together. Create it with `open`."""

    def __init__(self, templates_path: Path, keys_path: Path, templates: RowHeader, keys: RowHeader) -> None:
        self._templates_path, self._keys_path = templates_path, keys_path
        self._templates, self._keys = templates, keys
        self.values: Values = "int8" if templates.values == "int8" else "float32"
        self.shape = self._checked_shape()

    @classmethod
    def create(cls, templates_path: Path, keys_path: Path, *, shape: PolynomialShape, values: Values) -> None:
        """Create both files, without rows. If one cannot be created, neither remains."""
        gallery_id = secrets.token_bytes(16)
        templates, keys = (
            RowHeader(
                kind=kind,
                values=stored,
                dim=shape.dim,
                num_terms=shape.num_terms,
                overlap=shape.overlap,
                scale=shape.factor,
                row_bytes=row_bytes,
                gallery_id=gallery_id,
            )
            for kind, stored, row_bytes in (
                ("templates", values, row_bytes_of(values, shape.num_windows)),
                ("keys", "keys", 2 * shape.num_terms),
            )
        )
        files.create(templates_path, templates)
        try:
            files.create(keys_path, keys)
        except BaseException:
            templates_path.unlink(missing_ok=True)
            raise

    @classmethod
    def open(cls, templates_path: Path, keys_path: Path) -> Self:
        """Read both headers. Errors as for `KeyedGallery.open`."""
        templates, _ = files.read_header(templates_path, kind="templates")
        keys, _ = files.read_header(keys_path, kind="keys")
        return cls(templates_path, keys_path, templates, keys)

    def num_rows(self) -> int:
        """Number of references in the latest commit."""
        return self._commits()[0].num_rows

    def mapped(self, *, verifies: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Rows of templates and of keys, memory-mapped read-only."""
        latest, latest_keys = self._commits()
        template_rows = files.mapped(self._templates_path, self._templates, latest.num_rows)
        key_rows = files.mapped(self._keys_path, self._keys, latest_keys.num_rows)
        if verifies:
            files.check_rows(self._templates_path, template_rows, latest)
            files.check_rows(self._keys_path, key_rows, latest_keys)
        return template_rows, key_rows

    @contextlib.contextmanager
    def appending(self) -> Iterator[Append]:
        """Lock out other writers. Yields a function that writes rows of templates, rows of keys and ids."""
        try:
            templates, keys = self._templates_path.open("rb+"), self._keys_path.open("rb+")
        except OSError as error:
            raise StorageError(
                f"cannot append to the gallery: {error.strerror or error}; make both files writable"
            ) from error
        with templates, keys:
            files.lock(templates)

            def append(
                template_rows: NDArray[np.uint8], key_rows: NDArray[np.uint8], ids_M16: NDArray[np.uint8]
            ) -> None:
                latest, latest_keys = self._commits()
                ids_crc = zlib.crc32(ids_M16.data.cast("B"), latest.ids_crc)
                # Keys first: if the second write fails, the latest commit of the templates is still the earlier one.
                files.append(keys, self._keys, latest_keys, key_rows, ids_crc)
                files.append(templates, self._templates, latest, template_rows, ids_crc)

            yield append

    def _commits(self) -> tuple[Commit, Commit]:
        """The latest commit of the templates and the matching commit of the keys.

        After an append that was interrupted between the two files, the keys are one commit ahead.
        """
        _, template_commits = files.read_header(self._templates_path, kind="templates")
        _, key_commits = files.read_header(self._keys_path, kind="keys")
        latest = template_commits[0]
        for commit in key_commits:
            if (commit.num_rows, commit.ids_crc) == (latest.num_rows, latest.ids_crc):
                return latest, commit
        raise CorruptTemplateError(
            f"{self._keys_path} does not contain the keys of the templates in {self._templates_path}; restore both "
            "from the same backup"
        )

    def _checked_shape(self) -> PolynomialShape:
        templates, keys = self._templates, self._keys
        same = ("dim", "num_terms", "overlap", "scale", "gallery_id")
        if any(getattr(templates, name) != getattr(keys, name) for name in same):
            raise CorruptTemplateError(
                "the two files belong to different galleries; give the file of keys that belongs to the templates"
            )
        try:
            shape = PolynomialShape(
                dim=templates.dim,
                num_terms=templates.num_terms,
                overlap=templates.overlap,
                scale=None if templates.scale == templates.dim**0.5 else templates.scale,
            )
        except RangeError as error:
            raise CorruptTemplateError(
                "the parameters of the gallery are not valid; restore its files, or enrol again"
            ) from error
        expected = row_bytes_of(self.values, shape.num_windows), 2 * shape.num_terms
        if (templates.row_bytes, keys.row_bytes) != expected:
            raise CorruptTemplateError(
                "the row sizes of the gallery do not match its parameters; restore its files, or enrol again"
            )
        return shape
