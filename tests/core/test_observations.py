"""Observations accept what they describe only, show no values, and a threat model grants one type of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ppfr.core import (
    DecisionOracle,
    Embeddings,
    InvalidInputError,
    MaskedImages,
    MatchOracle,
    MixedImages,
    Observation,
    RangeError,
    ScoreOracle,
    ShapeError,
    Templates,
    ThreatModel,
    ThreatModelError,
)

KINDS = {
    MaskedImages: "masked_images",
    MixedImages: "mixed_images",
    Embeddings: "embeddings",
    Templates: "templates",
    ScoreOracle: "scores",
    DecisionOracle: "decisions",
}


def threat(sees: Any) -> ThreatModel:
    return ThreatModel(name="reader", sees=sees, knows_secret=False, knows_recogniser=False)


@pytest.mark.parametrize("images_of", [MaskedImages, MixedImages])
def test_images_reject_other_shapes_and_values_that_are_not_finite(images_of: type[MaskedImages]) -> None:
    for shape in ((0, 3, 4, 4), (3, 4, 4), (2, 3)):
        with pytest.raises(ShapeError, match=f"{shape}".replace("(", r"\(").replace(")", r"\)")):
            images_of(images_NKPQ=torch.rand(shape))
    for value in (torch.nan, torch.inf):
        with pytest.raises(RangeError, match="images_NKPQ"):
            images_of(images_NKPQ=torch.full((1, 3, 4, 4), value))


def test_templates_reject_other_shapes_and_values_that_are_not_finite() -> None:
    for shape in ((0, 3), (3,), (2, 3, 4)):
        with pytest.raises(ShapeError, match="templates_NK"):
            Templates(templates_NK=np.ones(shape))
    with pytest.raises(RangeError, match="templates_NK"):
        Templates(templates_NK=np.full((1, 3), np.nan))


def test_embeddings_reject_rows_of_another_norm() -> None:
    with pytest.raises(RangeError, match="1 of 2 embeddings"):
        Embeddings(embeddings_ND=np.diag([1.0, 2.0]))
    with pytest.raises(ShapeError):
        Embeddings(embeddings_ND=np.empty((0, 3)))
    assert len(Embeddings(embeddings_ND=np.eye(3)).embeddings_ND) == 3


def test_observations_show_their_number_and_no_value() -> None:
    images, rows = torch.full((2, 1, 1, 1), 0.125), np.eye(3)
    seen: tuple[tuple[Observation, int], ...] = (
        (MaskedImages(images_NKPQ=images), 2),
        (MixedImages(images_NKPQ=images), 2),
        (Embeddings(embeddings_ND=rows), 3),
        (Templates(templates_NK=rows), 3),
    )
    for each, num in seen:
        text = repr(each)
        assert text.startswith(f"{type(each).__name__}(num={num}") and "redacted" in text
        assert "0.125" not in text and "array" not in text and "tensor" not in text


def test_threat_model_is_written_to_records_by_the_kind_of_observation() -> None:
    for observation, kind in KINDS.items():
        model = threat(observation)
        assert model.as_dict() == {**dataclasses.asdict(model), "sees": kind}
        assert observation.in_words in model.in_words()


@pytest.mark.parametrize("sees", ["masked_images", torch.rand(1), object, Observation, None])
def test_threat_model_rejects_what_is_not_a_type_of_observation(sees: Any) -> None:
    with pytest.raises(InvalidInputError, match="sees="):
        threat(sees)


def test_threat_model_grants_one_type() -> None:
    seen = Templates(templates_NK=np.eye(3))
    threat(Templates).check(seen, attack="solver")
    with pytest.raises(ThreatModelError, match="solver was given Templates, but its threat model grants MaskedImages"):
        threat(MaskedImages).check(seen, attack="solver")


def test_match_oracle_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        MatchOracle(lambda probes, targets: probes[:, 0], num_targets=1, dim=1)  # type: ignore[abstract]
