"""Gallery files of format version 1. They must remain readable: do not regenerate these bytes."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

from ppfr.matching import KeyedGallery, KeyedMatcher

# (templates, keys), compressed
GOLDEN = {
    "float32": (
        "c-jjHa0_yG^a){PfB+64W@cbyIBQ*>Hg5r&g923iOvV3C^&PTDo`tit?_%0C$uVec+fE_X1*r$@PfUGmah72e3@e~;>fqwhP"
        "#FFImhYLM^v*4JY`W^yCRR_|t~eSxqhJ(_f>AIEM!_f;1*2dT3@@<ji<RB3FT3n|%z5mAY<mVqCT12^Hg*n9E^Z!PKK|`Ohw"
        "Pjlzp#6Dligm&N!ngOP)JxrR7_k#Qc7AzR!$xOd1^2-",
        "c-jjHa0_yG^zmk7U}69P4j^V`U}QLJU7t2@0h<FG0|cC@`2VTCL-xqCaF+I6Oq(WITuR_v&Gs?RP0XfglIXL!45MIJ0fkcs7"
        "mtR*@CS@gnh8pWW-Jcqs#BY2^Geo!G;~J6C>RB!U=)mkQ7{Td!6+DB;HMEY6Eh<t(_cm=W&nNf9|i",
    ),
    "int8": (
        "c-jjHa0_yG^a){PU}OLR4j^U*vd>!Ar_Ecy<{-fU0c%zr4@;ANy7_pJ_m}!VPxNLhS*K_{*s;AgSZw9r&1b$ajDleW6iyvnJ"
        "Q@naA232`CMcb;bFEBQo!Z36f{gCb&>01zU=)mkQ7{Td!6+C7qhOfz^Bm&q{{-)`W?*DuW?^Mx=iubx=Hcbz_m9u7Kfhy+wS"
        "b_Iu!yLbxP+vXw2Z8rJOKQ^DRB",
        "c-jjHa0_yG^zmk7U}69P4j^V`U}QLJU7t2@0h<FG0|cyDbv!Ih`swE5LEc~L|2)x)`f5G@jrr6?S8r@jaB+NjpJ5aXE1+=d;"
        "NsCx82*3}N;5&}(2T_aU3F>`ZC=URkA}`D7zLwX6pVsVFbYP&C>RC93;Z-<W@2V!Wctg<#0&sss3Kn",
    ),
}


@pytest.mark.parametrize("values", GOLDEN)
def test_golden_files_of_version_1(tmp_path, values):
    paths = tmp_path / "templates", tmp_path / "keys"
    for path, packed in zip(paths, GOLDEN[values], strict=True):
        path.write_bytes(zlib.decompress(base64.b85decode(packed)))
    gallery = KeyedGallery.open(*paths)
    assert len(gallery) == 2 and gallery.values == values
    assert (gallery.shape.dim, gallery.shape.num_terms, gallery.shape.overlap) == (8, 3, 1)
    assert gallery.shape.factor == 8**0.5
    expected = np.arange(1, 2 * gallery.shape.num_windows + 1).reshape(2, -1)
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(gallery.templates_of([0, 1]), expected, atol=1e-7 if values == "float32" else 5e-3)
    keys = gallery.keys_of([0, 1])
    np.testing.assert_array_equal(keys.coefficients_Mm, [[-7, 50, 3], [1, 2, -3]])
    np.testing.assert_array_equal(keys.exponents_Mm, [[2, 3, 1], [1, 2, 3]])
    np.testing.assert_array_equal(gallery.ids_of([0, 1]), np.arange(32).reshape(2, 16))
    assert KeyedMatcher(gallery).top_k(np.eye(8)[:1], k=2).score_Nk.shape == (1, 2)
    gallery.append(expected[:1], gallery.keys_of([0]))
    assert len(KeyedGallery.open(*paths)) == 3
