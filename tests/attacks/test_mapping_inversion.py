"""Numerical inversion of templates: gradients, controls, threat models and invalid input."""

from __future__ import annotations

import numpy as np
import pytest

from ppfr.attacks import MappingInversion, templates_threat
from ppfr.core import (
    Embeddings,
    PolynomialKeys,
    RangeError,
    ShapeError,
    TemplateAttack,
    Templates,
    ThreatModelError,
)
from ppfr.templates import ConstantTemplates, IdentityMapping, UnprotectedTemplates, select_key

DIM, NUM = 48, 12


def unit_rows(num, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def seeded_keys(scheme, num):
    """Keys that are the same in every run; real ones come from the operating system."""
    rng, terms = np.random.default_rng(9), scheme.shape.num_terms
    coefficients = np.array([rng.choice([c for c in range(-50, 51) if c], terms, replace=False) for _ in range(num)])
    exponents = np.array([rng.permutation(terms) + 1 for _ in range(num)])
    packed = PolynomialKeys(coefficients_Mm=coefficients.astype(np.int8), exponents_Mm=exponents.astype(np.uint8))
    return scheme.key_of_packed(packed)


def enrolled(scheme, rows):
    is_mapping = isinstance(scheme, IdentityMapping)
    keys = seeded_keys(scheme, len(rows)) if is_mapping else [scheme.new_key() for _ in rows]
    return keys, seen(np.stack([scheme.enrol(row, key=key).values_K for row, key in zip(rows, keys, strict=True)]))


def seen(values):
    return Templates(templates_NK=np.array(values, dtype=np.float32))


def cosines(result, rows):
    np.testing.assert_allclose(np.linalg.norm(result.embeddings_ND, axis=1), 1, atol=1e-9)
    return (result.embeddings_ND * rows).sum(axis=1)


def test_unprotected_templates_are_recovered():
    scheme, rows = UnprotectedTemplates(dim=DIM), unit_rows(NUM)
    keys, templates = enrolled(scheme, rows)
    result = MappingInversion(knows_keys=True, num_starts=1).run(templates, scheme.mapping(keys), seed=0)
    assert isinstance(MappingInversion(knows_keys=True), TemplateAttack)
    assert cosines(result, rows).min() > 0.999 and result.solved_N.all()


def test_constant_templates_give_chance_level():
    scheme, rows = ConstantTemplates(dim=DIM, out_dim=9), unit_rows(60)
    keys, templates = enrolled(scheme, rows)
    result = MappingInversion(knows_keys=True, num_starts=2).run(templates, scheme.mapping(keys), seed=0)
    found = cosines(result, rows)
    assert abs(found.mean()) < 5 / np.sqrt(60 * DIM) and np.abs(found).max() < 0.7


def test_overlap_makes_inversion_easier():
    rows = unit_rows(NUM)
    medians = []
    for overlap in (0, 4):
        scheme = IdentityMapping(dim=DIM, overlap=overlap, scale=1.0)
        keys, templates = enrolled(scheme, rows)
        result = MappingInversion(knows_keys=True, num_starts=3).run(templates, scheme.mapping(keys), seed=0)
        medians.append(float(np.median(cosines(result, rows))))
        assert result.notes["solved"] == pytest.approx(result.solved_N.mean())
    assert medians[0] < 0.6 < 0.85 < medians[1]


@pytest.mark.parametrize("compression", [None, 0.1])
@pytest.mark.parametrize("num_templates", [1, 3])
def test_gradients_equal_finite_differences(compression, num_templates):
    from ppfr.attacks._mapping_inversion import _Objective

    scheme, rows = IdentityMapping(dim=DIM, overlap=2), unit_rows(3)
    keys, templates = enrolled(scheme, rows[:1].repeat(num_templates, axis=0))
    size = None if compression is None else np.linspace(1, 2, num_templates)[:, None] * compression
    objective = _Objective(templates.templates_NK.astype(np.float64), scheme.mapping(keys), size_R1=size)
    point, direction = 3.0 * rows[1], rows[2]
    slope = (objective(point + 1e-6 * direction)[0] - objective(point - 1e-6 * direction)[0]) / 2e-6
    assert objective(point)[1] @ direction == pytest.approx(slope, rel=1e-4, abs=1e-7)
    assert objective(rows[0])[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_compression_recovers_more_from_heavy_tails():
    rows = unit_rows(NUM)
    scheme = IdentityMapping(dim=DIM, overlap=4)
    keys, templates = enrolled(scheme, rows)
    plain, compressed = (
        cosines(
            MappingInversion(knows_keys=True, num_starts=3, compression=c).run(templates, scheme.mapping(keys), seed=0),
            rows,
        )
        for c in (None, 0.1)
    )
    assert compressed.mean() > plain.mean() > 0.1


def test_solved_rows_fit_their_templates():
    """The mapping takes each solved row to its template."""
    scheme, rows = IdentityMapping(dim=DIM, overlap=1), unit_rows(NUM)
    keys, templates = enrolled(scheme, rows)
    mapping = scheme.mapping(keys)
    result = MappingInversion(knows_keys=True, solved_below=1e-4).run(templates, mapping, seed=0)
    mapped = mapping.apply(result.embeddings_ND)
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    fit = 1 - (mapped * templates.templates_NK).sum(axis=1)
    assert result.solved_N.any()
    assert (fit[result.solved_N] < 2e-4).all() and (fit[~result.solved_N] > 0.5e-4).all()


def joint(scheme, rows, *, num_templates, knows_keys=True, **options):
    """Cosines of what is recovered from several templates of each row, under other keys each."""
    keys, templates = enrolled(scheme, rows.repeat(num_templates, axis=0))
    attack = MappingInversion(knows_keys=knows_keys, num_templates=num_templates, **options)
    assert attack.num_templates == num_templates
    mapping = scheme.mapping(keys) if knows_keys else scheme.guessed_mapping(len(keys))
    result = attack.run(templates, mapping, seed=0)
    assert len(result.solved_N) == len(rows) and result.notes["num_templates"] == num_templates
    return cosines(result, rows), result


def test_five_templates_determine_an_embedding_that_one_does_not():
    """48 unknowns: one template has 10 equations, five have 50. At scale 1 they are nearly linear."""
    scheme, rows = IdentityMapping(dim=DIM, scale=1.0), unit_rows(6)
    assert scheme.out_dim < DIM <= 5 * scheme.out_dim
    one, _ = joint(scheme, rows, num_templates=1, num_starts=3)
    five, _ = joint(scheme, rows, num_templates=5, num_starts=3)
    assert one.max() < 0.8
    assert np.median(five) > np.median(one) + 0.2
    copies, _ = joint(UnprotectedTemplates(dim=DIM), rows, num_templates=5, num_starts=1)
    assert copies.min() > 0.999


def test_a_joint_solution_fits_every_template():
    """A row is solved only if its worst template fits: here the second template belongs to another row."""
    scheme, rows = IdentityMapping(dim=DIM, overlap=4, scale=1.0), unit_rows(2)
    keys, templates = enrolled(scheme, rows)
    attack = MappingInversion(knows_keys=True, num_templates=2, num_starts=2)
    assert not attack.run(templates, scheme.mapping(keys), seed=0).solved_N.any()
    assert attack.invert(templates.templates_NK, scheme.mapping(keys), seed=0).shape == (1, DIM)


def test_five_constant_templates_give_chance_level():
    found, _ = joint(ConstantTemplates(dim=DIM, out_dim=9), unit_rows(60), num_templates=5, num_starts=1)
    assert abs(found.mean()) < 5 / np.sqrt(60 * DIM) and np.abs(found).max() < 0.7


def test_without_the_keys_another_embedding_is_found():
    scheme, rows = IdentityMapping(dim=DIM, overlap=4, scale=1.0), unit_rows(NUM)
    _, templates = enrolled(scheme, rows)
    result = MappingInversion(knows_keys=False, num_starts=2).run(templates, scheme.guessed_mapping(NUM), seed=0)
    assert abs(np.median(cosines(result, rows))) < 0.4


def test_public_embeddings_are_starting_points():
    """One iteration from embeddings near the target subject stays near."""
    scheme, rows = IdentityMapping(dim=DIM), unit_rows(1)
    keys, templates = enrolled(scheme, rows)
    public = rows + 0.02 * unit_rows(8, seed=3)
    near = MappingInversion(knows_keys=True, public_PD=public, num_starts=2)
    assert cosines(near.run(templates, scheme.mapping(keys), seed=0), rows)[0] > 0.9
    assert near.needs.has_public_faces and near.needs.knows_recogniser
    with pytest.raises(ShapeError, match="public embeddings have 47 values"):
        MappingInversion(knows_keys=True, public_PD=public[:, 1:]).run(templates, scheme.mapping(keys), seed=0)


def test_runs_repeat_and_rows_are_independent():
    scheme, rows = IdentityMapping(dim=DIM), unit_rows(3)
    keys, templates = enrolled(scheme, rows)
    attack = MappingInversion(knows_keys=True, num_starts=2, max_iterations=30)
    both = [attack.run(templates, scheme.mapping(keys), seed=4).embeddings_ND for _ in range(2)]
    np.testing.assert_array_equal(*both)
    first = attack.run(seen(templates.templates_NK[:1]), scheme.mapping(keys[:1]), seed=4)
    np.testing.assert_array_equal(first.embeddings_ND[0], both[0][0])
    other = attack.run(templates, scheme.mapping(keys), seed=5).embeddings_ND
    assert np.abs(other - both[0]).max() > 1e-3


def test_inversion_can_select_keys():
    scheme, row = IdentityMapping(dim=DIM, overlap=2, scale=1.0), unit_rows(1)[0].astype(np.float32)
    attack = MappingInversion(knows_keys=True, num_starts=1, max_iterations=100)
    chosen = select_key(
        scheme, row, invert=lambda values, mapping: attack.invert(values, mapping, seed=1), threshold=0.99
    )
    assert chosen.is_below
    hopeless = select_key(
        UnprotectedTemplates(dim=DIM),
        row,
        invert=lambda values, mapping: attack.invert(values, mapping, seed=1),
        threshold=0.3,
        max_keys=2,
    )
    assert not hopeless.is_below and hopeless.num_tried == 2


def test_threat_models_are_enforced():
    scheme, rows = IdentityMapping(dim=DIM), unit_rows(2)
    keys, templates = enrolled(scheme, rows)
    informed, blind = (MappingInversion(knows_keys=knows) for knows in (True, False))
    assert informed.needs == templates_threat(knows_keys=True) and informed.needs.sees is Templates
    assert "each victim's protected templates" in informed.needs.in_words()
    with pytest.raises(ThreatModelError, match="does not know the keys"):
        blind.run(templates, scheme.mapping(keys), seed=0)
    with pytest.raises(ThreatModelError, match="was given a guessed mapping"):
        informed.run(templates, scheme.guessed_mapping(2), seed=0)
    embeddings = Embeddings(embeddings_ND=templates.templates_NK)
    with pytest.raises(ThreatModelError, match="grants Templates only"):
        informed.run(embeddings, scheme.mapping(keys), seed=0)


def test_invalid_input_is_rejected():
    scheme, rows = IdentityMapping(dim=DIM), unit_rows(2)
    keys, templates = enrolled(scheme, rows)
    attack = MappingInversion(knows_keys=True)
    with pytest.raises(ShapeError, match="one template per key"):
        attack.run(templates, scheme.mapping(keys[:1]), seed=0)
    with pytest.raises(ShapeError, match="num_templates=3"):
        MappingInversion(knows_keys=True, num_templates=3).run(templates, scheme.mapping(keys), seed=0)
    with pytest.raises(RangeError, match="rows of zeros"):
        attack.run(seen(np.zeros((2, scheme.out_dim))), scheme.mapping(keys), seed=0)
    for bad, text in (
        ({"num_starts": 0}, "at least 1"),
        ({"num_templates": 0}, "num_templates=0"),
        ({"max_iterations": 0}, "at least 1"),
        ({"solved_below": 0.0}, r"not in \(0, 2\)"),
        ({"compression": 0.0}, "not positive"),
        ({"public_PD": np.zeros((2, 4))}, "rows of zeros"),
    ):
        with pytest.raises(RangeError, match=text):
            MappingInversion(knows_keys=True, **bad)
    with pytest.raises(ShapeError, match="give \\(P, D\\)"):
        MappingInversion(knows_keys=True, public_PD=np.ones(4))
