"""Damaged galleries raise the documented errors and never return other contents than were stored."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.core import CorruptTemplateError, OutdatedTemplateError
from ppfr.matching import KeyedGallery
from support.damage import outcomes


def contents(gallery):
    """All rows, as bytes, and how they are stored."""
    every = np.arange(len(gallery))
    stored = gallery.keys_of(every)
    parts = gallery.ids_of(every), gallery.templates_of(every), stored.coefficients_Mm, stored.exponents_Mm
    return tuple(part.tobytes() for part in parts), len(gallery), gallery.shape, gallery.values


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("damaged", ["templates", "keys"])
def test_a_damaged_gallery_is_detected_when_it_is_opened(make_enrolled, tmp_path, values, damaged):
    shape, _, templates, keys = make_enrolled(30, 16, 3, 1)
    paths = {"templates": tmp_path / "templates", "keys": tmp_path / "keys"}
    gallery = KeyedGallery.create(*paths.values(), shape=shape, values=values)
    empty = contents(gallery)  # what remains if the latest commit of the templates is damaged, as after a torn write
    gallery.append(templates, keys)
    whole = paths[damaged].read_bytes()

    def read(content):
        # A new file each time: shortening a file that is mapped would end the process.
        paths[damaged].unlink()
        paths[damaged].write_bytes(content)
        paths[damaged].chmod(0o600)
        return contents(KeyedGallery.open(*paths.values()))

    found = outcomes(whole, 450, read, (CorruptTemplateError, OutdatedTemplateError), seed=3, earlier=[empty])
    assert found["CorruptTemplateError"] > 100
